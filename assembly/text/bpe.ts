// Words -> ids by byte-pair encoding: byte-level, or over characters with byte fallback (SentencePiece). Merges are taken from a
// heap, best rank first and leftmost among equals, so that a word of n bytes costs n log n. Knows nothing of how text is cut.
//
// symbol    24 bytes: id · where it begins · symbol before · symbol after · rank of merging with the one after · id it would give
//           A symbol ends where the one after begins. Indices are u32; NONE ends the list.
// heap      u64 (rank << 32 | symbol), smallest first. Entries of symbols that have changed since are skipped when they come up.

import { alloc, mark, release } from "../memory";
import { hashBytes } from "./bytes";
import { widthAt } from "./unicode";
import { BYTE_LEVEL, FUSE_UNKNOWN, find, findPair, findPlain, NONE, NORMAL, SCORED, Vocab, WHOLE_WORDS } from "./vocab";
import { recall, remember } from "./word-cache";

const SYMBOL_BYTES: usize = 24;
// Offsets in a symbol.
const ID: usize = 0;
const BEGIN: usize = 4;
const BEFORE: usize = 8;
const AFTER: usize = 12;
const RANK: usize = 16;
const MERGED: usize = 20;

let symbols: usize = 0;
let heap: usize = 0;
let heapSize: usize = 0;

/** Writes the word's ids to `out` (room for one id per byte) and returns their end; 0: no memory. */
export function encodeWord(vocab: Vocab, from: usize, to: usize, out: usize): usize {
  const length = to - from;
  if (length === 1 && vocab.traits & BYTE_LEVEL) return emit(out, byteId(vocab, load<u8>(from)));
  const hash = hashBytes(from, length);
  const remembered = recall(vocab.cache, hash, from, length, out);
  if (remembered !== 0) return remembered;
  const end = merge(vocab, from, to, out);
  if (end !== 0) remember(vocab.cache, hash, from, length, out, end);
  return end;
}

function merge(vocab: Vocab, from: usize, to: usize, out: usize): usize {
  const length = to - from;
  if (vocab.traits & WHOLE_WORDS) {
    const whole = find(vocab, from, length);
    if (whole !== NONE && load<u8>(vocab.types + whole) === NORMAL) return emit(out, whole);
  }
  const before = mark();
  symbols = alloc(length * SYMBOL_BYTES);
  // Every merge takes one entry off and adds at most two: never more than two entries a symbol.
  heap = symbols === 0 ? 0 : alloc(length << 4);
  if (heap === 0) {
    release(before);
    return 0;
  }
  heapSize = 0;
  const count = vocab.traits & BYTE_LEVEL ? startWithBytes(vocab, from, to) : startWithCharacters(vocab, from, to);
  for (let i: u32 = 0; i + 1 < count; i++) rankPair(vocab, i, to);
  while (heapSize > 0) {
    const best = pop();
    const left = <u32>best;
    const place = symbolAt(left);
    if (load<u32>(place, RANK) !== <u32>(best >>> 32)) continue;
    const right = load<u32>(place, AFTER);
    const after = load<u32>(symbolAt(right), AFTER);
    store<u32>(place, load<u32>(place, MERGED), ID);
    store<u32>(place, after, AFTER);
    store<u32>(symbolAt(right), NONE, RANK);
    if (after !== NONE) store<u32>(symbolAt(after), left, BEFORE);
    rankPair(vocab, left, to);
    const previous = load<u32>(place, BEFORE);
    if (previous !== NONE) rankPair(vocab, previous, to);
  }
  if (count > 0) for (let i: u32 = 0; i !== NONE; i = load<u32>(symbolAt(i), AFTER)) out = emitSymbol(vocab, i, to, out);
  release(before);
  return out;
}

/** One symbol a byte. */
function startWithBytes(vocab: Vocab, from: usize, to: usize): u32 {
  let count: u32 = 0;
  for (let at = from; at < to; at++) {
    const id = byteId(vocab, load<u8>(at));
    if (id !== NONE) count = push(count, id, at);
  }
  return close(count);
}

/** One symbol a character; where that is no token, one a byte; where a byte is none either, the unknown token. */
function startWithCharacters(vocab: Vocab, from: usize, to: usize): u32 {
  const scored = (vocab.traits & SCORED) !== 0;
  const fuse = (vocab.traits & FUSE_UNKNOWN) !== 0;
  let count: u32 = 0;
  let wasUnknown = false;
  for (let at = from; at < to; ) {
    const width = widthAt(at);
    const id = findPlain(vocab, at, width);
    // By scores, characters that are no tokens may still merge into one: their bytes are looked up at the end.
    if (id !== NONE || scored) {
      count = push(count, id, at);
      wasUnknown = false;
    } else if (hasByteTokens(vocab, at, width)) {
      for (let i: usize = 0; i < width; i++) count = push(count, byteId(vocab, load<u8>(at + i)), at + i);
      wasUnknown = false;
    } else if (vocab.unknown !== NONE && !(fuse && wasUnknown)) {
      count = push(count, vocab.unknown, at);
      wasUnknown = true;
    }
    at += width;
  }
  return close(count);
}

