// The CPU backend: the contract's operations as calls into cpu.wasm, over one WebAssembly memory.
// Knows where tensors, weights and blocks lie in that memory; computes nothing itself. Never imports the GPU backend.

import type {
  Backend,
  Batch,
  Candidates,
  Norm,
  PreparedBatch,
  ReadNext,
  Request,
  Shape,
  States,
  Tensor,
  Weight,
} from "../backend.ts";
import { fail } from "../errors.ts";
import { GGML_TYPES, type GgmlType } from "../formats/gguf.ts";
import { allocate, type CpuModule, f32, f64, u8, u32 } from "../wasm.ts";

interface CpuTensor extends Tensor {
  readonly at: number;
}
interface CpuWeight extends Weight {
  readonly at: number;
}
interface CpuStates extends States {
  readonly values: number; // (2 parts, rows, nHeads, headDim)
  readonly lse: number; // (2 parts, rows, nHeads)
}
interface CpuBatch extends PreparedBatch {
  readonly ids: number; // (rows) u32
  readonly turns: number; // (rows, ropeDim / 2, 2) f32
  readonly slots: number; // (rows, 2) u32: address of the block, place in it
  readonly context: number; // addresses of the context's blocks
  readonly ctxLen: number;
  readonly tails: number; // (rows, tailStride) addresses
  readonly tailStride: number;
  readonly decLens: number; // (rows) u32
}

/** Rows of one forward: enough that unpacking weights costs little beside using them. */
const MAX_ROWS = 64;
/** The largest piece of a file that is held beside its packed form. */
const STAGING_BYTES = 1 << 20;
/** What WebAssembly memory can hold. */
export const WASM_BYTES = 2 ** 32 - 2 ** 16;
// topK's codes.
const NOT_FINITE = -1;
const NO_TOKEN = -2;

const at = (x: Tensor) => (x as CpuTensor).at;

