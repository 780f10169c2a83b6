// A model on a GPU and what may befall the device: chosen or not, lost, out of memory, the user's own, disposed of.
// On random models and whatever GPU there is, a software one too. That results are right is tested elsewhere.

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { load } from "../src/index.ts";
import { rejects } from "./support/backends.ts";
import { collect } from "./support/memory.ts";
import { randomModel } from "./support/random-model.ts";
import { watchGpu } from "./support/watched-gpu.ts";

const watched = await watchGpu();
if (typeof watched === "string") {
  if (process.env.FURCATE_REQUIRE_GPU) throw new Error(`a GPU is required, but: ${watched}`);
  console.log(`skipped: the care of a device: no GPU (${watched})`);
  test("without a GPU, webgpu is refused and auto says why it is not used", async () => {
    const file = randomModel({ seed: 1 });
    await rejects(() => load(file, { backend: "webgpu" }), "unsupported", /backend is webgpu, but/);
    const model = await load(file);
    const { stats } = await model.generate("a", { maxTokens: 2 });
    assert.ok((stats.fallback ?? "").length > 10);
  });
} else {
  const { devices } = watched;
  const newest = () => devices[devices.length - 1];
  const file = randomModel({ seed: 1, nKvHeads: 2 });
  const greedy = { temperature: 0, maxTokens: 12, ignoreEos: true };

  test("a model on the GPU says so, and answers as on the CPU", async () => {
    const [gpu, cpu] = [await load(file, { backend: "webgpu" }), await load(file, { backend: "wasm" })];
    assert.is(gpu.backend, "webgpu");
    const [a, b] = [await gpu.generate("hello there", greedy), await cpu.generate("hello there", greedy)];
    assert.equal(a.choices[0].tokenIds, b.choices[0].tokenIds);
    assert.ok(Math.abs(a.choices[0].meanLogprob - b.choices[0].meanLogprob) < 1e-3);
    assert.is(a.stats.backend, "webgpu");
    assert.ok(a.stats.device.length > 5);
    assert.is(a.stats.fallback, undefined);
    gpu.dispose();
  });

  test("auto does not take a GPU that computes on the CPU, and says why", async () => {
    const model = await load(file);
    assert.is(model.backend, "wasm");
    const { stats } = await model.generate("a", { maxTokens: 2 });
    assert.match(stats.fallback ?? "", /computes on the CPU|no GPU/);
  });

  test("auto takes WebAssembly where the GPU fails, and says why", async () => {
    const device = await newDevice();
    device.createShaderModule = () => {
      throw new Error("no shaders today");
    };
    await rejects(() => load(file, { device }), "internal", /no shaders today/);
  });

  test("a step is one submit and one map, and makes no buffers", async () => {
    const model = await load(file, { backend: "webgpu" });
    const options = { n: 3, seed: 5, maxTokens: 20, ignoreEos: true, topK: 20 }; // so that candidates decide every draw
    await model.generate("count", options);
    const watch = newest();
    const before = { submits: watch.submits, maps: watch.maps, made: watch.made };
    const { stats } = await model.generate("count", options);
    // The prompt is stored but for its last token, which runs again.
    assert.is(watch.submits - before.submits, stats.steps + 1);
    assert.is(watch.maps - before.maps, stats.steps + 1);
    assert.is(watch.made, before.made);
    model.dispose();
  });

  test("a lost device: the call fails, the next one goes on with a new device, prefixes included", async () => {
    const model = await load(file, { backend: "webgpu" });
    const before = await model.generate("once upon", greedy);
    const prefix = await model.prefill("once upon");
    const continued = await prefix.generate(" a time", greedy);
    const first = newest();
    const running = model.generate("once upon", { n: 4, maxTokens: 200, ignoreEos: true });
    setTimeout(() => first.device.destroy(), 30);
    await rejects(() => running, "device-lost", /lost/);
    const after = await model.generate("once upon", greedy);
    assert.is.not(newest(), first);
    assert.equal(after.choices[0].tokenIds, before.choices[0].tokenIds);
    const again = await prefix.generate(" a time", greedy);
    assert.equal(again.choices[0].tokenIds, continued.choices[0].tokenIds);
    assert.ok(again.usage.cachedTokens >= prefix.tokenIds.length - 1, "the prefix is held again");
    // Lost while nobody looks.
    newest().device.destroy();
    await new Promise((resolve) => setTimeout(resolve, 20));
    const third = await model.generate("once upon", greedy);
    assert.equal(third.choices[0].tokenIds, before.choices[0].tokenIds);
    prefix.dispose();
    model.dispose();
  });

  test("a lost device whose source cannot be read again is a typed error", async () => {
    let serving = true;
    const server = createServer((_, response) => {
      if (serving) response.end(file);
      else response.writeHead(404).end();
    }).listen(0);
    const { port } = server.address() as AddressInfo;
    const model = await load(`http://127.0.0.1:${port}/model.gguf`, { backend: "webgpu" });
    serving = false;
    newest().device.destroy();
    await new Promise((resolve) => setTimeout(resolve, 20));
    await rejects(() => model.generate("a", greedy), "device-lost", /cannot be read twice.*404/);
    serving = true;
    assert.is((await model.generate("a", greedy)).choices.length, 1, "and works once it can");
    model.dispose();
    server.close();
  });

  test("bytes given as a buffer are not held", async () => {
    const model = await load(Uint8Array.from(file), { backend: "webgpu" });
    newest().device.destroy();
    for (let i = 0; i < 5; i++) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      collect();
    }
    await rejects(() => model.generate("a", greedy), "device-lost", /buffer that is gone/);
    model.dispose();
  });

  test("the user's own device: used, left alone, not replaced when lost", async () => {
    const device = await newDevice();
    const model = await load(file, { device });
    assert.is(model.backend, "webgpu");
    await model.generate("a", greedy);
    model.dispose();
    assert.is(newest().bytes(), 0, "all buffers of its own are destroyed");
    let lost = false;
    void device.lost.then(() => {
      lost = true;
    });
    await device.queue.onSubmittedWorkDone();
    assert.not(lost);

    const second = await load(file, { device });
    device.destroy();
    await new Promise((resolve) => setTimeout(resolve, 20));
    await rejects(() => second.generate("a", greedy), "device-lost", /given to load/);
    await rejects(() => load(file, { device: {} as GPUDevice }), "option", /device is object, expected a GPUDevice/);
    await rejects(() => load(file, { device, backend: "wasm" }), "option", /backend is wasm, but a device is given/);
  });

  test("dispose destroys everything; a running call ends", async () => {
    const model = await load(file, { backend: "webgpu" });
    const running = model.generate("a", { n: 4, maxTokens: 300, ignoreEos: true });
    setTimeout(() => model.dispose(), 30);
    await rejects(() => running, "disposed", /disposed/);
    assert.is(newest().bytes(), 0);
    await rejects(() => model.generate("a"), "disposed", /disposed/);
  });

  test("a limit too small is an error that says what would fit, and leaves nothing behind", async () => {
    await rejects(() => load(file, { backend: "webgpu", memoryLimit: 300_000 }), "memory", /needed|needs at least/);
    assert.is(newest().bytes(), 0);
  });

  test("what the device has no memory for is a typed error, and the model stays usable", async () => {
    const model = await load(file, { backend: "webgpu" });
    await model.generate("a", greedy);
    const { device } = newest();
    // The next allocation is refused, as a device without memory does.
    const popErrorScope = device.popErrorScope.bind(device);
    class GPUOutOfMemoryError {
      readonly message = "not enough memory left";
    }
    let refusals = 0;
    device.popErrorScope = async () => {
      await popErrorScope();
      refusals++;
      return new GPUOutOfMemoryError();
    };
    const long = Array.from({ length: 400 }, (_, i) => i % 250);
    await rejects(() => model.generate(long, greedy), "memory", /GPU is out of memory/);
    assert.ok(refusals > 0);
    device.popErrorScope = popErrorScope;
    assert.is((await model.generate(long, greedy)).choices[0].tokenIds.length, 12);
    model.dispose();
  });

  test("an abort between chunks of a prompt ends the call, and the model stays usable", async () => {
    const model = await load(file, { backend: "webgpu" });
    const prompt = Array.from({ length: 500 }, (_, i) => (7 * i) % 250);
    const leave = new AbortController();
    const running = model.generate(prompt, { ...greedy, signal: leave.signal });
    setTimeout(() => leave.abort(new Error("enough")), 1);
    try {
      await running;
      assert.unreachable("the call went on");
    } catch (error) {
      assert.is((error as Error).message, "enough");
    }
    const [a, b] = [
      await model.generate(prompt, greedy),
      await (await load(file, { backend: "wasm" })).generate(prompt, greedy),
    ];
    assert.equal(a.choices[0].tokenIds, b.choices[0].tokenIds);
    model.dispose();
  });

  test("progress: download and upload reach the end", async () => {
    const ends = new Map<string, number>();
    const model = await load(file, {
      backend: "webgpu",
      onProgress: ({ phase, loaded, total }) => {
        assert.ok(loaded <= total && loaded >= (ends.get(phase) ?? 0));
        ends.set(phase, loaded / total);
      },
    });
    assert.equal([...ends].sort(), [
      ["download", 1],
      ["upload", 1],
    ]);
    model.dispose();
  });

  async function newDevice(): Promise<GPUDevice> {
    const { gpu } = (globalThis as unknown as { navigator: { gpu: GPU } }).navigator;
    return await (await gpu.requestAdapter())!.requestDevice();
  }
}

test.run();
