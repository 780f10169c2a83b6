// How the cost of one decode step grows with the number of samples and the length of the prompt they share:
// two-part attention against one-part, the same prefix for all.

import type { Prefix } from "../../src/api.ts";
import { figure, type Table } from "../table.ts";
import { importFurcate } from "./furcate.ts";

export const SAMPLES = [1, 2, 4, 8, 16, 32, 64];
export const PATHS = ["two-part", "one-part"] as const;
type Path = (typeof PATHS)[number];

/** Milliseconds of a step at one length, by path: one number for each of `samples`. */
export interface Steps {
  length: number;
  samples: number[];
  ms: Record<Path, number[]>;
}

export async function measureSteps(file: string, text: string, lengths: readonly number[]): Promise<Steps[]> {
  const model = await (await importFurcate()).load(file, { backend: "wasm" });
  const unit = model.tokenizer.encode(text);
  const ids = Uint32Array.from({ length: Math.max(...lengths) }, (_, i) => unit[i % unit.length]);
  const found: Steps[] = [];
  let prefix: Prefix | undefined;
  let done = 0;
  for (const length of [...lengths].sort((a, b) => a - b)) {
    if (length + 32 > model.info.contextLength) break;
    // Longer prompts continue shorter ones: every token is prefilled once.
    const more = ids.subarray(done, length - 1);
    prefix = prefix ? await prefix.fork(more) : await model.prefill(more);
    done = length - 1;
    const steps: Steps = { length, samples: SAMPLES, ms: { "two-part": [], "one-part": [] } };
    for (const n of SAMPLES) {
      const best = { "two-part": Infinity, "one-part": Infinity };
      // There and back, and the better of each path's two medians: what else the machine does only ever adds.
      for (const path of [...PATHS, ...[...PATHS].reverse()])
        best[path] = Math.min(best[path], await stepMs(prefix, ids.subarray(done, length), n, path));
      for (const path of PATHS) steps.ms[path].push(best[path]);
    }
    found.push(steps);
    console.error(`prompt of ${length} tokens: done`);
  }
  model.dispose();
  return found;
}

/** Median milliseconds of the steps of one call. So hot that samples part at once: those that agree would be computed as one. */
async function stepMs(prefix: Prefix, last: Uint32Array, n: number, attention: Path): Promise<number> {
  const maxTokens = n <= 4 ? 13 : n <= 16 ? 8 : 5;
  const { stats } = await prefix.generate(last, {
    n,
    maxTokens,
    temperature: 100,
    topK: 64,
    ignoreEos: true,
    attention,
  });
  return stats.stepMs.median;
}

export function stepsTable(title: string, steps: readonly Steps[]): Table {
  const rows = steps.flatMap(({ length, ms }) => {
    const [two, one] = PATHS.map((path) => ms[path]);
    return [
      [`${length}`, "two-part, ms", ...two.map((x) => figure(x))],
      ["", "one-part, ms", ...one.map((x) => figure(x))],
      ["", "one-part ÷ two-part", ...one.map((x, i) => figure(x / two[i]))],
      ["", "two-part, × n = 1", ...two.map((x) => figure(x / two[0]))],
    ];
  });
  return {
    title,
    head: ["prompt", "", ...SAMPLES.map((n) => `n = ${n}`)],
    rows,
  };
}

/** Where the one-part path is faster by 3 % or more, in words. */
export function switchAdvice(steps: readonly Steps[]): string {
  const lines = steps.map(({ length, samples, ms }) => {
    const wins = samples.filter((_, i) => ms["one-part"][i] < 0.97 * ms["two-part"][i]);
    return `${length}: ${wins.length > 0 ? `n = ${wins.join(", ")}` : "none"}`;
  });
  return `Attention alone is faster as one part, by 3 % or more, at prompt length ${lines.join("; ")}.`;
}
