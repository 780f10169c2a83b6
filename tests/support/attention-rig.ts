// Attention on a GPU by itself, without weights and models: puts numbers into its tensors and its cache, and takes results out.
// Knows how the family is made and fed; nothing of what it should compute.

import type { Batch, Shape } from "../../src/backend.ts";
import { createAttention } from "../../src/webgpu/attention.ts";
import { createBuffers, type GpuTensor, readRow } from "../../src/webgpu/buffers.ts";
import type { OpenedDevice } from "../../src/webgpu/device.ts";
import { createGpu, type Gpu } from "../../src/webgpu/gpu.ts";
import type { Trials } from "../../src/webgpu/kernels.ts";
import { halves, newRandom } from "./random.ts";

export type RigShape = Pick<Shape, "nHeads" | "nKvHeads" | "headDim"> & Partial<Shape>;

export type AttentionRig = Awaited<ReturnType<typeof createAttentionRig>>;

/** Rows of a prefill, and samples of a step. */
export const RIG_ROWS = 256;
export const RIG_SAMPLES = 128;

/** wrap: the GPU as the family sees it. Blocks of K/V hold the largest numbers until written. */
export async function createAttentionRig(
  opened: OpenedDevice,
  { nHeads, nKvHeads, headDim, ...rest }: RigShape,
  { wrap = (gpu) => gpu, ...trials }: Trials & { wrap?: (gpu: Gpu) => Gpu } = {},
) {
  const ropeDim = rest.ropeDim ?? headDim & ~1;
  const shape: Shape = {
    dim: nHeads * headDim,
    hiddenDim: 4,
    nLayers: 2,
    nHeads,
    nKvHeads,
    headDim,
    ropeDim,
    vocab: 4,
    ropePairs: "interleaved",
    ...rest,
  };
  const gpu = createGpu({ ...opened, isUsers: true }, Infinity, trials.texts);
  const buffers = createBuffers(gpu);
  const seen = wrap(gpu);
  const family: Gpu = Object.create(seen, {
    buffer: {
      value(bytes: number, label: string) {
        const buffer = seen.buffer(bytes, label);
        if (label.startsWith("K/V of")) gpu.write(buffer, 0, new Uint32Array(buffer.size / 4).fill(0x7bff7bff));
        return buffer;
      },
    },
  });
  const attention = await createAttention(family, shape, RIG_SAMPLES, trials);

  function tensor(rows: number, cols: number, values?: ArrayLike<number>): GpuTensor {
    const made = buffers.tensor(rows, cols);
    if (values) put(made, values);
    return made;
  }

  function put({ buffer, column, stride, rows, cols }: GpuTensor, values: ArrayLike<number>): void {
    const row = new Float32Array(cols);
    for (let i = 0; i < rows; i++) {
      for (let j = 0; j < cols; j++) row[j] = values[i * cols + j];
      gpu.write(buffer, (i * stride + column) * 4, new Uint32Array(row.buffer));
    }
  }

  async function values(x: GpuTensor): Promise<Float32Array> {
    const all = new Float32Array(x.rows * x.cols);
    const rows = Array.from({ length: x.rows }, (_, row) => readRow(gpu, x, row));
    for (const [row, numbers] of (await Promise.all(rows)).entries()) all.set(numbers, row * x.cols);
    return all;
  }

  /** Puts K and V (tokens, nKvHeads, headDim) of a layer into blocks, from place `first` on, as they are. */
  function append(layer: number, blocks: Uint32Array, first: number, k: Float32Array, v: Float32Array): void {
    const width = nKvHeads * headDim;
    const tokens = k.length / width;
    for (let at = 0; at < tokens; at += RIG_ROWS) {
      const rows = Math.min(RIG_ROWS, tokens - at);
      const part = (x: Float32Array) => x.subarray(at * width, (at + rows) * width);
      const batch = plain(rows, slotsOf(blocks, first + at, rows));
      const [q, keys, values] = buffers.tensors(rows, [nHeads * headDim, width, width]);
      put(keys, part(k));
      put(values, part(v));
      attention.ropeAppend(q, keys, values, layer, buffers.prepare(batch));
    }
  }

  const plain = (rows: number, slots: Uint32Array = new Uint32Array(2 * rows)): Batch => ({
    ids: new Uint32Array(rows),
    turns: Float32Array.from({ length: rows * ropeDim }, (_, i) => 1 - (i & 1)),
    slots,
    context: { blocks: new Uint32Array(0), length: 0 },
  });

  return { shape, gpu, buffers, attention, tensor, values, append, plain, dispose: () => gpu.dispose() };
}

/** Block and place of `rows` consecutive tokens. */
export function slotsOf(blocks: Uint32Array, first: number, rows: number): Uint32Array {
  return Uint32Array.from({ length: 2 * rows }, (_, i) => {
    const token = first + (i >> 1);
    return i & 1 ? token % 32 : blocks[token >> 5];
  });
}

export interface Stretch {
  readonly blocks: Uint32Array;
  /** (tokens, nKvHeads, headDim) */
  readonly k: Float32Array;
  readonly v: Float32Array;
  readonly tokens: number;
}

/** A decode step's cache, batch and queries, with random numbers: `context` shared tokens, and each sample's own. */
export async function decodeStep(rig: AttentionRig, context: number, decode: readonly number[], seed = 1) {
  const { nHeads, nKvHeads, headDim } = rig.shape;
  const random = newRandom(seed);
  const blocksOf = (tokens: number) => Math.ceil(tokens / 32);
  const count = decode.reduce((sum, tokens) => sum + blocksOf(tokens), blocksOf(context)) + 3;
  await rig.attention.reserveBlocks(count);
  const free = Array.from({ length: count }, (_, i) => i);
  const numbers = (length: number) => Float32Array.from({ length }, () => random.normal());
  const stretch = (tokens: number): Stretch => {
    const blocks = Uint32Array.from({ length: blocksOf(tokens) }, () => free.splice(random.below(free.length), 1)[0]);
    const [k, v] = [0, 1].map(() => halves(numbers(tokens * nKvHeads * headDim)));
    rig.append(1, blocks, 0, k, v);
    return { blocks, k, v, tokens };
  };
  const shared = stretch(context);
  const own = decode.map(stretch);
  const q = numbers(decode.length * nHeads * headDim);
  const batch: Batch = {
    ...rig.plain(decode.length),
    context: { blocks: shared.blocks, length: context },
    tails: { blocks: own.map(({ blocks }) => blocks), lengths: Uint32Array.from(decode) },
  };
  return { batch, q, shared, own };
}
