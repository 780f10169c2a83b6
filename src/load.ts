// From a source to a running engine: header, tokenizer, memory plan, weights. Knows the order of these steps and their progress;
// nothing of how any of them works.

import type { LoadOptions, ModelInfo, Source } from "./api.ts";
import type { ReadNext } from "./backend.ts";
import { createCache } from "./cache.ts";
import { type ChatTemplate, createChatTemplate } from "./chat.ts";
import { type ModelConfig, readConfig } from "./config.ts";
import { createCpuBackend, WASM_BYTES } from "./cpu/backend.ts";
import { fail } from "./errors.ts";
import { type Gguf, getCount, getString, readGguf, type TensorInfo } from "./formats/gguf.ts";
import type { Engine } from "./generate.ts";
import { createForward } from "./model.ts";
import { checkSignal, refuseUnknown, whole } from "./options.ts";
import { planMemory } from "./plan.ts";
import { createSampler } from "./sampler.ts";
import { type ByteSource, openSource } from "./source.ts";
import { createTokenizer, type ModelTokenizer, tokenizerDataFromGguf } from "./tokenizer.ts";
import { newCpuModule, newTextModule } from "./wasm.ts";
import { checkWeights, readWeights } from "./weights.ts";

const KNOWN: Record<keyof LoadOptions, true> = {
  backend: true,
  device: true,
  wasm: true,
  worker: true,
  workerUrl: true,
  contextLength: true,
  memoryLimit: true,
  onProgress: true,
  signal: true,
};

export interface Loaded {
  readonly engine: Engine;
  readonly info: ModelInfo;
  readonly chatTemplate?: ChatTemplate;
}

/** Loads a model. Nothing large is allocated before the plan says that it fits. Errors: any code but `device-lost`. */
export async function loadEngine(source: Source, options: LoadOptions = {}): Promise<Loaded> {
  refuseUnknown(options, KNOWN, "load");
  const { backend: wanted = "auto", signal, onProgress } = options;
  checkSignal(signal);
  if (!["auto", "webgpu", "wasm"].includes(wanted)) {
    fail("option", `backend is ${JSON.stringify(wanted)}, expected "auto", "webgpu" or "wasm"`);
  }
  if (wanted === "webgpu" || options.device)
    fail("unsupported", "WebGPU is not part of this version, expected backend wasm or auto");
  if (options.worker)
    fail("unsupported", "loading into a Web Worker is not part of this version: call load inside one");
  const limit = Math.min(whole(options.memoryLimit, "memoryLimit", 1) ?? WASM_BYTES, WASM_BYTES);
  const contextWanted = whole(options.contextLength, "contextLength", 1);

  const file = await openSource(source, { signal });
  try {
    const gguf = await readGguf(file, { signal });
    const config = readConfig(gguf);
    const contextLength = contextWanted ?? config.contextLength;
    if (contextLength > config.contextLength) {
      fail("option", `contextLength is ${contextLength}, but the model was made for at most ${config.contextLength}`);
    }
    const [text, cpu] = await Promise.all([newTextModule(options.wasm), newCpuModule(options.wasm)]);
    const tokenizer = readTokenizer(text, gguf, config.vocab);
    const chatTemplate = readChatTemplate(gguf, tokenizer);

    const backend = createCpuBackend(cpu, config, limit);
    const weightBytes = checkWeights(config, gguf.tensors, backend);
    const maxBlocks = planMemory(backend, weightBytes, limit);
    const tensors = [...gguf.tensors.values()];
    const total = Math.max(...tensors.map((tensor) => tensor.offset + tensor.byteLength));
    const reader = inOrder(file, gguf.dataOffset, total, signal, (loaded) =>
      onProgress?.({ loaded, total, phase: "download" }),
    );
    const weights = await readWeights(config, gguf.tensors, backend, reader);
    signal?.throwIfAborted();

    const engine: Engine = {
      text,
      config,
      backend,
      forward: createForward(backend, config, weights),
      cache: createCache(text, { blockTokens: backend.blockTokens, maxBlocks }),
      sampler: createSampler(text, config.vocab),
      tokenizer,
      contextLength,
      fallback: wanted === "auto" ? "WebGPU is not part of this version" : undefined,
      disposed: false,
    };
    return { engine, info: describe(config, tensors, contextLength), chatTemplate };
  } finally {
    file.close();
  }
}

