// Attention as dispatches: rotation and storing, prefill, context part, tails, each sample by itself, the merge of partial states.
// Owns how work is cut into slices and tiles of rows, and the layout of states; nothing of models, or of where blocks come from.

import type { Backend, PreparedBatch, Shape, States, Tensor } from "../backend.ts";
import { fail } from "../errors.ts";
import { type GpuBatch, type GpuTensor, placeOf } from "./buffers.ts";
import type { Gpu } from "./gpu.ts";
import type { Constants, Kernel, KernelOptions, Trials } from "./kernels.ts";
import { paddedHeadDim } from "./kv-layout.ts";
import { createKvPool, type KvPool } from "./kv-pool.ts";
import type { Ending } from "./linear.ts";

type Family = Pick<
  Backend,
  | "blockTokens"
  | "blockBytes"
  | "movingBytes"
  | "maxBlocks"
  | "reserveBlocks"
  | "copyBlock"
  | "states"
  | "ropeAppend"
  | "attendPrefill"
  | "attendContext"
  | "attendDecode"
  | "attendOnePart"
  | "mergeStates"
> & {
  /** What all dispatches of a forward follow from, besides its operations and how its products compute. */
  formOf(batch: PreparedBatch): readonly unknown[];
  /** What a product needs to do ropeAppend itself; nothing where it cannot. */
  appending(layer: number, batch: PreparedBatch): Ending | undefined;
  scratchBytes(): number;
} & Pick<KvPool, "settle">;

/**
 * Partial states: values (parts, rows, nHeads, headDim), each normalised, and the log of their sums of exponentials (parts, rows, nHeads).
 * Parts are the context's slices, then those of a row's tail, where it is not joined with the former at once; what a row has no tokens for
 * is not written and does not count.
 */
interface GpuStates extends States {
  readonly values: GPUBuffer;
  readonly lse: GPUBuffer;
  /** What attendDecode leaves to mergeStates, where that is one dispatch with the tails. */
  tails?: { readonly q: GpuTensor; readonly layer: number };
}

/** How a context is cut: tokens of a slice, and slices. */
interface Slices {
  readonly slice: number;
  readonly slices: number;
}

/** A kernel that attends, and rows of its tiles. doesTails: where these are of a sample's own rows too, it does the tails as well. */
interface Attending {
  readonly kernel: Kernel;
  readonly rows: number;
  readonly doesTails: boolean;
}

/** How a workgroup of the kernels without matrices shares its work: its lanes, and those of a softmax. */
interface Crew extends Constants {
  readonly LANES: number;
  readonly SEATS: number;
}

const CREW: Crew = { LANES: 128, SEATS: 16 };
/** Where the GPU is a program, to begin a lane takes longer than its work. */
const SOFTWARE_CREW: Crew = { LANES: 64, SEATS: 8 };
/** Four dimensions a lane: a crew has all of a head's. */
const mostDims = ({ LANES }: Crew) => 4 * LANES;
const crewOf = (shape: Shape, { isSoftware }: Pick<Gpu, "isSoftware">) =>
  isSoftware && paddedHeadDim(shape) <= mostDims(SOFTWARE_CREW) ? SOFTWARE_CREW : CREW;

/**
 * Workgroups that fill a large GPU: of up to eight rows; of more, of which a processor holds two; of samples by themselves, which wait for
 * K and V more than they compute; of those by subgroup matrices, which differ in size, their subgroups.
 */
const WORKGROUPS = 512;
const WIDE_WORKGROUPS = 256;
const ALONE_WORKGROUPS = 1024;
/** So many that each read a whole tail, a slice after the other, keep it busy. */
const TAIL_WORKGROUPS = 512;
const MATRIX_SUBGROUPS = 2048;
/** So many bytes of K and V from caches take no longer than another dispatch. */
const FREE_BYTES = 2 ** 24;
/** Of workgroup memory, so that a large GPU's processor holds two workgroups. */
const STEP_BYTES = 24 * 1024;
/** No more than a head's padded dimensions: what joins tails with them keeps them in a query's place. */
const MAX_SLICES = 16;
const MAX_ALONE_SLICES = 32;
/** However many tiles of rows go through a context: longer slices are no faster. */
const LEAST_SLICES = 4;
/** Tokens of a slice at least: of short heads a workgroup has done with these before another begins. */
const leastSlice = (padded: number) => (padded <= 32 ? 256 : 128);
/** A tail has so many slices at most. merge_states.wgsl joins 48 of both, not more. */
const TAIL_PARTS = 8;
/** Teams of merge_states.wgsl that share a head, and parts that one of them joins. */
const SHARINGS = [1, 4, 8] as const;
const TEAM_PARTS = 6;
/** Heads of a workgroup of it whose teams do not share them. */
const MERGED_HEADS = 4;
/** Samples that are attended to by themselves at a time. */
const ALONE_ROWS = 32;

