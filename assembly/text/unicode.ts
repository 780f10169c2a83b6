// What kind of character stands at a place in UTF-8 text: one mask byte per code point, looked up in a flat table that is
// unpacked once from the generated runs (Unicode 16.0.0). Text is valid UTF-8: it comes from JavaScript's encoder.
// Knows nothing of words or tokens.

import { alloc } from "../memory";
import { FLAT_LIMIT, MARKS_FROM, MARKS_TO, RUNS, RUNS_BYTES } from "./unicode-runs";

/** \p{Lu} and \p{Lt} */
export const UPPER: u32 = 1;
/** \p{Ll} */
export const LOWER: u32 = 2;
/** \p{Lm} and \p{Lo} */
export const CASELESS: u32 = 4;
/** \p{M} */
export const MARK: u32 = 8;
/** \p{N} */
export const NUMBER: u32 = 16;
/** \p{P} */
export const PUNCTUATION: u32 = 32;
/** \p{S} */
export const SYMBOL: u32 = 64;
/** \s: the property White_Space */
export const SPACE: u32 = 128;
/** \p{L} */
export const LETTER: u32 = UPPER | LOWER | CASELESS;

/** One mask byte per code point below FLAT_LIMIT; 0 until unpacked. */
let flat: usize = 0;

/** Unpacks the table, once. False where the memory does not suffice. */
export function unpackClasses(): bool {
  if (flat !== 0) return true;
  const table = alloc(FLAT_LIMIT);
  if (table === 0) return false;
  let point: usize = table;
  for (let at: usize = RUNS, end = RUNS + RUNS_BYTES; at < end; ) {
    const run: u32 = load<u8>(at++);
    let length: usize = run & 15;
    if (length === 0) {
      let shift: usize = 0;
      let part: usize;
      do {
        part = load<u8>(at++);
        length |= (part & 127) << shift;
        shift += 7;
      } while (part > 127);
    }
    const mask: u32 = ((<u32>1) << (run >>> 4)) >>> 1;
    memory.fill(point, <u8>mask, length);
    point += length;
  }
  flat = table;
  return true;
}

/** The mask of the character that begins at `at`. */
// @ts-ignore: decorator
@inline
export function maskAt(at: usize): u32 {
  const lead: u32 = load<u8>(at);
  return lead < 0x80 ? load<u8>(flat + lead) : maskOf(pointAt(at));
}

/** The code point of the character that begins at `at`. */
export function pointAt(at: usize): u32 {
  const lead: u32 = load<u8>(at);
  if (lead < 0x80) return lead;
  const second: u32 = load<u8>(at, 1) & 63;
  if (lead < 0xe0) return ((lead & 31) << 6) | second;
  const third: u32 = load<u8>(at, 2) & 63;
  if (lead < 0xf0) return ((lead & 15) << 12) | (second << 6) | third;
  return ((lead & 7) << 18) | (second << 12) | (third << 6) | (load<u8>(at, 3) & 63);
}

/** Bytes of the character that begins at `at`. */
// @ts-ignore: decorator
@inline
export function widthAt(at: usize): usize {
  const lead: u32 = load<u8>(at);
  return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

function maskOf(point: u32): u32 {
  if (point < FLAT_LIMIT) return load<u8>(flat + point);
  return point >= MARKS_FROM && point < MARKS_TO ? MARK : 0;
}