/** Appends a symbol behind the `count` there are; returns the new count. */
function push(count: u32, id: u32, begin: usize): u32 {
  const place = symbolAt(count);
  store<u32>(place, id, ID);
  store<u32>(place, <u32>begin, BEGIN);
  store<u32>(place, count - 1, BEFORE);
  store<u32>(place, count + 1, AFTER);
  store<u32>(place, NONE, RANK);
  return count + 1;
}

function close(count: u32): u32 {
  if (count > 0) store<u32>(symbolAt(count - 1), NONE, AFTER);
  return count;
}

/** Works out what the symbol and the one after it would merge into, and puts that on the heap. */
function rankPair(vocab: Vocab, index: u32, to: usize): void {
  const place = symbolAt(index);
  store<u32>(place, NONE, RANK);
  const after = load<u32>(place, AFTER);
  if (after === NONE) return;
  let rank = NONE;
  if (vocab.traits & SCORED) {
    const begin: usize = load<u32>(place, BEGIN);
    const merged = findPlain(vocab, begin, endOf(after, to) - begin);
    if (merged === NONE) return;
    rank = rankOfScore(load<f32>(vocab.scores + (<usize>merged << 2)));
    store<u32>(place, merged, MERGED);
  } else {
    const pair = findPair(vocab, load<u32>(place, ID), load<u32>(symbolAt(after), ID));
    if (pair === 0) return;
    rank = load<u32>(pair, 8);
    store<u32>(place, load<u32>(pair, 12), MERGED);
  }
  store<u32>(place, rank, RANK);
  insert(((<u64>rank) << 32) | <u64>index);
}

/** Orders as the score does, highest first, and stays below NONE. */
function rankOfScore(score: f32): u32 {
  const bits = reinterpret<u32>(score);
  return bits >>> 31 ? bits : 0x7fffffff - bits;
}

/** Writes a symbol's id; of a symbol that is no token, the ids of its bytes. */
function emitSymbol(vocab: Vocab, index: u32, to: usize, out: usize): usize {
  const id = load<u32>(symbolAt(index), ID);
  if (id !== NONE) return emit(out, id);
  const begin: usize = load<u32>(symbolAt(index), BEGIN);
  const end = endOf(index, to);
  if (!hasByteTokens(vocab, begin, end - begin)) return emit(out, vocab.unknown);
  for (let at = begin; at < end; at++) out = emit(out, byteId(vocab, load<u8>(at)));
  return out;
}

// @ts-ignore: decorator
@inline
function emit(out: usize, id: u32): usize {
  if (id === NONE) return out;
  store<u32>(out, id);
  return out + 4;
}

/** The token of a byte; a byte without one is unknown, or nothing where there is no unknown token. */
// @ts-ignore: decorator
@inline
function byteId(vocab: Vocab, byte: u8): u32 {
  const id = load<u32>(vocab.byteIds + (<usize>byte << 2));
  return id !== NONE ? id : vocab.unknown;
}

function hasByteTokens(vocab: Vocab, at: usize, length: usize): bool {
  for (let i: usize = 0; i < length; i++)
    if (load<u32>(vocab.byteIds + (<usize>load<u8>(at + i) << 2)) === NONE) return false;
  return true;
}

// @ts-ignore: decorator
@inline
function symbolAt(index: u32): usize {
  return symbols + <usize>index * SYMBOL_BYTES;
}

/** Where the symbol's text ends. */
function endOf(index: u32, to: usize): usize {
  const after = load<u32>(symbolAt(index), AFTER);
  return after === NONE ? to : load<u32>(symbolAt(after), BEGIN);
}

function insert(entry: u64): void {
  let hole = heapSize++;
  while (hole > 0) {
    const parent = (hole - 1) >>> 1;
    const above = load<u64>(heap + (parent << 3));
    if (above <= entry) break;
    store<u64>(heap + (hole << 3), above);
    hole = parent;
  }
  store<u64>(heap + (hole << 3), entry);
}

function pop(): u64 {
  const best = load<u64>(heap);
  const last = load<u64>(heap + (--heapSize << 3));
  let hole: usize = 0;
  for (;;) {
    let child = (hole << 1) + 1;
    if (child >= heapSize) break;
    let below = load<u64>(heap + (child << 3));
    if (child + 1 < heapSize) {
      const other = load<u64>(heap + (child << 3), 8);
      if (other < below) {
        below = other;
        child++;
      }
    }
    if (last <= below) break;
    store<u64>(heap + (hole << 3), below);
    hole = child;
  }
  store<u64>(heap + (hole << 3), last);
  return best;
}
