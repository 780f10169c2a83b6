// furcate as users get it: the built dist/furcate.js, backend wasm.

import { pathToFileURL } from "node:url";
import type { LoadOptions, Model, Source } from "../../src/api.ts";
import { type Engine, type Many, ROOT, summarise } from "./engine.ts";

interface Furcate {
  load(source: Source, options?: LoadOptions): Promise<Model>;
}

/** The built bundle. */
export function importFurcate(): Promise<Furcate> {
  return import(pathToFileURL(`${ROOT}/dist/furcate.js`).href);
}

export async function createFurcate(): Promise<Engine> {
  const furcate = await importFurcate();
  let model: Model;
  let turn = 0;

  /** The prompt's ids with a first token of their own, so that no call finds its prefix in the cache. */
  function freshIds(prompt: string): Uint32Array {
    const ids = model.tokenizer.encode(prompt, { bos: true });
    ids[0] = 1000 + turn++;
    return ids;
  }

  return {
    async load(file) {
      model = await furcate.load(file, { backend: "wasm" });
      await model.generate([1], { maxTokens: 1, temperature: 0, ignoreEos: true });
    },

    async one(prompt, count) {
      const ids = freshIds(prompt);
      const start = performance.now();
      const prefix = await model.prefill(ids.subarray(0, -1));
      const prefilled = performance.now();
      const stream = prefix.stream(ids.subarray(-1), { maxTokens: count + 1, temperature: 0, ignoreEos: true });
      const times: number[] = [];
      for await (const _ of stream) times.push(performance.now());
      prefix.dispose();
      return {
        promptTokens: ids.length,
        prefillTokens: ids.length - 1,
        prefillMs: prefilled - start,
        decodeTokens: count,
        decodeMs: times[count] - times[0],
      };
    },

    async many(prompt, n, count): Promise<Many> {
      const ids = freshIds(prompt);
      const times: number[][] = Array.from({ length: n }, () => []);
      const start = performance.now();
      const stream = model.stream(ids, { n, maxTokens: count, temperature: 0.8, ignoreEos: true });
      for await (const { index } of stream) times[index].push(performance.now() - start);
      const { stats, usage } = await stream.result;
      if (usage.cachedTokens > 0) throw new Error(`${usage.cachedTokens} tokens of the prompt came from the cache`);
      const { kvBytes, kvBytesAsCopies } = stats;
      return { ...summarise(times, performance.now() - start), kvBytes, kvBytesAsCopies };
    },

    async close() {
      model.dispose();
      return { peakBytes: process.resourceUsage().maxRSS * 1024 };
    },
  };
}
