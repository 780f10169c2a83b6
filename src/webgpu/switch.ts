// Which attention path a step takes: two parts that are joined, or each sample by itself. Knows sizes and times only.

import type { AttentionPath } from "../backend.ts";

export interface Choice {
  readonly path: AttentionPath;
  /** Why, for people. */
  readonly reason: string;
}

/** The choice where nothing was measured: several samples read the prompt once. */
export function unmeasuredChoice(nSamples: number): Choice {
  return nSamples > 1
    ? { path: "two-part", reason: `${nSamples} samples read the prompt's K/V once` }
    : { path: "one-part", reason: "one sample" };
}
