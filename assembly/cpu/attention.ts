// Attention of query rows over blocks of stored K/V: the context part, the decode part, the one-part path, and prefill.
// Twin of shaders/attend_*.wgsl. Knows where K/V lies only through tables of block addresses; nothing of trees or models.
//
//   block of a layer   K (nKvHeads, headDim, BLOCK), V (nKvHeads, BLOCK, headDim) f32: keys lie dimension by dimension, so that
//                      scores and values are both sums of a number times a vector, for any headDim
//
// For one KV head all rows that share blocks form one matrix, and each block is read once for four of them. Rows advance
// block by block with an online softmax; a row's arithmetic is the same whichever rows come with it. So two-part and one-part
// decoding give equal bits here, and both equal a sample alone.

import { max4, power1, power4, sum4 } from "./math";
import { EMPTY, mergeStates } from "./state";

/** Tokens of a block. */
export const BLOCK: u32 = 32;
const BLOCK_BYTES: usize = 128; // BLOCK f32
const LOG2E: f64 = 1.4426950408889634;
const LN2: f64 = 0.6931471805599453;

// Scratch of `rows` rows of one KV head, from the pointer that every function takes:
//   queries (rows, headDim), scaled by log2(e)/√headDim so that weights are powers of 2, of four rows together (headDim, 4) | sums (rows, headDim) | scores (rows, BLOCK) | top, total (rows) each

/** Bytes of scratch for `rows` query rows of one KV head. */
export function attendScratchBytes(rows: u32, headDim: u32): usize {
  return <usize>rows * ((<usize>headDim << 3) + BLOCK_BYTES + 8);
}

/** Bytes of one block of one layer. */
export function kvLayerBytes(nKvHeads: u32, headDim: u32): usize {
  return <usize>(nKvHeads * headDim * BLOCK) << 3;
}

/**
 * The context part of decoding: all nSamples · group rows of each KV head against the shared blocks.
 * q (nSamples, nHeads, headDim); table (⌈ctxLen / BLOCK⌉) u32 addresses of blocks, which at layerOffset hold this layer;
 * -> values (nSamples, nHeads, headDim) normalised, lse (nSamples, nHeads) natural log.
 */
export function attendContext(
  q: usize,
  table: usize,
  ctxLen: u32,
  layerOffset: usize,
  values: usize,
  lse: usize,
  nSamples: u32,
  nHeads: u32,
  nKvHeads: u32,
  headDim: u32,
  scratch: usize,
): void {
  const rows = nSamples * (nHeads / nKvHeads);
  for (let head: u32 = 0; head < nKvHeads; head++) {
    gather(q, nSamples, nHeads, nKvHeads, headDim, head, scratch);
    for (let first: u32 = 0; first < ctxLen; first += BLOCK) {
      const block = load<u32>(table + ((first / BLOCK) << 2)) + layerOffset;
      advance(block, <i32>min(BLOCK, ctxLen - first), 0, rows, nKvHeads, headDim, head, scratch);
    }
    finish(values, lse, nSamples, nHeads, nKvHeads, headDim, head, scratch);
  }
}

/**
 * The decode part: each sample's rows against its own tokens.
 * tails (nSamples, tableStride) u32 addresses of each sample's blocks; decLens (nSamples) u32; otherwise as attendContext.
 */
export function attendDecode(
  q: usize,
  tails: usize,
  tableStride: u32,
  decLens: usize,
  layerOffset: usize,
  values: usize,
  lse: usize,
  nSamples: u32,
  nHeads: u32,
  nKvHeads: u32,
  headDim: u32,
  scratch: usize,
): void {
  const sampleBytes = <usize>(nHeads * headDim) << 2;
  for (let sample: u32 = 0; sample < nSamples; sample++) {
    attendContext(
      q + sample * sampleBytes,
      tails + <usize>((sample * tableStride) << 2),
      load<u32>(decLens + (sample << 2)),
      layerOffset,
      values + sample * sampleBytes,
      lse + <usize>((sample * nHeads) << 2),
      1,
      nHeads,
      nKvHeads,
      headDim,
      scratch,
    );
  }
}

/**
 * The one-part path: each sample by itself against the whole context and its own tokens.
 * Arguments of attendContext and attendDecode; states (2, nHeads, headDim + 1) f32 scratch; out (nSamples, nHeads, headDim).
 */
