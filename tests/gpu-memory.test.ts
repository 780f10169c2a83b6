// What models take of a GPU's memory, counted where buffers are made: as much as planned, one prompt for many samples, tensors in
// pieces that a binding holds, little in passing while weights come in. Knows nothing of what is computed, but that pieces join up.

import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Engine } from "../src/engine.ts";
import { generate as stepsOf } from "../src/generate.ts";
import { loadEngine, readHeader } from "../src/load.ts";
import { resolveOptions } from "../src/options.ts";
import { bytes } from "../src/plan.ts";
import { createQueue } from "../src/queue.ts";
import { openSource } from "../src/source.ts";
import { createWebGpuBackend } from "../src/webgpu/backend.ts";
import { useDevice } from "../src/webgpu/device.ts";
import { checkWeights } from "../src/weights.ts";
import { plainBatch, rejects, valuesOf } from "./support/backends.ts";
import { missing } from "./support/gpu.ts";
import { type RandomModelOptions, randomModel, toHalf } from "./support/random-model.ts";
import { watchGpu } from "./support/watched-gpu.ts";

const MiB = 1 << 20;

const watched = await watchGpu();
if (typeof watched === "string") missing("memory of a GPU", watched);
else {
  // One device for all tests, which asks for no more than WebGPU's defaults: 128 MiB in a binding.
  const { gpu } = (globalThis as unknown as { navigator: { gpu: GPU } }).navigator;
  const device = await (await gpu.requestAdapter())!.requestDevice();
  const [watch] = watched.devices;
  const run = (engine: Engine, ids: Uint32Array, options: object) =>
    createQueue()(undefined, () => stepsOf(engine, ids, resolveOptions(options, engine.config.vocab)));

  /** Alike in their heads, so that kernels are compiled once. */
  const HEADS = { nHeads: 2, nKvHeads: 1, headDim: 16 };
  const MODELS: { name: string; options: RandomModelOptions }[] = [
    {
      name: "mostly weights",
      options: { ...HEADS, dim: 512, hiddenDim: 2048, nLayers: 4, type: "Q8_0", vocab: 4000 },
    },
    { name: "mostly scratch", options: { ...HEADS, dim: 64, nLayers: 1, type: "Q8_0", vocab: 3000 } },
  ];
  for (const { name, options } of MODELS)
    test(`a model takes the bytes that were planned: ${name}`, async () => {
      const file = randomModel({ seed: 1, ...options });
      const { engine } = await loadEngine(file, { device });
      const { backend, cache, config } = engine;
      const { gguf } = await readHeader(await openSource(file), {});
      const before = checkWeights(config, gguf.tensors, backend) + backend.scratchBytes();
      near(watch.bytes(), before, "loaded");
      assert.is(watch.bytes(), backend.usedBytes, "the backend counts what there is");
      await run(
        engine,
        Uint32Array.from({ length: 20 }, (_, i) => i),
        { n: 2, maxTokens: 2, ignoreEos: true },
      );
      near(watch.bytes(), before + cache.counts().made * backend.blockBytes, "in use");
      assert.is(watch.bytes(), backend.usedBytes, "the backend counts what there is");
      backend.dispose();
      assert.is(watch.bytes(), 0);

      function near(got: number, planned: number, what: string): void {
        const percent = (100 * (got / planned - 1)).toFixed(1);
        console.log(
          `\nmeasured: ${name}, ${what}: ${bytes(got)} of buffers, ${bytes(planned)} planned: ${percent} % more`,
        );
        assert.ok(Math.abs(got / planned - 1) <= 0.1, `${got} bytes, planned ${planned}`);
      }
    });

  test("32 samples of a prompt of 4,000 tokens hold the prompt's K/V once", async () => {
    const [promptTokens, n] = [4000, 32];
    const file = randomModel({
      seed: 2,
      ...HEADS,
      dim: 32,
      hiddenDim: 32,
      nLayers: 2,
      type: "Q8_0",
      contextLength: 4100,
    });
    const { engine } = await loadEngine(file, { device });
    const { backend, forward } = engine;
    // Memory is what counts here: of each chunk its last token is computed, and all get their places.
    const sparse: Engine = {
      ...engine,
      backend,
      forward: { ...forward, prefill: (rows, blocks, wanted) => forward.prefill(rows.slice(-1), blocks, wanted) },
    };
    const kvBytes = () =>
      [...watch.byLabel()].reduce((sum, [label, size]) => (label.startsWith("K/V") ? sum + size : sum), 0);
    assert.is(kvBytes(), 0);
    const ids = Uint32Array.from({ length: promptTokens }, (_, i) => (i * 31) % 256);
    const { stats } = await run(sparse, ids, { n, maxTokens: 3, temperature: 2, seed: 1, ignoreEos: true });
    const prompt = Math.ceil(promptTokens / backend.blockTokens);
    assert.ok(stats.kvBytes > prompt * backend.blockBytes && stats.kvBytes <= (prompt + n) * backend.blockBytes);
    assert.is(stats.kvBytesAsCopies, n * (prompt + 1) * backend.blockBytes);
    console.log(
      `\nmeasured: ${n} samples of ${promptTokens} tokens: ${bytes(kvBytes())} of K/V buffers for ${bytes(stats.kvBytes)} in use; ` +
        `copies would take ${bytes(stats.kvBytesAsCopies)}`,
    );
    // Growing, the pool takes half as much again.
    assert.ok(kvBytes() >= stats.kvBytes && kvBytes() <= 1.5 * stats.kvBytes, `${kvBytes()} bytes`);
    assert.ok(kvBytes() < 0.1 * stats.kvBytesAsCopies);
    backend.dispose();
  });

  test("the cache grows to the last block that the plan has room for, one by one, within the limit", async () => {
    for (const nLayers of [1, 3]) {
      const file = randomModel({ seed: 3, ...HEADS, dim: 32, hiddenDim: 32, nLayers, type: "Q8_0" });
      const { engine: large } = await loadEngine(file, { device });
      const memoryLimit = large.backend.usedBytes + 2 * MiB;
      large.backend.dispose();
      const { engine } = await loadEngine(file, { device, memoryLimit });
      const { backend, cache } = engine;
      assert.ok(cache.maxBlocks > 50, `${cache.maxBlocks} blocks`);
      for (let blocks = 1; blocks <= cache.maxBlocks; blocks++) await backend.reserveBlocks(blocks);
      assert.ok(backend.peakBytes <= memoryLimit && backend.peakBytes > backend.usedBytes);
      console.log(
        `\nmeasured: ${nLayers} layers: ${cache.maxBlocks} blocks, ${bytes(backend.peakBytes)} at most of ${bytes(memoryLimit)}`,
      );
      backend.dispose();
    }
    assert.is(watch.bytes(), 0);
  });

  test("a backend that a limit does not hold leaves nothing behind", async () => {
    const file = randomModel({ seed: 3 });
    for (const memoryLimit of [1e4, 1e5, 1e6])
      await loadEngine(file, { device, memoryLimit }).then(
        () => assert.unreachable(`${memoryLimit} bytes`),
        ({ code }) => assert.is(code, "memory"),
      );
    assert.is(watch.bytes(), 0);
  });

  test("a weight whose last piece the device refuses is refused", async () => {
    const shape = { dim: 32, hiddenDim: 32, nLayers: 1, nHeads: 2, nKvHeads: 1, headDim: 16, ropeDim: 16, vocab: 32 };
    const backend = await createWebGpuBackend(useDevice(device), { ...shape, ropePairs: "halves" });
    const [weight] = await backend.weights([{ name: "broken", type: "F16", rows: 16, cols: 32 }]);
    // What the last piece's own submit says must be heard from that: results that come back later do not say it again.
    const { createBuffer } = device;
    device.createBuffer = (descriptor) => {
      const buffer = createBuffer.call(device, descriptor);
      const { mapAsync } = buffer;
      buffer.mapAsync = async (...range) => {
        await new Promise((resolve) => setTimeout(resolve, 50));
        return mapAsync.apply(buffer, range);
      };
      return buffer;
    };
    const upload = backend.upload(weight, async (length) => {
      device.dispatchEvent(Object.assign(new Event("uncapturederror"), { error: new Error("as if by a driver") }));
      return new Uint8Array(length);
    });
    await upload.then(
      () => assert.unreachable("uploaded"),
      ({ code }) => assert.is(code, "internal"),
    );
    device.createBuffer = createBuffer;
    await backend.upload(weight, async (length) => new Uint8Array(length));
    backend.dispose();
  });

  test("a command that the device refuses fails its own call, also while a step is on its way that nobody waits for", async () => {
    const { engine } = await loadEngine(randomModel({ dim: 256, hiddenDim: 512, seed: 31 }), { device });
    const { backend } = engine;
    const again = { ignoreEos: true, maxTokens: 4, seed: 1 };
    const want = (await run(engine, Uint32Array.of(1, 2, 3, 4), again)).choices[0].tokenIds;
    let asked = 0;
    let refusedAt = Infinity;
    const refusing = {
      ...engine,
      backend: Object.create(backend, {
        candidates: {
          value: (...args: Parameters<typeof backend.candidates>) => {
            // To be mapped and to be stored in.
            if (asked++ === refusedAt) device.createBuffer({ size: 16, usage: 0x1 | 0x80 }).destroy();
            const found = backend.candidates(...args);
            // The backend's draws are never the sampler's: steps begun ahead are all in vain.
            return found.then(({ drawn, ...rest }) => ({ ...rest, drawn: drawn?.map((id) => id + 1) }));
          },
        },
      }),
    };
    let emitted = 0;
    const listener = { emit: () => void emitted++, isStopped: () => emitted >= 4 };
    const ids = Uint32Array.of(1, 2, 3);
    await createQueue()(undefined, () => stepsOf(refusing, ids, resolveOptions({ maxTokens: 30 }, 300), listener));
    assert.ok(asked > emitted + 2, `${asked} asked for`); // some in vain
    // The first of a call behind such a one, and a step again.
    for (const later of [0, 3]) {
      refusedAt = asked + later;
      await run(refusing, Uint32Array.of(1, 2, 3, 4), again).then(
        () => assert.unreachable("a call whose command was refused"),
        ({ code }) => assert.is(code, "internal"),
      );
      assert.equal((await run(refusing, Uint32Array.of(1, 2, 3, 4), again)).choices[0].tokenIds, want);
    }
    backend.dispose();
  });

  test("a tensor larger than a binding is several buffers, and comes in with at most 32 MiB in passing", async () => {
    const limit = device.limits.maxStorageBufferBindingSize;
    const [rows, cols] = [18_000, 4096]; // of F16: 141 MiB
    assert.ok(rows * cols * 2 > limit, `a binding holds ${limit} bytes`);
    const shape = { dim: cols, hiddenDim: 32, nLayers: 1, nHeads: 2, nKvHeads: 1, headDim: 16, ropeDim: 16, vocab: 32 };
    const backend = await createWebGpuBackend(useDevice(device), { ...shape, ropePairs: "halves" });
    // Each row has a one in a column of its own, at first; x counts columns.
    const column = (row: number) => (row * 37) % cols;
    const before = watch.bytes();
    let next = 0;
    const [weight] = await backend.weights([{ name: "large", type: "F16", rows, cols }]);
    await backend.upload(weight, async (length) => {
      const piece = new Uint16Array(length / 2);
      for (let at = 0; at < piece.length; at += cols) piece[at + column(next++)] = toHalf(1);
      return new Uint8Array(piece.buffer);
    });
    assert.is(next, rows);
    const held = watch.bytes() - before;
    const passing = watch.mostBytes - watch.bytes() + watch.mostWritten;
    console.log(`\nmeasured: a tensor of ${bytes(held)} came in with ${bytes(passing)} in passing, at most`);
    assert.ok(held >= rows * cols * 2 && held < 1.02 * rows * cols * 2, `${held} bytes held`);
    assert.ok(passing <= 32 * MiB, `${passing} bytes in passing`);

    const edge = Math.floor(limit / (16 * cols * 2)) * 16; // the second buffer's first row
    const ids = [0, edge - 1, edge, rows - 1];
    const table = backend.tensor(ids.length, cols);
    backend.embed(weight, backend.prepare(plainBatch(ids, 16)), table);
    const found = await valuesOf(backend, table);
    for (const [i, id] of ids.entries())
      for (let c = 0; c < cols; c++) assert.is(found[i * cols + c], c === column(id) ? 1 : 0, `row ${id}, column ${c}`);

    const x = backend.vector(Float32Array.from({ length: cols }, (_, c) => c + 1));
    const out = backend.tensor(1, rows);
    backend.linear(x, undefined, [weight], [out]);
    const products = await valuesOf(backend, out);
    for (let row = 0; row < rows; row++) assert.is(products[row], column(row) + 1, `output ${row}`);
    backend.dispose();
    assert.is(watch.bytes(), 0);
  });

  test("a batch that the limit has no room for is refused each time, and those that fit are read as before", async () => {
    const shape = { dim: 32, hiddenDim: 32, nLayers: 1, nHeads: 2, nKvHeads: 1, headDim: 16, ropeDim: 16, vocab: 32 };
    const created = async (limit?: number) => {
      const backend = await createWebGpuBackend(useDevice(device), { ...shape, ropePairs: "halves" }, limit);
      const [table] = await backend.weights([{ name: "table", type: "F32", rows: 16, cols: 32 }]);
      const numbers = Float32Array.from({ length: 16 * 32 }, (_, i) => i);
      await backend.upload(table, async () => new Uint8Array(numbers.buffer));
      const out = backend.tensor(2, 32);
      const rows = async () => {
        backend.embed(table, backend.prepare(plainBatch([3, 1], 16)), out);
        return valuesOf(backend, out);
      };
      return { backend, rows, before: await rows() };
    };
    const roomy = await created();
    const { usedBytes } = roomy.backend;
    roomy.backend.dispose();
    const { backend, rows, before } = await created(usedBytes + 10_000);
    assert.is(before[0], 96);
    const ids = new Uint32Array(64);
    const tails = { blocks: Array.from(ids, () => new Uint32Array(500)), lengths: new Uint32Array(64) };
    for (let i = 0; i < 3; i++)
      await rejects(async () => backend.prepare({ ...plainBatch(ids, 16), tails }), "memory", /batch: .* bytes needed/);
    assert.equal(await rows(), before);
    backend.dispose();
  });
}

test.run();
