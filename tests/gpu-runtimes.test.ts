// WebGPU beyond Node: Deno on Mesa's llvmpipe (with f16), Chromium on SwiftShader. Each runs a share of the kernels' suite, another
// one, and the public API from the bundle: it chooses the same greedy ids as WebAssembly does in Node.

import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";
import { chromium as browsers } from "playwright-core";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { chromium, serve } from "./support/chromium.ts";
import { environment, missing, thorough } from "./support/gpu.ts";
import type { SuiteResult } from "./support/kernel-tests.ts";
import { randomModel } from "./support/random-model.ts";

/** Shares of the suite: no two runtimes run the same one. */
const PARTS = thorough ? 1 : 3;

const bundle = new URL("../dist/furcate.js", import.meta.url);
const greedyFile = new URL("support/greedy.mjs", import.meta.url);

const files = {
  "furcate.js": readFileSync(bundle),
  "greedy.mjs": readFileSync(greedyFile),
  "suite.js": await bundledSuite(),
  "model.gguf": randomModel({ seed: 5, type: "Q8_0", dim: 64, nKvHeads: 2 }),
};

/** kernel-tests.ts and all that it imports as one module, for runtimes that know nothing of TypeScript and packages. */
async function bundledSuite(): Promise<Uint8Array> {
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("support/kernel-tests.ts", import.meta.url))],
    bundle: true,
    format: "esm",
    write: false,
    external: ["node:*"],
    logLevel: "silent",
  });
  return outputFiles[0].contents;
}

/** Of each choice its ids, with the log-probabilities of the best two at each. */
interface GreedyOutcome {
  readonly device: string;
  readonly choices: readonly (readonly { readonly id: number; readonly best: readonly number[] }[])[];
}

/** What of a runtime is asked: JavaScript that evaluates to it, with files as `import`ed and `bytes` of the model. */
const SUITE = (part: number) => `(await import("./suite.js")).runOnOwnGpu(${part}, ${PARTS})`;
const GREEDY = `(await import("./greedy.mjs")).greedy("./furcate.js", bytes, "webgpu")`;

const onCpu: GreedyOutcome = await (await import(greedyFile.href)).greedy(bundle.href, files["model.gguf"], "wasm");

function checkSuite(where: string, { device, abilities, ran, of, failures }: SuiteResult, began: number): void {
  const able = Object.entries(abilities).flatMap(([name, has]) => (has ? [name] : []));
  const seconds = ((performance.now() - began) / 1000).toFixed(0);
  console.log(
    `\nmeasured: ${where}, ${device} (${able.join(", ") || "core WebGPU"}): ${ran} of ${of} kernel tests, ${seconds} s`,
  );
  assert.is(failures.map(([name, error]) => `\n${name}: ${error}`).join(""), "");
  assert.ok(of > 140 && ran >= Math.floor(of / PARTS), `${ran} of ${of} tests ran`);
}

/** How far off log-probabilities may be, for K and V are in 16 bits; and with f16 products of many rows. */
const mostOff = (device: string) => (/\bf16\b/.test(device) ? 1e-2 : 5e-3);

/** The same ids up to the first near-tie, where either of the best two may be chosen, with the same log-probabilities. */
function checkGreedy(where: string, { device, choices }: GreedyOutcome): void {
  assert.is(choices.length, onCpu.choices.length);
  let compared = 0;
  let worst = 0;
  for (const [i, want] of onCpu.choices.entries())
    for (const [step, { id, best }] of want.entries()) {
      if (best[0] - best[1] < 2 * mostOff(device)) break;
      assert.is(choices[i][step].id, id, `choice ${i}, step ${step}`);
      worst = Math.max(worst, Math.abs(choices[i][step].best[0] - best[0]));
      compared++;
    }
  console.log(
    `\nmeasured: ${where}, ${device}: ${compared} greedy ids as on WebAssembly, worst |Δ log-probability| ${worst.toExponential(1)}`,
  );
  assert.ok(compared > 100, `${compared} ids compared`);
  assert.ok(worst < mostOff(device), `log-probabilities are off by ${worst}`);
}