export function attendOnePart(
  q: usize,
  table: usize,
  ctxLen: u32,
  tails: usize,
  tableStride: u32,
  decLens: usize,
  layerOffset: usize,
  out: usize,
  nSamples: u32,
  nHeads: u32,
  nKvHeads: u32,
  headDim: u32,
  states: usize,
  scratch: usize,
): void {
  const sampleBytes = <usize>(nHeads * headDim) << 2;
  const lse = states + (sampleBytes << 1);
  const headBytes = <usize>nHeads << 2;
  for (let sample: u32 = 0; sample < nSamples; sample++, q += sampleBytes, out += sampleBytes) {
    const tail = tails + <usize>((sample * tableStride) << 2);
    const decLen = load<u32>(decLens + (sample << 2));
    attendContext(q, table, ctxLen, layerOffset, states, lse, 1, nHeads, nKvHeads, headDim, scratch);
    attendContext(q, tail, decLen, layerOffset, states + sampleBytes, lse + headBytes, 1, nHeads, nKvHeads, headDim, scratch);
    mergeStates(states, lse, out, 2, nHeads, headDim);
  }
}

/**
 * Prefill: nTokens consecutive tokens of one sequence, the first at position `start`, each against itself and all before it.
 * table: addresses of the sequence's blocks, the new tokens included; q, out (nTokens, nHeads, headDim).
 */
export function attendPrefill(
  q: usize,
  table: usize,
  start: u32,
  layerOffset: usize,
  out: usize,
  lse: usize,
  nTokens: u32,
  nHeads: u32,
  nKvHeads: u32,
  headDim: u32,
  scratch: usize,
): void {
  const group = nHeads / nKvHeads;
  const tokenBytes = <usize>(nHeads * headDim) << 2;
  // As many tokens at a time as a block holds: no row then walks more than one block that it does not see.
  for (let token: u32 = 0; token < nTokens; token += BLOCK) {
    const count = min(BLOCK, nTokens - token);
    const from = token * tokenBytes;
    const position = start + token;
    for (let head: u32 = 0; head < nKvHeads; head++) {
      gather(q + from, count, nHeads, nKvHeads, headDim, head, scratch);
      for (let first: u32 = 0; first < position + count; first += BLOCK) {
        const block = load<u32>(table + ((first / BLOCK) << 2)) + layerOffset;
        // Row r is of token r / group, and sees the keys up to its own position.
        advance(block, <i32>(position + 1) - <i32>first, group, count * group, nKvHeads, headDim, head, scratch);
      }
      finish(out + from, lse, count, nHeads, nKvHeads, headDim, head, scratch);
    }
  }
}

/** Takes the rows of one KV head from q, scaled, and empties their states. */
function gather(q: usize, nTokens: u32, nHeads: u32, nKvHeads: u32, headDim: u32, head: u32, scratch: usize): void {
  const group = nHeads / nKvHeads;
  const rows = nTokens * group;
  const scale = <f32>(LOG2E / sqrt(<f64>headDim));
  const rowBytes = <usize>headDim << 2;
  for (let row: u32 = 0; row < rows; row++) {
    const from = q + <usize>((row / group) * nHeads + head * group + (row % group)) * rowBytes;
    const isFour = row < (rows & ~3);
    let to = scratch + <usize>(isFour ? row & ~3 : row) * rowBytes + (isFour ? <usize>(row & 3) << 2 : 0);
    for (let d: usize = 0; d < rowBytes; d += 4, to += isFour ? 16 : 4) store<f32>(to, load<f32>(from + d) * scale);
  }
  memory.fill(sumsAt(scratch, rows, headDim), 0, <usize>(rows * headDim) << 2);
  const top = topAt(scratch, rows, headDim);
  for (let row: u32 = 0; row < rows; row++) {
    store<f32>(top + (row << 2), EMPTY);
    store<f32>(top + ((rows + row) << 2), 0);
  }
}

/**
 * Advances the states of all rows by one block. Row r sees the block's first `visible + r / group` tokens (none below 0, at
 * most BLOCK), or the first `visible` where group is 0.
 */
