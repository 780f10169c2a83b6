// K/V bookkeeping: which block holds which tokens, who needs it, and what goes when blocks run out. Ids and counts only:
// knows nothing of the bytes of keys and values, nor of layers.
//
// Blocks hold blockTokens tokens. Prefixes form a tree of blocks: a block's parent holds the tokens before its own, and only a
// full block has children. So block i of a path from the root holds positions [i · blockTokens, (i + 1) · blockTokens).
// A path references every block on its way; blocks that no path references stay cached, least lately used first to go.
// A tail is a run of blocks outside the tree: the tokens of one sample, or of several that have drawn the same so far. Forks of a tail
// share its blocks; a place that another tail sees is never written: who comes to it goes on in a copy of the block.

import { alloc } from "../memory";

/** Not enough blocks, even with all unreferenced ones evicted. Nothing has changed. */
const OUT_OF_BLOCKS: i32 = -1;
const NO_MEMORY: i32 = -2;
/** No such path or tail at present. */
const UNKNOWN: i32 = -3;

/** No block. */
const NONE: u32 = 0xffffffff;

const FREE: u32 = 0;
const IN_TREE: u32 = 1;
const IN_TAIL: u32 = 2;

@unmanaged
class Cache {
  // What cacheCounts shows, in this order.
  made: u32; // blocks ever used: ids below it
  free: u32; // of those, not in use
  cached: u32; // in the tree, referenced by no path
  mostInUse: u32;
  tokens: u32; // held by blocks in use
  evictions: u32;
  // The copy that the last extend asks for: copyTokens tokens from one block to another; 0 for none.
  copyFrom: u32;
  copyTo: u32;
  copyTokens: u32;

  blockTokens: u32;
  maxBlocks: u32;
  capacity: u32; // blocks that the tables have room for
  blocks: usize; // (capacity) Block
  ids: usize; // (capacity, blockTokens) u32
  buckets: usize; // (nBuckets) u32: first block of each bucket's chain
  nBuckets: u32; // a power of two
  firstFree: u32;
  // Blocks that no path references, from the least lately used to the latest; each after all of its children.
  oldest: u32;
  newest: u32;

  holders: usize; // (holderCapacity) Holder
  holderCapacity: u32;
  nHolders: u32;
  firstFreeHolder: u32;
  exchange: usize; // what JavaScript hands over, or reads
  exchangeBytes: usize;
}

@unmanaged
class Block {
  state: u32;
  length: u32; // tokens held
  refs: u32; // paths or tails that hold it
  parent: u32; // the block before it
  children: u32;
  chain: u32; // next of its bucket
  older: u32;
  newer: u32;
  next: u32; // of the free blocks, or of a search's front
}

/** A path or a tail. */
@unmanaged
class Holder {
  state: u32; // IN_TREE for a path
  last: u32; // the last block
  length: u32; // tokens
  start: u32; // tokens that were there when the path was acquired; of a free holder: the next one
}

/** A cache of up to maxBlocks blocks; 0 where there is no memory. maxBlocks · blockTokens < 2^31. */
export function newCache(blockTokens: u32, maxBlocks: u32): usize {
  const at = alloc(offsetof<Cache>());
  if (at == 0) return 0;
  memory.fill(at, 0, offsetof<Cache>());
  const cache = changetype<Cache>(at);
  cache.blockTokens = blockTokens;
  cache.maxBlocks = maxBlocks;
  cache.firstFree = NONE;
  cache.oldest = NONE;
  cache.newest = NONE;
  cache.firstFreeHolder = NONE;
  return at;
}

/** Where ids are handed over and blocks read: room for `words` u32; 0 where there is no memory. */
export function cacheExchange(handle: usize, words: u32): usize {
  const cache = changetype<Cache>(handle);
  const bytes = <usize>words << 2;
  if (bytes > cache.exchangeBytes) {
    const wanted = max(bytes, cache.exchangeBytes << 1);
    const at = alloc(wanted);
    if (at == 0) return 0;
    cache.exchange = at;
    cache.exchangeBytes = wanted;
  }
  return cache.exchange;
}

/** How many of the exchange's nIds ids are stored from the start on. */
export function cacheMatch(handle: usize, nIds: u32): u32 {
  search(changetype<Cache>(handle), nIds);
  return found;
}

