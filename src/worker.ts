// A model in a Web Worker: the worker is made of this very bundle, loads and computes; here stay the tokenizer, the chat template,
// and everything that takes functions. Both ends of the line are in this file.
// Knows messages; nothing of what calls mean.

import type { Choice, Chunk, LoadOptions, Result, Score, Source } from "./api.ts";
import { type CallListener, type Calls, engineCalls, type Held } from "./calls.ts";
import { type ErrorCode, FurcateError, fail } from "./errors.ts";
import { type Header, loadEngine, readHeader } from "./load.ts";
import type { CallOptions } from "./options.ts";
import { nextTask, unlessAborted } from "./queue.ts";
import { portableSource } from "./source.ts";

/** A worker of this name listens; no other does, whoever imports the bundle there. */
const NAME = "furcate: a model of its own";
/** How long the bundle may take to arrive in the worker. */
const START_MS = 20_000;

/** What is asked: each request has a number of its own, which answers repeat. */
type Request = { readonly id: number } & (
  | { readonly do: "load"; readonly source: Source; readonly options: LoadOptions }
  | { readonly do: "generate"; ids: Uint32Array; call: CallOptions; streams: boolean; held?: number }
  | { readonly do: "score"; ids: Uint32Array; top: number | undefined }
  | { readonly do: "hold"; ids: Uint32Array }
  // Of requests before:
  | { readonly do: "stop"; index: Choice["index"] }
  | { readonly do: "abort" }
  | { readonly do: "release" }
);
/** A request without its number. */
type Ask = Request extends infer R ? (R extends Request ? Omit<R, "id"> : never) : never;

/** News of a request, and in the end its result or error. */
interface Answer {
  readonly id: number;
  readonly news?: News;
  readonly result?: unknown;
  readonly error?: { readonly code: ErrorCode; readonly message: string } | { readonly thrown: unknown };
}
interface News {
  readonly chunks?: readonly Chunk[];
  readonly progress?: Parameters<NonNullable<LoadOptions["onProgress"]>>[0];
  readonly header?: { readonly bytes: Uint8Array; readonly size: number };
}

/** A worker that listens, or why there can be none. An abort rejects with signal.reason. */
export async function startWorker({ device, workerUrl, signal }: LoadOptions): Promise<Worker | string> {
  signal?.throwIfAborted();
  if (device) return "the device that was given belongs to this thread";
  if (typeof Worker === "undefined") return "this runtime has no Web Workers";
  let worker: Worker;
  try {
    const page = (globalThis as { location?: Location }).location;
    const url = new URL(workerUrl ?? import.meta.url, page?.href);
    if (page && url.origin !== page.origin)
      return `a worker must come from ${page.origin}, but the bundle lies at ${url.origin}: serve it beside the page, or set workerUrl`;
    worker = new Worker(url, { type: "module", name: NAME });
  } catch (error) {
    return `the worker could not be made: ${(error as Error).message}`;
  }
  let timer: ReturnType<typeof setTimeout> | undefined;
  const started = new Promise<Worker | string>((resolve) => {
    const hint = "set workerUrl to where furcate.js lies";
    timer = setTimeout(() => resolve(`the worker did not answer within ${START_MS / 1000} seconds: ${hint}`), START_MS);
    worker.onmessage = () => resolve(worker);
    worker.onerror = (event) => {
      event.preventDefault();
      resolve(`the worker did not start${event.message ? ` (${event.message})` : ""}: ${hint}`);
    };
  });
  const outcome = await unlessAborted(started, signal)
    .catch((reason) => {
      worker.terminate();
      throw reason;
    })
    .finally(() => clearTimeout(timer));
  if (typeof outcome === "string") worker.terminate();
  return outcome;
}