/** A CPU backend over a fresh instance of cpu.wasm; at most `memoryLimit` bytes. */
export function createCpuBackend(cpu: CpuModule, shape: Shape, memoryLimit = WASM_BYTES): Backend {
  const { dim, hiddenDim, nLayers, nHeads, nKvHeads, headDim, ropeDim, vocab } = shape;
  const group = nHeads / nKvHeads;
  const heads = [nHeads, nKvHeads, headDim] as const;
  const limit = Math.min(memoryLimit, WASM_BYTES);
  const BLOCK = cpu.BLOCK.value;
  const layerBytes = cpu.kvLayerBytes(nKvHeads, headDim);
  const blockBytes = layerBytes * nLayers;
  const staticBytes = cpu.used();
  const blockAddress: number[] = [];

  function take(bytes: number, what: string): number {
    if (cpu.used() + bytes > limit) {
      const left = Math.max(0, limit - cpu.used());
      fail("memory", `${what}: ${count(bytes)} bytes needed, ${count(left)} left of the limit of ${count(limit)}`);
    }
    return allocate(cpu, bytes, what);
  }
  const newTensor = (rows: number, cols: number, what = "activations"): CpuTensor => ({
    at: take(rows * cols * 4, what),
    rows,
    cols,
  });

  // Scratch of the kernels, one piece for all, since they run one after another. It grows where a weight's type asks for more.
  let scratch = 0;
  let scratchSize = 0;
  function needScratch(bytes: number): void {
    if (bytes <= scratchSize) return;
    scratch = take(bytes, "scratch");
    scratchSize = bytes;
  }
  const attendBytes = cpu.attendScratchBytes(Math.max(MAX_ROWS, BLOCK) * group, headDim);
  const onePartBytes = 2 * nHeads * (headDim + 1) * 4;
  /** What an operation makes on its way. */
  const between = new Map<string, CpuTensor>();
  // A prepared batch: rewritten by each prepare. Tables grow with the sequences.
  let batchAt = 0;
  let batchWords = 0;
  const lseScratch = () => scratch + attendBytes;

  const typeId = (type: GgmlType) => GGML_TYPES[type].id;
  const pack = (type: GgmlType, cols: number) => cpu.panelBytes(typeId(type), cols);
  const panels = (rows: number) => Math.ceil(rows / 8);

  return {
    kind: "wasm",
    device: "WebAssembly SIMD, 1 thread",
    maxRows: MAX_ROWS,
    maxSamples: MAX_ROWS,
    blockTokens: BLOCK,
    blockBytes,
    movingBytes: 0,
    maxBlocks: Infinity,
    get usedBytes() {
      return cpu.used();
    },
    get peakBytes() {
      return cpu.peak();
    },

    lost: false,

    computes: (type) => pack(type, 256) > 0,
    weightBytes: (type, rows, cols) => panels(rows) * pack(type, cols),
    scratchBytes() {
      const widest = Math.max(dim, hiddenDim, nHeads * headDim);
      const activations = 4 * (2 * dim + 3 * nHeads * headDim + 2 * nKvHeads * headDim + 2 * hiddenDim + vocab);
      const tables = 16 * MAX_ROWS * (4 + ropeDim); // of a batch, four times over as they grow
      const kernels = 32 * widest + attendBytes + onePartBytes;
      return staticBytes + MAX_ROWS * (activations + 20 * nHeads + 3 * widest) + kernels + tables;
    },

    tensor: newTensor,
    tensors: (rows, cols) => cols.map((width) => newTensor(rows, width)),
    view(x, first, rows) {
      const { at, cols } = x as CpuTensor;
      return { at: at + first * cols * 4, rows, cols } as CpuTensor;
    },
    vector(values) {
      const tensor = newTensor(1, values.length, "parameters");
      f32(cpu, tensor.at, values.length).set(values);
      return tensor;
    },
    async weights(of) {
      for (const { name, type, cols } of of)
        if (pack(type, cols) === 0)
          fail("unsupported", `tensor "${name}": type ${type} with ${cols} columns is not computed`);
      return of.map((weight): CpuWeight => {
        const { name, type, rows, cols } = weight;
        const at = take(panels(rows) * pack(type, cols), `tensor "${name}"`);
        const id = typeId(type);
        needScratch(
          Math.max(
            cpu.linearScratchBytes(id, MAX_ROWS, cols, rows),
            cpu.embedScratchBytes(id, cols),
            attendBytes + Math.max(onePartBytes, MAX_ROWS * nHeads * 4),
          ),
        );
        return { ...weight, at };
      });
    },
    async upload(weight, read) {
      const { name, type, rows, cols, at } = weight as CpuWeight;
      await packRows(cpu, name, typeId(type), rows, cols, at, read);
    },
    states(rows): CpuStates {
      return {
        rows,
        values: take(2 * rows * nHeads * headDim * 4, "attention states"),
        lse: take(2 * rows * nHeads * 4, "attention states"),
      };
    },

    reserveBlocks(nBlocks, most = Infinity) {
      // In runs that grow with the cache, so that a long sequence asks for memory a few times only.
      while (blockAddress.length < nBlocks) {
        const { length } = blockAddress;
        const wanted = Math.max(nBlocks - length, Math.min(64, length >> 1, most - length));
        const fitting = Math.floor(Math.max(0, limit - cpu.used()) / blockBytes);
        const taken = fitting >= nBlocks - blockAddress.length ? Math.min(wanted, fitting) : wanted;
        const at = take(taken * blockBytes, `K/V of ${taken * BLOCK} tokens`);
        for (let i = 0; i < taken; i++) blockAddress.push(at + i * blockBytes);
      }
      return undefined;
    },
    copyBlock(from, to, nTokens) {
      // Keys lie dimension by dimension, so all of a block moves, whatever part of it is tokens.
      if (nTokens > 0)
        u8(cpu, 0, cpu.memory.buffer.byteLength).copyWithin(
          blockAddress[to],
          blockAddress[from],
          blockAddress[from] + blockBytes,
        );
    },

    forward: (_work, _batch, operations) => operations(),
    prepare(batch: Batch): CpuBatch {
      const rows = batch.ids.length;
      const tailStride = Math.max(0, ...(batch.tails?.blocks.map((blocks) => blocks.length) ?? []));
      const words = rows * (4 + ropeDim + tailStride) + batch.context.blocks.length;
      if (words > batchWords) {
        const wanted = Math.max(words, batchWords * 2);
        batchAt = take(wanted * 4, "batch");
        batchWords = wanted;
      }
      const view = u32(cpu, batchAt, words);
      let word = 0;
      const place = (length: number) => {
        const at = word;
        word += length;
        return at;
      };
      const ids = place(rows);
      view.set(batch.ids, ids);
      const turns = place(rows * ropeDim);
      view.set(new Uint32Array(batch.turns.buffer, batch.turns.byteOffset, rows * ropeDim), turns);
      const slots = place(rows * 2);
      for (let i = 0; i < rows * 2; i += 2) {
        view[slots + i] = blockAddress[batch.slots[i]];
        view[slots + i + 1] = batch.slots[i + 1];
      }
      const context = place(batch.context.blocks.length);
      batch.context.blocks.forEach((block, i) => {
        view[context + i] = blockAddress[block];
      });
      const decLens = place(rows);
      const tails = place(rows * tailStride);
      if (batch.tails) {
        view.set(batch.tails.lengths, decLens);
        batch.tails.blocks.forEach((blocks, row) => {
          blocks.forEach((block, i) => {
            view[tails + row * tailStride + i] = blockAddress[block];
          });
        });
      }
      const at = (index: number) => batchAt + index * 4;
      return {
        rows,
        ids: at(ids),
        turns: at(turns),
        slots: at(slots),
        context: at(context),
        ctxLen: batch.context.length,
        tails: at(tails),
        tailStride,
        decLens: at(decLens),
      };
    },

    embed(table, batch, out) {
      const { type, cols } = table;
      const { ids, rows } = batch as CpuBatch;
      cpu.embed((table as CpuWeight).at, typeId(type), ids, at(out), rows, cols, scratch);
    },
    unembed: (x, norm, table, out) => product(normalised(x, norm), table, out, 0),
    linear(x, norm, weights, outs) {
      const from = norm ? normalised(x, norm) : x;
      weights.forEach((weight, i) => {
        product(from, weight, outs[i], 0);
      });
    },
    linearGated(x, norm, gate, up, out) {
      const from = normalised(x, norm);
      const ups = scratchRows("up", x.rows, up.rows);
      product(from, gate, out, 0);
      product(from, up, ups, 0);
      cpu.swiglu(at(out), ups.at, out.rows * out.cols);
    },
    linearAdd: (x, weight, out) => product(x, weight, out, 1),
    rmsNorm: (x, norm) => normalise(x, norm, x),
    addBias(x, bias) {
      cpu.addBias(at(x), at(bias), x.rows, x.cols);
    },
    ropeAppend(q, k, v, layer, batch) {
      const { turns, slots, rows } = batch as CpuBatch;
      const halves = shape.ropePairs === "halves" ? 1 : 0;
      cpu.ropeAppend(at(q), at(k), at(v), turns, slots, layer * layerBytes, rows, ...heads, ropeDim, halves);
    },
    linearRopeAppend(x, norm, weights, qkv, layer, batch) {
      this.linear(x, norm, weights, qkv);
      this.ropeAppend(qkv[0], qkv[1], qkv[2], layer, batch);
    },
    attendPrefill(q, layer, batch, out) {
      const { context, ctxLen, rows } = batch as CpuBatch;
      cpu.attendPrefill(at(q), context, ctxLen, layer * layerBytes, at(out), lseScratch(), rows, ...heads, scratch);
    },
    attendContext(q, layer, batch, states) {
      const { context, ctxLen, rows } = batch as CpuBatch;
      const { values, lse } = states as CpuStates;
      cpu.attendContext(at(q), context, ctxLen, layer * layerBytes, values, lse, rows, ...heads, scratch);
    },
    attendDecode(q, layer, batch, states) {
      const { tails, tailStride, decLens, rows } = batch as CpuBatch;
      const { values, lse } = states as CpuStates;
      // The second part follows the first directly, for as many rows as the batch has.
      const second = [values + rows * nHeads * headDim * 4, lse + rows * nHeads * 4] as const;
      cpu.attendDecode(at(q), tails, tailStride, decLens, layer * layerBytes, ...second, rows, ...heads, scratch);
    },
    mergeStates(states, batch, out) {
      const { values, lse } = states as CpuStates;
      cpu.mergeStates(values, lse, at(out), 2, batch.rows * nHeads, headDim);
    },
    attendOnePart(q, layer, batch, out) {
      const { context, ctxLen, tails, tailStride, decLens, rows } = batch as CpuBatch;
      const [offset, states] = [layer * layerBytes, scratch + attendBytes];
      const both = [context, ctxLen, tails, tailStride, decLens] as const;
      cpu.attendOnePart(at(q), ...both, offset, at(out), rows, ...heads, states, scratch);
    },
    // Two parts won at every n from 2 on and every prompt from 256 tokens on, and one sample costs the same either way
    // (docs/performance-cpu.md, attention alone).
    choosePath: (nSamples) =>
      nSamples > 1
        ? { path: "two-part", reason: "several samples share the prompt: it is read once a step for all of them" }
        : { path: "one-part", reason: "one sample at a time: there is nothing to share" },

    drawsAhead: false,
    candidates: async (logits, requests, k) => candidates(cpu, logits as CpuTensor, requests, k),
    async logits(logits, row) {
      const { at, cols } = logits as CpuTensor;
      return f32(cpu, at + row * cols * 4, cols).slice();
    },
    finished: async () => {},
    dispose() {
      blockAddress.length = 0;
    },
  };

  function product(x: Tensor, weight: Weight, out: Tensor, add: number): void {
    const { at, type, rows, cols } = weight as CpuWeight;
    cpu.linear((x as CpuTensor).at, at, typeId(type), (out as CpuTensor).at, x.rows, cols, rows, add, scratch);
  }

  function normalise(x: Tensor, { weight, eps }: Norm, out: Tensor): void {
    const rows = (x.rows * x.cols) / weight.cols;
    cpu.rmsNorm((x as CpuTensor).at, (weight as CpuTensor).at, eps, (out as CpuTensor).at, rows, weight.cols);
  }

  function normalised(x: Tensor, norm: Norm): Tensor {
    const out = scratchRows("normed", x.rows, x.cols);
    normalise(x, norm, out);
    return out;
  }

  /** Rows of this width for use within an operation. */
  function scratchRows(name: "normed" | "up", rows: number, cols: number): CpuTensor {
    const made = between.get(name);
    const kept = made && made.cols >= cols ? made : newTensor(MAX_ROWS, cols);
    between.set(name, kept);
    return { at: kept.at, rows, cols };
  }
}