type Device = Pick<Gpu, "limits" | "isSoftware">;

/** Rows of a tile that has none but a sample's own. */
function ownRows(shape: Shape, gpu: Device): number {
  const group = shape.nHeads / shape.nKvHeads;
  return group === 1 ? 1 : 4 * Math.min(mostVectors(shape, gpu), 2 ** Math.ceil(Math.log2(Math.ceil(group / 4))));
}

/**
 * Rows (samples · query heads of a KV head) that share each load of a context's K and V in attendContext: so many a tile. Of little
 * context no more than of a tail: one kernel does both then.
 */
export function contextRows(shape: Shape, samples: number, ctxLen: number, gpu: Device): number {
  const { nHeads, nKvHeads } = shape;
  const all = samples * (nHeads / nKvHeads);
  const own = ownRows(shape, gpu);
  const bytes = Math.ceil(all / own) * ctxLen * nKvHeads * paddedHeadDim(shape) * 4;
  if (bytes <= FREE_BYTES && !gpu.isSoftware) return own;
  return all === 1 ? 1 : 4 * Math.min(mostVectors(shape, gpu), all <= 4 ? 1 : all <= 8 ? 2 : 4);
}

/** Of workgroup memory, for queries and weights of so many vectors of four rows, and what seats exchange by it. */
const tileBytes = (shape: Shape, vectors: number, step: number, seats: number) =>
  16 * vectors * (paddedHeadDim(shape) + step + seats);

/** Vectors of a tile at most. */
function mostVectors(shape: Shape, gpu: Device): number {
  const { LANES, SEATS } = crewOf(shape, gpu);
  const most = gpu.limits.maxComputeWorkgroupStorageSize;
  return [4, 2].find((vectors) => tileBytes(shape, vectors, LANES, SEATS) <= most) ?? 1;
}