function readTokenizer(text: Engine["text"], gguf: Gguf, vocab: number): ModelTokenizer {
  if (getCount(gguf.metadata, "split.count", 1) > 1) {
    fail(
      "unsupported",
      "GGUF: the model is split over several files, expected one: merge them first (gguf-split --merge)",
    );
  }
  const tokenizer = createTokenizer(text, tokenizerDataFromGguf(gguf.metadata));
  if (tokenizer.vocabSize > vocab) {
    fail("format", `GGUF: the tokenizer has ${tokenizer.vocabSize} tokens, but the embedding only ${vocab} rows`);
  }
  return tokenizer;
}

function readChatTemplate({ metadata }: Gguf, tokenizer: ModelTokenizer): ChatTemplate | undefined {
  const source = getString(metadata, "tokenizer.chat_template", undefined);
  if (source === undefined) return undefined;
  const variables: Record<string, string> = {};
  for (const name of ["bos", "eos", "unk", "pad"]) {
    const id = getCount(
      metadata,
      `tokenizer.ggml.${name === "unk" ? "unknown" : name === "pad" ? "padding" : name}_token_id`,
      undefined,
    );
    if (id !== undefined) variables[`${name}_token`] = tokenizer.tokenText(id);
  }
  return createChatTemplate(source, tokenizer.controlTexts, variables);
}

/**
 * The file's bytes from `start` to `end` as one pass: a reader for each tensor, asked for in the order of their offsets.
 * `progress` hears how far into the file the pass is.
 */
function inOrder(
  file: ByteSource,
  start: number,
  end: number,
  signal: AbortSignal | undefined,
  progress: (loaded: number) => void,
): (tensor: TensorInfo) => ReadNext {
  const chunks = file.stream(start, end - start, signal);
  let chunk: Uint8Array = new Uint8Array(0);
  let at = start; // of the chunk's first byte

  /** Passes `length` bytes on, in as many pieces as they come in. */
  async function pass(length: number, take: (bytes: Uint8Array) => void): Promise<void> {
    for (let left = length; left > 0; ) {
      if (chunk.length === 0) {
        const next = await chunks.next();
        if (next.done) fail("internal", `the source ended at byte ${at}, before its ${end}`);
        chunk = next.value;
        progress(at);
      }
      const piece = chunk.subarray(0, left);
      take(piece);
      chunk = chunk.subarray(piece.length);
      at += piece.length;
      left -= piece.length;
    }
    if (at === end) progress(end);
  }

  return ({ offset }) => {
    let begun = false;
    return async (length) => {
      if (!begun) await pass(offset - at, () => {});
      begun = true;
      // Straight from the chunk where it holds everything; else put together.
      if (chunk.length >= length) {
        let whole: Uint8Array = chunk;
        await pass(length, (bytes) => {
          whole = bytes;
        });
        return whole;
      }
      const whole = new Uint8Array(length);
      let filled = 0;
      await pass(length, (bytes) => {
        whole.set(bytes, filled);
        filled += bytes.length;
      });
      return whole;
    };
  };
}

function describe(config: ModelConfig, tensors: readonly TensorInfo[], contextLength: number): ModelInfo {
  const { name, architecture, dim, nLayers, nHeads, nKvHeads, headDim } = config;
  const sizes = tensors.map(({ shape }) => shape.reduce((product, size) => product * size, 1));
  const perType = new Map<string, number>();
  tensors.forEach(({ type }, i) => {
    perType.set(type, (perType.get(type) ?? 0) + sizes[i]);
  });
  const [[quantization]] = [...perType].sort((a, b) => b[1] - a[1]);
  return {
    name,
    architecture,
    parameters: sizes.reduce((sum, size) => sum + size, 0),
    quantization,
    contextLength,
    vocabSize: config.vocab,
    dim,
    nLayers,
    nHeads,
    nKvHeads,
    headDim,
  };
}
