// From a source to a running engine: header, tokenizer, backend, memory plan, weights; and again after a GPU was lost.
// Knows the order of these steps and their progress; nothing of how any of them works.

import type { LoadOptions, ModelInfo, Source } from "./api.ts";
import type { Backend, ReadNext } from "./backend.ts";
import { createCache } from "./cache.ts";
import { type ChatTemplate, createChatTemplate } from "./chat.ts";
import { type ModelConfig, readConfig } from "./config.ts";
import { createCpuBackend, WASM_BYTES } from "./cpu/backend.ts";
import type { Device, Engine } from "./engine.ts";
import { FurcateError, fail, show } from "./errors.ts";
import { type Gguf, getCount, getString, readGguf, type TensorInfo } from "./formats/gguf.ts";
import { createForward } from "./model.ts";
import { checkSignal, refuseUnknown, whole } from "./options.ts";
import { planMemory } from "./plan.ts";
import { createSampler } from "./sampler.ts";
import { type ByteSource, openSource } from "./source.ts";
import { createTokenizer, type ModelTokenizer, type TokenizerData, tokenizerDataFromGguf } from "./tokenizer.ts";
import { checkModules, newCpuModule, newTextModule } from "./wasm.ts";
import { createWebGpuBackend } from "./webgpu/backend.ts";
import { type OpenedDevice, openDevice, useDevice } from "./webgpu/device.ts";
import { checkWeights, readWeights } from "./weights.ts";

const KNOWN: Record<keyof LoadOptions, true> = {
  backend: true,
  device: true,
  wasm: true,
  worker: true,
  workerUrl: true,
  cache: true,
  contextLength: true,
  memoryLimit: true,
  onProgress: true,
  signal: true,
};

/** What a file says before its weights. */
export interface Header {
  readonly gguf: Gguf;
  readonly config: ModelConfig;
  readonly info: ModelInfo;
  readonly text: Engine["text"];
  readonly tokenizer: ModelTokenizer;
  readonly chatTemplate?: ChatTemplate;
}

export interface Loaded extends Pick<Header, "info" | "tokenizer" | "chatTemplate"> {
  readonly engine: Engine;
}

/** Refuses options that load cannot take. Errors: `option`. */
export function checkLoadOptions(options: LoadOptions): void {
  refuseUnknown(options, KNOWN, "load");
  const { backend = "auto", cache = true, worker = false } = options;
  checkSignal(options.signal);
  if (!["auto", "webgpu", "wasm"].includes(backend)) {
    fail("option", `backend is ${show(backend)}, expected "auto", "webgpu" or "wasm"`);
  }
  if (options.device && backend === "wasm")
    fail("option", "backend is wasm, but a device is given: expected one of them");
  for (const [name, value] of Object.entries({ cache, worker }))
    if (typeof value !== "boolean") fail("option", `${name} is ${show(value)}, expected true or false`);
  if (options.onProgress !== undefined && typeof options.onProgress !== "function")
    fail("option", `onProgress is ${show(options.onProgress)}, expected a function`);
  if (options.wasm !== undefined) checkModules(options.wasm);
  whole(options.memoryLimit, "memoryLimit", 1);
  whole(options.contextLength, "contextLength", 1);
}

/**
 * Loads a model into this thread, with options that were checked. Nothing large is allocated before the plan says that it fits.
 * `onHeader` hears the file's first bytes, those before the weights, and the size of all. Errors: any code but `device-lost`.
 */
export async function loadEngine(
  source: Source,
  options: LoadOptions = {},
  onHeader?: (bytes: Uint8Array, size: number) => void,
): Promise<Loaded> {
  const { signal, cache = true } = options;
  const file = await openSource(source, { signal, cache });
  try {
    const header = await readHeader(file, options);
    const { gguf, config, info, text, tokenizer, chatTemplate } = header;
    onHeader?.(await file.read(0, gguf.dataOffset, signal), file.size);
    const bytes = [...gguf.tensors.values()].map(endOf).reduce((a, b) => Math.max(a, b));
    const model: ModelFile = { gguf, config, text, bytes };

    const engine: Engine = {
      text,
      config,
      ...(await openBackend(model, file, source, options)),
      sampler: createSampler(text, config.vocab),
      tokenizer,
      contextLength: info.contextLength,
      disposed: false,
    };
    if (engine.backend.kind === "webgpu") engine.renew = renewal(engine, model, source, options);
    return { engine, info, tokenizer, chatTemplate };
  } finally {
    file.close();
  }
}

