// Prefixes and tails over text.wasm's bookkeeping: which blocks hold the K/V of which tokens. Ids and counts only.
// Knows nothing of the bytes of keys and values: who extends a path puts them into its blocks.

import { fail } from "./errors.ts";
import { type TextModule, u32 } from "./wasm.ts";

export interface CacheOptions {
  /** Tokens of a block. */
  readonly blockTokens: number;
  /** Most blocks, prefixes and tails together. */
  readonly maxBlocks: number;
}

/** Blocks and their tokens at present. */
export interface CacheCounts {
  /** Blocks ever used at once or one after another: every block id is below it. */
  readonly made: number;
  /** Blocks in use: referenced + cached. */
  readonly inUse: number;
  /** Blocks that a path or a tail holds. */
  readonly referenced: number;
  /** Blocks of prefixes that nobody holds: they may be evicted. */
  readonly cached: number;
  /** The most blocks that were in use at once. */
  readonly mostInUse: number;
  /** Tokens in the blocks in use. */
  readonly tokens: number;
  /** Blocks evicted so far. */
  readonly evictions: number;
}

/** The first `tokens` tokens of a block that are to be copied to another. */
export interface BlockCopy {
  readonly from: number;
  readonly to: number;
  readonly tokens: number;
}

/** A sequence of tokens from position 0 on, held until release. Its block i holds the positions from i · blockTokens on. */
export interface Path {
  /** Tokens. */
  readonly length: number;
  /** Its blocks in order; the last may hold more tokens than are the path's. The list is good until the next extend. */
  blocks(): Uint32Array;
  /**
   * Appends tokens; their K/V count as stored at once, so they are to be written before anyone else acquires a path. Where the
   * path gets a block of its own in place of one that it shared, returns the copy to make, before blocks are asked for again.
   * Errors: `memory` where blocks run out; nothing has changed then.
   */
  extend(ids: Uint32Array): BlockCopy | undefined;
  /** Another path along the same blocks. */
  fork(): Path;
  /** Gives the path up; its tokens stay cached while there is room. Nothing after discard. */
  release(): void;
  /** Gives the path up and forgets what it was extended by, unless others have gone on from there. */
  discard(): void;
}

/** The tokens after a prefix of one sample, or of several that have drawn the same so far. */
export interface Tail {
  readonly length: number;
  /** Its blocks in order. The list is good until the next append. */
  blocks(): Uint32Array;
  /** Whether the next append takes a block. */
  readonly takesBlock: boolean;
  /**
   * A place for one more token. Where another tail has a token there, it is in a block of its own: `copy` is then to be made
   * before anything is written. Errors: `memory` where blocks run out.
   */
  append(): { readonly block: number; readonly place: number; readonly copy?: BlockCopy };
  /** Another tail of the same tokens, on the same blocks. */
  fork(): Tail;
  /** Gives up the tail, and the blocks that no fork holds. */
  release(): void;
}

/** Where the tokens' K/V lie. Prefixes that nobody holds stay until blocks run out; the least lately used go first. */
export interface Cache {
  readonly blockTokens: number;
  readonly maxBlocks: number;
  /** How many tokens of `ids` are stored, from the first on. */
  match(ids: Uint32Array): number;
  /** A path along the longest stored beginning of `ids`; what is missing is then extended. */
  acquire(ids: Uint32Array): Path;
  /** A path of no tokens, which shares nothing with what is stored. */
  newPath(): Path;
  newTail(): Tail;
  /** Evicts up to `count` blocks that nobody holds; how many they were. */
  evict(count: number): number;
  /** Blocks that are free, or held by nobody: what paths and tails can still get. */
  room(): number;
  counts(): CacheCounts;
}

