// The page's side of the wllama engine: called by name from wllama.ts. Plain JavaScript, served as it is.

import { Wllama } from "/wllama.js";

const quiet = { debug() {}, log() {}, warn() {}, error: console.error };
let wllama;

/** Completes with the prompt's cache off. `onData` gets a chunk a token. */
const complete = (prompt, count, temperature, onData) =>
  wllama.createCompletion({
    prompt,
    max_tokens: count,
    temperature,
    ignore_eos: true,
    cache_prompt: false,
    ...(onData && { stream: true, onData }),
  });

globalThis.bench = {
  async load(context, sequences) {
    const blob = await (await fetch("/model.gguf")).blob();
    wllama = new Wllama({ default: "/wllama.wasm" }, { suppressNativeLog: true, logger: quiet });
    await wllama.loadModel([blob], {
      n_ctx: context * sequences, // it wants room for as many copies of the prompt
      n_parallel: sequences,
      n_threads: 1,
      n_gpu_layers: 0,
    });
    await complete("a", 1, 0);
  },

  /** llama.cpp's own account, which leaves the way between page and worker out. */
  async one(prompt, count) {
    const { timings } = await complete(prompt, count + 1, 0);
    return {
      promptTokens: timings.prompt_n,
      prefillTokens: timings.prompt_n,
      prefillMs: timings.prompt_ms,
      decodeTokens: timings.predicted_n - 1,
      decodeMs: (timings.predicted_ms / timings.predicted_n) * (timings.predicted_n - 1),
    };
  },

  async many(prompt, n, count) {
    const start = performance.now();
    const times = await Promise.all(
      Array.from({ length: n }, async () => {
        const sample = [];
        await complete(prompt, count, 0.8, () => sample.push(performance.now() - start));
        return sample;
      }),
    );
    return { times, wholeMs: performance.now() - start };
  },
};
