// Products of activations with weight matrices: out = x · Wᵀ. Knows panels through quant.ts, and nothing of models.
//
// Quantised weights meet activations rounded to 16 bits, one scale a block of 32 columns. The products of a block are summed
// exactly in integers; blocks are then added in order in f32. Float weights, and the quantised ones of small matrices, meet f32
// activations, columns added in order. Which of the two depends on the matrix alone, and every kernel computes
// a row by the same steps: a row's result does not depend on how many rows come with it.

import { max4 } from "./math";
import {
  blockBytes,
  codeBits,
  codeOffset,
  hasMinimum,
  isFloat,
  PANEL,
  panelBytes,
  Q8_0,
  scaleShift,
  scalesBytes,
  unpackCodes,
  unpackScales,
  unpackValues,
  valuesScratchBytes,
} from "./quant";

/** Columns of a panel unpacked at a time, so that they stay in the first-level cache: 8 outputs × 1024 × 2 bytes. */
const TILE_COLS: u32 = 1024;
/** Up to this many rows, codes of 4 or 8 bits are used straight from the panel. */
const FEW_ROWS: u32 = 2;
/**
 * Matrices of up to this many weights compute in f32. A trade of time for accuracy: the tiny Q8_0 checkpoints come within 1e-5 of
 * their golden log-probabilities instead of 9e-4, and such a product takes 5 to 7 times as long for one row, 1.1 to 1.6 times for
 * 64 (microseconds either way). Larger matrices keep the error of 16 bits.
 */
const SMALL: u32 = 80 << 10;
/** Activations below this are zeros. */
const SMALLEST: f32 = 1e-30;

/** Bytes of scratch that linear needs. */
export function linearScratchBytes(type: u32, rows: u32, cols: u32, nOut: u32): usize {
  const sums = <usize>rows << 5;
  const count = min(cols, TILE_COLS);
  if (computesInFloat(type, cols, nOut)) return sums + (<usize>count << 5) + valuesScratchBytes(type, count, cols);
  const blocks = <usize>(cols >> 5);
  return (
    sums +
    (<usize>count << 4) +
    scalesBytes(type, cols) +
    rows * ((<usize>cols << 1) + blocks * 12) +
    (<usize>cols << 3)
  );
}

/**
 * out[row] = x[row] · Wᵀ, or out[row] += x[row] · Wᵀ where `add` is 1.
 * x (rows, cols) f32; weight: panels, (nOut, cols) in `type`; out (rows, nOut) f32; scratch: linearScratchBytes.
 */
export function linear(
  x: usize,
  weight: usize,
  type: u32,
  out: usize,
  rows: u32,
  cols: u32,
  nOut: u32,
  add: u32,
  scratch: usize,
): void {
  const sums = scratch; // (rows, 8) f32
  const tile = sums + (<usize>rows << 5);
  if (computesInFloat(type, cols, nOut)) linearFloat(x, weight, type, out, rows, cols, nOut, add, sums, tile);
  else linearCodes(x, weight, type, out, rows, cols, nOut, add, sums, tile);
}

/** x[row] += bias. x (rows, cols) f32, bias (cols) f32. */
export function addBias(x: usize, bias: usize, rows: u32, cols: u32): void {
  const bytes = <usize>cols << 2;
  for (let row: u32 = 0; row < rows; row++, x += bytes) {
    for (let i: usize = 0; i < bytes; i += 4) store<f32>(x + i, load<f32>(x + i) + load<f32>(bias + i));
  }
}

// @ts-ignore: decorator
@inline
function computesInFloat(type: u32, cols: u32, nOut: u32): bool {
  return isFloat(type) || <u64>cols * nOut <= SMALL;
}

function linearFloat(
  x: usize,
  weight: usize,
  type: u32,
  out: usize,
  rows: u32,
  cols: u32,
  nOut: u32,
  add: u32,
  sums: usize,
  tile: usize,
): void {
  const stride = panelBytes(type, cols);
  const xStride = <usize>cols << 2;
  for (let output: u32 = 0; output < nOut; output += PANEL, weight += stride) {
    memory.fill(sums, 0, <usize>rows << 5);
    for (let first: u32 = 0; first < cols; first += TILE_COLS) {
      const count = min(TILE_COLS, cols - first);
      unpackValues(type, weight, cols, first, count, tile, tile + (<usize>count << 5));
      let row: u32 = 0;
      let from = x + (<usize>first << 2);
      for (; row + 4 <= rows; row += 4, from += xStride << 2) floats4(from, xStride, tile, count, sums + (<usize>row << 5));
      for (; row < rows; row++, from += xStride) floats1(from, tile, count, sums + (<usize>row << 5));
    }
    emit(sums, out, rows, nOut, output, add);
  }
}

