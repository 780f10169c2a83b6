// GPU time of each kernel: puts every dispatch into a pass of its own with a timestamp before and after it.
// Wraps a device; nothing of the backend knows that it is watched.

import { fail } from "../../src/errors.ts";

export interface KernelTime {
  /** Its shader, the heads in the place of the shader's own, and its workgroups. */
  readonly kernel: string;
  /** Dispatches. */
  readonly count: number;
  /** Microseconds of all of them. */
  readonly us: number;
}

export interface Profile {
  /** What each kernel took since the last call, most time first. */
  take(): Promise<KernelTime[]>;
  /** Whether dispatches are timed: passes of their own cost time. */
  on: boolean;
}

const QUERIES = 4096;
const [MAP_READ, COPY_SRC, COPY_DST, QUERY_RESOLVE] = [0x1, 0x4, 0x8, 0x200];

/** Errors: `unsupported` where the device has no timestamps. */
export function profile(device: GPUDevice): Profile {
  if (!device.features.has("timestamp-query"))
    fail("unsupported", "the time of each kernel takes the feature timestamp-query, which this device lacks");
  const querySet = device.createQuerySet({ type: "timestamp", count: QUERIES });
  const resolved = device.createBuffer({ size: QUERIES * 8, usage: QUERY_RESOLVE | COPY_SRC });
  const readable = device.createBuffer({ size: QUERIES * 8, usage: COPY_DST | MAP_READ });
  let names: string[] = [];
  const labels = new WeakMap<GPUComputePipeline, string>();
  const createPipeline = device.createComputePipelineAsync.bind(device);
  device.createComputePipelineAsync = async (descriptor) => {
    const pipeline = await createPipeline(descriptor);
    labels.set(pipeline, descriptor.label ?? "?");
    return pipeline;
  };
  const createNow = device.createComputePipeline.bind(device);
  device.createComputePipeline = (descriptor) => {
    const pipeline = createNow(descriptor);
    labels.set(pipeline, descriptor.label ?? "?");
    return pipeline;
  };
  const self: Profile = {
    on: false,
    async take() {
      const encoder = device.createCommandEncoder();
      encoder.resolveQuerySet(querySet, 0, names.length * 2, resolved, 0);
      encoder.copyBufferToBuffer(resolved, 0, readable, 0, names.length * 16);
      device.queue.submit([encoder.finish()]);
      await readable.mapAsync(1, 0, names.length * 16);
      const times = new BigUint64Array(readable.getMappedRange(0, names.length * 16).slice(0));
      readable.unmap();
      const sums = new Map<string, { count: number; us: number }>();
      names.forEach((name, i) => {
        const sum = sums.get(name) ?? { count: 0, us: 0 };
        sums.set(name, { count: sum.count + 1, us: sum.us + Number(times[2 * i + 1] - times[2 * i]) / 1e3 });
      });
      names = [];
      return [...sums].map(([kernel, sum]) => ({ kernel, ...sum })).sort((a, b) => b.us - a.us);
    },
  };
  const createEncoder = device.createCommandEncoder.bind(device);
  device.createCommandEncoder = (descriptor) => {
    const encoder = createEncoder(descriptor);
    if (!self.on) return encoder;
    const beginPass = encoder.beginComputePass.bind(encoder);
    let pipeline: GPUComputePipeline;
    let group: [GPUBindGroup, number[]];
    encoder.beginComputePass = () =>
      ({
        setPipeline(next: GPUComputePipeline) {
          pipeline = next;
        },
        setBindGroup(_: number, next: GPUBindGroup, offsets: number[]) {
          group = [next, offsets];
        },
        dispatchWorkgroups(x: number, y = 1, z = 1) {
          if (names.length * 2 >= QUERIES) return;
          const at = names.length * 2;
          names.push(`${labels.get(pipeline)}, ${[x, y, z].join(" × ")}`);
          const pass = beginPass({
            timestampWrites: { querySet, beginningOfPassWriteIndex: at, endOfPassWriteIndex: at + 1 },
          });
          pass.setPipeline(pipeline);
          pass.setBindGroup(0, group[0], group[1]);
          pass.dispatchWorkgroups(x, y, z);
          pass.end();
        },
        end() {},
      }) as unknown as GPUComputePassEncoder;
    return encoder;
  };
  return self;
}
