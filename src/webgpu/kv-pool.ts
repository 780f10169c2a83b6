// The pool of blocks: one buffer a layer, which grows; copies of blocks. Knows sizes; nothing of what a block's bytes mean (kv-layout.ts).

import type { Backend, Shape } from "../backend.ts";
import { type FurcateError, fail } from "../errors.ts";
import type { Gpu } from "./gpu.ts";
import { BLOCK_TOKENS, layerBlockBytes } from "./kv-layout.ts";

export interface KvPool
  extends Pick<Backend, "blockTokens" | "blockBytes" | "movingBytes" | "maxBlocks" | "reserveBlocks" | "copyBlock"> {
  /** Records the copies that were asked for: before a forward that reads what they copy. */
  settle(): void;
  /** All blocks' K and V of a layer. Errors: `internal` before any block was reserved. */
  layer(index: number): GPUBuffer;
}

/** Copies that run at once, at most. */
const MOST_COPIES = 64;
const UNIT_BYTES = 16;
const LANES = 64; // a workgroup that copies

export async function createKvPool(gpu: Gpu, shape: Shape): Promise<KvPool> {
  const { nLayers } = shape;
  const bytes = layerBlockBytes(shape);
  const { maxStorageBufferBindingSize, maxBufferSize } = gpu.limits;
  const maxBlocks = Math.floor(Math.min(maxStorageBufferBindingSize, maxBufferSize) / bytes);
  const layers: GPUBuffer[] = [];
  /** Blocks that every layer has room for. */
  let reserved = 0;
  const copier = await gpu.kernels.get("copy_blocks", { constants: { LANES } });
  const list = gpu.buffer(MOST_COPIES * 2 * Uint32Array.BYTES_PER_ELEMENT, "copies of blocks");
  /** Blocks that are yet to be copied, from and to. */
  const copies: [from: number, to: number][] = [];

  /** Layer after layer, so that never more than one is there twice. */
  async function growTo(count: number): Promise<void> {
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

  function settle(): void {
    if (copies.length === 0) return;
    // Few numbers of copies, so that most came before: what is copied to itself stays.
    const count = 2 ** Math.ceil(Math.log2(copies.length));
    const words = new Uint32Array(2 * count);
    words.set(copies.flat());
    gpu.write(list, 0, words);
    const units = bytes / UNIT_BYTES;
    gpu.repeat([copier, count], () => {
      for (const layer of layers) gpu.run(copier, [list, layer], [units], Math.ceil(units / LANES), count);
    });
    copies.length = 0;
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
      // Those of a list run at once: none may write what another reads, or writes.
      const meets = copies.some(([source, target]) => source === to || target === to || target === from);
      if (meets || copies.length === MOST_COPIES) settle();
      copies.push([from, to]);
    },
    settle,
    layer: (index) => layers[index] ?? fail("internal", `K/V: no blocks were reserved for layer ${index}`),
  };
}