/** sums[row] += x[row] · tile for four rows. x: rows `xStride` bytes apart; tile (count, 8) f32; sums (4, 8) f32. */
function floats4(x: usize, xStride: usize, tile: usize, count: u32, sums: usize): void {
  const x1 = x + xStride;
  const x2 = x1 + xStride;
  const x3 = x2 + xStride;
  let s00 = v128.load(sums);
  let s01 = v128.load(sums, 16);
  let s10 = v128.load(sums, 32);
  let s11 = v128.load(sums, 48);
  let s20 = v128.load(sums, 64);
  let s21 = v128.load(sums, 80);
  let s30 = v128.load(sums, 96);
  let s31 = v128.load(sums, 112);
  const end = <usize>count << 2;
  for (let k: usize = 0; k < end; k += 4, tile += 32) {
    const w0 = v128.load(tile);
    const w1 = v128.load(tile, 16);
    let a = v128.load32_splat(x + k);
    s00 = f32x4.add(s00, f32x4.mul(a, w0));
    s01 = f32x4.add(s01, f32x4.mul(a, w1));
    a = v128.load32_splat(x1 + k);
    s10 = f32x4.add(s10, f32x4.mul(a, w0));
    s11 = f32x4.add(s11, f32x4.mul(a, w1));
    a = v128.load32_splat(x2 + k);
    s20 = f32x4.add(s20, f32x4.mul(a, w0));
    s21 = f32x4.add(s21, f32x4.mul(a, w1));
    a = v128.load32_splat(x3 + k);
    s30 = f32x4.add(s30, f32x4.mul(a, w0));
    s31 = f32x4.add(s31, f32x4.mul(a, w1));
  }
  v128.store(sums, s00);
  v128.store(sums, s01, 16);
  v128.store(sums, s10, 32);
  v128.store(sums, s11, 48);
  v128.store(sums, s20, 64);
  v128.store(sums, s21, 80);
  v128.store(sums, s30, 96);
  v128.store(sums, s31, 112);
}

/** The same for one row. */
function floats1(x: usize, tile: usize, count: u32, sums: usize): void {
  let s0 = v128.load(sums);
  let s1 = v128.load(sums, 16);
  const end = x + (<usize>count << 2);
  for (; x < end; x += 4, tile += 32) {
    const a = v128.load32_splat(x);
    s0 = f32x4.add(s0, f32x4.mul(a, v128.load(tile)));
    s1 = f32x4.add(s1, f32x4.mul(a, v128.load(tile, 16)));
  }
  v128.store(sums, s0);
  v128.store(sums, s1, 16);
}

