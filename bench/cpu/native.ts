// llama.cpp compiled for this machine's processor, through node-llama-cpp, on one thread. Its sampler keeps its defaults.

import { pathToFileURL } from "node:url";
import { type Engine, findPackage, summarise } from "./engine.ts";

// The part of node-llama-cpp that is used here; the package itself is optional.
interface Sequence {
  evaluateWithoutGeneratingNewTokens(tokens: number[]): Promise<void>;
  evaluate(tokens: number[], options: { temperature: number; yieldEogToken: boolean }): AsyncIterable<number>;
}
interface Context {
  getSequence(): Sequence;
  dispose(): Promise<void>;
}
interface LlamaModel {
  tokenize(text: string): number[];
  createContext(options: { threads: number; sequences: number; contextSize: number }): Promise<Context>;
  dispose(): Promise<void>;
}
interface Llama {
  loadModel(options: { modelPath: string }): Promise<LlamaModel>;
}
interface NodeLlamaCpp {
  getLlama(options: { gpu: false; maxThreads: number; build: "never"; logLevel: "error" }): Promise<Llama>;
}

export async function createNative(): Promise<Engine> {
  const { getLlama } = (await import(pathToFileURL(findPackage("node-llama-cpp")!.main).href)) as NodeLlamaCpp;
  let model: LlamaModel;
  let contextSize = 0;
  const newContext = (sequences: number) => model.createContext({ threads: 1, sequences, contextSize });

  return {
    async load(file, limits) {
      contextSize = limits.context;
      const llama = await getLlama({ gpu: false, maxThreads: 1, build: "never", logLevel: "error" });
      model = await llama.loadModel({ modelPath: file });
      const context = await newContext(1);
      for await (const _ of context.getSequence().evaluate([1], { temperature: 0, yieldEogToken: true })) break;
      await context.dispose();
    },

    async one(prompt, count) {
      const tokens = model.tokenize(prompt);
      const context = await newContext(1);
      const sequence = context.getSequence();
      const start = performance.now();
      await sequence.evaluateWithoutGeneratingNewTokens(tokens.slice(0, -1));
      const prefilled = performance.now();
      const times: number[] = [];
      for await (const _ of sequence.evaluate(tokens.slice(-1), { temperature: 0, yieldEogToken: true }))
        if (times.push(performance.now()) > count) break;
      await context.dispose();
      return {
        promptTokens: tokens.length,
        prefillTokens: tokens.length - 1,
        prefillMs: prefilled - start,
        decodeTokens: count,
        decodeMs: times[count] - times[0],
      };
    },

    async many(prompt, n, count) {
      const tokens = model.tokenize(prompt);
      const context = await newContext(n);
      const start = performance.now();
      const times = await Promise.all(
        Array.from({ length: n }, async () => {
          const sample: number[] = [];
          for await (const _ of context.getSequence().evaluate(tokens, { temperature: 0.8, yieldEogToken: true }))
            if (sample.push(performance.now() - start) >= count) break;
          return sample;
        }),
      );
      const wholeMs = performance.now() - start;
      await context.dispose();
      return summarise(times, wholeMs);
    },

    async close() {
      await model.dispose();
      return { peakBytes: process.resourceUsage().maxRSS * 1024 };
    },
  };
}
