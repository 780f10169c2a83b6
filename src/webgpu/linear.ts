// Weights and products with them: packing, embedding, matrix times vectors and matrices.

import type { Backend, PreparedBatch, Shape, Tensor, Weight } from "../backend.ts";
import { fail } from "../errors.ts";
import type { Gpu } from "./gpu.ts";

type Family = Pick<Backend, "computes" | "weightBytes" | "weight" | "embed"> & {
  /** decoding: whether the rows are samples (the kernel class goes by their number) or a prompt's tokens (always that of many rows). */
  linear(x: Tensor, weight: Weight, out: Tensor, decoding: boolean): void;
  linearAdd(x: Tensor, weight: Weight, out: Tensor, decoding: boolean): void;
  scratchBytes(): number;
};

export async function createLinear(
  _gpu: Gpu,
  _shape: Shape,
  _maxRows: number,
  _kernelClass: "few" | "many" | undefined,
): Promise<Family> {
  const none = () => fail("unsupported", "products are not computed yet");
  return {
    computes: () => false,
    weightBytes: none,
    weight: none,
    embed: (_table: Weight, _batch: PreparedBatch, _out: Tensor) => none(),
    linear: none,
    linearAdd: none,
    scratchBytes: () => 0,
  };
}
