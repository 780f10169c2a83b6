// `npm run bench:cpu -- --help`: furcate on one thread beside llama.cpp (native, and in WebAssembly), one table; and the cost of steps.
// Every engine runs in a process of its own, one at a time, in turns; figures are medians.

import { execFile } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { basename, join, resolve } from "node:path";
import { parseArgs, promisify } from "node:util";
import { readConfig } from "../../src/config.ts";
import { readGguf } from "../../src/formats/gguf.ts";
import { openSource } from "../../src/source.ts";
import { refresh } from "../document.ts";
import { toMarkdown, toText } from "../table.ts";
import { measureAttention } from "./attention.ts";
import { findPackage, ROOT } from "./engine.ts";
import { measureMachine, tokenCost } from "./machine.ts";
import type { Figures, Job } from "./measure.ts";
import { comparison, floors, MANY, type Results, SINGLE } from "./report.ts";
import { measureSteps, stepsTable, switchAdvice } from "./steps.ts";
import { findChromium } from "./wllama.ts";

const HELP = `npm run bench:cpu -- [options]
  --model FILE      GGUF; default: the one in FURCATE_TESTDATA/models
  --prompt FILE     text; default: the first 2,400 characters of the model's LICENSE there (478 tokens)
  --engines LIST    of furcate, wllama, native; default: all that are installed
  --rounds N        processes of each engine, in turns; default 3
  --wllama-n N      let wllama draw N samples too (minutes a round); default: n = 1 alone
  --steps           the second table alone: a decode step by n and prompt length
  --lengths LIST    its prompt lengths; default 256,512,1024,2048,4096
  --markdown        both tables, written into docs/performance-cpu.md
  --json FILE       all figures
Peers are looked up in node_modules and in FURCATE_PEERS (a folder that has a node_modules).`;

const DOCUMENT = join(ROOT, "docs/performance-cpu.md");

type Name = Job["engine"];

const { values: options } = parseArgs({
  options: {
    model: { type: "string" },
    prompt: { type: "string" },
    engines: { type: "string", default: "furcate,wllama,native" },
    rounds: { type: "string", default: "3" },
    "wllama-n": { type: "string" },
    steps: { type: "boolean", default: false },
    lengths: { type: "string", default: "256,512,1024,2048,4096" },
    markdown: { type: "boolean", default: false },
    json: { type: "string" },
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
  const { engines, skipped } = installed();
  const model = findModel();
  const text = findPrompt(model);
  const gguf = await readGguf(await openSource(model));
  const config = readConfig(gguf);
  const cost = tokenCost(gguf);
  const machine = await measureMachine(cost.type);
  console.log(`${basename(model)} on ${machine.text}\n`);

  const parts: Record<string, string> = { machine: `${basename(model)} on ${machine.text}.` };
  const json: Record<string, unknown> = { model: basename(model), machine, cost };
  if (!options.steps) {
    for (const line of skipped) console.log(line);
    const results = await compare(engines, model, options.prompt ? text : text.slice(0, 2400));
    const tables = [comparison(results), floors(results.furcate, machine, cost, config)];
    for (const table of tables) if (table) console.log(toText(table));
    parts.comparison = [...tables.map((table) => table && toMarkdown(table)), ...skipped].filter(Boolean).join("\n\n");
    json.results = results;
  }
  if (options.steps || options.markdown) {
    const lengths = options.lengths.split(",").map(Number);
    const attention = await measureAttention(config, lengths);
    const steps = await measureSteps(model, text, lengths);
    const tables = [
      stepsTable("One decode step, by prompt length and number of samples (n)", steps),
      stepsTable("Its attention alone, all layers", attention),
    ];
    for (const table of tables) console.log(toText(table));
    console.log(switchAdvice(attention));
    parts.steps = [...tables.map(toMarkdown), switchAdvice(attention)].join("\n\n");
    json.attention = attention;
    json.steps = steps;
  }
  if (options.markdown) refresh(DOCUMENT, parts);
  if (options.json) writeFileSync(options.json, JSON.stringify(json, null, 1));
}

/** Runs every engine once a round, each in its own process, never two at once. */
async function compare(engines: readonly Name[], model: string, prompt: string): Promise<Results> {
  const results: Results = {};
  const rounds = Number(options.rounds);
  for (let round = 1; round <= rounds; round++)
    for (const engine of engines) {
      const n = engine === "wllama" ? Number(options["wllama-n"] ?? 0) : MANY.n;
      const figures = await measure({
        engine,
        model,
        prompt,
        context: Math.max(1024, 256 * Math.ceil(prompt.length / 512)), // at two letters a token or more
        single: SINGLE,
        repeats: engine === "wllama" ? 1 : 3,
        many: n > 0 ? { ...MANY, n } : undefined,
      });
      results[engine] = [...(results[engine] ?? []), figures];
      console.error(`round ${round} of ${rounds}: ${engine} done`);
    }
  return results;
}

async function measure(job: Job): Promise<Figures> {
  const program = join(import.meta.dirname, "measure.ts");
  const command = ["--import", "tsx", program, JSON.stringify(job)];
  const run = promisify(execFile)(process.execPath, command, { cwd: ROOT });
  const { stdout } = await run.catch(({ stderr }) => {
    throw new Error(`${job.engine} failed: ${stderr.trim().split("\n").pop()}`);
  });
  return JSON.parse(stdout.trim().split("\n").pop()!);
}

/** The engines asked for that are there, and a line for each one that is not. */
function installed(): { engines: Name[]; skipped: string[] } {
  const missing: Record<Name, string | false | undefined> = {
    furcate: false,
    wllama: !findPackage("@wllama/wllama")
      ? "npm i --no-save @wllama/wllama"
      : !findChromium() && "install Chromium or set CHROMIUM",
    native: !findPackage("node-llama-cpp") && "npm i --no-save node-llama-cpp",
  };
  const asked = options.engines.split(",") as Name[];
  for (const name of asked)
    if (!(name in missing)) throw new Error(`--engines: "${name}", expected furcate, wllama or native`);
  return {
    engines: asked.filter((name) => !missing[name]),
    skipped: asked.filter((name) => missing[name]).map((name) => `skipped: ${name} (${missing[name]})`),
  };
}

function findModel(): string {
  if (options.model) return resolve(options.model);
  const folder = process.env.FURCATE_TESTDATA && join(process.env.FURCATE_TESTDATA, "models");
  const file = folder && readdirSync(folder).find((name) => name.endsWith(".gguf"));
  if (!file) throw new Error("no model: pass --model FILE, or set FURCATE_TESTDATA to a folder with models/*.gguf");
  return join(folder, file);
}

/** The text whose beginning is the prompt. */
function findPrompt(model: string): string {
  if (options.prompt) return readFileSync(options.prompt, "utf8");
  const file = readdirSync(join(model, "..")).find((name) => name.endsWith(".LICENSE"));
  if (!file) throw new Error(`no prompt: pass --prompt FILE, or put a *.LICENSE beside ${basename(model)}`);
  return readFileSync(join(model, "..", file), "utf8");
}
