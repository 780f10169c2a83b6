// An engine on a backend of the test's own making: what load does, where a test must say more of the backend than users can.
// Knows the order of loading; nothing of what is tested.

import type { Backend, Shape } from "../../src/backend.ts";
import { createCache } from "../../src/cache.ts";
import type { Engine } from "../../src/engine.ts";
import { readHeader } from "../../src/load.ts";
import { createForward } from "../../src/model.ts";
import { createSampler } from "../../src/sampler.ts";
import { openSource } from "../../src/source.ts";
import { readWeights } from "../../src/weights.ts";

/** A model's file on a backend that `create` makes for its shape. */
export async function engineOn(
  file: Uint8Array | string,
  create: (shape: Shape) => Promise<Backend>,
  maxBlocks = 1000,
): Promise<Engine> {
  const source = await openSource(file);
  const { gguf, config, info, text, tokenizer } = await readHeader(source, {});
  const backend = await create(config);
  const weights = await readWeights(
    config,
    gguf.tensors,
    backend,
    ({ offset }) => {
      let at = offset;
      return async (length) => {
        at += length;
        return source.read(at - length, length);
      };
    },
    () => {},
  );
  source.close();
  return {
    text,
    config,
    backend,
    forward: createForward(backend, config, weights),
    cache: createCache(text, { blockTokens: backend.blockTokens, maxBlocks }),
    sampler: createSampler(text, config.vocab),
    tokenizer,
    contextLength: info.contextLength,
    disposed: false,
  };
}