/** A path along the longest stored beginning of the exchange's nIds ids; its number, or a code below 0. */
export function pathAcquire(handle: usize, nIds: u32): i32 {
  const cache = changetype<Cache>(handle);
  search(cache, nIds);
  return newPath(cache, foundBlock, found);
}

/** Another path along the same blocks. */
export function pathFork(handle: usize, path: u32): i32 {
  const cache = changetype<Cache>(handle);
  if (!holds(cache, path, IN_TREE)) return UNKNOWN;
  return newPath(cache, holderAt(cache, path).last, holderAt(cache, path).length);
}

function newPath(cache: Cache, last: u32, length: u32): i32 {
  const path = newHolder(cache, IN_TREE);
  if (path < 0) return path;
  const holder = holderAt(cache, path);
  holder.last = last;
  holder.length = length;
  holder.start = length;
  for (let b = last; b != NONE; b = blockAt(cache, b).parent) {
    const block = blockAt(cache, b);
    if (block.refs++ == 0) leaveCached(cache, b);
  }
  return path;
}

/**
 * Appends the exchange's nIds ids to a path. Where other tokens than these already follow its last ones in their block, the path
 * gets a block of its own in that one's place: copyFrom, copyTo and copyTokens say what is to be copied before blocks are
 * asked for again. The ids count as stored at once.
 */
export function pathExtend(handle: usize, path: u32, nIds: u32): i32 {
  const cache = changetype<Cache>(handle);
  cache.copyTokens = 0;
  if (!holds(cache, path, IN_TREE)) return UNKNOWN;
  if (nIds == 0) return 0;
  const blockTokens = cache.blockTokens;
  const holder = holderAt(cache, path);
  const begun = holder.length % blockTokens;
  const room = begun > 0 ? min(nIds, blockTokens - begun) : 0;
  const nNew = (nIds - room + blockTokens - 1) / blockTokens;
  const taken = begun > 0 && blockAt(cache, holder.last).length > begun;
  const available = cache.free + (cache.maxBlocks - cache.made) + cache.cached;
  let copies: u32 = taken ? 1 : 0;
  if (nNew + copies > available) {
    // Without a block for the copy the path keeps the old one, where it is alone: what followed there is forgotten.
    if (copies == 0 || nNew > available || blockAt(cache, holder.last).refs > 1) return OUT_OF_BLOCKS;
    copies = 0;
  }
  // All blocks first: with that, whatever had to go is gone, children of the last block too.
  const fresh = takeBlocks(cache, nNew + copies);
  if (nNew + copies > 0 && fresh == NONE) return NO_MEMORY;

  let from = cache.exchange;
  let next = fresh;
  if (room > 0) {
    if (copies > 0) {
      const source = holder.last;
      const target = next;
      next = blockAt(cache, target).next;
      memory.copy(idsAt(cache, target), idsAt(cache, source), <usize>begun << 2);
      putInTree(cache, target, blockAt(cache, source).parent, begun);
      holder.last = target;
      if (--blockAt(cache, source).refs == 0) settle(cache, source);
      cache.copyFrom = source;
      cache.copyTo = target;
      cache.copyTokens = begun;
    } else setLength(cache, holder.last, begun);
    memory.copy(idsAt(cache, holder.last) + (<usize>begun << 2), from, <usize>room << 2);
    setLength(cache, holder.last, begun + room);
    from += <usize>room << 2;
  }
  for (let left = nIds - room; left > 0; ) {
    const count = min(left, blockTokens);
    const block = next;
    next = blockAt(cache, block).next;
    memory.copy(idsAt(cache, block), from, <usize>count << 2);
    putInTree(cache, block, holder.last, count);
    holder.last = block;
    from += <usize>count << 2;
    left -= count;
  }
  holder.length += nIds;
  return 0;
}

/** Tokens of a path, or UNKNOWN. */
export function pathLength(handle: usize, path: u32): i32 {
  const cache = changetype<Cache>(handle);
  return holds(cache, path, IN_TREE) ? <i32>holderAt(cache, path).length : UNKNOWN;
}

/** Writes a path's blocks in order to the exchange: how many, or a code below 0. */
export function pathBlocks(handle: usize, path: u32): i32 {
  return blocksOf(changetype<Cache>(handle), path, IN_TREE);
}