function candidates(cpu: CpuModule, logits: CpuTensor, requests: readonly Request[], k: number): Candidates {
  const { rows, cols } = logits;
  const width = Math.min(k, cols);
  const found: Candidates = {
    k: width,
    stride: width,
    ids: new Uint32Array(rows * width),
    adjusted: new Float32Array(rows * width),
    raw: new Float32Array(rows * width),
    rawLse: new Float64Array(rows),
    adjustedLse: new Float64Array(rows),
    target: new Float32Array(rows),
  };
  const mark = cpu.mark();
  const most = Math.max(...requests.map((request) => request.edits.length));
  const edits = allocate(cpu, most * 4 + width * 12 + 16, "candidates");
  const ids = edits + most * 4;
  const adjusted = ids + width * 4;
  const raw = adjusted + width * 4;
  const lses = allocate(cpu, 16, "candidates");
  try {
    requests.forEach((request, row) => {
      u32(cpu, edits, request.edits.length).set(request.edits);
      const at = logits.at + row * cols * 4;
      const { inverseTemperature, target } = request;
      const status = cpu.topK(
        at,
        cols,
        edits,
        request.edits.length / 4,
        inverseTemperature,
        width,
        ids,
        adjusted,
        raw,
        lses,
      );
      if (status === NO_TOKEN) fail("format", "the logits leave no token possible: all are -Infinity");
      if (status === NOT_FINITE)
        fail("format", "the model computed logits that are not numbers: its weights are broken");
      if (status < 0) fail("memory", "candidates: no room left in WebAssembly memory (4 GiB in all)");
      found.ids.set(u32(cpu, ids, width), row * width);
      found.adjusted.set(f32(cpu, adjusted, width), row * width);
      found.raw.set(f32(cpu, raw, width), row * width);
      [found.rawLse[row], found.adjustedLse[row]] = f64(cpu, lses, 2);
      if (target !== undefined) found.target[row] = f32(cpu, at + target * 4, 1)[0];
    });
  } finally {
    cpu.release(mark);
  }
  return found;
}

