// The public API as types: what users see. Lengths are tokens, sizes bytes, times milliseconds, logarithms natural.
// Types only; the functions and the error class are in index.ts.

import type { CompiledModules } from "./wasm.ts";

/** A URL (text starting with a scheme, or URL), bytes, a Blob or File; in Node and Deno also a path. */
export type Source = string | URL | Blob | ArrayBuffer | Uint8Array;

export interface LoadOptions {
  backend?: "auto" | "webgpu" | "wasm";
  /** Your own device; furcate then neither destroys it nor makes a new one when it is lost. */
  device?: Device;
  /** Compiled modules, for runtimes that refuse to compile bytes (edge workers). */
  wasm?: CompiledModules;
  /** Run in a Web Worker made from this same file (pages). `workerUrl`: where it lies after bundling. */
  worker?: boolean;
  workerUrl?: string | URL;
  /**
   * The bytes of a URL are kept on this device for the next time, which then works offline; default true. Pages: OPFS, else the
   * Cache API; Deno: the Cache API; nothing elsewhere.
   */
  cache?: boolean;
  /** Most tokens of one sequence; default: the model's own. K/V is taken in blocks as needed, so a large value costs nothing by itself. */
  contextLength?: number;
  /** Most bytes for weights, K/V and scratch; default: what the memory plan finds. */
  memoryLimit?: number;
  onProgress?: (p: { loaded: number; total: number; phase: "download" | "upload" }) => void;
  signal?: AbortSignal;
}

export interface Message {
  role: string;
  content: string;
  [key: string]: unknown;
}
/**
 * Raw text, messages (through the chat template), or token ids taken as they are. Raw text gets a BOS where the model asks for one,
 * and never makes control tokens: to run text that holds them, such as applyChatTemplate's, encode it with `special: true`.
 */
export type Prompt = string | Message[] | ArrayLike<number>;

export interface Model {
  readonly info: ModelInfo;
  readonly backend: "webgpu" | "wasm";
  readonly tokenizer: Tokenizer;
  generate(prompt: Prompt, options?: GenerateOptions): Promise<Result>;
  stream(prompt: Prompt, options?: GenerateOptions): Stream;
  /** Prefills once and keeps the K/V until dispose. Its generate and stream continue it: ids are joined, the boundary is not tokenized anew. */
  prefill(prompt: Prompt, options?: { signal?: AbortSignal }): Promise<Prefix>;
  /** logprobs[j] is log p(tokenIds[j + 1] | tokenIds[0..j]): one fewer than tokens. */
  score(prompt: Prompt, options?: { logprobs?: number; signal?: AbortSignal }): Promise<Score>;
  applyChatTemplate(messages: Message[], options?: { addGenerationPrompt?: boolean; tools?: unknown[] }): string;
  dispose(): void;
}
/** GPUDevice, where the user's types know it. */
type Device = typeof globalThis extends { GPUDevice: { prototype: infer Device } } ? Device : object;
/** What `using` asks for, where the language knows it. */
type Disposing = {
  [Key in typeof Symbol extends { readonly dispose: infer Dispose extends symbol } ? Dispose : never]: () => void;
};
export interface Prefix extends Disposing {
  readonly tokenIds: Uint32Array;
  generate(continuation: string | ArrayLike<number>, options?: GenerateOptions): Promise<Result>;
  stream(continuation: string | ArrayLike<number>, options?: GenerateOptions): Stream;
  /** A new prefix: this one plus the continuation, sharing its K/V. */
  fork(continuation: string | ArrayLike<number>, options?: { signal?: AbortSignal }): Promise<Prefix>;
  dispose(): void;
}

