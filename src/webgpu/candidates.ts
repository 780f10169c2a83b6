// The best of each row of logits, with what sampling needs besides: two dispatches, one read for all rows.
// Knows requests, scratch and results as they lie in buffers; the shaders top_k_groups and top_k find what is in them.

import type { Backend, Candidates, Edits, Request } from "../backend.ts";
import { fail } from "../errors.ts";
import { type GpuTensor, readRow } from "./buffers.ts";
import type { Gpu } from "./gpu.ts";

// As in the shaders.
const CHUNK = 2048;
const GROUP = 32;
/** Words of a row's masses. */
const BINS = 2048;
/** Candidates that the GPU picks at most. More are rare (scores with many alternatives): those rows come back whole. */
const MOST = 128;
/** Ids that a double holds beside a logit's key. */
const MOST_IDS = 2 ** 21;
/** Words of a row's results before its candidates. */
const HEAD = 8;
const BROKEN = 0xffffffff;
const IMPOSSIBLE = 0x007fffff;
/** No target. */
const NONE = 0xffffffff;
const NO_UNIFORMS: readonly number[] = [];
/** Edits and draws that there is room for from the start. */
const EDITS = 4096;
/** Rows that come back whole are read in pieces of about this size. */
const PIECE_BYTES = 8 << 20;

