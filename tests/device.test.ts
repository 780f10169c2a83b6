// A model on a GPU and what may befall the device: chosen or not, lost, out of memory, the user's own, disposed of.
// On random models and whatever GPU there is, a software one too. That results are right is tested elsewhere.

import { execFile } from "node:child_process";
import { copyFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { promisify } from "node:util";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { load } from "../src/index.ts";
import { rejects } from "./support/backends.ts";
import { missing } from "./support/gpu.ts";
import { collect } from "./support/memory.ts";
import { randomModel } from "./support/random-model.ts";
import { watchGpu } from "./support/watched-gpu.ts";

test("in Node without the package webgpu, a line says how to get the GPU", async () => {
  const folder = await mkdtemp(join(tmpdir(), "furcate-"));
  try {
    for (const name of ["dist/furcate.js", "models/maze.gguf"])
      await copyFile(new URL(`../${name}`, import.meta.url), join(folder, basename(name)));
    const script = `
      import { load } from "./furcate.js";
      const model = await load("maze.gguf");
      const { stats } = await model.generate([1, 2, 3], { maxTokens: 1 });
      const error = await load("maze.gguf", { backend: "webgpu" }).catch((error) => error);
      console.log(JSON.stringify({ backend: stats.backend, fallback: stats.fallback, code: error.code, message: error.message }));`;
    await writeFile(join(folder, "main.mjs"), script);
    const { stdout } = await promisify(execFile)(process.execPath, ["main.mjs"], { cwd: folder });
    const { backend, fallback, code, message } = JSON.parse(stdout);
    assert.is(backend, "wasm");
    assert.match(fallback, /no GPU|install the npm package webgpu/);
    assert.is(code, "unsupported");
    assert.match(message, /install the npm package webgpu/);
  } finally {
    await rm(folder, { recursive: true });
  }
});

const watched = await watchGpu();
if (typeof watched === "string") {
  missing("the care of a device", watched);
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
  // Where a test does not need one of its own: a device compiles all kernels first.
  const device = await newDevice();
  const watch = newest();
  const file = randomModel({ seed: 1, nKvHeads: 2 });
  const greedy = { temperature: 0, maxTokens: 12, ignoreEos: true };

  test("a model on the GPU says so, and answers as on the CPU", async () => {
    const [gpu, cpu] = [await load(file, { device }), await load(file, { backend: "wasm" })];
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

  test("auto takes a GPU, with all that its adapter allows", async () => {
    let limits: GPUSupportedLimits | undefined;
    await asHardware(
      (_, adapter) => {
        limits = adapter.limits;
      },
      async () => {
        const model = await load(file);
        assert.is(model.backend, "webgpu");
        const { stats } = await model.generate("a", { maxTokens: 2 });
        assert.is(stats.fallback, undefined);
        assert.match(stats.device, /Acme 9000/);
        const { device } = newest();
        for (const name of ["maxBufferSize", "maxStorageBufferBindingSize", "maxComputeWorkgroupStorageSize"] as const)
          assert.is(device.limits[name], limits?.[name], name);
        model.dispose();
      },
    );
  });

  test("auto takes WebAssembly where the GPU fails, and says why", async () => {
    class GPUOutOfMemoryError {
      readonly message = "not enough memory left";
    }
    const failures: [reason: RegExp, fail: (device: GPUDevice) => void][] = [
      [
        /^Acme 9000: shader .* was refused: no shaders today/,
        (device) => {
          device.createShaderModule = () => {
            throw new Error("no shaders today");
          };
        },
      ],
      [
        /^Acme 9000: tensor ".*": the GPU is out of memory: not enough memory left/,
        (device) => {
          const popErrorScope = device.popErrorScope.bind(device);
          let made = false;
          const createBuffer = device.createBuffer;
          device.createBuffer = (descriptor) => {
            made ||= descriptor.label?.startsWith("tensor") ?? false;
            return createBuffer(descriptor);
          };
          device.popErrorScope = async () => {
            await popErrorScope();
            return made ? new GPUOutOfMemoryError() : null;
          };
        },
      ],
    ];
    for (const [reason, fail] of failures)
      await asHardware(fail, async () => {
        const model = await load(file);
        assert.is(model.backend, "wasm");
        assert.match((await model.generate("a", { maxTokens: 2 })).stats.fallback ?? "", reason);
        assert.is(newest().bytes(), 0, "nothing is left on the GPU");
        await rejects(
          () => load(file, { backend: "webgpu" }),
          /memory/.test(reason.source) ? "memory" : "internal",
          /./,
        );
      });
  });

  for (const [nLayers, submits] of [
    [2, 1],
    [6, 2], // the beginning of a long forward goes ahead
  ])
    test(`a step of ${nLayers} layers is submitted in ${submits}, mapped once, and makes neither buffers nor bind groups`, async () => {
      const file = randomModel({ seed: 1, nKvHeads: 2, nLayers });
      const model = await load(file, { device });
      // Bias and penalties are in the candidates, and draws that go on beyond them end on the GPU.
      const options = {
        n: 3,
        seed: 5,
        maxTokens: 20,
        ignoreEos: true,
        temperature: 2,
        repetitionPenalty: 1.2,
        logitBias: { 5: 2, 9: -1 },
      };
      // The prompt is computed, then stored but for its last token, which runs again.
      for (let call = 0; call < 2; call++) await model.generate("count", options);
      const before = { submits: watch.submits, maps: watch.maps, made: watch.made, groups: watch.groups };
      const { stats } = await model.generate("count", options);
      assert.is(watch.submits - before.submits, submits * (stats.steps + 1));
      assert.is(watch.maps - before.maps, stats.steps + 1);
      assert.is(watch.made, before.made, "buffers");
      assert.is(watch.groups, before.groups, "bind groups");
      model.dispose();
    });

  test("draws go on beyond the candidates: by top-p, top-k and min-p, and more of them than the GPU follows", async () => {
    const model = await load(randomModel({ seed: 8, vocab: 700 }), { device });
    for (const options of [{}, { topP: 0.97 }, { topK: 300 }, { minP: 1e-4 }]) {
      const call = { maxTokens: 1, temperature: 3, ignoreEos: true, ...options };
      const { choices } = await model.generate("count", { ...call, n: 300, seed: 9 });
      assert.ok(new Set(choices.map(({ tokenIds }) => tokenIds[0])).size > 150, "far more tokens than candidates");
      for (const { tokenIds, seed } of choices.filter((_, i) => i % 15 === 0)) {
        const alone = await model.generate("count", { ...call, seed });
        assert.equal(alone.choices[0].tokenIds, tokenIds, JSON.stringify(options));
      }
    }
    model.dispose();
  });

  test("a step's commands are encoded ahead though samples end, but where about half as many are left", async () => {
    const model = await load(file, { device });
    // A good bias for the end token: samples end at many different steps.
    const options = { n: 14, seed: 2, maxTokens: 16, temperature: 1.5, logitBias: { 297: 3 } };
    const before = watch.foreseen;
    const { choices, stats } = await model.generate("count", options);
    const foreseen = (watch.foreseen - before) / 2; // a forward, and its candidates
    const rows = Array.from({ length: stats.steps }, (_, i) => choices.filter((c) => c.tokenIds.length > i).length);
    const changes = (of: readonly number[]) => of.filter((value, i) => i > 0 && value !== of[i - 1]).length;
    const few = changes(rows.map((count) => Math.ceil(Math.log2(count))));
    assert.ok(changes(rows) > 2 * few + 2, `samples end at different steps: ${rows}`);
    // Commands are encoded ahead once they were submitted; and first tokens that are alike share a row at first.
    assert.ok(foreseen >= stats.steps - (few + 2), `${foreseen} of ${stats.steps} steps of ${rows} rows`);
    model.dispose();
  });

  test("a step's commands are encoded ahead though whole rows of logits are read between", async () => {
    const model = await load(randomModel({ seed: 8, vocab: 700 }), { device });
    const before = { foreseen: watch.foreseen, maps: watch.maps };
    const { stats } = await model.generate("count", {
      temperature: 3,
      topK: 300,
      ignoreEos: true,
      maxTokens: 20,
      seed: 4,
    });
    const whole = watch.maps - before.maps - (stats.steps + 1);
    assert.ok(whole > stats.steps / 2, `${whole} rows were read in ${stats.steps} steps`);
    const foreseen = (watch.foreseen - before.foreseen) / 2;
    assert.ok(foreseen >= stats.steps - 2, `${foreseen} of ${stats.steps} steps`);
    model.dispose();
  });

  test("a command that the device refuses ends the call with a typed error, and the model stays usable", async () => {
    const model = await load(file, { device });
    const before = await model.generate("a", greedy);
    const running = model.generate("a", { n: 2, maxTokens: 200, ignoreEos: true });
    const mapRead = 1;
    const storage = 0x80;
    setTimeout(() => device.createBuffer({ size: 16, usage: mapRead | storage }).destroy(), 20);
    await rejects(() => running, "internal", /the GPU refused a command: /);
    const after = await model.generate("a", greedy);
    assert.equal(after.choices[0].tokenIds, before.choices[0].tokenIds);
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
    const model = await load(file, { device });
    assert.is(model.backend, "webgpu");
    await model.generate("a", greedy);
    model.dispose();
    assert.is(watch.bytes(), 0, "all buffers of its own are destroyed");
    let lost = false;
    void device.lost.then(() => {
      lost = true;
    });
    await device.queue.onSubmittedWorkDone();
    assert.not(lost);

    const other = await newDevice();
    const second = await load(file, { device: other });
    other.destroy();
    await new Promise((resolve) => setTimeout(resolve, 20));
    await rejects(() => second.generate("a", greedy), "device-lost", /given to load/);
    await rejects(() => load(file, { device: {} as GPUDevice }), "option", /device is object, expected a GPUDevice/);
    await rejects(() => load(file, { device, backend: "wasm" }), "option", /backend is wasm, but a device is given/);
  });

  test("dispose destroys everything; a running call ends", async () => {
    const model = await load(file, { device });
    const running = model.generate("a", { n: 4, maxTokens: 300, ignoreEos: true });
    setTimeout(() => model.dispose(), 30);
    await rejects(() => running, "disposed", /disposed/);
    assert.is(watch.bytes(), 0);
    await rejects(() => model.generate("a"), "disposed", /disposed/);
  });

  test("a limit too small is an error that says what would fit, and leaves nothing behind", async () => {
    await rejects(() => load(file, { device, memoryLimit: 300_000 }), "memory", /needed|needs at least/);
    assert.is(watch.bytes(), 0);
  });

  test("what the device has no memory for is a typed error, and the model stays usable", async () => {
    const model = await load(file, { device });
    await model.generate("a", greedy);
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
    const model = await load(file, { device });
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
    assert.ok(a.usage.cachedTokens <= 256, `${a.usage.cachedTokens} tokens were computed before the abort`);
    model.dispose();
  });

  test("progress: download and upload reach the end", async () => {
    const ends = new Map<string, number>();
    const model = await load(file, {
      device,
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

  /** While `run` runs, adapters say that they are hardware; `change` sees each device that is made. */
  async function asHardware(
    change: (device: GPUDevice, adapter: GPUAdapter) => void,
    run: () => Promise<void>,
  ): Promise<void> {
    const { gpu } = (globalThis as unknown as { navigator: { gpu: GPU } }).navigator;
    const { requestAdapter } = gpu;
    gpu.requestAdapter = async (options) => {
      const adapter = await requestAdapter(options);
      if (!adapter) return null;
      Object.defineProperty(adapter, "info", { value: { vendor: "acme", description: "Acme 9000" } });
      const { requestDevice } = adapter;
      adapter.requestDevice = async (descriptor) => {
        const device = await requestDevice(descriptor);
        change(device, adapter);
        return device;
      };
      return adapter;
    };
    try {
      await run();
    } finally {
      gpu.requestAdapter = requestAdapter;
    }
  }

  async function newDevice(): Promise<GPUDevice> {
    const { gpu } = (globalThis as unknown as { navigator: { gpu: GPU } }).navigator;
    return await (await gpu.requestAdapter())!.requestDevice();
  }
}

test.run();
