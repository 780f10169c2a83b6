// Which attention path a step takes: two parts that are joined, or each sample by itself. What both cost on this GPU is measured once,
// by a small grid of samples and context lengths. Knows how to run attention and how long it took; nothing of the kernels.

import type { AttentionPath, Shape } from "../backend.ts";
import { createAttention } from "./attention.ts";
import { createBuffers } from "./buffers.ts";
import type { OpenedDevice } from "./device.ts";
import { createGpu } from "./gpu.ts";

export interface Choice {
  readonly path: AttentionPath;
  /** Why, for people. */
  readonly reason: string;
}

/** Milliseconds of a layer's attention by path: of each number of samples, of each context length. Both rise. */
export interface Costs {
  readonly samples: readonly number[];
  readonly contexts: readonly number[];
  readonly ms: Readonly<Record<AttentionPath, readonly (readonly number[])[]>>;
}

/** Of two costs as good as equal, several samples take two parts. */
const EQUAL = 1.02;

/** The cheaper path. Without costs several samples read the prompt once. */
export function choosePath(costs: Costs | undefined, nSamples: number, ctxLen: number): Choice {
  if (!costs)
    return nSamples > 1
      ? { path: "two-part", reason: `${nSamples} samples read the prompt's K/V once` }
      : { path: "one-part", reason: "one sample" };
  const { samples, contexts, ms } = costs;
  const estimate = (path: AttentionPath) => {
    const byContext = ms[path].map((row) => between(contexts, row, ctxLen));
    return between(samples, byContext, nSamples);
  };
  const [one, two] = [estimate("one-part"), estimate("two-part")];
  const path = two <= one * (nSamples > 1 ? EQUAL : 1) ? "two-part" : "one-part";
  const us = (ms: number) => `${Math.max(0, 1e3 * ms).toFixed(0)} µs`;
  return { path, reason: `attention of a layer takes ${us(two)} in two parts and ${us(one)} in one, as measured here` };
}

/** Linear between the points, and beyond them as between the two at that end. */
function between(xs: readonly number[], ys: readonly number[], x: number): number {
  let i = 1;
  while (i < xs.length - 1 && x > xs[i]) i++;
  const slope = (ys[i] - ys[i - 1]) / (xs[i] - xs[i - 1]);
  return ys[i - 1] + slope * (x - xs[i - 1]);
}

const SAMPLES = [1, 2, 4, 8, 16];
const CONTEXTS = [64, 512, 4096];
/** Of each sample's tail. */
const TAIL = 32;
/** Most bytes of K and V for it; with longer heads contexts are shorter. */
const MOST_BYTES = 64 << 20;
/** Repetitions of what is timed take about so long, where that is more than one. */
const SPELL_MS = 4;
const MOST_REPETITIONS = 8;
const ROUNDS = 4;
/** A GPU that is not done by then is better used for answers. */
const MOST_MS = 1000;

/** By adapter and heads: what was measured, or is being. */
const measured = new Map<string, Promise<Costs | undefined>>();

/** Costs on a device, measured once for an adapter and heads; nothing where that fails: for want of memory or of time. */
export function costsOn(opened: OpenedDevice, shape: Shape): Promise<Costs | undefined> {
  const { nHeads, nKvHeads, headDim } = shape;
  const key = JSON.stringify([opened.name, opened.abilities, nHeads, nKvHeads, headDim]);
  const costs = measured.get(key) ?? measure(opened, shape).catch(() => undefined);
  measured.set(key, costs);
  return costs;
}

async function measure(opened: OpenedDevice, shape: Shape): Promise<Costs> {
  const gpu = createGpu({ ...opened, isUsers: true });
  try {
    const { nHeads, nKvHeads, headDim } = shape;
    const attention = await createAttention(gpu, { ...shape, nLayers: 1 }, SAMPLES[SAMPLES.length - 1]);
    const buffers = createBuffers(gpu);
    const { blockTokens, blockBytes } = attention;
    const contexts = CONTEXTS.filter((tokens, i) => i < 2 || (tokens / blockTokens) * blockBytes <= MOST_BYTES);
    // All tails are the same block, the last.
    const blocks = Uint32Array.from({ length: contexts[contexts.length - 1] / blockTokens }, (_, i) => i);
    await attention.reserveBlocks(blocks.length + 1);
    let spent = 0;
    const ms: Record<AttentionPath, number[][]> = { "one-part": [], "two-part": [] };
    for (const n of SAMPLES) {
      const [q] = buffers.tensors(n, [nHeads * headDim, nKvHeads * headDim, nKvHeads * headDim]);
      const out = buffers.tensor(n, nHeads * headDim);
      const states = attention.states(n);
      const costs = [];
      for (const length of contexts) {
        const batch = buffers.prepare({
          ids: new Uint32Array(n),
          turns: new Float32Array(n * shape.ropeDim),
          slots: new Uint32Array(2 * n),
          context: { blocks: blocks.subarray(0, length / blockTokens), length },
          tails: {
            blocks: Array.from({ length: n }, () => Uint32Array.of(blocks.length)),
            lengths: new Uint32Array(n).fill(TAIL),
          },
        });
        const paths: Record<AttentionPath, () => void> = {
          "one-part": () => attention.attendOnePart(q, 0, batch, out),
          "two-part": () => {
            attention.attendContext(q, 0, batch, states);
            attention.attendDecode(q, 0, batch, states);
            attention.mergeStates(states, batch, out);
          },
        };
        // Compiles what is not yet, which does not count.
        for (const run of Object.values(paths)) run();
        await gpu.finished();
        const began = performance.now();
        costs.push(await compare(paths));
        spent += performance.now() - began;
        if (spent > MOST_MS) throw new Error(`not measured within ${MOST_MS} ms`);
      }
      for (const path of ["one-part", "two-part"] as const) ms[path].push(costs.map((cost) => cost[path]));
    }
    return { samples: SAMPLES, contexts, ms };
  } finally {
    gpu.dispose();
  }

  /** Milliseconds of each, by turns: of some rounds the least, without what a submit takes by itself. */
  async function compare(paths: Record<AttentionPath, () => void>): Promise<Record<AttentionPath, number>> {
    const timed = async (run: () => void, repetitions: number) => {
      const began = performance.now();
      for (let i = 0; i < repetitions; i++) run();
      await gpu.finished();
      return performance.now() - began;
    };
    const costOf = async (run: () => void) => {
      const few = Math.min(MOST_REPETITIONS, Math.ceil(SPELL_MS / (await timed(run, 1))));
      let [short, long] = [Infinity, Infinity];
      return {
        async measure() {
          short = Math.min(short, await timed(run, few));
          long = Math.min(long, await timed(run, 5 * few));
        },
        ms: () => (long - short) / (4 * few),
      };
    };
    const [one, two] = [await costOf(paths["one-part"]), await costOf(paths["two-part"])];
    for (let round = 0; round < ROUNDS; round++) {
      await one.measure();
      await two.measure();
    }
    return { "one-part": one.ms(), "two-part": two.ms() };
  }
}
