// Dispatches and copies recorded in order, and submitted together. A step that is as the one before finds its commands encoded already:
// that was done while the device worked. Knows passes and bind groups; nothing of what kernels compute, nor of errors.

import { type GroupsByBuffer, type Kernel, SIZES_BYTES } from "./kernels.ts";

export interface Recorder {
  /** Whether nothing is recorded since the last submit but copies before it. */
  readonly isEmpty: boolean;
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
  /** Records a copy of a step's results, to the beginning of a buffer; whole multiples of 4 bytes. */
  copyResults(from: GPUBuffer, fromByte: number, to: GPUBuffer, bytes: number): void;
  /** Copies behind all that is recorded so far, and before what is recorded then; whole multiples of 4 bytes. */
  copy(from: GPUBuffer, fromByte: number, to: GPUBuffer, toByte: number, bytes: number): void;
  /** Submits what is recorded. */
  flush(): void;
  /** Encodes what was submitted twice once more, while the device works. */
  foresee(): void;
  /** Submits, and remembers no command: a buffer is about to go. */
  forget(): void;
}

/** Uniforms of this many different dispatches in one buffer. */
const SLOTS = 1024;
/** Bytes that recording and reading take, about: uniforms, and buffers that results come back through. */
export const RECORDING_BYTES = 2 * SLOTS * SIZES_BYTES;

/** uniforms: makes a buffer for the dispatches' sizes. */
export function createRecorder(device: GPUDevice, uniforms: (bytes: number) => GPUBuffer): Recorder {
  // What is recorded since the last submit are the first `recorded` commands; those behind them were so in the submit before.
  const commands: Command[] = [];
  let recorded = 0;
  let isNew = true; // whether they are not as in the submit before
  let mayRepeat = false; // whether the last submit was as the one before
  let encoded: GPUCommandBuffer | undefined; // all commands, where they were submitted twice already
  // Copies to submit before them. They come with few steps and are no part of the commands: those behind would be new for them.
  let copies: GPUCommandEncoder | undefined;

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
      if ("from" in command) {
        pass?.end();
        pass = undefined;
        encoder.copyBufferToBuffer(command.from, command.fromByte, command.to, 0, command.bytes);
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

  return {
    get isEmpty() {
      return recorded === 0;
    },
    run(kernel, bindings, sizes, x, y = 1, z = 1) {
      if (x * y * z === 0) return;
      const last = commands[recorded];
      if (last && "kernel" in last && isSame(last, kernel, bindings, sizes, x, y, z)) recorded++;
      else {
        const slot = slotOf(sizes);
        const group = groupOf(kernel, bindings, slot.buffer);
        record({ kernel, bindings, sizes, group, offset: [slot.offset], x, y, z });
      }
    },
    copyResults(from, fromByte, to, bytes) {
      const last = commands[recorded];
      const repeats =
        last &&
        "from" in last &&
        last.from === from &&
        last.to === to &&
        last.fromByte === fromByte &&
        last.bytes === bytes;
      if (repeats) recorded++;
      else record({ from, fromByte, to, bytes });
    },
    copy(from, fromByte, to, toByte, bytes) {
      if (recorded > 0) flush();
      copies ??= device.createCommandEncoder();
      copies.copyBufferToBuffer(from, fromByte, to, toByte, bytes);
    },
    flush,
    foresee() {
      if (mayRepeat && recorded === 0) encoded = encode();
    },
    forget() {
      flush();
      commands.length = 0;
      encoded = undefined;
    },
  };
}

/** A dispatch, or a copy of results. */
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
  | { readonly from: GPUBuffer; readonly fromByte: number; readonly to: GPUBuffer; readonly bytes: number };

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
