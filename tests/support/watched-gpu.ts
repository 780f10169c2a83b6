// navigator.gpu as tests need it: the runtime's real one (a software GPU will do), whose devices and buffers are counted.
// Knows nothing of furcate's backend: it wraps the functions of the WebGPU API.

import { offerSoftwareGpu } from "./gpu.ts";

export interface WatchedDevice {
  readonly device: GPUDevice;
  /** Bytes of buffers that are not destroyed. */
  bytes(): number;
  /** The most that they were. */
  readonly mostBytes: number;
  /** Sizes of buffers that are not destroyed, by label. */
  byLabel(): Map<string, number>;
  /** Buffers, and bind groups, made so far. */
  readonly made: number;
  readonly groups: number;
  /** Most bytes written to the queue that it had not worked off yet. */
  readonly mostWritten: number;
  readonly submits: number;
  /** Command buffers among them that were encoded before anything was written for them: while what came before was at work. */
  readonly foreseen: number;
  readonly maps: number;
}

export interface WatchedGpu {
  /** All devices made so far, the newest last. */
  readonly devices: readonly WatchedDevice[];
}

/** Puts itself in the place of navigator.gpu; why not, where there is no GPU. */
export async function watchGpu(): Promise<WatchedGpu | string> {
  const gpu = await realGpu();
  if (typeof gpu === "string") return gpu;
  const probe = await gpu.requestAdapter();
  if (!probe) return "no adapter";
  const devices: WatchedDevice[] = [];
  const owners: unknown[] = [probe];
  const requestAdapter = async (options?: GPURequestAdapterOptions) => {
    const adapter = await gpu.requestAdapter(options);
    if (!adapter) return null;
    owners.push(adapter);
    const requestDevice = adapter.requestDevice.bind(adapter);
    adapter.requestDevice = async (descriptor) => {
      const device = await requestDevice(descriptor);
      devices.push(watch(device));
      return device;
    };
    return adapter;
  };
  Object.defineProperty(globalThis, "navigator", { value: { gpu: { requestAdapter } }, configurable: true });
  return { devices };
}

async function realGpu(): Promise<GPU | string> {
  const own = (globalThis as { navigator?: { gpu?: GPU } }).navigator?.gpu;
  if (own) return own;
  offerSoftwareGpu();
  try {
    const { create } = await import("webgpu");
    return create([]);
  } catch (error) {
    return (error as Error).message;
  }
}

function watch(device: GPUDevice): WatchedDevice {
  const live = new Map<GPUBuffer, { size: number; label: string }>();
  const counts = { made: 0, groups: 0, mostWritten: 0, submits: 0, foreseen: 0, maps: 0 };
  let bytes = 0;
  let mostBytes = 0;
  let written = 0;
  const createBuffer = device.createBuffer.bind(device);
  device.createBuffer = (descriptor) => {
    const buffer = createBuffer(descriptor);
    counts.made++;
    live.set(buffer, { size: descriptor.size, label: descriptor.label ?? "" });
    bytes += descriptor.size;
    mostBytes = Math.max(mostBytes, bytes);
    const destroy = buffer.destroy.bind(buffer);
    buffer.destroy = () => {
      if (live.delete(buffer)) bytes -= descriptor.size;
      return destroy();
    };
    const mapAsync = buffer.mapAsync.bind(buffer);
    buffer.mapAsync = (...args) => {
      counts.maps++;
      return mapAsync(...args);
    };
    return buffer;
  };
  const createBindGroup = device.createBindGroup.bind(device);
  device.createBindGroup = (descriptor) => {
    counts.groups++;
    return createBindGroup(descriptor);
  };
  /** Commands encoded since the last write to the queue. */
  const fresh = new Set<GPUCommandBuffer>();
  const createCommandEncoder = device.createCommandEncoder.bind(device);
  device.createCommandEncoder = (...args) => {
    const encoder = createCommandEncoder(...args);
    const finish = encoder.finish.bind(encoder);
    encoder.finish = (...args) => {
      const commands = finish(...args);
      fresh.add(commands);
      return commands;
    };
    return encoder;
  };
  const { queue } = device;
  const writeBuffer = queue.writeBuffer.bind(queue);
  queue.writeBuffer = ((buffer: GPUBuffer, at: number, data: ArrayBufferView<ArrayBuffer>, ...rest: number[]) => {
    written += data.byteLength;
    fresh.clear();
    counts.mostWritten = Math.max(counts.mostWritten, written);
    return writeBuffer(buffer, at, data, ...rest);
  }) as typeof queue.writeBuffer;
  const submit = queue.submit.bind(queue);
  queue.submit = (commands) => {
    counts.submits++;
    const all = [...commands];
    counts.foreseen += all.filter((one) => !fresh.has(one)).length;
    return submit(all);
  };
  const onSubmittedWorkDone = queue.onSubmittedWorkDone.bind(queue);
  queue.onSubmittedWorkDone = async () => {
    const before = written;
    const done = await onSubmittedWorkDone();
    written -= before;
    return done;
  };
  return {
    device,
    bytes: () => bytes,
    get mostBytes() {
      return mostBytes;
    },
    byLabel() {
      const sums = new Map<string, number>();
      for (const { size, label } of live.values()) sums.set(label, (sums.get(label) ?? 0) + size);
      return sums;
    },
    get made() {
      return counts.made;
    },
    get groups() {
      return counts.groups;
    },
    get mostWritten() {
      return counts.mostWritten;
    },
    get submits() {
      return counts.submits;
    },
    get foreseen() {
      return counts.foreseen;
    },
    get maps() {
      return counts.maps;
    },
  };
}
