// The oracle: a Llama forward in float64, as plain as it can be said, and each of its operations by itself.
// Imports nothing from src. Speed does not matter here; being obviously right does.
// Matrices are (rows, cols), row by row; y = W x is y[r] = sum over c of W[r, c] x[c].

// ---------------------------------------------------------------------------------------------- operations

/** x (n) over its root mean square, times weight (n). */
export function rmsNorm(x: ArrayLike<number>, weight: ArrayLike<number>, eps: number): Float64Array {
  let squares = 0;
  for (let i = 0; i < x.length; i++) squares += x[i] * x[i];
  const scale = 1 / Math.sqrt(squares / x.length + eps);
  return Float64Array.from(x, (value, i) => value * scale * weight[i]);
}

/** W (rows, cols) times x (cols), plus bias (rows). */
export function linear(w: ArrayLike<number>, x: ArrayLike<number>, bias?: ArrayLike<number>): Float64Array {
  const cols = x.length;
  const out = new Float64Array(w.length / cols);
  for (let row = 0; row < out.length; row++) {
    let sum = 0;
    for (let col = 0; col < cols; col++) sum += w[row * cols + col] * x[col];
    out[row] = sum + (bias ? bias[row] : 0);
  }
  return out;
}

export interface Rope {
  /** Elements of each head that turn, from its first; the rest stay. */
  ropeDim: number;
  base: number;
  /** Linear scaling: positions are divided by it. */
  factor: number;
  /** (ropeDim / 2) divisors of the frequencies (llama3 scaling). */
  divisors?: ArrayLike<number>;
}

/** x (heads, headDim) turned in neighbouring pairs by position · base^(-2i / ropeDim). */
export function rope(x: ArrayLike<number>, headDim: number, position: number, by: Rope): Float64Array {
  const out = Float64Array.from(x);
  for (let head = 0; head < x.length; head += headDim)
    for (let i = 0; i < by.ropeDim / 2; i++) {
      const frequency = by.base ** ((-2 * i) / by.ropeDim) / (by.divisors ? by.divisors[i] : 1);
      const angle = (position / by.factor) * frequency;
      const a = x[head + 2 * i];
      const b = x[head + 2 * i + 1];
      out[head + 2 * i] = a * Math.cos(angle) - b * Math.sin(angle);
      out[head + 2 * i + 1] = a * Math.sin(angle) + b * Math.cos(angle);
    }
  return out;
}

/** silu(gate) · up, element by element. */
export function swiglu(gate: ArrayLike<number>, up: ArrayLike<number>): Float64Array {
  return Float64Array.from(gate, (g, i) => (g / (1 + Math.exp(-g))) * up[i]);
}

/** Natural log of the sum of exponentials; -Infinity of nothing. */
export function logSumExp(x: ArrayLike<number>): number {
  let max = -Infinity;
  for (let i = 0; i < x.length; i++) max = Math.max(max, x[i]);
  if (max === -Infinity) return -Infinity;
  let sum = 0;
  for (let i = 0; i < x.length; i++) sum += Math.exp(x[i] - max);
  return max + Math.log(sum);
}

export function logSoftmax(x: ArrayLike<number>): Float64Array {
  const lse = logSumExp(x);
  return Float64Array.from(x, (value) => value - lse);
}

/** Index of the largest; of equals the first. */
export function argmax(x: ArrayLike<number>): number {
  let best = 0;
  for (let i = 1; i < x.length; i++) if (x[i] > x[best]) best = i;
  return best;
}

// ---------------------------------------------------------------------------------------------- attention

/** Normalised weighted values (headDim) and the log-sum-exp of the scores; of no tokens zeros and -Infinity. */
export interface State {
  value: Float64Array;
  lse: number;
}

/** One query (headDim) against keys and values (tokens, headDim); scores are scaled by 1 / √headDim. */
export function attend(q: ArrayLike<number>, k: ArrayLike<number>, v: ArrayLike<number>): State {
  const headDim = q.length;
  const tokens = k.length / headDim;
  const scores = new Float64Array(tokens);
  for (let t = 0; t < tokens; t++) {
    let sum = 0;
    for (let i = 0; i < headDim; i++) sum += q[i] * k[t * headDim + i];
    scores[t] = sum / Math.sqrt(headDim);
  }
  const lse = logSumExp(scores);
  const value = new Float64Array(headDim);
  for (let t = 0; t < tokens; t++)
    for (let i = 0; i < headDim; i++) value[i] += Math.exp(scores[t] - lse) * v[t * headDim + i];
  return { value, lse };
}