function advance(
  block: usize,
  visible: i32,
  group: u32,
  rows: u32,
  nKvHeads: u32,
  headDim: u32,
  head: u32,
  scratch: usize,
): void {
  const plane = <usize>(headDim * BLOCK) << 2;
  const keys = block + head * plane;
  const vectors = block + (nKvHeads + head) * plane;
  const rowBytes = <usize>headDim << 2;
  let queries = scratch;
  let sums = sumsAt(scratch, rows, headDim);
  let scores = scoresAt(scratch, rows, headDim);
  let top = topAt(scratch, rows, headDim);
  const total = <usize>rows << 2; // from a row's top to its total
  let row: u32 = 0;
  for (; row + 4 <= rows; row += 4) {
    // The last of the four sees most; the others' weights beyond their own limit are zeros.
    const most = limit(visible, group, row + 3);
    if (most > 0) {
      scores4(queries, keys, headDim, scores);
      for (let r: u32 = 0; r < 4; r++) {
        soften(scores + r * BLOCK_BYTES, limit(visible, group, row + r), sums + r * rowBytes, headDim, top + (r << 2), total);
      }
      values4(scores, vectors, headDim, most, sums);
    }
    queries += rowBytes << 2;
    sums += rowBytes << 2;
    scores += BLOCK_BYTES << 2;
    top += 16;
  }
  for (; row < rows; row++) {
    const most = limit(visible, group, row);
    if (most > 0) {
      scores1(queries, keys, headDim, scores);
      soften(scores, most, sums, headDim, top, total);
      values1(scores, vectors, headDim, most, sums);
    }
    queries += rowBytes;
    sums += rowBytes;
    scores += BLOCK_BYTES;
    top += 4;
  }
}

// @ts-ignore: decorator
@inline
function limit(visible: i32, group: u32, row: u32): u32 {
  const seen = group == 0 ? visible : visible + <i32>(row / group);
  return <u32>max(0, min(seen, <i32>BLOCK));
}

/** scores (4, BLOCK) = queries (headDim, 4) · keys (headDim, BLOCK). */
function scores4(queries: usize, keys: usize, headDim: u32, scores: usize): void {
  const end = queries + (<usize>headDim << 4);
  for (let token: usize = 0; token < BLOCK_BYTES; token += 32) {
    let s00 = f32x4.splat(0);
    let s01 = f32x4.splat(0);
    let s10 = f32x4.splat(0);
    let s11 = f32x4.splat(0);
    let s20 = f32x4.splat(0);
    let s21 = f32x4.splat(0);
    let s30 = f32x4.splat(0);
    let s31 = f32x4.splat(0);
    let key = keys + token;
    for (let query = queries; query < end; query += 16, key += BLOCK_BYTES) {
      const k0 = v128.load(key);
      const k1 = v128.load(key, 16);
      let q = v128.load32_splat(query);
      s00 = f32x4.add(s00, f32x4.mul(q, k0));
      s01 = f32x4.add(s01, f32x4.mul(q, k1));
      q = v128.load32_splat(query, 4);
      s10 = f32x4.add(s10, f32x4.mul(q, k0));
      s11 = f32x4.add(s11, f32x4.mul(q, k1));
      q = v128.load32_splat(query, 8);
      s20 = f32x4.add(s20, f32x4.mul(q, k0));
      s21 = f32x4.add(s21, f32x4.mul(q, k1));
      q = v128.load32_splat(query, 12);
      s30 = f32x4.add(s30, f32x4.mul(q, k0));
      s31 = f32x4.add(s31, f32x4.mul(q, k1));
    }
    const to = scores + token;
    v128.store(to, s00);
    v128.store(to, s01, 16);
    v128.store(to, s10, 128);
    v128.store(to, s11, 144);
    v128.store(to, s20, 256);
    v128.store(to, s21, 272);
    v128.store(to, s30, 384);
    v128.store(to, s31, 400);
  }
}

