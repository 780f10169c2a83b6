// The contract that both backends fulfil: tensors, weights, the K/V cache's storage, and the operations of a forward.
// Types only. Operations run in the order of their calls; only `candidates` and `logits` are awaited. Shapes are (rows, cols),
// row-major; every operation works on all rows of the tensors that it is given. Knows nothing of models, prompts or samples' text.

import type { GgmlType } from "./formats/gguf.ts";

/** A matrix of f32 activations in the backend's memory. */
export interface Tensor {
  readonly rows: number;
  readonly cols: number;
}

/** A weight matrix (rows = outputs, cols = inputs), kept in its file's type. */
export interface Weight {
  readonly name: string;
  readonly type: GgmlType;
  readonly rows: number;
  readonly cols: number;
}

/** A root-mean-square norm: x / sqrt(mean(x²) + eps) · weight. */
export interface Norm {
  /** (1, cols) */
  readonly weight: Tensor;
  readonly eps: number;
}

/** Attention states: per row and part a normalised value (headDim) and the natural log of its sum of exponentials. */
export interface States {
  readonly rows: number;
}

/** In the place of an id, with a row's number: what was drawn in that row of the candidates asked for last (Candidates.drawn). */
export const DRAWN = 2 ** 31;

/** The rows of one forward, and where their keys and values lie. A backend prepares it once for all layers. */
export interface Batch {
  /** Token ids (rows); of decode steps also DRAWN ones, where a backend drawsAhead. */
  readonly ids: Uint32Array;
  /** Cosine and sine of each row's rotary angles: (rows, ropeDim / 2, 2). */
  readonly turns: Float32Array;
  /** Block, and place in the block, that takes the row's K and V: (rows, 2). */
  readonly slots: Uint32Array;
  /** The tokens that all rows share: their blocks in order, and how many of them are tokens. */
  readonly context: { readonly blocks: Uint32Array; readonly length: number };
  /**
   * Decoding: each row is a sample of its own with the blocks and length of its tail, its new token included.
   * Without tails the rows are consecutive tokens of one sequence, the first at position context.length, and context.blocks
   * holds their blocks too.
   */
  readonly tails?: { readonly blocks: readonly Uint32Array[]; readonly lengths: Uint32Array };
}

/** Two parts joined, or each sample by itself against prompt and tail. */
export type AttentionPath = "two-part" | "one-part";

/** A batch as the backend prepared it; good until the next one is. */
export interface PreparedBatch {
  /**
   * Rows of the tensors that go with it: the batch's, and of a decode step perhaps some behind them whose results mean nothing, so
   * that steps of about as many samples are the same work to the backend.
   */
  readonly rows: number;
}

/** Changes to one row's logits before sampling: entries of four 32-bit words (id u32, bias f32, scale f32, less f32), ids ascending.
 *  adjusted = penalise(logit + bias, scale) - less, where penalise(x, s) = x > 0 ? x / s : x · s. */
export type Edits = Uint32Array;

/** What sampling needs of one row of logits. */
export interface Request {
  readonly edits: Edits;
  /** Of the log-sum-exp of adjusted logits; 0 asks for none (greedy). */
  readonly inverseTemperature: number;
  /** A token whose raw logit is wanted besides. */
  readonly target?: number;
  /** Numbers in [0, 1), each of a draw from this row down all tokens in order of probability: for Candidates.beyond. */
  readonly uniforms?: readonly number[];
}

/** The best of each row of logits: by adjusted logit, ties to the lower id. Of the lists a row's k begin every `stride`; what lies between
 *  them means nothing. */
