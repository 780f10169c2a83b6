// The options of a call, checked and completed. Knows what each may be; nothing of what they do.
// Those of sampling alone are checked in sampler.ts.

import type { GenerateOptions } from "./api.ts";
import { fail, show } from "./errors.ts";
import { type Sampling, validateSampling } from "./sampler.ts";

/** Every option of a call, with its value. */
export interface CallOptions {
  readonly n: number;
  /** Infinity: what the context leaves. */
  readonly maxTokens: number;
  readonly sampling: Sampling;
  readonly stop: readonly string[];
  readonly ignoreEos: boolean;
  /** Whether choices carry the log-probabilities of their tokens, with sampling.logprobs alternatives. */
  readonly wantsLogprobs: boolean;
  readonly rank: GenerateOptions["rank"];
  readonly answer: GenerateOptions["answer"];
  readonly attention: "auto" | "two-part" | "one-part";
  readonly signal: AbortSignal | undefined;
}

const KNOWN: Record<keyof GenerateOptions, true> = {
  n: true,
  maxTokens: true,
  temperature: true,
  topK: true,
  topP: true,
  minP: true,
  repetitionPenalty: true,
  presencePenalty: true,
  frequencyPenalty: true,
  logitBias: true,
  seed: true,
  stop: true,
  ignoreEos: true,
  logprobs: true,
  rank: true,
  answer: true,
  attention: true,
  signal: true,
};

const MOST_CHOICES = 65536;

/** Checks a call's options and fills in the defaults, for a vocabulary of `vocab` ids. Errors: `option`. */
export function resolveOptions(options: GenerateOptions = {}, vocab: number): CallOptions {
  refuseUnknown(options, KNOWN, "generate");
  const { rank, answer, signal } = options;
  const stop = typeof options.stop === "string" ? [options.stop] : (options.stop ?? []);
  if (!Array.isArray(stop) || stop.some((text) => typeof text !== "string" || text === "")) {
    fail("option", `stop is ${show(options.stop)}, expected a text or a list of texts, none empty`);
  }
  if (rank !== undefined && rank !== "mean-logprob" && rank !== "vote" && typeof rank !== "function") {
    fail("option", `rank is ${show(rank)}, expected "mean-logprob", "vote" or a function`);
  }
  if (answer !== undefined && typeof answer !== "function")
    fail("option", `answer is ${show(answer)}, expected a function`);
  const attention = options.attention ?? "auto";
  if (!["auto", "two-part", "one-part"].includes(attention)) {
    fail("option", `attention is ${show(attention)}, expected "auto", "two-part" or "one-part"`);
  }
  checkSignal(signal);
  return {
    n: whole(options.n, "n", 1, MOST_CHOICES) ?? 1,
    maxTokens: options.maxTokens === Infinity ? Infinity : (whole(options.maxTokens, "maxTokens", 0) ?? Infinity),
    sampling: validateSampling(options, vocab),
    stop,
    ignoreEos: flag(options.ignoreEos, "ignoreEos") ?? false,
    wantsLogprobs: options.logprobs !== undefined,
    rank,
    answer,
    attention,
    signal,
  };
}

/** Refuses options that nobody knows, so that a misspelt one is not silently ignored. */
export function refuseUnknown(options: object, known: Readonly<Record<string, true>>, call: string): void {
  if (typeof options !== "object" || options === null)
    fail("option", `options of ${call} are ${show(options)}, expected an object`);
  for (const name of Object.keys(options)) {
    if (!Object.hasOwn(known, name)) {
      fail("option", `${call} has no option "${name}", expected one of ${Object.keys(known).join(", ")}`);
    }
  }
}

export function checkSignal(signal: AbortSignal | undefined): void {
  if (signal !== undefined && !(signal instanceof AbortSignal)) fail("option", "signal is not an AbortSignal");
}

/** A whole number in [least, most], or undefined. */
export function whole(
  value: number | undefined,
  name: string,
  least: number,
  most = Number.MAX_SAFE_INTEGER,
): number | undefined {
  if (value === undefined) return undefined;
  if (!Number.isSafeInteger(value) || value < least || value > most) {
    fail("option", `${name} is ${show(value)}, expected a whole number from ${least} to ${most}`);
  }
  return value;
}

function flag(value: boolean | undefined, name: string): boolean | undefined {
  if (value !== undefined && typeof value !== "boolean")
    fail("option", `${name} is ${show(value)}, expected true or false`);
  return value;
}