function blocksOf(cache: Cache, number: u32, state: u32): i32 {
  if (!holds(cache, number, state)) return UNKNOWN;
  const holder = holderAt(cache, number);
  const count = (holder.length + cache.blockTokens - 1) / cache.blockTokens;
  const out = cacheExchange(changetype<usize>(cache), count);
  if (out == 0 && count > 0) return NO_MEMORY;
  let b = holder.last;
  for (let i = count; i > 0; i--) {
    store<u32>(out + (<usize>(i - 1) << 2), b);
    b = blockAt(cache, b).parent;
  }
  return count;
}

/** Gives up a path. What only it held stays cached. */
export function pathRelease(handle: usize, path: u32): i32 {
  return endPath(changetype<Cache>(handle), path, NONE);
}

/** Gives up a path and forgets the tokens that it was extended by, unless others have gone on from them. */
export function pathDiscard(handle: usize, path: u32): i32 {
  const cache = changetype<Cache>(handle);
  if (!holds(cache, path, IN_TREE)) return UNKNOWN;
  const holder = holderAt(cache, path);
  return endPath(cache, path, holder.length > holder.start ? holder.start : NONE);
}

/** Gives up a path; blocks that nobody has gone on from keep the tokens before position `keep`, and those that other paths hold. */
function endPath(cache: Cache, path: u32, keep: u32): i32 {
  if (!holds(cache, path, IN_TREE)) return UNKNOWN;
  const holder = holderAt(cache, path);
  const blockTokens = cache.blockTokens;
  let position: u32 = holder.length == 0 ? 0 : ((holder.length - 1) / blockTokens) * blockTokens;
  // From the last block to the first, so that a block comes to the cached ones after its children.
  for (let b = holder.last; b != NONE; position -= blockTokens) {
    const block = blockAt(cache, b);
    const parent = block.parent;
    block.refs--;
    if (keep > position && keep != NONE && block.children == 0) {
      const kept = max(keep, reach(cache, b, path)) - position;
      if (block.length > kept) setLength(cache, b, kept);
    }
    if (block.refs == 0) {
      if (keep > position || block.children > 0) settle(cache, b);
      else leaveTree(cache, b);
    }
    b = parent;
  }
  giveHolder(cache, path);
  return 0;
}

/** Tokens of the longest other path that ends in a block. */
function reach(cache: Cache, b: u32, path: u32): u32 {
  let most: u32 = 0;
  for (let p: u32 = 0; p < cache.nHolders; p++) {
    const other = holderAt(cache, p);
    if (p != path && other.state == IN_TREE && other.last == b) most = max(most, other.length);
  }
  return most;
}

/** An empty tail; its number, or a code below 0. */
export function tailNew(handle: usize): i32 {
  return newTail(changetype<Cache>(handle), NONE, 0);
}

/** Another tail of the same tokens, on the same blocks. */
export function tailFork(handle: usize, tail: u32): i32 {
  const cache = changetype<Cache>(handle);
  if (!holds(cache, tail, IN_TAIL)) return UNKNOWN;
  return newTail(cache, holderAt(cache, tail).last, holderAt(cache, tail).length);
}

function newTail(cache: Cache, last: u32, length: u32): i32 {
  const tail = newHolder(cache, IN_TAIL);
  if (tail < 0) return tail;
  const holder = holderAt(cache, tail);
  holder.last = last;
  holder.length = length;
  for (let b = last; b != NONE; b = blockAt(cache, b).parent) blockAt(cache, b).refs++;
  return tail;
}

/** Whether a tail's next append takes a block: 1 or 0, or UNKNOWN. */
export function tailTakesBlock(handle: usize, tail: u32): i32 {
  const cache = changetype<Cache>(handle);
  if (!holds(cache, tail, IN_TAIL)) return UNKNOWN;
  return holderAt(cache, tail).length % cache.blockTokens == 0 || nextIsSeen(cache, tail) ? 1 : 0;
}

/**
 * A place for one more token of a tail: block · blockTokens + place in it; or a code below 0. Where the place after its last token
 * is another tail's, that is a place in a block of its own, into which the tail's tokens of the old one are to be copied.
 */
