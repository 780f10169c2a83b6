// What this machine can do at most, measured here: read bandwidth and multiply-adds a second of one thread in WebAssembly.
// The floors that the benchmark holds its figures against follow from them.

import { availableParallelism, cpus, loadavg, totalmem } from "node:os";
import asc from "assemblyscript/asc";
import { GGML_TYPES, type GgmlType, type Gguf } from "../../src/formats/gguf.ts";
import { newCpuModule, u8 } from "../../src/wasm.ts";
import { median } from "../table.ts";

export interface Machine {
  text: string;
  /** Bytes a second of a plain sum over a buffer that no cache holds. */
  readBandwidth: number;
  /** Multiply-adds a second: the most that f32 and 16-bit instructions reach from registers. */
  peakFloat: number;
  peakInteger: number;
  /** Multiply-adds a second of furcate's `linear`, weights in the cache, by number of rows. */
  kernel: Record<1 | 16 | 64, number>;
}

const BUFFER = 256 << 20;
const SOURCE = `
export function sum(bytes: usize): i64 {
  let a = i64x2.splat(0), b = a, c = a, d = a;
  for (let at: usize = 65536; at < 65536 + bytes; at += 64) {
    a = i64x2.add(a, v128.load(at));
    b = i64x2.add(b, v128.load(at, 16));
    c = i64x2.add(c, v128.load(at, 32));
    d = i64x2.add(d, v128.load(at, 48));
  }
  a = i64x2.add(i64x2.add(a, b), i64x2.add(c, d));
  return i64x2.extract_lane(a, 0) + i64x2.extract_lane(a, 1);
}
export function floats(turns: u32): f32 {
  let a = f32x4.splat(1), b = a, c = a, d = a, e = a, f = a, g = a, h = a, x = f32x4.splat(1.000001);
  for (let i: u32 = 0; i < turns; i++) {
    ${[..."abcdefgh"].map((r) => `${r} = f32x4.add(${r}, f32x4.mul(x, v128.load(65536 + ${16 * (r.charCodeAt(0) - 97)})));`).join("\n    ")}
  }
  return f32x4.extract_lane(f32x4.add(f32x4.add(f32x4.add(a, b), f32x4.add(c, d)), f32x4.add(f32x4.add(e, f), f32x4.add(g, h))), 0);
}
export function integers(turns: u32): i32 {
  let a = i32x4.splat(0), b = a, c = a, d = a, e = a, f = a, g = a, h = a, x = i16x8.splat(3);
  for (let i: u32 = 0; i < turns; i++) {
    ${[..."abcdefgh"].map((r) => `${r} = i32x4.add(${r}, i32x4.dot_i16x8_s(x, v128.load(65536 + ${16 * (r.charCodeAt(0) - 97)})));`).join("\n    ")}
  }
  return i32x4.extract_lane(i32x4.add(i32x4.add(i32x4.add(a, b), i32x4.add(c, d)), i32x4.add(i32x4.add(e, f), i32x4.add(g, h))), 0);
}
`;

/** Measures this machine; `type` is the weights' type that `linear` is timed with. */
export async function measureMachine(type: GgmlType): Promise<Machine> {
  const cpu = cpus()[0]?.model.trim() || process.arch;
  const gibibytes = Math.round(totalmem() / 2 ** 30);
  const busy = loadavg()[0];
  const { sum, floats, integers } = await compile();
  const turns = 4_000_000;
  const rate = (work: number, run: () => void) => work / (fastest(run) / 1000);
  return {
    text: `${cpu}, ${availableParallelism()} cores, ${gibibytes} GiB, ${process.platform} ${process.arch}, Node ${process.version}; one thread used, load average at the start ${busy.toFixed(1)}${busy > 0.5 ? " (busy with other work: expect noise, measure again when it is quiet)" : ""}`,
    readBandwidth: rate(BUFFER, () => sum(BUFFER)),
    peakFloat: rate(turns * 8 * 4, () => floats(turns)),
    peakInteger: rate(turns * 8 * 8, () => integers(turns)),
    kernel: await kernelRates(type),
  };
}

