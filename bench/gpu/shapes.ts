// The models that the benchmark builds: sizes of well-known ones, weights at random. Knows nothing of how they are run.

import type { ModelConfig } from "../../src/config.ts";

const common = {
  architecture: "llama",
  contextLength: 1 << 20,
  normEps: 1e-5,
  ropeBase: 5e5,
  ropeScale: 1,
  ropePairs: "interleaved",
} as const;

const shape = (
  name: string,
  nLayers: number,
  nHeads: number,
  nKvHeads: number,
  headDim: number,
  hiddenDim: number,
  vocab: number,
): ModelConfig => ({
  ...common,
  name,
  dim: nHeads * headDim,
  nLayers,
  nHeads,
  nKvHeads,
  headDim,
  ropeDim: headDim,
  hiddenDim,
  vocab,
});

export const SHAPES: Readonly<Record<string, ModelConfig>> = {
  "7b-mha": shape("7B MHA", 32, 32, 32, 128, 11008, 32000),
  "7b-gqa": shape("7B GQA", 32, 32, 8, 128, 14336, 32000),
  "llama-1b": shape("Llama-3.2-1B", 16, 32, 8, 64, 8192, 128256),
  "smollm-135m": shape("SmolLM2-135M", 30, 9, 3, 64, 1536, 49152),
  maze: shape("maze", 6, 6, 2, 32, 512, 1428),
  tiny: shape("tiny", 2, 4, 2, 32, 256, 512),
};

/** Milliseconds of one step in the paper's own PyTorch code (bf16, compiled, CUDA graphs) on an H200, by shape, context and n. */
export const ANCHORS: Readonly<Record<string, number>> = {
  "7b-mha/8192/1": 5.8,
  "7b-mha/8192/16": 8.05,
  "7b-mha/8192/32": 8.73,
  "7b-gqa/8192/1": 6.61,
  "7b-gqa/8192/32": 8.05,
  "llama-1b/4096/1": 1.62,
  "llama-1b/4096/32": 2.32,
  "llama-1b/4096/128": 4.06,
  "llama-1b/32768/32": 6.31,
};
