// A model of a given shape with random weights on a GPU, a context in its cache, and steps of its forward.
// Everything runs through the backend's contract and model.ts, as in a real call. Knows nothing of tables or of times.

import { type Backend, type Batch, DRAWN, type Request } from "../../src/backend.ts";
import type { ModelConfig } from "../../src/config.ts";
import { fail } from "../../src/errors.ts";
import { GGML_TYPES } from "../../src/formats/gguf.ts";
import { createForward, type Row } from "../../src/model.ts";
import { NO_EDITS } from "../../src/sampler.ts";
import { createWebGpuBackend } from "../../src/webgpu/backend.ts";
import type { OpenedDevice } from "../../src/webgpu/device.ts";
import type { LayerWeights } from "../../src/weights.ts";

/** How the samples read the prompt: together, each by itself, as the backend chooses, or each from a copy of its own. */
export const PATHS = ["two-part", "one-part", "copies", "auto"] as const;
export type Path = (typeof PATHS)[number];

/** Types that random weights are made in. */
export const TYPES = ["F16", "BF16", "F32", "Q8_0", "Q4_0"] as const;
export type WeightType = (typeof TYPES)[number];

export interface BenchEngine {
  readonly backend: Backend;
  readonly weightBytes: number;
  /** Weights of all products of a step. */
  readonly weightCount: number;
  /** Bytes of K/V of one token, all layers. */
  readonly tokenBytes: number;
  readonly uploadMs: number;
  /** Prefills the context; milliseconds. */
  prefill(tokens: number): Promise<number>;
  /** A function that runs one decode step with one draw a sample, as calls do: it begins the next one, and waits for the candidates of its own. */
  step(context: number, n: number, decLen: number, path: Path): Promise<() => Promise<void>>;
}

const CHUNK = 8 << 20;

