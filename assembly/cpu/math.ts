// Elementary functions on vectors of four f32, and half-precision numbers. Knows nothing of tensors.

const LOG2E: f32 = 1.44269504088896341;
const LN2_HIGH: f32 = 0.693359375;
const LN2_LOW: f32 = -2.12194440e-4;
const WHOLE: f32 = 12582912; // 1.5 · 2^23

/** e^x per lane; 0 below -87.3, the largest power of two in reach above 88. Relative error below 1.5e-7 (Cephes' polynomial for expf). */
// @ts-ignore: decorator
@inline
export function exp4(x: v128): v128 {
  const alive = f32x4.ge(x, f32x4.splat(-87.3));
  // pmin and pmax are one instruction each where min and max, careful with NaN, are several. Adding 1.5 · 2^23 rounds to a whole
  // number, and leaves that number in the low bits.
  const clamped = f32x4.pmax(f32x4.pmin(x, f32x4.splat(88)), f32x4.splat(-87.3));
  const shifted = f32x4.add(f32x4.mul(clamped, f32x4.splat(LOG2E)), f32x4.splat(WHOLE));
  const n = f32x4.sub(shifted, f32x4.splat(WHOLE));
  const r = f32x4.sub(
    f32x4.sub(clamped, f32x4.mul(n, f32x4.splat(LN2_HIGH))),
    f32x4.mul(n, f32x4.splat(LN2_LOW)),
  );
  let p = f32x4.splat(1.9875691500e-4);
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.3981999507e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(8.3334519073e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(4.1665795894e-2));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1.6666665459e-1));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(5.0000001201e-1));
  p = f32x4.add(f32x4.add(f32x4.mul(f32x4.mul(p, r), r), r), f32x4.splat(1));
  const power = i32x4.shl(i32x4.add(shifted, i32x4.splat(127)), 23);
  return v128.and(f32x4.mul(p, power), alive);
}

/**
 * 2^x per lane, for x up to 0; 2^-100 below -100, so that no product with it is subnormal. Relative error below 2e-7 (a minimax
 * polynomial of degree 5 over [-0.5, 0.5], exactly 1 at 0). Half the work of exp4.
 */
// @ts-ignore: decorator
@inline
export function power4(x: v128): v128 {
  const clamped = f32x4.pmax(x, f32x4.splat(-100));
  const shifted = f32x4.add(clamped, f32x4.splat(WHOLE));
  const r = f32x4.sub(clamped, f32x4.sub(shifted, f32x4.splat(WHOLE)));
  let p = f32x4.splat(1.3264727315e-3);
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(9.6715127564e-3));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(5.5507337440e-2));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(2.4022242084e-1));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(6.9314697760e-1));
  p = f32x4.add(f32x4.mul(p, r), f32x4.splat(1));
  // The whole part goes straight to the exponent.
  return i32x4.add(p, i32x4.shl(shifted, 23));
}

/** 2^x, the same value as a lane of power4. */
// @ts-ignore: decorator
@inline
export function power1(x: f32): f32 {
  return f32x4.extract_lane(power4(f32x4.splat(x)), 0);
}

/** e^x, the same value as a lane of exp4. */
// @ts-ignore: decorator
@inline
export function exp1(x: f32): f32 {
  return f32x4.extract_lane(exp4(f32x4.splat(x)), 0);
}

/** The sum of the four lanes. */
// @ts-ignore: decorator
@inline
export function sum4(x: v128): f32 {
  return (
    f32x4.extract_lane(x, 0) + f32x4.extract_lane(x, 1) + (f32x4.extract_lane(x, 2) + f32x4.extract_lane(x, 3))
  );
}

/** The largest of the four lanes. */
// @ts-ignore: decorator
@inline
export function max4(x: v128): f32 {
  return max(
    max(f32x4.extract_lane(x, 0), f32x4.extract_lane(x, 1)),
    max(f32x4.extract_lane(x, 2), f32x4.extract_lane(x, 3)),
  );
}

/** Four finite half-precision numbers, as the four 16-bit integers at `at`, to f32; exact, subnormals included. */
// @ts-ignore: decorator
@inline
export function loadHalf4(at: usize): v128 {
  // Exponent and mantissa moved into place are the value times 2^-112.
  const bits = v128.and(i32x4.shl(v128.load16x4_s(at), 13), i32x4.splat(0x8fffffff));
  return f32x4.mul(bits, f32x4.splat(5.192296858534828e33));
}

/** One finite half-precision number; exact. */
// @ts-ignore: decorator
@inline
export function half(bits: u16): f32 {
  return reinterpret<f32>(((<i32>(<i16>bits)) << 13) & 0x8fffffff) * <f32>5.192296858534828e33;
}

/** Whether half-precision bits are an infinity or not a number. */
// @ts-ignore: decorator
@inline
export function halfIsBroken(bits: u16): bool {
  return (bits & 0x7c00) == 0x7c00;
}
