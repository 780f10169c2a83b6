// Where keys and values lie in GPU memory: the one description that shaders, the pool and tests follow.
//
// One buffer a layer. It holds blocks of 32 tokens; a block holds for each KV head K, then V, as tiles of 16 × 16 16-bit floats
// (512 bytes, which a subgroup matrix loads as they are): K (2 token tiles, headDim16 / 16 dimension tiles) of [16 tokens][16
// dimensions], V likewise of [16 dimensions][16 tokens]. headDim16 is headDim rounded up to 16, the dimensions beyond zero.
// Places that no token was written to may hold anything.

import type { Shape } from "../backend.ts";

export const BLOCK_TOKENS = 32;

/** headDim with the dimensions that fill the last tile. */
export const paddedHeadDim = ({ headDim }: Shape): number => Math.ceil(headDim / 16) * 16;

/** Bytes of a block in one layer. */
export const layerBlockBytes = (shape: Shape): number =>
  BLOCK_TOKENS * shape.nKvHeads * paddedHeadDim(shape) * Uint16Array.BYTES_PER_ELEMENT * 2;
