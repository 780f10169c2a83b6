// The backends that one suite of tests runs over, and how tests put numbers in and take them out through the contract alone.
// Knows how each backend is made, in any runtime; nothing of what its operations should compute.

import * as assert from "uvu/assert";
import type { Backend, Batch, Shape, Tensor, Weight } from "../../src/backend.ts";
import { createCpuBackend } from "../../src/cpu/backend.ts";
import { FurcateError } from "../../src/errors.ts";
import type { GgmlType } from "../../src/formats/gguf.ts";
import { newCpuModule } from "../../src/wasm.ts";
import { createWebGpuBackend } from "../../src/webgpu/backend.ts";
import type { OpenedDevice } from "../../src/webgpu/device.ts";
import type { Trials } from "../../src/webgpu/kernels.ts";

export interface BackendUnderTest {
  readonly name: string;
  /** Whether a row's result is the same, bit for bit, whatever rows come with it and however its attention is parted. */
  readonly exact: boolean;
  /** Bounds at least as wide as this hold where products of so many rows or more take their activations in 16 bits: all, or all but
   *  unembed. */
  readonly halves?: Bound & { readonly rows: number; readonly all: boolean };
  /** Kernels that did not compile, by their labels: those of a variant are given up without a word, so that others compute instead. */
  readonly refused?: ReadonlySet<string>;
  create(shape?: Partial<Shape>, memoryLimit?: number, trials?: Trials): Promise<Backend>;
}

/** WebAssembly. */
export const wasmBackend: BackendUnderTest = {
  name: "wasm",
  exact: true,
  create: async (shape, memoryLimit) => createCpuBackend(await newCpuModule(), { ...SHAPE, ...shape }, memoryLimit),
};

/** Inputs of order 1 are off by up to 2^-12 each, and results that go on as activations by as much again. */
const HALVES = { atol: 1.5e-3, rtol: 1e-3, rows: 5, all: true };
/** Where they are multiplied and summed in 16 bits too (shaders/heads/in_halves.wgsl), twice as much. */
const HALF_SUMS = { atol: 3e-3, rtol: 2e-3, rows: 5, all: false };

/** One device for all tests, which compiles each kernel once: disposing of a backend does not end it. */
export function webGpuBackend(opened: OpenedDevice): BackendUnderTest {
  const { device } = opened;
  const refused = new Set<string>();
  const compile = device.createComputePipelineAsync.bind(device);
  device.createComputePipelineAsync = async (descriptor) => {
    try {
      return await compile(descriptor);
    } catch (error) {
      refused.add(descriptor.label ?? "");
      throw error;
    }
  };
  return {
    name: "webgpu",
    refused,
    exact: false,
    halves: opened.abilities.matrix ? HALVES : opened.abilities.f16 ? HALF_SUMS : undefined,
    create: (shape, memoryLimit, trials) =>
      createWebGpuBackend({ ...opened, isUsers: true }, { ...SHAPE, ...shape }, memoryLimit, {
        asLarge: true,
        ...trials,
      }),
  };
}

/** For tests that look at one operation and not at a model's sizes; heads as in a case of attention, whose kernels take long to compile. */
const SHAPE: Shape = {
  dim: 64,
  hiddenDim: 128,
  nLayers: 1,
  nHeads: 3,
  nKvHeads: 3,
  headDim: 6,
  ropeDim: 6,
  vocab: 64,
  ropePairs: "interleaved",
};

/** Largest error allowed: |got - want| ≤ atol + rtol · |want|. */
export interface Bound {
  readonly atol: number;
  readonly rtol: number;
}

/** Fails on the first number out of bounds; NaN is. Returns the largest |got - want|. */
export function close(got: ArrayLike<number>, want: ArrayLike<number>, bound: Bound, what: string): number {
  assert.is(got.length, want.length, `${what}: length`);
  let worst = 0;
  for (let i = 0; i < want.length; i++) {
    const error = Math.abs(got[i] - want[i]);
    if (!(error <= bound.atol + bound.rtol * Math.abs(want[i])))
      assert.unreachable(`${what}: number ${i} is ${got[i]}, expected ${want[i]} (off by ${error})`);
    worst = Math.max(worst, error);
  }
  return worst;
}

