// The loop: prefill the prompt once, draw n first tokens from it, then step all samples together until each has ended.
// Samples that have drawn the same tokens so far are one row; where they draw different ones, the row's tail forks. Finished
// rows leave the batch at once, waiting samples take their places. Knows the order of work and what a call reports; nothing of
// layers, of kernels, or of how prompts became ids.

import type { Choice, Chunk, Result, Score, TokenLogprob } from "./api.ts";
import type { Backend, Candidates, Edits, Tensor } from "./backend.ts";
import type { Cache, Path, Tail } from "./cache.ts";
import type { ModelConfig } from "./config.ts";
import { fail } from "./errors.ts";
import type { Forward, Row } from "./model.ts";
import type { CallOptions } from "./options.ts";
import { missingBlocks, planPrompt, planTokens } from "./plan.ts";
import { type Steps, settled } from "./queue.ts";
import { choiceSeed, type Drawn, NO_EDITS, type Sampler } from "./sampler.ts";
import { stopwatch } from "./stats.ts";
import { type ChoiceText, createChoiceText } from "./text.ts";
import type { ModelTokenizer } from "./tokenizer.ts";
import type { TextModule } from "./wasm.ts";

/** Where a model runs: what goes with a device, and is made anew with it. */
export interface Device {
  backend: Backend;
  forward: Forward;
  cache: Cache;
  /** Why another backend was not used. */
  fallback?: string;
}

/** A loaded model's parts, as the loop uses them. */
export interface Engine extends Device {
  readonly text: TextModule;
  readonly config: ModelConfig;
  readonly sampler: Sampler;
  readonly tokenizer: ModelTokenizer;
  /** Most tokens of one sequence. */
  readonly contextLength: number;
  /** Puts a new device in the place of a lost one. Errors: `device-lost` where there is none or the source cannot be read again. */
  renew?: () => Promise<void>;
  disposed: boolean;
}

/** What a stream hears of a call, and how it ends choices. */
export interface Listener {
  emit(chunk: Chunk): void;
  /** Whether this choice was stopped from outside. */
  isStopped(index: number): boolean;
}

/** Candidates that come back for each row: enough for nine draws of ten at temperature 1. */
const CANDIDATES = 64;
/** Draws of a row that the backend follows beyond the candidates. Of a row with more, all logits come back where one goes on. */
const DRAWS = 128;
/** Bytes of K/V that stay for prompts to come when nobody holds them. */
const KEPT_BYTES = 256 << 20;

/** One choice on its way. */
interface Sample {
  readonly index: number;
  readonly text: ChoiceText;
  readonly ids: number[];
  readonly logprobs: TokenLogprob[];
  /** Sum of the raw log-probabilities of the tokens drawn, and how many they are. */
  logprobSum: number;
  drawn: number;
  finishReason?: Choice["finishReason"];
}

/** Samples that have drawn the same tokens so far: one row computes them all, as a row's bits depend on its own tokens alone. */
interface Branch {
  /** By index; never empty. */
  readonly samples: readonly Sample[];
  readonly tail: Tail;
}

/**
 * Generates n choices from a prompt (1 … contextLength known ids), in the order of their index. Errors: `context-length`, `memory`,
 * `disposed`; an abort throws signal.reason.
 */