/** What one token costs: multiply-adds of the layers and of the logits (which a prefill needs for its last token only). */
export interface TokenCost {
  layers: number;
  logits: number;
  /** Bytes of all weights of both, as in the file. */
  bytes: number;
}

/** The cost of a token, and the type of most weights. */
export function tokenCost({ tensors }: Pick<Gguf, "tensors">): TokenCost & { type: GgmlType } {
  const logits = tensors.get("output.weight") ?? tensors.get("token_embd.weight")!;
  const layers = [...tensors.values()].filter(({ name, shape }) => name.startsWith("blk.") && shape.length === 2);
  const sizes = new Map<GgmlType, number>();
  for (const { type, byteLength } of layers) sizes.set(type, (sizes.get(type) ?? 0) + byteLength);
  const [type] = [...sizes].reduce((most, next) => (next[1] > most[1] ? next : most));
  return {
    layers: layers.reduce((sum, { shape: [rows, cols] }) => sum + rows * cols, 0),
    logits: logits.shape[0] * logits.shape[1],
    bytes: [logits, ...layers].reduce((sum, { byteLength }) => sum + byteLength, 0),
    type,
  };
}

interface Peaks {
  sum(bytes: number): bigint;
  floats(turns: number): number;
  integers(turns: number): number;
}

async function compile(): Promise<Peaks> {
  const { error, binary, stderr } = await asc.compileString(SOURCE, {
    optimizeLevel: 3,
    noAssert: true,
    enable: ["simd"],
    runtime: "stub",
    initialMemory: (BUFFER >> 16) + 1,
  });
  if (error) throw new Error(`the bandwidth kernel does not compile: ${stderr}`);
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(Uint8Array.from(binary!)), {
    env: { abort() {} },
  });
  new Uint8Array((exports.memory as WebAssembly.Memory).buffer).fill(1);
  return exports as unknown as Peaks;
}

async function kernelRates(type: GgmlType): Promise<Machine["kernel"]> {
  const [outputs, cols, most] = [1536, 576, 64];
  const id = GGML_TYPES[type].id;
  const cpu = await newCpuModule();
  const panelBytes = cpu.panelBytes(id, cols);
  const weight = cpu.alloc((outputs / 8) * panelBytes);
  const source = cpu.alloc(8 * cpu.rowBytes(id, cols) + cols);
  u8(cpu, source, 8 * cpu.rowBytes(id, cols)).fill(0x2c); // a modest number in every type of float
  for (let panel = 0; panel < outputs / 8; panel++)
    cpu.packPanel(id, source, 8, cols, weight + panel * panelBytes, source + 8 * cpu.rowBytes(id, cols));
  const x = cpu.alloc(most * cols * 4);
  u8(cpu, x, most * cols * 4).fill(0x3c);
  const out = cpu.alloc(most * outputs * 4);
  const scratch = cpu.alloc(cpu.linearScratchBytes(id, most, cols, outputs));
  const rate = (rows: number) => {
    const calls = Math.ceil(256 / rows);
    const run = () => {
      for (let i = 0; i < calls; i++) cpu.linear(x, weight, id, out, rows, cols, outputs, 0, scratch);
    };
    return (calls * rows * cols * outputs) / (fastest(run) / 1000);
  };
  return { 1: rate(1), 16: rate(16), 64: rate(64) };
}

/** Milliseconds of the fastest third of some runs, the first ones (compilation) left out. */
function fastest(run: () => void): number {
  const times: number[] = [];
  for (let i = 0; i < 18; i++) {
    const start = performance.now();
    run();
    if (i >= 3) times.push(performance.now() - start);
  }
  return median(times.sort((a, b) => a - b).slice(0, 5));
}
