// The gate of the feed-forward part. Twin of shaders/swiglu.wgsl.

import { exp1, exp4 } from "./math";

/** gate = silu(gate) · up, silu(z) = z / (1 + e^-z). gate, up (count) f32. */
export function swiglu(gate: usize, up: usize, count: u32): void {
  const bytes = <usize>count << 2;
  const whole = bytes & ~15;
  const one = f32x4.splat(1);
  for (let i: usize = 0; i < whole; i += 16) {
    const z = v128.load(gate + i);
    const silu = f32x4.div(z, f32x4.add(one, exp4(f32x4.neg(z))));
    v128.store(gate + i, f32x4.mul(silu, v128.load(up + i)));
  }
  for (let i = whole; i < bytes; i += 4) {
    const z = load<f32>(gate + i);
    store<f32>(gate + i, (z / (1 + exp1(-z))) * load<f32>(up + i));
  }
}
