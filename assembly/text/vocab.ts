// The vocabulary in linear memory: tokens' bytes, bytes -> id, pair of ids -> merge. Filled once, then read only.
// Knows nothing of words, text or special tokens' rules.
//
// bytes     all tokens end to end, as they stand in text (byte-level alphabet undone); starts[id] .. starts[id + 1] is one
// slots     open addressing, {first 8 bytes u64, id + 1 u32, length u32}: bytes -> id, without a second look at most tokens
// pairs     open addressing, {left u32, right u32, rank u32, merged u32}: an empty slot has left = NONE
// byteIds   256 × u32: the token that stands for one byte, or NONE

import { alloc } from "../memory";
import { hashBytes, headOf, sameBytes } from "./bytes";
import { BYTES_PER_ENTRY, ENTRIES } from "./word-cache";
import { unpackClasses, widthAt } from "./unicode";

/** No token, no rank. */
export const NONE: u32 = 0xffffffff;

// Kinds of token, numbered as in GGUF's tokenizer.ggml.token_type.
export const NORMAL: u8 = 1;
export const UNKNOWN: u8 = 2;
export const CONTROL: u8 = 3;
export const BYTE: u8 = 6;

// Traits of a vocabulary.
/** Tokens are spelled in the byte-level alphabet of GPT-2; otherwise plainly, with U+2581 for a space. */
export const BYTE_LEVEL: u32 = 1;
/** A word that is a token stays whole, whatever the merges say. */
export const WHOLE_WORDS: u32 = 2;
/** Pairs merge where their text is a token, best score first, instead of by a list of merges. */
export const SCORED: u32 = 4;
/** Neighbouring unknown characters give one unknown token. */
export const FUSE_UNKNOWN: u32 = 8;
/** Found by indexTokens: no token holds U+2581 after something else, so words may be cut before it. */
export const CUTTABLE: u32 = 16;

// @ts-ignore: decorator
@unmanaged
export class Vocab {
  size: u32;
  traits: u32;
  unknown: u32;
  bytes: usize;
  starts: usize;
  types: usize;
  scores: usize;
  slots: usize;
  slotMask: u32;
  pairs: usize;
  pairMask: u32;
  byteIds: usize;
  cache: usize;
  /** Up to eight pre-tokenizer rules of split.ts, one a byte, the first lowest, 0 after the last. */
  rules: u64;
  // The tries of added.ts.
  edges: usize;
  edgeMask: u32;
  nodes: usize;
  nodeCount: u32;
  nodeLimit: u32;
}

/** Room for `size` tokens of `byteLength` bytes in all, to be filled through tokenBytes, tokenLengths, tokenTypes; 0: no memory. */
export function newVocab(size: u32, byteLength: u32, traits: u32, unknown: u32, rules: u64): usize {
  const at = alloc(offsetof<Vocab>());
  const slotCount = tableSize(size);
  const bytes = alloc(<usize>byteLength + 8);
  const starts = alloc((<usize>size + 1) << 2);
  const types = alloc(size);
  const scores = traits & SCORED ? alloc(<usize>size << 2) : 1;
  const slots = alloc(<usize>slotCount << 4);
  const byteIds = alloc(1024);
  const cache = alloc(ENTRIES * BYTES_PER_ENTRY);
  if (at === 0 || bytes === 0 || starts === 0 || types === 0 || scores === 0 || slots === 0 || byteIds === 0) return 0;
  if (cache === 0 || !unpackClasses()) return 0;
  memory.fill(at, 0, offsetof<Vocab>());
  memory.fill(slots, 0, <usize>slotCount << 4);
  memory.fill(byteIds, 0xff, 1024);
  memory.fill(cache, 0, ENTRIES * BYTES_PER_ENTRY);
  const vocab = changetype<Vocab>(at);
  vocab.size = size;
  vocab.traits = traits;
  vocab.unknown = unknown;
  vocab.bytes = bytes;
  vocab.starts = starts;
  vocab.types = types;
  vocab.scores = scores;
  vocab.slots = slots;
  vocab.slotMask = slotCount - 1;
  vocab.byteIds = byteIds;
  vocab.cache = cache;
  vocab.rules = rules;
  return at;
}

/** Where the tokens' UTF-8 goes, end to end. */
export function tokenBytes(vocab: usize): usize {
  return changetype<Vocab>(vocab).bytes;
}