/** For rows of `vocab` logits, `maxSamples` at a time; others make the scratch grow. */
export async function createCandidates(
  gpu: Gpu,
  vocab: number,
  maxSamples: number,
): Promise<Pick<Backend, "candidates" | "logits"> & { drawn(): GPUBuffer; scratchBytes(): number }> {
  if (vocab > MOST_IDS) fail("unsupported", `the vocabulary has ${vocab} tokens, expected at most ${MOST_IDS}`);
  const groupsOf = (EDITS: 0 | 1) => gpu.kernels.get("top_k_groups", { constants: { EDITS } });
  const [plainGroups, editedGroups, topK] = await Promise.all([
    groupsOf(0),
    groupsOf(1),
    gpu.kernels.get("top_k", { constants: { LANES: lanesOf(gpu) } }),
  ]);

  const groups = (cols: number) => Math.ceil(cols / GROUP);
  const chunks = (cols: number) => Math.ceil(cols / CHUNK);
  const keysStride = (cols: number) => groups(cols) + BINS;
  const needs = {
    requests: (rows: number, edits: number) => (2 * rows + edits) * 16,
    keys: (rows: number, cols: number) => rows * keysStride(cols) * 4,
    stats: (rows: number, cols: number) => rows * chunks(cols) * 16,
    results: (rows: number, draws: number) => (rows * (HEAD + 3 * MOST) + 2 * roomOf(draws)) * 4,
    drawn: (rows: number) => rows * 4,
  };
  let requests = gpu.buffer(needs.requests(maxSamples, EDITS), "requests");
  let keys = gpu.buffer(needs.keys(maxSamples, vocab), "largest logits");
  let stats = gpu.buffer(needs.stats(maxSamples, vocab), "sums of logits");
  let results = gpu.buffer(needs.results(maxSamples, maxSamples), "candidates");
  let drawn = gpu.buffer(needs.drawn(maxSamples), "drawn tokens");
  let words = new Uint32Array(requests.size / 4);
  /** What was found last, and before; by turns. */
  const found = [0, 1].map(() => ({ results: new ArrayBuffer(results.size), sums: sumsOf(maxSamples) }));

  /** The buffer where it is large enough, else a larger one in its place. */
  function atLeast(buffer: GPUBuffer, bytes: number): GPUBuffer {
    if (bytes <= buffer.size) return buffer;
    const larger = gpu.buffer(2 ** Math.ceil(Math.log2(bytes)), buffer.label);
    gpu.free(buffer);
    return larger;
  }

  /** Of so many rows, of which the first have requests. drawn: the word of the results where the tokens of draws begin. */
  function writeRequests(of: readonly Request[], rows: number, nDraws: number, drawn: number): void {
    const count = of.reduce((sum, { edits }) => sum + edits.length / 4, nDraws);
    requests = atLeast(requests, needs.requests(rows, count));
    if (requests.size > words.byteLength) words = new Uint32Array(requests.size / 4);
    const floats = new Float32Array(words.buffer);
    words.fill(0, of.length * 8, rows * 8);
    let next = 2 * rows;
    const rawAfter = roomOf(nDraws);
    for (let row = 0; row < of.length; row++) {
      const { edits, inverseTemperature, target = NONE, uniforms = NO_UNIFORMS } = of[row];
      const at = row * 8;
      words[at] = next;
      words[at + 1] = edits.length / 4;
      floats[at + 2] = inverseTemperature;
      words[at + 3] = target;
      if (edits.length > 0) words.set(edits, next * 4);
      next += edits.length / 4;
      words[at + 4] = next;
      words[at + 5] = uniforms.length;
      words[at + 6] = drawn;
      words[at + 7] = drawn + rawAfter;
      drawn += uniforms.length;
      for (let i = 0; i < uniforms.length; i++) {
        // What is left of all mass, which a double holds exactly; all of it has no such words, but that draw is of the best.
        const left = Math.min((1 - uniforms[i]) * 2 ** 32, 2 ** 32 - 1);
        const whole = Math.floor(left);
        words[next * 4] = whole;
        words[next * 4 + 1] = (left - whole) * 2 ** 32;
        next++;
      }
    }
    // Nothing that is recorded and not yet submitted reads the requests: nothing need be submitted before.
    gpu.device.queue.writeBuffer(requests, 0, words, 0, next * 4);
  }

  /** k ≤ MOST. What is dispatched and read goes by all rows, however many of them have requests: see buffers.ts, computedRows. */
  async function best(logits: GpuTensor, of: readonly Request[], k: number): Promise<Candidates> {
    const { buffer, first, rows, cols, stride } = logits;
    const width = HEAD + 3 * k;
    const nDraws = drawsOf(of);
    writeRequests(of, rows, nDraws, rows * width);
    keys = atLeast(keys, needs.keys(rows, cols));
    stats = atLeast(stats, needs.stats(rows, cols));
    results = atLeast(results, needs.results(rows, nDraws));
    drawn = atLeast(drawn, needs.drawn(rows));
    const topKGroups = of.some(({ edits }) => edits.length > 0) ? editedGroups : plainGroups;
    gpu.repeat([topKGroups, buffer, first, rows, cols, k], () => {
      const sizes = [cols, stride / 4, first, groups(cols), chunks(cols), keysStride(cols)];
      gpu.run(topKGroups, [buffer, requests, keys, stats], sizes, chunks(cols), rows);
      gpu.run(topK, [buffer, requests, keys, stats, results, drawn], [...sizes, k], rows);
    });
    const to = found.shift() as (typeof found)[0];
    found.push(to);
    if (results.size > to.results.byteLength) to.results = new ArrayBuffer(results.size);
    if (rows > to.sums.rawLse.length) to.sums = sumsOf(rows);
    const into = to.results;
    await gpu.read(results, 0, (rows * width + 2 * roomOf(nDraws)) * 4, into);
    return unpack(into, of, k, nDraws, rows * width, to.sums);
  }

  /** The first rows of a tensor. */
  async function* wholeRows({ buffer, first, cols, stride }: GpuTensor, rows: number): AsyncGenerator<Float32Array> {
    const atOnce = Math.max(1, Math.floor(PIECE_BYTES / (stride * 4)));
    for (let from = 0; from < rows; from += atOnce) {
      const count = Math.min(atOnce, rows - from);
      const piece = new Float32Array(await gpu.read(buffer, (first + from) * stride * 4, count * stride * 4));
      for (let row = 0; row < count; row++) yield piece.subarray(row * stride, row * stride + cols);
    }
  }

  return {
    async candidates(logits, of, k) {
      const tensor = logits as GpuTensor;
      const width = Math.min(k, tensor.cols);
      if (width <= MOST) return best(tensor, of, width);
      // The sums, the targets, the draws beyond and the errors are the GPU's in any case.
      const size = of.length * width;
      const found = {
        k: width,
        stride: width,
        ids: new Uint32Array(size),
        adjusted: new Float32Array(size),
        raw: new Float32Array(size),
      };
      const { rawLse, adjustedLse, target, beyond, drawn } = await best(tensor, of, 1);
      let row = 0;
      for await (const raw of wholeRows(tensor, of.length)) {
        bestOfRow(raw, of[row].edits, found, row);
        row++;
      }
      return { ...found, rawLse, adjustedLse, target, beyond, drawn };
    },
    async logits(logits, row) {
      return readRow(gpu, logits as GpuTensor, row);
    },
    drawn: () => drawn,
    scratchBytes: () =>
      needs.requests(maxSamples, EDITS) +
      needs.keys(maxSamples, vocab) +
      needs.stats(maxSamples, vocab) +
      needs.results(maxSamples, maxSamples) +
      needs.drawn(maxSamples),
  };
}

/** Words for so many draws, in steps, so that one draw more or less changes nothing that is dispatched or read. */
const roomOf = (draws: number) => 2 ** Math.ceil(Math.log2(draws));

