// Root-mean-square normalisation. Twin of shaders/rms_norm.wgsl.

import { sum4 } from "./math";

/**
 * out[row] = x[row] / sqrt(mean(x[row]²) + eps) · weight.
 * x, out (rows, cols) f32, may be the same; weight (cols) f32. Any cols; the sum runs in four lanes.
 */
export function rmsNorm(x: usize, weight: usize, eps: f32, out: usize, rows: u32, cols: u32): void {
  const bytes = <usize>cols << 2;
  const whole = bytes & ~15;
  for (let row: u32 = 0; row < rows; row++, x += bytes, out += bytes) {
    let squares = f32x4.splat(0);
    for (let i: usize = 0; i < whole; i += 16) {
      const v = v128.load(x + i);
      squares = f32x4.add(squares, f32x4.mul(v, v));
    }
    let sum = sum4(squares);
    for (let i = whole; i < bytes; i += 4) sum += load<f32>(x + i) * load<f32>(x + i);

    const scale: f32 = 1 / sqrt(sum / <f32>cols + eps);
    const scale4 = f32x4.splat(scale);
    for (let i: usize = 0; i < whole; i += 16) {
      v128.store(out + i, f32x4.mul(f32x4.mul(v128.load(x + i), scale4), v128.load(weight + i)));
    }
    for (let i = whole; i < bytes; i += 4) store<f32>(out + i, load<f32>(x + i) * scale * load<f32>(weight + i));
  }
}
