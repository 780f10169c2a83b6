// The WebGPU backend: the contract's operations as dispatches of shaders, recorded in order, and submitted when results are awaited; the
// beginning of a long forward at once. Puts the families together; computes nothing itself. Never imports the CPU backend.

import type { Backend, Shape } from "../backend.ts";
import { createAttention } from "./attention.ts";
import { createBuffers, type GpuTensor, placeOf } from "./buffers.ts";
import { createCandidates } from "./candidates.ts";
import type { OpenedDevice } from "./device.ts";
import { createGpu, floatBits } from "./gpu.ts";
import type { Trials } from "./kernels.ts";
import { createLinear } from "./linear.ts";
import { RECORDING_BYTES } from "./recorder.ts";
import { choosePath, costsOn } from "./switch.ts";

/** Rows of a prefill chunk: enough for matrix products to be worth their weights' reading, few enough to let a page breathe. */
const MAX_ROWS = 256;
/** Rows of a decode step, and rows whose logits are wanted at a time. */
const MAX_SAMPLES = 128; // whole matrices: steps of fewer are rounded up to them (buffers.ts)

/** A WebGPU backend on a device of its own use; at most `memoryLimit` bytes. Errors: `internal` where a shader is refused, `memory`. */
export async function createWebGpuBackend(
  opened: OpenedDevice,
  shape: Shape,
  memoryLimit = Infinity,
  trials: Trials = {},
): Promise<Backend> {
  const { dim, hiddenDim, nHeads, nKvHeads, headDim, ropeDim, vocab } = shape;
  const gpu = createGpu(opened, memoryLimit, trials.texts);
  const { kernels } = gpu;
  const made = [
    (async () => createBuffers(gpu))(),
    kernels.get("rms_norm", { constants: { IN_PLACE: 1 } }),
    kernels.get("add_bias"),
    createLinear(
      gpu,
      {
        maxRows: MAX_ROWS,
        maxSamples: MAX_SAMPLES,
        widest: Math.max(dim, hiddenDim, nHeads * headDim),
        hiddenDim,
        norms: 2 * shape.nLayers,
      },
      trials,
    ),
    createAttention(gpu, shape, MAX_SAMPLES, trials),
    createCandidates(gpu, shape.vocab, MAX_SAMPLES),
  ] as const;
  const [buffers, rmsNorm, addBias, linear, attention, { drawn, ...candidates }] = await Promise.all(made).catch(
    async (error) => {
      await Promise.allSettled(made); // none of them allocates after the disposal
      gpu.dispose();
      throw error;
    },
  );
  // Where the GPU is a program, measuring takes longer than it could ever save.
  const costs = opened.isSoftware || trials.texts ? undefined : await costsOn(opened, shape);
  const LANES = 64;

  return {
    kind: "webgpu",
    device: `${opened.name} (${[...abilitiesInUse(opened)].join(", ") || "core WebGPU"})`,
    maxRows: MAX_ROWS,
    maxSamples: MAX_SAMPLES,
    drawsAhead: true,
    ...attention,
    ...candidates,
    ...linear,
    get usedBytes() {
      return gpu.usedBytes;
    },
    get peakBytes() {
      return gpu.peakBytes;
    },
    get lost() {
      return gpu.lost;
    },

    scratchBytes() {
      const { tensorBytes } = buffers;
      const widths = [dim, nHeads * headDim + 2 * nKvHeads * headDim, nHeads * headDim, hiddenDim];
      const activations = widths.reduce((sum, cols) => sum + tensorBytes(MAX_ROWS, cols), 0);
      const batch = 4 * MAX_ROWS * (4 + ropeDim);
      return (
        RECORDING_BYTES +
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

    tensors: buffers.tensors,

    choosePath: (nSamples, ctxLen) => choosePath(costs, nSamples, ctxLen),

    prepare(batch) {
      linear.begin(batch.ids.length, batch.tails !== undefined);
      const prepared = buffers.prepare(batch, linear.reading, drawn());
      attention.settle(); // behind the writing, to be submitted with the forward
      return prepared;
    },
    forward(work, batch, operations) {
      gpu.repeat([...work, linear.productKind, ...attention.formOf(batch)], operations);
    },
    linearRopeAppend(x, norm, weights, outs, layer, batch) {
      const append = attention.appending(layer, batch);
      if (append) return linear.linear(x, norm, weights, outs, append);
      linear.linear(x, norm, weights, outs);
      attention.ropeAppend(outs[0], outs[1], outs[2], layer, batch);
    },
    rmsNorm(x, { weight, eps }) {
      const [to, by] = [x, weight] as GpuTensor[];
      const sizes = [by.cols, placeOf(to), to.stride, placeOf(to), to.stride, floatBits(eps)];
      // The first binding is not read: any buffer that is not written will do.
      gpu.run(rmsNorm, [by.buffer, by.buffer, to.buffer], sizes, to.cols / by.cols, to.rows);
    },
    addBias(x, bias) {
      const [to, by] = [x, bias] as GpuTensor[];
      gpu.run(addBias, [by.buffer, to.buffer], [placeOf(to), to.stride, to.cols], Math.ceil(to.cols / LANES), to.rows);
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
