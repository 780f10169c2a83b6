// Rotary positions, and keys and values to their place in the cache. Twin of shaders/rope_append.wgsl.

import { BLOCK } from "./attention";

/**
 * Rotates q in place, and k on its way into the cache; v goes there as it is.
 * q (rows, nHeads, headDim), k, v (rows, nKvHeads, headDim) f32; turns (rows, ropeDim / 2, 2) f32: cosine and sine of each pair's
 * angle; slots (rows, 2) u32: the address of the row's block (of this layer), and its place in the block.
 * A pair is dimensions (2i, 2i + 1), or (i, i + ropeDim / 2) where `halves` is 1; dimensions from ropeDim on stay.
 */
export function ropeAppend(
  q: usize,
  k: usize,
  v: usize,
  turns: usize,
  slots: usize,
  layerOffset: usize,
  rows: u32,
  nHeads: u32,
  nKvHeads: u32,
  headDim: u32,
  ropeDim: u32,
  halves: u32,
): void {
  const headBytes = <usize>headDim << 2;
  const turnBytes = <usize>ropeDim << 2;
  for (let row: u32 = 0; row < rows; row++, turns += turnBytes, slots += 8) {
    for (let head: u32 = 0; head < nHeads; head++, q += headBytes) turn(q, turns, ropeDim, halves);
    const keys = load<u32>(slots) + layerOffset;
    const place = load<u32>(slots, 4);
    const values = keys + <usize>(nKvHeads * headDim * BLOCK << 2);
    for (let head: u32 = 0; head < nKvHeads; head++, k += headBytes, v += headBytes) {
      turn(k, turns, ropeDim, halves);
      const column = keys + ((head * headDim * BLOCK + place) << 2);
      for (let d: u32 = 0; d < headDim; d++) store<f32>(column + <usize>(d * BLOCK << 2), load<f32>(k + (d << 2)));
      memory.copy(values + <usize>((head * BLOCK + place) * headDim << 2), v, headBytes);
    }
  }
}

/** Rotates one head. */
function turn(x: usize, turns: usize, ropeDim: u32, halves: u32): void {
  const apart: usize = halves ? <usize>ropeDim << 1 : 4;
  const step: usize = halves ? 4 : 8;
  for (let i: u32 = 0; i < ropeDim; i += 2, x += step, turns += 8) {
    const cosine = load<f32>(turns);
    const sine = load<f32>(turns, 4);
    const a = load<f32>(x);
    const b = load<f32>(x + apart);
    store<f32>(x, a * cosine - b * sine);
    store<f32>(x + apart, a * sine + b * cosine);
  }
}
