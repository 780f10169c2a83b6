// Finds added tokens (control and user-defined ones) in text: leftmost, then longest. Two tries share one table: one for the text
// as it is, one for the text after normalisation. Knows nothing of words; what stripping and whole-word flags do to a match is
// decided by the caller.
//
// edges     open addressing, {node << 8 | byte u32, node below u32}; node 0 is no node, nodes 1 and 2 are the roots
// nodes     u32 per node: id + 1 of the token that ends there, or 0
// Behind the nodes: 2 × 256 bytes, whether a token of that trie begins with the byte.

import { alloc } from "../memory";
import { CONTROL, UNKNOWN, Vocab } from "./vocab";

const ROOTS: u32 = 2;

let foundEnd: usize = 0;
let foundId: u32 = 0;

/** Room for added tokens of `byteLength` bytes in all; false: no memory. */
export function reserveAdded(at: usize, byteLength: u32): bool {
  const vocab = changetype<Vocab>(at);
  const limit = byteLength + ROOTS + 1;
  let slots: u32 = 16;
  while (slots < limit << 1) slots <<= 1;
  vocab.nodes = alloc((<usize>limit << 2) + 512);
  vocab.edges = alloc(<usize>slots << 3);
  if (vocab.nodes === 0 || vocab.edges === 0) return false;
  memory.fill(vocab.nodes, 0, (<usize>limit << 2) + 512);
  memory.fill(vocab.edges, 0, <usize>slots << 3);
  vocab.edgeMask = slots - 1;
  vocab.nodeLimit = limit;
  vocab.nodeCount = ROOTS + 1;
  return true;
}

/** Adds a token's text to trie 0 (text as it is) or 1 (normalised text). The first of equal texts stays. */
export function addAdded(at: usize, trie: u32, text: usize, length: usize, id: u32): void {
  if (length === 0) return;
  const vocab = changetype<Vocab>(at);
  store<u8>(firstBytes(vocab, trie) + load<u8>(text), 1);
  let node = trie + 1;
  for (let i: usize = 0; i < length; i++) node = below(vocab, node, load<u8>(text + i), true);
  const place = vocab.nodes + (<usize>node << 2);
  if (load<u32>(place) === 0) store<u32>(place, id + 1);
}

/**
 * Where the first added token at or after `from` begins, or `to`; matchEnd and matchId tell the rest. Control tokens count only
 * inside regions that allow them. regions: u32 (regionCount, 2), each the address where it ends and whether it allows them.
 */
export function nextAdded(at: usize, trie: u32, from: usize, to: usize, regions: usize, regionCount: u32): usize {
  const vocab = changetype<Vocab>(at);
  if (vocab.nodeCount === 0) return to;
  const first = firstBytes(vocab, trie);
  for (; from < to; from++) {
    if (load<u8>(first + load<u8>(from)) === 0) continue;
    let node = trie + 1;
    let region: usize = 0;
    foundEnd = 0;
    for (let end = from; end < to; ) {
      node = below(vocab, node, load<u8>(end++), false);
      if (node === 0) break;
      const id = load<u32>(vocab.nodes + (<usize>node << 2)) - 1;
      if (id === 0xffffffff) continue;
      const type = load<u8>(vocab.types + id);
      if (type === CONTROL || type === UNKNOWN) {
        if (region === 0) region = regionOf(regions, regionCount, from);
        if (load<u32>(region, 4) === 0 || end > load<u32>(region)) continue;
      }
      foundEnd = end;
      foundId = id;
    }
    if (foundEnd !== 0) return from;
  }
  return to;
}

/** Where the match of the last nextAdded ends. */
export function matchEnd(): usize {
  return foundEnd;
}

/** Its token. */
export function matchId(): u32 {
  return foundId;
}

/** The region that holds the address, by bisection. */
function regionOf(regions: usize, count: u32, address: usize): usize {
  let low: u32 = 0;
  let high = count - 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (load<u32>(regions + (<usize>middle << 3)) > <u32>address) high = middle;
    else low = middle + 1;
  }
  return regions + (<usize>low << 3);
}

/** The node below `node` by `byte`; where there is none, a new one or 0. */
function below(vocab: Vocab, node: u32, byte: u32, create: bool): u32 {
  const key = (node << 8) | byte;
  const hash = key * 0x9e3779b1;
  let slot = (hash ^ (hash >>> 15)) & vocab.edgeMask;
  while (true) {
    const edge = vocab.edges + (<usize>slot << 3);
    const there = load<u32>(edge);
    if (there === key) return load<u32>(edge, 4);
    if (there === 0) {
      if (!create || vocab.nodeCount === vocab.nodeLimit) return 0;
      store<u32>(edge, key);
      store<u32>(edge, vocab.nodeCount, 4);
      return vocab.nodeCount++;
    }
    slot = (slot + 1) & vocab.edgeMask;
  }
}

// @ts-ignore: decorator
@inline
function firstBytes(vocab: Vocab, trie: u32): usize {
  return vocab.nodes + (<usize>vocab.nodeLimit << 2) + (<usize>trie << 8);
}
