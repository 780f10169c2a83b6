// Which tensor of a file plays which role in the forward, and their upload in the file's order.
// Knows names and shapes; nothing of formats' bytes or of kernels.

import type { Backend, ReadNext, Tensor, Weight } from "./backend.ts";
import type { ModelConfig } from "./config.ts";
import { fail } from "./errors.ts";
import type { TensorInfo } from "./formats/gguf.ts";

export interface LayerWeights {
  readonly attnNorm: Tensor;
  readonly q: Weight;
  readonly k: Weight;
  readonly v: Weight;
  readonly o: Weight;
  /** Biases of the four, in families that have them. */
  readonly qBias?: Tensor;
  readonly kBias?: Tensor;
  readonly vBias?: Tensor;
  readonly oBias?: Tensor;
  /** Norms of each head of q and k (headDim), in families that have them. */
  readonly qNorm?: Tensor;
  readonly kNorm?: Tensor;
  readonly ffnNorm: Tensor;
  readonly gate: Weight;
  readonly up: Weight;
  readonly down: Weight;
}

export interface Weights {
  readonly embedding: Weight;
  readonly layers: readonly LayerWeights[];
  readonly outputNorm: Tensor;
  /** The embedding again where the file ties them. */
  readonly output: Weight;
  /** Divisors of the rotary speeds (Llama 3's scaling), (ropeDim / 2). */
  readonly ropeDivisors?: Float32Array;
}

/** A tensor's place in the forward: its shape, and how it is kept. */
interface Role {
  readonly shape: readonly number[];
  readonly kept: "matrix" | "vector" | "host";
  readonly optional?: boolean;
}

/** Every tensor that the forward of this configuration uses, by its name in a GGUF. */
function roles(config: ModelConfig): Map<string, Role> {
  const { dim, hiddenDim, headDim, nHeads, nKvHeads, nLayers, vocab, ropeDim } = config;
  const matrix = (rows: number, cols: number): Role => ({ shape: [rows, cols], kept: "matrix" });
  const vector = (size: number): Role => ({ shape: [size], kept: "vector" });
  const norm = vector(dim);
  const optional = (role: Role): Role => ({ ...role, optional: true });
  const all = new Map<string, Role>([
    ["token_embd.weight", matrix(vocab, dim)],
    ["output_norm.weight", norm],
    ["output.weight", optional(matrix(vocab, dim))],
    ["rope_freqs.weight", { shape: [ropeDim / 2], kept: "host", optional: true }],
  ]);
  for (let layer = 0; layer < nLayers; layer++) {
    const name = (part: string) => `blk.${layer}.${part}.weight`;
    all.set(name("attn_norm"), norm);
    all.set(name("attn_q"), matrix(nHeads * headDim, dim));
    all.set(name("attn_k"), matrix(nKvHeads * headDim, dim));
    all.set(name("attn_v"), matrix(nKvHeads * headDim, dim));
    all.set(name("attn_output"), matrix(dim, nHeads * headDim));
    all.set(`blk.${layer}.attn_q.bias`, optional(vector(nHeads * headDim)));
    all.set(`blk.${layer}.attn_k.bias`, optional(vector(nKvHeads * headDim)));
    all.set(`blk.${layer}.attn_v.bias`, optional(vector(nKvHeads * headDim)));
    all.set(`blk.${layer}.attn_output.bias`, optional(vector(dim)));
    all.set(name("attn_q_norm"), optional(vector(headDim)));
    all.set(name("attn_k_norm"), optional(vector(headDim)));
    all.set(name("ffn_norm"), norm);
    all.set(name("ffn_gate"), matrix(hiddenDim, dim));
    all.set(name("ffn_up"), matrix(hiddenDim, dim));
    all.set(name("ffn_down"), matrix(dim, hiddenDim));
  }
  return all;
}

/**
 * Checks that the file has exactly the tensors of the configuration, of the right shapes and of types that the backend computes,
 * and returns the bytes that they will take there. Nothing is read or allocated. Errors: `format`, `unsupported`.
 */
export function checkWeights(config: ModelConfig, tensors: ReadonlyMap<string, TensorInfo>, backend: Backend): number {
  const wanted = roles(config);
  let bytes = 0;
  for (const [name, role] of wanted) {
    const tensor = tensors.get(name);
    if (!tensor) {
      if (role.optional) continue;
      fail("format", `tensor "${name}" is missing`);
    }
    if (tensor.shape.length !== role.shape.length || tensor.shape.some((size, i) => size !== role.shape[i])) {
      fail("format", `tensor "${name}" is ${tensor.shape.join(" × ")}, expected ${role.shape.join(" × ")}`);
    }
    if (role.kept === "matrix") {
      if (!backend.computes(tensor.type))
        fail("unsupported", `tensor "${name}" has type ${tensor.type}, which is not computed here`);
      bytes += backend.weightBytes(tensor.type, tensor.shape[0], tensor.shape[1]);
    } else {
      if (tensor.type !== "F32") fail("unsupported", `tensor "${name}" has type ${tensor.type}, expected F32`);
      bytes += tensor.byteLength;
    }
  }
  for (const name of tensors.keys()) {
    if (!wanted.has(name))
      fail("unsupported", `tensor "${name}" is not part of a ${config.architecture} model as computed here`);
  }
  return bytes;
}