/** Where the tokens' lengths go, in UTF-16 units as JavaScript counts them: u32 (size). */
export function tokenLengths(vocab: usize): usize {
  return changetype<Vocab>(vocab).starts;
}

/** Where the tokens' kinds go: u8 (size). */
export function tokenTypes(vocab: usize): usize {
  return changetype<Vocab>(vocab).types;
}

/** Where the tokens' scores go: f32 (size); only for SCORED. */
export function tokenScores(vocab: usize): usize {
  return changetype<Vocab>(vocab).scores;
}

/**
 * Turns spellings into bytes, lengths into starts, and fills the index. 0; or -1 - id of a normal token that was there before, or of
 * one that ends within a character, as lone surrogates make it.
 */
export function indexTokens(at: usize): i32 {
  const vocab = changetype<Vocab>(at);
  const byteLevel = (vocab.traits & BYTE_LEVEL) !== 0;
  let source = vocab.bytes;
  let target = vocab.bytes;
  let cuttable = !byteLevel;
  for (let id: u32 = 0; id < vocab.size; id++) {
    const place = vocab.starts + (<usize>id << 2);
    const length = bytesOfUnits(source, load<u32>(place));
    if (length === BROKEN) return -1 - <i32>id;
    const type = load<u8>(vocab.types + id);
    store<u32>(place, <u32>(target - vocab.bytes));
    let written = length;
    if (type === BYTE) {
      // <0xHH>: JavaScript has checked the form.
      const byte = (hexDigit(load<u8>(source, 3)) << 4) | hexDigit(load<u8>(source, 4));
      store<u32>(vocab.byteIds + (byte << 2), id);
      store<u8>(target, <u8>byte);
      written = 1;
    } else {
      written = byteLevel && type === NORMAL ? respell(source, target, length) : 0;
      if (written === 0) {
        memory.copy(target, source, length);
        written = length;
      }
      if (byteLevel && type === NORMAL && written === 1) store<u32>(vocab.byteIds + (<usize>load<u8>(target) << 2), id);
      if (cuttable && holdsInnerSpace(target, length)) cuttable = type !== NORMAL;
    }
    source += length;
    target += written;
  }
  store<u32>(vocab.starts + (<usize>vocab.size << 2), <u32>(target - vocab.bytes));

  // Words are cut only where an unknown character gives bytes: runs of unknown tokens may cross the cuts.
  for (let byte: usize = 0; byte < 256; byte++) if (load<u32>(vocab.byteIds + (byte << 2)) === NONE) cuttable = false;
  if (cuttable) vocab.traits |= CUTTABLE;

  // Normal tokens first: where another kind has the same bytes, text means the normal one.
  for (let id: u32 = 0; id < vocab.size; id++)
    if (load<u8>(vocab.types + id) === NORMAL && !insert(vocab, id)) return -1 - <i32>id;
  for (let id: u32 = 0; id < vocab.size; id++) {
    const type = load<u8>(vocab.types + id);
    if (type !== NORMAL && type !== BYTE) insert(vocab, id);
  }
  return 0;
}

/** Room for `count` merges; false: no memory. */
export function reserveMerges(at: usize, count: u32): bool {
  const vocab = changetype<Vocab>(at);
  const slots = tableSize(count);
  vocab.pairs = alloc(<usize>slots << 4);
  if (vocab.pairs === 0) return false;
  vocab.pairMask = slots - 1;
  memory.fill(vocab.pairs, 0xff, <usize>slots << 4);
  return true;
}

/**
 * Adds `count` merges in order of rank. text: "left right" end to end (overwritten); lengths: u32 (count, 2), the UTF-16 units of
 * left and right, one byte between them. 0, or -1 - index of the first merge whose left, right or whole is not a token.
 */