export function tailAppend(handle: usize, tail: u32): i32 {
  const cache = changetype<Cache>(handle);
  if (!holds(cache, tail, IN_TAIL)) return UNKNOWN;
  const holder = holderAt(cache, tail);
  const place = holder.length % cache.blockTokens;
  const copies = place > 0 && nextIsSeen(cache, tail);
  if (place == 0 || copies) {
    if (cache.free + (cache.maxBlocks - cache.made) + cache.cached == 0) return OUT_OF_BLOCKS;
    const b = takeBlocks(cache, 1);
    if (b == NONE) return NO_MEMORY;
    const block = blockAt(cache, b);
    block.state = IN_TAIL;
    block.length = 0;
    block.refs = 1;
    block.parent = holder.last;
    if (copies) {
      // Never its last reference: who sees the place holds the block.
      blockAt(cache, holder.last).refs--;
      block.parent = blockAt(cache, holder.last).parent;
    }
    holder.last = b;
  }
  setLength(cache, holder.last, place + 1);
  holder.length++;
  return holder.last * cache.blockTokens + place;
}

/** Whether another tail has a token at the place that comes after a tail's last one in its block. */
function nextIsSeen(cache: Cache, tail: u32): bool {
  const holder = holderAt(cache, tail);
  if (blockAt(cache, holder.last).refs == 1) return false;
  const blocks = (holder.length - 1) / cache.blockTokens;
  for (let t: u32 = 0; t < cache.nHolders; t++) {
    const other = holderAt(cache, t);
    if (other.state != IN_TAIL || other.length <= holder.length) continue;
    let b = other.last;
    for (let i = (other.length - 1) / cache.blockTokens; i > blocks; i--) b = blockAt(cache, b).parent;
    if (b == holder.last) return true;
  }
  return false;
}

/** Writes a tail's blocks in order to the exchange: how many, or a code below 0. */
export function tailBlocks(handle: usize, tail: u32): i32 {
  return blocksOf(changetype<Cache>(handle), tail, IN_TAIL);
}

/** Gives up a tail, and its blocks where no other tail holds them. */
export function tailRelease(handle: usize, tail: u32): i32 {
  const cache = changetype<Cache>(handle);
  if (!holds(cache, tail, IN_TAIL)) return UNKNOWN;
  for (let b = holderAt(cache, tail).last; b != NONE; ) {
    const parent = blockAt(cache, b).parent;
    if (--blockAt(cache, b).refs == 0) giveBlock(cache, b);
    b = parent;
  }
  giveHolder(cache, tail);
  return 0;
}

/** Evicts up to `count` blocks that no path references, least lately used first; how many they were. */
export function cacheEvict(handle: usize, count: u32): u32 {
  const cache = changetype<Cache>(handle);
  let evicted: u32 = 0;
  while (evicted < count && cache.oldest != NONE) {
    evict(cache);
    evicted++;
  }
  return evicted;
}

/** Address of nine u32: blocks made, free, cached, most in use; tokens; evictions; the last extend's copy: from, to, tokens. */
export function cacheCounts(handle: usize): usize {
  return handle;
}

/** Address of a block's nine u32, see Block; for checks. */
export function cacheBlock(handle: usize, block: u32): usize {
  return changetype<usize>(blockAt(changetype<Cache>(handle), block));
}

/** Address of a block's ids (blockTokens) u32; for checks. */
export function cacheBlockIds(handle: usize, block: u32): usize {
  return idsAt(changetype<Cache>(handle), block);
}

// --- The tree ------------------------------------------------------------------------------------------------------------

/** What search found: the last block of the longest stored beginning, and its tokens in all. */
let foundBlock: u32 = NONE;
let found: u32 = 0;

/** Follows the exchange's ids down the tree. Where siblings hold the same tokens (two paths stored them at once), it follows all. */
function search(cache: Cache, nIds: u32): void {
  foundBlock = NONE;
  found = 0;
  if (cache.nBuckets == 0) return;
  const blockTokens = cache.blockTokens;
  let front = NONE; // full blocks that match so far, linked by next
  for (let position: u32 = 0; position < nIds; position += blockTokens) {
    const ids = cache.exchange + (<usize>position << 2);
    const wanted = min(blockTokens, nIds - position);
    const token = load<u32>(ids);
    let nextFront = NONE;
    let parent = front;
    do {
      for (let b = load<u32>(bucketAt(cache, parent, token)); b != NONE; b = blockAt(cache, b).chain) {
        const block = blockAt(cache, b);
        if (block.parent != parent) continue;
        const common = commonLength(idsAt(cache, b), ids, min(block.length, wanted));
        if (common > 0 && position + common > found) {
          foundBlock = b;
          found = position + common;
        }
        if (common == blockTokens) {
          block.next = nextFront;
          nextFront = b;
        }
      }
      if (parent != NONE) parent = blockAt(cache, parent).next;
    } while (parent != NONE);
    if (nextFront == NONE) return;
    front = nextFront;
  }
}

