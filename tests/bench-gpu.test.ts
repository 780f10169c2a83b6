// The GPU's benchmark where it runs: Node, Deno, and its page in Chromium. What it finds has all fields, and times that can be; how
// long a step takes is nothing that a test knows.

import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import { chromium as browsers } from "playwright-core";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Line } from "../bench/gpu/measure.ts";
import { servePage } from "../bench/gpu/serve.ts";
import { chromium } from "./support/chromium.ts";
import { environment, gpuFor, missing } from "./support/gpu.ts";
import { root } from "./support/servers.ts";

const script = join(root, "bench/gpu/index.ts");
const OPTIONS = { context: "32", n: "2", dec: "16", steps: "4" };
const ARGUMENTS = Object.entries(OPTIONS).flatMap(([name, value]) => [`--${name}`, value]);

/** One line for each path, of shape tiny with OPTIONS. */
function checkLines(lines: readonly Line[], device: RegExp, paths: readonly string[]): void {
  assert.equal(
    lines.map(({ path }) => path),
    paths,
  );
  for (const { ms, floorMs, gbPerS, tflopPerS, ...line } of lines) {
    assert.match(line.device, device);
    assert.equal([line.shape, line.type, line.class, line.context, line.n], ["tiny", "F16", "portable", 32, 2]);
    for (const value of [ms, floorMs, gbPerS, tflopPerS]) assert.ok(Number.isFinite(value) && value > 0, `${value}`);
    // 360,448 weights, and attention of two layers with four heads of 32: two operations for each product of two numbers.
    assert.ok(Math.abs(tflopPerS * ms * 1e9 - 2 * (2 * 360_448 + 2 * 4 * 128 * (32 + 16))) < 1);
    // 16-bit weights; keys and values of two layers with two heads of 32, of the prompt once or twice.
    const tokens = (line.path === "copies" ? 64 : 32) + 2 * 16;
    assert.ok(Math.abs(floorMs * 4.4e9 - (2 * 360_448 + 2 * 2 * 2 * 2 * 32 * tokens)) < 1);
    assert.is(line.chose !== undefined, line.path === "auto");
  }
}

/** Runs the benchmark's program; `command` ends where its arguments begin. */
async function run(command: readonly string[], more: readonly string[], env = process.env) {
  const [program, ...args] = command;
  const began = performance.now();
  const { stdout } = await promisify(execFile)(program, [...args, ...more], { cwd: root, env });
  return { stdout, seconds: (performance.now() - began) / 1000 };
}

