// Sampling over text.wasm: options -> checked options, what changes each row's logits, candidates or logits -> the next token.
// Knows nothing of backends beyond the form of their candidates, nor of text and stop strings.

import type { GenerateOptions } from "./api.ts";
import type { Candidates, Edits } from "./backend.ts";
import { FurcateError, fail, show } from "./errors.ts";
import { f32, type TextModule, u32 } from "./wasm.ts";

/** Sampling options, checked and complete; meanings as in GenerateOptions. */
export interface Sampling {
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repetitionPenalty: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly logitBias: readonly (readonly [id: number, bias: number])[];
  readonly seed: number;
  readonly logprobs: number;
}

/** A token drawn, and its raw log-probability (before bias, penalties and temperature). */
export interface Drawn {
  readonly id: number;
  readonly logprob: number;
}

/** The samples of one call at a time. A sample is a number, 0 … nSamples - 1. */
export interface Sampler {
  /**
   * Begins a call; the one before is forgotten. promptIds: what the repetition penalty counts besides the samples. Choice i is
   * sample i, with choiceSeed(seed, i).
   */
  begin(sampling: Sampling, promptIds: ArrayLike<number>, nSamples: number): void;
  /** What a request to the backend for candidates names: 1 / temperature as f32; 0 where sampling is greedy. */
  readonly inverseTemperature: number;
  /** The changes to the logits of the sample's next row; a copy. Empty (length 0) where nothing changes them. */
  edits(sample: number): Edits;
  /**
   * Whether a backend can tell what samples draw: nothing that they have drawn changes logits, and a draw is the best token each time, or
   * what its number says of all of them.
   */
  readonly isFollowed: boolean;
  /**
   * The number of the sample's next draw, or of one `ahead` of it, for a request to the backend; none where top-k, top-p or min-p can
   * end a draw.
   */
  uniform(sample: number, ahead?: number): number | undefined;
  /**
   * The sample's next token from row `row` of the candidates, or from what lies beyond them for this draw (of all uniforms asked
   * for; left out where none was for it); undefined where only the whole row of logits decides.
   */
  draw(sample: number, candidates: Candidates, row: number, draw?: number): Drawn | undefined;
  /** The same from the raw logits (vocab), edits applied here. The candidates' row gives the log-sum-exps that make both agree. */
  drawFromLogits(sample: number, logits: Float32Array, candidates?: Candidates, row?: number): Drawn;
  /** The sample takes the token as its next: it counts from now on, and the position of the sample's draws moves on. */
  accept(sample: number, id: number): void;
  /** The sample is over: gives back what it counted. */
  end(sample: number): void;
  /**
   * The `count` likeliest tokens by raw log-probability, ties to the lower id. From candidates: undefined where the row was edited
   * or has too few.
   */
  top(count: number, edits: Edits, candidates: Candidates, row: number): Drawn[] | undefined;
  topFromLogits(count: number, logits: Float32Array): Drawn[];
}

