// The ABI of cpu.wasm: one function per backend operation. An export list and nothing else.

export { alloc, mark, peak, release, used } from "../memory";
export {
  attendContext,
  attendDecode,
  attendOnePart,
  attendPrefill,
  attendScratchBytes,
  BLOCK,
  kvLayerBytes,
} from "./attention";
export { addBias, linear, linearScratchBytes } from "./linear";
export { swiglu } from "./mlp";
export { rmsNorm } from "./norm";
export { embed, embedScratchBytes, packPanel, panelBytes, rowBytes } from "./quant";
export { ropeAppend } from "./rope";
export { mergeStates } from "./state";
export { topK } from "./top_k";
