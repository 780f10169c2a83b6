// Joins attention states; twin of shaders/merge_states.wgsl. Knows nothing of caches or models.

import { exp1 } from "./math";

/** The log-sum-exp of an empty part: finite, so that the arithmetic never meets an infinity. */
export const EMPTY: f32 = -1e30;

/**
 * out[row] = Σ_part w(part) · values[part, row],  w = softmax over parts of lse[part, row]  (paper eq. 3-4, as log-sum-exp).
 * values (nParts, rows, headDim) f32, normalised within each part; lse (nParts, rows) f32, natural log; out (rows, headDim) f32.
 * A row must have at least one part that is not EMPTY.
 */
export function mergeStates(values: usize, lse: usize, out: usize, nParts: u32, rows: u32, headDim: u32): void {
  const rowBytes = <usize>headDim << 2;
  const whole = rowBytes & ~15;
  for (let row: u32 = 0; row < rows; row++, out += rowBytes) {
    let top = EMPTY;
    for (let part: u32 = 0; part < nParts; part++) top = max(top, lseAt(lse, part, row, rows));

    let total: f32 = 0;
    for (let part: u32 = 0; part < nParts; part++) total += exp1(lseAt(lse, part, row, rows) - top);

    memory.fill(out, 0, rowBytes);
    for (let part: u32 = 0; part < nParts; part++) {
      const weight = exp1(lseAt(lse, part, row, rows) - top) / total;
      const weight4 = f32x4.splat(weight);
      const from = values + <usize>(part * rows + row) * rowBytes;
      for (let d: usize = 0; d < whole; d += 16) {
        v128.store(out + d, f32x4.add(v128.load(out + d), f32x4.mul(weight4, v128.load(from + d))));
      }
      for (let d = whole; d < rowBytes; d += 4) store<f32>(out + d, load<f32>(out + d) + weight * load<f32>(from + d));
    }
  }
}

// @ts-ignore: decorator
@inline
function lseAt(lse: usize, part: u32, row: u32, rows: u32): f32 {
  return load<f32>(lse + <usize>((part * rows + row) << 2));
}