// ---------------------------------------------------------------------------------------------- Deno

/** Runs an expression in Deno, in a folder with the files. */
async function inDeno<T>(expression: string): Promise<T> {
  const deno = join(createRequire(import.meta.url).resolve("deno/package.json"), "../bin.cjs");
  const folder = await mkdtemp(join(tmpdir(), "furcate-"));
  try {
    for (const [name, content] of Object.entries(files)) await writeFile(join(folder, name), content);
    const script = join(folder, "main.mjs");
    await writeFile(
      script,
      `const bytes = Deno.readFileSync("model.gguf");
      const result = await ${expression};
      console.log(JSON.stringify(result));
      Deno.exit();`,
    );
    // What uvu's assertions colour their output by is in the environment.
    const args = [
      deno,
      "run",
      "--no-config",
      "--no-npm",
      "--no-remote",
      "--allow-env",
      `--allow-read=${folder}`,
      script,
    ];
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: folder, env: environment });
    const lines = stdout.trim().split("\n");
    for (const line of lines)
      if (line.startsWith("measured: ")) console.log(`\n${line.replace("measured:", "measured: Deno,")}`);
    return JSON.parse(lines[lines.length - 1]);
  } finally {
    await rm(folder, { recursive: true });
  }
}

const denoGpu = await inDeno<string | null>("navigator.gpu?.requestAdapter().then((a) => a && a.info.description)");
if (denoGpu === null || denoGpu === undefined)
  missing("WebGPU in Deno", "it finds no adapter (Debian: apt-get install mesa-vulkan-drivers)");
else {
  test("Deno: kernels", async () => {
    const began = performance.now();
    checkSuite("Deno", await inDeno<SuiteResult>(SUITE(1)), began);
  });
  test("Deno: the public API's greedy ids are those of WebAssembly", async () => {
    checkGreedy("Deno", await inDeno<GreedyOutcome>(GREEDY));
  });
  test("Deno: results are read as soon as they are there, 10 ms before their mapping's promise resolves", async () => {
    const early = await inDeno<number>(`(async () => {
      const { getMappedRange } = GPUBuffer.prototype;
      let early = 0;
      GPUBuffer.prototype.getMappedRange = function (...args) {
        if (this.mapState === "pending") early++;
        return getMappedRange.apply(this, args);
      };
      await ${GREEDY};
      return early;
    })()`);
    assert.ok(early > 50, `${early} reads`);
  });
}

// ---------------------------------------------------------------------------------------------- Chromium

if (!chromium) missing("WebGPU in Chromium", "none is installed (Debian: apt-get install chromium)");
else {
  const flags = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];

  /** Evaluates an expression in a page beside the files. */
  async function inChromium<T>(expression: string): Promise<T> {
    const { origin, close } = await serve(
      new Map(
        Object.entries({ "": "<!doctype html><title>furcate</title>", ...files }).map(([name, content]) => [
          `/${name}`,
          [name === "" ? "text/html" : name.endsWith("gguf") ? "application/octet-stream" : "text/javascript", content],
        ]),
      ),
    );
    const browser = await browsers.launch({ executablePath: chromium, args: flags });
    try {
      const tab = await browser.newPage();
      tab.on("console", (line) => {
        if (line.text().includes("measured: ")) console.log(line.text().replace("measured:", "measured: Chromium,"));
      });
      await tab.goto(origin);
      return await tab.evaluate(
        `(async () => {
          const bytes = new Uint8Array(await (await fetch("./model.gguf")).arrayBuffer());
          return ${expression};
        })()`,
      );
    } finally {
      await browser.close();
      close();
    }
  }

  test("Chromium: kernels", async () => {
    const began = performance.now();
    checkSuite("Chromium", await inChromium<SuiteResult>(SUITE(2)), began);
  });
  test("Chromium: the public API's greedy ids are those of WebAssembly", async () => {
    checkGreedy("Chromium", await inChromium<GreedyOutcome>(GREEDY));
  });
}

test.run();
