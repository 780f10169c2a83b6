// What the benchmark finds, as it comes: options as text in, then a line for each context, number of samples and path: the time of a
// step against the floor that memory sets and against the paper's own code. The command line and the page both show what this gives;
// it knows neither.

import type { AttentionPath } from "../../src/backend.ts";
import { fail } from "../../src/errors.ts";
import { median } from "../table.ts";
import { CLASSES, type DeviceClass, openClass } from "./device.ts";
import { type BenchEngine, createEngine, PATHS, type Path, TYPES, type WeightType } from "./engine.ts";
import { type KernelTime, type Profile, profile } from "./profile.ts";
import { ANCHORS, SHAPES } from "./shapes.ts";

export interface Options {
  readonly shape: string;
  readonly type: WeightType;
  readonly class: DeviceClass;
  readonly contexts: readonly number[];
  readonly counts: readonly number[];
  readonly paths: readonly Path[];
  /** Tokens of each sample's tail. */
  readonly decLen: number;
  readonly steps: number;
  /** TB/s that the device reads. */
  readonly bandwidth: number;
}

export interface Line {
  readonly shape: string;
  readonly type: WeightType;
  readonly class: DeviceClass;
  /** The adapter, and what of it was used. */
  readonly device: string;
  readonly context: number;
  readonly n: number;
  readonly path: Path;
  /** What path auto took. */
  readonly chose?: AttentionPath;
  /** Of a step, the median. */
  readonly ms: number;
  /** Of reading the step's bytes once at the device's bandwidth. */
  readonly floorMs: number;
  readonly gbPerS: number;
  readonly tflopPerS: number;
  /** Of the step in the paper's own code, where that was measured. */
  readonly anchorMs?: number;
}

export interface Kernels {
  /** Of one step, most time first. */
  readonly times: readonly KernelTime[];
  readonly dispatchesALayer: number;
}

export type Finding =
  | { readonly kind: "begins"; readonly what: string }
  | { readonly kind: "model"; readonly device: string; readonly weightBytes: number; readonly uploadMs: number }
  | { readonly kind: "prefill"; readonly context: number; readonly ms: number }
  | { readonly kind: "line"; readonly line: Line; readonly kernels?: Kernels }
  | { readonly kind: "failed"; readonly what: string; readonly reason: string };

export const DEFAULTS = {
  shape: "tiny",
  type: "F16",
  context: "256",
  n: "1,16,32",
  paths: "two-part,one-part",
  class: "portable",
  dec: "128",
  steps: "20",
  bandwidth: "4.4",
};

const WARM_UP_MS = 300;
const ROUNDS = 4;

/** Options from their texts. Errors: `option`. */
export function readOptions(given: Partial<Record<keyof typeof DEFAULTS, string>>): Options {
  const texts = { ...DEFAULTS, ...given };
  const oneOf = <T extends string>(name: keyof typeof DEFAULTS, all: readonly T[], text: string = texts[name]): T =>
    all.find((one) => one === text) ?? fail("option", `${name} is "${text}", expected one of ${all.join(", ")}`);
  const several = (name: "context" | "n" | "paths") => texts[name].split(",").map((text) => text.trim());
  const whole = (name: keyof typeof DEFAULTS, text: string = texts[name]) =>
    /^[1-9]\d*$/.test(text) ? Number(text) : fail("option", `${name} is "${text}", expected a whole number above 0`);
  const bandwidth = Number(texts.bandwidth);
  if (!(bandwidth > 0 && bandwidth < Infinity))
    fail("option", `bandwidth is "${texts.bandwidth}", expected a number above 0`);
  return {
    shape: oneOf("shape", Object.keys(SHAPES)),
    type: oneOf("type", TYPES),
    class: oneOf("class", CLASSES),
    contexts: several("context").map((text) => whole("context", text)),
    counts: several("n").map((text) => whole("n", text)),
    paths: several("paths").map((text) => oneOf("paths", PATHS, text)),
    decLen: whole("dec"),
    steps: whole("steps"),
    bandwidth,
  };
}

