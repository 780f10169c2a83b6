// Weights in memory: how each ggml type is packed into panels, and how panels are unpacked again.
// Knows nothing of activations. Source of the types: ggml's block formats; the bits per weight of a panel are those of the file
// (K-quants: a quarter of a bit more).
//
// A panel holds PANEL = 8 consecutive outputs (rows of the matrix; rows are padded with zeros). Its columns lie in blocks of 32,
// and one vector of eight 16-bit lanes holds two columns (k, k + 1) of four outputs: lane 2·o + (k & 1). A block is thus
// 2 halves (outputs 0-3, 4-7) × 16 column pairs of vectors, and dot_i16x8 adds a pair into one lane per output.
//
//   codes of a block   4 bits: (2 halves, 4 words): 16-bit lane = pairs 4w, 4w+1, 4w+2, 4w+3, from its low bits up
//                      8 bits: (2 halves, 8 words): 16-bit lane = pairs 2w, 2w+1
//     5th bit          (2 halves) words after the 4-bit codes: bit s = pair s
//     5th and 6th bit  (2 halves, 2 words) likewise: bits 2(s & 7), 2(s & 7) + 1 of word s >> 3 = pair s
//   then its scales  (8) f16, and for types with a minimum (8) f16
//     K-quants       8-bit factors of its subblocks, (2, 8): of scales and minima, or of two halves (Q6_K); then scale and minimum,
//                    f32 each, of one output of the 256-column superblock: block j of the eight carries those of output j
//
// So a panel is read from front to back, which is what memory delivers fastest.
// Float panels are (cols, 8) in the file's own float type.

import { half, halfIsBroken, loadHalf4 } from "./math";

/** ggml's type numbers, of the types computed here. */
export const F32: u32 = 0;
export const F16: u32 = 1;
export const Q4_0: u32 = 2;
export const Q4_1: u32 = 3;
export const Q5_0: u32 = 6;
export const Q5_1: u32 = 7;
export const Q8_0: u32 = 8;
export const Q4_K: u32 = 12;
export const Q5_K: u32 = 13;
export const Q6_K: u32 = 14;
export const BF16: u32 = 30;

export const PANEL: u32 = 8;

/** Error of packPanel: a scale or a float that is infinite or not a number. */
const NOT_FINITE: i32 = -1;

// @ts-ignore: decorator
@inline
export function isFloat(type: u32): bool {
  return type == F32 || type == F16 || type == BF16;
}
// @ts-ignore: decorator
@inline
function isK(type: u32): bool {
  return type >= Q4_K && type <= Q6_K;
}
/** Bits of a code. */
// @ts-ignore: decorator
@inline
export function codeBits(type: u32): u32 {
  if (type == Q8_0) return 8;
  if (type == Q6_K) return 6;
  return type == Q5_0 || type == Q5_1 || type == Q5_K ? 5 : 4;
}
/** What a stored code exceeds the signed one by. */
// @ts-ignore: decorator
@inline
export function codeOffset(type: u32): i32 {
  if (type == Q4_0) return 8;
  if (type == Q5_0) return 16;
  if (type == Q6_K) return 32;
  return type == Q8_0 ? 128 : 0;
}
/** Whether a weight is scale · code + minimum. */
// @ts-ignore: decorator
@inline
export function hasMinimum(type: u32): bool {
  return type == Q4_1 || type == Q5_1 || type == Q4_K || type == Q5_K;
}
/** Columns that share a scale, as a power of two: 32, or 16 for Q6_K. */
// @ts-ignore: decorator
@inline
export function scaleShift(type: u32): u32 {
  return type == Q6_K ? 4 : 5;
}
// @ts-ignore: decorator
@inline
function floatBytes(type: u32): u32 {
  return type == F32 ? 4 : 2;
}
/** Bytes of the codes of a block of 32 columns of a panel. */
// @ts-ignore: decorator
@inline
function codesBytes(type: u32): usize {
  return <usize>codeBits(type) << 5;
}
/** Bytes of a block of 32 columns of a panel, scales included. */
// @ts-ignore: decorator
@inline
export function blockBytes(type: u32): usize {
  return codesBytes(type) + (isK(type) ? 24 : hasMinimum(type) ? 32 : 16);
}

/** Bytes of a row of `cols` weights as in the file. */
export function rowBytes(type: u32, cols: u32): usize {
  const blocks = <usize>(cols >> 5);
  if (isFloat(type)) return <usize>cols * floatBytes(type);
  if (type == Q4_0) return blocks * 18;
  if (type == Q4_1) return blocks * 20;
  if (type == Q5_0) return blocks * 22;
  if (type == Q5_1) return blocks * 24;
  if (type == Q8_0) return blocks * 34;
  return <usize>(cols >> 8) * (type == Q4_K ? 144 : type == Q5_K ? 176 : 210);
}