/** The same for one row. */
function scores1(query: usize, keys: usize, headDim: u32, scores: usize): void {
  let s0 = f32x4.splat(0);
  let s1 = f32x4.splat(0);
  let s2 = f32x4.splat(0);
  let s3 = f32x4.splat(0);
  let s4 = f32x4.splat(0);
  let s5 = f32x4.splat(0);
  let s6 = f32x4.splat(0);
  let s7 = f32x4.splat(0);
  const end = query + (<usize>headDim << 2);
  for (; query < end; query += 4, keys += BLOCK_BYTES) {
    const q = v128.load32_splat(query);
    s0 = f32x4.add(s0, f32x4.mul(q, v128.load(keys)));
    s1 = f32x4.add(s1, f32x4.mul(q, v128.load(keys, 16)));
    s2 = f32x4.add(s2, f32x4.mul(q, v128.load(keys, 32)));
    s3 = f32x4.add(s3, f32x4.mul(q, v128.load(keys, 48)));
    s4 = f32x4.add(s4, f32x4.mul(q, v128.load(keys, 64)));
    s5 = f32x4.add(s5, f32x4.mul(q, v128.load(keys, 80)));
    s6 = f32x4.add(s6, f32x4.mul(q, v128.load(keys, 96)));
    s7 = f32x4.add(s7, f32x4.mul(q, v128.load(keys, 112)));
  }
  v128.store(scores, s0);
  v128.store(scores, s1, 16);
  v128.store(scores, s2, 32);
  v128.store(scores, s3, 48);
  v128.store(scores, s4, 64);
  v128.store(scores, s5, 80);
  v128.store(scores, s6, 96);
  v128.store(scores, s7, 112);
}

/**
 * One row's online softmax over a block: scores (BLOCK) become weights 2^(score - top), zero from `seen` on; the row's sums and
 * total are rescaled where its top rises.
 */
function soften(scores: usize, seen: u32, sums: usize, headDim: u32, top: usize, total: usize): void {
  if (seen == 0) {
    memory.fill(scores, 0, BLOCK_BYTES);
    return;
  }
  for (let token = seen; token < BLOCK; token++) store<f32>(scores + (token << 2), EMPTY);
  const before = load<f32>(top);
  let best = f32x4.splat(before);
  for (let i: usize = 0; i < BLOCK_BYTES; i += 16) best = f32x4.pmax(best, v128.load(scores + i));
  const after = max4(best);
  let sum = load<f32>(top + total);
  if (after > before) {
    const shrink = power1(before - after);
    sum *= shrink;
    const bytes = <usize>headDim << 2;
    const whole = bytes & ~15;
    for (let d: usize = 0; d < whole; d += 16) v128.store(sums + d, f32x4.mul(v128.load(sums + d), f32x4.splat(shrink)));
    for (let d = whole; d < bytes; d += 4) store<f32>(sums + d, load<f32>(sums + d) * shrink);
    store<f32>(top, after);
  }
  const after4 = f32x4.splat(after);
  let added = f32x4.splat(0);
  for (let i: usize = 0; i < BLOCK_BYTES; i += 16) {
    const weights = power4(f32x4.sub(v128.load(scores + i), after4));
    v128.store(scores + i, weights);
    added = f32x4.add(added, weights);
  }
  // What is not seen weighed 2^-100, too little to change the sum; here it must be nothing, whatever lies in the block.
  if (seen < BLOCK) memory.fill(scores + (seen << 2), 0, BLOCK_BYTES - (seen << 2));
  store<f32>(top + total, sum + sum4(added));
}

/** sums (4, headDim) += weights (4, BLOCK) · values (seen, headDim). */
function values4(weights: usize, values: usize, headDim: u32, seen: u32, sums: usize): void {
  const rowBytes = <usize>headDim << 2;
  const wide = rowBytes & ~31;
  const end = <usize>seen << 2;
  for (let d: usize = 0; d < wide; d += 32) {
    let to = sums + d;
    let s00 = v128.load(to);
    let s01 = v128.load(to, 16);
    to += rowBytes;
    let s10 = v128.load(to);
    let s11 = v128.load(to, 16);
    to += rowBytes;
    let s20 = v128.load(to);
    let s21 = v128.load(to, 16);
    to += rowBytes;
    let s30 = v128.load(to);
    let s31 = v128.load(to, 16);
    let value = values + d;
    for (let token: usize = 0; token < end; token += 4, value += rowBytes) {
      const v0 = v128.load(value);
      const v1 = v128.load(value, 16);
      const from = weights + token;
      let w = v128.load32_splat(from);
      s00 = f32x4.add(s00, f32x4.mul(w, v0));
      s01 = f32x4.add(s01, f32x4.mul(w, v1));
      w = v128.load32_splat(from, 128);
      s10 = f32x4.add(s10, f32x4.mul(w, v0));
      s11 = f32x4.add(s11, f32x4.mul(w, v1));
      w = v128.load32_splat(from, 256);
      s20 = f32x4.add(s20, f32x4.mul(w, v0));
      s21 = f32x4.add(s21, f32x4.mul(w, v1));
      w = v128.load32_splat(from, 384);
      s30 = f32x4.add(s30, f32x4.mul(w, v0));
      s31 = f32x4.add(s31, f32x4.mul(w, v1));
    }
    v128.store(to, s30);
    v128.store(to, s31, 16);
    to -= rowBytes;
    v128.store(to, s20);
    v128.store(to, s21, 16);
    to -= rowBytes;
    v128.store(to, s10);
    v128.store(to, s11, 16);
    to -= rowBytes;
    v128.store(to, s00);
    v128.store(to, s01, 16);
  }
  if (wide < rowBytes) {
    for (let r: usize = 0; r < 4; r++) valuesRest(weights + r * BLOCK_BYTES, values, rowBytes, wide, end, sums + r * rowBytes);
  }
}

