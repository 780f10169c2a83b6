// `npm run bench:worth -- --help`: what n samples are worth. The quality of n paths through held-out mazes against the time they take.

import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join as pathTo } from "node:path";
import { parseArgs } from "node:util";
import { load } from "furcate";
import { refresh } from "../document.ts";
import { offerGpu } from "../gpu/dawn.ts";
import { toMarkdown, toText } from "../table.ts";
import { chart } from "./chart.ts";
import { COUNTS, join, measureLatency, measureMazes, type Results } from "./measure.ts";
import { goals, howMeasured, passTable, rankTable, worthTable } from "./report.ts";

const HELP = `npm run bench:worth -- [options]
  --only PART             quality or latency alone; default: both
  --backend NAME          wasm or webgpu; default: wasm
  --class NAME            stock, what browsers offer of a GPU, or experimental, subgroup matrices too; default: stock
  --first SEED            of the mazes; default 1000
  --mazes N               for the quality; default 384 (under an hour on a CPU)
  --temperatures LIST     for the quality; default 0.5,0.7,1,1.4
  --latency-mazes N       for the latency; default 24
  --counts LIST           numbers of samples, for the latency; default 1,2,4,8,16,32,64
  --temperature T         for the latency, and of the picture; default 1
  --json FILE             writes what was measured
  --join FILES            measures nothing: what was written before (comma-separated) together
  --markdown              writes docs/worth.md and docs/worth.svg
For a machine that has Node and a GPU, but no packages: bundle it, take build/worth.mjs and models/maze.gguf there, and name Dawn's binding.
  npx esbuild bench/worth/index.ts --bundle --platform=node --format=esm --outfile=build/worth.mjs
  DAWN_NODE=dawn.node node build/worth.mjs --backend webgpu --only latency --json gpu.json`;

/** f16 has to be asked for on NVIDIA under Linux; what no browser offers without a flag stays off. */
const STOCK = ["enable-dawn-features=vulkan_enable_f16_on_nvidia"];

const { values: options } = parseArgs({
  options: {
    only: { type: "string" },
    backend: { type: "string", default: "wasm" },
    class: { type: "string", default: "stock" },
    first: { type: "string", default: "1000" },
    mazes: { type: "string", default: "384" },
    temperatures: { type: "string", default: "0.5,0.7,1,1.4" },
    "latency-mazes": { type: "string", default: "24" },
    counts: { type: "string", default: COUNTS.join() },
    temperature: { type: "string", default: "1" },
    json: { type: "string" },
    join: { type: "string" },
    markdown: { type: "boolean", default: false },
    help: { type: "boolean", default: false },
  },
});
if (options.help) console.log(HELP);
else
  await main().catch((error) => {
    console.error(error.message);
    process.exitCode = 1;
  });

async function main(): Promise<void> {
  const root = findRoot();
  const temperature = number("temperature");
  const results = options.join
    ? join(options.join.split(",").map((file) => JSON.parse(readFileSync(file, "utf8")) as Results))
    : await measure(root, temperature);
  if (options.json) writeFileSync(options.json, JSON.stringify(results));
  const tables = [worthTable(results, temperature), passTable(results), rankTable(results)].filter(
    (table) => table !== undefined,
  );
  for (const table of tables) console.log(toText(table));
  console.log(goals(results).join("\n"));
  if (options.markdown) {
    const measured = [
      howMeasured(results),
      ...tables.map(toMarkdown),
      goals(results)
        .map((goal) => `- ${goal}`)
        .join("\n"),
    ];
    refresh(pathTo(root, "docs/worth.md"), { worth: measured.join("\n\n") });
    writeFileSync(pathTo(root, "docs/worth.svg"), chart(results, temperature));
  }
}

async function measure(root: string, temperature: number): Promise<Results> {
  const { only, backend } = options;
  if (only !== undefined && only !== "quality" && only !== "latency")
    throw new Error(`--only: "${only}", expected quality or latency`);
  if (backend !== "wasm" && backend !== "webgpu") throw new Error(`--backend: "${backend}", expected wasm or webgpu`);
  if (options.class !== "stock" && options.class !== "experimental")
    throw new Error(`--class: "${options.class}", expected stock or experimental`);
  if (backend === "webgpu") await offerGpu(options.class === "stock" ? STOCK : undefined);
  const open = () => load(pathTo(root, "models/maze.gguf"), { backend });
  const seeds = (count: number) => Array.from({ length: count }, (_, i) => number("first") + i);
  const counts = options.counts.split(",").map(Number);
  const latency =
    only === "quality" ? [] : await measureLatency(open, seeds(number("latency-mazes")), temperature, counts);
  if (only === "latency") return { mazes: [], latency };
  const model = await open();
  try {
    return {
      mazes: await measureMazes(model, seeds(number("mazes")), options.temperatures.split(",").map(Number)),
      latency,
    };
  } finally {
    model.dispose();
  }
}

function number(name: "first" | "mazes" | "latency-mazes" | "temperature"): number {
  const value = Number(options[name]);
  if (!(value >= 0)) throw new Error(`--${name}: "${options[name]}", expected a number`);
  return value;
}

/** The repository, also where this program was bundled into another of its folders. */
function findRoot(): string {
  let folder = import.meta.dirname;
  while (!existsSync(pathTo(folder, "models/maze.gguf"))) {
    if (dirname(folder) === folder) throw new Error("models/maze.gguf is in no folder above this program");
    folder = dirname(folder);
  }
  return folder;
}