/** Bytes of a panel of `cols` columns; 0 for a type that is not computed, or columns that are no whole number of its blocks. */
export function panelBytes(type: u32, cols: u32): usize {
  if (isFloat(type)) return <usize>cols * PANEL * floatBytes(type);
  if (!isK(type) && type != Q4_0 && type != Q4_1 && type != Q5_0 && type != Q5_1 && type != Q8_0) return 0;
  if ((cols & (isK(type) ? 255 : 31)) != 0) return 0;
  return <usize>(cols >> 5) * blockBytes(type);
}

/**
 * Packs up to PANEL rows of the file into a panel. source: (nRows, rowBytes) as in the file; panel: panelBytes; codes: scratch of
 * `cols` bytes. Returns 0, or NOT_FINITE. Missing rows become zeros.
 */
export function packPanel(type: u32, source: usize, nRows: u32, cols: u32, panel: usize, codes: usize): i32 {
  memory.fill(panel, 0, panelBytes(type, cols));
  const bytes = rowBytes(type, cols);
  for (let row: u32 = 0; row < nRows; row++) {
    const from = source + row * bytes;
    if (isFloat(type)) {
      if (packFloats(type, from, cols, panel, row) < 0) return NOT_FINITE;
    } else {
      const scales = panel + codesBytes(type);
      if (isK(type) ? splitK(type, from, cols, codes, scales, row) : split(type, from, cols, codes, scales, row))
        return NOT_FINITE;
      packCodes(type, codes, cols, panel, row);
    }
  }
  return 0;
}

function packFloats(type: u32, from: usize, cols: u32, panel: usize, row: u32): i32 {
  for (let k: u32 = 0; k < cols; k++) {
    if (type == F32) {
      const value = load<u32>(from + (k << 2));
      if ((value & 0x7f800000) == 0x7f800000) return NOT_FINITE;
      store<u32>(panel + ((k * PANEL + row) << 2), value);
    } else {
      const value = load<u16>(from + (k << 1));
      if (type == F16 ? halfIsBroken(value) : (value & 0x7f80) == 0x7f80) return NOT_FINITE;
      store<u16>(panel + ((k * PANEL + row) << 1), value);
    }
  }
  return 0;
}

/** One row of a type of 32-weight blocks -> its codes, a byte each, and its scales, from those of the panel's first block on. True where a scale is not finite. */
function split(type: u32, from: usize, cols: u32, codes: usize, scales: usize, row: u32): bool {
  const blocks = cols >> 5;
  const low = i8x16.splat(15);
  scales += <usize>row << 1;
  for (let b: u32 = 0; b < blocks; b++, scales += blockBytes(type)) {
    const scale = load<u16>(from);
    if (halfIsBroken(scale)) return true;
    store<u16>(scales, scale);
    from += 2;
    if (hasMinimum(type)) {
      const minimum = load<u16>(from);
      if (halfIsBroken(minimum)) return true;
      store<u16>(scales, minimum, 16);
      from += 2;
    }
    if (type == Q8_0) {
      const flip = i8x16.splat(-128);
      v128.store(codes, v128.xor(v128.load(from), flip));
      v128.store(codes, v128.xor(v128.load(from, 16), flip), 16);
      from += 32;
    } else {
      let high: u32 = 0;
      if (codeBits(type) == 5) {
        high = load<u32>(from);
        from += 4;
      }
      const bytes = v128.load(from);
      v128.store(codes, v128.and(bytes, low));
      v128.store(codes, v128.and(i16x8.shr_u(bytes, 4), low), 16);
      from += 16;
      if (codeBits(type) == 5) {
        for (let k: u32 = 0; k < 32; k++) store<u8>(codes + k, load<u8>(codes + k) | (((high >> k) & 1) << 4));
      }
    }
    codes += 32;
  }
  return false;
}

