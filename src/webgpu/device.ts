// Finds a GPU and opens a device on it: the runtime's own navigator.gpu, in Node the optional package "webgpu", or the user's device.
// Knows adapters, limits and features; nothing of buffers or kernels.

import { fail } from "../errors.ts";
import { importOptional } from "../host.ts";

/** Subgroup matrices that are multiplied in f16 and summed in f32. */
export interface MatrixUnit {
  /** Their rows and columns. */
  readonly side: 8 | 16;
  /** Lanes of every subgroup. */
  readonly subgroup: number;
}

/** Optional abilities of a device. Kernels that use them are variants: tried by compiling, never needed. */
export interface Abilities {
  readonly f16: boolean;
  /** Lanes that every subgroup has at least; none where there are no subgroups, or the adapter does not say. */
  readonly subgroups?: number;
  readonly matrix?: MatrixUnit;
}

export interface OpenedDevice {
  readonly device: GPUDevice;
  /** The adapter, for people. */
  readonly name: string;
  readonly abilities: Abilities;
  /** Whether it computes on the CPU. */
  readonly isSoftware: boolean;
  /** Whether the device is the user's: then it is neither destroyed nor made anew. */
  readonly isUsers: boolean;
  /** What must stay referenced for as long as the device lives (Node's package crashes otherwise). */
  readonly owners: readonly unknown[];
}

const MATRIX = "chromium-experimental-subgroup-matrix";
/** What kernels can make use of. */
export const FEATURES: readonly string[] = ["shader-f16", "subgroups", MATRIX];
const LIMITS = [
  "maxBufferSize",
  "maxStorageBufferBindingSize",
  "maxComputeWorkgroupStorageSize",
  "maxComputeInvocationsPerWorkgroup",
  "maxComputeWorkgroupSizeX",
] as const;

/** Why no device was opened, for people. */
export interface NoDevice {
  readonly reason: string;
}

/**
 * Opens a device on the fastest adapter, with all that it allows. software: whether an adapter that computes on the CPU will do.
 * Features that the adapter lacks are left out. Returns why not where there is no device.
 */
export async function openDevice(
  software: boolean,
  features: readonly string[] = FEATURES,
): Promise<OpenedDevice | NoDevice> {
  const found = await findGpu(software);
  if ("reason" in found) return found;
  const { gpu } = found;
  let adapter: GPUAdapter | null;
  try {
    adapter = await gpu.requestAdapter({ powerPreference: "high-performance" });
  } catch (error) {
    return { reason: `WebGPU failed to look for an adapter: ${(error as Error).message}` };
  }
  if (!adapter) return { reason: "WebGPU is there, but found no adapter (a GPU with a driver)" };
  const name = describe(adapter.info);
  const slow = isSoftware(adapter.info);
  if (slow && !software)
    return { reason: `the only adapter, ${name}, computes on the CPU, where WebAssembly is faster` };

  const requiredLimits = Object.fromEntries(LIMITS.map((limit) => [limit, adapter.limits[limit]]));
  // Deno has subgroups where asked, though it does not list them, and refuses where there are none; but it cannot parse "enable
  // subgroups", so what counts is what compiles.
  const requiredFeatures = features.filter((feature) => adapter.features.has(feature)) as GPUFeatureName[];
  try {
    const device = await adapter.requestDevice({ requiredLimits, requiredFeatures });
    const abilities = abilitiesOf(device, adapter.info);
    return { device, name, abilities, isSoftware: slow, isUsers: false, owners: [gpu, adapter] };
  } catch (error) {
    return { reason: `${name} gave no device: ${(error as Error).message}` };
  }
}

/** The user's own device, with the features and limits that it was made with. Errors: `option`. */
export function useDevice(device: GPUDevice): OpenedDevice {
  if (typeof device?.createComputePipelineAsync !== "function")
    fail("option", `device is ${device === null ? "null" : typeof device}, expected a GPUDevice`);
  const { adapterInfo } = device as { adapterInfo?: GPUAdapterInfo };
  return {
    device,
    name: describe(adapterInfo),
    abilities: abilitiesOf(device, adapterInfo),
    isSoftware: adapterInfo !== undefined && isSoftware(adapterInfo),
    isUsers: true,
    owners: [],
  };
}

function abilitiesOf({ features }: GPUDevice, info: MatrixInfo | undefined): Abilities {
  const f16 = features.has("shader-f16");
  const subgroups = features.has("subgroups") ? info?.subgroupMinSize : undefined;
  return { f16, subgroups, matrix: f16 && subgroups && features.has(MATRIX) ? matrixUnit(info) : undefined };
}

/** What Dawn says of subgroups and their matrices. */
interface MatrixInfo {
  readonly subgroupMinSize?: number;
  readonly subgroupMaxSize?: number;
  readonly subgroupMatrixConfigs?: Iterable<{
    readonly componentType: string;
    readonly resultComponentType: string;
    readonly M: number;
    readonly N: number;
    readonly K: number;
  }>;
}

function matrixUnit({ subgroupMinSize, subgroupMaxSize, subgroupMatrixConfigs = [] }: MatrixInfo = {}) {
  if (!subgroupMinSize || subgroupMinSize !== subgroupMaxSize) return undefined;
  const configs = [...subgroupMatrixConfigs].filter(
    ({ componentType, resultComponentType }) => componentType === "f16" && resultComponentType === "f32",
  );
  const side = ([16, 8] as const).find((side) => configs.some(({ M, N, K }) => M === side && N === side && K === side));
  return side && { side, subgroup: subgroupMinSize };
}

/** Node's, once it was asked for: one for the whole process, and never collected, since that would end the process. */
let nodeGpu: GPU | undefined;

async function findGpu(software: boolean): Promise<{ gpu: GPU } | NoDevice> {
  const { navigator, process } = globalThis as {
    navigator?: { gpu?: GPU };
    process?: { release?: { name?: string }; platform?: string };
  };
  if (navigator?.gpu) return { gpu: navigator.gpu };
  const isNode = process?.release?.name === "node" && !("Deno" in globalThis);
  if (!isNode) return { reason: "this runtime has no WebGPU (navigator.gpu)" };
  if (process?.platform === "linux" && !software && !(await hasGpuDevice()))
    return { reason: "this machine has no GPU (neither /dev/dri nor an NVIDIA device)" };
  try {
    nodeGpu ??= (await importOptional<{ create(toggles: string[]): GPU }>("webgpu")).create([]);
    return { gpu: nodeGpu };
  } catch (error) {
    const missing = (error as { code?: string }).code === "ERR_MODULE_NOT_FOUND";
    return {
      reason: missing
        ? "Node has no WebGPU of its own: install the npm package webgpu for it"
        : `the npm package webgpu failed: ${(error as Error).message}`,
    };
  }
}

/** Whether Linux shows a GPU: drivers that find none say so on the terminal, past everything that a program can catch. */
async function hasGpuDevice(): Promise<boolean> {
  const { existsSync } = await importOptional<typeof import("node:fs")>("node:fs");
  return ["/dev/dri", "/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"].some((path) => existsSync(path));
}

function describe(info: GPUAdapterInfo | undefined): string {
  const { vendor, architecture, description, device } = info ?? {};
  return description || [vendor, architecture, device].filter(Boolean).join(" ") || "a GPU that does not give its name";
}

function isSoftware(info: GPUAdapterInfo): boolean {
  if ((info as { isFallbackAdapter?: boolean }).isFallbackAdapter) return true;
  return /swiftshader|llvmpipe|lavapipe|basic render/i.test(`${info.vendor} ${info.architecture} ${info.description}`);
}