/** Matrices of one layer whose products share their input. */
const SIDE_BY_SIDE = [
  ["attn_q", "attn_k", "attn_v"],
  ["ffn_gate", "ffn_up"],
];

/** All matrices of the file, in lists of those that lie side by side. */
function groups({ nLayers }: ModelConfig, matrices: readonly TensorInfo[]): TensorInfo[][] {
  const together = new Map<string, string>(); // name to the first of its list
  for (let layer = 0; layer < nLayers; layer++)
    for (const [first, ...others] of SIDE_BY_SIDE)
      for (const other of others) together.set(`blk.${layer}.${other}.weight`, `blk.${layer}.${first}.weight`);
  const lists = new Map<string, TensorInfo[]>();
  for (const tensor of matrices) {
    const first = together.get(tensor.name) ?? tensor.name;
    lists.set(first, [...(lists.get(first) ?? []), tensor]);
  }
  // As the operations name them: by role, not as they come in the file.
  const place = ({ name }: TensorInfo) => SIDE_BY_SIDE.flat().findIndex((role) => name.endsWith(`.${role}.weight`));
  return [...lists.values()].map((list) => list.sort((a, b) => place(a) - place(b)));
}

/**
 * Makes room for all matrices, and reads all tensors in the order of the file. readerOf gives the bytes of the tensor at hand, in
 * order; done hears of each. Errors: `format`, `memory`.
 */
export async function readWeights(
  config: ModelConfig,
  tensors: ReadonlyMap<string, TensorInfo>,
  backend: Backend,
  readerOf: (tensor: TensorInfo) => ReadNext,
  done: (tensor: TensorInfo) => void,
): Promise<Weights> {
  const wanted = roles(config);
  const inOrder = [...tensors.values()].sort((a, b) => a.offset - b.offset);
  const matrices = new Map<string, Weight>();
  for (const list of groups(
    config,
    inOrder.filter(({ name }) => wanted.get(name)?.kept === "matrix"),
  )) {
    const made = await backend.weights(list.map(({ name, type, shape: [rows, cols] }) => ({ name, type, rows, cols })));
    for (const weight of made) matrices.set(weight.name, weight);
  }
  const vectors = new Map<string, Tensor>();
  let ropeDivisors: Float32Array | undefined;
  for (const tensor of inOrder) {
    const { name } = tensor;
    const read = readerOf(tensor);
    const weight = matrices.get(name);
    if (weight) await backend.upload(weight, read);
    else {
      const values = toFloats(await read(tensor.byteLength), name);
      if (wanted.get(name)?.kept === "host") ropeDivisors = values;
      else vectors.set(name, backend.vector(values));
    }
    done(tensor);
  }
  const matrix = (name: string) => matrices.get(name) ?? fail("internal", `tensor "${name}" was not read`);
  const vector = (name: string) => vectors.get(name) ?? fail("internal", `tensor "${name}" was not read`);
  return {
    embedding: matrix("token_embd.weight"),
    layers: Array.from({ length: config.nLayers }, (_, layer) => ({
      attnNorm: vector(`blk.${layer}.attn_norm.weight`),
      q: matrix(`blk.${layer}.attn_q.weight`),
      k: matrix(`blk.${layer}.attn_k.weight`),
      v: matrix(`blk.${layer}.attn_v.weight`),
      o: matrix(`blk.${layer}.attn_output.weight`),
      qBias: vectors.get(`blk.${layer}.attn_q.bias`),
      kBias: vectors.get(`blk.${layer}.attn_k.bias`),
      vBias: vectors.get(`blk.${layer}.attn_v.bias`),
      oBias: vectors.get(`blk.${layer}.attn_output.bias`),
      qNorm: vectors.get(`blk.${layer}.attn_q_norm.weight`),
      kNorm: vectors.get(`blk.${layer}.attn_k_norm.weight`),
      ffnNorm: vector(`blk.${layer}.ffn_norm.weight`),
      gate: matrix(`blk.${layer}.ffn_gate.weight`),
      up: matrix(`blk.${layer}.ffn_up.weight`),
      down: matrix(`blk.${layer}.ffn_down.weight`),
    })),
    outputNorm: vector("output_norm.weight"),
    output: matrices.get("output.weight") ?? matrix("token_embd.weight"),
    ropeDivisors,
  };
}

/** Little-endian f32 numbers, all finite. */
function toFloats(bytes: Uint8Array, name: string): Float32Array {
  const values = new Float32Array(bytes.slice().buffer);
  const broken = values.findIndex((value) => !Number.isFinite(value));
  if (broken >= 0) fail("format", `tensor "${name}": number ${broken} is ${values[broken]}, expected a finite number`);
  return values;
}