/** Equal bit for bit: 0 is not -0, and NaN is itself. */
export function sameBits(got: Float32Array, want: Float32Array, what: string): void {
  assert.is(got.length, want.length, `${what}: length`);
  const [a, b] = [bitsOf(got), bitsOf(want)];
  for (let i = 0; i < a.length; i++)
    if (a[i] !== b[i]) assert.unreachable(`${what}: number ${i} is ${got[i]}, expected the bits of ${want[i]}`);
}

const bitsOf = (x: Float32Array) => new Uint32Array(x.buffer, x.byteOffset, x.length);

/** Fails unless `run` ends in a FurcateError of this code whose message matches. */
export async function rejects(run: () => unknown, code: string, message: RegExp, what = ""): Promise<void> {
  try {
    await run();
  } catch (error) {
    assert.instance(error, FurcateError, `${what} throws ${error}, expected a FurcateError`);
    assert.is((error as FurcateError).code, code, `${what}: ${(error as FurcateError).message}`);
    assert.match((error as FurcateError).message, message);
    return;
  }
  assert.unreachable(`${what} throws nothing, expected a FurcateError "${code}"`);
}

/** A batch of rows that need no cache. */
export function plainBatch(ids: ArrayLike<number>, ropeDim = 0): Batch {
  const turns = Float32Array.from({ length: ids.length * ropeDim }, (_, i) => 1 - (i & 1));
  return {
    ids: Uint32Array.from(ids),
    turns,
    slots: new Uint32Array(2 * ids.length),
    context: { blocks: new Uint32Array(0), length: 0 },
  };
}

/** A weight from its file's bytes. */
export async function newWeight(
  backend: Backend,
  type: string,
  rows: number,
  cols: number,
  data: Uint8Array,
): Promise<Weight> {
  const [weight] = await newWeights(backend, [{ type, rows, data }], cols);
  return weight;
}

/** Weights side by side, from their file's bytes. */
export async function newWeights(
  backend: Backend,
  of: readonly { type: string; rows: number; data: Uint8Array }[],
  cols: number,
): Promise<readonly Weight[]> {
  const weights = await backend.weights(
    of.map(({ type, rows }) => ({ name: "test", type: type as GgmlType, rows, cols })),
  );
  for (const [i, { data }] of of.entries()) {
    let at = 0;
    await backend.upload(weights[i], async (length) => {
      at += length;
      return data.slice(at - length, at);
    });
  }
  return weights;
}

/** A tensor with these finite values (rows, cols); rows ≤ maxRows. */
export async function newTensor(
  backend: Backend,
  values: ArrayLike<number>,
  rows: number,
  cols: number,
  ropeDim: number,
): Promise<Tensor> {
  const out = backend.tensor(rows, cols);
  await fill(backend, out, values, ropeDim);
  return out;
}

/** Puts finite values (rows, cols) into a tensor; rows ≤ maxRows. */
export async function fill(backend: Backend, out: Tensor, values: ArrayLike<number>, ropeDim: number): Promise<void> {
  const { rows, cols } = out;
  // A table of F32 is what the contract takes in whole matrices; its rows, looked up in order, are the tensor.
  const table = await newWeight(backend, "F32", rows, cols, new Uint8Array(Float32Array.from(values).buffer));
  const ids = Array.from({ length: rows }, (_, i) => i);
  backend.embed(table, backend.prepare(plainBatch(ids, ropeDim)), out);
}

/** All values of a tensor. */
export async function valuesOf(backend: Backend, tensor: Tensor): Promise<Float32Array> {
  const out = new Float32Array(tensor.rows * tensor.cols);
  const rows = Array.from({ length: tensor.rows }, (_, row) => backend.logits(tensor, row));
  for (const [row, values] of (await Promise.all(rows)).entries()) out.set(values, row * tensor.cols);
  return out;
}