/** One row of a K-quant -> the same. True where a scale is not finite. */
function splitK(type: u32, from: usize, cols: u32, codes: usize, scales: usize, row: u32): bool {
  const supers = cols >> 8;
  const stride = blockBytes(type);
  const superBytes = stride << 3;
  if (type == Q6_K) {
    for (let s: u32 = 0; s < supers; s++, from += 210, codes += 256, scales += superBytes) {
      const scale = load<u16>(from + 208);
      if (halfIsBroken(scale)) return true;
      store<f32>(scales + row * stride, half(scale), 16);
      for (let f: u32 = 0; f < 16; f++) {
        store<u8>(scales + (f >> 1) * stride + ((f & 1) << 3) + row, load<u8>(from + 192 + f));
      }
      // 128 weights at a time: two nibbles a byte of `ql`, four pairs of high bits a byte of `qh`.
      for (let k: u32 = 0; k < 256; k++) {
        const part = k >> 7;
        const column = k & 31;
        const quarter = (k >> 5) & 3;
        const nibbles = <u32>load<u8>(from + (part << 6) + ((quarter & 1) << 5) + column);
        const high = <u32>load<u8>(from + 128 + (part << 5) + column);
        store<u8>(codes + k, <u8>(((nibbles >> ((quarter >> 1) << 2)) & 15) | (((high >> (quarter << 1)) & 3) << 4)));
      }
    }
    return false;
  }
  const bytes: usize = type == Q4_K ? 144 : 176;
  for (let s: u32 = 0; s < supers; s++, from += bytes, codes += 256, scales += superBytes) {
    const scale = load<u16>(from);
    const minimum = load<u16>(from + 2);
    if (halfIsBroken(scale) || halfIsBroken(minimum)) return true;
    store<f32>(scales + row * stride, half(scale), 16);
    store<f32>(scales + row * stride, -half(minimum), 20);
    const packed = from + 4;
    for (let f: u32 = 0; f < 8; f++) {
      // Eight pairs of 6-bit factors in 12 bytes: the first four lie whole, the others lend their high bits from them.
      let factor: u32, minimumFactor: u32;
      if (f < 4) {
        factor = load<u8>(packed + f) & 63;
        minimumFactor = load<u8>(packed + f + 4) & 63;
      } else {
        const both = load<u8>(packed + f + 4);
        factor = (both & 15) | ((load<u8>(packed + f - 4) >> 6) << 4);
        minimumFactor = (both >> 4) | ((load<u8>(packed + f) >> 6) << 4);
      }
      store<u8>(scales + f * stride + row, <u8>factor);
      store<u8>(scales + f * stride + row, <u8>minimumFactor, 8);
    }
    const nibbles = from + (type == Q4_K ? 16 : 48);
    for (let k: u32 = 0; k < 256; k++) {
      const quarter = k >> 6;
      const upper = (k >> 5) & 1;
      let code: u32 = (load<u8>(nibbles + (quarter << 5) + (k & 31)) >> (upper << 2)) & 15;
      if (type == Q5_K) code |= ((load<u8>(from + 16 + (k & 31)) >> (k >> 5)) & 1) << 4;
      store<u8>(codes + k, <u8>code);
    }
  }
  return false;
}

/** Places one row's codes, a byte each, into the words of a panel. The panel's words start as zeros. */
function packCodes(type: u32, codes: usize, cols: u32, panel: usize, row: u32): void {
  const bits = codeBits(type);
  const bytes = blockBytes(type);
  const blocks = cols >> 5;
  const lane = <usize>(row & 3) << 2; // the row's two 16-bit lanes in a word
  const half = <usize>(row >> 2);
  for (let b: u32 = 0; b < blocks; b++, codes += 32, panel += bytes) {
    if (bits == 8) {
      for (let word: usize = 0; word < 8; word++) {
        const four = load<u32>(codes + (word << 2));
        const swapped = (four & 0xff0000ff) | ((four & 0xff00) << 8) | ((four >> 8) & 0xff00);
        store<u32>(panel + (half << 7) + (word << 4) + lane, swapped);
      }
      continue;
    }
    for (let word: usize = 0; word < 4; word++) {
      // Byte i is column 8·word + i: even columns go to the low lane, odd ones to the high lane, four bits each.
      const eight = load<u64>(codes + (word << 3)) & 0x0f0f0f0f0f0f0f0f;
      const pairs = eight | (eight >> 12);
      store<u32>(
        panel + (half << 6) + (word << 4) + lane,
        <u32>((pairs & 0xff) | ((pairs >> 24) & 0xff00) | ((pairs << 8) & 0xff0000) | ((pairs >> 16) & 0xff000000)),
      );
    }
    if (bits == 4) continue;
    const high = panel + 128;
    for (let k: u32 = 0; k < 32; k++) {
      const extra = <u32>load<u8>(codes + k) >> 4;
      const pair = k >> 1;
      const place = bits == 5 ? high + (half << 4) : high + (half << 5) + ((pair >> 3) << 4);
      const at = place + lane + ((k & 1) << 1);
      store<u16>(at, load<u16>(at) | <u16>(extra << (bits == 5 ? pair : (pair & 7) << 1)));
    }
  }
}