/** Measures; whoever stops listening ends it. Errors: `unsupported` where the device lacks what is asked for, `memory`. */
export async function* measure(options: Options, withKernels = false): AsyncGenerator<Finding> {
  yield { kind: "begins", what: "the model" };
  const opened = await openClass(options.class);
  try {
    const watch = withKernels ? profile(opened.device) : undefined;
    const engine = await createEngine(opened, SHAPES[options.shape], options.type);
    const { backend, weightBytes, uploadMs } = engine;
    yield { kind: "model", device: backend.device, weightBytes, uploadMs };
    for (const context of options.contexts) {
      yield { kind: "begins", what: `prefill of ${context} tokens` };
      yield { kind: "prefill", context, ms: await engine.prefill(context) };
      for (const n of options.counts) yield* measurePaths(engine, options, context, n, watch);
    }
  } finally {
    opened.device.destroy();
  }
}

/** All paths by turns, so that what else changes on the machine changes for all. */
async function* measurePaths(
  engine: BenchEngine,
  options: Options,
  context: number,
  n: number,
  watch: Profile | undefined,
): AsyncGenerator<Finding> {
  yield { kind: "begins", what: `context ${context}, n ${n}` };
  const runs: { path: Path; step: () => Promise<void>; times: number[] }[] = [];
  for (const path of options.paths)
    try {
      runs.push({ path, step: await engine.step(context, n, options.decLen, path), times: [] });
    } catch (error) {
      yield { kind: "failed", what: `context ${context}, n ${n}, ${path}`, reason: (error as Error).message };
    }
  for (let round = 0; round < ROUNDS; round++)
    for (const { step, times } of runs) {
      // A GPU that was idle takes a while to come to its full clock; and the first steps of a kind are encoded as they come.
      const warmUpMs = round === 0 ? WARM_UP_MS : 0;
      for (let i = 0, began = performance.now(); i < 3 || performance.now() - began < warmUpMs; i++) await step();
      for (let i = 0; i < options.steps / ROUNDS; i++) {
        const began = performance.now();
        await step();
        times.push(performance.now() - began);
      }
    }
  for (const { path, step, times } of runs) {
    const line = lineOf(engine, options, context, n, path, median(times));
    yield { kind: "line", line, kernels: watch && (await kernelsOf(step, watch, SHAPES[options.shape].nLayers)) };
  }
}

function lineOf(engine: BenchEngine, options: Options, context: number, n: number, path: Path, ms: number): Line {
  const { shape, type, decLen, bandwidth } = options;
  const { nHeads, headDim, nLayers } = SHAPES[shape];
  // Weights once, the prompt once (or once a copy), every tail.
  const copies = path === "copies" ? n : 1;
  const bytes = engine.weightBytes + engine.tokenBytes * (context * copies + n * decLen);
  const flops = n * (2 * engine.weightCount + 4 * nHeads * headDim * (context + decLen) * nLayers);
  return {
    shape,
    type,
    class: options.class,
    device: engine.backend.device,
    context,
    n,
    path,
    chose: path === "auto" ? engine.backend.choosePath(n, context).path : undefined,
    ms,
    floorMs: bytes / bandwidth / 1e9,
    gbPerS: bytes / ms / 1e6,
    tflopPerS: flops / ms / 1e9,
    anchorMs: ANCHORS[`${shape}/${context}/${n}`],
  };
}

async function kernelsOf(step: () => Promise<void>, watch: Profile, nLayers: number): Promise<Kernels> {
  watch.on = true;
  await step(); // encoded before
  await step();
  await watch.take();
  await step();
  watch.on = false;
  const times = await watch.take();
  // What runs once a step (embed, the output's product, candidates) does not go round the layers: it is what remains of each shader's.
  const ofShaders = new Map<string, number>();
  for (const { kernel, count } of times) {
    const [shader] = kernel.split(/[ ,]/);
    ofShaders.set(shader, (ofShaders.get(shader) ?? 0) + count);
  }
  const dispatchesALayer = [...ofShaders.values()].reduce((sum, count) => sum + Math.floor(count / nLayers), 0);
  return { times, dispatchesALayer };
}
