// What every engine of the CPU benchmark can do, and where optional ones are found. Knows no engine and no table.

import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** One way to run a model on one thread. Times are milliseconds on the wall clock. */
export interface Engine {
  /** Loads the file and computes one token after a prompt of one, so that nothing is left to be done at first use. */
  load(file: string, limits: { context: number; sequences: number }): Promise<void>;
  /** Prefills the prompt, nothing of it cached; then decodes `count` tokens greedily after the first. */
  one(prompt: string, count: number): Promise<One>;
  /** n samples of `count` tokens at temperature 0.8. */
  many(prompt: string, n: number, count: number): Promise<Many>;
  close(): Promise<Memory>;
}

export interface One {
  promptTokens: number;
  prefillTokens: number;
  prefillMs: number;
  decodeTokens: number;
  decodeMs: number;
}

export interface Many {
  n: number;
  wholeMs: number;
  /** Until every sample has its first token. */
  firstMs: number;
  /** Tokens a second of all samples together once all of them decode. */
  tokensPerSecond: number;
  kvBytes?: number;
  kvBytesAsCopies?: number;
}

export interface Memory {
  /** Most resident bytes of the process that computes; absent where the system does not tell. */
  peakBytes?: number;
}

/** Turns the times of every sample's tokens (n, count), in ms since the call, into what the table shows. */
export function summarise(times: number[][], wholeMs: number): Many {
  const firstMs = Math.max(...times.map((sample) => sample[0]));
  const after = times.reduce((sum, sample) => sum + sample.filter((time) => time > firstMs).length, 0);
  const last = Math.max(...times.map((sample) => sample[sample.length - 1]));
  return { n: times.length, wholeMs, firstMs, tokensPerSecond: (after / (last - firstMs)) * 1000 };
}

export const ROOT = fileURLToPath(new URL("../..", import.meta.url));

/** Folder of an optional package, in FURCATE_PEERS or beside the project's own; its version and main file. */
export function findPackage(name: string): { folder: string; version: string; main: string } | undefined {
  for (const home of [process.env.FURCATE_PEERS, ROOT]) {
    const folder = home && join(home, "node_modules", name);
    if (!folder || !existsSync(join(folder, "package.json"))) continue;
    const { version, main } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    return { folder, version, main: join(folder, main) };
  }
}
