// The GPU that tests in Node run on: the machine's own, else the software GPU that Chromium brings along, which is right but slow.
// Knows what to do where there is none; nothing of what is tested.

import { existsSync } from "node:fs";
import { type OpenedDevice, openDevice } from "../../src/webgpu/device.ts";

/** The environment as it was, for programs that find their GPU by themselves. */
export const environment = { ...process.env };

/** Node's Dawn does not find the software GPU by itself; a machine's own drivers it does. */
export function offerSoftwareGpu(): void {
  const icd = "/usr/lib/chromium/vk_swiftshader_icd.json";
  if (!process.env.VK_ICD_FILENAMES && !process.env.VK_DRIVER_FILES && existsSync(icd))
    process.env.VK_ICD_FILENAMES = icd;
}

/** A device for all tests of a file; where there is none, the tests of `what` are missing. */
export async function gpuFor(what: string): Promise<OpenedDevice | undefined> {
  offerSoftwareGpu();
  const opened = await openDevice(true);
  if (!("reason" in opened)) return opened;
  missing(what, opened.reason);
}

/** A line that says what is skipped and why; an error under FURCATE_REQUIRE_GPU=1. */
export function missing(what: string, reason: string): void {
  if (process.env.FURCATE_REQUIRE_GPU === "1") throw new Error(`${what}: FURCATE_REQUIRE_GPU is set, but ${reason}`);
  console.log(`skipped: ${what}: ${reason}`);
}

/** Whether all cases are wanted, however long they take. */
export const thorough = process.env.FURCATE_THOROUGH === "1";
