// One decode step on a GPU, by shape, context, number of samples and attention path: milliseconds, against the floor that memory
// sets and against the paper's own code; with --kernels, the GPU time of each kernel. Options: --help.

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import type { GgmlType } from "../../src/formats/gguf.ts";
import { CLASSES, type DeviceClass, openClass } from "./device.ts";
import { type BenchEngine, createEngine, type Path } from "./engine.ts";
import { type Profile, profile } from "./profile.ts";
import { ANCHORS, SHAPES } from "./shapes.ts";

const HELP = `bench:gpu -- [options]
  --shape    ${Object.keys(SHAPES).join(", ")} (default tiny)
  --type     of the weights: F16, BF16, F32, Q8_0, Q4_0 (default F16)
  --context  tokens of the prompt (default 256; several with commas)
  --n        samples (default 1,16,32)
  --paths    two-part, one-part, copies, auto (default two-part,one-part)
  --class    ${CLASSES.join(", ")} (default portable): what the device may use
  --dec      tokens of each sample's tail (default 128)
  --steps    measured for each line, medians (default 20)
  --bandwidth  bytes per second / 1e12 that the device reads, for the floor (default 4.4)
  --kernels  also the GPU time of each kernel
  --json     also write the lines to this file`;

const { values } = parseArgs({
  options: {
    shape: { type: "string", default: "tiny" },
    type: { type: "string", default: "F16" },
    context: { type: "string", default: "256" },
    n: { type: "string", default: "1,16,32" },
    paths: { type: "string", default: "two-part,one-part" },
    class: { type: "string", default: "portable" },
    dec: { type: "string", default: "128" },
    steps: { type: "string", default: "20" },
    bandwidth: { type: "string", default: "4.4" },
    kernels: { type: "boolean", default: false },
    json: { type: "string" },
    help: { type: "boolean", default: false },
  },
});

const WARM_UP_MS = 300;
const ROUNDS = 4;

interface Line {
  shape: string;
  type: string;
  class: string;
  context: number;
  n: number;
  path: Path;
  ms: number;
  floorMs: number;
  gbPerS: number;
  anchorMs?: number;
}

const numbers = (text: string) => text.split(",").map(Number);

if (values.help) console.log(HELP);
else await main();

async function main(): Promise<void> {
  const config = SHAPES[values.shape];
  if (!config) throw new Error(`shape ${values.shape}: expected one of ${Object.keys(SHAPES).join(", ")}`);
  const opened = await openClass(values.class as DeviceClass);
  const watch = values.kernels ? profile(opened.device) : undefined;
  const engine = await createEngine(opened, config, values.type as GgmlType);
  const gib = (bytes: number) => `${(bytes / 2 ** 30).toFixed(2)} GiB`;
  console.log(`${engine.backend.device}; ${config.name} ${values.type}, class ${values.class}`);
  console.log(`weights ${gib(engine.weightBytes)} in ${(engine.uploadMs / 1e3).toFixed(1)} s`);
  const lines: Line[] = [];
  for (const context of numbers(values.context)) {
    const ms = await engine.prefill(context);
    console.log(`prefill of ${context}: ${ms.toFixed(0)} ms, ${((context / ms) * 1e3).toFixed(0)} tokens/s`);
    for (const n of numbers(values.n))
      lines.push(...(await measure(engine, context, n, values.paths.split(",") as Path[], watch)));
  }
  engine.dispose();
  if (values.json) writeFileSync(values.json, JSON.stringify(lines, undefined, 1));
}

/** All paths by turns, so that what else changes on the machine changes for all. */
async function measure(
  engine: BenchEngine,
  context: number,
  n: number,
  paths: readonly Path[],
  watch: Profile | undefined,
): Promise<Line[]> {
  const runs: { path: Path; step: () => Promise<void>; times: number[] }[] = [];
  for (const path of paths)
    try {
      runs.push({ path, step: await engine.step(context, n, Number(values.dec), path), times: [] });
    } catch (error) {
      console.log(`context ${context}, n ${n}, ${path}: ${(error as Error).message}`);
    }
  for (let round = 0; round < ROUNDS; round++)
    for (const { step, times } of runs) {
      // A GPU that was idle takes a while to come to its full clock; and the first steps of a kind are encoded as they come.
      const warmUpMs = round === 0 ? WARM_UP_MS : 0;
      for (let i = 0, began = performance.now(); i < 3 || performance.now() - began < warmUpMs; i++) await step();
      for (let i = 0; i < Number(values.steps) / ROUNDS; i++) {
        const began = performance.now();
        await step();
        times.push(performance.now() - began);
      }
    }
  const lines: Line[] = [];
  for (const { path, step, times } of runs) lines.push(await report(engine, context, n, path, step, times, watch));
  return lines;
}

async function report(
  engine: BenchEngine,
  context: number,
  n: number,
  path: Path,
  step: () => Promise<void>,
  times: number[],
  watch: Profile | undefined,
): Promise<Line> {
  const decLen = Number(values.dec);
  const ms = times.sort((a, b) => a - b)[times.length >> 1];
  // Weights once, the prompt once (or once a copy), every tail.
  const copies = path === "copies" ? n : 1;
  const bytes = engine.weightBytes + engine.tokenBytes * (context * copies + n * decLen);
  const floorMs = bytes / Number(values.bandwidth) / 1e9;
  const anchorMs = ANCHORS[`${values.shape}/${context}/${n}`];
  const line = { shape: values.shape, type: values.type, class: values.class, context, n, path, ms, floorMs };
  const gbPerS = bytes / ms / 1e6;
  console.log(
    `context ${String(context).padStart(5)}  n ${String(n).padStart(3)}  ${(path === "auto" ? `auto: ${engine.backend.choosePath(n, context).path}` : path).padEnd(14)} ${ms.toFixed(2).padStart(8)} ms a step  ` +
      `floor ${floorMs.toFixed(2).padStart(6)}  ${gbPerS.toFixed(0).padStart(5)} GB/s` +
      (anchorMs ? `  ${(ms / anchorMs).toFixed(2)} × the paper's code (${anchorMs})` : ""),
  );
  if (watch) {
    watch.on = true;
    await step(); // encoded before
    await step();
    await watch.take();
    await step();
    watch.on = false;
    const kernels = await watch.take();
    const total = kernels.reduce((sum, { us }) => sum + us, 0);
    console.log(
      `    on the GPU ${(total / 1e3).toFixed(2)} ms in ${kernels.reduce((sum, { count }) => sum + count, 0)} dispatches`,
    );
    for (const { kernel, count, us } of kernels.slice(0, 12))
      console.log(
        `    ${kernel.padEnd(32)} ${String(count).padStart(5)} × ${(us / count).toFixed(1).padStart(8)} µs = ${(us / 1e3).toFixed(2)} ms`,
      );
  }
  return { ...line, gbPerS, anchorMs };
}
