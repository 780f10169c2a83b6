// What a model is: sizes and constants, read from a GGUF's metadata and checked. The glossary of dimension names.
// A family is described by data here, never by branches in model.ts. Knows nothing of weights' values or backends.
//
//   dim        width of the residual stream            nHeads, nKvHeads  query heads, and heads of keys and values
//   hiddenDim  width of the feed-forward part          group             nHeads / nKvHeads: query heads that share a KV head
//   headDim    width of a head                         rows              query rows: nSamples · group for one KV head
//   ctxLen     tokens of the shared prefix (m_c)       decLen            tokens that a sample decoded (m_d)
//   nSamples   samples that decode together (b)        lse               natural log of a sum of exponentials

import type { Shape } from "./backend.ts";
import { fail } from "./errors.ts";
import type { Gguf } from "./formats/gguf.ts";

export interface ModelConfig extends Shape {
  readonly name: string;
  readonly architecture: string;
  /** Most tokens of a sequence that the model was made for. */
  readonly contextLength: number;
  readonly normEps: number;
  readonly ropeBase: number;
  /** Positions are divided by this (linear scaling); 1 where there is none. */
  readonly ropeScale: number;
}

/** The architectures whose forward is model.ts's, and which dimensions of a head their rotary positions pair. */
const FAMILIES: Readonly<Record<string, Pick<ModelConfig, "ropePairs">>> = {
  llama: { ropePairs: "interleaved" },
  qwen2: { ropePairs: "halves" },
  qwen3: { ropePairs: "halves" },
};

/** The configuration of a GGUF's model. Errors: `unsupported`, `format`. */
export function readConfig(gguf: Gguf): ModelConfig {
  const { metadata } = gguf;
  const architecture = metadata.get("general.architecture");
  if (typeof architecture !== "string") {
    fail("format", `GGUF: general.architecture is ${describe(architecture)}, expected a string`);
  }
  const family = Object.hasOwn(FAMILIES, architecture) ? FAMILIES[architecture] : undefined;
  if (!family) {
    const known = Object.keys(FAMILIES).join(", ");
    fail("unsupported", `model architecture "${architecture}" is not supported, expected one of ${known}`);
  }

  const key = (name: string) => `${architecture}.${name}`;
  /** A whole number in [least, most]; without a fallback it must be there. */
  function whole(name: string, least: number, most: number, fallback?: number): number {
    const value = metadata.get(key(name)) ?? fallback;
    if (typeof value !== "number" || !Number.isInteger(value) || value < least || value > most) {
      fail("format", `GGUF: ${key(name)} is ${describe(value)}, expected a whole number from ${least} to ${most}`);
    }
    return value;
  }
  function positive(name: string, fallback?: number): number {
    const value = metadata.get(key(name)) ?? fallback;
    if (typeof value !== "number" || !(value > 0) || !Number.isFinite(value)) {
      fail("format", `GGUF: ${key(name)} is ${describe(value)}, expected a positive number`);
    }
    return value;
  }
  if (whole("expert_count", 0, 65536, 0) > 0)
    fail("unsupported", "models with experts (expert_count > 0) are not supported");

  if (metadata.get(key("attention.causal")) === false)
    fail("unsupported", "models that see what follows are not supported");
  const window = whole("attention.sliding_window", 0, 1 << 28, 0);
  const contextLength = whole("context_length", 1, 1 << 28);
  if (window > 0 && window < contextLength) {
    fail("unsupported", `attention in a window of ${window} tokens is not supported (context ${contextLength})`);
  }
  if (positive("rope.scaling.attn_factor", 1) !== 1)
    fail("unsupported", "rotary angles with a factor of their own (rope.scaling.attn_factor) are not supported");
  const hasDivisors = gguf.tensors.has("rope_freqs.weight");
  if (metadata.get(key("rope.scaling.type")) === "llama3" && !hasDivisors) {
    fail("format", 'GGUF: rope scaling is "llama3", but its tensor "rope_freqs.weight" is missing');
  }

  const dim = whole("embedding_length", 1, 1 << 20);
  const nHeads = whole("attention.head_count", 1, 1 << 16);
  const nKvHeads = whole("attention.head_count_kv", 1, 1 << 16, nHeads);
  if (nHeads % nKvHeads !== 0) {
    fail("format", `GGUF: ${nHeads} query heads do not divide among ${nKvHeads} KV heads`);
  }
  if (!metadata.has(key("attention.key_length")) && dim % nHeads !== 0) {
    fail(
      "format",
      `GGUF: width ${dim} does not divide among ${nHeads} heads, and ${key("attention.key_length")} is missing`,
    );
  }
  const headDim = whole("attention.key_length", 1, 1 << 14, Math.floor(dim / nHeads));
  const valueDim = whole("attention.value_length", 1, 1 << 14, headDim);
  if (valueDim !== headDim) {
    fail("unsupported", `heads with keys of ${headDim} and values of ${valueDim} numbers are not supported`);
  }
  const ropeDim = whole("rope.dimension_count", 0, headDim, headDim);
  if (ropeDim % 2 !== 0) fail("format", `GGUF: ${key("rope.dimension_count")} is ${ropeDim}, expected an even number`);

  const vocab = gguf.tensors.get("token_embd.weight")?.shape[0];
  if (!vocab) fail("format", 'GGUF: tensor "token_embd.weight" is missing');
  return {
    name: String(metadata.get("general.name") ?? architecture),
    architecture,
    dim,
    hiddenDim: whole("feed_forward_length", 1, 1 << 22),
    headDim,
    nHeads,
    nKvHeads,
    nLayers: whole("block_count", 1, 4096),
    vocab,
    contextLength,
    normEps: positive("attention.layer_norm_rms_epsilon"),
    ropeDim,
    ...family,
    ropeBase: positive("rope.freq_base", 10000),
    ropeScale: readRopeScale(metadata.get(key("rope.scaling.type")), () =>
      positive("rope.scaling.factor", positive("rope.scale_linear", 1)),
    ),
  };
}

