// The public API: load, loadTokenizer, and the model that users hold. Turns prompts into ids, and lets calls run one after another.
// Knows what users may hand in; the work is generate.ts's.

import type {
  Chunk,
  GenerateOptions,
  LoadOptions,
  Message,
  Model,
  ModelInfo,
  Prefix,
  Prompt,
  Result,
  Source,
  Stream,
  Tokenizer,
} from "./api.ts";
import { type CallListener, type Calls, engineCalls, type Held } from "./calls.ts";
import type { ChatTemplate } from "./chat.ts";
import { fail, show } from "./errors.ts";
import { readGguf } from "./formats/gguf.ts";
import { checkLoadOptions, loadEngine } from "./load.ts";
import { checkSignal, refuseUnknown, resolveOptions, whole } from "./options.ts";
import { unlessAborted } from "./queue.ts";
import { rankChoices } from "./rank.ts";
import { openSource } from "./source.ts";
import { createTokenizer, type ModelTokenizer, tokenizerDataFromGguf, tokenizerDataFromJson } from "./tokenizer.ts";
import { newTextModule } from "./wasm.ts";
import { isOwnWorker, listenInWorker, loadInWorker, startWorker } from "./worker.ts";

export type * from "./api.ts";
export { type ErrorCode, FurcateError } from "./errors.ts";
export { openAIHandler } from "./openai.ts";

// In a worker that load has made of this very file, the model answers from here on; anywhere else nothing happens.
listenInWorker();

/** Loads a model from a GGUF file. Errors: see FurcateError; an abort rejects with signal.reason. */
export async function load(source: Source, options: LoadOptions = {}): Promise<Model> {
  checkLoadOptions(options);
  // A bundler may have put the page's own program into this file, and so into the worker: there it has come far enough.
  if (isOwnWorker()) return new Promise(() => {});
  const worker = options.worker ? await startWorker(options) : undefined;
  if (typeof worker === "object") return createModel(await loadInWorker(worker, source, options));
  const { engine, ...loaded } = await loadEngine(source, options);
  return createModel({ ...loaded, calls: engineCalls(engine), workerFallback: worker });
}

/** A tokenizer alone, without weights: from a GGUF (only its metadata is read) or a Hugging Face tokenizer.json. */
export async function loadTokenizer(
  source: Source,
  options: Pick<LoadOptions, "wasm" | "signal"> = {},
): Promise<Tokenizer> {
  refuseUnknown(options, { wasm: true, signal: true }, "loadTokenizer");
  const { signal, wasm } = options;
  checkSignal(signal);
  const file = await openSource(source, { signal });
  try {
    const isGguf = new TextDecoder().decode(await file.read(0, Math.min(4, file.size), signal)) === "GGUF";
    const data = isGguf
      ? tokenizerDataFromGguf((await readGguf(file, { signal })).metadata)
      : tokenizerDataFromJson(parse(await file.read(0, file.size, signal)));
    return createTokenizer(await newTextModule(wasm), data);
  } finally {
    file.close();
  }
}

function parse(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch (cause) {
    return fail("format", `the tokenizer is neither a GGUF nor JSON: ${(cause as Error).message}`, { cause });
  }
}

/** A model's parts, wherever it runs. */
interface Parts {
  readonly calls: Calls;
  readonly info: ModelInfo;
  readonly tokenizer: ModelTokenizer;
  readonly chatTemplate?: ChatTemplate;
  /** Why it is not in a worker that was asked for. */
  readonly workerFallback?: string;
}

