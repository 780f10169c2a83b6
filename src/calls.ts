// What a model is asked to do with ids, and how an engine in this thread does it: each call in its turn, on a device that works.
// The same interface stands before an engine in a worker. Ids are those of prompts that were checked. Knows nothing of prompts as
// text.

import type { Choice, Result, Score } from "./api.ts";
import type { Cache, Path } from "./cache.ts";
import type { Engine } from "./engine.ts";
import { fail } from "./errors.ts";
import { generate, type Listener } from "./generate.ts";
import type { CallOptions } from "./options.ts";
import { prefill, score, trim } from "./prefill.ts";
import { createQueue, type Steps, settled } from "./queue.ts";

/** Errors are FurcateErrors; an abort rejects with signal.reason. */
export interface Calls {
  readonly backend: "webgpu" | "wasm";
  readonly disposed: boolean;
  /** Choices in the order of their index, not ranked. `held`: what the ids begin with, held to be there. */
  generate(ids: Uint32Array, call: CallOptions, listener?: CallListener, held?: Held): Promise<Result>;
  score(ids: Uint32Array, top: number | undefined, signal: AbortSignal | undefined): Promise<Score>;
  /** Prefills ids, and keeps their K/V until they are released. */
  hold(ids: Uint32Array, signal: AbortSignal | undefined): Promise<Held>;
  dispose(): void;
}

export interface CallListener extends Listener {
  /** Hears of each choice that is stopped; whoever runs the call may set it. */
  onStop?: (index: Choice["index"]) => void;
}

export interface Held {
  release(): void;
}

/** K/V that an engine in this thread holds. */
interface HeldHere extends Held {
  /** Makes sure, in a call's turn, that the K/V are there. */
  renew(engine: Engine, signal: AbortSignal | undefined): Steps<void>;
}

/** The calls of an engine in this thread. */
export function engineCalls(loaded: Engine): Calls {
  const queue = createQueue();
  const backend = loaded.backend.kind;
  /** Nothing once the model is disposed of: what it held is gone when its last call is. */
  let engine: Engine | undefined = loaded;

  /** Runs in its turn, on a device that works. */
  const inTurn = <T>(signal: AbortSignal | undefined, work: (engine: Engine) => Steps<T>): Promise<T> =>
    queue(signal, function* () {
      const here = open();
      if (here.backend.lost && here.renew) yield* settled(here.renew());
      return yield* work(open());
    });

  const open = (): Engine => engine ?? fail("disposed", "the model was disposed of");

  function newHeld(ids: Uint32Array): HeldHere {
    let cache: Cache; // that holds the path: another one after a lost device
    let path: Path | undefined;
    let released = false;
    return {
      *renew(engine, signal) {
        if (cache === engine.cache) return;
        const acquired = engine.cache.acquire(ids);
        try {
          yield* prefill(engine, acquired, ids, signal, 0);
          signal?.throwIfAborted();
          [cache, path] = [engine.cache, acquired];
        } finally {
          if (path !== acquired) {
            acquired.release();
            trim(engine);
          }
        }
        if (released) acquired.release();
      },
      release() {
        if (released) return;
        released = true;
        path?.release();
        if (engine) trim(engine);
      },
    };
  }

  return {
    backend,
    get disposed() {
      return engine === undefined;
    },
    generate: (ids, call, listener, held) =>
      inTurn(call.signal, function* (engine) {
        if (held) yield* (held as HeldHere).renew(engine, call.signal);
        return yield* generate(engine, ids, call, listener);
      }),
    score: (ids, top, signal) => inTurn(signal, (engine) => score(engine, ids, top, signal)),
    async hold(ids, signal) {
      const held = newHeld(ids);
      try {
        await inTurn(signal, (engine) => held.renew(engine, signal));
      } catch (error) {
        held.release(); // an abort may come when the K/V are held already
        throw error;
      }
      return held;
    },
    dispose() {
      if (!engine) return;
      engine.disposed = true;
      engine.backend.dispose();
      engine = undefined;
    },
  };
}
