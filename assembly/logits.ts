// One row of logits, for both modules: sparse edits, the k best, and log-sum-exp in float64.
// Knows nothing of where logits come from, of temperatures' meaning or of random numbers.
// An edit is 16 bytes: id u32, bias f32, scale f32, less f32; a row's edits name each id once.

import { alloc, mark, release } from "./memory";

export const EDIT_BYTES: u32 = 16;

/** A logit after an edit, each operation rounded to f32: penalise(logit + bias, scale) - less. */
// @ts-ignore: decorator
@inline
export function adjust(logit: f32, edit: usize): f32 {
  const biased = logit + load<f32>(edit, 4);
  const scale = load<f32>(edit, 8);
  return (biased > 0 ? biased / scale : biased * scale) - load<f32>(edit, 12);
}

/** The largest of a row of `length` f32; NaN where there is one. length > 0. */
export function highest(row: usize, length: u32): f32 {
  const end = row + (<usize>length << 2);
  const vectorEnd = row + (<usize>(length & ~15) << 2);
  let a = f32x4.splat(load<f32>(row));
  let b = a;
  let c = a;
  let d = a;
  let at = row;
  for (; at < vectorEnd; at += 64) {
    a = f32x4.max(a, v128.load(at));
    b = f32x4.max(b, v128.load(at, 16));
    c = f32x4.max(c, v128.load(at, 32));
    d = f32x4.max(d, v128.load(at, 48));
  }
  for (; at < end; at += 4) a = f32x4.max(a, v128.load32_splat(at));
  a = f32x4.max(f32x4.max(a, b), f32x4.max(c, d));
  a = f32x4.max(a, v128.shuffle<f32>(a, a, 2, 3, 0, 1));
  a = f32x4.max(a, v128.shuffle<f32>(a, a, 1, 0, 3, 2));
  return f32x4.extract_lane(a, 0);
}

/**
 * ln Σ exp(x · inverseTemperature) over a row of `length` f32, of which `top` is the largest, finite. Summed in float64, in an
 * order that depends on the length alone. inverseTemperature > 0. -Infinity counts as nothing.
 */
export function logSumExp(row: usize, length: u32, top: f32, inverseTemperature: f64): f64 {
  const end = row + (<usize>length << 2);
  const vectorEnd = row + (<usize>(length & ~3) << 2);
  const shift = f64x2.splat(<f64>top);
  const slope = f64x2.splat(inverseTemperature * LOG2E);
  let a = f64x2.splat(0);
  let b = a;
  let at = row;
  for (; at < vectorEnd; at += 16) {
    const x = v128.load(at);
    const low = f64x2.promote_low_f32x4(x);
    const high = f64x2.promote_low_f32x4(v128.shuffle<f32>(x, x, 2, 3, 2, 3));
    a = f64x2.add(a, exp2(f64x2.mul(f64x2.sub(low, shift), slope)));
    b = f64x2.add(b, exp2(f64x2.mul(f64x2.sub(high, shift), slope)));
  }
  let sum = f64x2.add(a, b);
  for (; at < end; at += 4) {
    const x = f64x2.splat((<f64>load<f32>(at) - <f64>top) * (inverseTemperature * LOG2E));
    sum = f64x2.add(sum, f64x2.replace_lane(exp2(x), 1, 0));
  }
  return <f64>top * inverseTemperature + Math.log(f64x2.extract_lane(sum, 0) + f64x2.extract_lane(sum, 1));
}

/**
 * The k best of a row of `length` f32 without NaN: ids and values, largest first, equal values by rising id.
 * ids (k) u32, values (k) f32; 0 < k. Returns how many there are: min(k, length).
 */
export function best(row: usize, length: u32, k: u32, ids: usize, values: usize): u32 {
  if (k > length) k = length;
  const bar = length >= 8 * GROUPS && k <= GROUPS >> 1 ? lowerBound(row, length, k, ids, values) : -f32.MAX_VALUE;
  let count: u32 = 0;
  // Whatever lies below the bar is not among the k best; then, once k are held, what is not above the worst of them.
  let worst = bar;
  let limit = f32x4.splat(bar);
  const vectors = length & ~3;
  for (let id: u32 = 0; id < length; ) {
    if (id < vectors) {
      const x = v128.load(row + (<usize>id << 2));
      const hits = count < k ? f32x4.ge(x, limit) : f32x4.gt(x, limit);
      if (!v128.any_true(hits)) {
        id += 4;
        continue;
      }
    }
    const stop = id < vectors ? id + 4 : length;
    for (; id < stop; id++) {
      const x = load<f32>(row + (<usize>id << 2));
      if (count < k) {
        if (x >= worst) count = push(ids, values, count, id, x);
      } else if (x > worst) {
        replaceWorst(ids, values, k, id, x);
      } else continue;
      if (count == k) {
        worst = load<f32>(values);
        limit = f32x4.splat(worst);
      }
    }
  }
  // Only -Infinity lies below a bar of -MAX: lowest ids first.
  for (let id: u32 = 0; count < k; id++) {
    const x = load<f32>(row + (<usize>id << 2));
    if (x < bar) count = push(ids, values, count, id, x);
  }
  for (let left = k - 1; left > 0; left--) {
    const id = load<u32>(ids);
    const x = load<f32>(values);
    replaceWorst(ids, values, left, load<u32>(ids + (<usize>left << 2)), load<f32>(values + (<usize>left << 2)));
    store<u32>(ids + (<usize>left << 2), id);
    store<f32>(values + (<usize>left << 2), x);
  }
  return k;
}