/** Reads a file up to its weights. Errors: `format`, `unsupported`, `option`, `network`, `memory`. */
export async function readHeader(
  file: ByteSource,
  { signal, contextLength: wanted, wasm }: LoadOptions,
): Promise<Header> {
  const gguf = await readGguf(file, { signal });
  if (getCount(gguf.metadata, "split.count", 1) > 1) {
    fail(
      "unsupported",
      "GGUF: the model is split over several files, expected one: merge them first (gguf-split --merge)",
    );
  }
  const config = readConfig(gguf);
  const contextLength = wanted ?? config.contextLength;
  if (contextLength > config.contextLength) {
    fail("option", `contextLength is ${contextLength}, but the model was made for at most ${config.contextLength}`);
  }
  const text = await newTextModule(wasm);
  const data = tokenizerDataFromGguf(gguf.metadata);
  const tokenizer = readTokenizer(text, data, config.vocab);
  const chatTemplate = readChatTemplate(gguf, data, tokenizer);
  return {
    gguf,
    config,
    info: describe(config, [...gguf.tensors.values()], contextLength),
    text,
    tokenizer,
    chatTemplate,
  };
}

const endOf = (tensor: TensorInfo) => tensor.offset + tensor.byteLength;

/** What was read of a model's file, and what does not depend on where it runs. */
interface ModelFile {
  readonly gguf: Gguf;
  readonly config: ModelConfig;
  readonly text: Engine["text"];
  /** Where the last tensor ends. */
  readonly bytes: number;
}

/** The backend that the options ask for, with the weights in it; where they leave it open, WebAssembly with the reason why. */
async function openBackend(model: ModelFile, file: ByteSource, source: Source, options: LoadOptions): Promise<Device> {
  const { backend: wanted = "auto", device } = options;
  const limit = Math.min(options.memoryLimit ?? WASM_BYTES, WASM_BYTES);
  const onCpu = async (file: ByteSource, fallback?: string): Promise<Device> => {
    const backend = createCpuBackend(await newCpuModule(options.wasm), model.config, limit);
    return { ...(await fill(model, file, backend, limit, options)), fallback };
  };
  if (wanted === "wasm") return onCpu(file);
  const opened = device ? useDevice(device) : await openDevice(wanted === "webgpu");
  if ("reason" in opened) {
    if (wanted === "webgpu") fail("unsupported", `backend is webgpu, but ${opened.reason}`);
    return onCpu(file, opened.reason);
  }
  try {
    return await onGpu(model, file, opened, options);
  } catch (error) {
    // What the GPU cannot hold or compute, WebAssembly may; what is wrong with the file or was aborted stays wrong.
    const mayHelp =
      error instanceof FurcateError && ["memory", "unsupported", "internal", "device-lost"].includes(error.code);
    if (wanted === "webgpu" || device || !mayHelp) throw error;
    const again = await openSource(source, { signal: options.signal, cache: options.cache ?? true });
    try {
      return await onCpu(again, `${opened.name}: ${error.message}`);
    } finally {
      again.close();
    }
  }
}

async function onGpu(model: ModelFile, file: ByteSource, opened: OpenedDevice, options: LoadOptions): Promise<Device> {
  const limit = options.memoryLimit ?? Infinity;
  const backend = await createWebGpuBackend(opened, model.config, limit);
  return fill(model, file, backend, limit, options);
}