function linearCodes(
  x: usize,
  weight: usize,
  type: u32,
  out: usize,
  rows: u32,
  cols: u32,
  nOut: u32,
  add: u32,
  sums: usize,
  tile: usize,
): void {
  const blocks = cols >> 5;
  const codeStride = <usize>cols << 1;
  const scaleStride = <usize>blocks << 2;
  const scales = tile + (<usize>min(cols, TILE_COLS) << 4); // (subblocks, 8) f32, and minima
  const minima = hasMinimum(type) ? scales + (<usize>(cols >> scaleShift(type)) << 5) : 0;
  const codes = scales + scalesBytes(type, cols); // (rows, cols) i16; of four rows together (cols / 2 pairs, 4 rows, 2)
  const codeScales = codes + rows * codeStride; // (rows, blocks) f32: value = scale · code
  const codeSums = codeScales + rows * scaleStride; // (rows, blocks) i32
  const valueSums = codeSums + rows * scaleStride; // (rows, blocks) f32: scale · sum of codes
  const four = valueSums + rows * scaleStride; // (4, cols) i16
  const fours = rows & ~3; // rows that go four at a time
  for (let row: u32 = 0; row < rows; row++) {
    const at = row * scaleStride;
    const to = row < fours ? four + (row & 3) * codeStride : codes + row * codeStride;
    roundTo16(x + row * (codeStride << 1), blocks, to, codeScales + at, codeSums + at, valueSums + at);
    if (row < fours && (row & 3) == 3) interleave4(four, codeStride, codes + (row - 3) * codeStride);
  }

  const stride = panelBytes(type, cols);
  const bits = codeBits(type);
  const direct = rows <= FEW_ROWS && (bits == 4 || bits == 8);
  const shift = scaleShift(type);
  for (let output: u32 = 0; output < nOut; output += PANEL, weight += stride) {
    unpackScales(type, weight, cols, scales);
    if (direct) {
      for (let row: u32 = 0; row < rows; row++) {
        const at = row * scaleStride;
        const a = codes + row * codeStride;
        const to = sums + (<usize>row << 5);
        if (bits == 4) nibbles1(a, weight, blocks, blockBytes(type), codeOffset(type), scales, minima, codeScales + at, codeSums + at, valueSums + at, to);
        else bytes1(a, weight, blocks, scales, codeScales + at, codeSums + at, to);
      }
    } else {
      memory.fill(sums, 0, <usize>rows << 5);
      for (let first: u32 = 0; first < blocks; first += TILE_COLS >> 5) {
        const count = min(TILE_COLS >> 5, blocks - first);
        unpackCodes(type, weight, first, count, tile);
        const subblock = <usize>(first << (5 - shift)) << 5;
        const tileScales = scales + subblock;
        const tileMinima = minima == 0 ? 0 : minima + subblock;
        let a = codes + (<usize>first << 8);
        let at = <usize>first << 2;
        let to = sums;
        let row: u32 = 0;
        for (; row < fours; row += 4, a += codeStride << 2, at += scaleStride << 2, to += 128) {
          codes4(a, tile, count, shift, tileScales, tileMinima, codeScales + at, valueSums + at, scaleStride, to);
        }
        a = codes + fours * codeStride + (<usize>first << 6);
        for (; row < rows; row++, a += codeStride, at += scaleStride, to += 32) {
          codes1(a, tile, count, shift, tileScales, tileMinima, codeScales + at, valueSums + at, to);
        }
      }
    }
    emit(sums, out, rows, nOut, output, add);
  }
}

/**
 * Rounds one row to 16 bits: codes (blocks, 32) i16; per block its scale, the sum of its codes, and scale times sum.
 * A block whose largest value is below SMALLEST counts as zeros: the inverse of its scale would leave f32's range.
 */
function roundTo16(x: usize, blocks: u32, codes: usize, scales: usize, sums: usize, valueSums: usize): void {
  for (let b: u32 = 0; b < blocks; b++, x += 128, codes += 64) {
    let top = f32x4.abs(v128.load(x));
    for (let i: usize = 16; i < 128; i += 16) top = f32x4.max(top, f32x4.abs(v128.load(x + i)));
    const largest = max4(top);
    const scale = largest / <f32>32767;
    const inverse = f32x4.splat(largest > SMALLEST ? <f32>32767 / largest : 0);
    let sum = i32x4.splat(0);
    for (let i: usize = 0; i < 64; i += 16) {
      const low = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(x + (i << 1)), inverse)));
      const high = i32x4.trunc_sat_f32x4_s(f32x4.nearest(f32x4.mul(v128.load(x + (i << 1), 16), inverse)));
      v128.store(codes + i, i16x8.narrow_i32x4_s(low, high));
      sum = i32x4.add(sum, i32x4.add(low, high));
    }
    const total =
      i32x4.extract_lane(sum, 0) + i32x4.extract_lane(sum, 1) + i32x4.extract_lane(sum, 2) + i32x4.extract_lane(sum, 3);
    const at = b << 2;
    store<f32>(scales + at, scale);
    store<i32>(sums + at, total);
    store<f32>(valueSums + at, scale * <f32>total);
  }
}

/** Four rows of codes, `stride` bytes apart -> out: for each pair of columns the pair of each row, (pairs, 4, 2) i16. */
function interleave4(rows: usize, stride: usize, out: usize): void {
  for (let k: usize = 0; k < stride; k += 16, out += 64) {
    const r0 = v128.load(rows + k);
    const r1 = v128.load(rows + k + stride);
    const r2 = v128.load(rows + k + stride * 2);
    const r3 = v128.load(rows + k + stride * 3);
    const low01 = v128.shuffle<i32>(r0, r1, 0, 4, 1, 5);
    const low23 = v128.shuffle<i32>(r2, r3, 0, 4, 1, 5);
    const high01 = v128.shuffle<i32>(r0, r1, 2, 6, 3, 7);
    const high23 = v128.shuffle<i32>(r2, r3, 2, 6, 3, 7);
    v128.store(out, v128.shuffle<i64>(low01, low23, 0, 2));
    v128.store(out, v128.shuffle<i64>(low01, low23, 1, 3), 16);
    v128.store(out, v128.shuffle<i64>(high01, high23, 0, 2), 32);
    v128.store(out, v128.shuffle<i64>(high01, high23, 1, 3), 48);
  }
}