function readRopeScale(type: unknown, factor: () => number): number {
  if (type === undefined || type === "linear") return factor();
  // Llama 3's scaling comes as the tensor rope_freqs.weight.
  if (type === "none" || type === "llama3") return 1;
  return fail("unsupported", `rope scaling ${describe(type)} is not supported, expected none, linear or llama3`);
}

/** The rotary angles by which a position differs from the next: of pair i, ropeBase^(-2i / ropeDim) / ropeScale / divisors[i]. */
export function rotarySpeeds(config: ModelConfig, divisors: Float32Array | undefined): Float64Array {
  const { ropeDim, ropeBase, ropeScale } = config;
  const speeds = new Float64Array(ropeDim / 2);
  for (let i = 0; i < speeds.length; i++)
    speeds[i] = ropeBase ** ((-2 * i) / ropeDim) / ropeScale / (divisors?.[i] ?? 1);
  return speeds;
}

/** Cosine and sine of the rotary angles of each position, as (positions, speeds, 2) into `turns`. */
export function rotaryTurns(speeds: Float64Array, positions: ArrayLike<number>, turns: Float32Array): void {
  const pairs = speeds.length;
  const ropeDim = 2 * pairs;
  for (let row = 0, end = 1; row < positions.length; row = end++) {
    for (let i = 0; i < pairs; i++) {
      const angle = positions[row] * speeds[i];
      turns[row * ropeDim + 2 * i] = Math.cos(angle);
      turns[row * ropeDim + 2 * i + 1] = Math.sin(angle);
    }
    // Samples of a step mostly share their position.
    while (end < positions.length && positions[end] === positions[row]) end++;
    for (let filled = 1; filled < end - row; filled *= 2) {
      const from = row * ropeDim;
      turns.copyWithin(from + filled * ropeDim, from, Math.min(from + filled * ropeDim, (end - filled) * ropeDim));
    }
  }
}

function describe(value: unknown): string {
  return value === undefined ? "missing" : typeof value === "string" ? `"${value}"` : String(value).slice(0, 80);
}
