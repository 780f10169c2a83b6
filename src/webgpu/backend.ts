// The WebGPU backend: the contract's operations as dispatches of shaders, recorded in order, submitted when results are awaited.
// Puts the families together; computes nothing itself. Never imports the CPU backend.

import type { Backend, Shape } from "../backend.ts";
import { createAttention } from "./attention.ts";
import { createBuffers, type GpuTensor } from "./buffers.ts";
import { createCandidates } from "./candidates.ts";
import type { OpenedDevice } from "./device.ts";
import { createGpu, floatBits } from "./gpu.ts";
import { createLinear } from "./linear.ts";

/** What tests fix: kernels for few or for many rows whatever their number; other shaders; abilities left unused. */
export interface Trials {
  readonly kernelClass?: "few" | "many";
  readonly texts?: Readonly<Record<string, string>>;
}

/** Rows of a prefill chunk: enough for matrix products to be worth their weights' reading, few enough to let a page breathe. */
const MAX_ROWS = 256;
/** Rows of a decode step, and rows whose logits are wanted at a time. */
const MAX_SAMPLES = 128;

/** A WebGPU backend on a device of its own use; at most `memoryLimit` bytes. Errors: `internal` where a shader is refused, `memory`. */
export async function createWebGpuBackend(
  opened: OpenedDevice,
  shape: Shape,
  memoryLimit = Infinity,
  { kernelClass, texts }: Trials = {},
): Promise<Backend> {
  const { dim, hiddenDim, nHeads, nKvHeads, headDim, ropeDim, vocab } = shape;
  const gpu = createGpu(opened, memoryLimit, texts);
  const buffers = createBuffers(gpu);
  const { kernels } = gpu;
  const made = Promise.all([
    kernels.get("rms_norm", { constants: { IN_PLACE: 0 } }),
    kernels.get("rms_norm", { constants: { IN_PLACE: 1 } }),
    kernels.get("add_bias"),
    kernels.get("swiglu"),
    createLinear(gpu, shape, MAX_ROWS, kernelClass),
    createAttention(gpu, shape, MAX_ROWS, MAX_SAMPLES),
    createCandidates(gpu, shape.vocab, MAX_SAMPLES),
  ]);
  made.catch(() => gpu.dispose());
  const [rmsNorm, rmsNormInPlace, addBias, swiglu, linear, attention, candidates] = await made;
  const LANES = 64;
  /** The kernel class of the forward at hand: a prompt is always computed as for many rows, so that its parting changes no bit. */
  let decoding = true;

  return {
    kind: "webgpu",
    device: `${opened.name} (${[...abilitiesInUse(opened)].join(", ") || "core WebGPU"})`,
    maxRows: MAX_ROWS,
    maxSamples: MAX_SAMPLES,
    ...attention,
    ...candidates,
    get usedBytes() {
      return gpu.usedBytes;
    },
    get lost() {
      return gpu.lost;
    },

    computes: linear.computes,
    weightBytes: linear.weightBytes,
    weight: linear.weight,
    scratchBytes() {
      const { tensorBytes } = buffers;
      const perRow = [dim, dim, nHeads * headDim, nHeads * headDim, nKvHeads * headDim, nKvHeads * headDim];
      const activations = [...perRow, hiddenDim, hiddenDim].reduce((sum, cols) => sum + tensorBytes(MAX_ROWS, cols), 0);
      const batch = 4 * MAX_ROWS * (4 + ropeDim);
      return (
        activations +
        tensorBytes(MAX_SAMPLES, vocab) +
        batch +
        linear.scratchBytes() +
        attention.scratchBytes() +
        candidates.scratchBytes()
      );
    },

    tensor: buffers.tensor,
    view: buffers.view,
    vector: buffers.vector,

    prepare(batch) {
      decoding = batch.tails !== undefined;
      return buffers.prepare(batch);
    },

    embed: linear.embed,
    linear: (x, weight, out) => linear.linear(x, weight, out, decoding),
    linearAdd: (x, weight, out) => linear.linearAdd(x, weight, out, decoding),
    rmsNorm(x, weight, eps, out) {
      const [from, by, to] = [x, weight, out] as GpuTensor[];
      const inPlace = from.buffer === to.buffer;
      const sizes = [by.cols, from.stride, from.first, to.first, floatBits(eps)];
      const parts = from.cols / by.cols;
      // In place the first binding is not read: any buffer that is not written will do.
      if (inPlace) gpu.run(rmsNormInPlace, [by.buffer, by.buffer, to.buffer], sizes, parts, from.rows);
      else gpu.run(rmsNorm, [from.buffer, by.buffer, to.buffer], sizes, parts, from.rows);
    },
    addBias(x, bias) {
      const [to, by] = [x, bias] as GpuTensor[];
      gpu.run(addBias, [by.buffer, to.buffer], [to.stride, to.first], Math.ceil(to.stride / LANES), to.rows);
    },
    swiglu(gate, up) {
      const [to, by] = [gate, up] as GpuTensor[];
      const width = to.stride / 4;
      gpu.run(swiglu, [to.buffer, by.buffer], [width, to.first, by.first], Math.ceil(width / LANES), to.rows);
    },

    finished: gpu.finished,
    dispose: gpu.dispose,
  };
}

function* abilitiesInUse({ abilities }: OpenedDevice): Generator<string> {
  if (abilities.f16) yield "f16";
  if (abilities.subgroups) yield "subgroups";
  if (abilities.matrix) yield "subgroup matrices";
}
