// The memory plan: what a model takes before anything is allocated, and how much cache and how many samples at a time are left.
// Knows sizes only.

import type { Backend } from "./backend.ts";
import { fail } from "./errors.ts";

export interface Plan {
  /** Bytes of weights, and of activations and scratch. */
  readonly weightBytes: number;
  readonly scratchBytes: number;
  /** Blocks of K/V that fit beside them. */
  readonly maxBlocks: number;
}

/** Plans a model in `limit` bytes. Errors: `memory` where not even one block fits, saying what would. */
export function planMemory(backend: Backend, weightBytes: number, limit: number): Plan {
  const scratchBytes = backend.scratchBytes();
  const left = limit - backend.usedBytes - weightBytes - scratchBytes;
  const maxBlocks = Math.floor(left / backend.blockBytes);
  if (maxBlocks < 1) {
    const least = backend.usedBytes + weightBytes + scratchBytes + backend.blockBytes;
    fail(
      "memory",
      `the model needs at least ${bytes(least)} (weights ${bytes(weightBytes)}, scratch ${bytes(scratchBytes)}, ` +
        `${bytes(backend.blockBytes)} for ${backend.blockTokens} tokens of K/V), but the limit is ${bytes(limit)}`,
    );
  }
  return { weightBytes, scratchBytes, maxBlocks };
}

/**
 * How many of n samples can decode at a time beside a prompt: each may need blocks for maxTokens. The others wait for a place.
 * Errors: `memory` where not even one fits, saying how many tokens would.
 */
export function planSamples(
  backend: Backend,
  maxBlocks: number,
  promptTokens: number,
  maxTokens: number,
  n: number,
): number {
  const { blockTokens } = backend;
  const promptBlocks = Math.ceil(promptTokens / blockTokens);
  const left = maxBlocks - promptBlocks;
  // The last token of a sample is never fed back.
  const tailBlocks = Math.max(1, Math.ceil((maxTokens - 1) / blockTokens));
  if (left < Math.min(1, maxTokens)) {
    fail(
      "memory",
      `a prompt of ${promptTokens} tokens does not fit: K/V memory holds ${maxBlocks * blockTokens} tokens, prompt and answer together`,
    );
  }
  const fitting = Math.floor(left / tailBlocks);
  if (fitting < 1 && maxTokens > 1) {
    fail(
      "memory",
      `maxTokens ${maxTokens} after a prompt of ${promptTokens} tokens does not fit: K/V memory has room for ${left * blockTokens} more`,
    );
  }
  return Math.max(1, Math.min(n, fitting, backend.maxRows));
}

/** Bytes for people: 1,234,567 -> "1.2 MB". */
export function bytes(count: number): string {
  if (count < 1e3) return `${Math.round(count)} B`;
  if (count < 1e6) return `${(count / 1e3).toFixed(1)} kB`;
  return count < 1e9 ? `${(count / 1e6).toFixed(1)} MB` : `${(count / 1e9).toFixed(2)} GB`;
}
