// The ABI of text.wasm: tokenizer, sampler, cache bookkeeping. An export list and nothing else.

export { alloc, mark, release, used } from "../memory";
export { addAdded, matchEnd, matchId, nextAdded, reserveAdded } from "./added";
export { decode } from "./decode";
export { encode } from "./split";
export { addMerges, indexTokens, newVocab, reserveMerges, tokenBytes, tokenLengths, tokenScores, tokenTypes } from "./vocab";
export { choiceSeed, philox, uniform } from "./random";
export {
  newSampler,
  sampleCandidates,
  sampledLogprob,
  sampleLogits,
  samplerAccept,
  samplerBegin,
  samplerBest,
  samplerEdits,
  samplerEditsAt,
  samplerEnd,
  samplerInput,
  samplerLogSumExp,
  samplerSeed,
  samplerUniform,
} from "./sample";
export {
  cacheBlock,
  cacheBlockIds,
  cacheCounts,
  cacheEvict,
  cacheExchange,
  cacheMatch,
  newCache,
  pathAcquire,
  pathBlocks,
  pathDiscard,
  pathExtend,
  pathFork,
  pathLength,
  pathRelease,
  tailAppend,
  tailBlocks,
  tailFork,
  tailNew,
  tailRelease,
  tailTakesBlock,
} from "./cache";