/** Loads a model into a worker that listens. Errors: as loadEngine; then the worker ends. */
export async function loadInWorker(worker: Worker, source: Source, options: LoadOptions) {
  const { signal, onProgress, worker: _, workerUrl: __, ...rest } = options;
  const line = openLine(worker);
  try {
    let reading: Promise<Header> | undefined;
    const backend = await line.ask<Calls["backend"]>(
      { do: "load", source: portableSource(source), options: rest },
      signal,
      ({ progress, header }) => {
        if (progress) onProgress?.(progress);
        if (!header) return;
        const { bytes, size } = header;
        const read = async (offset: number, length: number) => bytes.subarray(offset, offset + length);
        reading = readHeader({ name: "the header", size, read } as Parameters<typeof readHeader>[0], rest);
        // If it fails, load does when it comes to it.
        reading.catch(() => {});
      },
    );
    const { info, tokenizer, chatTemplate } = await (reading as Promise<Header>);
    return { calls: remoteCalls(line, backend), info, tokenizer, chatTemplate };
  } catch (error) {
    line.close(error);
    throw error;
  }
}

type Line = ReturnType<typeof openLine>;

/** This thread's end of the line to a worker. */
function openLine(worker: Worker) {
  interface Open {
    settle(answer: Answer): void;
    hear?: (news: News) => void;
  }
  const open = new Map<number, Open>();
  let last = 0;
  let closed: { readonly error: unknown } | undefined;

  function close(error: unknown): void {
    if (closed) return;
    closed = { error };
    worker.terminate();
    for (const [id, { settle }] of open) settle({ id, error: { thrown: error } });
    open.clear();
  }
  const broken = (why: string) => close(new FurcateError("internal", `the worker ended: ${why}; load the model again`));
  worker.onerror = (event) => {
    event.preventDefault();
    broken(event.message || "no reason is known");
  };
  worker.onmessageerror = () => broken("a message could not be read");
  worker.onmessage = ({ data }: MessageEvent<Answer>) => {
    const call = open.get(data.id);
    if (!call) return;
    if (!data.news) {
      open.delete(data.id);
      call.settle(data);
      return;
    }
    try {
      call.hear?.(data.news);
    } catch (thrown) {
      // What a listener throws ends its call.
      open.delete(data.id);
      post({ id: data.id, do: "abort" });
      call.settle({ id: data.id, error: { thrown } });
    }
  };

  function post(request: Request): void {
    if (!closed) worker.postMessage(request);
  }

  return {
    close,
    /** The number of a request to come. */
    take: () => ++last,
    post,
    async ask<T>(request: Ask, signal: AbortSignal | undefined, hear?: (news: News) => void, id = ++last): Promise<T> {
      signal?.throwIfAborted();
      if (closed) throw closed.error;
      const answer = new Promise<T>((resolve, reject) => {
        const settle = ({ result, error }: Answer) => (error ? reject(toError(error)) : resolve(result as T));
        open.set(id, { settle, hear });
      });
      try {
        post({ ...request, id } as Request);
      } catch (cause) {
        open.delete(id);
        fail("option", `an option cannot be sent to the worker: ${(cause as Error).message}`, { cause });
      }
      const abort = () => {
        open.delete(id);
        post({ id, do: "abort" });
      };
      return unlessAborted(answer, signal, abort);
    },
  };
}

function toError(error: NonNullable<Answer["error"]>): unknown {
  return "thrown" in error ? error.thrown : new FurcateError(error.code, error.message);
}

/** The calls of a model at the line's other end. */
function remoteCalls(line: Line, backend: Calls["backend"]): Calls {
  let disposed = false;
  const numbers = new WeakMap<Held, number>();
  return {
    backend,
    get disposed() {
      return disposed;
    },
    generate(ids, call, listener, held) {
      // Functions stay: ranking is done here.
      const { rank: _, answer: __, signal, ...rest } = call;
      const id = line.take();
      if (listener) listener.onStop = (index) => line.post({ id, do: "stop", index });
      const request: Ask = {
        do: "generate",
        ids,
        call: rest as CallOptions,
        streams: listener !== undefined,
        held: held && numbers.get(held),
      };
      const hear = ({ chunks }: News) => {
        for (const chunk of chunks ?? []) listener?.emit(chunk);
      };
      return line.ask<Result>(request, signal, hear, id);
    },
    score: (ids, top, signal) => line.ask<Score>({ do: "score", ids, top }, signal),
    async hold(ids, signal) {
      const id = line.take();
      await line.ask({ do: "hold", ids }, signal, undefined, id);
      const held: Held = { release: () => line.post({ id, do: "release" }) };
      numbers.set(held, id);
      return held;
    },
    dispose() {
      disposed = true;
      line.close(new FurcateError("disposed", "the model was disposed of while it ran"));
    },
  };
}