/** The same for one row. */
function values1(weights: usize, values: usize, headDim: u32, seen: u32, sums: usize): void {
  const rowBytes = <usize>headDim << 2;
  const wide = rowBytes & ~63;
  const end = <usize>seen << 2;
  for (let d: usize = 0; d < wide; d += 64) {
    const to = sums + d;
    let s0 = v128.load(to);
    let s1 = v128.load(to, 16);
    let s2 = v128.load(to, 32);
    let s3 = v128.load(to, 48);
    let value = values + d;
    for (let token: usize = 0; token < end; token += 4, value += rowBytes) {
      const w = v128.load32_splat(weights + token);
      s0 = f32x4.add(s0, f32x4.mul(w, v128.load(value)));
      s1 = f32x4.add(s1, f32x4.mul(w, v128.load(value, 16)));
      s2 = f32x4.add(s2, f32x4.mul(w, v128.load(value, 32)));
      s3 = f32x4.add(s3, f32x4.mul(w, v128.load(value, 48)));
    }
    v128.store(to, s0);
    v128.store(to, s1, 16);
    v128.store(to, s2, 32);
    v128.store(to, s3, 48);
  }
  if (wide < rowBytes) valuesRest(weights, values, rowBytes, wide, end, sums);
}

/** The dimensions from byte `first` on, of one row, for head sizes that fill no whole tile. */
function valuesRest(weights: usize, values: usize, rowBytes: usize, first: usize, end: usize, sums: usize): void {
  for (let d = first; d < rowBytes; d += 4) {
    let sum = load<f32>(sums + d);
    let value = values + d;
    for (let token: usize = 0; token < end; token += 4, value += rowBytes) sum += load<f32>(weights + token) * load<f32>(value);
    store<f32>(sums + d, sum);
  }
}

/** Normalises the states of one KV head's rows and puts them in their places. */
function finish(
  values: usize,
  lse: usize,
  nTokens: u32,
  nHeads: u32,
  nKvHeads: u32,
  headDim: u32,
  head: u32,
  scratch: usize,
): void {
  const group = nHeads / nKvHeads;
  const rows = nTokens * group;
  let sums = sumsAt(scratch, rows, headDim);
  let top = topAt(scratch, rows, headDim);
  const rowBytes = <usize>headDim << 2;
  for (let token: u32 = 0; token < nTokens; token++) {
    const row = token * nHeads + head * group;
    let to = values + row * rowBytes;
    let toLse = lse + <usize>(row << 2);
    for (let g: u32 = 0; g < group; g++, sums += rowBytes, to += rowBytes, toLse += 4, top += 4) {
      const total = load<f32>(top + (rows << 2));
      const inverse: f32 = total > 0 ? 1 / total : 0;
      for (let d: usize = 0; d < rowBytes; d += 4) store<f32>(to + d, load<f32>(sums + d) * inverse);
      store<f32>(toLse, total > 0 ? <f32>(<f64>load<f32>(top) * LN2 + Math.log(total)) : EMPTY);
    }
  }
}

// @ts-ignore: decorator
@inline
function sumsAt(scratch: usize, rows: u32, headDim: u32): usize {
  return scratch + (<usize>(rows * headDim) << 2);
}
// @ts-ignore: decorator
@inline
function scoresAt(scratch: usize, rows: u32, headDim: u32): usize {
  return scratch + (<usize>(rows * headDim) << 3);
}
// @ts-ignore: decorator
@inline
function topAt(scratch: usize, rows: u32, headDim: u32): usize {
  return scoresAt(scratch, rows, headDim) + rows * BLOCK_BYTES;
}