/**
 * sums += rows · tile for four rows of codes, interleaved: a (pairs, 4, 2). tile (nBlocks, 16, 2, 8) i16; scales and minima
 * (subblocks, 8); a row's own scales and value sums lie `scaleStride` bytes after those of the row before; sums (4, 8) f32.
 * One pair of columns a turn: what it holds (eight sums, two vectors of weights, four of codes) just fits the registers.
 */
function codes4(
  a: usize,
  tile: usize,
  nBlocks: u32,
  shift: u32,
  scales: usize,
  minima: usize,
  rowScales: usize,
  rowSums: usize,
  scaleStride: usize,
  sums: usize,
): void {
  const subblocks = nBlocks << (5 - shift);
  const bytes: usize = (<usize>1 << shift) << 4; // of tile
  for (let sub: u32 = 0; sub < subblocks; sub++, scales += 32) {
    let s00 = i32x4.splat(0);
    let s01 = i32x4.splat(0);
    let s10 = i32x4.splat(0);
    let s11 = i32x4.splat(0);
    let s20 = i32x4.splat(0);
    let s21 = i32x4.splat(0);
    let s30 = i32x4.splat(0);
    let s31 = i32x4.splat(0);
    const end = tile + bytes;
    for (; tile < end; tile += 32, a += 16) {
      const w0 = v128.load(tile);
      const w1 = v128.load(tile, 16);
      let c = v128.load32_splat(a);
      s00 = i32x4.add(s00, i32x4.dot_i16x8_s(c, w0));
      s01 = i32x4.add(s01, i32x4.dot_i16x8_s(c, w1));
      c = v128.load32_splat(a, 4);
      s10 = i32x4.add(s10, i32x4.dot_i16x8_s(c, w0));
      s11 = i32x4.add(s11, i32x4.dot_i16x8_s(c, w1));
      c = v128.load32_splat(a, 8);
      s20 = i32x4.add(s20, i32x4.dot_i16x8_s(c, w0));
      s21 = i32x4.add(s21, i32x4.dot_i16x8_s(c, w1));
      c = v128.load32_splat(a, 12);
      s30 = i32x4.add(s30, i32x4.dot_i16x8_s(c, w0));
      s31 = i32x4.add(s31, i32x4.dot_i16x8_s(c, w1));
    }
    const scale0 = v128.load(scales);
    const scale1 = v128.load(scales, 16);
    const at = <usize>(sub >> (5 - shift)) << 2;
    settle(sums, s00, s01, scale0, scale1, rowScales + at);
    settle(sums + 32, s10, s11, scale0, scale1, rowScales + at + scaleStride);
    settle(sums + 64, s20, s21, scale0, scale1, rowScales + at + scaleStride * 2);
    settle(sums + 96, s30, s31, scale0, scale1, rowScales + at + scaleStride * 3);
    if (minima != 0) {
      const min0 = v128.load(minima);
      const min1 = v128.load(minima, 16);
      settleMinima(sums, min0, min1, rowSums + at);
      settleMinima(sums + 32, min0, min1, rowSums + at + scaleStride);
      settleMinima(sums + 64, min0, min1, rowSums + at + scaleStride * 2);
      settleMinima(sums + 96, min0, min1, rowSums + at + scaleStride * 3);
      minima += 32;
    }
  }
}

/** One row's sums (8) += its integer sums, scaled. */
// @ts-ignore: decorator
@inline
function settle(sums: usize, s0: v128, s1: v128, scale0: v128, scale1: v128, rowScale: usize): void {
  const scale = v128.load32_splat(rowScale);
  v128.store(sums, plusScaled(v128.load(sums), s0, scale0, scale));
  v128.store(sums, plusScaled(v128.load(sums, 16), s1, scale1, scale), 16);
}