/** Joins the states of one row over disjoint tokens into the state over all of them. */
export function mergeStates(states: readonly State[]): State {
  const lse = logSumExp(states.map((state) => state.lse));
  const value = new Float64Array(states[0].value.length);
  if (lse === -Infinity) return { value, lse };
  for (const state of states) {
    const weight = Math.exp(state.lse - lse);
    for (let i = 0; i < value.length; i++) value[i] += weight * state.value[i];
  }
  return { value, lse };
}

/** K and V of some tokens, each (nKvHeads, tokens, headDim). */
export interface KeysValues {
  k: ArrayLike<number>;
  v: ArrayLike<number>;
  tokens: number;
}

export interface AttentionCase {
  nHeads: number;
  nKvHeads: number;
  headDim: number;
  /** (nSamples, nHeads, headDim) */
  q: ArrayLike<number>;
  /** Shared by all samples. */
  context: KeysValues;
  /** One for each sample, of its own length. */
  decode: readonly KeysValues[];
}

/** Each sample's queries against context and own tokens in one softmax: (nSamples, nHeads, headDim). */
export function attendOnePart(c: AttentionCase): Float64Array {
  return eachRow(c, (q, context, own) => attend(q, concat(context.k, own.k), concat(context.v, own.v)));
}

/** The same as two states and their merge. */
export function attendTwoPart(c: AttentionCase): Float64Array {
  return eachRow(c, (q, context, own) => mergeStates([attend(q, context.k, context.v), attend(q, own.k, own.v)]));
}

type HeadKV = { k: Float64Array; v: Float64Array };

function eachRow(c: AttentionCase, run: (q: Float64Array, context: HeadKV, own: HeadKV) => State): Float64Array {
  const out = new Float64Array(c.q.length);
  const group = c.nHeads / c.nKvHeads;
  for (let sample = 0; sample < c.decode.length; sample++)
    for (let head = 0; head < c.nHeads; head++) {
      const at = (sample * c.nHeads + head) * c.headDim;
      const kvHead = Math.floor(head / group);
      const q = part(c.q, at, c.headDim);
      out.set(run(q, headOf(c.context, kvHead, c.headDim), headOf(c.decode[sample], kvHead, c.headDim)).value, at);
    }
  return out;
}

function headOf({ k, v, tokens }: KeysValues, kvHead: number, headDim: number): HeadKV {
  const size = tokens * headDim;
  return { k: part(k, kvHead * size, size), v: part(v, kvHead * size, size) };
}

const part = (x: ArrayLike<number>, at: number, length: number) => Float64Array.from({ length }, (_, i) => x[at + i]);
const concat = (a: Float64Array, b: Float64Array) => Float64Array.from([...a, ...b]);

// ---------------------------------------------------------------------------------------------- dequantisation

/** Values of `count` elements, each rounded once to float32, as ggml has them. */
export function dequantise(type: string, data: Uint8Array, count: number): Float64Array {
  const codec = CODECS[type];
  if (!codec) throw new Error(`reference: no dequantisation of ${type}`);
  const { elements, bytes, block } = codec;
  const out = new Float64Array(count);
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  for (let b = 0; b < count / elements; b++)
    block(view, b * bytes, (i, value) => {
      out[b * elements + i] = Math.fround(value);
    });
  return out;
}

interface Codec {
  elements: number;
  bytes: number;
  block(view: DataView, at: number, put: (i: number, value: number) => void): void;
}

const half = (view: DataView, at: number) => HALVES[view.getUint16(at, true)];