export function* generate(
  engine: Engine,
  promptIds: Uint32Array,
  options: CallOptions,
  listener?: Listener,
): Steps<Result> {
  const { backend, cache, sampler } = engine;
  const { blockTokens } = backend;
  const { n, sampling, signal } = options;
  const watch = stopwatch();
  const path = cache.acquire(promptIds);
  const samples: Sample[] = Array.from({ length: n }, (_, index) => ({
    index,
    text: createChoiceText(engine.tokenizer.newDecoder(), options.stop),
    ids: [],
    logprobs: [],
    logprobSum: 0,
    drawn: 0,
  }));
  let maxTokens = 0;
  let active: Branch[] = [];
  try {
    const missing = missingBlocks(backend, promptIds.length, path.length, path.blocks().length);
    maxTokens = planTokens(backend, cache.room(), promptIds.length, missing, engine.contextLength, options.maxTokens);
    sampler.begin(sampling, promptIds, n);
    // The last token runs in any case: its logits are wanted.
    const cachedTokens = Math.min(path.length, promptIds.length - 1);
    const logits = yield* prefill(engine, path, promptIds, signal, maxTokens > 0 ? 1 : 0);
    watch.prefilled(path.blocks().length, n);

    if (maxTokens === 0) for (const sample of samples) finish(sample, "length");
    else {
      // All first tokens are drawn from the one row of logits, each by its own sample.
      yield* drawAll(logits as Tensor, [samples]);
    }

    const context = { blocks: path.blocks(), length: promptIds.length };
    const waiting = samples.filter((sample) => !sample.finishReason);
    while (waiting.length + active.length > 0) {
      yield* breathe(engine, signal);
      for (const sample of samples) {
        if (!sample.finishReason && listener?.isStopped(sample.index)) finish(sample, "abort");
      }
      active = active.flatMap(grow);
      // Each may come to be a row of its own.
      const places = backend.maxSamples - count(active);
      const comers = waiting.splice(0, places).filter((sample) => !sample.finishReason);
      active.push(...alike(comers).map((samples) => ({ samples, tail: cache.newTail() })));
      // Where memory runs short some sit a step out: the first can always go on to its end, and frees its blocks then.
      const running: Branch[] = [];
      const rows: Row[] = [];
      for (const branch of active) {
        const row = yield* nextRow(branch, active[0]);
        if (!row) continue;
        running.push(branch);
        rows.push(row);
      }
      if (running.length === 0) continue;

      const { path: attention, reason } =
        options.attention === "auto"
          ? backend.choosePath(count(running), context.length)
          : { path: options.attention, reason: "asked for by the option attention" };
      const tails = running.map(({ tail }) => tail);
      watch.stepBegins(attention, reason, context.blocks.length, running);
      const out = engine.forward.decode(
        rows,
        context,
        { blocks: tails.map((tail) => tail.blocks()), lengths: Uint32Array.from(tails.map((tail) => tail.length)) },
        attention,
      );
      yield* drawAll(
        out,
        running.map(({ samples }) => samples),
      );
      watch.stepEnds();
      active = active.flatMap(grow);
    }

    const choices = samples.map((sample) => choiceOf(sample));
    const completionTokens = samples.reduce((sum, sample) => sum + sample.ids.length, 0);
    return {
      choices,
      usage: { promptTokens: promptIds.length, cachedTokens, completionTokens },
      stats: watch.stats(
        engine,
        options,
        samples.reduce((sum, sample) => sum + sample.drawn, 0),
      ),
    };
  } finally {
    for (const { tail } of active) tail.release();
    path.release();
    trim(engine);
  }

  /** Each row's samples draw their tokens from its logits, and take them. */
  function* drawAll(out: Tensor, of: readonly (readonly Sample[])[]): Steps<void> {
    const requests = of.map((samples) => ({
      edits: sampler.edits(samples[0].index),
      inverseTemperature: sampler.inverseTemperature,
      uniforms: sampler.uniforms(samples.slice(0, DRAWS).map(({ index }) => index)),
    }));
    const candidates = yield* settled(backend.candidates(out, requests, Math.max(CANDIDATES, sampling.logprobs)));
    let first = 0; // of the row's draws
    for (const [row, samples] of of.entries()) {
      let all: Float32Array | undefined;
      const { edits, uniforms } = requests[row];
      for (const [i, sample] of samples.entries()) {
        let drawn = sampler.draw(sample.index, candidates, row, i < uniforms.length ? first + i : undefined);
        if (!drawn) {
          all ??= yield* settled(backend.logits(out, row));
          drawn = sampler.drawFromLogits(sample.index, all, candidates, row);
        }
        take(sample, {
          ...drawn,
          top: options.wantsLogprobs ? yield* alternatives(out, row, edits, candidates, all) : [],
        });
      }
      first += uniforms.length;
    }
  }

  function* alternatives(
    out: Tensor,
    row: number,
    edits: Edits,
    candidates: Candidates,
    all: Float32Array | undefined,
  ): Steps<Drawn[]> {
    const count = sampling.logprobs;
    if (count === 0) return [];
    return (
      sampler.top(count, edits, candidates, row) ??
      sampler.topFromLogits(count, all ?? (yield* settled(backend.logits(out, row))))
    );
  }

  /** A drawn token becomes part of its sample, or ends it. */
  function take(sample: Sample, { id, logprob, top }: Token): void {
    const { tokenizer } = engine;
    sampler.accept(sample.index, id);
    sample.logprobSum += logprob;
    sample.drawn++;
    if (tokenizer.eosIds.has(id) && !options.ignoreEos) {
      finish(sample, "stop", { tokenId: id, logprob });
      return;
    }
    sample.ids.push(id);
    const logprobs = options.wantsLogprobs ? describe(tokenizer, id, logprob, top) : undefined;
    if (logprobs) sample.logprobs.push(logprobs);
    const last = { tokenId: id, logprob, ...(logprobs && { logprobs }) };
    const { text, stopped } = sample.text.push(id);
    if (stopped) finish(sample, "stop", last, text);
    else if (sample.ids.length >= maxTokens) finish(sample, "length", last, text);
    else listener?.emit({ index: sample.index, text, ...last });
  }

  /** Ends a sample. Its place is free at once, its blocks when nobody shares them. */
  function finish(sample: Sample, reason: Choice["finishReason"], last: Last = NO_TOKEN, text = ""): void {
    sample.finishReason = reason;
    const rest = text + sample.text.end();
    sampler.end(sample.index);
    listener?.emit({ index: sample.index, text: rest, ...last, finishReason: reason });
  }

  /**
   * What has become of a branch: one for each token that its samples drew, the first on its tail, the others on forks; none where
   * all have ended. A branch that sat the step out stays one, since its samples' last tokens are still the same.
   *
   * A later fork shares more of the tail and stands nearer to it in the list. So whoever comes to be the first branch sees most of
   * each block that it shares, and goes on in place: it never needs more blocks than a sample alone.
   */
  function grow(branch: Branch): Branch[] {
    const { samples, tail } = branch;
    if (samples.length === 1 && !samples[0].finishReason) return [branch];
    const parts = alike(samples.filter((sample) => !sample.finishReason));
    const grown = parts.map((samples, i) => ({ samples, tail: i === 0 ? tail : tail.fork() }));
    if (grown.length === 0) tail.release();
    return grown;
  }

  /** A place for the branch's last token in its tail; none where the block that it takes may be needed by the first branch. */
  function* nextRow({ samples, tail }: Branch, first: Branch): Steps<Row | undefined> {
    const { takesBlock } = tail;
    if (takesBlock && tail !== first.tail) {
      const needed = Math.ceil((maxTokens - 1) / blockTokens) - first.tail.blocks().length;
      if (cache.room() <= needed) return undefined;
    }
    if (takesBlock) yield* reserve(engine, 1);
    const position = promptIds.length + tail.length;
    const { block, place, copy } = tail.append();
    if (copy) backend.copyBlock(copy.from, copy.to, copy.tokens);
    return { id: lastId(samples[0]), position, block, place };
  }

  function choiceOf(sample: Sample): Choice {
    const { index, text, ids, logprobs, logprobSum, drawn, finishReason } = sample;
    return {
      index,
      text: text.text,
      tokenIds: Uint32Array.from(ids),
      finishReason: finishReason as Choice["finishReason"],
      seed: choiceSeed(engine.text, sampling.seed, index),
      meanLogprob: drawn > 0 ? logprobSum / drawn : 0,
      ...(options.wantsLogprobs ? { logprobs } : {}),
    };
  }
}

