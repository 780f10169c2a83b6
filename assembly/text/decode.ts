// Ids -> UTF-8. Control tokens are left out unless asked for; U+2581 gives a space where it stands for one.
// What is no UTF-8, and a code point that is not complete yet, is left to the decoder on the other side.

import { BYTE_LEVEL, CONTROL, isLowBlock, UNKNOWN, Vocab } from "./vocab";

/**
 * Bytes of `count` ids, u32 at `ids`, written to `out` unless that is 0; returns how many. Ids beyond the vocabulary (rows that pad
 * a model's output) have none.
 */
export function decode(at: usize, ids: usize, count: u32, special: bool, out: usize): u32 {
  const vocab = changetype<Vocab>(at);
  let total: usize = 0;
  for (let i: u32 = 0; i < count; i++) {
    const id = load<u32>(ids + (<usize>i << 2));
    if (id >= vocab.size) continue;
    const type = load<u8>(vocab.types + id);
    const isControl = type === CONTROL || type === UNKNOWN;
    if (isControl && !special) continue;
    const begin = vocab.bytes + load<u32>(vocab.starts + (<usize>id << 2));
    const end = vocab.bytes + load<u32>(vocab.starts + (<usize>id << 2), 4);
    if (isControl || vocab.traits & BYTE_LEVEL) {
      if (out !== 0) memory.copy(out + total, begin, end - begin);
      total += end - begin;
      continue;
    }
    for (let from = begin; from < end; total++) {
      const isSpace = isLowBlock(from, end);
      if (out !== 0) store<u8>(out + total, isSpace ? 0x20 : load<u8>(from));
      from += isSpace ? 3 : 1;
    }
  }
  return <u32>total;
}
