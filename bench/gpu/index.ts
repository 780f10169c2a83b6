// One decode step on a GPU, by shape, context, number of samples and attention path, from the command line of Node or Deno: prints
// what measure.ts finds; with --kernels, the GPU time of each kernel. --serve shows it in a browser instead. Options: --help.

import { writeFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { FurcateError } from "../../src/errors.ts";
import { figure } from "../table.ts";
import { offerGpu } from "./dawn.ts";
import { CLASSES } from "./device.ts";
import { PATHS, TYPES } from "./engine.ts";
import { DEFAULTS, type Kernels, type Line, measure, readOptions } from "./measure.ts";
import { SHAPES } from "./shapes.ts";

const HELP = `bench:gpu -- [options]
  --shape    ${Object.keys(SHAPES).join(", ")} (default ${DEFAULTS.shape})
  --type     of the weights: ${TYPES.join(", ")} (default ${DEFAULTS.type})
  --context  tokens of the prompt (default ${DEFAULTS.context}; several with commas)
  --n        samples (default ${DEFAULTS.n})
  --paths    ${PATHS.join(", ")} (default ${DEFAULTS.paths})
  --class    ${CLASSES.join(", ")} (default ${DEFAULTS.class}): what the device may use
  --dec      tokens of each sample's tail (default ${DEFAULTS.dec})
  --steps    measured for each line, medians (default ${DEFAULTS.steps})
  --bandwidth  TB/s that the device reads, for the floor (default ${DEFAULTS.bandwidth})
  --kernels  also the GPU time of each kernel, and dispatches a layer
  --json     also write the lines to this file
  --serve    measure in a browser: serves a page on this machine, which has its own options`;

const text = { type: "string" } as const;
const flag = { type: "boolean", default: false } as const;

try {
  await main();
} catch (error) {
  if (!(error instanceof FurcateError)) throw error;
  console.error(error.message);
  process.exitCode = 1;
}

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      shape: text,
      type: text,
      context: text,
      n: text,
      paths: text,
      class: text,
      dec: text,
      steps: text,
      bandwidth: text,
      json: text,
      kernels: flag,
      serve: flag,
      help: flag,
    },
  });
  if (values.help) return console.log(HELP);
  if (values.serve) {
    const { servePage } = await import("./serve.ts");
    return console.log(`a page that measures: ${(await servePage()).origin}`);
  }
  const options = readOptions(values);
  await offerGpu();
  const lines: Line[] = [];
  for await (const found of measure(options, values.kernels)) {
    if (found.kind === "model") {
      console.log(`${found.device}; ${SHAPES[options.shape].name} ${options.type}, class ${options.class}`);
      const gib = (found.weightBytes / 2 ** 30).toFixed(2);
      console.log(`weights ${gib} GiB in ${(found.uploadMs / 1e3).toFixed(1)} s`);
    } else if (found.kind === "prefill") {
      const { context, ms } = found;
      console.log(`prefill of ${context}: ${ms.toFixed(0)} ms, ${((context / ms) * 1e3).toFixed(0)} tokens/s`);
    } else if (found.kind === "line") {
      lines.push(found.line);
      printLine(found.line);
      if (found.kernels) printKernels(found.kernels);
    } else if (found.kind === "failed") console.log(`${found.what}: ${found.reason}`);
  }
  if (values.json) writeFileSync(values.json, JSON.stringify(lines, undefined, 1));
}

function printLine({ context, n, path, chose, ms, floorMs, gbPerS, tflopPerS, anchorMs }: Line): void {
  console.log(
    `context ${String(context).padStart(5)}  n ${String(n).padStart(3)}  ${(chose ? `auto: ${chose}` : path).padEnd(14)} ` +
      `${ms.toFixed(2).padStart(8)} ms a step  floor ${floorMs.toFixed(2).padStart(6)}  ` +
      `${figure(gbPerS).padStart(5)} GB/s  ${figure(tflopPerS).padStart(5)} TFLOP/s` +
      (anchorMs ? `  ${(ms / anchorMs).toFixed(2)} × the paper's code (${anchorMs})` : ""),
  );
}

function printKernels({ times, dispatchesALayer }: Kernels): void {
  const [us, count] = times.reduce(([us, count], time) => [us + time.us, count + time.count], [0, 0]);
  console.log(`    on the GPU ${(us / 1e3).toFixed(2)} ms in ${count} dispatches, ${dispatchesALayer} of a layer`);
  for (const { kernel, count, us } of times.slice(0, 12))
    console.log(
      `    ${kernel.padEnd(56)} ${String(count).padStart(5)} × ${(us / count).toFixed(1).padStart(8)} µs = ${(us / 1e3).toFixed(2)} ms`,
    );
}
