// A model in a Web Worker does what one in this thread does, in Deno and in Chromium under a policy without eval and blob:.
// Where there can be no worker, the model stays, and says why.

import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { promisify } from "node:util";
import { chromium as browsers } from "playwright-core";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { chromium, serve } from "./support/chromium.ts";
import { CHAT_TEMPLATE, randomModel } from "./support/random-model.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const bundle = join(root, "dist/furcate.js");
const smoke = join(root, "tests/support/worker-smoke.mjs");
const bytes = randomModel({ seed: 5, type: "Q8_0", dim: 64, contextLength: 1024, chatTemplate: CHAT_TEMPLATE });

test("Node, which has no Web Workers", async () => {
  const { load } = await import(pathToFileURL(bundle).href);
  const model = await load(bytes, { worker: true });
  const { stats } = await model.generate("a", { maxTokens: 2 });
  assert.is(stats.workerFallback, "this runtime has no Web Workers");
  const other = await load(bytes);
  assert.is((await other.generate("a", { maxTokens: 2 })).stats.workerFallback, undefined);
});

test("Deno, with permission to read and nothing else", async () => {
  const deno = join(createRequire(import.meta.url).resolve("deno/package.json"), "../bin.cjs");
  const folder = await mkdtemp(join(tmpdir(), "furcate-"));
  try {
    const model = join(folder, "model.gguf");
    await writeFile(model, bytes);
    const script = join(folder, "script.mjs");
    await writeFile(
      script,
      `import { compare } from ${JSON.stringify(pathToFileURL(smoke).href)};
      const outcome = await compare(${JSON.stringify(pathToFileURL(bundle).href)}, Deno.readFileSync(${JSON.stringify(model)}));
      console.log(JSON.stringify(outcome));`,
    );
    const args = [deno, "run", "--no-config", "--no-npm", "--no-remote", `--allow-read=${folder},${root}`, script];
    const { stdout } = await promisify(execFile)(process.execPath, args, { cwd: folder });
    const { differences, reason } = JSON.parse(stdout);
    assert.equal(differences, []);
    assert.match(reason, /^the worker did not start/);
  } finally {
    await rm(folder, { recursive: true });
  }
});

if (!chromium && process.env.FURCATE_REQUIRE_GPU !== "1")
  console.log("skipped: Chromium: none installed (Debian: apt-get install chromium)");
else {
  /** What a page's script says when it is done, under a policy that forbids eval and workers from blob:. */
  async function inPage(script: string, origins: { other?: string } = {}): Promise<unknown> {
    const { origin, close } = await serve(
      new Map<string, [string, string | Uint8Array]>([
        ["/", ["text/html", `<!doctype html><title>furcate</title><script type="module" src="page.js"></script>`]],
        ["/page.js", ["text/javascript", script]],
        ["/smoke.mjs", ["text/javascript", readFileSync(smoke)]],
        ["/furcate.js", ["text/javascript", readFileSync(bundle)]],
        ["/other.js", ["text/javascript", 'import "./furcate.js"; postMessage("other");']],
        ["/model.gguf", ["application/octet-stream", bytes]],
      ]),
      {
        "Content-Security-Policy": `default-src 'self'; connect-src 'self' blob:; script-src 'self' 'wasm-unsafe-eval' ${origins.other ?? ""}`,
      },
    );
    const browser = await browsers.launch({ executablePath: chromium, args: ["--no-sandbox"] });
    try {
      const tab = await browser.newPage();
      const report = tab.waitForEvent("console", {
        predicate: (line) => /^(done|failed)/.test(line.text()),
        timeout: 60_000,
      });
      tab.on("pageerror", (error) => console.log(String(error)));
      await tab.goto(origin);
      const [, state, rest] = /^(\w+) (.*)$/s.exec((await report).text()) as RegExpExecArray;
      assert.is(state, "done", rest);
      return JSON.parse(rest);
    } finally {
      await browser.close();
      close();
    }
  }
  const report = (work: string) =>
    `(async () => { ${work} })().then((done) => console.log("done", JSON.stringify(done)), (error) => console.log("failed", error.stack));`;

  test("Chromium, under script-src 'self' 'wasm-unsafe-eval'", async () => {
    const outcome = (await inPage(
      `import { compare } from "./smoke.mjs";
      ${report(`return compare("./furcate.js", new Uint8Array(await (await fetch("model.gguf")).arrayBuffer()));`)}`,
    )) as { differences: string[]; reason: string };
    assert.equal(outcome.differences, []);
    // A data: URL is of another origin.
    assert.match(outcome.reason, /^a worker must come from http:/);
  });

  test("Chromium: a URL relative to the page, a Blob and a File; a worker of another name does not listen", async () => {
    const outcome = await inPage(
      `import { load } from "./furcate.js";
      ${report(`
        const blob = await (await fetch("model.gguf")).blob();
        const out = [];
        for (const source of ["model.gguf", new URL("model.gguf", location.href), blob, new File([blob], "a.gguf"), URL.createObjectURL(blob)]) {
          const model = await load(source, { worker: true, backend: "wasm" });
          const { choices, stats } = await model.generate("a", { seed: 1, maxTokens: 5, n: 2, ignoreEos: true });
          out.push([stats.workerFallback ?? "worker", choices[1].text]);
          model.dispose();
        }
        const messages = [];
        const other = new Worker("other.js", { type: "module", name: "mine" });
        other.onmessage = ({ data }) => messages.push(data);
        other.postMessage({ id: 1, do: "load", source: "model.gguf", options: {} });
        while (messages.length === 0) await new Promise((done) => setTimeout(done, 10));
        await new Promise((done) => setTimeout(done, 300));
        return { out, messages };`)}`,
    );
    const { out, messages } = outcome as { out: [string, string][]; messages: unknown[] };
    assert.is(out.length, 5);
    for (const [where, text] of out) {
      assert.is(where, "worker");
      assert.is(text, out[0][1]);
    }
    assert.equal(messages, ["other"]);
  });

  test("Chromium: a bundle of another origin computes on the page's own thread, and says so", async () => {
    const other = await serve(
      new Map<string, [string, string | Uint8Array]>([["/furcate.js", ["text/javascript", readFileSync(bundle)]]]),
      { "Access-Control-Allow-Origin": "*" },
    );
    try {
      const outcome = await inPage(
        `import { load } from "${other.origin}/furcate.js";
        ${report(`
          const out = [];
          for (const workerUrl of [undefined, "furcate.js"]) {
            const model = await load("model.gguf", { worker: true, workerUrl });
            out.push((await model.generate("a", { maxTokens: 2 })).stats.workerFallback ?? "worker");
            model.dispose();
          }
          return out;`)}`,
        { other: other.origin },
      );
      const [reason, own] = outcome as string[];
      assert.match(reason, /^a worker must come from http:.*, but the bundle lies at http:/);
      assert.is(own, "worker", "with workerUrl at a copy beside the page");
    } finally {
      other.close();
    }
  });
}

test.run();