/** A sampler over a vocabulary of `vocab` ids. Its memory stays in text.wasm: make one for a model, not one for a call. */
export function createSampler(text: TextModule, vocab: number): Sampler {
  const handle = text.newSampler(vocab);
  if (handle === 0) fail("memory", `sampler: tables for ${vocab} tokens do not fit in WebAssembly memory`);
  let sampling: Sampling | undefined;
  let inverseTemperature = 0;
  /** Whether anything changes logits before they are drawn from. */
  let hasEdits = false;
  let isFollowed = false;
  /** The candidates whose adjusted logits are text.wasm's input at present, and where. */
  let placed: Candidates | undefined;
  let placedAt = 0;

  const input = (words: number): number => {
    placed = undefined;
    const at = text.samplerInput(handle, words);
    if (at === 0 && words > 0) throw failure(NO_MEMORY);
    return at;
  };

  return {
    begin(options, promptIds, nSamples) {
      sampling = options;
      inverseTemperature = options.temperature === 0 ? 0 : Math.fround(1 / options.temperature);
      // The prompt counts for the repetition penalty alone.
      const counted = options.repetitionPenalty === 1 ? 0 : promptIds.length;
      const { logitBias, topK, topP, minP, repetitionPenalty, presencePenalty, frequencyPenalty, seed } = options;
      const penalises = repetitionPenalty !== 1 || presencePenalty !== 0 || frequencyPenalty !== 0;
      hasEdits = logitBias.length > 0 || penalises;
      const words = counted + 2 * logitBias.length;
      const at = input(words);
      if (counted > 0) u32(text, at, counted).set(promptIds);
      const ids = u32(text, at + 4 * counted, 2 * logitBias.length);
      const biases = f32(text, at + 4 * counted, 2 * logitBias.length);
      logitBias.forEach(([id, bias], i) => {
        ids[2 * i] = id;
        biases[2 * i + 1] = bias;
      });
      const status = text.samplerBegin(
        handle,
        nSamples,
        inverseTemperature,
        topK,
        topP,
        minP,
        repetitionPenalty,
        presencePenalty,
        frequencyPenalty,
        counted,
        logitBias.length,
      );
      if (status < 0) throw failure(status);
      for (let sample = 0; sample < nSamples; sample++) {
        const own = choiceSeed(text, seed, sample);
        text.samplerSeed(handle, sample, lowWord(own), highWord(own));
      }
      isFollowed = !penalises && (inverseTemperature === 0 || text.samplerUniform(handle, 0, 0) >= 0);
    },
    get inverseTemperature() {
      return inverseTemperature;
    },
    edits(sample) {
      if (!hasEdits) return NO_EDITS;
      const count = text.samplerEdits(handle, sample);
      if (count < 0) throw failure(count, sample);
      return count === 0 ? NO_EDITS : u32(text, text.samplerEditsAt(handle), count * 4).slice();
    },
    get isFollowed() {
      return isFollowed;
    },
    uniform(sample, ahead = 0) {
      const uniform = text.samplerUniform(handle, sample, ahead);
      return uniform < 0 ? undefined : uniform;
    },
    draw(sample, candidates, row, draw = -1) {
      // A step's draws are all from the same ones.
      if (candidates !== placed) place(candidates);
      const { k, stride, ids, raw, rawLse, adjustedLse, beyond } = candidates;
      const at = row * stride;
      const rank = text.sampleCandidates(handle, sample, placedAt + 4 * at, k, adjustedLse[row]);
      if (rank >= 0) return { id: ids[at + rank], logprob: raw[at + rank] - rawLse[row] };
      if (rank !== NEED_LOGITS) throw failure(rank, sample);
      const found = beyond?.ids[draw] ?? -1;
      if (!beyond || found < 0) return undefined;
      return { id: found, logprob: beyond.raw[draw] - rawLse[row] };
    },
    drawFromLogits(sample, logits, candidates, row = 0) {
      putLogits(logits);
      const rawLse = candidates ? candidates.rawLse[row] : Number.NaN;
      const adjustedLse = candidates && inverseTemperature > 0 ? candidates.adjustedLse[row] : Number.NaN;
      const id = text.sampleLogits(handle, sample, rawLse, adjustedLse);
      if (id < 0) throw failure(id, sample);
      return { id, logprob: text.sampledLogprob(handle) };
    },
    accept(sample, id) {
      const status = text.samplerAccept(handle, sample, id);
      if (status < 0) throw failure(status, sample);
    },
    end: (sample) => text.samplerEnd(handle, sample),
    top(count, edits, { k, stride, ids, raw, rawLse }, row) {
      if (edits.length > 0 || Math.min(count, vocab) > k) return undefined;
      return Array.from({ length: Math.min(count, vocab) }, (_, i) => ({
        id: ids[row * stride + i],
        logprob: raw[row * stride + i] - rawLse[row],
      }));
    },
    topFromLogits(count, logits) {
      if (count === 0) return [];
      putLogits(logits);
      const lse = text.samplerLogSumExp(handle);
      const found = text.samplerBest(handle, count);
      if (found < 0) throw failure(found);
      const at = text.samplerEditsAt(handle);
      const ids = u32(text, at, found);
      const best = f32(text, at + 4 * found, found);
      return Array.from(ids, (id, i) => ({ id, logprob: best[i] - lse }));
    },
  };

  function place(candidates: Candidates): void {
    const { adjusted } = candidates;
    placedAt = input(adjusted.length);
    f32(text, placedAt, adjusted.length).set(adjusted);
    placed = candidates;
  }

  function putLogits(logits: Float32Array): void {
    if (logits.length !== vocab) fail("internal", `sampler: a row of ${logits.length} logits, expected ${vocab}`);
    f32(text, input(vocab), vocab).set(logits);
  }

  function failure(code: number, sample?: number): FurcateError {
    const of = sample === undefined ? "" : ` of sample ${sample}`;
    if (code === NO_MEMORY)
      return new FurcateError("memory", "sampler: no room left in WebAssembly memory (4 GiB in all)");
    if (code === UNKNOWN_ID)
      return new FurcateError("internal", `sampler: a token id${of} is not below the vocabulary's ${vocab}`);
    const bias = sampling?.logitBias.length ? ", or logitBias ruled all out" : "";
    if (code === NO_TOKEN)
      return new FurcateError("format", `the logits${of} leave no token possible: all are -Infinity${bias}`);
    return new FurcateError("format", `the logits${of} are not numbers: the model's weights are broken`);
  }
}

