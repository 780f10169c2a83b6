// Gives Node a GPU: Dawn's binding, of the package webgpu or from DAWN_NODE. Deno and browsers have their own. Knows toggles only.

import { createRequire } from "node:module";

/** What only Node can set; f16 has to be asked for on NVIDIA under Linux, subgroup matrices everywhere. */
const TOGGLES = [
  "enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia",
  "disable-dawn-features=timestamp_quantization",
];

/** Makes navigator.gpu, where the runtime is Node. */
export async function offerGpu(toggles: readonly string[] = TOGGLES): Promise<void> {
  if ("Deno" in globalThis) return;
  const { create } = process.env.DAWN_NODE
    ? createRequire(import.meta.url)(process.env.DAWN_NODE)
    : await import("webgpu" as string);
  Object.defineProperty(globalThis, "navigator", { value: { gpu: create(toggles) }, configurable: true });
}
