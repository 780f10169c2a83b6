// What the GPU's attention promises beyond the contract's results (kernels.test.ts): each K and V loaded once for a tile of rows,
// rows that do not feel each other, sizes at the edges of tiles and slices.

import { test } from "uvu";
import * as assert from "uvu/assert";
import { shaders } from "../build/shaders.js";
import { contextRows } from "../src/webgpu/attention.ts";
import type { GpuTensor } from "../src/webgpu/buffers.ts";
import type { Gpu } from "../src/webgpu/gpu.ts";
import { type AttentionRig, createAttentionRig, decodeStep, type RigShape } from "./support/attention-rig.ts";
import { close, sameBits } from "./support/backends.ts";
import { gpuFor } from "./support/gpu.ts";
import * as reference from "./support/reference.ts";

const opened = await gpuFor("attention on a GPU");

const BOUND = { atol: 3e-6, rtol: 1e-5 };

const CASES = [
  { name: "257 heads of one KV head", nHeads: 257, nKvHeads: 1, headDim: 8, context: 40, decode: [3] },
  { name: "260 rows of one KV head", nHeads: 4, nKvHeads: 1, headDim: 16, context: 70, decode: sequence(65) },
  { name: "group of 3", nHeads: 9, nKvHeads: 3, headDim: 64, context: 129, decode: [1, 0, 200, 33] },
  { name: "3000 tokens", nHeads: 2, nKvHeads: 1, headDim: 16, context: 3000, decode: [1, 65] },
  { name: "a tail of 1500 tokens", nHeads: 2, nKvHeads: 2, headDim: 16, context: 10, decode: [1500, 1, 1025] },
  { name: "six samples", nHeads: 2, nKvHeads: 2, headDim: 20, context: 2100, decode: [1, 40, 3, 129, 5, 32] },
  { name: "18 rows, slices of several steps", nHeads: 6, nKvHeads: 1, headDim: 16, context: 4400, decode: [1, 40, 3] },
  { name: "288 dimensions", nHeads: 1, nKvHeads: 1, headDim: 288, context: 70, decode: [1, 30] },
  { name: "256 dimensions", nHeads: 2, nKvHeads: 1, headDim: 256, context: 70, decode: [1, 30] },
  ...[1, 31, 32, 33, 63, 64, 65, 127, 128, 129, 257].map((context) => ({
    name: `context of ${context}`,
    nHeads: 4,
    nKvHeads: 2,
    headDim: 20,
    context,
    decode: [1, context % 40],
  })),
];

const isOfAll = ({ name }: { name: string }) =>
  /^group of 3|^a tail of 1500|^six samples|^18 rows|^context of/.test(name);
const isOfBoth = ({ name }: { name: string }) => /^group of 3|^a tail of 1500|^six samples|^context of 33/.test(name);

