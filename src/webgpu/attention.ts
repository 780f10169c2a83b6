// Attention and its K/V: the pool of blocks, rotation and storing, context and decode part, their merge.

import type { Backend, Shape } from "../backend.ts";
import { fail } from "../errors.ts";
import type { Gpu } from "./gpu.ts";

type Family = Pick<
  Backend,
  | "blockTokens"
  | "blockBytes"
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
  | "choosePath"
> & { scratchBytes(): number };

export async function createAttention(
  _gpu: Gpu,
  _shape: Shape,
  _maxRows: number,
  _maxSamples: number,
): Promise<Family> {
  const none = () => fail("unsupported", "attention is not computed yet");
  return {
    blockTokens: 32,
    blockBytes: 1,
    maxBlocks: 1,
    reserveBlocks: none,
    copyBlock: none,
    states: none,
    ropeAppend: none,
    attendPrefill: none,
    attendContext: none,
    attendDecode: none,
    attendOnePart: none,
    mergeStates: none,
    choosePath: none,
    scratchBytes: () => 0,
  };
}
