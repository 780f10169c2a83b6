// 64 clients at once on `furcate serve` and the maze model: answers whole, streamed or left in the middle; none wrong or crossed,
// nothing kept. For FURCATE_SOAK_SECONDS seconds, 10 by default. The model has memory for some 14 mazes: what leaks soon fails.

import { setMaxListeners } from "node:events";
import { join } from "node:path";
import OpenAI from "openai";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { generateMaze, mazePrompt } from "../models/maze/maze.ts";
import { type GenerateOptions, load } from "../src/index.ts";
import { newRandom } from "./support/random.ts";
import { root, type ServerProcess, startNode } from "./support/servers.ts";

const CLIENTS = 64;
const SECONDS = Number(process.env.FURCATE_SOAK_SECONDS ?? 10);
const NAME = "furcate maze solver";
const MODEL = join(root, "models/maze.gguf");
/** Of what the server holds while nobody asks, after a collection: from the end of the first third of the time to the end of all. */
const MOST_GROWTH = 2e6;

interface Variant {
  readonly prompt: string;
  readonly options: GenerateOptions & { n: number; maxTokens: number; seed: number };
  readonly want: readonly { text: string; seed: number }[];
}

test(`${CLIENTS} clients for ${SECONDS} s`, async () => {
  const variants = await makeVariants();
  const reports = ["--import", "tsx", "--import", join(root, "tests/support/report-memory.ts")];
  const server = await startNode(["--model", MODEL, "--backend", "wasm", "--memory-limit", "64M"], undefined, reports);
  try {
    const client = new OpenAI({ baseURL: `${server.origin}/v1`, apiKey: "none", maxRetries: 0, timeout: 300_000 });
    const counts = { whole: 0, streamed: 0, left: 0, cut: 0 };
    // As many prompts as memory holds, so that from here on nothing should grow.
    const prompts = Array.from({ length: 16 }, (_, i) => mazePrompt(generateMaze(100 + i)));
    await client.completions.create({ model: NAME, prompt: prompts, max_tokens: 1 });
    async function ask({ prompt, options, want }: Variant, kind: number, signal: AbortSignal): Promise<void> {
      const { n, maxTokens: max_tokens, seed } = options;
      const asked = { model: NAME, prompt, n, max_tokens, seed };
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
      // The client's stream just ends where it is cut off.
      const isWhole = left > 0 && !signal.aborted;
      for (const [i, { text }] of want.entries()) assert.is(texts[i], isWhole ? text : text.slice(0, texts[i].length));
      counts[isWhole ? "streamed" : left === 0 ? "left" : "cut"]++;
    }

    /** All clients, each asking again and again; who still waits at the end is cut off at once. */
    async function storm(seconds: number, seed: number): Promise<void> {
      const over = new AbortController();
      setMaxListeners(0, over.signal);
      const timer = setTimeout(() => over.abort(), seconds * 1000);
      const clients = Array.from({ length: CLIENTS }, async (_, i) => {
        const random = newRandom(seed + i);
        while (!over.signal.aborted) {
          await ask(variants[random.below(variants.length)], random.below(3), over.signal).catch((error: unknown) => {
            const isCut = error instanceof OpenAI.APIUserAbortError || String(error).includes("abort");
            if (!over.signal.aborted || !isCut) throw error;
            counts.cut++;
          });
        }
      });
      await Promise.all(clients).finally(() => clearTimeout(timer));
    }

    await storm(SECONDS / 3, 1000);
    const before = await heldBy(server);
    await storm((SECONDS * 2) / 3, 2000);
    const after = await heldBy(server);
    const began = performance.now();
    await client.completions.create({ model: NAME, prompt: variants[0].prompt, max_tokens: 1 });
    const lastMs = performance.now() - began;
    console.log(
      `measured: ${CLIENTS} clients in ${SECONDS} s: ${counts.whole} answers whole, ${counts.streamed} streamed, ` +
        `${counts.left} left in the middle, ${counts.cut} cut off at the end; all as alone. The server held ` +
        `${(before / 1e6).toFixed(1)} MB after a third, ${(after / 1e6).toFixed(1)} MB in the end; ` +
        `the next answer after ${lastMs.toFixed(0)} ms`,
    );
    for (const [kind, count] of Object.entries(counts)) assert.ok(count > 0, kind);
    assert.ok(after - before < MOST_GROWTH, `${after - before} bytes more`);
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

/** What a server holds after a collection, once it has no client: objects, buffers and WebAssembly memories. */
async function heldBy({ child, output }: ServerProcess): Promise<number> {
  const begin = output().length;
  child.kill("SIGUSR2");
  for (const until = Date.now() + 10_000; Date.now() < until; await new Promise((done) => setTimeout(done, 20))) {
    const [, bytes] = /holds (\d+)/.exec(output().slice(begin)) ?? [];
    if (bytes) return Number(bytes);
  }
  throw new Error("the server does not say what it holds");
}

test.run();
