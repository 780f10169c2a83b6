// The pool of blocks: one buffer a layer, which grows. Knows sizes; nothing of what a block's bytes mean (kv-layout.ts).

import type { Backend, Shape } from "../backend.ts";
import { type FurcateError, fail } from "../errors.ts";
import type { Gpu } from "./gpu.ts";
import { BLOCK_TOKENS, layerBlockBytes } from "./kv-layout.ts";

export interface KvPool
  extends Pick<Backend, "blockTokens" | "blockBytes" | "movingBytes" | "maxBlocks" | "reserveBlocks" | "copyBlock"> {
  /** All blocks' K and V of a layer. Errors: `internal` before any block was reserved. */
  layer(index: number): GPUBuffer;
}

export function createKvPool(gpu: Gpu, shape: Shape): KvPool {
  const { nLayers } = shape;
  const bytes = layerBlockBytes(shape);
  const { maxStorageBufferBindingSize, maxBufferSize } = gpu.limits;
  const maxBlocks = Math.floor(Math.min(maxStorageBufferBindingSize, maxBufferSize) / bytes);
  const layers: GPUBuffer[] = [];
  /** Blocks that every layer has room for. */
  let reserved = 0;
  /** WebGPU copies nothing within a buffer: copies go by here. */
  let passage: GPUBuffer | undefined;

  /** Layer after layer, so that never more than one is there twice. */
  async function growTo(count: number): Promise<void> {
    passage ??= await gpu.checked("K/V", () => gpu.buffer(bytes, "K/V in passing"));
    for (let i = 0; i < nLayers; i++) {
      const old = layers[i];
      if (old && old.size >= count * bytes) continue;
      const label = `K/V of layer ${i}`;
      const grown = await gpu.checked(label, () => gpu.buffer(count * bytes, label));
      if (old) {
        gpu.copy(old, 0, grown, 0, old.size);
        gpu.free(old);
      }
      layers[i] = grown;
    }
    reserved = count;
  }

  return {
    blockTokens: BLOCK_TOKENS,
    blockBytes: nLayers * bytes,
    movingBytes: bytes,
    maxBlocks,
    reserveBlocks(count, most = maxBlocks) {
      if (count <= reserved) return undefined;
      if (count > maxBlocks) {
        fail("memory", `K/V: ${count} blocks asked for, but a buffer of this device holds ${maxBlocks} of a layer`);
      }
      // Half as much again, so that growing block by block copies each block a few times and not always. Not where the limit is near:
      // the last layer to grow is there twice.
      const wanted = Math.max(count, Math.min(maxBlocks, most, reserved + Math.ceil(reserved / 2)));
      const fits = bytes * ((nLayers - 1) * (wanted - reserved) + wanted) <= gpu.roomBytes;
      const ample = fits ? wanted : count;
      return growTo(ample).catch((error) => {
        if (ample === count || (error as FurcateError).code !== "memory") throw error;
        return growTo(count);
      });
    },
    copyBlock(from, to) {
      if (!passage) return;
      for (const layer of layers) {
        gpu.copy(layer, from * bytes, passage, 0, bytes);
        gpu.copy(passage, 0, layer, to * bytes, bytes);
      }
    },
    layer: (index) => layers[index] ?? fail("internal", `K/V: no blocks were reserved for layer ${index}`),
  };
}
