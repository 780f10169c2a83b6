// Tensors and the prepared batch as they lie in GPU buffers; the layouts of both are here and nowhere else.
// Knows nothing of weights and of K/V (layout.ts) or of what operations compute.

import type { Batch, PreparedBatch, Tensor } from "../backend.ts";
import type { Gpu } from "./gpu.ts";

/** f32 in rows of `stride` columns, a multiple of 4; the columns beyond `cols` are zero for good. */
export interface GpuTensor extends Tensor {
  readonly buffer: GPUBuffer;
  /** The tensor's first row in the buffer. */
  readonly first: number;
  readonly stride: number;
}

/**
 * The batch as kernels read it: words (u32) of one buffer that is written anew for each forward.
 *   0 rows   1 ctxLen   2 … 7 where in the buffer these begin: ids (rows), turns (rows, ropeDim / 2, 2) f32, slots (rows, 2),
 *   context blocks, decLens (rows), tails (rows, tailStride)   8 tailStride   9 context blocks   10 one where rows are samples
 */
export interface GpuBatch extends PreparedBatch {
  readonly buffer: GPUBuffer;
  readonly ctxLen: number;
  /** Whether rows are samples with tails; else consecutive tokens. */
  readonly decoding: boolean;
  /** The longest tail in tokens. */
  readonly decLen: number;
}

const HEADER = 16;

export function createBuffers(gpu: Gpu) {
  const strideOf = (cols: number) => Math.ceil(cols / 4) * 4;

  function tensor(rows: number, cols: number, label = "activations"): GpuTensor {
    const stride = strideOf(cols);
    return { buffer: gpu.buffer(rows * stride * 4, label), first: 0, rows, cols, stride };
  }

  let words = new Uint32Array(1 << 14);
  let floats = new Float32Array(words.buffer);
  let batchBuffer = gpu.buffer(words.byteLength, "batch");

  /** Room for a batch of so many words. */
  function makeRoom(size: number): void {
    if (size <= words.length) return;
    gpu.free(batchBuffer);
    words = new Uint32Array(2 ** Math.ceil(Math.log2(size)));
    floats = new Float32Array(words.buffer);
    batchBuffer = gpu.buffer(words.byteLength, "batch");
  }

  return {
    tensor: (rows: number, cols: number) => tensor(rows, cols),
    view(x: Tensor, first: number, rows: number): GpuTensor {
      const of = x as GpuTensor;
      return { ...of, first: of.first + first, rows };
    },
    vector(values: Float32Array): GpuTensor {
      const made = tensor(1, values.length, "parameters");
      const padded = new Float32Array(made.stride);
      padded.set(values);
      gpu.write(made.buffer, 0, new Uint32Array(padded.buffer));
      return made;
    },
    /** Bytes of a tensor. */
    tensorBytes: (rows: number, cols: number) => Math.max(16, rows * strideOf(cols) * 4),

    prepare({ ids, turns, slots, context, tails }: Batch): GpuBatch {
      const rows = ids.length;
      const tailStride = Math.max(0, ...(tails?.blocks.map((blocks) => blocks.length) ?? []));
      makeRoom(HEADER + ids.length + turns.length + slots.length + context.blocks.length + rows * (1 + tailStride));
      let end = HEADER;
      const place = (length: number) => {
        end += length;
        return end - length;
      };
      const at = [ids.length, turns.length, slots.length, context.blocks.length, rows, rows * tailStride].map(place);
      const [idsAt, turnsAt, slotsAt, contextAt, decLensAt, tailsAt] = at;
      words.set([rows, context.length, ...at, tailStride, context.blocks.length, tails ? 1 : 0]);
      words.set(ids, idsAt);
      floats.set(turns, turnsAt);
      words.set(slots, slotsAt);
      words.set(context.blocks, contextAt);
      words.fill(0, decLensAt, end);
      if (tails) words.set(tails.lengths, decLensAt);
      tails?.blocks.forEach((blocks, row) => {
        words.set(blocks, tailsAt + row * tailStride);
      });
      gpu.write(batchBuffer, 0, words.subarray(0, end));
      return {
        rows,
        buffer: batchBuffer,
        ctxLen: context.length,
        decoding: tails !== undefined,
        decLen: Math.max(0, ...(tails?.lengths ?? [])),
      };
    },
  };
}
