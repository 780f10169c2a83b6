// Weights and products with them: packing on the GPU as the file's bytes stream in, rows of tables, matrix products.
// Knows which kernel computes how many rows; layout.ts says how weights lie.

import type { Backend, PreparedBatch, ReadNext, Shape, Tensor, Weight } from "../backend.ts";
import { fail } from "../errors.ts";
import { GGML_TYPES, type GgmlType } from "../formats/gguf.ts";
import type { GpuBatch, GpuTensor } from "./buffers.ts";
import type { Gpu } from "./gpu.ts";
import type { Kernel } from "./kernels.ts";
import { layoutOf, PANEL, panelUnits, tilesOf, UNIT_BYTES, type WeightLayout } from "./layout.ts";

export interface Linear extends Pick<Backend, "computes" | "weightBytes" | "weight" | "embed"> {
  /** decoding: whether the rows are samples (the kernel class goes by their number) or a prompt's tokens (always that of many rows). */
  linear(x: Tensor, weight: Weight, out: Tensor, decoding: boolean): void;
  linearAdd(x: Tensor, weight: Weight, out: Tensor, decoding: boolean): void;
  scratchBytes(): number;
}

interface GpuWeight extends Weight {
  readonly layout: WeightLayout;
  /** Whole panels in each buffer; more than one where a binding holds no more. */
  readonly parts: readonly { readonly buffer: GPUBuffer; readonly firstPanel: number; readonly panels: number }[];
  readonly panelUnits: number;
  readonly tiles: number;
  readonly embed: Kernel;
  readonly few: readonly RowTile[];
}

/** A kernel that computes so many rows at a time against so many panels. */
interface RowTile {
  readonly rows: number;
  readonly panels: number;
  readonly kernel: Kernel;
}

/** Rows and panels of a workgroup, for ever more rows. */
const FEW: readonly (readonly [rows: number, panels: number])[] = [
  [1, 2],
  [2, 2],
  [4, 2],
  [8, 2],
];
/** The largest piece of a file on its way: the caller's bytes, the queue's copy and the buffer that is packed from. */
const PIECE_BYTES = 4 << 20;
const PACK_LANES = 64; // a workgroup of the packing shaders
const EMBED_LANES = 64;
const MOST_GROUPS = 65535;