/** Of a row's one workgroup: as many as its loads and exponentials keep busy, where a GPU has them. */
function lanesOf({ isSoftware, limits }: Gpu): number {
  const most = Math.min(limits.maxComputeInvocationsPerWorkgroup, limits.maxComputeWorkgroupSizeX);
  return most < 512 || isSoftware ? 256 : 512;
}

function drawsOf(of: readonly Request[]): number {
  let sum = 0;
  for (const { uniforms = NO_UNIFORMS } of of) sum += uniforms.length;
  return sum;
}

const sumsOf = (rows: number) => ({
  rawLse: new Float64Array(rows),
  adjustedLse: new Float64Array(rows),
  target: new Float32Array(rows),
  drawn: new Uint32Array(rows),
});

/** drawn: as in writeRequests. Errors: `format` where a row has logits that are not numbers, or no possible token. */
function unpack(
  results: ArrayBuffer,
  of: readonly Request[],
  k: number,
  nDraws: number,
  drawn: number,
  sums: ReturnType<typeof sumsOf>,
): Candidates {
  const rows = of.length;
  const words = new Uint32Array(results);
  const floats = new Float32Array(results);
  const { rawLse, adjustedLse, target, drawn: tokens } = sums;
  const stride = HEAD + 3 * k;
  for (let row = 0; row < rows; row++) {
    const at = row * stride;
    const { inverseTemperature } = of[row];
    checkBest(words[at]);
    checkBest(words[at + 2]);
    rawLse[row] = logitOf(words[at]) + Math.log(floats[at + 1]);
    adjustedLse[row] =
      inverseTemperature > 0 ? logitOf(words[at + 2]) * inverseTemperature + Math.log(floats[at + 3]) : 0;
    target[row] = floats[at + 4];
    tokens[row] = words[at + 5];
  }
  return {
    k,
    stride,
    ids: words.subarray(HEAD, rows * stride),
    adjusted: floats.subarray(HEAD + k, rows * stride),
    raw: floats.subarray(HEAD + 2 * k, rows * stride),
    rawLse: rawLse.subarray(0, rows),
    adjustedLse: adjustedLse.subarray(0, rows),
    target: target.subarray(0, rows),
    drawn: tokens.subarray(0, rows),
    beyond: {
      ids: new Int32Array(results, drawn * 4, nDraws),
      raw: floats.subarray(drawn + roomOf(nDraws)).subarray(0, nDraws),
    },
  };
}

function checkBest(key: number): void {
  if (key === BROKEN) fail("format", "the model computed logits that are not numbers: its weights are broken");
  if (key <= IMPOSSIBLE) fail("format", "the logits leave no token possible: all are -Infinity");
}

const bits = new Uint32Array(1);
const float = new Float32Array(bits.buffer);

/** Whole numbers in the order of the floats, 0 and -0 alike. */
function keyOf(value: number): number {
  float[0] = value;
  return (bits[0] > 0x80000000 ? ~bits[0] : bits[0] | 0x80000000) >>> 0;
}

function logitOf(key: number): number {
  bits[0] = key >= 0x80000000 ? key ^ 0x80000000 : ~key;
  return float[0];
}

/** A logit after an edit, each operation rounded to f32. */
function adjust(logit: number, bias: number, scale: number, less: number): number {
  const biased = Math.fround(logit + bias);
  return Math.fround(Math.fround(biased > 0 ? biased / scale : biased * scale) - less);
}

/** What of candidates is in order. */
type Best = Pick<Candidates, "k" | "ids" | "adjusted" | "raw">;

/** The k best of a whole row (vocab), without its sums. */
function bestOfRow(raw: Float32Array, edits: Edits, out: Best, row: number): void {
  const adjusted = raw.slice();
  const changes = new Float32Array(edits.buffer, edits.byteOffset, edits.length);
  for (let i = 0; i < edits.length; i += 4) {
    const id = edits[i];
    adjusted[id] = adjust(raw[id], changes[i + 1], changes[i + 2], changes[i + 3]);
  }
  // A double holds a key and an id: sorted by numbers, best first, equal ones by rising id.
  const order = Float64Array.from(adjusted, (value, id) => (0xffffffff - keyOf(value)) * MOST_IDS + id).sort();
  for (let rank = 0; rank < out.k; rank++) {
    const id = order[rank] % MOST_IDS;
    const at = row * out.k + rank;
    out.ids[at] = id;
    out.adjusted[at] = adjusted[id];
    out.raw[at] = raw[id];
  }
}