export function addMerges(at: usize, text: usize, lengths: usize, count: u32): i32 {
  const vocab = changetype<Vocab>(at);
  const byteLevel = (vocab.traits & BYTE_LEVEL) !== 0;
  let whole: u32 = 0;
  for (let rank: u32 = 0; rank < count; rank++) {
    const begin = text;
    let leftBytes = bytesOfUnits(begin, load<u32>(lengths + (<usize>rank << 3)));
    if (leftBytes === BROKEN) return -1 - <i32>rank;
    const right = begin + leftBytes + 1;
    let rightBytes = bytesOfUnits(right, load<u32>(lengths + (<usize>rank << 3), 4));
    if (rightBytes === BROKEN) return -1 - <i32>rank;
    text = right + rightBytes;
    // Both parts are brought together in place, so that left, right and whole are slices of one buffer.
    if (byteLevel) {
      leftBytes = respell(begin, begin, leftBytes);
      rightBytes = respell(right, begin + leftBytes, rightBytes);
    } else memory.copy(begin + leftBytes, right, rightBytes);
    const leftId = findPart(vocab, begin, leftBytes);
    const rightId = findPart(vocab, begin + leftBytes, rightBytes);
    // Most lists of merges follow the ids of what they give, so that it is the same as before or the next, and close in memory.
    const wholeBytes = leftBytes + rightBytes;
    if (!isNormal(vocab, whole, begin, wholeBytes)) {
      const next = whole + 1;
      whole = isNormal(vocab, next, begin, wholeBytes) ? next : find(vocab, begin, wholeBytes);
    }
    if (leftBytes === 0 || rightBytes === 0 || leftId === NONE || rightId === NONE || whole === NONE) return -1 - <i32>rank;
    // Plain text never becomes a control token, so a merge that would make one is left out.
    if (isPlain(vocab, whole)) addPair(vocab, leftId, rightId, rank, whole);
  }
  return 0;
}

/** Where the pair's {left, right, rank, merged} lies, or 0. */
export function findPair(vocab: Vocab, left: u32, right: u32): usize {
  const mask = vocab.pairMask;
  let slot = pairHash(left, right) & mask;
  while (true) {
    const entry = vocab.pairs + (<usize>slot << 4);
    const there = load<u32>(entry);
    if (there === left && load<u32>(entry, 4) === right) return entry;
    if (there === NONE) return 0;
    slot = (slot + 1) & mask;
  }
}

/** The token with these bytes, of whatever kind but BYTE, or NONE. */
export function find(vocab: Vocab, at: usize, length: usize): u32 {
  const entry = entryOf(vocab, at, length);
  return load<u32>(entry, 8) - 1;
}

/** As find, by a shorter way for the single bytes that half of all merges begin or end with. */
function findPart(vocab: Vocab, at: usize, length: usize): u32 {
  if (length === 1 && vocab.traits & BYTE_LEVEL) return load<u32>(vocab.byteIds + (<usize>load<u8>(at) << 2));
  return find(vocab, at, length);
}

/** The token with these bytes that plain text may become, or NONE. */
export function findPlain(vocab: Vocab, at: usize, length: usize): u32 {
  const id = find(vocab, at, length);
  return id !== NONE && isPlain(vocab, id) ? id : NONE;
}

// @ts-ignore: decorator
@inline
function isPlain(vocab: Vocab, id: u32): bool {
  const type = load<u8>(vocab.types + id);
  return type !== CONTROL && type !== UNKNOWN;
}

/** Whether this is the normal token with these bytes. */
function isNormal(vocab: Vocab, id: u32, at: usize, length: usize): bool {
  if (id >= vocab.size || load<u8>(vocab.types + id) !== NORMAL) return false;
  const place = vocab.starts + (<usize>id << 2);
  const start: usize = load<u32>(place);
  return <usize>load<u32>(place, 4) - start === length && sameBytes(vocab.bytes + start, at, length);
}

/** The slot that holds these bytes, or the empty one where they would go. */
function entryOf(vocab: Vocab, at: usize, length: usize): usize {
  const head = headOf(at, length);
  const mask = vocab.slotMask;
  let slot = hashBytes(at, length) & mask;
  while (true) {
    const entry = vocab.slots + (<usize>slot << 4);
    const there = load<u32>(entry, 8);
    if (there === 0) return entry;
    if (load<u64>(entry) === head && load<u32>(entry, 12) === <u32>length) {
      if (length <= 8) return entry;
      const start = vocab.bytes + load<u32>(vocab.starts + (<usize>(there - 1) << 2));
      if (sameBytes(start + 8, at + 8, length - 8)) return entry;
    }
    slot = (slot + 1) & mask;
  }
}