/** maxSamples: of a decode step. Errors: `unsupported`: wider heads than a workgroup computes. */
export async function createAttention(
  gpu: Gpu,
  shape: Shape,
  maxSamples: number,
  { kernelClass, asLarge }: Trials = {},
): Promise<Family> {
  const { nHeads, nKvHeads, headDim, ropeDim } = shape;
  const group = nHeads / nKvHeads;
  const padded = paddedHeadDim(shape);
  if (padded > mostDims(CREW))
    fail("unsupported", `heads have ${headDim} numbers, expected at most ${mostDims(CREW)} on a GPU`);
  const { kernels, limits } = gpu;
  const pool = await createKvPool(gpu, shape);

  const heads = { N_HEADS: nHeads, N_KV_HEADS: nKvHeads, HEAD_DIM: headDim };
  const tailSizes = { TAIL_PARTS, TAIL_SLICE: leastSlice(padded) };
  const workgroupBytes = limits.maxComputeWorkgroupStorageSize;
  const wide = mostVectors(shape, gpu);
  const plain = crewOf(shape, gpu);
  let crew = subgroupCrew();
  /**
   * Tokens that a workgroup computes with at a time: the more, the less its lanes wait for each other. Four rows wait for K and V. Where the
   * kernels are fixed it changes no result when samples come and go.
   */
  function stepOf(rows: number): number {
    const { LANES, SEATS } = crew;
    const seats = crew === plain ? SEATS : 0;
    const fits = tileBytes(shape, Math.ceil(rows / 4), 2 * LANES, seats) <= Math.min(STEP_BYTES, workgroupBytes);
    return rows > 4 && fits && !kernelClass ? 2 * LANES : LANES;
  }
  /** For kernels of tiles of so many rows. */
  const tileOf = (rows: number, CAUSAL: 0 | 1, results?: "joined", more: Constants = {}): KernelOptions => ({
    constants: {
      ...heads,
      ...tailSizes,
      CAUSAL,
      ...crew,
      VECTORS: Math.ceil(rows / 4),
      STEP: stepOf(rows),
      ...more,
    },
    heads: [rows === 1 ? "rows_1" : undefined, results, crew === plain ? undefined : "seats_subgroup"],
  });
  if (!(await kernels.tryGet("attend", tileOf(4 * wide, 1)))) crew = plain;
  const matrix = await matrixKernels();
  /** Whether results can be written as the 16-bit tiles that products read. */
  const canTile =
    (gpu.abilities.matrix !== undefined || gpu.abilities.f16) && headDim % 2 === 0 && (nHeads * headDim) % 16 === 0;
  /** Lanes of a team of merge_states.wgsl, each with two dimensions: a workgroup has 256 at most. */
  const mergeTeam = (sharing: number) => (headDim <= 64 || sharing > 4 ? 32 : 64);
  const merging = (TILES: 0 | 1) =>
    Promise.all(
      SHARINGS.map((SHARING) =>
        kernels.get("merge_states", {
          constants: { N_HEADS: nHeads, HEAD_DIM: headDim, ...tailSizes, SHARING, TEAM: mergeTeam(SHARING), TILES },
        }),
      ),
    );
  const [ropeAppend, prefillKernel, ownKernel, mergeRows, mergeTiles] = await Promise.all([
    kernels.get("rope_append", {
      constants: { ...heads, ROPE_DIM: ropeDim, HALVES: Number(shape.ropePairs === "halves") },
    }),
    kernels.get("attend", tileOf(4 * wide, 1)),
    kernels.get("attend", tileOf(ownRows(shape, gpu), 0)),
    merging(0),
    canTile ? merging(1) : [],
  ]);
  /** What prefill leaves in the place of log-sum-exps. */
  const unused = gpu.buffer(16, "attention states");
  const prefill: Attending = { kernel: prefillKernel, rows: 4 * wide, doesTails: false };
  /** Each sample's rows by themselves. */
  const own: Attending = { kernel: ownKernel, rows: ownRows(shape, gpu), doesTails: true };
  const byMatrices = matrix !== undefined && kernelClass !== "few";
  /** All samples' rows, by rows of a tile; without matrices compiled when first used. */
  const shared = new Map((byMatrices ? [matrix.few, matrix.many] : [own]).map((one) => [one.rows, one]));

  /** A crew whose seats exchange by subgroup, where subgroups are large enough: without memory, so that all lanes of four vectors may. */
  function subgroupCrew(): Crew {
    const SEATS = 2 ** Math.floor(Math.log2(Math.min(plain.LANES / 4, gpu.abilities.subgroups ?? 1)));
    return SEATS < plain.SEATS / 2 ? plain : { ...plain, SEATS };
  }

  /** Both parts of a step, and prefill, by subgroup matrices; none where a device or heads have no use of them. */
  async function matrixKernels() {
    const { matrix: unit } = gpu.abilities;
    const side = unit?.side ?? 16;
    // Of four matrices of dimensions each subgroup has one: fewer wait for each other, and a processor holds more workgroups.
    const SUBGROUPS = padded === 4 * side ? 4 : 8;
    if (
      !unit ||
      headDim % 2 !== 0 ||
      padded > 16 * side ||
      ![2, 4, 8].includes((side * side) / unit.subgroup) ||
      SUBGROUPS * unit.subgroup > limits.maxComputeInvocationsPerWorkgroup
    )
      return undefined;
    const step = SUBGROUPS * side;
    const sums = Math.ceil(step / padded) * ((padded > step ? 2 * step : padded) + 4);
    /** Of workgroup memory, as the shader declares it. */
    const bytesOf = (halves: number) =>
      side * (halves * (2 * (padded + 8) + 8) + 2 * (step + 8) + 4 * Math.max(step + 4, sums) + 4) + 64;
    const most = ([2, 1] as const).find((halves) => bytesOf(halves) <= workgroupBytes);
    if (!most) return undefined;
    const made = (CAUSAL: 0 | 1, HALVES: 1 | 2) =>
      kernels.tryGet("attend_matrix", {
        heads: [side === 8 ? "matrix_8" : undefined],
        constants: { ...heads, SUBGROUP: unit.subgroup, CAUSAL, ...tailSizes, SUBGROUPS, HALVES },
      });
    const [few, many, prefill] = await Promise.all([made(0, 1), made(0, most), made(1, most)]);
    const attending = (kernel: Kernel, halves: number): Attending => ({ kernel, rows: halves * side, doesTails: true });
    return (
      few &&
      many &&
      prefill && {
        few: attending(few, 1),
        many: attending(many, most),
        prefill: attending(prefill, most),
        workgroups: MATRIX_SUBGROUPS / SUBGROUPS,
      }
    );
  }

  const stateBytes = nHeads * headDim * Float32Array.BYTES_PER_ELEMENT;
  /** What joins tails with the context's parts: into rows, and into tiles. */
  const joining: Kernel[] = [];
  /** Slices of the longest contexts: enough to fill a GPU with few KV heads, as far as a buffer holds so many rows' states. */
  const mostSlices = (workgroups: number, most: number, rows: number) => {
    const held = Math.floor(limits.maxStorageBufferBindingSize / (rows * stateBytes)) - TAIL_PARTS;
    return Math.max(1, Math.min(most, Math.floor(workgroups / nKvHeads), held));
  };
  const most = mostSlices(matrix?.workgroups ?? WORKGROUPS, MAX_SLICES, maxSamples);
  const mostAlone = mostSlices(ALONE_WORKGROUPS, MAX_ALONE_SLICES, ALONE_ROWS);

  /** A context in so many slices or fewer, and tokens of each. */
  function cutInto(most: number, ctxLen: number, least = leastSlice(padded)): Slices {
    const slice = Math.max(least, Math.ceil(ctxLen / most / 32) * 32);
    return { slice, slices: Math.ceil(ctxLen / slice) };
  }
  /**
   * For so many tiles of so many rows, all samples' or a sample's own: no more than fill a GPU. Of narrow tiles, which are done with
   * soon, and where the kernels are fixed, from the context's length alone: then they change no result when samples come and go.
   */
  function slicesOf(ctxLen: number, tiles: number, rows: number): Slices {
    const workgroups = matrix?.workgroups ?? (rows > 8 ? WIDE_WORKGROUPS : rows === 8 ? WORKGROUPS : Infinity);
    const filling = Math.max(LEAST_SLICES, Math.ceil(workgroups / (nKvHeads * tiles)));
    const least = Math.max(leastSlice(padded), matrix ? 0 : stepOf(rows));
    return cutInto(kernelClass ? most : Math.min(most, filling), ctxLen, least);
  }
  /** For samples by themselves. */
  const slicesAlone = (ctxLen: number) => cutInto(mostAlone, ctxLen);
  /** No tail in the batch has more slices. */
  const tailParts = (batch: GpuBatch) => Math.min(TAIL_PARTS, Math.ceil(batch.decLen / leastSlice(padded)));

  const statesBytes = (rows: number, slices: number) => (slices + TAIL_PARTS) * rows * (stateBytes + nHeads * 4);
  function states(rows: number, slices = most): GpuStates {
    const parts = slices + TAIL_PARTS;
    return {
      rows,
      values: gpu.buffer(parts * rows * stateBytes, "attention states"),
      lse: gpu.buffer(parts * rows * nHeads * 4, "attention states"),
    };
  }
  let alone: GpuStates | undefined;

  /** Rows of a tile of the context part. */
  function tileRows({ rows: samples, ctxLen }: GpuBatch): number {
    if (byMatrices) return (samples * group <= matrix.few.rows && !kernelClass ? matrix.few : matrix.many).rows;
    const length = kernelClass || asLarge ? Infinity : ctxLen;
    return contextRows(shape, kernelClass === "few" ? 0 : samples, length, gpu);
  }
  /** What computes the context part. */
  function contextKernel(batch: GpuBatch): Attending {
    const rows = tileRows(batch);
    const found = shared.get(rows) ?? { kernel: kernels.now("attend", tileOf(rows, 0)), rows, doesTails: false };
    shared.set(rows, found);
    return found;
  }
  /** Whether a step's tails are joined with the context's parts in one dispatch, and not each a part of its own. */
  function joinsTails(batch: GpuBatch): boolean {
    const tooMany = batch.rows * group > limits.maxComputeWorkgroupsPerDimension; // a row takes a workgroup of each KV head
    if (kernelClass || tooMany || contextKernel(batch).doesTails) return false;
    return asLarge || tailParts(batch) === 1 || batch.rows * nHeads >= TAIL_WORKGROUPS;
  }
  /** What does it, one row a workgroup: its code is the shortest, and all of it is fetched for little work. */
  function joiningKernel(tiles: boolean): Attending {
    const TILES = Number(tiles);
    const kernel = joining[TILES] ?? kernels.now("attend", tileOf(1, 0, "joined", { TILES }));
    joining[TILES] = kernel;
    return { kernel, rows: 1, doesTails: true };
  }
  /** Tiles of all samples' rows, the context's slices for them, and where and how many the tails' parts are. */
  function cutOf(batch: GpuBatch) {
    const rows = tileRows(batch);
    const tiles = Math.ceil((batch.rows * group) / rows);
    const slices = slicesOf(batch.ctxLen, tiles, rows);
    return { tiles, slices, tails: { firstOwn: slices.slices, ownParts: tailParts(batch) } };
  }

  /**
   * Parts of a step in one dispatch: the context's of all samples' rows in `tiles` tiles, and of samples from `first` on (states
   * begin with it), each by itself, those from firstOwn on: of the context's and then its tail's. Results go out as states, or joined
   * to `out`.
   */
  function attend(
    { kernel, rows }: Attending,
    q: GpuTensor,
    layer: number,
    batch: GpuBatch,
    { rows: capacity, values, lse }: GpuStates,
    { slice, slices }: Slices,
    { tiles = 0, firstOwn = 0, ownParts = 0, first = 0, samples = batch.rows },
    out?: GpuTensor,
  ): void {
    const to = out ? [placeOf(out), out.stride] : [0, 0];
    const sizes = [placeOf(q), q.stride, ...to, capacity, slice, slices, tiles, ownParts, firstOwn, first];
    const groups = slices * tiles + ownParts * samples * Math.ceil(group / rows);
    const bindings = [batch.buffer, q.buffer, pool.layer(layer), values, lse];
    gpu.run(kernel, out ? [...bindings, out.buffer] : bindings, sizes, nKvHeads, groups);
  }

  /** Makes results tiles where products are to read them so, and says whether they are. */
  function formResults(batch: GpuBatch, out: GpuTensor): boolean {
    out.form.tiles = canTile && (batch.reading?.tiles ?? false);
    return out.form.tiles;
  }

  function merge(
    { rows, values, lse }: GpuStates,
    { slices }: Slices,
    batch: GpuBatch,
    out: GpuTensor,
    first: number,
    samples: number,
  ): void {
    const parts = slices + tailParts(batch);
    // Fixed kernels join a row's parts in the same order however many others have.
    const sharing = SHARINGS.findIndex((teams) => (kernelClass ? slices + TAIL_PARTS : parts) <= teams * TEAM_PARTS);
    const sizes = [first, rows, slices, parts, placeOf(out), out.stride];
    const kernel = (formResults(batch, out) ? mergeTiles : mergeRows)[sharing];
    const groups = sharing > 0 ? nHeads : Math.ceil(nHeads / MERGED_HEADS);
    const blocks = Math.ceil(headDim / (2 * mergeTeam(SHARINGS[sharing])));
    gpu.run(kernel, [batch.buffer, values, lse, out.buffer], sizes, groups * blocks, samples);
  }

  return {
    blockTokens: pool.blockTokens,
    blockBytes: pool.blockBytes,
    movingBytes: pool.movingBytes,
    maxBlocks: pool.maxBlocks,
    reserveBlocks: pool.reserveBlocks,
    copyBlock: pool.copyBlock,
    settle: pool.settle,
    states: (rows) => states(rows),
    formOf(batch: PreparedBatch) {
      const prepared = batch as GpuBatch;
      const { rows, decoding, ctxLen } = prepared;
      if (!decoding) return [rows];
      const { slice, slices } = cutOf(prepared).slices;
      const alone = slicesAlone(ctxLen);
      return [rows, tailParts(prepared), tileRows(prepared), slice, slices, alone.slice, alone.slices];
    },
    scratchBytes: () => statesBytes(maxSamples, most) + statesBytes(ALONE_ROWS, mostAlone),

    appending(layer: number, batch: PreparedBatch) {
      const { buffer, decoding } = batch as GpuBatch;
      if (!decoding || shape.ropePairs !== "interleaved" || headDim % 16 !== 0) return undefined;
      const constants = { ...heads, ROPE_DIM: ropeDim };
      return { head: "rotated", constants, buffers: [buffer, pool.layer(layer)] };
    },
    ropeAppend(q: Tensor, k: Tensor, v: Tensor, layer: number, batch: PreparedBatch) {
      const [queries, keys, values] = [q, k, v] as GpuTensor[];
      const { buffer, rows } = batch as GpuBatch;
      const units = (nHeads * ropeDim) / 2 + nKvHeads * (padded / 2) + nKvHeads * padded;
      const sizes = [queries.stride, placeOf(queries), placeOf(keys), placeOf(values)];
      const bindings = [buffer, queries.buffer, pool.layer(layer)];
      gpu.run(ropeAppend, bindings, sizes, Math.ceil(units / 64), rows);
    },
    attendPrefill(q: Tensor, layer: number, batch: PreparedBatch, out: Tensor) {
      const [queries, to] = [q, out] as GpuTensor[];
      const { buffer, rows, reading } = batch as GpuBatch;
      to.form.tiles = (reading?.tiles ?? false) && canTile && matrix !== undefined;
      const by = (to.form.tiles && matrix?.prefill) || prefill;
      const sizes = [placeOf(queries), queries.stride, placeOf(to), to.stride];
      const bindings = [buffer, queries.buffer, pool.layer(layer), to.buffer, unused];
      gpu.run(by.kernel, bindings, sizes, nKvHeads, Math.ceil((rows * group) / by.rows));
    },
    attendContext(q: Tensor, layer: number, batch: PreparedBatch, states: States) {
      const prepared = batch as GpuBatch;
      const by = contextKernel(prepared);
      const { slices, tiles, tails } = cutOf(prepared);
      const parts = { tiles, ...(by.doesTails ? tails : {}) };
      attend(by, q as GpuTensor, layer, prepared, states as GpuStates, slices, parts);
    },
    attendDecode(q: Tensor, layer: number, batch: PreparedBatch, states: States) {
      const prepared = batch as GpuBatch;
      const into = states as GpuStates;
      into.tails = joinsTails(prepared) ? { q: q as GpuTensor, layer } : undefined;
      if (contextKernel(prepared).doesTails || into.tails) return;
      const { slices, tails } = cutOf(prepared);
      attend(own, q as GpuTensor, layer, prepared, into, slices, tails);
    },
    mergeStates(states: States, batch: PreparedBatch, out: Tensor) {
      const prepared = batch as GpuBatch;
      const [from, to] = [states as GpuStates, out as GpuTensor];
      const { slices, tails } = cutOf(prepared);
      if (!from.tails) return merge(from, slices, prepared, to, 0, batch.rows);
      const { q, layer } = from.tails;
      attend(joiningKernel(formResults(prepared, to)), q, layer, prepared, from, slices, { ...tails, ownParts: 1 }, to);
    },
    attendOnePart(q: Tensor, layer: number, batch: PreparedBatch, out: Tensor) {
      const prepared = batch as GpuBatch;
      alone ??= states(ALONE_ROWS, mostAlone);
      const slices = slicesAlone(prepared.ctxLen);
      const ownParts = slices.slices + tailParts(prepared);
      for (let first = 0; first < batch.rows; first += ALONE_ROWS) {
        const samples = Math.min(ALONE_ROWS, batch.rows - first);
        attend(own, q as GpuTensor, layer, prepared, alone, slices, { ownParts, first, samples });
        merge(alone, slices, prepared, out as GpuTensor, first, samples);
      }
    },
  };
}