function commonLength(a: usize, b: usize, most: u32): u32 {
  let i: u32 = 0;
  while (i < most && load<u32>(a + (<usize>i << 2)) == load<u32>(b + (<usize>i << 2))) i++;
  return i;
}

/** Makes a taken block, its ids written, a child of `parent` with `length` tokens, referenced once. */
function putInTree(cache: Cache, b: u32, parent: u32, length: u32): void {
  const block = blockAt(cache, b);
  block.state = IN_TREE;
  block.length = 0;
  block.refs = 1;
  block.parent = parent;
  block.children = 0;
  if (parent != NONE) blockAt(cache, parent).children++;
  enchain(cache, b);
  setLength(cache, b, length);
}

/** Takes a childless block out of the tree, and frees it. */
function leaveTree(cache: Cache, b: u32): void {
  const block = blockAt(cache, b);
  if (block.parent != NONE) blockAt(cache, block.parent).children--;
  const bucket = bucketAt(cache, block.parent, load<u32>(idsAt(cache, b)));
  if (load<u32>(bucket) == b) store<u32>(bucket, block.chain);
  else {
    let before = load<u32>(bucket);
    while (blockAt(cache, before).chain != b) before = blockAt(cache, before).chain;
    blockAt(cache, before).chain = block.chain;
  }
  giveBlock(cache, b);
}

/** A block that has just lost its last reference is cached, or freed where a sibling holds its tokens too. */
function settle(cache: Cache, b: u32): void {
  const block = blockAt(cache, b);
  if (block.children == 0 && isCovered(cache, b)) {
    leaveTree(cache, b);
    return;
  }
  block.older = cache.newest;
  block.newer = NONE;
  if (cache.newest != NONE) blockAt(cache, cache.newest).newer = b;
  else cache.oldest = b;
  cache.newest = b;
  cache.cached++;
}

/** A cached block is referenced again, or evicted. */
function leaveCached(cache: Cache, b: u32): void {
  const older = blockAt(cache, b).older;
  const newer = blockAt(cache, b).newer;
  if (older != NONE) blockAt(cache, older).newer = newer;
  else cache.oldest = newer;
  if (newer != NONE) blockAt(cache, newer).older = older;
  else cache.newest = older;
  cache.cached--;
}

function isCovered(cache: Cache, b: u32): bool {
  const block = blockAt(cache, b);
  const ids = idsAt(cache, b);
  for (let s = load<u32>(bucketAt(cache, block.parent, load<u32>(ids))); s != NONE; s = blockAt(cache, s).chain) {
    const sibling = blockAt(cache, s);
    if (s == b || sibling.parent != block.parent || sibling.length < block.length) continue;
    if (commonLength(ids, idsAt(cache, s), block.length) == block.length) return true;
  }
  return false;
}

function enchain(cache: Cache, b: u32): void {
  const bucket = bucketAt(cache, blockAt(cache, b).parent, load<u32>(idsAt(cache, b)));
  blockAt(cache, b).chain = load<u32>(bucket);
  store<u32>(bucket, b);
}

/** The bucket of children of `parent` (NONE: the root) that begin with `token`. */
function bucketAt(cache: Cache, parent: u32, token: u32): usize {
  let hash = (parent + 1) * 0x9e3779b1 + token;
  hash = (hash ^ (hash >>> 15)) * 0x85ebca6b;
  hash ^= hash >>> 13;
  return cache.buckets + (<usize>(hash & (cache.nBuckets - 1)) << 2);
}

// --- Blocks --------------------------------------------------------------------------------------------------------------

/**
 * `count` blocks, linked by next: free ones, then new ones, then evicted ones. NONE for count 0 and where the tables cannot
 * grow; the caller has seen that there are so many.
 */
