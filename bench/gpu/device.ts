// A device of one of the classes that figures are given for, in Node (Dawn) or Deno. Knows toggles and features only.

import { createRequire } from "node:module";
import { FEATURES, type OpenedDevice, openDevice } from "../../src/webgpu/device.ts";

/** experimental: subgroup matrices; stock: f16 and subgroups; subgroups; portable: core WebGPU alone. */
export const CLASSES = ["experimental", "stock", "subgroups", "portable"] as const;
export type DeviceClass = (typeof CLASSES)[number];

/** Toggles of Dawn, which only Node can set; f16 has to be asked for on NVIDIA under Linux, subgroup matrices everywhere. */
const TOGGLES = [
  "enable-dawn-features=allow_unsafe_apis,vulkan_enable_f16_on_nvidia",
  "disable-dawn-features=timestamp_quantization",
];

/** Gives Node a navigator.gpu, of Dawn's binding from DAWN_NODE or the package webgpu. Deno has its own. */
export async function offerGpu(toggles: readonly string[] = TOGGLES): Promise<void> {
  if ("Deno" in globalThis) return;
  const { create } = process.env.DAWN_NODE
    ? createRequire(import.meta.url)(process.env.DAWN_NODE)
    : await import("webgpu" as string);
  Object.defineProperty(globalThis, "navigator", { value: { gpu: create(toggles) }, configurable: true });
}

export async function openClass(wanted: DeviceClass): Promise<OpenedDevice> {
  await offerGpu();
  const opened = await openDevice(true, [...FEATURES, "timestamp-query"]);
  if ("reason" in opened) throw new Error(opened.reason);
  const { f16, subgroups, matrix } = opened.abilities;
  const lacks = wanted === "experimental" ? !matrix : wanted === "stock" ? !f16 : wanted === "subgroups" && !subgroups;
  if (lacks) throw new Error(`${opened.name} lacks what class ${wanted} is about`);
  const rank = CLASSES.indexOf(wanted);
  return {
    ...opened,
    abilities: { matrix: rank === 0 ? matrix : undefined, f16: f16 && rank <= 1, subgroups: subgroups && rank <= 2 },
  };
}
