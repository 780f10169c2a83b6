// The same bundle, unchanged, in Node, Deno and Chromium: one short call each, and all come out alike.
// No runtime gets the network beyond what serves the files, nor `eval`.

import { execFile } from "node:child_process";
import { readFileSync, statSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { gzipSync } from "node:zlib";
import { chromium as browsers } from "playwright-core";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { chromium, serve } from "./support/chromium.ts";
import { CHAT_TEMPLATE, randomModel } from "./support/random-model.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const bundle = join(root, "dist/furcate.js");
const smokeFile = join(root, "tests/support/smoke.mjs");
const bytes = randomModel({ seed: 5, type: "Q8_0", dim: 64 });

type Outcome = {
  ids: number[][];
  logprobs: number[];
  texts: string[];
  streamed: string[];
  backend: string;
  refused: string;
};
let expected: Outcome;

function check(outcome: Outcome): void {
  assert.is(outcome.refused, "format");
  assert.equal(outcome.streamed, outcome.texts);
  assert.is(outcome.ids.length, 5);
  assert.ok(new Set(outcome.texts).size > 1, "the choices differ");
  if (expected) assert.equal(outcome, expected);
  else expected = outcome;
}

test("the bundle is one file of less than 150 kB gzipped, without eval", () => {
  const code = readFileSync(bundle, "utf8");
  const size = gzipSync(code, { level: 9 }).length;
  console.log(
    `measured: dist/furcate.js is ${size.toLocaleString("en")} bytes gzipped, ${statSync(bundle).size.toLocaleString("en")} plain`,
  );
  assert.ok(size < 150_000);
  assert.not.match(code, /\beval\(|new Function\(/);
  assert.not.match(code, /^import\s[^(]*from\s*["'](?!node:)/m);
});

test("Node", async () => {
  const { smoke } = await import(pathToFileURL(smokeFile).href);
  check(await smoke(pathToFileURL(bundle).href, bytes));
});

test("where WebAssembly is not compiled, the error says what would help", async () => {
  const program = `await fetch("data:,"); // Node compiles a module of its own for it
    WebAssembly.compile = () => Promise.reject(new WebAssembly.CompileError("as the policy says"));
    const { load } = await import(${JSON.stringify(pathToFileURL(bundle).href)});
    await load(process.argv[1]).catch(({ code, message }) => console.log(code, message));`;
  const file = join(await mkdtemp(join(tmpdir(), "furcate-")), "model.gguf");
  await writeFile(file, bytes);
  const { stdout } = await promisify(execFile)(process.execPath, ["--input-type=module", "-e", program, file]);
  await rm(file);
  assert.match(stdout, /^unsupported .*as the policy says.*wasm-unsafe-eval.*option wasm/);
});

test("Deno, with permission to read and nothing else", async () => {
  const deno = join(createRequire(import.meta.url).resolve("deno/package.json"), "../bin.cjs");
  const folder = await mkdtemp(join(tmpdir(), "furcate-"));
  try {
    const model = join(folder, "model.gguf");
    await writeFile(model, bytes);
    const script = join(folder, "smoke.mjs");
    await writeFile(
      script,
      `import { smoke } from ${JSON.stringify(pathToFileURL(smokeFile).href)};
      console.log(JSON.stringify(await smoke(${JSON.stringify(pathToFileURL(bundle).href)}, Deno.readFileSync(${JSON.stringify(model)}))));`,
    );
    const args = [deno, "run", "--no-config", "--no-npm", "--no-remote", `--allow-read=${folder},${root}`, script];
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: folder });
    check(JSON.parse(stdout));
  } finally {
    await rm(folder, { recursive: true });
  }
});

test("Deno: a model in a worker does what it does in the main thread", async () => {
  const deno = join(createRequire(import.meta.url).resolve("deno/package.json"), "../bin.cjs");
  const folder = await mkdtemp(join(tmpdir(), "furcate-"));
  try {
    const [model, script] = ["model.gguf", "worker.mjs"].map((name) => join(folder, name));
    await writeFile(model, randomModel({ seed: 5, type: "Q8_0", chatTemplate: CHAT_TEMPLATE }));
    const smoke = pathToFileURL(join(root, "tests/support/worker-smoke.mjs")).href;
    await writeFile(
      script,
      `import { compare } from ${JSON.stringify(smoke)};
      const bundle = ${JSON.stringify(pathToFileURL(bundle).href)};
      console.log(JSON.stringify(await compare(bundle, Deno.readFileSync(${JSON.stringify(model)}))));`,
    );
    const args = [deno, "run", "--no-config", "--no-npm", "--no-remote", `--allow-read=${folder},${root}`, script];
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: folder });
    const { differences, reason } = JSON.parse(stdout);
    assert.equal(differences, []);
    assert.match(reason, /^the worker/);
  } finally {
    await rm(folder, { recursive: true });
  }
});

if (!chromium && process.env.FURCATE_REQUIRE_GPU !== "1")
  console.log("skipped: Chromium: none installed (Debian: apt-get install chromium)");
else {
  test("Chromium, under a content security policy without eval", async () => {
    const page = `<!doctype html><title>furcate</title><script type="module" src="page.js"></script>`;
    const script = `import { smoke } from "./smoke.mjs";
      const bytes = await (await fetch("model.gguf")).arrayBuffer();
      smoke("./furcate.js", bytes).then((done) => console.log("done", JSON.stringify(done)), (error) => console.log("failed", error.stack));`;
    const { origin, close } = await serve(
      new Map<string, [string, string | Uint8Array]>([
        ["/", ["text/html", page]],
        ["/page.js", ["text/javascript", script]],
        ["/smoke.mjs", ["text/javascript", readFileSync(smokeFile)]],
        ["/furcate.js", ["text/javascript", readFileSync(bundle)]],
        ["/model.gguf", ["application/octet-stream", bytes]],
      ]),
      { "Content-Security-Policy": "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'" },
    );
    const browser = await browsers.launch({ executablePath: chromium, args: ["--no-sandbox"] });
    try {
      const tab = await browser.newPage();
      // The policy forbids what page.evaluate does, so the page itself reports.
      const report = tab.waitForEvent("console", {
        predicate: (line) => /^(done|failed)/.test(line.text()),
        timeout: 60_000,
      });
      await tab.goto(origin);
      const [, state, rest] = /^(\w+) (.*)$/s.exec((await report).text()) as RegExpExecArray;
      assert.is(state, "done", rest);
      check(JSON.parse(rest));
    } finally {
      await browser.close();
      close();
    }
  });
}

test.run();
