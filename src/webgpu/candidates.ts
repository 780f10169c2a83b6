// The best of each row of logits, with what sampling needs besides.

import type { Backend } from "../backend.ts";
import { fail } from "../errors.ts";
import type { GpuTensor } from "./buffers.ts";
import type { Gpu } from "./gpu.ts";

export async function createCandidates(
  gpu: Gpu,
  _vocab: number,
  _maxSamples: number,
): Promise<Pick<Backend, "candidates" | "logits"> & { scratchBytes(): number }> {
  return {
    candidates: () => fail("unsupported", "candidates are not computed yet"),
    async logits(logits, row) {
      const { buffer, first, stride, cols } = logits as GpuTensor;
      return new Float32Array(await gpu.read(buffer, (first + row) * stride * 4, cols * 4));
    },
    scratchBytes: () => 0,
  };
}