function createModel({ calls, info, tokenizer, chatTemplate, workerFallback }: Parts): Model {
  function open(): void {
    if (calls.disposed) fail("disposed", "the model was disposed of");
  }

  function chat(messages: readonly Message[], options?: Parameters<Model["applyChatTemplate"]>[1]) {
    if (!chatTemplate) fail("unsupported", `the model "${info.name}" has no chat template: give it raw text`);
    return chatTemplate.render(messages, options);
  }

  function idsOf(prompt: Prompt): Uint32Array {
    if (typeof prompt === "string") return tokenizer.encode(prompt, { bos: true });
    if (isIds(prompt)) return checkIds(prompt);
    if (!Array.isArray(prompt))
      fail("option", `the prompt is ${describe(prompt)}, expected text, messages or token ids`);
    return tokenizer.encodeParts(chat(prompt));
  }

  function continuationIds(text: string | ArrayLike<number>): Uint32Array {
    if (typeof text === "string") return tokenizer.encode(text);
    if (!isIds(text)) fail("option", `the continuation is ${describe(text)}, expected text or token ids`);
    return checkIds(text);
  }

  async function run(
    ids: () => Uint32Array,
    options: GenerateOptions | undefined,
    listener?: CallListener,
    held?: Held,
  ): Promise<Result> {
    open();
    const call = resolveOptions(options, info.vocabSize);
    const result = await calls.generate(checkPrompt(info, ids()), call, listener, held);
    if (workerFallback) result.stats.workerFallback = workerFallback;
    // When its turn is over: a ranking may well ask the model something.
    if (call.rank) await unlessAborted(rankChoices(result.choices, call.rank, call.answer), call.signal);
    return result;
  }

  const model: Model = {
    info,
    get backend() {
      return calls.backend;
    },
    tokenizer,
    generate: (prompt, options) => run(() => idsOf(prompt), options),
    stream: (prompt, options = {}) =>
      createStream(options, (call, listener) => run(() => idsOf(prompt), call, listener)),
    async prefill(prompt, options = {}) {
      refuseUnknown(options, { signal: true }, "prefill");
      open();
      return keep(idsOf(prompt), options.signal);
    },
    async score(prompt, options = {}) {
      refuseUnknown(options, { logprobs: true, signal: true }, "score");
      const top = whole(options.logprobs, "logprobs", 0, info.vocabSize);
      checkSignal(options.signal);
      open();
      return calls.score(checkPrompt(info, idsOf(prompt)), top, options.signal);
    },
    applyChatTemplate(messages, options = {}) {
      refuseUnknown(options, { addGenerationPrompt: true, tools: true }, "applyChatTemplate");
      open();
      return chat(messages, options)
        .map((part) => part.text)
        .join("");
    },
    dispose: () => calls.dispose(),
  };
  return model;

  /** Prefills ids and keeps them: a prefix that others continue. */
  async function keep(ids: Uint32Array, signal: AbortSignal | undefined): Promise<Prefix> {
    checkSignal(signal);
    const held = await calls.hold(checkPrompt(info, ids), signal);
    let disposed = false;
    const joined = (continuation: string | ArrayLike<number>): Uint32Array => {
      if (disposed) fail("disposed", "the prefix was disposed of");
      const more = continuationIds(continuation);
      const all = new Uint32Array(ids.length + more.length);
      all.set(ids);
      all.set(more, ids.length);
      return all;
    };
    const prefix: Prefix = {
      tokenIds: ids.slice(),
      generate: (continuation, options) => run(() => joined(continuation), options, undefined, held),
      stream: (continuation, options = {}) =>
        createStream(options, (call, listener) => run(() => joined(continuation), call, listener, held)),
      async fork(continuation, options = {}) {
        refuseUnknown(options, { signal: true }, "fork");
        open();
        return keep(joined(continuation), options.signal);
      },
      dispose() {
        if (disposed) return;
        disposed = true;
        held.release();
      },
      [Symbol.dispose ?? Symbol.for("Symbol.dispose")]() {
        prefix.dispose();
      },
    };
    return prefix;
  }
}

/** Refuses at once what cannot be computed, whoever is before it in the queue. Errors: `option`, `context-length`. */
function checkPrompt({ vocabSize, contextLength }: ModelInfo, ids: Uint32Array): Uint32Array {
  if (ids.length === 0) fail("option", "the prompt is empty: expected at least one token");
  if (ids.length > contextLength)
    fail("context-length", `the prompt has ${ids.length} tokens, but the context holds ${contextLength}`);
  const unknown = ids.findIndex((id) => id >= vocabSize);
  if (unknown >= 0) fail("option", `prompt[${unknown}] is token ${ids[unknown]}, expected ids below ${vocabSize}`);
  return ids;
}

/** Token ids, checked to be whole numbers in range of u32. */
function checkIds(ids: ArrayLike<number>): Uint32Array {
  for (let i = 0; i < ids.length; i++) {
    if (!Number.isInteger(ids[i]) || ids[i] < 0 || ids[i] > 0xffff_ffff) {
      fail("option", `token id ${i} is ${show(ids[i])}, expected a whole number from 0 up`);
    }
  }
  return Uint32Array.from(ids);
}

/** Whether a prompt is an array, typed array or the like, of numbers; a list of messages is not. */
function isIds(prompt: unknown): prompt is ArrayLike<number> {
  if (typeof prompt !== "object" || prompt === null) return false;
  const { length, 0: first } = prompt as ArrayLike<unknown>;
  return typeof length === "number" && typeof first !== "object";
}

const describe = (value: unknown) => (value === null ? "null" : typeof value);

/** A stream over a call that starts at once. Leaving the loop early aborts the call. */
function createStream(
  options: GenerateOptions,
  start: (options: GenerateOptions, listener: CallListener) => Promise<Result>,
): Stream {
  const left = new AbortController();
  const stopped = new Set<number>();
  const chunks: Chunk[] = [];
  let wake = () => {};
  let ended = false;
  const signal = options?.signal instanceof AbortSignal ? AbortSignal.any([options.signal, left.signal]) : left.signal;
  const listener: CallListener = {
    emit(chunk) {
      chunks.push(chunk);
      wake();
    },
    isStopped: (index) => stopped.has(index),
  };
  // Wrong options reject here like everything else, and reach whoever reads the stream or its result.
  const result = start(
    options?.signal === undefined || options.signal instanceof AbortSignal ? { ...options, signal } : options,
    listener,
  );
  const over = result
    .then(
      () => {},
      () => {},
    )
    .then(() => {
      ended = true;
      wake();
    });

  function leave(): void {
    if (!ended) left.abort(new DOMException("The stream was left before its end", "AbortError"));
  }

  async function* read(): AsyncGenerator<Chunk, void, undefined> {
    try {
      for (;;) {
        const chunk = chunks.shift();
        if (chunk) yield chunk;
        else if (ended) break;
        else {
          await new Promise<void>((resolve) => {
            wake = resolve;
            if (chunks.length > 0 || ended) resolve();
          });
        }
      }
      await result;
    } finally {
      leave();
      await over;
    }
  }
  const chunked = read();
  const iterator: AsyncIterator<Chunk> = {
    next: () => chunked.next(),
    // Also before the first chunk was asked for, when the generator's own finally does not run.
    return() {
      leave();
      return chunked.return();
    },
  };
  return {
    [Symbol.asyncIterator]: () => iterator,
    stop(index) {
      stopped.add(index);
      listener.onStop?.(index);
    },
    result,
  };
}
