// How weights lie in GPU buffers, by type, and which constants tell the shaders so. The one place that says it; shaders/pack_floats
// and pack_blocks write it, shaders/heads/weights_* read it. Knows nothing of buffers and dispatches.
//
// A weight is panels of 16 outputs (rows of the file's matrix; missing ones zero), a panel is tiles of columns from first to last,
// and all is whole units of 16 bytes (vec4u), so that lanes side by side read units side by side.
//   Floats: a tile is 16 outputs × 16 columns, row by row (missing columns zero): 512 bytes of F16 or BF16, 1024 of F32. Contiguous,
//   so that a subgroup matrix loads it from storage as it is. Where nothing does, words of F16 go by pairs, the second first: a GPU's
//   registers lie in banks, even and odd, and so what is multiplied, words of the same place of weights and rows, lies in two.
//   Quantised: a tile is 16 outputs × 32 columns: codes, further bits, factors; a block is one tile (8 of a K type) behind a header.
//     header   of each output its scale in f16, or scale and minimum in two f16
//     codes    of 4 bits: an output's 32 in one unit; byte b of word j holds column 8j + b low and 8j + 4 + b high
//              of 8 bits: an output's 32 in two units, in order, less than 128 standing for what is negative
//     further  of each output a word for the fifth bits (another for the sixth): bit 8b + f is of column 4f + b
//     factors  of each output two bytes: of scale and minimum (Q4_K, Q5_K), or of the scale for 16 columns each, signed (Q6_K)

import type { GgmlType } from "../formats/gguf.ts";
import { GGML_TYPES } from "../formats/gguf.ts";
import type { Constants } from "./kernels.ts";

export interface WeightLayout {
  /** The head of the shaders that read it; none where it is their own. */
  readonly head?: string;
  /** Constants of that head. */
  readonly constants: Constants;
  /** The head behind it of products by subgroup matrices: unpacks to 16-bit floats. (Deno's compiler refuses the one of codes.) */
  readonly halves?: string;
  /** The shader that packs it, and its constants. */
  readonly packer: "pack_floats" | "pack_blocks";
  readonly packing: Constants;
  /** Columns of a tile, tiles of a block, and lanes that pack a panel's tile. */
  readonly tileColumns: number;
  readonly blockTiles: number;
  readonly packLanes: number;
  /** Units of 16 bytes: of an output in a tile, and of a block. */
  readonly parts: number;
  readonly blockUnits: number;
}

export const PANEL = 16;
export const UNIT_BYTES = 16;

/** Nothing where the type is not computed. swapped: where words of F16 are not in order. */
export function layoutOf(type: GgmlType, swapped = false): WeightLayout | undefined {
  return swapped && type === "F16" ? SWAPPED_F16 : LAYOUTS[type];
}

/** Tiles of a panel. */
export const tilesOf = ({ tileColumns }: WeightLayout, cols: number) => Math.ceil(cols / tileColumns);

/** Units of 16 bytes of a panel. */
export const panelUnits = (layout: WeightLayout, cols: number) =>
  (tilesOf(layout, cols) / layout.blockTiles) * layout.blockUnits;

function floats(head: string | undefined, bytes: 2 | 4, exponent: number, constants: Constants = {}): WeightLayout {
  return {
    head,
    constants,
    halves: head && "halves_floats",
    packer: "pack_floats",
    packing: { WORDS: bytes / 2, EXPONENT: exponent, ...constants },
    tileColumns: 16,
    blockTiles: 1,
    packLanes: 16 * bytes,
    parts: bytes,
    blockUnits: 16 * bytes,
  };
}

interface Blocks {
  /** Bits of the codes kept together, and further ones. */
  readonly bits: 4 | 8;
  readonly high?: 0 | 1 | 2;
  /** What stands for zero among codes of 4 bits and further ones; that of 8 bits is the head's own. */
  readonly centre?: number;
  readonly minimum?: 0 | 1;
  readonly factors?: 0 | 1 | 2;
  /** 16-bit words of the file's block before its scale, factors, further bits and codes. */
  readonly at: readonly [scale: number, factors: number, high: number, codes: number];
}

function blocks(type: GgmlType, { bits, high = 0, centre = 0, minimum = 0, factors = 0, at }: Blocks): WeightLayout {
  const blockTiles = factors ? 8 : 1;
  const [SCALE_AT, FACTORS_AT, HIGH_AT, CODES_AT] = at;
  const shared = { MINIMUM: minimum, FACTORS: factors };
  return {
    head: `weights_q${bits}`,
    halves: "halves_codes",
    constants: bits === 8 ? {} : { ...shared, HIGH: high, CENTRE: centre }, // Q8_0's are the head's own
    packer: "pack_blocks",
    packing: {
      ...shared,
      HIGH: high,
      BITS: bits,
      BLOCK_WORDS: GGML_TYPES[type].blockBytes / 2,
      SCALE_AT,
      FACTORS_AT,
      HIGH_AT,
      CODES_AT,
      FLIP: bits === 8 ? 0x80808080 : 0,
    },
    tileColumns: 32,
    blockTiles,
    packLanes: 8,
    parts: bits / 4,
    blockUnits: 2 + 2 * minimum + blockTiles * (4 * bits + 4 * high + (factors ? 2 : 0)),
  };
}

const LAYOUTS: Partial<Record<GgmlType, WeightLayout>> = {
  F32: floats("weights_f32", 4, 0x7f80),
  F16: floats(undefined, 2, 0x7c00),
  BF16: floats("weights_bf16", 2, 0x7f80),
  Q8_0: blocks("Q8_0", { bits: 8, at: [0, 0, 0, 1] }),
  Q4_0: blocks("Q4_0", { bits: 4, centre: 8, at: [0, 0, 0, 1] }),
  Q4_1: blocks("Q4_1", { bits: 4, centre: 0, minimum: 1, at: [0, 0, 0, 2] }),
  Q5_0: blocks("Q5_0", { bits: 4, high: 1, centre: 16, at: [0, 0, 1, 3] }),
  Q5_1: blocks("Q5_1", { bits: 4, high: 1, centre: 0, minimum: 1, at: [0, 0, 2, 4] }),
  Q4_K: blocks("Q4_K", { bits: 4, centre: 0, minimum: 1, factors: 1, at: [0, 2, 0, 8] }),
  Q5_K: blocks("Q5_K", { bits: 4, high: 1, centre: 0, minimum: 1, factors: 1, at: [0, 2, 8, 24] }),
  Q6_K: blocks("Q6_K", { bits: 4, high: 2, centre: 32, factors: 2, at: [104, 96, 64, 0] }),
};

const SWAPPED_F16 = floats(undefined, 2, 0x7c00, { SWAPPED: 1 });