/** Bytes that unpackScales writes. */
// @ts-ignore: decorator
@inline
export function scalesBytes(type: u32, cols: u32): usize {
  return (<usize>(cols >> scaleShift(type)) << 5) << <usize>hasMinimum(type);
}

/** A panel's scales, then (types with a minimum) its minima, to f32: out (subblocks, 8), minima (subblocks, 8). */
export function unpackScales(type: u32, panel: usize, cols: u32, out: usize): void {
  const blocks = cols >> 5;
  const stride = blockBytes(type);
  const minima = <usize>(cols >> scaleShift(type)) << 5;
  let at = panel + codesBytes(type);
  if (!isK(type)) {
    for (let b: u32 = 0; b < blocks; b++, at += stride, out += 32) {
      v128.store(out, loadHalf4(at));
      v128.store(out, loadHalf4(at + 8), 16);
      if (hasMinimum(type)) {
        v128.store(out + minima, loadHalf4(at + 16));
        v128.store(out + minima, loadHalf4(at + 24), 16);
      }
    }
    return;
  }
  for (let b: u32 = 0; b < blocks; b += 8) {
    const first = fourSupers(at, stride);
    const second = fourSupers(at + (stride << 2), stride);
    const firstMinima = fourSupers(at + 4, stride);
    const secondMinima = fourSupers(at + (stride << 2) + 4, stride);
    for (let j: u32 = 0; j < 8; j++, at += stride, out += 32) {
      if (type == Q6_K) {
        scaleFactors(v128.load8x8_s(at), first, second, out);
        out += 32;
        scaleFactors(v128.load8x8_s(at, 8), first, second, out);
      } else {
        scaleFactors(v128.load8x8_u(at), first, second, out);
        scaleFactors(v128.load8x8_u(at, 8), firstMinima, secondMinima, out + minima);
      }
    }
  }
}

/** The f32 behind the factors of four successive blocks. */
// @ts-ignore: decorator
@inline
function fourSupers(at: usize, stride: usize): v128 {
  let four = v128.load32_zero(at + 16);
  four = v128.load32_lane(at + stride + 16, four, 1);
  four = v128.load32_lane(at + stride * 2 + 16, four, 2);
  return v128.load32_lane(at + stride * 3 + 16, four, 3);
}

/** out (8) = factors (8 lanes of 16 bits) · the outputs' f32. */
// @ts-ignore: decorator
@inline
function scaleFactors(factors: v128, first: v128, second: v128, out: usize): void {
  v128.store(out, f32x4.mul(first, f32x4.convert_i32x4_s(i32x4.extend_low_i16x8_s(factors))));
  v128.store(out, f32x4.mul(second, f32x4.convert_i32x4_s(i32x4.extend_high_i16x8_s(factors))), 16);
}

/**
 * Signed codes of `nBlocks` blocks, from `first` on, as vectors of 16-bit lanes: out (nBlocks, 16 pairs, 2 halves, 8 lanes) i16.
 */
export function unpackCodes(type: u32, panel: usize, first: u32, nBlocks: u32, out: usize): void {
  const bits = codeBits(type);
  const bytes = blockBytes(type);
  const offset = i16x8.splat(<i16>codeOffset(type));
  panel += first * bytes;
  for (let b: u32 = 0; b < nBlocks; b++, panel += bytes, out += 512) {
    for (let half: usize = 0; half < 2; half++) {
      let to = out + (half << 4);
      if (bits == 8) {
        const low = i16x8.splat(0xff);
        for (let word: usize = 0; word < 8; word++, to += 64) {
          const codes = v128.load(panel + (half << 7) + (word << 4));
          v128.store(to, i16x8.sub(v128.and(codes, low), offset));
          v128.store(to, i16x8.sub(i16x8.shr_u(codes, 8), offset), 32);
        }
        continue;
      }
      const low = i16x8.splat(15);
      const high = i16x8.splat(bits == 5 ? 16 : 48);
      for (let word: usize = 0; word < 4; word++, to += 128) {
        const codes = v128.load(panel + (half << 6) + (word << 4));
        let c0 = v128.and(codes, low);
        let c1 = v128.and(i16x8.shr_u(codes, 4), low);
        let c2 = v128.and(i16x8.shr_u(codes, 8), low);
        let c3 = i16x8.shr_u(codes, 12);
        if (bits == 5) {
          // Bit s of the lane to bit 4: pairs 4w … 4w + 3.
          const extra = i16x8.shr_u(v128.load(panel + 128 + (half << 4)), <i32>(word << 2));
          c0 = v128.or(c0, v128.and(i16x8.shl(extra, 4), high));
          c1 = v128.or(c1, v128.and(i16x8.shl(extra, 3), high));
          c2 = v128.or(c2, v128.and(i16x8.shl(extra, 2), high));
          c3 = v128.or(c3, v128.and(i16x8.shl(extra, 1), high));
        } else if (bits == 6) {
          const extra = i16x8.shr_u(v128.load(panel + 128 + (half << 5) + ((word >> 1) << 4)), <i32>((word & 1) << 3));
          c0 = v128.or(c0, v128.and(i16x8.shl(extra, 4), high));
          c1 = v128.or(c1, v128.and(i16x8.shl(extra, 2), high));
          c2 = v128.or(c2, v128.and(extra, high));
          c3 = v128.or(c3, v128.and(i16x8.shr_u(extra, 2), high));
        }
        v128.store(to, i16x8.sub(c0, offset));
        v128.store(to, i16x8.sub(c1, offset), 32);
        v128.store(to, i16x8.sub(c2, offset), 64);
        v128.store(to, i16x8.sub(c3, offset), 96);
      }
    }
  }
}