/** One row's sums (8) += the minima. */
// @ts-ignore: decorator
@inline
function settleMinima(sums: usize, min0: v128, min1: v128, rowSum: usize): void {
  const sum = v128.load32_splat(rowSum);
  v128.store(sums, plusMinima(v128.load(sums), min0, sum));
  v128.store(sums, plusMinima(v128.load(sums, 16), min1, sum), 16);
}

/** The same for one row. */
function codes1(
  a: usize,
  tile: usize,
  nBlocks: u32,
  shift: u32,
  scales: usize,
  minima: usize,
  rowScales: usize,
  rowSums: usize,
  sums: usize,
): void {
  const subblocks = nBlocks << (5 - shift);
  const bytes: usize = (<usize>1 << shift) << 1;
  let sum0 = v128.load(sums);
  let sum1 = v128.load(sums, 16);
  for (let sub: u32 = 0; sub < subblocks; sub++, scales += 32) {
    let s0 = i32x4.splat(0);
    let s1 = i32x4.splat(0);
    for (let k: usize = 0; k < bytes; k += 4, tile += 32) {
      const c = v128.load32_splat(a + k);
      s0 = i32x4.add(s0, i32x4.dot_i16x8_s(c, v128.load(tile)));
      s1 = i32x4.add(s1, i32x4.dot_i16x8_s(c, v128.load(tile, 16)));
    }
    a += bytes;
    const at = <usize>(sub >> (5 - shift)) << 2;
    const rowScale = v128.load32_splat(rowScales + at);
    sum0 = plusScaled(sum0, s0, v128.load(scales), rowScale);
    sum1 = plusScaled(sum1, s1, v128.load(scales, 16), rowScale);
    if (minima != 0) {
      const rowSum = v128.load32_splat(rowSums + at);
      sum0 = plusMinima(sum0, v128.load(minima), rowSum);
      sum1 = plusMinima(sum1, v128.load(minima, 16), rowSum);
      minima += 32;
    }
  }
  v128.store(sums, sum0);
  v128.store(sums, sum1, 16);
}

/**
 * sums = row · panel for one row, 4-bit codes straight from the panel. The codes of the second and third pair of a lane are left
 * where they are, 16 and 256 times too large, and summed apart: 2^12 · 2^15 · 8 products stay below 2^31.
 */
function nibbles1(
  a: usize,
  panel: usize,
  nBlocks: u32,
  stride: usize,
  offset: i32,
  scales: usize,
  minima: usize,
  rowScales: usize,
  rowCodeSums: usize,
  rowSums: usize,
  sums: usize,
): void {
  const mask0 = i16x8.splat(0x000f);
  const mask1 = i16x8.splat(0x00f0);
  const mask2 = i16x8.splat(0x0f00);
  let sum0 = f32x4.splat(0);
  let sum1 = f32x4.splat(0);
  for (let b: u32 = 0; b < nBlocks; b++, scales += 32, panel += stride, a += 64) {
    const shared = i32x4.splat(-offset * load<i32>(rowCodeSums + (b << 2)));
    let s0 = shared;
    let s1 = shared;
    let t0 = i32x4.splat(0);
    let t1 = i32x4.splat(0);
    let u0 = i32x4.splat(0);
    let u1 = i32x4.splat(0);
    for (let word: usize = 0; word < 64; word += 16) {
      const w0 = v128.load(panel + word);
      const w1 = v128.load(panel + word, 64);
      let c = v128.load32_splat(a + word);
      s0 = i32x4.add(s0, i32x4.dot_i16x8_s(c, v128.and(w0, mask0)));
      s1 = i32x4.add(s1, i32x4.dot_i16x8_s(c, v128.and(w1, mask0)));
      c = v128.load32_splat(a + word, 4);
      t0 = i32x4.add(t0, i32x4.dot_i16x8_s(c, v128.and(w0, mask1)));
      t1 = i32x4.add(t1, i32x4.dot_i16x8_s(c, v128.and(w1, mask1)));
      c = v128.load32_splat(a + word, 8);
      u0 = i32x4.add(u0, i32x4.dot_i16x8_s(c, v128.and(w0, mask2)));
      u1 = i32x4.add(u1, i32x4.dot_i16x8_s(c, v128.and(w1, mask2)));
      c = v128.load32_splat(a + word, 12);
      s0 = i32x4.add(s0, i32x4.dot_i16x8_s(c, i16x8.shr_u(w0, 12)));
      s1 = i32x4.add(s1, i32x4.dot_i16x8_s(c, i16x8.shr_u(w1, 12)));
    }
    s0 = i32x4.add(s0, i32x4.add(i32x4.shr_s(t0, 4), i32x4.shr_s(u0, 8)));
    s1 = i32x4.add(s1, i32x4.add(i32x4.shr_s(t1, 4), i32x4.shr_s(u1, 8)));
    const rowScale = v128.load32_splat(rowScales + (b << 2));
    sum0 = plusScaled(sum0, s0, v128.load(scales), rowScale);
    sum1 = plusScaled(sum1, s1, v128.load(scales, 16), rowScale);
    if (minima != 0) {
      const rowSum = v128.load32_splat(rowSums + (b << 2));
      sum0 = plusMinima(sum0, v128.load(minima), rowSum);
      sum1 = plusMinima(sum1, v128.load(minima, 16), rowSum);
      minima += 32;
    }
  }
  v128.store(sums, sum0);
  v128.store(sums, sum1, 16);
}