export interface Candidates {
  readonly k: number;
  readonly stride: number;
  readonly ids: Uint32Array; // (rows, stride)
  readonly adjusted: Float32Array; // (rows, stride) logits after edits, before temperature
  readonly raw: Float32Array; // (rows, stride)
  readonly rawLse: Float64Array; // (rows) log-sum-exp of the raw logits
  readonly adjustedLse: Float64Array; // (rows) log-sum-exp of the adjusted logits times inverseTemperature
  readonly target: Float32Array; // (rows) raw logit of the request's target; 0 without one
  /**
   * Of the requests' uniforms, one after another (draws): the token where a draw ends that goes on beyond the k best, and its raw
   * logit; -1 where it need not. What a draw finds depends on its number and its row alone. Left out where reading all logits
   * costs nothing.
   */
  readonly beyond?: { readonly ids: Int32Array; readonly raw: Float32Array };
  /**
   * (rows) What the row's first draw comes to, or the best token where it has none; in arithmetic of its own, so that a draw may in truth
   * come to the neighbour. Left out where the backend does not drawAhead.
   */
  readonly drawn?: Uint32Array;
}

/** Sizes that a backend's cache and scratch follow from. */
export interface Shape {
  readonly dim: number;
  readonly hiddenDim: number;
  readonly nLayers: number;
  readonly nHeads: number;
  readonly nKvHeads: number;
  readonly headDim: number;
  readonly ropeDim: number;
  readonly vocab: number;
  readonly ropePairs: "interleaved" | "halves";
}

/** Reads a tensor's bytes one after another: exactly `length` of them. */
export type ReadNext = (length: number) => Promise<Uint8Array>;

export interface Backend {
  readonly kind: "webgpu" | "wasm";
  /** What computes, for people. */
  readonly device: string;
  /** Most rows of one forward. */
  readonly maxRows: number;
  /** Most rows whose logits are computed at a time, and most samples of a step; at most maxRows. */
  readonly maxSamples: number;
  /** Tokens of a block of the cache, and bytes of a block over all layers. */
  readonly blockTokens: number;
  readonly blockBytes: number;
  /** Bytes of a block that are there twice while the cache grows. */
  readonly movingBytes: number;
  /** Most blocks that can be addressed, memory aside. */
  readonly maxBlocks: number;
  /** Bytes held at present, and the most that were held so far. */
  readonly usedBytes: number;
  readonly peakBytes: number;
  /** Whether the device is gone: every operation fails with `device-lost` then. */
  readonly lost: boolean;
  /** Whether a step can begin with tokens that nobody has read yet: DRAWN ids. */
  readonly drawsAhead: boolean;

  /** Whether weights of this type are computed. */
  computes(type: GgmlType): boolean;
  /** Bytes that a weight takes here. */
  weightBytes(type: GgmlType, rows: number, cols: number): number;
  /** Bytes of all that is neither weights nor blocks, for forwards of up to maxRows rows: what of it is held already, and the rest. */
  scratchBytes(): number;

  /** A new tensor, for good; contents undefined. */
  tensor(rows: number, cols: number): Tensor;
  /** New tensors of these widths, which lie side by side: products with weights that do fill them at once. */
  tensors(rows: number, cols: readonly number[]): Tensor[];
  /** `count` rows of a tensor from row `first` on: the same memory. */
  view(x: Tensor, first: number, count: number): Tensor;
  /** A vector of parameters (1, cols). */
  vector(values: Float32Array): Tensor;
  /** Room for weight matrices of one width, side by side. Errors: `unsupported`, `memory`: nothing is held then. */
  weights(of: readonly Weight[]): Promise<readonly Weight[]>;
  /** Fills a weight that has room with its file's bytes, read in order. Errors: `format` where one is not a finite number. */
  upload(weight: Weight, read: ReadNext): Promise<void>;
  /** New attention states for up to `rows` rows of all heads. */
  states(rows: number): States;

  /**
   * Makes sure that blocks 0 … count - 1 have memory; where that has to be asked for, a promise. It may come for more at once, but never
   * for more than `most` in all: what else the plan holds room for would lack it. Errors: `memory`: all is as before.
   */
  reserveBlocks(count: number, most?: number): Promise<void> | undefined;
  /** Copies a block, of all layers: at least its first nTokens tokens. */
  copyBlock(from: number, to: number, nTokens: number): void;

