// Consecutive tokens of one sequence through the forward, into their blocks: a prompt before its samples, or a text whose own tokens'
// log-probabilities are wanted. Knows chunks, room and aborts; nothing of samples.

import type { Score, TokenLogprob } from "./api.ts";
import type { Tensor } from "./backend.ts";
import type { Path } from "./cache.ts";
import type { Engine } from "./engine.ts";
import { fail } from "./errors.ts";
import { missingBlocks, planPrompt } from "./plan.ts";
import { type Steps, settled } from "./queue.ts";
import { NO_EDITS } from "./sampler.ts";
import { tokenLogprob } from "./text.ts";

/** Bytes of K/V that stay for prompts to come when nobody holds them. */
const KEPT_BYTES = 256 << 20;

/**
 * Runs what of the prompt the cache lacks, in chunks of at most backend.maxRows tokens, and returns the logits of the last
 * `wanted` tokens. path: the longest stored part of the prompt; it grows to the whole, or as far as it was when isOver said that nobody
 * waits for it any more. Errors: `memory`, `disposed`.
 */
export function* prefill(
  engine: Engine,
  path: Path,
  ids: Uint32Array,
  signal: AbortSignal | undefined,
  wanted: 0 | 1,
  isOver = () => false,
): Steps<Tensor | undefined> {
  let logits: Tensor | undefined;
  const { backend, cache } = engine;
  planPrompt(backend, cache.room(), ids.length, missingBlocks(backend, ids.length, path.length, path.blocks().length));
  // A prompt that is stored whole runs its last token again, for its logits: that writes the same K and V once more.
  let from = Math.min(path.length, ids.length - wanted);
  while (from < ids.length) {
    yield* breathe(engine, signal);
    if (isOver()) return undefined;
    const to = Math.min(from + backend.maxRows, ids.length);
    let written = false;
    try {
      logits = yield* runChunk(engine, path, ids, from, to, to === ids.length ? wanted : 0);
      // A chunk at a time on the device too; the last one's logits are awaited anyhow.
      if (to < ids.length || wanted === 0) yield* settled(backend.finished());
      written = true;
    } finally {
      // Else the path may name tokens now whose K and V were never written.
      if (!written) path.discard();
    }
    from = to;
  }
  return logits;
}

/** Log-probabilities of a text's own tokens. Errors: as prefill. */
export function* score(
  engine: Engine,
  ids: Uint32Array,
  top: number | undefined,
  signal: AbortSignal | undefined,
): Steps<Score> {
  const { backend, cache, tokenizer } = engine;
  const logprobs = new Float64Array(ids.length - 1);
  const tops: TokenLogprob["top"][] = [];
  // Nothing of it is kept: the logits of every token are wanted, so every token runs.
  const path = cache.newPath();
  try {
    planPrompt(backend, cache.room(), ids.length, missingBlocks(backend, ids.length, 0, 0));
    for (let from = 0; from < ids.length - 1; from += backend.maxSamples) {
      yield* breathe(engine, signal);
      const to = Math.min(from + backend.maxSamples, ids.length - 1);
      const logits = (yield* runChunk(engine, path, ids, from, to, to - from)) as Tensor;
      const requests = Array.from(ids.subarray(from + 1, to + 1), (target) => ({
        edits: NO_EDITS,
        inverseTemperature: 0,
        target,
      }));
      const {
        k,
        stride,
        ids: best,
        raw,
        rawLse,
        target,
      } = yield* settled(backend.candidates(logits, requests, Math.max(1, top ?? 1)));
      for (let row = 0; row < to - from; row++) {
        logprobs[from + row] = target[row] - rawLse[row];
        if (top === undefined) continue;
        const of = Array.from({ length: Math.min(k, top) }, (_, i) => ({
          id: best[row * stride + i],
          logprob: raw[row * stride + i] - rawLse[row],
        }));
        tops.push(of.map((drawn) => tokenLogprob(tokenizer, drawn)));
      }
    }
  } finally {
    path.discard();
    trim(engine);
  }
  return { tokenIds: ids, logprobs, ...(top === undefined ? {} : { top: tops }) };
}

/** Tokens from … to - 1 of a sequence through the forward, into the path's blocks; the path grows where they are new to it. */
function* runChunk(
  engine: Engine,
  path: Path,
  ids: Uint32Array,
  from: number,
  to: number,
  wanted: number,
): Steps<Tensor | undefined> {
  const { backend, forward } = engine;
  const { blockTokens } = backend;
  if (to > path.length) {
    yield* reserve(engine, Math.ceil((to - path.length) / blockTokens) + 1);
    const copy = path.extend(ids.subarray(path.length, to));
    if (copy) backend.copyBlock(copy.from, copy.to, copy.tokens);
  }
  const blocks = path.blocks();
  const rows = Array.from(ids.subarray(from, to), (id, i) => ({
    id,
    position: from + i,
    block: blocks[Math.floor((from + i) / blockTokens)],
    place: (from + i) % blockTokens,
  }));
  return forward.prefill(rows, blocks, wanted);
}

/** Lets the host run its events, then ends the call where it was aborted or the model disposed of. */
export function* breathe(engine: Engine, signal: AbortSignal | undefined): Steps<void> {
  yield;
  signal?.throwIfAborted();
  if (engine.disposed) fail("disposed", "the model was disposed of while it ran");
}

/** Memory for as many more blocks, before the cache gives them out: what fails here leaves nothing promised. */
export function* reserve({ backend, cache }: Engine, blocks: number): Steps<void> {
  const { made, inUse } = cache.counts();
  const { maxBlocks } = cache;
  const more = backend.reserveBlocks(Math.min(Math.max(made, inUse + blocks), maxBlocks), maxBlocks);
  if (more) yield* settled(more);
}

/** Lets go of the oldest prefixes that nobody holds, beyond what is worth keeping. */
export function trim({ backend, cache }: Engine): void {
  const excess = cache.counts().cached - Math.floor(KEPT_BYTES / backend.blockBytes);
  if (excess > 0) cache.evict(excess);
}
