// Dispatches and copies recorded in order, and submitted. Work that came before finds its commands encoded already: that was done
// while the device worked. Knows passes and bind groups; nothing of what kernels compute, nor of errors.

import { type GroupsByBuffer, type Kernel, SIZES_BYTES } from "./kernels.ts";

export interface Recorder {
  /** Whether all that was recorded so far is submitted. */
  readonly allSent: boolean;
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
  /**
   * Records what `record` does. Where the same work came before it is not recorded again: it has to follow from `work` alone, as long
   * as no buffer goes.
   */
  repeat(work: readonly unknown[], record: () => void): void;
  /** Records a copy; whole multiples of 4 bytes. */
  copy(from: GPUBuffer, fromByte: number, to: GPUBuffer, toByte: number, bytes: number): void;
  /** Submits what is recorded. */
  flush(): void;
  /** Encodes all known work that is not, while the device works, for when it comes again. */
  foresee(): void;
  /** Submits, and remembers no command: a buffer is about to go. */
  forget(): void;
}

/** Uniforms of this many different dispatches in one buffer. */
const SLOTS = 1024;
/** Bytes of the least buffer that results come back through: those of a step of most samples. */
export const RESULTS_BYTES = 2 ** 17;
/** Bytes that recording and reading take, about: uniforms, and results of up to three steps on their way. */
export const RECORDING_BYTES = SLOTS * SIZES_BYTES + 3 * RESULTS_BYTES;

/** uniforms: makes a buffer for the dispatches' sizes. */
export function createRecorder(device: GPUDevice, uniforms: (bytes: number) => GPUBuffer): Recorder {
  let recorded: Command[] = []; // not yet encoded
  let encoded: GPUCommandBuffer[] = []; // not yet submitted
  const known: Work[] = []; // the latest last
  let flushes = 0;

  // Sizes, each content once.
  const align = Math.max(SIZES_BYTES, device.limits.minUniformBufferOffsetAlignment);
  const slots = new Map<string, { buffer: GPUBuffer; offset: number }>();
  let slotted: GPUBuffer;
  function slotOf(sizes: readonly number[]) {
    const key = sizes.join();
    let slot = slots.get(key);
    if (!slot) {
      const place = slots.size % SLOTS;
      if (place === 0) slotted = uniforms(SLOTS * align);
      slot = { buffer: slotted, offset: place * align };
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

  function encode(commands: readonly Command[]): GPUCommandBuffer {
    const encoder = device.createCommandEncoder();
    let pass: GPUComputePassEncoder | undefined;
    let pipeline: GPUComputePipeline | undefined;
    for (const command of commands) {
      if ("from" in command) {
        pass?.end();
        pass = undefined;
        encoder.copyBufferToBuffer(command.from, command.fromByte, command.to, command.toByte, command.bytes);
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

  /** Records the work, which is not known; it is then. */
  function learn(key: readonly unknown[], record: () => void): Work | undefined {
    const before = flushes;
    record();
    // What was submitted on the way is no part of it.
    if (flushes !== before) return;
    const first = recorded.length < LONG ? recorded.length : Math.ceil(recorded.length / 8);
    const parts = [recorded.slice(0, first), recorded.slice(first)];
    recorded = [];
    return { key, pieces: parts.filter(({ length }) => length > 0).map((commands) => ({ commands })) };
  }

  /** Ends what is recorded: it waits for what comes next, to be submitted with it. */
  function close(): void {
    if (recorded.length > 0) encoded.push(encode(recorded));
    recorded = [];
  }

  function flush(): void {
    close();
    if (encoded.length > 0) device.queue.submit(encoded);
    encoded = [];
    flushes++;
  }

  return {
    get allSent() {
      return recorded.length + encoded.length === 0;
    },
    run(kernel, bindings, sizes, x, y = 1, z = 1) {
      if (x * y * z === 0) return;
      const slot = slotOf(sizes);
      recorded.push({ kernel, group: groupOf(kernel, bindings, slot.buffer), offset: [slot.offset], x, y, z });
    },
    repeat(key, record) {
      close();
      const place = known.findLastIndex((one) => isSame(one.key, key));
      const work = place < 0 ? learn(key, record) : known.splice(place, 1)[0];
      if (!work) return;
      known.push(work);
      if (known.length > MOST_KNOWN) known.shift();
      for (const [i, piece] of work.pieces.entries()) {
        if (i > 0) flush();
        encoded.push(piece.ready ?? encode(piece.commands));
        piece.ready = undefined;
      }
    },
    copy(from, fromByte, to, toByte, bytes) {
      recorded.push({ from, fromByte, to, toByte, bytes });
    },
    flush,
    foresee() {
      for (const { pieces } of known) for (const piece of pieces) piece.ready ??= encode(piece.commands);
    },
    forget() {
      flush();
      known.length = 0;
    },
  };
}

type Command = Dispatch | Copy;

interface Dispatch {
  readonly kernel: Kernel;
  readonly group: GPUBindGroup;
  readonly offset: number[];
  readonly x: number;
  readonly y: number;
  readonly z: number;
}

interface Copy {
  readonly from: GPUBuffer;
  readonly fromByte: number;
  readonly to: GPUBuffer;
  readonly toByte: number;
  readonly bytes: number;
}

/** Work that came before. */
interface Work {
  readonly key: readonly unknown[];
  readonly pieces: readonly Piece[];
}

/** Commands in one buffer. */
interface Piece {
  readonly commands: readonly Command[];
  /** Encoded before its time. */
  ready?: GPUCommandBuffer;
}

/** Enough for the numbers of rows that a call comes by, of a few prompts. */
const MOST_KNOWN = 64;

/** Work of so many commands is two pieces: the device begins with the short one while the driver takes in the rest. */
const LONG = 32;

const isSame = (a: readonly unknown[], b: readonly unknown[]) =>
  a.length === b.length && a.every((part, i) => part === b[i]);

function next(at: GroupsByBuffer, buffer: GPUBuffer): GroupsByBuffer {
  let found = at.next.get(buffer);
  if (!found) {
    found = { next: new WeakMap() };
    at.next.set(buffer, found);
  }
  return found;
}
