// The device as the backend's families use it: buffers that are counted, dispatches and copies (recorder.ts), reads, of which some
// may be on their way at once, and what the device says of errors. Knows queues and errors; nothing of what kernels compute.

import { FurcateError, fail } from "../errors.ts";
import { nextTask } from "../queue.ts";
import type { Abilities, OpenedDevice } from "./device.ts";
import { createKernels, type Kernels } from "./kernels.ts";
import { createRecorder, RESULTS_BYTES, type Recorder } from "./recorder.ts";

export interface Gpu extends Pick<Recorder, "run" | "repeat" | "copy"> {
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
  /** Writes after all that was recorded so far, which is submitted. Whole multiples of 4 bytes. */
  write(buffer: GPUBuffer, byte: number, data: Uint32Array | Uint8Array): void;
  /**
   * Submits, and gives bytes of a buffer once all of it has run: the first ones of `to`, or as many by themselves.
   * Errors: `device-lost`, `memory`, `internal`.
   */
  read(buffer: GPUBuffer, byte: number, bytes: number, to?: ArrayBuffer): Promise<ArrayBuffer>;
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
  let failure: FurcateError | undefined;
  let disposed = false;

  void device.lost.then(({ message, reason }) => {
    if (!disposed) failure = lostError(message || reason);
  });
  // Several may wait at once, and nobody may hear of one of them: what it is for may be in vain.
  const waits = new Set<{ failure?: FurcateError }>();
  let isUnheard = false; // whether anything was asked of the device that no wait is for yet
  const onError = ({ error }: GPUUncapturedErrorEvent) => {
    const happened = errorOf(error, "the GPU");
    if (isUnheard || !recorder.allSent || waits.size === 0) failure ??= happened;
    else for (const wait of waits) wait.failure ??= happened;
  };
  device.addEventListener("uncapturederror", onError as EventListener);

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
    isUnheard = true;
    // Deno breaks down where a range is asked for of a buffer that was never mapped.
    const mappedAtCreation = (usage & MAP_READ) !== 0;
    const buffer = device.createBuffer({ size, usage, label, mappedAtCreation });
    if (mappedAtCreation) buffer.unmap();
    usedBytes += size;
    peakBytes = Math.max(peakBytes, usedBytes);
    buffers.add(buffer);
    return buffer;
  }

  const recorder = createRecorder(device, (bytes) => newBuffer(bytes, UNIFORM | COPY_DST, "sizes"));
  const { run, repeat, copy, flush } = recorder;

  // Buffers that results come back through, free ones by size.
  const staging = new Map<number, GPUBuffer[]>();
  async function read(
    buffer: GPUBuffer,
    byte: number,
    bytes: number,
    to = new ArrayBuffer(bytes),
  ): Promise<ArrayBuffer> {
    const size = 2 ** Math.ceil(Math.log2(Math.max(RESULTS_BYTES, bytes)));
    const free = staging.get(size) ?? [];
    staging.set(size, free);
    const through = free.pop() ?? newBuffer(size, MAP_READ | COPY_DST, "results");
    copy(buffer, byte, through, 0, bytes);
    flush();
    recorder.foresee();
    const mapped = through.mapAsync(READ, 0, bytes);
    const take = () => new Uint8Array(to).set(new Uint8Array(through.getMappedRange(0, bytes)));
    const early = isMappedEarly(take);
    if (early) mapped.catch(() => {}); // unmapping may cut it off
    try {
      await orFailure(early ? nextTask() : mapped); // errors arrive in tasks of their own
      if (!early) take();
      return to;
    } finally {
      through.unmap();
      free.push(through);
    }
  }
  /**
   * Deno's mapAsync returns once the device is done, but its promise resolves 10 ms later: what is mapped is there to be read before.
   * Elsewhere that is refused, as it should be, and not asked for again.
   */
  function isMappedEarly(take: () => void): boolean {
    if (!mapsEarly) return false;
    try {
      take();
    } catch {
      mapsEarly = false;
    }
    return mapsEarly;
  }
  let mapsEarly = true;

  /** Waits for the device, and throws what it said meanwhile. A lost device stays lost; other errors are over with the call. */
  async function orFailure(work: Promise<unknown>): Promise<void> {
    const wait = { failure };
    if (failure?.code !== "device-lost") failure = undefined;
    isUnheard = false;
    waits.add(wait);
    const rejected = await work.then(
      () => undefined,
      (error: Error) => error,
    );
    waits.delete(wait);
    if (disposed) fail("disposed", "the model was disposed of while it ran");
    if (rejected) failure ??= lostError(rejected.message);
    const error = failure?.code === "device-lost" ? failure : wait.failure;
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
      recorder.forget(); // what is or was recorded may use it
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
    run,
    repeat,
    copy,
    write(buffer, byte, data) {
      // What is recorded may read what is overwritten.
      if (!recorder.allSent) flush();
      isUnheard = true;
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

const lostError = (why: string) =>
  new FurcateError("device-lost", `the GPU device was lost (${why}): the next call makes a new one where it can`);

function errorOf(error: GPUError, what: string): FurcateError {
  // Deno's classes are no globals of the same name everywhere, so the name decides.
  return error.constructor.name === "GPUOutOfMemoryError"
    ? new FurcateError("memory", `${what}: the GPU is out of memory: ${error.message}`)
    : new FurcateError("internal", `${what}: the GPU refused a command: ${error.message}`);
}

const count = (bytes: number) => bytes.toLocaleString("en");
