// The ABI of cpu.wasm: one function per backend operation. An export list and nothing else.

export { alloc, mark, release, used } from "../memory";