/** Plans the memory, and reads the weights in one pass over the file. */
async function fill(
  { gguf, config, text, bytes }: ModelFile,
  file: ByteSource,
  backend: Backend,
  limit: number,
  { signal, onProgress }: LoadOptions,
): Promise<Device> {
  try {
    const weightBytes = checkWeights(config, gguf.tensors, backend);
    const maxBlocks = planMemory(backend, weightBytes, limit);
    const report = (phase: "download" | "upload") => (loaded: number) => onProgress?.({ loaded, total: bytes, phase });
    const reader = inOrder(file, gguf.dataOffset, bytes, signal, report("download"));
    // Only a GPU has anything to upload to.
    const uploaded = backend.kind === "webgpu" ? report("upload") : () => {};
    const weights = await readWeights(config, gguf.tensors, backend, reader, (tensor) => uploaded(endOf(tensor)));
    const forward = createForward(backend, config, weights);
    await backend.finished();
    signal?.throwIfAborted();
    return { backend, forward, cache: createCache(text, { blockTokens: backend.blockTokens, maxBlocks }) };
  } catch (error) {
    backend.dispose();
    throw error;
  }
}

/** Bytes are the caller's, and are held no longer than the caller keeps them; all else can be held. */
const reference = (source: Source): (() => Source | undefined) =>
  source instanceof ArrayBuffer || ArrayBuffer.isView(source) ? weakly(source) : strongly(source);

const strongly = (source: Source) => () => source;
/** Of its own, since functions made in one place hold all that any of them uses. */
function weakly<T extends object>(source: T): () => T | undefined {
  const weak = new WeakRef(source);
  return () => weak.deref();
}

/** What the next call after a lost device does first: a new device with the weights read again. Prefixes prefill from their ids. */
function renewal(engine: Engine, model: ModelFile, source: Source, options: LoadOptions): () => Promise<void> {
  const sourceAgain = reference(source);
  return async () => {
    const lost = (why: string): never =>
      fail("device-lost", `the GPU device was lost, and no other can take over: ${why}`);
    if (options.device) lost("it was the one given to load; load the model again with a new one");
    const again = sourceAgain() ?? lost("the model's bytes were given as a buffer that is gone; load it again");
    const opened = await openDevice(options.backend === "webgpu");
    if ("reason" in opened) return lost(opened.reason);
    const file = await openSource(again, { cache: options.cache ?? true }).catch((error) =>
      lost(`its source cannot be read twice: ${error.message}`),
    );
    try {
      const made = await onGpu(model, file, opened, { memoryLimit: options.memoryLimit });
      if (engine.disposed) {
        made.backend.dispose();
        fail("disposed", "the model was disposed of while a new GPU device took over");
      }
      Object.assign(engine, made);
    } finally {
      file.close();
    }
  };
}

function readTokenizer(text: Engine["text"], data: TokenizerData, vocab: number): ModelTokenizer {
  const tokenizer = createTokenizer(text, data);
  if (tokenizer.vocabSize > vocab) {
    fail("format", `GGUF: the tokenizer has ${tokenizer.vocabSize} tokens, but the embedding only ${vocab} rows`);
  }
  return tokenizer;
}

/** A template that cannot be parsed is an error where messages are used: the model still takes text and ids. */
function readChatTemplate(
  { metadata }: Gguf,
  data: TokenizerData,
  tokenizer: ModelTokenizer,
): ChatTemplate | undefined {
  const source = getString(metadata, "tokenizer.chat_template", undefined);
  if (source === undefined) return undefined;
  const variables: Record<string, string> = {};
  const given = (name: string) => getCount(metadata, `tokenizer.ggml.${name}_token_id`, undefined);
  const ids = {
    bos_token: data.bosId,
    eos_token: given("eos") ?? data.eosIds[0],
    unk_token: given("unknown") ?? data.unknownId,
    pad_token: given("padding"),
  };
  for (const [name, id] of Object.entries(ids)) if (id !== undefined) variables[name] = tokenizer.tokenText(id);
  try {
    return createChatTemplate(source, tokenizer.controlTexts, variables);
  } catch (error) {
    return {
      render() {
        throw error;
      },
    };
  }
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