export interface GenerateOptions {
  n?: number; // 1
  maxTokens?: number; // what the context leaves, and memory where that is less
  temperature?: number; // 1; 0 is greedy (ties: lowest id)
  topK?: number; // 0 = off
  topP?: number; // 1 = off
  minP?: number; // 0 = off
  repetitionPenalty?: number; // 1 = off; counts prompt and sample (as in transformers)
  presencePenalty?: number; // 0 = off; counts the sample only (as in the OpenAI API)
  frequencyPenalty?: number; // 0 = off; likewise
  logitBias?: Record<number, number>;
  // Order: bias, penalties, temperature, top-k, top-p, min-p; then one draw down the candidates in order of probability (ties: lowest id).
  seed?: number; // a safe integer; default: random, reported in the choices
  stop?: string | string[]; // text ends before the match; tokenIds include the token that completed it
  ignoreEos?: boolean; // false
  logprobs?: number; // alternatives per token
  rank?: "mean-logprob" | "vote" | ((choice: Choice) => number | Promise<number>);
  answer?: (text: string) => string; // the key that "vote" counts; default: the trimmed text
  attention?: "auto" | "two-part" | "one-part"; // one-part: each sample reads the shared prompt by itself; for measuring and tests
  signal?: AbortSignal; // generate rejects with signal.reason; stream throws it; the model stays usable
}

export interface Choice {
  index: number; // 0..n-1, kept when a ranking reorders the list
  text: string; // without stop string and special tokens
  tokenIds: Uint32Array; // sampled ids, without the end token
  finishReason: "stop" | "length" | "abort"; // "abort": stopped alone through Stream.stop
  /** `generate(prompt, {...same, n: 1, seed: choice.seed})` gives this choice again. Choice 0 has the call's seed; choice i a stated hash of (seed, i). */
  seed: number;
  /** Mean of the raw log-probabilities (before bias, penalties and temperature) of the sampled tokens, the end token included. */
  meanLogprob: number;
  logprobs?: TokenLogprob[];
  score?: number; // what the ranking used
}
export interface TokenLogprob {
  tokenId: number;
  token: string;
  logprob: number;
  top: { tokenId: number; token: string; logprob: number }[];
}
export interface Result {
  choices: Choice[];
  usage: Usage;
  stats: Stats;
}
export interface Usage {
  promptTokens: number;
  cachedTokens: number;
  completionTokens: number;
} // the prompt counted once
export interface Stats {
  backend: "webgpu" | "wasm";
  device: string;
  fallback?: string; // fallback: why the GPU was not used
  workerFallback?: string; // why the model is not in the worker that was asked for
  attention: "two-part" | "one-part" | "mixed";
  attentionReason: string;
  steps: number;
  prefillMs: number;
  decodeMs: number;
  stepMs: { median: number; max: number };
  tokensPerSecond: number;
  tokensPerSecondPerSample: number;
  kvBytes: number;
  kvBytesAsCopies: number;
  peakBytes: number;
}
export interface Stream extends AsyncIterable<Chunk> {
  stop(index: number): void; // ends one choice; its row leaves the batch at the next step
  readonly result: Promise<Result>;
}
export interface Chunk {
  index: number;
  text: string;
  /** -1, with log-probability 0, where a choice ends without a new token: stopped from outside, or maxTokens 0. */
  tokenId: number;
  logprob: number;
  /** The token with its alternatives, where the option logprobs asks for them; none for an end token, as in Choice. */
  logprobs?: TokenLogprob;
  finishReason?: Choice["finishReason"];
}
export interface Score {
  tokenIds: Uint32Array;
  logprobs: Float64Array;
  top?: TokenLogprob["top"][];
}

export interface Tokenizer {
  readonly vocabSize: number;
  /** `special`: special tokens written in the text are recognised; `bos`: begin-of-text is added where the model asks for one. Both false by default. */
  encode(text: string, options?: { special?: boolean; bos?: boolean }): Uint32Array;
  decode(ids: ArrayLike<number>, options?: { special?: boolean }): string;
}
export interface ModelInfo {
  name: string;
  architecture: string;
  parameters: number;
  quantization: string;
  contextLength: number;
  vocabSize: number;
  dim: number;
  nLayers: number;
  nHeads: number;
  nKvHeads: number;
  headDim: number;
}

export interface HandlerOptions {
  /** The name that requests give the model; default: info.name. */
  modelId?: string;
  /** Whether pages of other origins may ask: all of them, or the one named. Default: none. */
  cors?: boolean | string;
  /** Most bytes of a request's body; default: 4 MiB. */
  maxBodyBytes?: number;
  /** Most requests that wait while one is served; the next is refused with status 429. Default: 64. */
  maxQueue?: number;
}
