// Tensors and the prepared batch as they lie in GPU buffers; the layouts of both are here and nowhere else.
// Knows nothing of weights and of K/V (layout.ts) or of what operations compute.

import type { Batch, PreparedBatch, Tensor } from "../backend.ts";
import type { Gpu } from "./gpu.ts";

/** f32 in rows of `stride` columns, a multiple of 4; the columns beyond `cols`, up to the next multiple of 4, are zero for good. */
export interface GpuTensor extends Tensor {
  readonly buffer: GPUBuffer;
  /** The tensor's first row and column in the buffer. */
  readonly first: number;
  readonly column: number;
  readonly stride: number;
  /** Of a vector: the root of its numbers' mean square. */
  readonly rms?: number;
  /**
   * What the buffer's rows are at present, for all views: f32, or for products in 16 bits tiles (shaders/tiles.wgsl).
   */
  readonly form: { tiles: boolean };
}

/** How products read a forward's rows. */
export interface Reading {
  /** Whether what attention and gates leave is to be 16-bit tiles; that goes by the weights of the last product so far. */
  readonly tiles: boolean;
  /** Rows that they compute together in any case, where there are many. */
  readonly wholeRows: 8 | 16;
}

/** Columns that a row takes. */
export const strideOf = (cols: number) => Math.ceil(cols / 4) * 4;

/** The tensor's first number in its buffer. */
export const placeOf = ({ first, stride, column }: GpuTensor) => first * stride + column;

/** A row of a tensor, in whatever form it is. */
export async function readRow(gpu: Gpu, tensor: GpuTensor, row: number): Promise<Float32Array> {
  const { buffer, first, stride, cols, form } = tensor;
  if (!form.tiles) return new Float32Array(await gpu.read(buffer, (placeOf(tensor) + row * stride) * 4, cols * 4));
  const across = Math.ceil(cols / 16);
  const tiles = new Uint16Array(await gpu.read(buffer, ((first + row) >> 4) * across * 512, across * 512));
  const numberAt = (i: number) => (i >> 4) * 256 + ((first + row) & 15) * 16 + (i & 15);
  return Float32Array.from({ length: cols }, (_, i) => floatOf(tiles[numberAt(i)]));
}

/** A 16-bit float's value. */
function floatOf(half: number): number {
  const exponent = (half >> 10) & 31;
  const size = exponent === 0 ? (half & 1023) * 2 ** -24 : ((half & 1023) + 1024) * 2 ** (exponent - 25);
  return half & 0x8000 ? -size : size;
}

/** Bytes of a buffer for so many rows, in either form. */
const bytesOf = (rows: number, cols: number) =>
  Math.max(16, rows * strideOf(cols) * 4, Math.ceil(rows / 16) * Math.ceil(cols / 16) * 512);

/**
 * The batch as kernels read it: words (u32) of one buffer that is written anew for each forward.
 *   0 rows   1 ctxLen   2 … 6 where in the buffer these begin: ids (rows), turns (rows, ropeDim / 2, 2) f32, slots (rows, 2),
 *   context blocks, tails (rows, tailStride)   7 tailStride   8 … decLens (rows)
 */
export interface GpuBatch extends PreparedBatch {
  readonly buffer: GPUBuffer;
  readonly ctxLen: number;
  /** How products read its rows, if any do. */
  readonly reading?: Reading;
  /** Whether rows are samples with tails; else consecutive tokens. */
  readonly decoding: boolean;
  /** The longest tail in tokens. */
  readonly decLen: number;
  /** Tokens (rows) that candidates drew before, for ids that ask for them. */
  readonly drawn: GPUBuffer;
}

const HEADER = 8;

/**
 * Rows that a step of so many samples computes: rounded up to what some products compute anyway. What is dispatched goes by them alone, so
 * that a step's commands stay as they were, and need not be encoded anew, while samples come and go between two such numbers. Kernels
 * that do more for a row than a product go by the batch's own rows: those behind them get no attention and leave nothing in the cache.
 */