  prepare(batch: Batch): PreparedBatch;
  /**
   * Runs all operations of a forward on the batch that was just prepared. `work` says which they are, with all that they name but the
   * batch: where a forward before was the same work on a batch of the same form, a backend may do what it did then without asking.
   */
  forward(work: readonly unknown[], batch: PreparedBatch, operations: () => void): void;

  /** out[row] = table[id of the row], dequantised. */
  embed(table: Weight, batch: PreparedBatch, out: Tensor): void;
  /** out = norm(x) · tableᵀ: logits, as precise as the backend computes with many rows. x (rows, dim) -> out (rows, vocab). */
  unembed(x: Tensor, norm: Norm, table: Weight, out: Tensor): void;
  /** outs[i] = norm(x) · weights[i]ᵀ, of weights and outs that lie side by side. x (rows, cols) -> outs[i] (rows, outputs). */
  linear(x: Tensor, norm: Norm | undefined, weights: readonly Weight[], outs: readonly Tensor[]): void;
  /** out = silu(norm(x) · gateᵀ) · (norm(x) · upᵀ), element by element; silu(z) = z / (1 + e^-z). gate and up lie side by side. */
  linearGated(x: Tensor, norm: Norm, gate: Weight, up: Weight, out: Tensor): void;
  /** out += x · Wᵀ: a projection back into the residual stream. next: the norm that the next reader of out takes, where nothing
   *  changes out before; a backend may begin with it. */
  linearAdd(x: Tensor, weight: Weight, out: Tensor, next?: Norm): void;
  /** x[row] = norm(x[row]). A norm narrower than the rows normalises each part of its width (a head) by itself. */
  rmsNorm(x: Tensor, norm: Norm): void;
  /** x[row] += bias. x (rows, cols), bias (1, cols). */
  addBias(x: Tensor, bias: Tensor): void;
  /** Rotates q and k by the rows' angles, and puts k and v into the rows' slots of this layer.
   *  q (rows, nHeads · headDim), k and v (rows, nKvHeads · headDim), side by side; q changes in place. */
  ropeAppend(q: Tensor, k: Tensor, v: Tensor, layer: number, batch: PreparedBatch): void;
  /** linear into q, k and v, and ropeAppend of them, in one where a backend can; k and v need not hold anything afterwards. */
  linearRopeAppend(
    x: Tensor,
    norm: Norm,
    weights: readonly Weight[],
    qkv: readonly Tensor[],
    layer: number,
    batch: PreparedBatch,
  ): void;
  /** Prefill: each row against the context, itself and the rows before it. q, out (rows, nHeads · headDim). */
  attendPrefill(q: Tensor, layer: number, batch: PreparedBatch, out: Tensor): void;
  /** The context part: all rows of all samples against the one stored context (paper section 4.2). */
  attendContext(q: Tensor, layer: number, batch: PreparedBatch, states: States): void;
  /**
   * The decode part: each sample against its own tail. Always behind attendContext of the same step, which may have done it already; or
   * mergeStates does it: q stays as it is until then.
   */
  attendDecode(q: Tensor, layer: number, batch: PreparedBatch, states: States): void;
  /** Joins the states of context and decode part into one (log-sum-exp merge; associative). out (rows, nHeads · headDim), apart from q. */
  mergeStates(states: States, batch: PreparedBatch, out: Tensor): void;
  /** The one-part path: each sample by itself against context and tail. */
  attendOnePart(q: Tensor, layer: number, batch: PreparedBatch, out: Tensor): void;
  /** The faster attention path for so many samples after a context of so many tokens, and why, for people. */
  choosePath(nSamples: number, ctxLen: number): { readonly path: AttentionPath; readonly reason: string };

  /**
   * The k best tokens of each request's row, with what sampling and log-probabilities need: until the next but one are asked for, which
   * may take their place. Rows behind those do not count.
   */
  candidates(logits: Tensor, requests: readonly Request[], k: number): Promise<Candidates>;
  /** All raw logits of one row, for the rare draw that candidates do not decide. */
  logits(logits: Tensor, row: number): Promise<Float32Array>;

  /** Resolves once all operations so far have run. */
  finished(): Promise<void>;

  dispose(): void;
}
