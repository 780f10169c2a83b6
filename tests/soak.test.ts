// 64 clients at once on `furcate serve` and the maze model: answers whole, streamed or left in the middle; none wrong or crossed,
// nothing kept. For FURCATE_SOAK_SECONDS seconds, 10 by default. The model has memory for some 14 mazes: what leaks soon fails.

import { setMaxListeners } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import OpenAI from "openai";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { generateMaze, mazePrompt } from "../models/maze/maze.ts";
import { type GenerateOptions, load } from "../src/index.ts";
import { newRandom } from "./support/random.ts";
import { root, startNode } from "./support/servers.ts";

const CLIENTS = 64;
const SECONDS = Number(process.env.FURCATE_SOAK_SECONDS ?? 10);
const NAME = "furcate maze solver";
const MODEL = join(root, "models/maze.gguf");
/** Of the server's process, from the first third of the time to the end. */
const MOST_GROWTH = 32e6;

interface Variant {
  readonly prompt: string;
  readonly options: GenerateOptions & { n: number; maxTokens: number; seed: number };
  readonly want: readonly { text: string; seed: number }[];
}

test(`${CLIENTS} clients for ${SECONDS} s`, async () => {
  const variants = await makeVariants();
  const server = await startNode(["--model", MODEL, "--backend", "wasm", "--memory-limit", "64M"]);
  try {
    const client = new OpenAI({ baseURL: `${server.origin}/v1`, apiKey: "none", maxRetries: 0, timeout: 300_000 });
    const counts = { whole: 0, streamed: 0, left: 0, cut: 0 };
    const over = new AbortController();
    setMaxListeners(0, over.signal);
    // As many prompts as memory holds, so that from here on nothing should grow.
    const prompts = Array.from({ length: 16 }, (_, i) => mazePrompt(generateMaze(100 + i)));
    await client.completions.create({ model: NAME, prompt: prompts, max_tokens: 1 });
    async function ask({ prompt, options, want }: Variant, kind: number): Promise<void> {
      const { n, maxTokens: max_tokens, seed } = options;
      const asked = { model: NAME, prompt, n, max_tokens, seed };
      const { signal } = over;
      const texts = want.map(() => "");
      if (kind === 0) {
        const { choices } = await client.completions.create(asked, { signal });
        assert.equal(
          choices.map(({ text, seed }: { text: string; seed?: number }) => ({ text, seed })),
          want,
        );
        counts.whole++;
        return;
      }
      const stream = await client.completions.create({ ...asked, stream: true }, { signal });
      let left = kind === 1 ? Infinity : 3 * n;
      for await (const { choices } of stream) {
        for (const { index, text } of choices) texts[index] += text;
        if (--left === 0) break;
      }
      for (const [i, { text }] of want.entries())
        assert.is(texts[i], left === 0 ? text.slice(0, texts[i].length) : text);
      counts[left === 0 ? "left" : "streamed"]++;
    }

    const end = performance.now() + SECONDS * 1000;
    const clients = Array.from({ length: CLIENTS }, async (_, i) => {
      const random = newRandom(1000 + i);
      while (performance.now() < end) {
        await ask(variants[random.below(variants.length)], random.below(3)).catch((error: unknown) => {
          if (!over.signal.aborted || !(error instanceof OpenAI.APIUserAbortError || String(error).includes("abort")))
            throw error;
          counts.cut++;
        });
      }
    });
    const done = Promise.all(clients);
    await Promise.race([done, new Promise((resolve) => setTimeout(resolve, (SECONDS * 1000) / 3))]);
    const before = residentBytes(server.child.pid);
    await Promise.race([done, new Promise((resolve) => setTimeout(resolve, (SECONDS * 2000) / 3))]);
    // Who still waits is cut off at once.
    over.abort();
    await done;
    const after = residentBytes(server.child.pid);
    const began = performance.now();
    await client.completions.create({ model: NAME, prompt: variants[0].prompt, max_tokens: 1 });
    const lastMs = performance.now() - began;
    console.log(
      `measured: ${CLIENTS} clients in ${SECONDS} s: ${counts.whole} answers whole, ${counts.streamed} streamed, ` +
        `${counts.left} left in the middle, ${counts.cut} cut off at the end; all as alone. Process ` +
        `${(before / 1e6).toFixed(0)} MB, then ${(after / 1e6).toFixed(0)} MB; the next answer after ${lastMs.toFixed(0)} ms`,
    );
    for (const [kind, count] of Object.entries(counts)) assert.ok(count > 0, kind);
    if (before > 0) assert.ok(after - before < MOST_GROWTH, `${after - before} bytes more`);
    assert.is(await server.close("SIGTERM"), 0);
  } finally {
    await server.close();
  }
});

/** Calls, and what they give directly; each choice also alone, by its seed. */
async function makeVariants(): Promise<Variant[]> {
  const model = await load(MODEL, { backend: "wasm" });
  const variants: Variant[] = [];
  for (let i = 0; i < 18; i++) {
    const prompt = mazePrompt(generateMaze(i % 6));
    const options = { n: 1 + (i % 4), maxTokens: 4 + i, seed: 77 * i };
    const { choices } = await model.generate(prompt, options);
    for (const { text, seed } of choices) {
      const [alone] = (await model.generate(prompt, { ...options, n: 1, seed })).choices;
      assert.is(alone.text, text);
    }
    variants.push({ prompt, options, want: choices.map(({ text, seed }) => ({ text, seed })) });
  }
  model.dispose();
  return variants;
}

/** What a process holds; 0 where the system does not say. */
function residentBytes(pid: number | undefined): number {
  try {
    return 1024 * Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
  } catch {
    return 0;
  }
}

test.run();