const lastId = ({ ids }: Sample) => ids[ids.length - 1];
const count = (branches: readonly Branch[]) => branches.reduce((sum, { samples }) => sum + samples.length, 0);

/** Samples whose tokens but the last are the same, as lists of those that share the last too. */
function alike(samples: readonly Sample[]): Sample[][] {
  const lists = new Map<number, Sample[]>();
  for (const sample of samples) {
    const list = lists.get(lastId(sample));
    if (list) list.push(sample);
    else lists.set(lastId(sample), [sample]);
  }
  return [...lists.values()];
}

interface Token extends Drawn {
  readonly top: readonly Drawn[];
}

/** What a chunk says of its token. */
type Last = Pick<Chunk, "tokenId" | "logprob" | "logprobs">;
const NO_TOKEN: Last = { tokenId: -1, logprob: 0 };

/**
 * Runs what of the prompt the cache lacks, in chunks of at most backend.maxRows tokens, and returns the logits of the last
 * `wanted` tokens. path: the longest stored part of the prompt; it grows to the whole. Errors: `memory`, `disposed`.
 */
export function* prefill(
  engine: Engine,
  path: Path,
  ids: Uint32Array,
  signal: AbortSignal | undefined,
  wanted: 0 | 1,
): Steps<Tensor | undefined> {
  let logits: Tensor | undefined;
  const { backend, cache } = engine;
  planPrompt(backend, cache.room(), ids.length, missingBlocks(backend, ids.length, path.length, path.blocks().length));
  // A prompt that is stored whole runs its last token again, for its logits: that writes the same K and V once more.
  let from = Math.min(path.length, ids.length - wanted);
  while (from < ids.length) {
    yield* breathe(engine, signal);
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
        ids: best,
        raw,
        rawLse,
        target,
      } = yield* settled(backend.candidates(logits, requests, Math.max(1, top ?? 1)));
      for (let row = 0; row < to - from; row++) {
        logprobs[from + row] = target[row] - rawLse[row];
        if (top === undefined) continue;
        const of = Array.from({ length: Math.min(k, top) }, (_, i) => ({
          id: best[row * k + i],
          logprob: raw[row * k + i] - rawLse[row],
        }));
        tops.push(of.map((drawn) => describeOne(tokenizer, drawn)));
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
function* breathe(engine: Engine, signal: AbortSignal | undefined): Steps<void> {
  yield;
  signal?.throwIfAborted();
  if (engine.disposed) fail("disposed", "the model was disposed of while it ran");
}

/** Memory for as many more blocks, before the cache gives them out: what fails here leaves nothing promised. */
function* reserve({ backend, cache }: Engine, blocks: number): Steps<void> {
  const { made, inUse } = cache.counts();
  const more = backend.reserveBlocks(Math.min(Math.max(made, inUse + blocks), cache.maxBlocks));
  if (more) yield* settled(more);
}

/** Lets go of the oldest prefixes that nobody holds, beyond what is worth keeping. */
export function trim({ backend, cache }: Engine): void {
  const excess = cache.counts().cached - Math.floor(KEPT_BYTES / backend.blockBytes);
  if (excess > 0) cache.evict(excess);
}

function describe(tokenizer: ModelTokenizer, id: number, logprob: number, top: readonly Drawn[]): TokenLogprob {
  return { ...describeOne(tokenizer, { id, logprob }), top: top.map((drawn) => describeOne(tokenizer, drawn)) };
}

function describeOne(
  tokenizer: ModelTokenizer,
  { id, logprob }: Drawn,
): { tokenId: number; token: string; logprob: number } {
  return { tokenId: id, token: tokenizer.tokenText(id), logprob };
}