// text.wasm's codes.
const NEED_LOGITS = -1;
const NO_TOKEN = -3;
const NO_MEMORY = -4;
const UNKNOWN_ID = -5;

/** No changes to a row. */
export const NO_EDITS: Edits = new Uint32Array(0);

/** The seed of choice `index` of a call: the call's own for choice 0, else 53 bits of Philox keyed by it (text/random.ts). */
export function choiceSeed(text: TextModule, seed: number, index: number): number {
  return index === 0 ? seed : text.choiceSeed(lowWord(seed), highWord(seed), index);
}

// A safe integer in two's complement, as two words.
const lowWord = (seed: number) => seed >>> 0;
const highWord = (seed: number) => Math.floor(seed / 0x1_0000_0000) >>> 0;

/** Checks the sampling options and fills in what is missing; a missing seed is drawn. Errors: `option`. */
export function validateSampling(options: GenerateOptions, vocab: number): Sampling {
  return {
    temperature: temperature(options.temperature),
    topK: whole("topK", options.topK, 0, 0, 0xffff_ffff, "0 (off) or more"),
    topP: range("topP", options.topP, 1, Number.MIN_VALUE, 1, "above 0 and at most 1 (off)"),
    minP: range("minP", options.minP, 0, 0, 1, "from 0 (off) to 1"),
    repetitionPenalty: range("repetitionPenalty", options.repetitionPenalty, 1, 0.01, 100, "from 0.01 to 100 (1: off)"),
    presencePenalty: range("presencePenalty", options.presencePenalty, 0, -100, 100, "from -100 to 100 (0: off)"),
    frequencyPenalty: range("frequencyPenalty", options.frequencyPenalty, 0, -100, 100, "from -100 to 100 (0: off)"),
    logitBias: biases(options.logitBias, vocab),
    seed: seed(options.seed),
    logprobs: whole("logprobs", options.logprobs, 0, 0, vocab, `from 0 to the vocabulary's ${vocab}`),
  };
}

function temperature(value: number | undefined): number {
  // Below, 1 / temperature times a logit leaves the range of f32.
  const checked = range("temperature", value, 1, 0, 1e5, "0 (greedy) or from 0.00001 to 100000");
  if (checked !== 0 && checked < 1e-5) wrong("temperature", value, "0 (greedy) or from 0.00001 to 100000");
  return checked;
}

function biases(given: Record<number, number> | undefined, vocab: number): [number, number][] {
  if (given === undefined) return [];
  if (given === null || typeof given !== "object" || Symbol.iterator in given)
    wrong("logitBias", given, "an object from token ids to numbers");
  const list: [number, number][] = [];
  for (const [key, bias] of Object.entries(given)) {
    const id = Number(key);
    if (!/^(0|[1-9]\d*)$/.test(key) || id >= vocab)
      fail("option", `logitBias has a bias for ${show(key)}, expected token ids from 0 to ${vocab - 1}`);
    range(`logitBias[${id}]`, bias, 0, -1e6, 1e6, "from -1000000 to 1000000");
    if (bias !== 0) list.push([id, bias]);
  }
  return list;
}

function seed(value: number | undefined): number {
  if (value !== undefined) {
    whole("seed", value, 0, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, "a safe integer");
    return value + 0; // -0 is 0
  }
  const [low, high] = crypto.getRandomValues(new Uint32Array(2));
  return (high >>> 11) * 0x1_0000_0000 + low;
}

function range(name: string, value: unknown, otherwise: number, low: number, high: number, expected: string): number {
  if (value === undefined) return otherwise;
  if (typeof value !== "number" || !(value >= low && value <= high)) wrong(name, value, `a number ${expected}`);
  return value as number;
}

function whole(name: string, value: unknown, otherwise: number, low: number, high: number, expected: string): number {
  if (value === undefined) return otherwise;
  if (!Number.isSafeInteger(value) || !((value as number) >= low && (value as number) <= high))
    wrong(name, value, `a whole number, ${expected}`);
  return value as number;
}

function wrong(name: string, got: unknown, expected: string): never {
  fail("option", `${name} is ${show(got)}, expected ${expected}`);
}