/** Groups of a row whose largest elements bound the k-th largest of all from below. */
const GROUPS: u32 = 1024;

/** A value that at least k elements of the row reach: the k-th largest of the largest of GROUPS groups. ids, values: scratch (k). */
function lowerBound(row: usize, length: u32, k: u32, ids: usize, values: usize): f32 {
  const from = mark();
  const tops = alloc(GROUPS << 2);
  if (tops == 0) return -f32.MAX_VALUE;
  memory.copy(tops, row, GROUPS << 2);
  for (let first = GROUPS; first + GROUPS <= length; first += GROUPS) {
    const group = row + (<usize>first << 2);
    for (let i: usize = 0; i < GROUPS << 2; i += 32) {
      v128.store(tops + i, f32x4.pmax(v128.load(tops + i), v128.load(group + i)));
      v128.store(tops + i, f32x4.pmax(v128.load(tops + i, 16), v128.load(group + i, 16)), 16);
    }
  }
  best(tops, GROUPS, k, ids, values);
  const bound = load<f32>(values + (<usize>(k - 1) << 2));
  release(from);
  return max(bound, -f32.MAX_VALUE);
}

// A heap with the worst candidate at its root, over the two arrays.

/** Whether candidate (id, x) ranks below candidate (otherId, y). */
// @ts-ignore: decorator
@inline
function below(id: u32, x: f32, otherId: u32, y: f32): bool {
  return x < y || (x == y && id > otherId);
}

function push(ids: usize, values: usize, count: u32, id: u32, x: f32): u32 {
  let at = count;
  while (at > 0) {
    const parent = (at - 1) >> 1;
    const parentId = load<u32>(ids + (<usize>parent << 2));
    const parentX = load<f32>(values + (<usize>parent << 2));
    if (!below(id, x, parentId, parentX)) break;
    store<u32>(ids + (<usize>at << 2), parentId);
    store<f32>(values + (<usize>at << 2), parentX);
    at = parent;
  }
  store<u32>(ids + (<usize>at << 2), id);
  store<f32>(values + (<usize>at << 2), x);
  return count + 1;
}

function replaceWorst(ids: usize, values: usize, count: u32, id: u32, x: f32): void {
  let at: u32 = 0;
  for (;;) {
    let child: u32 = 2 * at + 1;
    if (child >= count) break;
    let childId = load<u32>(ids + (<usize>child << 2));
    let childX = load<f32>(values + (<usize>child << 2));
    if (child + 1 < count) {
      const rightId = load<u32>(ids + (<usize>child << 2), 4);
      const rightX = load<f32>(values + (<usize>child << 2), 4);
      if (below(rightId, rightX, childId, childX)) {
        child++;
        childId = rightId;
        childX = rightX;
      }
    }
    if (!below(childId, childX, id, x)) break;
    store<u32>(ids + (<usize>at << 2), childId);
    store<f32>(values + (<usize>at << 2), childX);
    at = child;
  }
  store<u32>(ids + (<usize>at << 2), id);
  store<f32>(values + (<usize>at << 2), x);
}

const LOG2E: f64 = 1.4426950408889634;
/** Adding it rounds to a whole number, which then stands in the low bits of the sum. */
const ROUNDER: f64 = 6755399441055744;

/** 2^x per lane for x <= 0; below -1000 2^-1000. Relative error below 4e-16 (a polynomial through 11 Chebyshev points of ±1/2). */
// @ts-ignore: decorator
@inline
function exp2(x: v128): v128 {
  const clamped = f64x2.pmax(x, f64x2.splat(-1000)); // one instruction, where max takes several
  const rounded = f64x2.add(clamped, f64x2.splat(ROUNDER));
  const r = f64x2.sub(clamped, f64x2.sub(rounded, f64x2.splat(ROUNDER)));
  // Coefficients in pairs, and pairs of pairs: fewer steps that wait for one another.
  const r2 = f64x2.mul(r, r);
  const r4 = f64x2.mul(r2, r2);
  const c01 = f64x2.add(f64x2.splat(1.0), f64x2.mul(f64x2.splat(0.69314718055995), r));
  const c23 = f64x2.add(f64x2.splat(0.24022650695910097), f64x2.mul(f64x2.splat(0.05550410866444742), r));
  const c45 = f64x2.add(f64x2.splat(0.009618129107606871), f64x2.mul(f64x2.splat(0.0013333558230215262), r));
  const c67 = f64x2.add(f64x2.splat(0.00015403530441765088), f64x2.mul(f64x2.splat(1.5252657229551429e-05), r));
  const c89 = f64x2.add(f64x2.splat(1.321544257022465e-06), f64x2.mul(f64x2.splat(1.0208696429374313e-07), r));
  const c03 = f64x2.add(c01, f64x2.mul(c23, r2));
  const c47 = f64x2.add(c45, f64x2.mul(c67, r2));
  const c8a = f64x2.add(c89, f64x2.mul(f64x2.splat(7.072589488396345e-09), r2));
  const p = f64x2.add(c03, f64x2.mul(f64x2.add(c47, f64x2.mul(c8a, r4)), r4));
  return i64x2.add(p, i64x2.shl(rounded, 52));
}
