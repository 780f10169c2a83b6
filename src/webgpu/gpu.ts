// The device as the backend's families use it: buffers that are counted, dispatches and copies recorded in order, one submit and
// one read a step. A step that is as the one before finds its commands encoded already: that was done while the device worked.
// Knows queues, passes and errors; nothing of what kernels compute.

import { FurcateError, fail } from "../errors.ts";
import { nextTask } from "../queue.ts";
import type { Abilities, OpenedDevice } from "./device.ts";
import { createKernels, type GroupsByBuffer, type Kernel, type Kernels, SIZES_BYTES } from "./kernels.ts";

export interface Gpu {
  readonly device: GPUDevice;
  /** Held for as long as this is: see OpenedDevice. */
  readonly owners: readonly unknown[];
  readonly limits: GPUSupportedLimits;
  readonly abilities: Abilities;
  readonly isSoftware: boolean;
  readonly kernels: Kernels;
  /** Bytes of all buffers at present, and the most that they ever were. */
  readonly usedBytes: number;
  readonly peakBytes: number;
  /** Bytes that are left of the limit. */
  readonly roomBytes: number;
  readonly lost: boolean;
  /** A zeroed storage buffer of at least `bytes`. Errors: `memory` beyond the limit; what the device refuses shows in `checked`. */
  buffer(bytes: number, label: string): GPUBuffer;
  free(buffer: GPUBuffer): void;
  /** Runs allocations; errors of the device become a rejection: `memory` or `internal`. */
  checked<T>(what: string, allocate: () => T): Promise<T>;
  /**
   * Records a dispatch of x · y · z workgroups. bindings: the buffers of the kernel's bindings, by rising numbers; sizes: the words of binding 0.
   * Repeated ones create nothing.
   */
  run(
    kernel: Kernel,
    bindings: readonly GPUBuffer[],
    sizes: readonly number[],
    x: number,
    y?: number,
    z?: number,
  ): void;
  /** Copies behind all that is recorded so far, and before what is recorded then; whole multiples of 4 bytes. */
  copy(from: GPUBuffer, fromByte: number, to: GPUBuffer, toByte: number, bytes: number): void;
  /** Submits what is recorded. */
  flush(): void;
  /** Writes after all dispatches recorded so far; copies may come later. Whole multiples of 4 bytes. */
  write(buffer: GPUBuffer, byte: number, data: Uint32Array | Uint8Array): void;
  /** Submits, and gives bytes of a buffer once all of it has run. Errors: `device-lost`, `memory`, `internal`. */
  read(buffer: GPUBuffer, byte: number, bytes: number): Promise<ArrayBuffer>;
  /** Submits, and resolves once all of it has run. Errors: as read. */
  finished(): Promise<void>;
  /** Destroys all buffers, and the device unless it is the user's. */
  dispose(): void;
}

// Flags of GPUBufferUsage and GPUMapMode, which are no globals in Node.
const MAP_READ = 0x1;
const COPY_SRC = 0x4;
const COPY_DST = 0x8;
const UNIFORM = 0x40;
const STORAGE = 0x80;
const READ = 1;
/** Uniforms of this many different dispatches in one buffer. */
const SLOTS = 1024;
/** Bytes that recording and reading take, about: uniforms, and buffers that results come back through. */
export const RECORDING_BYTES = 2 * SLOTS * SIZES_BYTES;

/** The 32 bits of a float, as a word of sizes. */
export function floatBits(value: number): number {
  scratch[0] = value;
  return scratchBits[0];
}
const scratch = new Float32Array(1);
const scratchBits = new Uint32Array(scratch.buffer);