function takeBlocks(cache: Cache, count: u32): u32 {
  const fresh = min(count - min(count, cache.free), cache.maxBlocks - cache.made);
  if (cache.made + fresh > cache.capacity && !growTables(cache, cache.made + fresh)) return NONE;
  let list = NONE;
  let last = NONE;
  for (let i: u32 = 0; i < count; i++) {
    if (cache.firstFree == NONE && cache.made == cache.maxBlocks) evict(cache);
    let b = cache.firstFree;
    if (b != NONE) {
      cache.firstFree = blockAt(cache, b).next;
      cache.free--;
    } else b = cache.made++;
    if (last == NONE) list = b;
    else blockAt(cache, last).next = b;
    blockAt(cache, b).next = NONE;
    last = b;
  }
  cache.mostInUse = max(cache.mostInUse, cache.made - cache.free);
  return list;
}

function giveBlock(cache: Cache, b: u32): void {
  setLength(cache, b, 0);
  const block = blockAt(cache, b);
  block.state = FREE;
  block.refs = 0;
  block.next = cache.firstFree;
  cache.firstFree = b;
  cache.free++;
}

/** Evicts the least lately used block, which has no children: they came before it. */
function evict(cache: Cache): void {
  const b = cache.oldest;
  leaveCached(cache, b);
  leaveTree(cache, b);
  cache.evictions++;
}

function setLength(cache: Cache, b: u32, length: u32): void {
  const block = blockAt(cache, b);
  cache.tokens += length - block.length;
  block.length = length;
}

/** Room for at least `count` blocks. */
function growTables(cache: Cache, count: u32): bool {
  const capacity = min(cache.maxBlocks, max(count, max(64, cache.capacity << 1)));
  const nBuckets: u32 = 1 << (32 - clz(2 * capacity - 1));
  const blocks = alloc(<usize>capacity * offsetof<Block>());
  const ids = alloc(<usize>capacity * (cache.blockTokens << 2));
  const buckets = alloc(<usize>nBuckets << 2);
  if (blocks == 0 || ids == 0 || buckets == 0) return false;
  memory.copy(blocks, cache.blocks, <usize>cache.made * offsetof<Block>());
  memory.fill(blocks + <usize>cache.made * offsetof<Block>(), 0, <usize>(capacity - cache.made) * offsetof<Block>());
  memory.copy(ids, cache.ids, <usize>cache.made * (cache.blockTokens << 2));
  memory.fill(buckets, 0xff, <usize>nBuckets << 2);
  cache.blocks = blocks;
  cache.ids = ids;
  cache.buckets = buckets;
  cache.nBuckets = nBuckets;
  cache.capacity = capacity;
  for (let b: u32 = 0; b < cache.made; b++) if (blockAt(cache, b).state == IN_TREE) enchain(cache, b);
  return true;
}

// @ts-ignore: decorator
@inline
function blockAt(cache: Cache, b: u32): Block {
  return changetype<Block>(cache.blocks + <usize>b * offsetof<Block>());
}

// @ts-ignore: decorator
@inline
function idsAt(cache: Cache, b: u32): usize {
  return cache.ids + <usize>b * (cache.blockTokens << 2);
}

// --- Paths and tails -------------------------------------------------------------------------------------------------------

// @ts-ignore: decorator
@inline
function holderAt(cache: Cache, holder: u32): Holder {
  return changetype<Holder>(cache.holders + <usize>holder * offsetof<Holder>());
}

// @ts-ignore: decorator
@inline
function holds(cache: Cache, holder: u32, state: u32): bool {
  return holder < cache.nHolders && holderAt(cache, holder).state == state;
}

function newHolder(cache: Cache, state: u32): i32 {
  let holder = cache.firstFreeHolder;
  if (holder != NONE) cache.firstFreeHolder = holderAt(cache, holder).start;
  else {
    if (cache.nHolders == cache.holderCapacity) {
      const capacity = max<u32>(64, cache.holderCapacity << 1);
      const holders = alloc(<usize>capacity * offsetof<Holder>());
      if (holders == 0) return NO_MEMORY;
      memory.copy(holders, cache.holders, <usize>cache.nHolders * offsetof<Holder>());
      cache.holders = holders;
      cache.holderCapacity = capacity;
    }
    holder = cache.nHolders++;
  }
  holderAt(cache, holder).state = state;
  return holder;
}

function giveHolder(cache: Cache, holder: u32): void {
  holderAt(cache, holder).state = FREE;
  holderAt(cache, holder).start = cache.firstFreeHolder;
  cache.firstFreeHolder = holder;
}
