// The memory plan: what a model takes before anything is allocated, and how much cache and how many samples at a time are left.
// Knows sizes only.

import type { Backend } from "./backend.ts";
import { fail } from "./errors.ts";

/**
 * Bytes that tables take for each block besides: its address once for the context and in up to 64 samples' tails, four times over
 * because tables that grow leave smaller ones behind.
 */
const TABLE_BYTES = 65 * 4 * 4;

/** The blocks of K/V that fit beside a model in `limit` bytes. Errors: `memory` where not even one block fits, saying what would. */
export function planMemory(backend: Backend, weightBytes: number, limit: number): number {
  const scratchBytes = backend.scratchBytes();
  const perBlock = backend.blockBytes + backend.movingBytes + TABLE_BYTES;
  const maxBlocks = Math.min(Math.floor((limit - weightBytes - scratchBytes) / perBlock), backend.maxBlocks);
  if (maxBlocks < 1) {
    const least = weightBytes + scratchBytes + perBlock;
    fail(
      "memory",
      `the model needs at least ${bytes(least)} (weights ${bytes(weightBytes)}, scratch ${bytes(scratchBytes)}, ` +
        `${bytes(perBlock)} for ${backend.blockTokens} tokens of K/V), but the limit is ${bytes(limit)}`,
    );
  }
  return maxBlocks;
}

/**
 * How many tokens each sample may have after a prompt: `wanted`, or for Infinity what context and memory leave.
 * room: blocks that are free or may be evicted; promptBlocks: those that the prompt still needs of them.
 * Errors: `context-length`; `memory` where not even one sample fits, saying what would.
 */
export function planTokens(
  { blockTokens }: Backend,
  room: number,
  promptTokens: number,
  promptBlocks: number,
  contextLength: number,
  wanted: number,
): number {
  if (wanted === 0) return 0;
  const contextLeaves = contextLength - promptTokens;
  if (contextLeaves === 0) {
    fail("context-length", `a prompt of ${promptTokens} tokens leaves no room in the context of ${contextLength}`);
  }
  // The last token of a sample is never fed back, so it takes no place.
  const memoryLeaves = (room - promptBlocks) * blockTokens + 1;
  const least = Number.isFinite(wanted) ? Math.min(wanted, contextLeaves) : 1;
  if (memoryLeaves < least) {
    fail(
      "memory",
      `a prompt of ${promptTokens} tokens and ${least} after it need ${promptBlocks + Math.ceil((least - 1) / blockTokens)} ` +
        `blocks of K/V (${blockTokens} tokens each), but memory has room for ${room}: ` +
        `dispose prefixes, or use fewer tokens or a larger memoryLimit`,
    );
  }
  return Math.min(wanted, contextLeaves, memoryLeaves);
}

/**
 * Blocks that a prompt still takes which is stored up to `stored` tokens, in `held` blocks: where these end within a block, others may
 * have gone on in it, and the prompt takes a copy.
 */
export function missingBlocks({ blockTokens }: Backend, promptTokens: number, stored: number, held: number): number {
  const copies = stored % blockTokens > 0 && stored < promptTokens ? 1 : 0;
  return Math.ceil(promptTokens / blockTokens) - held + copies;
}

/** Refuses a prompt whose `missing` blocks have no room. Errors: `memory`. */
export function planPrompt({ blockTokens }: Backend, room: number, promptTokens: number, missing: number): void {
  if (missing <= room) return;
  fail(
    "memory",
    `a prompt of ${promptTokens} tokens needs ${missing} blocks of K/V (${blockTokens} tokens each), but memory has room for ` +
      `${room}: dispose prefixes, or use a shorter prompt or a larger memoryLimit`,
  );
}

/** Bytes for people: 1,234,567 -> "1.2 MB". */
export function bytes(count: number): string {
  if (count < 1e3) return `${Math.round(count)} B`;
  if (count < 1e6) return `${(count / 1e3).toFixed(1)} kB`;
  return count < 1e9 ? `${(count / 1e6).toFixed(1)} MB` : `${(count / 1e9).toFixed(2)} GB`;
}
