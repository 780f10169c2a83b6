// A forward that a backend has run before is not asked for again: what it does must follow from what it goes by. Random steps of models of
// many sizes, on backends that have run others before and on new ones: the same commands reach a device that only notes them.

import { test } from "uvu";
import * as assert from "uvu/assert";
import { shaders } from "../build/shaders.js";
import type { ModelConfig } from "../src/config.ts";
import type { GgmlType } from "../src/formats/gguf.ts";
import { createForward } from "../src/model.ts";
import { createWebGpuBackend } from "../src/webgpu/backend.ts";
import type { Abilities } from "../src/webgpu/device.ts";
import type { Weights } from "../src/weights.ts";
import { notingDevice } from "./support/noting-device.ts";
import { newRandom, type Random } from "./support/random.ts";

type Sizes = readonly [dim: number, hiddenDim: number, nHeads: number, nKvHeads: number, headDim: number];
/** Products of some are small for a number of samples that is no multiple of eight; heads of some share K and V by five. */
const MODELS: Readonly<Record<string, Sizes>> = {
  "width 512": [192, 512, 6, 2, 32],
  "width 768": [288, 768, 6, 6, 48],
  "width 1536": [576, 1536, 9, 3, 64],
  "width 1920": [960, 1920, 15, 3, 64],
  "width 8192": [2048, 8192, 32, 8, 64],
};
const DEVICES: Readonly<Record<string, Abilities>> = {
  core: { f16: false },
  "16 bits": { f16: true, subgroups: 32 },
  matrices: { f16: true, subgroups: 32, matrix: { side: 16, subgroup: 32 } },
  "matrices of 8": { f16: true, subgroups: 32, matrix: { side: 8, subgroup: 32 } },
};
/** Of q, k and v, of what attention's results meet, of gate and up, and of what theirs meet. */
type Types = readonly [GgmlType, GgmlType, GgmlType, GgmlType];
const TYPES: Readonly<Record<string, Types>> = {
  "quantised weights": ["Q8_0", "Q8_0", "Q8_0", "Q8_0"],
  floats: ["F16", "F16", "F16", "F16"],
  "both by turns": ["F16", "Q8_0", "Q8_0", "F16"],
};
/** Too many for a step of more than four samples to take them as it takes the rest of a small model. */
const VOCAB = 40000;

/** What a backend on a new device submits for steps. */
async function newRunner([dim, hiddenDim, nHeads, nKvHeads, headDim]: Sizes, abilities: Abilities, types: Types) {
  const { device, log } = notingDevice();
  const shape = { dim, hiddenDim, nLayers: 2, nHeads, nKvHeads, headDim, ropeDim: headDim, vocab: VOCAB };
  const config = { ...shape, ropePairs: "interleaved", normEps: 1e-5, ropeBase: 1e4, ropeScale: 1 } as ModelConfig;
  const opened = { device, abilities, isSoftware: false, isUsers: true, owners: [], name: "noting" };
  const backend = await createWebGpuBackend(opened, config, Infinity, { texts: shaders });
  const weights = (type: GgmlType, cols: number, ...rows: number[]) =>
    backend.weights(rows.map((rows) => ({ name: "weights", type, rows, cols })));
  const norm = () => backend.vector(new Float32Array(dim).fill(1));
  const layerOf = async () => {
    const [q, k, v] = await weights(types[0], dim, nHeads * headDim, nKvHeads * headDim, nKvHeads * headDim);
    const [o] = await weights(types[1], nHeads * headDim, dim);
    const [gate, up] = await weights(types[2], dim, hiddenDim, hiddenDim);
    const [down] = await weights(types[3], hiddenDim, dim);
    return { attnNorm: norm(), ffnNorm: norm(), q, k, v, o, gate, up, down };
  };
  const [embedding] = await weights("Q8_0", dim, VOCAB);
  const layers = [await layerOf(), await layerOf()];
  const forward = createForward(backend, config, {
    embedding,
    output: embedding,
    outputNorm: norm(),
    layers,
  } as Weights);
  await backend.reserveBlocks(64);
  return async ({ rows, context, tail, path, wanted, k, copies }: Step): Promise<readonly string[]> => {
    for (let i = 0; i < copies; i++) backend.copyBlock(i, 30 + i, 3);
    log.length = 0;
    const row = { id: 1, position: context, block: 1, place: 0 };
    const all = new Array(rows).fill(row);
    const shared = new Uint32Array(Math.ceil((context + rows) / 32));
    const tails = {
      blocks: all.map(() => new Uint32Array(Math.ceil(tail / 32))),
      lengths: new Uint32Array(rows).fill(tail),
    };
    const out = path
      ? forward.decode(all, { blocks: shared, length: context }, tails, path)
      : forward.prefill(all, shared, Math.min(rows, wanted))!;
    const requests = Array.from({ length: path ? rows : Math.min(rows, wanted) }, () => ({
      edits: new Uint32Array(0),
      inverseTemperature: 1,
    }));
    await backend.candidates(out, requests, k);
    return [...log];
  };
}

interface Step {
  readonly rows: number;
  readonly context: number;
  readonly tail: number;
  /** Of a decode step; else a prompt's tokens. */
  readonly path?: "two-part" | "one-part";
  /** Logits of a prompt's tokens, from the last on. */
  readonly wanted: number;
  readonly k: number;
  readonly copies: number;
}

/** The step before with something else: most of what a step goes by stays, and numbers are near borders of what follows from them. */
function another(step: Step, random: Random): Step {
  return {
    ...step,
    ...random.pick([
      () => ({ rows: random.pick([1, 4, 10, 16, 28, 28, 50, 112]) + random.below(8) }),
      () => ({ rows: Math.max(1, step.rows + random.below(9) - 4) }),
      () => ({ rows: 1 }),
      () => ({ context: random.pick([20, 636, 2075, 2171, 21840]) + random.below(12) }),
      () => ({ context: step.context + random.below(9) - 4 }),
      () => ({ tail: random.pick([5, 130]) }),
      () => ({ path: random.pick(["two-part", "two-part", "one-part", undefined] as const) }),
      () => ({ k: random.pick([1, 64]), wanted: random.pick([1, Infinity]) }),
      () => ({ copies: random.pick([0, 1, 5, 6]) }),
    ])(),
  };
}

for (const [model, sizes] of Object.entries(MODELS))
  for (const [name, abilities] of Object.entries(DEVICES))
    for (const [what, types] of Object.entries(TYPES))
      test(`${model}, ${what}, ${name}: a step is the same whatever came before`, async () => {
        const random = newRandom(model.length + what.length + name.length);
        const run = await newRunner(sizes, abilities, types);
        let step: Step = { rows: 10, context: 700, tail: 5, path: "two-part", wanted: 1, k: 64, copies: 0 };
        for (let i = 0; i < 120; i++) {
          step = another(step, random);
          const alone = await newRunner(sizes, abilities, types);
          assert.equal(await run(step), await alone(step), JSON.stringify(step));
        }
      });

test.run();