/** Bytes of scratch that unpackValues needs for `count` columns of a panel of `cols`. */
// @ts-ignore: decorator
@inline
export function valuesScratchBytes(type: u32, count: u32, cols: u32): usize {
  return isFloat(type) ? 0 : (<usize>count << 4) + scalesBytes(type, cols);
}

/**
 * Columns first … first + count - 1 of a panel as f32, dequantised as ggml does it, bit for bit: out (count, 8).
 * first and count are multiples of 32 for quantised types; scratch: valuesScratchBytes.
 */
export function unpackValues(
  type: u32,
  panel: usize,
  cols: u32,
  first: u32,
  count: u32,
  out: usize,
  scratch: usize,
): void {
  if (isFloat(type)) {
    unpackFloats(type, panel, first, count, out);
    return;
  }
  const scales = scratch + (<usize>count << 4);
  const toMinima = <usize>(cols >> scaleShift(type)) << 5;
  unpackCodes(type, panel, first >> 5, count >> 5, scratch);
  unpackScales(type, panel, cols, scales);
  for (let k: u32 = 0; k < count; k += 2, scratch += 32, out += 64) {
    const at = scales + (<usize>((first + k) >> scaleShift(type)) << 5);
    for (let half: usize = 0; half < 32; half += 16) {
      const pair = v128.load(scratch + half); // two columns of four outputs
      const scale = v128.load(at + half);
      let even = f32x4.mul(f32x4.convert_i32x4_s(i32x4.shr_s(i32x4.shl(pair, 16), 16)), scale);
      let odd = f32x4.mul(f32x4.convert_i32x4_s(i32x4.shr_s(pair, 16)), scale);
      if (hasMinimum(type)) {
        const minimum = v128.load(at + toMinima + half);
        even = f32x4.add(even, minimum);
        odd = f32x4.add(odd, minimum);
      }
      v128.store(out + half, even);
      v128.store(out + half, odd, 32);
    }
  }
}

function unpackFloats(type: u32, panel: usize, first: u32, count: u32, out: usize): void {
  if (type == F32) {
    memory.copy(out, panel + (<usize>first << 5), <usize>count << 5);
    return;
  }
  const vectors = count << 1;
  let at = panel + (<usize>first << 4);
  for (let i: u32 = 0; i < vectors; i++, at += 8, out += 16) {
    v128.store(out, type == F16 ? loadHalf4(at) : i32x4.shl(v128.load16x4_u(at), 16));
  }
}

/** Bytes of scratch that embed needs. */
export function embedScratchBytes(type: u32, cols: u32): usize {
  return (<usize>cols << 5) + valuesScratchBytes(type, cols, cols);
}

/**
 * out[i] = row ids[i] of the table, dequantised.
 * table: panels of `cols` columns; ids (rows) u32, each below the table's rows; out (rows, cols) f32; scratch: embedScratchBytes.
 */
export function embed(table: usize, type: u32, ids: usize, out: usize, rows: u32, cols: u32, scratch: usize): void {
  const stride = panelBytes(type, cols);
  for (let row: u32 = 0; row < rows; row++) {
    const id = load<u32>(ids + (row << 2));
    unpackValues(type, table + <usize>(id >> 3) * stride, cols, 0, cols, scratch, scratch + (<usize>cols << 5));
    const lane = scratch + <usize>((id & 7) << 2);
    for (let k: u32 = 0; k < cols; k++, out += 4) store<f32>(out, load<f32>(lane + (<usize>k << 5)));
  }
}