/** texts: other shaders than the built ones, for tests. At most `memoryLimit` bytes of buffers. */
export function createGpu(
  { device, abilities, isSoftware, isUsers, owners }: OpenedDevice,
  memoryLimit = Infinity,
  texts?: Readonly<Record<string, string>>,
): Gpu {
  const buffers = new Set<GPUBuffer>();
  let usedBytes = 0;
  let peakBytes = 0;
  // What is recorded since the last submit are the first `recorded` commands; those behind them were so in the submit before.
  const commands: Command[] = [];
  let recorded = 0;
  let isNew = true; // whether they are not as in the submit before
  let encoded: GPUCommandBuffer | undefined; // all commands, where they were submitted twice already
  // Copies to submit before them. They come with few steps and are no part of the commands: those behind would be new for them.
  let copies: GPUCommandEncoder | undefined;
  let failure: FurcateError | undefined;

  void device.lost.then(({ message, reason }) => {
    if (!disposed) failure = lostError(message || reason);
  });
  const onError = ({ error }: GPUUncapturedErrorEvent) => {
    failure ??= errorOf(error, "the GPU");
  };
  device.addEventListener("uncapturederror", onError as EventListener);
  let disposed = false;

  function newBuffer(bytes: number, usage: number, label: string): GPUBuffer {
    const size = Math.max(16, Math.ceil(bytes / 16) * 16);
    if (usedBytes + size > memoryLimit) {
      const left = Math.max(0, memoryLimit - usedBytes);
      fail(
        "memory",
        `${label}: ${count(size)} bytes needed, ${count(left)} left of the limit of ${count(memoryLimit)}`,
      );
    }
    if (size > device.limits.maxBufferSize)
      fail(
        "memory",
        `${label}: ${count(size)} bytes needed, but a buffer here holds ${count(device.limits.maxBufferSize)}`,
      );
    // Deno breaks down where a range is asked for of a buffer that was never mapped.
    const mappedAtCreation = (usage & MAP_READ) !== 0;
    const buffer = device.createBuffer({ size, usage, label, mappedAtCreation });
    if (mappedAtCreation) buffer.unmap();
    usedBytes += size;
    peakBytes = Math.max(peakBytes, usedBytes);
    buffers.add(buffer);
    return buffer;
  }

  // Uniform words, each content once.
  const align = Math.max(SIZES_BYTES, device.limits.minUniformBufferOffsetAlignment);
  const slots = new Map<string, { buffer: GPUBuffer; offset: number }>();
  let uniforms: GPUBuffer;
  function slotOf(sizes: readonly number[]) {
    const key = sizes.join();
    let slot = slots.get(key);
    if (!slot) {
      const place = slots.size % SLOTS;
      if (place === 0) uniforms = newBuffer(SLOTS * align, UNIFORM | COPY_DST, "sizes");
      slot = { buffer: uniforms, offset: place * align };
      slots.set(key, slot);
      device.queue.writeBuffer(slot.buffer, slot.offset, Uint32Array.from(sizes));
    }
    return slot;
  }

  function groupOf(kernel: Kernel, bindings: readonly GPUBuffer[], sizes: GPUBuffer): GPUBindGroup {
    let at = next(kernel.groups, sizes);
    for (const buffer of bindings) at = next(at, buffer);
    at.group ??= device.createBindGroup({
      layout: kernel.layout,
      entries: [
        { binding: 0, resource: { buffer: sizes, size: SIZES_BYTES } },
        ...bindings.map((buffer, i) => ({ binding: kernel.bindings[i], resource: { buffer } })),
      ],
    });
    return at.group;
  }

  function record(command: Command): void {
    commands.length = recorded;
    commands.push(command);
    recorded++;
    isNew = true;
  }

  function encode(): GPUCommandBuffer {
    const encoder = device.createCommandEncoder();
    let pass: GPUComputePassEncoder | undefined;
    let pipeline: GPUComputePipeline | undefined;
    for (const command of commands) {
      if ("copy" in command) {
        pass?.end();
        pass = undefined;
        const { copy, fromByte, to, toByte, bytes } = command;
        encoder.copyBufferToBuffer(copy, fromByte, to, toByte, bytes);
        continue;
      }
      if (!pass) {
        pass = encoder.beginComputePass();
        pipeline = undefined;
      }
      const { kernel, group, offset, x, y, z } = command;
      if (pipeline !== kernel.pipeline) pass.setPipeline(kernel.pipeline);
      pipeline = kernel.pipeline;
      pass.setBindGroup(0, group, offset);
      pass.dispatchWorkgroups(x, y, z);
    }
    pass?.end();
    return encoder.finish();
  }

  function flush(): void {
    const ready: GPUCommandBuffer[] = [];
    if (copies) ready.push(copies.finish());
    copies = undefined;
    if (recorded > 0) {
      const repeats = !isNew && recorded === commands.length;
      commands.length = recorded;
      ready.push((repeats && encoded) || encode());
      encoded = undefined;
      mayRepeat = repeats;
      recorded = 0;
      isNew = false;
    }
    if (ready.length > 0) device.queue.submit(ready);
  }
  let mayRepeat = false;
  /** Encodes what was submitted twice once more, while the device works. */
  function foresee(): void {
    if (mayRepeat && recorded === 0) encoded = encode();
  }

  function copy(from: GPUBuffer, fromByte: number, to: GPUBuffer, toByte: number, bytes: number): void {
    if (recorded > 0) flush();
    copies ??= device.createCommandEncoder();
    copies.copyBufferToBuffer(from, fromByte, to, toByte, bytes);
  }

  /** Records the copy of a step's results. */
  function recordCopy(from: GPUBuffer, fromByte: number, to: GPUBuffer, toByte: number, bytes: number): void {
    const last = commands[recorded];
    const repeats =
      last &&
      "copy" in last &&
      last.copy === from &&
      last.to === to &&
      last.fromByte === fromByte &&
      last.toByte === toByte &&
      last.bytes === bytes;
    if (repeats) recorded++;
    else record({ copy: from, fromByte, to, toByte, bytes });
  }

  // Buffers that results come back through, free ones by size.
  const staging = new Map<number, GPUBuffer[]>();
  async function read(buffer: GPUBuffer, byte: number, bytes: number): Promise<ArrayBuffer> {
    const size = 2 ** Math.ceil(Math.log2(Math.max(256, bytes)));
    const free = staging.get(size) ?? [];
    staging.set(size, free);
    const through = free.pop() ?? newBuffer(size, MAP_READ | COPY_DST, "results");
    recordCopy(buffer, byte, through, 0, bytes);
    flush();
    foresee();
    const mapped = through.mapAsync(READ, 0, bytes);
    const early = mappedEarly(through, bytes);
    if (early) mapped.catch(() => {}); // unmapping may cut it off
    try {
      await orFailure(early ? nextTask() : mapped); // errors arrive in tasks of their own
      return early ?? through.getMappedRange(0, bytes).slice(0);
    } finally {
      through.unmap();
      free.push(through);
    }
  }
  /**
   * Deno's mapAsync returns once the device is done, but its promise resolves 10 ms later: what is mapped is there to be read before.
   * Elsewhere that is refused, as it should be, and not asked for again.
   */
  function mappedEarly(buffer: GPUBuffer, bytes: number): ArrayBuffer | undefined {
    if (!isMappedEarly) return;
    try {
      return buffer.getMappedRange(0, bytes).slice(0);
    } catch {
      isMappedEarly = false;
    }
  }
  let isMappedEarly = true;

  /** Waits for the device, and throws what it said meanwhile. A lost device stays lost; other errors are over with the call. */
  async function orFailure(work: Promise<unknown>): Promise<void> {
    const rejected = await work.then(
      () => undefined,
      (error: Error) => error,
    );
    if (disposed) fail("disposed", "the model was disposed of while it ran");
    if (rejected) failure ??= lostError(rejected.message);
    const error = failure;
    if (error && error.code !== "device-lost") failure = undefined;
    if (error) throw error;
  }

  return {
    device,
    owners,
    limits: device.limits,
    abilities,
    isSoftware,
    kernels: createKernels(device, texts),
    get usedBytes() {
      return usedBytes;
    },
    get peakBytes() {
      return peakBytes;
    },
    get roomBytes() {
      return memoryLimit - usedBytes;
    },
    get lost() {
      return failure?.code === "device-lost";
    },
    buffer: (bytes, label) => newBuffer(bytes, STORAGE | COPY_SRC | COPY_DST, label),
    free(buffer) {
      if (!buffers.delete(buffer)) return;
      usedBytes -= buffer.size;
      flush(); // what is recorded may still use it
      commands.length = 0; // and what was
      encoded = undefined;
      buffer.destroy();
    },
    async checked(what, allocate) {
      device.pushErrorScope("validation");
      device.pushErrorScope("out-of-memory");
      try {
        return allocate();
      } finally {
        const [memory, validation] = await Promise.all([device.popErrorScope(), device.popErrorScope()]);
        const error = memory ?? validation;
        // biome-ignore lint/correctness/noUnsafeFinally: the device's own words say more than what broke after them
        if (error) throw errorOf(error, what);
      }
    },
    run(kernel, bindings, sizes, x, y = 1, z = 1) {
      if (x * y * z === 0) return;
      const last = commands[recorded];
      if (last && "kernel" in last && isSame(last, kernel, bindings, sizes, x, y, z)) {
        recorded++;
        return;
      }
      const slot = slotOf(sizes);
      const group = groupOf(kernel, bindings, slot.buffer);
      record({ kernel, bindings, sizes, group, offset: [slot.offset], x, y, z });
    },
    copy,
    flush,
    write(buffer, byte, data) {
      // Dispatches may read what is overwritten. Copies of blocks do not, and go on in the step's one submit.
      if (recorded > 0) flush();
      device.queue.writeBuffer(buffer, byte, data as Uint8Array<ArrayBuffer>);
    },
    read,
    async finished() {
      flush();
      await orFailure(device.queue.onSubmittedWorkDone());
    },
    dispose() {
      if (disposed) return;
      disposed = true;
      device.removeEventListener("uncapturederror", onError as EventListener);
      for (const buffer of buffers) buffer.destroy();
      buffers.clear();
      usedBytes = 0;
      if (!isUsers) device.destroy();
    },
  };
}

