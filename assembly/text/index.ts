// The ABI of text.wasm: tokenizer, sampler, cache bookkeeping. An export list and nothing else.

export { alloc, mark, release, used } from "../memory";