export async function createEngine(opened: OpenedDevice, config: ModelConfig, type: WeightType): Promise<BenchEngine> {
  const { dim, hiddenDim, headDim, nHeads, nKvHeads, nLayers, vocab } = config;
  const backend = await createWebGpuBackend(opened, config);
  const random = randomBlocks(type);
  // Pieces of one random buffer: what is in the weights does not matter, that they are read does. But each begins elsewhere, so that
  // no rows are alike: of many equal logits the best are found another way.
  const { blockBytes } = GGML_TYPES[type];
  let reads = 0;
  const read = async (length: number) => {
    const places = Math.floor((random.length - length) / blockBytes) + 1;
    const first = ((reads++ * 10007) % places) * blockBytes;
    return random.subarray(first, first + length);
  };
  let weightCount = 0;
  const began = performance.now();
  /** Weights of so many rows, side by side. */
  const weights = async (rows: readonly number[], cols: number) => {
    const made = await backend.weights(rows.map((rows) => ({ name: "random", type, rows, cols })));
    for (const weight of made) {
      await backend.upload(weight, read);
      weightCount += weight.rows * cols;
    }
    return made;
  };
  const norm = backend.vector(new Float32Array(dim).fill(1));
  const layers: LayerWeights[] = [];
  for (let layer = 0; layer < nLayers; layer++) {
    const [q, k, v] = await weights([nHeads * headDim, nKvHeads * headDim, nKvHeads * headDim], dim);
    const [o] = await weights([dim], nHeads * headDim);
    const [gate, up] = await weights([hiddenDim, hiddenDim], dim);
    const [down] = await weights([dim], hiddenDim);
    layers.push({ attnNorm: norm, q, k, v, o, ffnNorm: norm, gate, up, down });
  }
  const [output] = await weights([vocab], dim);
  await backend.finished();
  const uploadMs = performance.now() - began;
  const forward = createForward(backend, config, { embedding: output, layers, outputNorm: norm, output });

  const { blockTokens } = backend;
  const range = (first: number, count: number) => Uint32Array.from({ length: count }, (_, i) => first + i);
  const blocksOf = (tokens: number) => Math.ceil(tokens / blockTokens);

  return {
    backend,
    weightBytes: (weightCount * GGML_TYPES[type].blockBytes) / GGML_TYPES[type].blockElements,
    weightCount,
    tokenBytes: backend.blockBytes / blockTokens,
    uploadMs,
    async prefill(tokens) {
      await backend.reserveBlocks(blocksOf(tokens));
      const began = performance.now();
      for (let from = 0; from < tokens; from += backend.maxRows) {
        const rows = Array.from({ length: Math.min(backend.maxRows, tokens - from) }, (_, i) => ({
          id: (from + i) % vocab,
          position: from + i,
          block: Math.floor((from + i) / blockTokens),
          place: (from + i) % blockTokens,
        }));
        forward.prefill(rows, range(0, blocksOf(from + rows.length)), 0);
        await backend.finished();
      }
      return performance.now() - began;
    },
    async step(context, n, decLen, path) {
      if (n > backend.maxSamples) fail("option", `n is ${n}, expected at most ${backend.maxSamples} samples a step`);
      const shared = path === "copies" ? 0 : context;
      const length = decLen + context - shared;
      const first = blocksOf(shared);
      const each = blocksOf(length);
      await backend.reserveBlocks(first + n * each);
      const blocks = Array.from({ length: n }, (_, i) => range(first + i * each, each));
      const rows = blocks.map(
        (own, i): Row => ({
          id: i % vocab,
          position: context + decLen - 1,
          block: own[each - 1],
          place: (length - 1) % blockTokens,
        }),
      );
      const batchContext: Batch["context"] = { blocks: range(0, first), length: shared };
      const tails = { blocks, lengths: new Uint32Array(n).fill(length) };
      // A draw a sample, of the best token: where all tokens are about as likely, as here, most others would lie beyond the candidates.
      const requests = rows.map((): Request => ({ edits: NO_EDITS, inverseTemperature: 1, uniforms: [0] }));
      const followed = rows.map((row, i): Row => ({ ...row, id: DRAWN + i }));
      const begin = (rows: readonly Row[]) => {
        const chosen = path === "auto" ? backend.choosePath(n, context).path : path;
        const logits = forward.decode(rows, batchContext, tails, chosen === "two-part" ? "two-part" : "one-part");
        return backend.candidates(logits, requests, 64);
      };
      let found: Promise<unknown> | undefined; // of the step that is on its way
      return async () => {
        found ??= begin(rows);
        const ahead = begin(followed);
        ahead.catch(() => {}); // of the last one nobody hears
        await found;
        found = ahead;
      };
    },
  };
}

/** A buffer of blocks of this type whose weights are small numbers of about standard deviation 0.02. */
function randomBlocks(type: WeightType): Uint8Array {
  const { blockBytes } = GGML_TYPES[type];
  const bytes = new Uint8Array(CHUNK + blockBytes);
  let state = 12345;
  for (let i = 0; i < bytes.length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  const view = new DataView(bytes.buffer);
  if (type === "F16")
    for (let i = 0; i + 2 <= bytes.length; i += 2) bytes[i + 1] = 0x20 + (bytes[i + 1] & 0x87); // ± 0.008 … 0.03
  else if (type === "F32")
    for (let i = 0; i + 4 <= bytes.length; i += 4) view.setFloat32(i, (bytes[i] - 128) / 6000, true);
  else if (type === "BF16")
    for (let i = 0; i + 2 <= bytes.length; i += 2)
      view.setUint16(i, 0x3c00 | ((bytes[i + 1] & 0x80) << 8) | bytes[i], true);
  else if (type === "Q8_0") for (let i = 0; i + 2 <= bytes.length; i += blockBytes) view.setUint16(i, 0x0900, true);
  else for (let i = 0; i + 2 <= bytes.length; i += blockBytes) view.setUint16(i, 0x1c00, true);
  return bytes;
}
