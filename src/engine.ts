// A loaded model's parts, as calls use them. Types only; knows nothing of how they were loaded, or of calls.

import type { Backend } from "./backend.ts";
import type { Cache } from "./cache.ts";
import type { ModelConfig } from "./config.ts";
import type { Forward } from "./model.ts";
import type { Sampler } from "./sampler.ts";
import type { ModelTokenizer } from "./tokenizer.ts";
import type { TextModule } from "./wasm.ts";

/** Where a model runs: what goes with a device, and is made anew with it. */
export interface Device {
  backend: Backend;
  forward: Forward;
  cache: Cache;
  /** Why another backend was not used. */
  fallback?: string;
}

/** A loaded model's parts, as the loop uses them. */
export interface Engine extends Device {
  readonly text: TextModule;
  readonly config: ModelConfig;
  readonly sampler: Sampler;
  readonly tokenizer: ModelTokenizer;
  /** Most tokens of one sequence. */
  readonly contextLength: number;
  /** Puts a new device in the place of a lost one. Errors: `device-lost` where there is none or the source cannot be read again. */
  renew?: () => Promise<void>;
  disposed: boolean;
}