// ---------------------------------------------------------------------------------------------- in the worker

/** Whether this is a worker that startWorker made. A page may bear any name, so the name alone is not enough. */
export const isOwnWorker = (): boolean =>
  "DedicatedWorkerGlobalScope" in globalThis && (globalThis as unknown as WorkerScope).name === NAME;

/** Answers requests, if this is a worker that startWorker made. */
export function listenInWorker(): void {
  if (!isOwnWorker()) return;
  const scope = globalThis as unknown as WorkerScope;
  let calls: Calls;
  const aborts = new Map<number, AbortController>();
  const listeners = new Map<number, CallListener & { stopped: Set<number> }>();
  const held = new Map<number, Held>();
  const tell = (id: number, news: News) => scope.postMessage({ id, news } satisfies Answer);

  async function answer(request: Request, signal: AbortSignal): Promise<unknown> {
    const { id } = request;
    switch (request.do) {
      case "load": {
        const onProgress: LoadOptions["onProgress"] = (progress) => tell(id, { progress });
        const onHeader = (bytes: Uint8Array, size: number) => tell(id, { header: { bytes: bytes.slice(), size } });
        const { engine } = await loadEngine(request.source, { ...request.options, onProgress, signal }, onHeader);
        calls = engineCalls(engine);
        return calls.backend;
      }
      case "generate": {
        const listener = request.streams ? newListener(id) : undefined;
        const prefix = request.held === undefined ? undefined : held.get(request.held);
        const result = await calls.generate(request.ids, { ...request.call, signal }, listener, prefix);
        listener?.flush();
        return result;
      }
      case "score":
        return calls.score(request.ids, request.top, signal);
      case "hold":
        held.set(id, await calls.hold(request.ids, signal));
        return undefined;
    }
  }

  /** Collects the chunks of a step, and sends them as one message. */
  function newListener(id: number) {
    let chunks: Chunk[] = [];
    const stopped = new Set<number>();
    const listener = {
      stopped,
      isStopped: (index: number) => stopped.has(index),
      emit(chunk: Chunk) {
        if (chunks.push(chunk) === 1) nextTask().then(listener.flush);
      },
      flush() {
        if (chunks.length > 0) tell(id, { chunks });
        chunks = [];
      },
    };
    listeners.set(id, listener);
    return listener;
  }

  scope.onmessage = async ({ data: request }: MessageEvent<Request>) => {
    const { id } = request;
    if (request.do === "stop") listeners.get(id)?.stopped.add(request.index);
    else if (request.do === "abort" || request.do === "release") {
      aborts.get(id)?.abort();
      // Who aborts has not heard that the K/V are held.
      held.get(id)?.release();
      held.delete(id);
    } else {
      const abort = new AbortController();
      aborts.set(id, abort);
      let outcome: Answer;
      try {
        outcome = { id, result: await answer(request, abort.signal) };
      } catch (error) {
        const { code, message } = error as FurcateError;
        outcome = { id, error: error instanceof FurcateError ? { code, message } : { thrown: portable(error) } };
      }
      aborts.delete(id);
      listeners.delete(id);
      scope.postMessage(outcome);
    }
  };
  scope.postMessage("listening");
}

/** What a worker's globals are here; the DOM types know pages only. */
interface WorkerScope {
  readonly name: string;
  onmessage: (event: MessageEvent<Request>) => void;
  postMessage(message: unknown): void;
}

/** An error as a message can carry it. */
function portable(error: unknown): unknown {
  try {
    return structuredClone(error);
  } catch {
    return new Error(String(error));
  }
}
