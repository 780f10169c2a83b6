// models/maze.gguf as llama.cpp runs it: the same ids of every prompt, and the same greedy paths but for near ties.
// Takes node-llama-cpp from FURCATE_PEERS, or from beside the project's own packages.

import { fileURLToPath, pathToFileURL } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { findPackage } from "../bench/cpu/engine.ts";
import { generateMaze, mazePrompt, verifyPath } from "../models/maze/maze.ts";
import { load } from "../src/index.ts";

const MODEL = fileURLToPath(new URL("../models/maze.gguf", import.meta.url));
/** Held-out mazes: those of the model card's scores. */
const SEEDS = Array.from({ length: 64 }, (_, i) => 1000 + i);
const MAX_TOKENS = 120;
/** llama.cpp rounds activations to 8 bits and K/V to 16: where furcate's two best are nearer than this, it may take the other. */
const NEAR_TIE = 0.2;
/** Its flash attention, on by default, adds up in 16 bits on a CPU, which parts three more paths. */
const CONTEXT = { threads: 1, sequences: 1, contextSize: 1536, flashAttention: false };

interface NodeLlamaCpp {
  getLlama(options: object): Promise<{ loadModel(options: object): Promise<LlamaModel> }>;
}
interface LlamaModel {
  tokenize(text: string): number[];
  detokenize(tokens: readonly number[]): string;
  isEogToken(token: number): boolean;
  createContext(options: object): Promise<{ getSequence(): Sequence; dispose(): Promise<void> }>;
  dispose(): Promise<void>;
}
interface Sequence {
  clearHistory(): Promise<void>;
  evaluate(tokens: readonly number[], options: { temperature: number }): AsyncIterable<number>;
}

const peer = findPackage("node-llama-cpp");

test("llama.cpp writes the same greedy paths", async () => {
  if (!peer) return console.log("skipped: models/maze.gguf against llama.cpp (no node-llama-cpp, see FURCATE_PEERS)");
  const { getLlama } = (await import(pathToFileURL(peer.main).href)) as NodeLlamaCpp;
  const llama = await getLlama({ gpu: false, maxThreads: 1, build: "never", logLevel: "error" });
  const theirs = await llama.loadModel({ modelPath: MODEL });
  const context = await theirs.createContext(CONTEXT);
  const sequence = context.getSequence();
  const ours = await load(MODEL, { backend: "wasm" });
  const partings: string[] = [];
  const right = { ours: 0, theirs: 0 };
  for (const seed of SEEDS) {
    const maze = generateMaze(seed);
    const prompt = mazePrompt(maze);
    const ids = [...ours.tokenizer.encode(prompt)];
    assert.equal(theirs.tokenize(prompt), ids, `seed ${seed}`);

    const { choices } = await ours.generate(prompt, { temperature: 0, maxTokens: MAX_TOKENS, logprobs: 2 });
    const [{ text, tokenIds, logprobs = [] }] = choices;
    await sequence.clearHistory();
    const path: number[] = [];
    for await (const token of sequence.evaluate(ids, { temperature: 0 }))
      if (theirs.isEogToken(token) || path.push(token) === MAX_TOKENS) break;

    right.ours += Number(verifyPath(maze, text).valid);
    right.theirs += Number(verifyPath(maze, theirs.detokenize(path)).valid);
    const at = path.findIndex((token, i) => token !== tokenIds[i]);
    if (at < 0 && path.length === tokenIds.length) continue;
    assert.ok(
      at >= 0,
      `seed ${seed}: paths of ${tokenIds.length} and ${path.length} rooms, the same to the shorter's end`,
    );
    const [best, second] = logprobs[at].top;
    const gap = best.logprob - second.logprob;
    assert.is(second.tokenId, path[at], `seed ${seed}: at step ${at} llama.cpp takes furcate's second best`);
    assert.ok(gap <= NEAR_TIE, `seed ${seed}: they part at step ${at}, where furcate's best is ahead by ${gap}`);
    partings.push(`seed ${seed}, step ${at}: ${gap.toFixed(3)}`);
  }
  console.log(
    `measured: llama.cpp (node-llama-cpp ${peer.version}): ${SEEDS.length - partings.length} of ${SEEDS.length} greedy paths id for id ` +
      `(valid: ${right.ours} of furcate's, ${right.theirs} of llama.cpp's); the others part at near ties, ` +
      `furcate's best logit ahead by ${partings.join("; ")}`,
  );
  ours.dispose();
  await context.dispose();
  await theirs.dispose();
});

test.run();
