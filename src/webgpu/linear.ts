// Weights and products with them: packing on the GPU as the file's bytes stream in, rows of tables, matrix products.
// Knows which kernel computes how many rows; layout.ts says how weights lie.

import type { Backend, Norm, PreparedBatch, ReadNext, Tensor, Weight } from "../backend.ts";
import { fail } from "../errors.ts";
import { GGML_TYPES } from "../formats/gguf.ts";
import { type GpuBatch, type GpuTensor, placeOf, type Reading, strideOf } from "./buffers.ts";
import type { MatrixUnit } from "./device.ts";
import { floatBits, type Gpu } from "./gpu.ts";
import type { Constants, Kernel, Trials } from "./kernels.ts";
import { layoutOf, PANEL, panelUnits, tilesOf, UNIT_BYTES, type WeightLayout } from "./layout.ts";
import { matrixTile } from "./matrix-tile.ts";

export interface Linear
  extends Pick<
    Backend,
    "computes" | "weightBytes" | "weights" | "upload" | "embed" | "unembed" | "linearGated" | "linearAdd"
  > {
  /** ending: the outs are q, k and v, which turn and go into the cache as attention's ropeAppend does it. */
  linear(x: Tensor, norm: Norm | undefined, weights: readonly Weight[], outs: readonly Tensor[], ending?: Ending): void;
  /**
   * Begins a forward of so many rows: samples, whose kernels go by their number, or a prompt's tokens, for which they are always
   * the same, so that its parting changes no bit.
   */
  begin(rows: number, decoding: boolean): void;
  /** How products of that forward compute: what they dispatch follows from it, and from the rows computed. */
  readonly productKind: Kind;
  readonly reading: Reading;
  scratchBytes(): number;
}

/** What products need that end with more than their results: the head that does it, its constants and buffers, and its sizes. */
export interface Ending {
  readonly head: "rotated" | "added_normed";
  readonly constants: Constants;
  readonly buffers: readonly GPUBuffer[];
  readonly words?: readonly number[];
}

/** Weights that lie side by side in the same buffers. */
interface Stack {
  readonly layout: WeightLayout;
  /** Whole panels in each buffer; more than one where a binding holds no more. */
  readonly parts: readonly { readonly buffer: GPUBuffer; readonly firstPanel: number; readonly panels: number }[];
  readonly panelUnits: number;
  readonly tiles: number;
  /** Whether the last tile has more columns than the weight. */
  readonly ragged: boolean;
  readonly packer: Kernel;
  readonly embed: Kernel;
  /** Kernels of its products so far, by their names and constants. */
  readonly products: Map<string, Kernel>;
}

interface GpuWeight extends Weight {
  readonly stack: Stack;
  /** In the stack. */
  readonly firstPanel: number;
}

/** What a workgroup of linear_one.wgsl (1 row) or linear.wgsl (2 or 4) computes: two panels, or a share of their outputs. */
interface FewTile {
  readonly rows: number;
  /** Of a weight of as many panels or more it computes four, so that each load of x counts for more. */
  readonly wide: number;
  /** Shares of panels that keep a GPU busy: with fewer, a workgroup has fewer outputs of each panel. */
  readonly busyShares: number;
}

/** What a workgroup computes of a product: some rows by some panels (of a gate, with up's), or of these a share of the outputs. */
interface Work {
  readonly kernel: Kernel;
  readonly rows: number;
  readonly panels: number;
  readonly shares: number;
}

/** The tiles that kernels are made for. */
interface Tiling {
  /** For ever more rows; the last one for any number. */
  readonly few: readonly FewTile[];
  /**
   * Multiplications that are over before another dispatch begins. `few` computes rows of which a square product of the model's width has
   * no more, where a table has no more or they are no more than its last tile's.
   */
  readonly easy: number;
  /** Of a workgroup without subgroup matrices. */
  readonly lanes: 64 | 256;
  /**
   * Workgroups of so many lanes that a GPU holds at once. With half the lanes it holds twice as many, and each has less to join: better
   * where these are all, or so many that the last ones do not count.
   */
  readonly held: number;
}