/** A dispatch, or a copy. */
type Command =
  | {
      readonly kernel: Kernel;
      readonly bindings: readonly GPUBuffer[];
      readonly sizes: readonly number[];
      readonly group: GPUBindGroup;
      readonly offset: number[];
      readonly x: number;
      readonly y: number;
      readonly z: number;
    }
  | {
      readonly copy: GPUBuffer;
      readonly fromByte: number;
      readonly to: GPUBuffer;
      readonly toByte: number;
      readonly bytes: number;
    };

function isSame(
  last: Extract<Command, { kernel: Kernel }>,
  kernel: Kernel,
  bindings: readonly GPUBuffer[],
  sizes: readonly number[],
  x: number,
  y: number,
  z: number,
): boolean {
  if (last.kernel !== kernel || last.x !== x || last.y !== y || last.z !== z) return false;
  for (let i = 0; i < bindings.length; i++) if (last.bindings[i] !== bindings[i]) return false;
  for (let i = 0; i < sizes.length; i++) if (last.sizes[i] !== sizes[i]) return false;
  return last.bindings.length === bindings.length && last.sizes.length === sizes.length;
}

function next(at: GroupsByBuffer, buffer: GPUBuffer): GroupsByBuffer {
  let found = at.next.get(buffer);
  if (!found) {
    found = { next: new WeakMap() };
    at.next.set(buffer, found);
  }
  return found;
}

const lostError = (why: string) =>
  new FurcateError("device-lost", `the GPU device was lost (${why}): the next call makes a new one where it can`);

function errorOf(error: GPUError, what: string): FurcateError {
  // Deno's classes are no globals of the same name everywhere, so the name decides.
  return error.constructor.name === "GPUOutOfMemoryError"
    ? new FurcateError("memory", `${what}: the GPU is out of memory: ${error.message}`)
    : new FurcateError("internal", `${what}: the GPU refused a command: ${error.message}`);
}

const count = (bytes: number) => bytes.toLocaleString("en");