export async function createLinear(
  gpu: Gpu,
  _shape: Shape,
  _maxRows: number,
  kernelClass: "few" | "many" | undefined,
): Promise<Linear> {
  const { kernels, limits } = gpu;
  const bindingBytes = Math.min(limits.maxStorageBufferBindingSize, limits.maxBufferSize);

  async function weight(name: string, type: GgmlType, rows: number, cols: number, read: ReadNext): Promise<GpuWeight> {
    const layout = layoutOf(type);
    if (!layout || cols % GGML_TYPES[type].blockElements !== 0)
      fail("unsupported", `tensor "${name}": type ${type} with ${cols} columns is not computed`);
    const units = panelUnits(layout, cols);
    const panels = Math.ceil(rows / PANEL);
    const most = Math.floor(bindingBytes / (units * UNIT_BYTES));
    if (most === 0)
      fail(
        "memory",
        `tensor "${name}": 16 of its rows are ${units * UNIT_BYTES} bytes, a binding holds ${bindingBytes}`,
      );

    const { head, constants } = layout;
    const ragged = cols % layout.tileColumns === 0 ? 0 : 1;
    const [packer, embed, few] = await Promise.all([
      kernels.get(layout.packer, { constants: layout.packing }),
      kernels.get("embed", { head, constants }),
      Promise.all(
        FEW.map(async ([rows, panels]) => ({
          rows,
          panels,
          kernel: await kernels.get("linear", {
            head,
            constants: { ...constants, ROWS: rows, PANELS: panels, RAGGED: ragged },
          }),
        })),
      ),
    ]);

    const parts: { buffer: GPUBuffer; firstPanel: number; panels: number }[] = [];
    try {
      await gpu.checked(`tensor "${name}"`, () => {
        for (let firstPanel = 0; firstPanel < panels; firstPanel += most) {
          const count = Math.min(most, panels - firstPanel);
          const buffer = gpu.buffer(count * units * UNIT_BYTES, `tensor "${name}"`);
          parts.push({ buffer, firstPanel, panels: count });
        }
      });
      const made: GpuWeight = {
        type,
        rows,
        cols,
        layout,
        parts,
        panelUnits: units,
        tiles: tilesOf(layout, cols),
        embed,
        few,
      };
      await upload(name, made, packer, read);
      return made;
    } catch (error) {
      for (const { buffer } of parts) gpu.free(buffer);
      throw error;
    }
  }

  /** Reads a weight's rows in pieces of whole panels; the GPU packs one while the next is read. */
  async function upload(name: string, to: GpuWeight, packer: Kernel, read: ReadNext): Promise<void> {
    const { type, rows, cols, layout, parts, tiles } = to;
    const { blockElements, blockBytes } = GGML_TYPES[type];
    const rowBytes = (cols / blockElements) * blockBytes;
    const step = PANEL * Math.max(1, Math.floor(PIECE_BYTES / (PANEL * rowBytes)));
    const raw = gpu.buffer(Math.min(step, rows) * rowBytes, `staging of tensor "${name}"`);
    const broken = gpu.buffer(16, `staging of tensor "${name}"`);
    try {
      let packed: Promise<void> | undefined;
      for (const { buffer, firstPanel, panels } of parts) {
        const end = Math.min(rows, (firstPanel + panels) * PANEL);
        for (let row = firstPanel * PANEL; row < end; row += step) {
          const count = Math.min(step, end - row);
          const bytes = await read(count * rowBytes);
          await packed;
          gpu.write(raw, 0, wholeWords(bytes));
          const groups = Math.ceil((Math.ceil(count / PANEL) * tiles * layout.packLanes) / PACK_LANES);
          const high = Math.ceil(groups / MOST_GROUPS);
          const sizes = [count, cols / blockElements, tiles, row - firstPanel * PANEL, row];
          gpu.run(packer, [raw, buffer, broken], sizes, Math.ceil(groups / high), high);
          packed = gpu.finished();
          packed.catch(() => {}); // heard by the next await, or by the read below
        }
      }
      const [row] = new Uint32Array(await gpu.read(broken, 0, 4));
      if (row > 0) fail("format", `tensor "${name}": a weight in row ${row - 1} is infinite or not a number`);
    } finally {
      gpu.free(raw);
      gpu.free(broken);
    }
  }

  function product(x: Tensor, weight: Weight, out: Tensor, decoding: boolean, add: 0 | 1): void {
    const [from, to] = [x, out] as GpuTensor[];
    const { parts, few, panelUnits, tiles, rows: outputs } = weight as GpuWeight;
    const many = kernelClass ? kernelClass === "many" : !decoding;
    const { kernel, rows, panels } = (!many && few.find((tile) => tile.rows >= x.rows)) || few[few.length - 1];
    for (const part of parts) {
      const sizes = [x.rows, from.first, from.stride / 4, to.first, to.stride, outputs];
      sizes.push(part.firstPanel, part.panels, panelUnits, tiles, add);
      const groups = [Math.ceil(x.rows / rows), Math.ceil(part.panels / panels)];
      gpu.run(kernel, [part.buffer, from.buffer, to.buffer], sizes, groups[0], groups[1]);
    }
  }

  return {
    computes: (type) => layoutOf(type) !== undefined,
    weightBytes(type, rows, cols) {
      const layout = layoutOf(type);
      return layout ? Math.ceil(rows / PANEL) * panelUnits(layout, cols) * UNIT_BYTES : 0;
    },
    weight,
    embed(table: Weight, batch: PreparedBatch, out: Tensor) {
      const { parts, layout, panelUnits, tiles, embed } = table as GpuWeight;
      const to = out as GpuTensor;
      const groups = Math.ceil((tiles * layout.parts) / EMBED_LANES);
      for (const part of parts) {
        const sizes = [to.first, to.stride / 4, part.firstPanel, part.panels, panelUnits, tiles];
        gpu.run(embed, [part.buffer, (batch as GpuBatch).buffer, to.buffer], sizes, groups, batch.rows);
      }
    },
    linear: (x, weight, out, decoding) => product(x, weight, out, decoding, 0),
    linearAdd: (x, weight, out, decoding) => product(x, weight, out, decoding, 1),
    scratchBytes: () => 0,
  };
}

/** Bytes in whole words of 32 bits, as the queue wants them. */
function wholeWords(bytes: Uint8Array): Uint8Array {
  if (bytes.length % 4 === 0) return bytes;
  const padded = new Uint8Array(Math.ceil(bytes.length / 4) * 4);
  padded.set(bytes);
  return padded;
}