/** Reads a weight's rows in pieces of whole panels, and packs each into its place. */
async function packRows(
  cpu: CpuModule,
  name: string,
  type: number,
  rows: number,
  cols: number,
  at: number,
  read: ReadNext,
): Promise<void> {
  const rowBytes = cpu.rowBytes(type, cols);
  const panelBytes = cpu.panelBytes(type, cols);
  const step = 8 * Math.max(1, Math.floor(STAGING_BYTES / (8 * rowBytes)));
  for (let first = 0; first < rows; first += step) {
    const count = Math.min(step, rows - first);
    const bytes = await read(count * rowBytes);
    const mark = cpu.mark();
    const source = allocate(cpu, bytes.length, `staging of tensor "${name}"`);
    const codes = allocate(cpu, cols, `staging of tensor "${name}"`);
    u8(cpu, source, bytes.length).set(bytes);
    for (let row = 0; row < count; row += 8) {
      const panel = at + ((first + row) / 8) * panelBytes;
      const status = cpu.packPanel(type, source + row * rowBytes, Math.min(8, count - row), cols, panel, codes);
      if (status < 0) {
        const last = first + Math.min(row + 8, count) - 1;
        fail("format", `tensor "${name}": a weight in rows ${first + row} to ${last} is infinite or not a number`);
      }
    }
    cpu.release(mark);
  }
}

const count = (bytes: number) => bytes.toLocaleString("en");