export function halfToNumber(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const fraction = bits & 1023;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

/** Of all bits: dequantisation looks each scale up for every element. */
const HALVES = Float64Array.from({ length: 0x10000 }, (_, bits) => halfToNumber(bits));

function bfloatToNumber(bits: number): number {
  return new Float32Array(Uint32Array.of(bits << 16).buffer)[0];
}

/** 32 values of four bits: low halves of the 16 bytes first, then the high halves. */
const nibble = (view: DataView, at: number, i: number) =>
  i < 16 ? view.getUint8(at + i) & 15 : view.getUint8(at + i - 16) >> 4;
/** The fifth bit of value i. */
const fifth = (view: DataView, at: number, i: number) => ((view.getUint32(at, true) >>> i) & 1) * 16;

/** Scale and minimum of 32-value group j (0 … 7), six bits each, from the 12 bytes that Q4_K and Q5_K share. */
function scaleAndMin(view: DataView, at: number, j: number): [number, number] {
  const byte = (i: number) => view.getUint8(at + i);
  if (j < 4) return [byte(j) & 63, byte(j + 4) & 63];
  return [(byte(j + 4) & 15) | ((byte(j - 4) >> 6) << 4), (byte(j + 4) >> 4) | ((byte(j) >> 6) << 4)];
}

const each = (n: number, put: (i: number, value: number) => void, value: (i: number) => number) => {
  for (let i = 0; i < n; i++) put(i, value(i));
};

const CODECS: Record<string, Codec> = {
  F32: { elements: 1, bytes: 4, block: (view, at, put) => put(0, view.getFloat32(at, true)) },
  F16: { elements: 1, bytes: 2, block: (view, at, put) => put(0, half(view, at)) },
  BF16: { elements: 1, bytes: 2, block: (view, at, put) => put(0, bfloatToNumber(view.getUint16(at, true))) },
  Q8_0: {
    elements: 32,
    bytes: 34,
    block: (view, at, put) => each(32, put, (i) => half(view, at) * view.getInt8(at + 2 + i)),
  },
  Q4_0: {
    elements: 32,
    bytes: 18,
    block: (view, at, put) => each(32, put, (i) => half(view, at) * (nibble(view, at + 2, i) - 8)),
  },
  Q4_1: {
    elements: 32,
    bytes: 20,
    block: (view, at, put) => each(32, put, (i) => half(view, at) * nibble(view, at + 4, i) + half(view, at + 2)),
  },
  Q5_0: {
    elements: 32,
    bytes: 22,
    block: (view, at, put) =>
      each(32, put, (i) => half(view, at) * (nibble(view, at + 6, i) + fifth(view, at + 2, i) - 16)),
  },
  Q5_1: {
    elements: 32,
    bytes: 24,
    block: (view, at, put) =>
      each(32, put, (i) => half(view, at) * (nibble(view, at + 8, i) + fifth(view, at + 4, i)) + half(view, at + 2)),
  },
  // Eight groups of 32; two groups share 32 bytes, one in the low halves, one in the high halves.
  Q4_K: {
    elements: 256,
    bytes: 144,
    block: (view, at, put) =>
      each(256, put, (i) => {
        const group = i >> 5;
        const [scale, min] = scaleAndMin(view, at + 4, group);
        const byte = view.getUint8(at + 16 + (group >> 1) * 32 + (i & 31));
        const q = group & 1 ? byte >> 4 : byte & 15;
        return half(view, at) * scale * q - half(view, at + 2) * min;
      }),
  },
  // The same with a fifth bit: bit `group` of byte i mod 32 of the 32 bytes behind the scales.
  Q5_K: {
    elements: 256,
    bytes: 176,
    block: (view, at, put) =>
      each(256, put, (i) => {
        const group = i >> 5;
        const [scale, min] = scaleAndMin(view, at + 4, group);
        const byte = view.getUint8(at + 48 + (group >> 1) * 32 + (i & 31));
        const high = (view.getUint8(at + 16 + (i & 31)) >> group) & 1;
        const q = (group & 1 ? byte >> 4 : byte & 15) + 16 * high;
        return half(view, at) * scale * q - half(view, at + 2) * min;
      }),
  },
  // Two halves of 128; in each four quarters of 32: low four bits in 64 bytes, high two bits in 32, a scale for every 16.
  Q6_K: {
    elements: 256,
    bytes: 210,
    block: (view, at, put) =>
      each(256, put, (i) => {
        const halfIndex = i >> 7;
        const quarter = (i >> 5) & 3;
        const lane = i & 31;
        const byte = view.getUint8(at + halfIndex * 64 + (quarter & 1) * 32 + lane);
        const low = quarter < 2 ? byte & 15 : byte >> 4;
        const high = (view.getUint8(at + 128 + halfIndex * 32 + lane) >> (2 * quarter)) & 3;
        const scale = view.getInt8(at + 192 + (i >> 4));
        return half(view, at + 208) * scale * (low + 16 * high - 32);
      }),
  },
};

// ---------------------------------------------------------------------------------------------- the model

export interface ReferenceConfig {
  dim: number;
  hiddenDim: number;
  nLayers: number;
  nHeads: number;
  nKvHeads: number;
  headDim: number;
  vocab: number;
  normEps: number;
  rope: Rope;
}

/** K and V of the tokens so far: by layer, by token, (nKvHeads, headDim). */
export interface ReferenceCache {
  layers: { k: Float64Array[]; v: Float64Array[] }[];
}

export interface ReferenceModel {
  readonly config: ReferenceConfig;
  readonly metadata: Map<string, unknown>;
  /** Values of a tensor, dequantised. */
  tensor(name: string): Float64Array;
  newCache(): ReferenceCache;
  /** Logits (vocab) after each of the ids, which continue what the cache holds; without a cache they begin a text. */
  logits(ids: ArrayLike<number>, cache?: ReferenceCache): Float64Array[];
  /** `count` ids, each the best after all before it, and by how much its logit beats the second. */
  greedy(ids: ArrayLike<number>, count: number): { ids: number[]; gaps: number[] };
}

/**
 * A GGUF of the llama architecture: q and k rows lie permuted for neighbouring rotary pairs. keep: what a cache of fewer bits makes
 * of K and V.
 */
export function loadReference(bytes: Uint8Array, keep: (x: Float64Array) => Float64Array = (x) => x): ReferenceModel {
  const { metadata, tensors } = parse(bytes);
  const architecture = String(metadata.get("general.architecture"));
  if (architecture !== "llama") throw new Error(`reference: knows no architecture "${architecture}"`);
  const number = (key: string, otherwise?: number) => {
    const value = metadata.get(`llama.${key}`) ?? otherwise;
    if (value === undefined) throw new Error(`reference: llama.${key} is missing`);
    return Number(value);
  };

  const values = new Map<string, Float64Array>();
  const find = (name: string) => {
    const info = tensors.get(name);
    if (!info) return undefined;
    let array = values.get(name);
    if (!array) {
      const count = info.ne.reduce((a, b) => a * b, 1);
      array = dequantise(info.type, bytes.subarray(info.at), count);
      values.set(name, array);
    }
    return array;
  };
  const tensor = (name: string) => {
    const found = find(name);
    if (!found) throw new Error(`reference: no tensor "${name}"`);
    return found;
  };

  const dim = number("embedding_length");
  const nHeads = number("attention.head_count");
  const headDim = number("attention.key_length", dim / nHeads);
  const linearScaling = metadata.get("llama.rope.scaling.type") === "linear";
  const config: ReferenceConfig = {
    dim,
    hiddenDim: number("feed_forward_length"),
    nLayers: number("block_count"),
    nHeads,
    nKvHeads: number("attention.head_count_kv", nHeads),
    headDim,
    vocab: tensor("token_embd.weight").length / dim,
    normEps: number("attention.layer_norm_rms_epsilon"),
    rope: {
      ropeDim: number("rope.dimension_count", headDim),
      base: number("rope.freq_base", 10000),
      factor: linearScaling ? number("rope.scaling.factor", 1) : number("rope.scale_linear", 1),
      divisors: find("rope_freqs.weight"),
    },
  };
  const { nLayers, nKvHeads, normEps } = config;
  const group = nHeads / nKvHeads;

  function forward(id: number, position: number, cache: ReferenceCache): Float64Array {
    let x = tensor("token_embd.weight").slice(id * dim, (id + 1) * dim);
    for (let layer = 0; layer < nLayers; layer++) {
      const apply = (name: string, input: Float64Array) =>
        linear(tensor(`blk.${layer}.${name}.weight`), input, find(`blk.${layer}.${name}.bias`));
      const normed = rmsNorm(x, tensor(`blk.${layer}.attn_norm.weight`), normEps);
      const q = rope(apply("attn_q", normed), headDim, position, config.rope);
      const { k, v } = cache.layers[layer];
      k.push(keep(rope(apply("attn_k", normed), headDim, position, config.rope)));
      v.push(keep(apply("attn_v", normed)));
      const attended = new Float64Array(nHeads * headDim);
      for (let head = 0; head < nHeads; head++) {
        const from = Math.floor(head / group) * headDim;
        const ofHead = (rows: Float64Array[]) => {
          const all = new Float64Array(rows.length * headDim);
          for (const [t, row] of rows.entries()) all.set(row.subarray(from, from + headDim), t * headDim);
          return all;
        };
        attended.set(
          attend(q.subarray(head * headDim, (head + 1) * headDim), ofHead(k), ofHead(v)).value,
          head * headDim,
        );
      }
      x = add(x, apply("attn_output", attended));
      const forMlp = rmsNorm(x, tensor(`blk.${layer}.ffn_norm.weight`), normEps);
      x = add(x, apply("ffn_down", swiglu(apply("ffn_gate", forMlp), apply("ffn_up", forMlp))));
    }
    const last = rmsNorm(x, tensor("output_norm.weight"), normEps);
    return linear(find("output.weight") ?? tensor("token_embd.weight"), last);
  }

  const newCache = (): ReferenceCache => ({ layers: Array.from({ length: nLayers }, () => ({ k: [], v: [] })) });
  const logits = (ids: ArrayLike<number>, cache = newCache()) =>
    Array.from(ids, (id) => forward(id, cache.layers[0].k.length, cache));
  return {
    config,
    metadata,
    tensor,
    newCache,
    logits,
    greedy(ids, count) {
      const cache = newCache();
      const chosen: number[] = [];
      const gaps: number[] = [];
      for (let next: ArrayLike<number> = ids; chosen.length < count; next = [chosen.at(-1)!]) {
        const last = logits(next, cache).at(-1)!;
        const best = argmax(last);
        const best2 = Math.max(...last.subarray(0, best), ...last.subarray(best + 1));
        chosen.push(best);
        gaps.push(last[best] - best2);
      }
      return { ids: chosen, gaps };
    },
  };
}

const add = (a: Float64Array, b: Float64Array) => a.map((value, i) => value + b[i]);

// ---------------------------------------------------------------------------------------------- the file

interface ReferenceTensor {
  type: string;
  /** ggml's order: innermost first. */
  ne: number[];
  /** Byte of the file. */
  at: number;
}

const TYPE_NAMES: Record<number, string> = {
  0: "F32",
  1: "F16",
  2: "Q4_0",
  3: "Q4_1",
  6: "Q5_0",
  7: "Q5_1",
  8: "Q8_0",
  12: "Q4_K",
  13: "Q5_K",
  14: "Q6_K",
  30: "BF16",
};

/** Reads a sound GGUF of version 2 or 3, trusting it. */
function parse(bytes: Uint8Array): { metadata: Map<string, unknown>; tensors: Map<string, ReferenceTensor> } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 8;
  const u32 = () => {
    at += 4;
    return view.getUint32(at - 4, true);
  };
  const u64 = () => {
    at += 8;
    return Number(view.getBigUint64(at - 8, true));
  };
  const string = () => {
    const length = u64();
    at += length;
    return new TextDecoder().decode(bytes.subarray(at - length, at));
  };
  const readers: (() => unknown)[] = [
    () => view.getUint8(at++),
    () => view.getInt8(at++),
    () => {
      at += 2;
      return view.getUint16(at - 2, true);
    },
    () => {
      at += 2;
      return view.getInt16(at - 2, true);
    },
    u32,
    () => u32() | 0,
    () => {
      at += 4;
      return view.getFloat32(at - 4, true);
    },
    () => view.getUint8(at++) !== 0,
    string,
    () => {
      const read = readers[u32()];
      return Array.from({ length: u64() }, read);
    },
    u64,
    () => {
      at += 8;
      return Number(view.getBigInt64(at - 8, true));
    },
    () => {
      at += 8;
      return view.getFloat64(at - 8, true);
    },
  ];
  const nTensors = u64();
  const nKeys = u64();
  const metadata = new Map<string, unknown>();
  for (let i = 0; i < nKeys; i++) {
    const key = string();
    metadata.set(key, readers[u32()]());
  }
  const tensors = new Map<string, ReferenceTensor>();
  for (let i = 0; i < nTensors; i++) {
    const name = string();
    const ne = Array.from({ length: u32() }, u64);
    const type = TYPE_NAMES[u32()];
    tensors.set(name, { type, ne, at: u64() });
  }
  const alignment = Number(metadata.get("general.alignment") ?? 32);
  const data = Math.ceil(at / alignment) * alignment;
  for (const info of tensors.values()) info.at += data;
  return { metadata, tensors };
}
