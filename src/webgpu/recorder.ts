// Dispatches and copies recorded in order, in rounds: a round ends with `flush`. One that is as the round before finds its commands
// encoded already: that was done while the device worked. Knows passes and bind groups; nothing of what kernels compute, nor of errors.

import { type GroupsByBuffer, type Kernel, SIZES_BYTES } from "./kernels.ts";

export interface Recorder {
  /** Whether all dispatches and results recorded so far are submitted; copies may wait. */
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
   * Records what `record` does, and submits it. Where one of the last rounds began with the same work it is not recorded again: it has
   * to follow from `work` alone, as long as no buffer goes.
   */
  repeat(work: readonly unknown[], record: () => void): void;
  /** Records a copy of a step's results, to the beginning of a buffer; whole multiples of 4 bytes. */
  copyResults(from: GPUBuffer, fromByte: number, to: GPUBuffer, bytes: number): void;
  /** Copies behind all that is recorded so far, whose round ends, and before what is recorded then; whole multiples of 4 bytes. */
  copy(from: GPUBuffer, fromByte: number, to: GPUBuffer, toByte: number, bytes: number): void;
  /** Dispatches a kernel for each of several lists of bindings, when `copy` copies. */
  runAside(
    kernel: Kernel,
    each: readonly (readonly GPUBuffer[])[],
    sizes: readonly number[],
    x: number,
    y: number,
  ): void;
  /** Submits what is recorded; the round is over. */
  flush(): void;
  /** Encodes the round that is over once more, while the device works: for the next one, which is mostly the same. */
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
  // The round's commands are the first `recorded`; those behind them were so in the round before.
  const commands: Command[] = [];
  let recorded = 0;
  let sent = 0; // of them submitted
  let begun: Known | undefined; // the work that they begin with, where it is known
  const known: Known[] = []; // works that rounds began with, the latest last
  const pieces: Piece[] = []; // of the commands, one behind the other, as far as they were submitted in this round or the one before
  let nPieces = 0; // submitted in this round
  let rounds = 0; // that are over
  let works = 0; // of this round, or the last
  // What is to be submitted before them. It comes with few steps and is no part of the commands: those behind would be new for it.
  let aside: GPUCommandEncoder | undefined;

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

  /** Forgets the commands behind those recorded. */
  function cutOff(): void {
    commands.length = recorded;
    if (begun && begun.commands.length > recorded) begun = undefined;
    while (pieces.length > 0 && pieces[pieces.length - 1].end > recorded) pieces.pop();
  }

  function record(command: Command): void {
    cutOff();
    commands.push(command);
    recorded++;
  }

  /** Begins a round with work that the round before did not begin with. */
  function beginWith(work: readonly unknown[], record: () => void): void {
    const place = known.findIndex((one) => isSameWork(one.work, work));
    const found = place < 0 ? undefined : known.splice(place, 1)[0];
    const round = rounds;
    if (found) {
      cutOff();
      commands.push(...found.commands);
      recorded = commands.length;
    } else record();
    if (rounds !== round) return;
    begun = found ?? { work, commands: commands.slice(0, recorded) };
    known.push(begun);
    if (known.length > MOST_KNOWN) known.shift();
  }

  function encode(begin: number, end: number): GPUCommandBuffer {
    const encoder = device.createCommandEncoder();
    let pass: GPUComputePassEncoder | undefined;
    let pipeline: GPUComputePipeline | undefined;
    for (const command of commands.slice(begin, end)) {
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

  /** Submits what is recorded. */
  function send(): void {
    let first = aside ? [aside.finish()] : [];
    aside = undefined;
    while (sent < recorded) {
      if (nPieces === pieces.length || pieces[nPieces].end > recorded) {
        pieces.length = nPieces;
        for (const end of endsOf(sent, recorded)) pieces.push({ end });
      }
      const piece = pieces[nPieces];
      device.queue.submit([...first, piece.ready ?? encode(sent, piece.end)]);
      piece.ready = undefined;
      first = [];
      sent = piece.end;
      nPieces++;
    }
    if (first.length > 0) device.queue.submit(first);
  }

  function flush(): void {
    send();
    if (recorded === 0) return;
    cutOff();
    recorded = sent = nPieces = 0;
    rounds++;
  }

  /** Takes what is to be submitted before the next commands; the round is over. */
  function besides(): GPUCommandEncoder {
    if (recorded > 0) flush();
    aside ??= device.createCommandEncoder();
    return aside;
  }

  function copy(from: GPUBuffer, fromByte: number, to: GPUBuffer, toByte: number, bytes: number): void {
    besides().copyBufferToBuffer(from, fromByte, to, toByte, bytes);
  }

  return {
    get allSent() {
      return recorded === sent;
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
    repeat(work, record) {
      works = recorded > 0 ? works + 1 : 1;
      if (recorded > 0) record();
      else if (begun && isSameWork(begun.work, work)) recorded = begun.commands.length;
      else beginWith(work, record);
      send();
    },
    copyResults(from, fromByte, to, bytes) {
      // What is read by itself is no round of its own: the last one may still come again.
      if (recorded === 0) return copy(from, fromByte, to, 0, bytes);
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
    copy,
    runAside(kernel, each, sizes, x, y) {
      const slot = slotOf(sizes);
      const groups = each.map((bindings) => groupOf(kernel, bindings, slot.buffer));
      const pass = besides().beginComputePass();
      pass.setPipeline(kernel.pipeline);
      for (const group of groups) {
        pass.setBindGroup(0, group, [slot.offset]);
        pass.dispatchWorkgroups(x, y);
      }
      pass.end();
    },
    flush,
    foresee() {
      // Of several forwards that are read from once, as a prompt's are, none comes again.
      if (recorded > 0 || works > 1) return;
      for (const [i, piece] of pieces.entries()) piece.ready ??= encode(i === 0 ? 0 : pieces[i - 1].end, piece.end);
    },
    forget() {
      flush();
      cutOff();
      known.length = 0;
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

/** Work, and the commands that it was recorded as. */
interface Known {
  readonly work: readonly unknown[];
  readonly commands: readonly Command[];
}

/** Enough for the numbers of rows that a call comes by, of a few prompts. */
const MOST_KNOWN = 32;

/** Commands from where the piece before ends, in one buffer. */
interface Piece {
  readonly end: number;
  /** Encoded before its time. */
  ready?: GPUCommandBuffer;
}

/** So many commands are submitted as two pieces: the device begins with the short one while the driver takes in the rest. */
const LONG = 32;
const endsOf = (begin: number, end: number) =>
  end - begin < LONG ? [end] : [begin + Math.ceil((end - begin) / 8), end];

const isSameWork = (a: readonly unknown[], b: readonly unknown[]) =>
  a.length === b.length && a.every((part, i) => part === b[i]);

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
