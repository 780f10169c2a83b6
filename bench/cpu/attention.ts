// The attention of one decode step by itself, two-part against one-part, through the CPU backend's own operations: all layers,
// keys and values of zeros, which cost what others do. A whole step hides the switch's question in its matrix products' noise.

import type { Batch, Shape } from "../../src/backend.ts";
import { createCpuBackend } from "../../src/cpu/backend.ts";
import { newCpuModule } from "../../src/wasm.ts";
import { median } from "../table.ts";
import { PATHS, SAMPLES, type Steps } from "./steps.ts";

/** Tokens of each sample's tail. */
const TAIL = 16;

export async function measureAttention(shape: Shape, lengths: readonly number[]): Promise<Steps[]> {
  const { nLayers, nHeads, headDim, ropeDim } = shape;
  const backend = createCpuBackend(await newCpuModule(), shape);
  // A weight, however small, makes the backend take the kernels' scratch.
  await backend.weights([{ name: "scratch", type: "F32", rows: 8, cols: 32 }]);
  const most = Math.max(...SAMPLES);
  const q = backend.tensor(most, nHeads * headDim);
  const out = backend.tensor(most, nHeads * headDim);
  const states = backend.states(most);
  const blocksOf = (tokens: number) => Math.ceil(tokens / backend.blockTokens);
  const tailBlocks = blocksOf(TAIL);
  const contextBlocks = blocksOf(Math.max(...lengths));
  backend.reserveBlocks(contextBlocks + most * tailBlocks);
  const blocks = (first: number, count: number) => Uint32Array.from({ length: count }, (_, i) => first + i);

  return lengths.map((length) => {
    const steps: Steps = { length, samples: SAMPLES, ms: { "two-part": [], "one-part": [] } };
    for (const n of SAMPLES) {
      const batch: Batch = {
        ids: new Uint32Array(n),
        turns: new Float32Array(n * ropeDim),
        slots: new Uint32Array(2 * n),
        context: { blocks: blocks(0, blocksOf(length)), length },
        tails: {
          blocks: Array.from({ length: n }, (_, i) => blocks(contextBlocks + i * tailBlocks, tailBlocks)),
          lengths: new Uint32Array(n).fill(TAIL),
        },
      };
      const prepared = backend.prepare(batch);
      const rows = backend.view(q, 0, n);
      const run = {
        "two-part"(layer: number) {
          backend.attendContext(rows, layer, prepared, states);
          backend.attendDecode(rows, layer, prepared, states);
          backend.mergeStates(states, prepared, out);
        },
        "one-part": (layer: number) => backend.attendOnePart(rows, layer, prepared, out),
      };
      const times = { "two-part": [] as number[], "one-part": [] as number[] };
      // In turns, for a third of a second at least; the fastest third counts.
      for (const start = performance.now(); times["two-part"].length < 5 || performance.now() - start < 333; )
        for (const path of PATHS) {
          const before = performance.now();
          for (let layer = 0; layer < nLayers; layer++) run[path](layer);
          times[path].push(performance.now() - before);
        }
      for (const path of PATHS) {
        const sorted = times[path].sort((a, b) => a - b);
        steps.ms[path].push(median(sorted.slice(0, Math.ceil(sorted.length / 3))));
      }
    }
    return steps;
  });
}