/** sums = row · panel for one row, 8-bit codes straight from the panel. */
function bytes1(
  a: usize,
  panel: usize,
  nBlocks: u32,
  scales: usize,
  rowScales: usize,
  rowCodeSums: usize,
  sums: usize,
): void {
  const low = i16x8.splat(0xff);
  let sum0 = f32x4.splat(0);
  let sum1 = f32x4.splat(0);
  for (let b: u32 = 0; b < nBlocks; b++, scales += 32, panel += blockBytes(Q8_0), a += 64) {
    const shared = i32x4.splat(-128 * load<i32>(rowCodeSums + (b << 2)));
    let s0 = shared;
    let s1 = shared;
    for (let word: usize = 0; word < 128; word += 16) {
      const w0 = v128.load(panel + word);
      const w1 = v128.load(panel + word, 128);
      let c = v128.load32_splat(a + (word >> 1));
      s0 = i32x4.add(s0, i32x4.dot_i16x8_s(c, v128.and(w0, low)));
      s1 = i32x4.add(s1, i32x4.dot_i16x8_s(c, v128.and(w1, low)));
      c = v128.load32_splat(a + (word >> 1), 4);
      s0 = i32x4.add(s0, i32x4.dot_i16x8_s(c, i16x8.shr_u(w0, 8)));
      s1 = i32x4.add(s1, i32x4.dot_i16x8_s(c, i16x8.shr_u(w1, 8)));
    }
    const rowScale = v128.load32_splat(rowScales + (b << 2));
    sum0 = plusScaled(sum0, s0, v128.load(scales), rowScale);
    sum1 = plusScaled(sum1, s1, v128.load(scales, 16), rowScale);
  }
  v128.store(sums, sum0);
  v128.store(sums, sum1, 16);
}

/** sum + integer sums · (scale of the outputs · scale of the row). */
// @ts-ignore: decorator
@inline
function plusScaled(sum: v128, codes: v128, scale: v128, rowScale: v128): v128 {
  return f32x4.add(sum, f32x4.mul(f32x4.convert_i32x4_s(codes), f32x4.mul(scale, rowScale)));
}

/** sum + minima of the outputs · sum of the row's values. */
// @ts-ignore: decorator
@inline
function plusMinima(sum: v128, minima: v128, rowSum: v128): v128 {
  return f32x4.add(sum, f32x4.mul(minima, rowSum));
}

/** Sums (rows, 8) of a panel to their place in out (rows, nOut); the last panel may be partly padding. */
function emit(sums: usize, out: usize, rows: u32, nOut: u32, output: u32, add: u32): void {
  const stride = <usize>nOut << 2;
  out += <usize>output << 2;
  const whole = output + PANEL <= nOut;
  for (let row: u32 = 0; row < rows; row++, out += stride, sums += 32) {
    if (whole) {
      let s0 = v128.load(sums);
      let s1 = v128.load(sums, 16);
      if (add) {
        s0 = f32x4.add(v128.load(out), s0);
        s1 = f32x4.add(v128.load(out, 16), s1);
      }
      v128.store(out, s0);
      v128.store(out, s1, 16);
    } else {
      for (let i: u32 = 0; i < nOut - output; i++) {
        const sum = load<f32>(sums + (i << 2));
        store<f32>(out + (i << 2), add ? load<f32>(out + (i << 2)) + sum : sum);
      }
    }
  }
}