async function checkProgram(command: (json: string) => readonly string[], device: RegExp, env = process.env) {
  const folder = await mkdtemp(join(tmpdir(), "furcate-"));
  try {
    const json = join(folder, "lines.json");
    const paths = ["copies", "auto"];
    const more = [...ARGUMENTS, "--paths", paths.join(), "--json", json, "--kernels"];
    const { stdout, seconds } = await run(command(json), more, env);
    checkLines(JSON.parse(readFileSync(json, "utf8")), device, paths);
    assert.match(stdout, /context {4}32 {2}n {3}2 {2}copies .* ms a step {2}floor .* GB\/s .* TFLOP\/s\n/);
    const counts = [...stdout.matchAll(/in (\d+) dispatches, (\d+) of a layer/g)].map((found) => found.map(Number));
    assert.is(counts.length, paths.length);
    // Beside the two layers: embed, the output's product, and the candidates' two.
    for (const [, all, aLayer] of counts) assert.is(all, 2 * aLayer + 4);
    // Copies go the path of one part: q, k and v; attention, merge; back; gate and up; back.
    assert.is(counts[0][2], 6);
    console.log(`\nmeasured: ${stdout.split("\n", 1)[0]}: ${paths.length} lines in ${seconds.toFixed(0)} s`);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** What it says on its way out. */
const refusal = (command: readonly string[], more: readonly string[], env = process.env) =>
  run(command, more, env).then(
    () => assert.unreachable("it went well") as never,
    ({ code, stderr }: { code: number; stderr: string }) => ({ code, stderr }),
  );

// ---------------------------------------------------------------------------------------------- Node

const NODE = [process.execPath, "--import", "tsx", script];

test("an option that is none is refused in a line", async () => {
  const { code, stderr } = await refusal(NODE, ["--paths", "two-part,three-part"]);
  assert.is(code, 1);
  assert.is(stderr, 'paths is "three-part", expected one of two-part, one-part, copies, auto\n');
});

if (await gpuFor("the benchmark in Node")) test("Node", () => checkProgram(() => NODE, /./));

// ---------------------------------------------------------------------------------------------- Deno

const deno = join(createRequire(import.meta.url).resolve("deno/package.json"), "../bin.cjs");
const DENO = [process.execPath, deno, "run", "--no-config", "--no-npm", "--no-remote"];

const adapter = "console.log(!!(await navigator.gpu?.requestAdapter()))";
const { stdout } = await promisify(execFile)(process.execPath, [deno, "eval", adapter], { env: environment });
if (stdout.trim() !== "true")
  missing("the benchmark in Deno", "it finds no adapter (Debian: apt-get install mesa-vulkan-drivers)");
else {
  test("Deno", () => checkProgram((json) => [...DENO, `--allow-write=${json}`, script], /./, environment));

  test("Deno: classes with subgroups are refused, with the reason", async () => {
    for (const name of ["experimental", "stock", "subgroups"]) {
      const { code, stderr } = await refusal([...DENO, script], ["--class", name], environment);
      assert.is(code, 1);
      assert.match(
        stderr,
        new RegExp(`^class ${name}: .* lacks .*subgroups here; Deno cannot parse "enable subgroups"`, "m"),
      );
      assert.not.match(stderr, /^ +at /m);
    }
  });
}

// ---------------------------------------------------------------------------------------------- the page

if (!chromium) missing("the benchmark's page in Chromium", "none is installed (Debian: apt-get install chromium)");
else
  test("the page in Chromium", async () => {
    const flags = ["--no-sandbox", "--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader"];
    const [{ origin, close }, browser] = await Promise.all([
      servePage(),
      browsers.launch({ executablePath: chromium, args: flags }),
    ]);
    try {
      const context = await browser.newContext({ permissions: ["clipboard-read", "clipboard-write"] });
      const page = await context.newPage();
      const errors: string[] = [];
      page.on("pageerror", (error) => errors.push(String(error)));
      await page.goto(`${origin}/?${new URLSearchParams({ ...OPTIONS, paths: "two-part" })}`);
      const status = (text: RegExp) => page.locator("#status").filter({ hasText: text }).waitFor();

      await page.getByLabel("Samples").fill("2,129");
      await page.getByLabel("as furcate chooses").check();
      await page.getByRole("button", { name: "Measure" }).click();
      await status(/^Done/);
      assert.is(new URL(page.url()).searchParams.get("paths"), "two-part,auto");
      assert.match(
        await page.locator("#problem").innerText(),
        /^context 32, n 129, two-part: n is 129, expected at most/,
      );
      const rows = await page.locator("#lines tr").allInnerTexts();
      assert.is(rows.length, 2);
      for (const row of rows)
        assert.match(row, /^tiny F16, portable\t32\t2\t(two-part|auto: \S+)(\t[\d.]+){3}\t[\d.]+ %\t[\d.]+\t$/);

      await page.getByRole("button", { name: "Copy as JSON" }).click();
      await status(/^Copied 2 lines/);
      const lines = JSON.parse(await page.evaluate(() => navigator.clipboard.readText()));
      checkLines(lines, /swiftshader/i, ["two-part", "auto"]);
      assert.is(await page.locator("#device").innerText(), lines[0].device);

      await page.getByLabel("Contexts").fill("many");
      await page.getByRole("button", { name: "Measure" }).click();
      await page
        .locator("#problem")
        .filter({ hasText: /^context is "many", expected a whole number/ })
        .waitFor();

      await page.setViewportSize({ width: 390, height: 800 });
      assert.is(await page.evaluate(() => document.documentElement.scrollWidth), 390);
      assert.equal(errors, []);
    } finally {
      await browser.close();
      close();
    }
  });

test.run();