const TILING: Tiling = {
  few: [
    { rows: 1, wide: Infinity, busyShares: 2048 },
    { rows: 2, wide: 128, busyShares: 1024 },
    { rows: 4, wide: 128, busyShares: 1024 },
  ],
  easy: 5 * 2 ** 22,
  lanes: 256,
  held: 256,
};
/** Where the GPU is a program, to begin a lane takes longer than its work. */
const SOFTWARE_TILING: Tiling = {
  ...TILING,
  few: TILING.few.map((tile) => ({ ...tile, wide: tile.rows === 1 ? tile.wide : 5, busyShares: 32 })),
  easy: 0,
  lanes: 64,
  held: Infinity,
};

/** The largest piece of a file on its way: the caller's bytes, the queue's copy and the buffer that is packed from. */
const PIECE_BYTES = 4 << 20;
const PACK_LANES = 64; // a workgroup of the packing shaders
const EMBED_LANES = 64;
const SWIGLU_LANES = 64;
/** Workgroups across a prompt's rows. */
const PROMPT_GROUPS = 16;
const MOST_GROUPS = 65535;
/** Of a row's sum of squares (shaders/heads/added_normed.wgsl). */
const SUM_BYTES = 128;

/** How products compute. */
export type Kind =
  | "few" // each workgroup normalises its few rows
  | "many" // eights of rows, normalised before
  | "halves" // in 16-bit arithmetic, of rows as 16-bit tiles
  | "matrix"; // by subgroup matrices, of rows as 16-bit tiles

const readsTiles = (kind: Kind) => kind === "halves" || kind === "matrix";

/** Rows of a forward at most, and samples; columns of what products read, and of gates; norms of the residual stream behind the first. */
interface LinearSizes {
  readonly maxRows: number;
  readonly maxSamples: number;
  readonly widest: number;
  readonly hiddenDim: number;
  readonly norms: number;
}

/** Rows that a norm has begun with, which norm, and the sizes that say how to end it. */
interface Begun {
  readonly of: GpuTensor;
  readonly norm: Norm;
  readonly words: readonly number[];
}