function sequence(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

/** A GPU that is a program shares work in a way of its own; there the hardware's is tested too. */
const devices = opened ? (opened.isSoftware ? [opened, { ...opened, isSoftware: false }] : [opened]) : [];
for (const device of devices) {
  const newRig = (shape: RigShape, options = {}) => createAttentionRig(device, shape, options);
  const as = device === opened ? "" : " (shared as on hardware)";

  // Each shape is compiled anew, which is what takes the time: of the other sharing one with GQA, slices and tails.
  for (const { name, context, decode, ...shape } of device === opened ? CASES : CASES.filter(isOfAll))
    test(`attention in two parts and in one, ${name}${as}`, async () => {
      // Tails are a dispatch of their own, or one with what joins them, as for many samples of a large model.
      for (const asLarge of isOfBoth({ name }) ? [false, true] : [false]) {
        const rig = await newRig(shape, { asLarge });
        const step = await decodeStep(rig, context, decode);
        const want = reference.attendOnePart(referenceCase(rig, step));
        const q = rig.tensor(decode.length, shape.nHeads * shape.headDim, step.q);
        if (!asLarge) close(await onePart(rig, q, step.batch), want, BOUND, "one-part");
        close(await twoParts(rig, q, step.batch), want, BOUND, `two-part${asLarge ? ", joined" : ""}`);
        rig.dispose();
      }
    });

  test(`by the same kernels a row's result has the same bits whatever rows come with it${as}`, async () => {
    const decode = [5, 0, 40, 64, 1, 7, 3];
    const shapes = [
      { nHeads: 6, nKvHeads: 2, headDim: 20 },
      { nHeads: 2, nKvHeads: 2, headDim: 20 },
    ];
    for (const shape of device === opened ? shapes : shapes.slice(0, 1)) {
      const rig = await newRig(shape, { kernelClass: "many" });
      const { batch, q } = await decodeStep(rig, 200, decode);
      const width = shape.nHeads * shape.headDim;
      const all = rig.tensor(decode.length, width, q);
      const two = await twoParts(rig, all, batch);
      const one = await onePart(rig, all, batch);
      for (const rows of [1, 2, 3]) {
        const some = {
          ...rig.plain(rows),
          context: batch.context,
          tails: {
            blocks: batch.tails!.blocks.slice(2, 2 + rows),
            lengths: batch.tails!.lengths.slice(2, 2 + rows),
          },
        };
        const queries = rig.buffers.view(all, 2, rows);
        const theirs = (x: Float32Array) => x.slice(2 * width, (2 + rows) * width);
        sameBits(await twoParts(rig, queries, some), theirs(two), `${rows} rows, two-part`);
        sameBits(await onePart(rig, queries, some), theirs(one), `${rows} rows, one-part`);
      }
      rig.dispose();
    }
  });

  test(`the context's K and V are loaded once for each tile of rows, and by each sample where it is by itself${as}`, async () => {
    const counting = { ...shaders, attend: countingLoads(shaders.attend) };
    const shape = { nHeads: 8, nKvHeads: 2, headDim: 20 };
    const units = (tokens: number) => 2 * 32 * (tokens / 8); // per KV head: K and V of 32 dimensions in units of 8 numbers
    let loads: GPUBuffer | undefined;
    const wrap = (gpu: Gpu): Gpu => {
      const counter = gpu.buffer(12, "loads");
      loads = counter;
      return Object.create(gpu, {
        run: {
          value: (...[kernel, bindings, ...rest]: Parameters<Gpu["run"]>) =>
            gpu.run(kernel, kernel.name === "attend" ? [...bindings, counter] : bindings, ...rest),
        },
      });
    };
    const rig = await newRig(shape, { texts: counting, wrap });
    const { batch, q } = await decodeStep(rig, 320, sequence(20).fill(8));
    const counted = async (run: () => Promise<unknown>) => {
      rig.gpu.write(loads as GPUBuffer, 0, new Uint32Array(3));
      await run();
      const [first, again, idle] = new Uint32Array(await rig.gpu.read(loads as GPUBuffer, 0, 12));
      assert.ok(again <= first, `${again} loads ask once more for what ${first} asked for`);
      assert.ok(idle <= first, `${idle} loads of teams without tokens, ${first} of the others`);
      return first;
    };
    for (const rows of [1, 4, 5, 20]) {
      const some = {
        ...rig.plain(rows),
        context: batch.context,
        tails: { blocks: batch.tails!.blocks.slice(0, rows), lengths: batch.tails!.lengths.slice(0, rows) },
      };
      const tileRows = contextRows(rig.shape, rows, 320, rig.gpu);
      const tiles = Math.ceil((4 * rows) / tileRows);
      // A tail comes along in the context's dispatch, or once for each query head where it is joined with the context's parts.
      const tails = rows * units(8) * (tileRows > 4 ? 4 : 1);
      const queries = rig.tensor(rows, 160, q.subarray(0, rows * 160));
      const two = await counted(() => twoParts(rig, queries, some));
      assert.is(two, shape.nKvHeads * (tiles * units(320) + tails), `${rows} samples, two-part`);
      const one = await counted(() => onePart(rig, queries, some));
      assert.is(one, shape.nKvHeads * rows * (units(320) + units(8)), `${rows} samples, one-part`);
      console.log(
        `measured: ${rows} samples of 4 heads a KV head: ${two} loads of K and V in two parts, ${one} in one`,
      );
    }
    rig.dispose();
  });

  test(`prefill in any cut has the same bits, 257 rows of a KV head among them${as}`, async () => {
    const shape = { nHeads: 4, nKvHeads: 1, headDim: 16 };
    const tokens = 290; // more than a step has
    const results: Float32Array[] = [];
    for (const cut of [[290], [1, 64, 65, 160], [63, 2, 1, 64, 160]]) {
      const rig = await newRig(shape);
      const { q, shared } = await decodeStep(rig, tokens, sequence(tokens).fill(0), 5);
      let at = 0;
      const got = new Float32Array(tokens * 64);
      for (const rows of cut) {
        const batch = { ...rig.plain(rows), context: { blocks: shared.blocks, length: at } };
        const queries = rig.tensor(rows, 64, q.subarray(at * 64, (at + rows) * 64));
        const out = rig.tensor(rows, 64);
        rig.attention.attendPrefill(queries, 1, rig.buffers.prepare(batch), out);
        got.set(await rig.values(out), at * 64);
        at += rows;
      }
      for (let token = 0; token < tokens; token += 13) {
        const seen = (x: Float32Array) => x.subarray(0, (token + 1) * 16);
        for (let head = 0; head < 4; head++) {
          const from = token * 64 + head * 16;
          const want = reference.attend(q.subarray(from, from + 16), seen(shared.k), seen(shared.v)).value;
          close(got.subarray(from, from + 16), want, BOUND, `token ${token}`);
        }
      }
      results.push(got);
      rig.dispose();
    }
    for (const got of results) sameBits(got, results[0], "another cut");
  });
}

if (opened)
  test("heads wider than a workgroup computes are refused", async () => {
    const made = await createAttentionRig(opened, { nHeads: 1, nKvHeads: 1, headDim: 513 }).catch((e) => e);
    assert.is(made.code, "unsupported");
    assert.match(made.message, /513 numbers, expected at most 512/);
  });

type Step = Awaited<ReturnType<typeof decodeStep>>;

function referenceCase(rig: AttentionRig, { q, shared, own }: Step): reference.AttentionCase {
  const { nHeads, nKvHeads, headDim } = rig.shape;
  const kept = ({ k, v, tokens }: Step["shared"]) => ({ k: byHead(k, nKvHeads), v: byHead(v, nKvHeads), tokens });
  /** (tokens, heads, headDim) to (heads, tokens, headDim). */
  const byHead = (x: Float32Array, heads: number) => {
    const tokens = x.length / (heads * headDim);
    return Float64Array.from({ length: x.length }, (_, i) => {
      const [head, token, d] = [Math.floor(i / (tokens * headDim)), Math.floor(i / headDim) % tokens, i % headDim];
      return x[(token * heads + head) * headDim + d];
    });
  };
  return { nHeads, nKvHeads, headDim, q, context: kept(shared), decode: own.map(kept) };
}

async function twoParts({ attention, buffers, tensor, values }: AttentionRig, q: GpuTensor, batch: Step["batch"]) {
  const states = attention.states(q.rows + 2);
  const out = tensor(q.rows, q.cols);
  const prepared = buffers.prepare(batch);
  attention.attendContext(q, 1, prepared, states);
  attention.attendDecode(q, 1, prepared, states);
  attention.mergeStates(states, prepared, out);
  return values(out);
}

async function onePart({ attention, buffers, tensor, values }: AttentionRig, q: GpuTensor, batch: Step["batch"]) {
  const out = tensor(q.rows, q.cols);
  attention.attendOnePart(q, 1, buffers.prepare(batch), out);
  return values(out);
}

/** A shader whose loads of K and V are counted in a binding of its own; apart from the others those that ask once more for one of a lane's last four. */
function countingLoads(text: string): string {
  const load = "fn load(at: u32) -> vec4u { return kv[at]; }";
  assert.ok(text.includes(load), "the shader's one function that loads K and V");
  const values = "var units = values_at(step + select(0, team * 8, team * 8 < tokens), dim);";
  assert.ok(text.includes(values), "where teams without tokens ask for what the first one asks for");
  return text
    .replace(
      load,
      `@group(0) @binding(7) var<storage, read_write> loads: array<atomic<u32>, 3>;
       var<private> recent: vec4u = vec4u(0xffffffff);
       var<private> is_idle: bool;
       fn load(at: u32) -> vec4u {
         atomicAdd(&loads[select(u32(any(recent == vec4u(at))), 2u, is_idle)], 1u);
         recent = vec4u(at, recent.xyz);
         return kv[at];
       }`,
    )
    .replace(values, `is_idle = team * 8 >= tokens; ${values} is_idle = false;`);
}

test.run();
