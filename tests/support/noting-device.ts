// A GPU device that computes nothing, and notes the commands that are submitted. Knows of kernels their names and constants, and of
// buffers their labels; every result that is read back is the same logit.

import * as assert from "uvu/assert";

export interface NotedBuffer {
  readonly label: string;
  destroyed: boolean;
}
interface Noted {
  readonly text: string;
  readonly buffers: readonly NotedBuffer[];
}
interface NotedCommands {
  readonly commands: Noted[];
  readonly ahead: boolean;
  submitted: boolean;
}

/** Errors: where commands come twice, or with buffers that are destroyed. */
export function notingDevice() {
  const log: string[] = [];
  const counts = { submits: 0, encodedAhead: 0, ahead: false };
  /** The words of sizes, by where they begin. */
  const written = new WeakMap<NotedBuffer, Map<number, string>>();
  const device = {
    limits: {
      minUniformBufferOffsetAlignment: 256,
      maxBufferSize: 2 ** 31,
      maxStorageBufferBindingSize: 2 ** 31 - 4,
      maxComputeWorkgroupStorageSize: 32768,
      maxComputeInvocationsPerWorkgroup: 1024,
      maxComputeWorkgroupSizeX: 1024,
      maxComputeWorkgroupsPerDimension: 65535,
    },
    lost: new Promise(() => {}),
    addEventListener() {},
    removeEventListener() {},
    pushErrorScope() {},
    popErrorScope: async () => null,
    createBuffer: ({ label = "", size = 16 }) => ({
      label,
      size,
      destroyed: false,
      destroy() {
        this.destroyed = true;
      },
      unmap() {},
      mapAsync: async () => {},
      getMappedRange: (_: number, bytes: number) => new Uint32Array(bytes / 4).fill(0xbf800000).buffer,
    }),
    createShaderModule: () => ({}),
    createBindGroupLayout: () => ({}),
    createPipelineLayout: () => ({}),
    createComputePipeline: pipelineOf,
    createComputePipelineAsync: async (descriptor: GPUComputePipelineDescriptor) => pipelineOf(descriptor),
    createBindGroup: ({ entries }: { entries: { resource: { buffer: NotedBuffer } }[] }) =>
      entries.map(({ resource }) => resource.buffer),
    createCommandEncoder() {
      const commands: Noted[] = [];
      return {
        copyBufferToBuffer(from: NotedBuffer, fromByte: number, to: NotedBuffer, toByte: number, bytes: number) {
          const text = `copy ${from.label} ${fromByte} ${to.label} ${toByte} ${bytes}`;
          commands.push({ text, buffers: [from, to] });
        },
        beginComputePass() {
          let pipeline = "";
          let [sizes, ...bound]: NotedBuffer[] = [];
          let offset = 0;
          return {
            setPipeline(next: string) {
              pipeline = next;
            },
            setBindGroup(_: number, group: NotedBuffer[], [at]: number[]) {
              [sizes, ...bound] = group;
              offset = at;
            },
            dispatchWorkgroups(...groups: number[]) {
              const labels = bound.map(({ label }) => label).join();
              const words = written.get(sizes)?.get(offset);
              commands.push({ text: `${pipeline} ${labels} ${words} ${groups.join()}`, buffers: bound });
            },
            end() {},
          };
        },
        finish: (): NotedCommands => ({ commands, ahead: counts.ahead, submitted: false }),
      };
    },
    queue: {
      submit(all: NotedCommands[]) {
        counts.submits++;
        for (const one of all) {
          assert.is(one.submitted, false, "commands are submitted once");
          one.submitted = true;
          if (one.ahead) counts.encodedAhead++;
          for (const { text, buffers } of one.commands) {
            assert.is(buffers.find(({ destroyed }) => destroyed)?.label, undefined, `${text}: a buffer that is gone`);
            log.push(text);
          }
        }
      },
      writeBuffer(buffer: NotedBuffer, offset: number, words: Uint32Array) {
        const places = written.get(buffer) ?? new Map<number, string>();
        written.set(buffer, places);
        places.set(offset, words.join("/"));
      },
      onSubmittedWorkDone: async () => {},
    },
  };
  return { device: device as unknown as GPUDevice, log, counts };
}

const pipelineOf = ({ label, compute }: GPUComputePipelineDescriptor) => `${label}${JSON.stringify(compute.constants)}`;