/** Adds the token to the index; false where another has its bytes. Empty tokens (holes between ids) are left out. */
function insert(vocab: Vocab, id: u32): bool {
  const place = vocab.starts + (<usize>id << 2);
  const at = vocab.bytes + load<u32>(place);
  const length: usize = load<u32>(place, 4) - load<u32>(place);
  if (length === 0) return true;
  const entry = entryOf(vocab, at, length);
  if (load<u32>(entry, 8) !== 0) return false;
  store<u64>(entry, headOf(at, length));
  store<u32>(entry, id + 1, 8);
  store<u32>(entry, <u32>length, 12);
  return true;
}

/** A pair listed twice keeps its later rank, as the reference does. */
function addPair(vocab: Vocab, left: u32, right: u32, rank: u32, merged: u32): void {
  let slot = pairHash(left, right) & vocab.pairMask;
  while (true) {
    const entry = vocab.pairs + (<usize>slot << 4);
    const there = load<u32>(entry);
    if (there === NONE || (there === left && load<u32>(entry, 4) === right)) {
      store<u32>(entry, left);
      store<u32>(entry, right, 4);
      store<u32>(entry, rank, 8);
      store<u32>(entry, merged, 12);
      return;
    }
    slot = (slot + 1) & vocab.pairMask;
  }
}

// @ts-ignore: decorator
@inline
function pairHash(left: u32, right: u32): u32 {
  const hash = (((<u64>left) << 32) | <u64>right) * 0x9e3779b97f4a7c15;
  return <u32>(hash >>> 32) ^ <u32>(hash >>> 50);
}

/** A power of two with at least half as many slots again as entries. */
function tableSize(entries: u32): u32 {
  let slots: u32 = 16;
  while (<u64>slots < <u64>entries + (entries >>> 1)) slots <<= 1;
  return slots;
}

/**
 * GPT-2's byte-level alphabet -> bytes, in place or to the left: 0x21..0x7e, 0xa1..0xac and 0xae..0xff stand for themselves; the 68
 * other bytes are, in order, U+0100..U+0143. Returns the bytes written, or 0 where a character is outside the alphabet (the
 * source is then as before: such a character comes from a token that was never spelled in the alphabet).
 */
function respell(source: usize, target: usize, length: usize): usize {
  const end = source + length;
  for (let at = source; at < end; ) {
    const lead: u32 = load<u8>(at);
    if (lead < 0x80) {
      if (lead < 0x21 || lead === 0x7f) return 0;
      at++;
      continue;
    }
    if (lead < 0xc2 || lead > 0xc5) return 0;
    const point = ((lead & 31) << 6) | (load<u8>(at, 1) & 63);
    if (point < 0xa1 || point === 0xad || point > 0x143) return 0;
    at += 2;
  }
  const begin = target;
  for (let at = source; at < end; ) {
    const lead: u32 = load<u8>(at++);
    let byte = lead;
    if (lead >= 0x80) {
      const point = ((lead & 31) << 6) | (load<u8>(at++) & 63);
      const hidden = point - 0x100;
      if (point < 0x100) byte = point;
      else if (hidden < 33) byte = hidden;
      else if (hidden < 67) byte = hidden - 33 + 0x7f;
      else byte = 0xad;
    }
    store<u8>(target++, <u8>byte);
  }
  return target - begin;
}

/** What bytesOfUnits returns where the units end within a character. */
const BROKEN: usize = usize.MAX_VALUE;

/** Bytes of the UTF-8 text that is so many UTF-16 units long. */
function bytesOfUnits(at: usize, units: u32): usize {
  const begin = at;
  while (units > 0) {
    const width = widthAt(at);
    if (width === 4 && units === 1) return BROKEN;
    at += width;
    units -= width === 4 ? 2 : 1;
  }
  return at - begin;
}

/** Whether U+2581 stands behind anything but another U+2581. */
function holdsInnerSpace(at: usize, length: usize): bool {
  const end = at + length;
  let inside = false;
  while (at < end) {
    if (isLowBlock(at, end)) {
      if (inside) return true;
      at += 3;
    } else {
      inside = true;
      at++;
    }
  }
  return false;
}

/** Whether U+2581, which stands for a space, begins at `at`. */
// @ts-ignore: decorator
@inline
export function isLowBlock(at: usize, end: usize): bool {
  return load<u8>(at) === 0xe2 && at + 2 < end && load<u16>(at, 1) === 0x8196;
}

// @ts-ignore: decorator
@inline
function hexDigit(letter: u32): usize {
  return letter <= 57 ? letter - 48 : (letter | 32) - 87;
}
