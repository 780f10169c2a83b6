// A device of one of the classes that figures are given for, on the runtime's own navigator.gpu. Knows features only.

import { fail } from "../../src/errors.ts";
import { FEATURES, type OpenedDevice, openDevice } from "../../src/webgpu/device.ts";

/** experimental: subgroup matrices; stock: f16 and subgroups; subgroups; portable: core WebGPU alone. */
export const CLASSES = ["experimental", "stock", "subgroups", "portable"] as const;
export type DeviceClass = (typeof CLASSES)[number];

/** Errors: `unsupported` where there is no device, or none of the class. */
export async function openClass(wanted: DeviceClass): Promise<OpenedDevice> {
  const opened = await openDevice(true, [...FEATURES, "timestamp-query"]);
  if ("reason" in opened) fail("unsupported", opened.reason);
  const { f16, subgroups, matrix } = opened.abilities;
  const rank = CLASSES.indexOf(wanted);
  const lacking = [
    rank === 0 && !matrix && "subgroup matrices",
    rank <= 1 && !f16 && "f16",
    rank <= 2 && !subgroups && "subgroups",
  ].filter(Boolean);
  if (lacking.length > 0) {
    opened.device.destroy();
    const where = "Deno" in globalThis ? '; Deno cannot parse "enable subgroups": classes but portable need Node' : "";
    fail("unsupported", `class ${wanted}: ${opened.name} lacks ${lacking.join(" and ")} here${where}`);
  }
  return {
    ...opened,
    abilities: {
      matrix: rank === 0 ? matrix : undefined,
      f16: f16 && rank <= 1,
      subgroups: rank <= 2 ? subgroups : undefined,
    },
  };
}