/** A cache in text.wasm's memory. Errors: `memory`. */
export function createCache(text: TextModule, options: CacheOptions): Cache {
  const { blockTokens } = options;
  // A tail's place is block · blockTokens + place, below 2^31.
  const maxBlocks = Math.min(options.maxBlocks, Math.floor(0x7fff_ffff / blockTokens));
  const handle = text.newCache(blockTokens, maxBlocks);
  if (handle === 0) noMemory();

  const blocksFor = (tokens: number) => Math.ceil(tokens / blockTokens);

  /** Puts ids where text.wasm reads them. */
  function put(ids: Uint32Array): number {
    const at = text.cacheExchange(handle, ids.length);
    if (at === 0 && ids.length > 0) noMemory();
    u32(text, at, ids.length).set(ids);
    return ids.length;
  }
  const listOf = (count: number): Uint32Array => u32(text, text.cacheExchange(handle, 0), checked(count)).slice();

  function pathOf(path: number, known: Uint32Array | undefined): Path {
    let length = checked(text.pathLength(handle, path));
    let blocks = known;
    let discarded = false;
    return {
      get length() {
        return length;
      },
      blocks() {
        blocks ??= listOf(text.pathBlocks(handle, path));
        return blocks;
      },
      extend(ids) {
        const status = text.pathExtend(handle, path, put(ids));
        if (status === OUT_OF_BLOCKS)
          outOfBlocks(
            `${ids.length} tokens more need`,
            Math.max(1, blocksFor(length + ids.length) - blocksFor(length)),
          );
        checked(status);
        length += ids.length;
        blocks = undefined;
        const [from, to, tokens] = u32(text, text.cacheCounts(handle) + COPY_WORD * 4, 3);
        return tokens > 0 ? { from, to, tokens } : undefined;
      },
      fork: () => pathOf(checked(text.pathFork(handle, path)), blocks),
      release() {
        if (!discarded) end(text.pathRelease(handle, path));
      },
      discard() {
        end(text.pathDiscard(handle, path));
        discarded = true;
      },
    };

    function end(status: number): void {
      checked(status);
      path = ENDED;
    }
  }

  function tailOf(tail: number, first: number, known: Uint32Array): Tail {
    let length = first;
    let blocks = known;
    return {
      get length() {
        return length;
      },
      blocks: () => blocks,
      get takesBlock() {
        return checked(text.tailTakesBlock(handle, tail)) === 1;
      },
      append() {
        const at = text.tailAppend(handle, tail);
        if (at === OUT_OF_BLOCKS) outOfBlocks("a sample's next token needs", 1);
        checked(at);
        length++;
        const place = at % blockTokens;
        const block = (at - place) / blockTokens;
        const last = blocks[blocks.length - 1];
        if (block === last) return { block, place };
        blocks = listOf(text.tailBlocks(handle, tail));
        return place === 0 ? { block, place } : { block, place, copy: { from: last, to: block, tokens: place } };
      },
      fork: () => tailOf(checked(text.tailFork(handle, tail)), length, blocks),
      release() {
        checked(text.tailRelease(handle, tail));
        tail = ENDED;
      },
    };
  }

  function counts(): CacheCounts {
    const [made, free, cached, mostInUse, tokens, evictions] = u32(text, text.cacheCounts(handle), 6);
    const inUse = made - free;
    return { made, inUse, referenced: inUse - cached, cached, mostInUse, tokens, evictions };
  }

  const room = () => maxBlocks - counts().referenced;

  function outOfBlocks(what: string, blocks: number): never {
    const left = room();
    fail(
      "memory",
      `K/V memory is full: ${what} ${blocks} blocks of ${blockTokens} tokens, but ${left} of ${maxBlocks} are left ` +
        `(${left * blockTokens} tokens): dispose prefixes, take fewer samples or raise memoryLimit`,
    );
  }

  return {
    blockTokens,
    maxBlocks,
    match: (ids) => text.cacheMatch(handle, put(ids)),
    acquire: (ids) => pathOf(checked(text.pathAcquire(handle, put(ids))), undefined),
    newPath: () => pathOf(checked(text.pathAcquire(handle, 0)), undefined),
    newTail: () => tailOf(checked(text.tailNew(handle)), 0, new Uint32Array(0)),
    evict: (count) => text.cacheEvict(handle, count),
    room,
    counts,
  };
}

// text.wasm's codes, and where its counts name the copy to make.
const OUT_OF_BLOCKS = -1;
const NO_MEMORY = -2;
const COPY_WORD = 6;
/** The number of no path and no tail. */
const ENDED = 0xffff_ffff;

function checked(status: number): number {
  if (status === NO_MEMORY) noMemory();
  if (status < 0) fail("internal", "cache: a path or tail was used after its release");
  return status;
}

function noMemory(): never {
  fail("memory", "cache: no room left in WebAssembly memory (4 GiB in all)");
}
