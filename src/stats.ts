// What a call reports of itself: times, the attention path that ran and why, K/V held against copies.
// Knows when things happened; nothing of what happened.

import type { Stats } from "./api.ts";
import type { AttentionPath, Backend } from "./backend.ts";
import type { Tail } from "./cache.ts";
import type { CallOptions } from "./options.ts";
import type { TextModule } from "./wasm.ts";

/** The parts of an engine that stats ask. */
interface Parts {
  readonly backend: Backend;
  readonly text: TextModule;
  readonly fallback?: string;
}

/** Starts now. */
export function stopwatch() {
  const began = performance.now();
  let prefillEnd = began;
  let stepBegan = began;
  const steps: number[] = [];
  const reasons = new Map<AttentionPath, string>(); // of each path that ran, the last
  let blocks = 0;
  let blocksAsCopies = 0;
  return {
    prefilled(contextBlocks: number, n: number): void {
      prefillEnd = performance.now();
      blocks = contextBlocks;
      blocksAsCopies = contextBlocks * n;
    },
    stepBegins(): void {
      stepBegan = performance.now();
    },
    /** What is held where a step's rows have taken blocks: each row's tail, and the samples that it computes. */
    stepHolds(contextBlocks: number, branches: readonly { tail: Tail; samples: readonly unknown[] }[]): void {
      const held = new Set<number>();
      let copies = 0;
      for (const { tail, samples } of branches) {
        for (const block of tail.blocks()) held.add(block);
        copies += (contextBlocks + tail.blocks().length) * samples.length;
      }
      blocks = Math.max(blocks, contextBlocks + held.size);
      blocksAsCopies = Math.max(blocksAsCopies, copies);
    },
    stepEnds({ path, reason }: { path: AttentionPath; reason: string }): void {
      reasons.set(path, reason);
      steps.push(performance.now() - stepBegan);
    },
    stats({ backend, text, fallback }: Parts, { n }: CallOptions, drawn: number): Stats {
      const decodeMs = performance.now() - prefillEnd;
      const tokensPerSecond = decodeMs > 0 ? (drawn / decodeMs) * 1000 : 0;
      const sorted = Float64Array.from(steps).sort();
      const ran = [...reasons.keys()];
      return {
        backend: backend.kind,
        device: backend.device,
        ...(fallback === undefined ? {} : { fallback }),
        attention: ran.length === 2 ? "mixed" : (ran[0] ?? "one-part"),
        attentionReason:
          ran.length === 2
            ? [...reasons].map(([path, reason]) => `${path}: ${reason}`).join("; ")
            : (reasons.get(ran[0]) ?? "no step was needed: the prompt's own pass gave every token"),
        steps: steps.length,
        prefillMs: prefillEnd - began,
        decodeMs,
        stepMs: { median: sorted[sorted.length >> 1] ?? 0, max: sorted[sorted.length - 1] ?? 0 },
        tokensPerSecond,
        tokensPerSecondPerSample: tokensPerSecond / n,
        kvBytes: blocks * backend.blockBytes,
        kvBytesAsCopies: blocksAsCopies * backend.blockBytes,
        peakBytes: backend.peakBytes + text.used(),
      };
    },
  };
}
