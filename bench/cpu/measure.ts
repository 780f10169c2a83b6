// The program that measures one engine in a process of its own: a job as JSON in, figures as JSON out (last line of stdout).

import { openSync, readSync } from "node:fs";
import type { Engine, Many, Memory, One } from "./engine.ts";
import { createFurcate } from "./furcate.ts";
import { createNative } from "./native.ts";
import { createWllama } from "./wllama.ts";

const ENGINES = { furcate: createFurcate, wllama: createWllama, native: createNative };

export interface Job {
  engine: keyof typeof ENGINES;
  model: string;
  prompt: string;
  context: number;
  repeats: number;
  single: number; // tokens decoded at n = 1
  many?: { n: number; count: number };
}
export interface Figures extends Memory {
  readMs: number;
  loadMs: number;
  one: One[];
  many?: Many;
}

try {
  console.log(JSON.stringify(await measure(JSON.parse(process.argv[2]))));
} catch (error) {
  // The message alone: Node would print the line that threw, which in a bundle is all of it.
  console.error(error instanceof Error ? error.message : error);
  process.exitCode = 1;
}
process.exit(); // engines may hold threads or timers that would keep the process

async function measure(job: Job): Promise<Figures> {
  const engine: Engine = await ENGINES[job.engine]();
  const readMs = readFile(job.model);
  const start = performance.now();
  await engine.load(job.model, { context: job.context, sequences: job.engine === "wllama" ? (job.many?.n ?? 1) : 1 });
  const loadMs = performance.now() - start;
  const one: One[] = [];
  for (let i = 0; i < job.repeats; i++) one.push(await engine.one(job.prompt, job.single));
  const many = job.many && (await engine.many(job.prompt, job.many.n, job.many.count));
  return { readMs, loadMs, one, many, ...(await engine.close()) };
}

/** Milliseconds that reading a file takes, in pieces and without keeping it. */
function readFile(path: string): number {
  const piece = new Uint8Array(1 << 20);
  const start = performance.now();
  const file = openSync(path, "r");
  while (readSync(file, piece) > 0);
  return performance.now() - start;
}
