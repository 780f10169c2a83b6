// Remembers the ids of short words: text repeats its words, so most of them never reach the merging.
// Direct-mapped: a word's hash names its one entry; a newcomer replaces what is there. Knows nothing of how ids come about.
//
// entry: hash u32 · bytes of the word u8 · ids u8 · 2 free · word 24 bytes · ids u32 (8)

import { sameBytes } from "./bytes";

export const ENTRIES: usize = 16384;
export const BYTES_PER_ENTRY: usize = 64;
const LONGEST: usize = 24;
const MOST_IDS: usize = 8;

/** Writes the remembered ids of the word to `out` and returns the end of what it wrote; 0 where the word is not remembered. */
export function recall(cache: usize, hash: u32, at: usize, length: usize, out: usize): usize {
  const entry = entryOf(cache, hash);
  if (load<u32>(entry) !== hash || load<u8>(entry, 4) !== length) return 0;
  if (!sameBytes(entry + 8, at, length)) return 0;
  const count: usize = load<u8>(entry, 5);
  for (let i: usize = 0; i < count; i++) store<u32>(out + (i << 2), load<u32>(entry + 32 + (i << 2)));
  return out + (count << 2);
}

/** Remembers a short word and its ids, which lie at `ids`..`end`. */
export function remember(cache: usize, hash: u32, at: usize, length: usize, ids: usize, end: usize): void {
  const count = (end - ids) >>> 2;
  if (length === 0 || length > LONGEST || count > MOST_IDS) return;
  const entry = entryOf(cache, hash);
  store<u32>(entry, hash);
  store<u8>(entry, <u8>length, 4);
  store<u8>(entry, <u8>count, 5);
  memory.copy(entry + 8, at, length);
  memory.copy(entry + 32, ids, end - ids);
}

// @ts-ignore: decorator
@inline
function entryOf(cache: usize, hash: u32): usize {
  return cache + ((<usize>(hash >>> 7) & (ENTRIES - 1)) << 6);
}