function computedRows(samples: number, wholeRows = 8): number {
  if (samples <= 8 && wholeRows === 8) return 2 ** Math.ceil(Math.log2(samples));
  return Math.ceil(samples / wholeRows) * wholeRows;
}

export function createBuffers(gpu: Gpu) {
  function tensor(rows: number, cols: number, label = "activations"): GpuTensor {
    const buffer = gpu.buffer(bytesOf(rows, cols), label);
    return { buffer, first: 0, column: 0, rows, cols, stride: strideOf(cols), form: { tiles: false } };
  }

  function tensors(rows: number, cols: readonly number[]): GpuTensor[] {
    const stride = cols.reduce((sum, width) => sum + strideOf(width), 0);
    const whole = tensor(rows, stride);
    let column = 0;
    return cols.map((width) => {
      const part = { ...whole, cols: width, column };
      column += strideOf(width);
      return part;
    });
  }

  let words = new Uint32Array(1 << 14);
  let floats = new Float32Array(words.buffer);
  let batchBuffer = gpu.buffer(words.byteLength, "batch");

  /** Room for a batch of so many words. Errors: `memory`: there is room for nothing then, until this succeeds. */
  function makeRoom(size: number): void {
    if (size <= words.length) return;
    gpu.free(batchBuffer);
    words = new Uint32Array(0);
    const room = 2 ** Math.ceil(Math.log2(size));
    batchBuffer = gpu.buffer(room * 4, "batch");
    words = new Uint32Array(room);
    floats = new Float32Array(words.buffer);
  }

  return {
    tensor: (rows: number, cols: number) => tensor(rows, cols),
    tensors,
    view(x: Tensor, first: number, rows: number): GpuTensor {
      const of = x as GpuTensor;
      return { ...of, first: of.first + first, rows };
    },
    vector(values: Float32Array): GpuTensor {
      const made = tensor(1, values.length, "parameters");
      const padded = new Float32Array(made.stride);
      padded.set(values);
      gpu.write(made.buffer, 0, new Uint32Array(padded.buffer));
      return { ...made, rms: Math.sqrt(values.reduce((sum, x) => sum + x * x, 0) / values.length) };
    },
    /** Bytes of a tensor. */
    tensorBytes: bytesOf,

    prepare({ ids, turns, slots, context, tails }: Batch, reading?: Reading, drawn?: GPUBuffer): GpuBatch {
      const rows = ids.length;
      let tailStride = 0;
      let decLen = 0;
      if (tails) {
        for (let row = 0; row < rows; row++) {
          tailStride = Math.max(tailStride, tails.blocks[row].length);
          decLen = Math.max(decLen, tails.lengths[row]);
        }
      }
      makeRoom(HEADER + ids.length + turns.length + slots.length + context.blocks.length + rows * (1 + tailStride));
      let end = HEADER;
      const place = (length: number) => {
        end += length;
        return end - length;
      };
      const decLensAt = place(rows);
      const idsAt = place(rows);
      const turnsAt = place(turns.length);
      const slotsAt = place(slots.length);
      const contextAt = place(context.blocks.length);
      const tailsAt = place(rows * tailStride);
      words.set([rows, context.length, idsAt, turnsAt, slotsAt, contextAt, tailsAt, tailStride]);
      words.set(ids, idsAt);
      floats.set(turns, turnsAt);
      words.set(slots, slotsAt);
      words.set(context.blocks, contextAt);
      words.fill(0, decLensAt, idsAt);
      words.fill(0, tailsAt, end);
      if (tails) {
        words.set(tails.lengths, decLensAt);
        for (let row = 0; row < rows; row++) {
          const blocks = tails.blocks[row];
          for (let i = 0; i < blocks.length; i++) words[tailsAt + row * tailStride + i] = blocks[i];
        }
      }
      gpu.write(batchBuffer, 0, words.subarray(0, end));
      return {
        rows: tails ? computedRows(rows, reading?.wholeRows) : rows,
        buffer: batchBuffer,
        ctxLen: context.length,
        reading,
        decoding: tails !== undefined,
        decLen,
        drawn: drawn ?? batchBuffer,
      };
    },
  };
}
