// The best candidates of a row of logits after its edits, with both log-sum-exps; twin of shaders/top_k.wgsl.
// Knows nothing of temperatures' meaning, of sampling or of random numbers.

import { adjust, best, EDIT_BYTES, highest, logSumExp } from "../logits";
import { alloc, mark, release } from "../memory";

/** A logit, or an edited one, is NaN or +Infinity. */
const NOT_FINITE: i32 = -1;
/** Every token is impossible (-Infinity). */
const NO_TOKEN: i32 = -2;
const NO_MEMORY: i32 = -3;
/** An edit names an id outside the vocabulary. */
const UNKNOWN_ID: i32 = -4;

/**
 * logits (vocab) f32 raw, -Infinity allowed; the same afterwards. edits (nEdits) of 16 bytes, see logits.ts.
 * Out, best first by adjusted logit, ties to the lower id: ids (k) u32, adjusted (k) f32, raw (k) f32; lses (2) f64: natural
 * log-sum-exp of the raw logits, and of the adjusted ones times inverseTemperature (0: not asked for, left 0).
 * Returns how many candidates there are, min(k, vocab), or a code below 0. 0 < k.
 */
export function topK(
  logits: usize, vocab: u32, edits: usize, nEdits: u32, inverseTemperature: f64, k: u32,
  ids: usize, adjusted: usize, raw: usize, lses: usize,
): i32 {
  const rawTop = highest(logits, vocab);
  if (!(rawTop < Infinity)) return NOT_FINITE;
  if (rawTop == -Infinity) return NO_TOKEN;
  const rawLse = logSumExp(logits, vocab, rawTop, 1);
  store<f64>(lses, rawLse);
  store<f64>(lses, inverseTemperature == 1 ? rawLse : 0, 8);

  for (let i: u32 = 0; i < nEdits; i++) if (load<u32>(edits + i * EDIT_BYTES) >= vocab) return UNKNOWN_ID;
  const from = mark();
  const saved = alloc(<usize>nEdits << 2);
  if (saved == 0) return NO_MEMORY;
  for (let i: u32 = 0; i < nEdits; i++) {
    const edit = edits + i * EDIT_BYTES;
    const logit = logits + (<usize>load<u32>(edit) << 2);
    store<f32>(saved + (<usize>i << 2), load<f32>(logit));
    store<f32>(logit, adjust(load<f32>(logit), edit));
  }

  let count: i32 = NOT_FINITE;
  const top = nEdits > 0 ? highest(logits, vocab) : rawTop;
  if (top == -Infinity) count = NO_TOKEN;
  else if (top < Infinity) {
    if (inverseTemperature > 0 && (nEdits > 0 || inverseTemperature != 1))
      store<f64>(lses, logSumExp(logits, vocab, top, inverseTemperature), 8);
    count = best(logits, vocab, k, ids, adjusted);
  }

  // Backwards, so that a row comes back whole even where an id is named twice.
  for (let i = nEdits; i > 0; i--) {
    const logit = logits + (<usize>load<u32>(edits + (i - 1) * EDIT_BYTES) << 2);
    store<f32>(logit, load<f32>(saved + (<usize>(i - 1) << 2)));
  }
  release(from);
  for (let i: i32 = 0; i < count; i++) {
    const at = <usize>i << 2;
    store<f32>(raw + at, load<f32>(logits + (<usize>load<u32>(ids + at) << 2)));
  }
  return count;
}