export async function createLinear(
  gpu: Gpu,
  { maxRows, maxSamples, widest, hiddenDim, norms }: LinearSizes,
  { kernelClass, asLarge }: Trials,
): Promise<Linear> {
  const { kernels, limits } = gpu;
  const tiling = gpu.isSoftware ? SOFTWARE_TILING : TILING;
  const bindingBytes = Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize);
  const unit = await matrixUnit();
  const hasHalves = !unit && (await computesHalves());
  const easy = asLarge ? 0 : tiling.easy;
  const few = tiling.few[tiling.few.length - 1].rows;
  const mostFew = Math.max(Math.floor(easy / widest ** 2), few);
  const [rmsNorm, swiglu, ...tiled] = await Promise.all([
    kernels.get("rms_norm", { constants: { IN_PLACE: 0 } }),
    kernels.get("swiglu"),
    ...(unit || hasHalves ? [0, 1].map((NORM) => kernels.get("tiles", { constants: { NORM } })) : []),
  ]);
  /** Rows on their way into a product, normalised or as tiles; and up's where it is computed by itself. */
  let between = gpu.buffer(0, "activations");
  roomFor(widest);
  const ups = gpu.buffer(maxRows * strideOf(hiddenDim) * 4, "activations");
  const canBegin = unit !== undefined || (hasHalves && (await beginsNorms()));
  /** Sums of squares, of each norm and sample. */
  const squaresBytes = (canBegin ? norms * maxSamples : 1) * SUM_BYTES;
  const squares = gpu.buffer(squaresBytes, "activations");
  /** Norms of this forward that products have begun with, once all sums are zero. */
  let summed: number | undefined;
  /** Whether the last product's weights were to be unpacked. What it leads to then goes on in f32: with such weights 16 bits are no faster. */
  let unpacked = false;
  /** What is in `between`, where its scales are still to come. */
  let begun: Begun | undefined;
  /**
   * How products of the forward at hand compute. But those with a table are `many` where others are in halves, or are few and it is large;
   * and so are those that add what must be unpacked to rows in f32.
   */
  let usual: Kind = "few";
  let prompt = false;

  /** Makes room for rows of so many columns. */
  function roomFor(cols: number): void {
    const bytes = maxRows * Math.max(strideOf(cols) * 4, Math.ceil(cols / 16) * 32);
    if (bytes <= between.size) return;
    const larger = gpu.buffer(bytes, "activations");
    gpu.free(between);
    between = larger;
  }

  /** The device's subgroup matrices, where a kernel of them compiles. */
  async function matrixUnit() {
    const unit = gpu.abilities.matrix;
    if (!unit || 8 * unit.subgroup > limits.maxComputeInvocationsPerWorkgroup) return undefined;
    const heads = [unit.side === 8 ? "matrix_8" : undefined];
    const sizes = { LEFTS: 2, RIGHTS: 1, SHARES: 1, TEAMS: 1, AHEAD: 4, SUBGROUP: unit.subgroup };
    return (await kernels.tryGet("linear_matrix", { heads, constants: { ...sizes, GATED: 0 } })) && unit;
  }

  /** Whether kernels with 16-bit arithmetic compile. */
  async function computesHalves() {
    return gpu.abilities.f16 && (await compiles("in_halves", "halves_f16"));
  }
  /** Whether products without matrices can begin with norms: a panel's results of a row are added up by neighbours in a subgroup. */
  async function beginsNorms() {
    return (
      (gpu.abilities.subgroups ?? 0) >= PANEL / 2 && (await compiles(undefined, undefined, undefined, "added_normed"))
    );
  }
  async function compiles(...heads: readonly (string | undefined)[]) {
    const constants = { LANES: tiling.lanes, ROW_GROUPS: 2, RAGGED: 0, PANELS: 1, GATED: 0, TILES: 0 };
    return (await kernels.tryGet("linear_many", { heads: [undefined, ...heads], constants })) !== undefined;
  }

  /** A kernel of a stack's products, compiled when first used. */
  function kernelOf(
    { layout, products }: Stack,
    name: string,
    heads: readonly (string | undefined)[],
    tile: Constants,
    ending: Ending | undefined,
  ): Kernel {
    const key = [name, ...heads, ending?.head, ...Object.values(tile)].join();
    let kernel = products.get(key);
    if (!kernel) {
      const constants = { ...layout.constants, ...tile, ...ending?.constants };
      kernel = kernels.now(name, { heads: [...heads, ending?.head], constants });
      products.set(key, kernel);
    }
    return kernel;
  }

  function matrixWork({ x: { rows }, scaling }: Input, span: Span, ending: Ending | undefined): Work {
    const by = unit as MatrixUnit;
    const { side, subgroup } = by;
    const { stack, gated } = span;
    const { layout, tiles } = stack;
    const { head, halves } = layout;
    const outputs = outputsOf(span);
    const tile = matrixTile(by, limits, { rows, prompt, outputs, columns: tiles * layout.tileColumns, gated, layout });
    const heads = [side === 8 ? "matrix_8" : undefined, head && "left_unpacked", head, halves, scaling && "scaled"];
    const constants = { ...tile, SUBGROUP: subgroup, GATED: Number(gated) };
    const kernel = kernelOf(stack, "linear_matrix", heads, constants, ending);
    const { LEFTS, RIGHTS, TEAMS } = tile;
    return { kernel, rows: side * RIGHTS * TEAMS, panels: (side * (gated ? 1 : LEFTS)) / PANEL, shares: 1 };
  }

  /** Of few rows. The tile goes by the whole span, so that it changes no row's bits. */
  function fewWork({ x, norm }: Input, span: Span, ending: Ending | undefined): Work {
    const { stack, gated } = span;
    const { head, parts } = stack.layout;
    const outputs = outputsOf(span);
    // A fixed class is one kernel for any number of rows: compilers round the others' sums in ways of their own.
    const least = kernelClass ? 1 : x.rows;
    const { rows, wide, busyShares } =
      tiling.few.find(({ rows }) => rows >= least) ?? tiling.few[tiling.few.length - 1];
    const PANELS = outputs >= wide * PANEL ? 4 : 2;
    const busy = Math.min(busyShares, x.cols / 2);
    const mostShares = Math.min(4, (stack.tiles * parts * PANEL) / tiling.lanes); // beyond it lanes have no tile
    let shares = 1;
    while (2 * shares <= mostShares && shares * outputs < busy * PANEL) shares *= 2;
    const constants = {
      LANES: tiling.lanes,
      OUTPUTS: PANEL / shares,
      RAGGED: Number(stack.ragged),
      NORM: Number(norm !== undefined),
      GATED: Number(gated),
    };
    const kernel =
      rows === 1
        ? kernelOf(stack, "linear_one", [head], constants, ending)
        : kernelOf(stack, "linear", [head], { ...constants, PANELS, ROWS: rows }, ending);
    return { kernel, rows, panels: gated ? PANELS / 2 : PANELS, shares };
  }

  /** Of many rows without subgroup matrices. */
  function manyWork({ kind, x: { rows }, scaling }: Input, span: Span, ending: Ending | undefined): Work {
    const { stack, gated } = span;
    const { head } = stack.layout;
    const ROW_GROUPS = rows > 8 || prompt || kernelClass ? 2 : 1;
    const arithmetic =
      kind === "halves" ? ["in_halves", head ? "halves_floats" : "halves_f16"] : [undefined, undefined];
    // The tile does not go by the rows of a prompt's part, nor where kernels are fixed.
    const across = prompt ? PROMPT_GROUPS : kernelClass ? 1 : Math.ceil(rows / (8 * ROW_GROUPS));
    const outputs = outputsOf(span);
    const turns = (across * outputs) / PANEL / tiling.held;
    // Twice as much for each load of x, where lanes have the registers for it and there is work enough for half as many of them.
    const isWide = asLarge ? outputs > PANEL : turns >= 4;
    const PANELS = kind === "many" && ROW_GROUPS === 2 && isWide ? 2 : 1;
    const LANES = PANELS === 1 && (turns <= 1 || (turns > 2 && turns < 4)) ? tiling.lanes : tiling.lanes / 2;
    const TILES = Number(span.out.form.tiles);
    const constants = { LANES, ROW_GROUPS, RAGGED: Number(stack.ragged), PANELS, GATED: Number(gated), TILES };
    const kernel = kernelOf(stack, "linear_many", [head, ...arithmetic, scaling && "scaled"], constants, ending);
    // Of a gate and up a workgroup's panels are half of each.
    return { kernel, rows: 8 * ROW_GROUPS, panels: gated ? 1 : PANELS, shares: gated && PANELS === 1 ? 2 : 1 };
  }

  async function stackOf(of: readonly Weight[]): Promise<GpuWeight[]> {
    const [{ name, type, cols }] = of;
    const layout = layoutOf(type, !unit);
    if (!layout || cols % GGML_TYPES[type].blockElements !== 0)
      return fail("unsupported", `tensor "${name}": type ${type} with ${cols} columns is not computed`);
    const units = panelUnits(layout, cols);
    const most = Math.floor(bindingBytes / (units * UNIT_BYTES));
    if (most === 0)
      fail(
        "memory",
        `tensor "${name}": 16 of its rows are ${units * UNIT_BYTES} bytes, a binding holds ${bindingBytes}`,
      );
    const [packer, embed] = await Promise.all([
      kernels.get(layout.packer, { constants: layout.packing }),
      kernels.get("embed", { heads: [layout.head], constants: layout.constants }),
    ]);
    const panels = of.reduce((sum, { rows }) => sum + Math.ceil(rows / PANEL), 0);
    const parts: { buffer: GPUBuffer; firstPanel: number; panels: number }[] = [];
    try {
      await gpu.checked(`tensor "${name}"`, () => {
        roomFor(cols);
        for (let firstPanel = 0; firstPanel < panels; firstPanel += most) {
          const count = Math.min(most, panels - firstPanel);
          const buffer = gpu.buffer(count * units * UNIT_BYTES, `tensor "${name}"`);
          parts.push({ buffer, firstPanel, panels: count });
        }
      });
    } catch (error) {
      for (const { buffer } of parts) gpu.free(buffer);
      throw error;
    }
    const tiles = tilesOf(layout, cols);
    const ragged = cols % layout.tileColumns !== 0;
    const products = new Map<string, Kernel>();
    const stack: Stack = { layout, parts, panelUnits: units, tiles, ragged, packer, embed, products };
    let firstPanel = 0;
    return of.map((weight) => {
      const placed = { ...weight, stack, firstPanel };
      firstPanel += Math.ceil(weight.rows / PANEL);
      return placed;
    });
  }

  /** Reads a weight's rows in pieces of whole panels; the GPU packs one while the next is read. */
  async function upload(weight: Weight, read: ReadNext): Promise<void> {
    const { name, type, rows, cols, stack, firstPanel } = weight as GpuWeight;
    const { layout, parts, tiles, packer } = stack;
    const { blockElements, blockBytes } = GGML_TYPES[type];
    const rowBytes = (cols / blockElements) * blockBytes;
    const step = PANEL * Math.max(1, Math.floor(PIECE_BYTES / (PANEL * rowBytes)));
    const raw = gpu.buffer(Math.min(step, rows) * rowBytes, `staging of tensor "${name}"`);
    const broken = gpu.buffer(16, `staging of tensor "${name}"`);
    try {
      let packed: Promise<void> | undefined;
      for (const part of parts) {
        const first = (part.firstPanel - firstPanel) * PANEL; // the weight's row with which the buffer begins
        const end = Math.min(rows, first + part.panels * PANEL);
        for (let row = Math.max(0, first); row < end; row += step) {
          const count = Math.min(step, end - row);
          const bytes = await read(count * rowBytes);
          await packed;
          gpu.write(raw, 0, wholeWords(bytes));
          const groups = Math.ceil((Math.ceil(count / PANEL) * tiles * layout.packLanes) / PACK_LANES);
          const high = Math.ceil(groups / MOST_GROUPS);
          const sizes = [count, cols / blockElements, tiles, row - first, row];
          gpu.run(packer, [raw, part.buffer, broken], sizes, Math.ceil(groups / high), high);
          packed = gpu.finished();
          packed.catch(() => {}); // heard by the next await
        }
      }
      await packed;
      const [row] = new Uint32Array(await gpu.read(broken, 0, 4));
      if (row > 0) fail("format", `tensor "${name}": a weight in row ${row - 1} is infinite or not a number`);
    } finally {
      gpu.free(raw);
      gpu.free(broken);
    }
  }

  /** Consecutive weights of one stack: their panels, the results of a row, and where the first of them goes. */
  interface Span {
    readonly stack: Stack;
    readonly firstPanel: number;
    readonly panels: number;
    readonly outputs: number;
    readonly out: GpuTensor;
    /** Whether the span is a gate with as many panels of up behind it, in one buffer. */
    readonly gated: boolean;
  }

  const spanOf = (weight: Weight, out: Tensor, gated = false): Span => {
    const { stack, firstPanel, rows } = weight as GpuWeight;
    return { stack, firstPanel, panels: Math.ceil(rows / PANEL), outputs: rows, out: out as GpuTensor, gated };
  };

  /** Of a gate up's too. */
  const outputsOf = ({ panels, gated }: Span) => panels * PANEL * (gated ? 2 : 1);

  /** The span's panels in each buffer, and the first one's column. */
  function* partsOf({ stack, firstPanel, panels }: Span) {
    for (const part of stack.parts) {
      const begin = Math.max(firstPanel, part.firstPanel);
      const end = Math.min(firstPanel + panels, part.firstPanel + part.panels);
      if (begin >= end) continue;
      yield {
        buffer: part.buffer,
        panel: begin - part.firstPanel,
        panels: end - begin,
        column: (begin - firstPanel) * PANEL,
      };
    }
  }

  /** What a product reads. norm: that it normalises by itself; scaling: the sizes for what a norm that has begun still lacks. */
  interface Input {
    readonly kind: Kind;
    readonly x: GpuTensor;
    readonly norm?: Norm;
    readonly scaling?: readonly number[];
  }

  /** x as products of a kind read it: as it is, or normalised or as tiles in `between`. */
  function input(kind: Kind, from: Tensor, norm: Norm | undefined): Input {
    const x = from as GpuTensor;
    if (kind === "few") return { kind, x, norm };
    const ready = begun;
    begun = undefined;
    const weight = norm?.weight as GpuTensor | undefined;
    const eps = floatBits(norm?.eps ?? 0);
    if (x.form.tiles || (kind === "many" && !weight)) return { kind, x };
    const made: GpuTensor = { ...x, buffer: between, first: 0, column: 0, stride: strideOf(x.cols) };
    if (ready && norm && kind !== "many" && isBegun(ready, x, norm)) return { kind, x: made, scaling: ready.words };
    if (kind !== "many") {
      const sums = canBegin && !prompt && summed === undefined ? norms : 0;
      if (sums > 0) summed = 0;
      const sizes = [placeOf(x) / 4, x.stride / 4, x.cols, eps, sums, maxSamples];
      gpu.run(tiled[weight ? 1 : 0], [x.buffer, weight?.buffer ?? x.buffer, between, squares], sizes, x.rows);
    } else if (weight) {
      const sizes = [x.cols, placeOf(x), x.stride, 0, made.stride, eps];
      gpu.run(rmsNorm, [x.buffer, weight.buffer, between], sizes, 1, x.rows);
    }
    return { kind, x: made };
  }

  const isBegun = ({ of, norm: { weight, eps } }: Begun, x: GpuTensor, norm: Norm): boolean =>
    weight === norm.weight && eps === norm.eps && of.buffer === x.buffer && x.first === 0 && of.rows === x.rows;

  /** Whether what follows from the last product is read as tiles, by those that add to the residual stream. */
  const addsTiles = () => usual === "matrix" || (usual === "halves" && !unpacked);

  /** Lets a product into samples' residual stream begin with the norm that reads it next, where it can. */
  function beginNorm({ x }: Input, out: GpuTensor, norm: Norm | undefined): Ending | undefined {
    const isWhole = placeOf(out) === 0 && out.cols % PANEL === 0;
    if (!norm || !readsTiles(usual) || !canBegin || prompt || x.buffer === between || !isWhole) return undefined;
    if (summed === undefined || summed === norms) return undefined;
    const weight = norm.weight as GpuTensor;
    // Of what 16 bits hold, rows of models use 0.003 (a first layer's mean) to 4e4 (the largest of SmolLM2's last) times the norm's weights.
    // Where products sum in 16 bits, terms of small rows and weights would have too few digits with the smaller factor.
    const factor = 2 ** ((usual === "halves" ? -1 : -5) - Math.round(Math.log2(weight.rms || 1)));
    const words = [summed * maxSamples, out.cols, floatBits(norm.eps), floatBits(factor)];
    begun = { of: out, norm, words };
    summed++;
    return { head: "added_normed", constants: {}, buffers: [weight.buffer, between, squares], words };
  }

  /** out = or += x · Wᵀ, or gate and up joined. */
  function product(from: Input, span: Span, add: 0 | 1, ending?: Ending): void {
    const { kind, x, norm } = from;
    const { stack, out, outputs, gated } = span;
    const worker = kind === "matrix" ? matrixWork : kind === "few" ? fewWork : manyWork;
    unpacked = stack.layout.head !== undefined;
    out.form.tiles = gated && addsTiles();
    const work = worker(from, span, ending);
    const by = (norm?.weight as GpuTensor | undefined)?.buffer ?? x.buffer;
    const eps = floatBits(norm?.eps ?? 0);
    const across = Math.ceil(x.cols / 16);
    const rows = readsTiles(kind) ? [0, across] : [placeOf(x) / 4, x.stride / 4];
    const reads = [x.rows, ...(kind === "matrix" ? [across] : rows), ...(kind === "few" ? [x.cols, eps] : [])];
    for (const { buffer, panel, panels, column } of partsOf(span)) {
      const place = out.form.tiles ? [0, Math.ceil(out.cols / 16)] : [placeOf(out) + column, out.stride];
      const weights = [panel, panels, panel + panels, stack.panelUnits, stack.tiles, add];
      const bindings = [buffer, x.buffer, ...(kind === "few" ? [by] : []), out.buffer, ...(ending?.buffers ?? [])];
      if (from.scaling) bindings.push(squares);
      const sizes = [...reads, ...place, outputs - column, ...weights, ...(from.scaling ?? ending?.words ?? [])];
      const up = Math.ceil(panels / work.panels) * work.shares;
      gpu.run(work.kernel, bindings, sizes, Math.ceil(x.rows / work.rows), up);
    }
  }

  function products(
    x: Tensor,
    norm: Norm | undefined,
    weights: readonly Weight[],
    outs: readonly Tensor[],
    ending?: Ending,
  ): void {
    const from = input(usual, x, norm);
    const spans: Span[] = [];
    weights.forEach((weight, i) => {
      const last = spans[spans.length - 1];
      const next = spanOf(weight, outs[i]);
      if (last?.stack !== next.stack) spans.push(next);
      else {
        const { panels, outputs } = last;
        spans[spans.length - 1] = { ...last, panels: panels + next.panels, outputs: outputs + next.outputs };
      }
    });
    for (const span of spans) product(from, span, 0, ending);
  }

  return {
    computes: (type) => layoutOf(type) !== undefined,
    weightBytes(type, rows, cols) {
      const layout = layoutOf(type);
      return layout ? Math.ceil(rows / PANEL) * panelUnits(layout, cols) * UNIT_BYTES : 0;
    },
    async weights(of) {
      const made: GpuWeight[] = [];
      for (let i = 0; i < of.length; ) {
        // Results lie side by side where all panels but the last are full.
        let end = i + 1;
        while (end < of.length && of[end].type === of[i].type && of[end - 1].rows % PANEL === 0) end++;
        made.push(...(await stackOf(of.slice(i, end))));
        i = end;
      }
      return made;
    },
    upload,
    begin(rows, decoding) {
      prompt = !decoding;
      const isFew = kernelClass ? kernelClass === "few" : decoding && rows <= mostFew;
      usual = isFew ? "few" : unit ? "matrix" : hasHalves ? "halves" : "many";
      [summed, begun] = [undefined, undefined];
    },
    get productKind() {
      return usual;
    },
    reading: {
      get tiles() {
        return addsTiles();
      },
      get wholeRows() {
        return usual === "matrix" ? 16 : 8;
      },
    },
    embed(table: Weight, batch: PreparedBatch, out: Tensor) {
      const { stack, firstPanel } = table as GpuWeight;
      const { parts, layout, panelUnits, tiles, embed } = stack;
      const to = out as GpuTensor;
      const { buffer, drawn } = batch as GpuBatch;
      const groups = Math.ceil((tiles * layout.parts) / EMBED_LANES);
      for (const part of parts) {
        const sizes = [placeOf(to) / 4, to.stride / 4, strideOf(to.cols) / 4];
        sizes.push(part.firstPanel - firstPanel, part.panels, panelUnits, tiles);
        gpu.run(embed, [part.buffer, buffer, drawn, to.buffer], sizes, groups, batch.rows);
      }
      to.form.tiles = false;
    },
    linear: products,
    unembed(x, norm, table, out) {
      const isEasy = kernelClass || x.rows <= few || x.rows * x.cols * table.rows <= easy;
      const inFloats = usual === "halves" || (usual === "few" && !isEasy);
      product(input(inFloats ? "many" : usual, x, norm), spanOf(table, out), 0);
    },
    linearGated(x, norm, gate, up, out) {
      const from = input(usual, x, norm);
      const { stack } = gate as GpuWeight;
      if (stack === (up as GpuWeight).stack && stack.parts.length === 1)
        return product(from, spanOf(gate, out, true), 0);
      const to = out as GpuTensor;
      const beside: GpuTensor = { ...to, buffer: ups, first: 0 };
      product(from, spanOf(gate, out), 0);
      product(from, spanOf(up, beside), 0);
      const width = to.stride / 4;
      gpu.run(swiglu, [to.buffer, ups], [width, to.first, 0], Math.ceil(width / SWIGLU_LANES), to.rows);
    },
    linearAdd(x, weight, out, next) {
      const span = spanOf(weight, out);
      const inFloats = usual === "halves" && span.stack.layout.head !== undefined && !(x as GpuTensor).form.tiles;
      const from = input(inFloats ? "many" : usual, x, undefined);
      product(from, span, 1, beginNorm(from, out as GpuTensor, next));
    },
    scratchBytes: () => maxRows * (strideOf(widest) + strideOf(hiddenDim)) * 4 + squaresBytes,
  };
}

/** Bytes in whole words of 32 bits, as the queue wants them. */
function wholeWords(bytes: Uint8Array): Uint8Array {
  if (bytes.length % 4 === 0) return bytes;
  const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  padded.set(bytes);
  return padded;
}
