// The package as users get it: what is in the tarball, and that it installs into an empty folder and runs README's first example in
// Node and Deno, without a network. JSR's dry run and Deno's check of the types, too.

import { execFile } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { build } from "esbuild";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CHAT_TEMPLATE, randomModel } from "./support/random-model.ts";
import { startNode } from "./support/servers.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const run = promisify(execFile);
const deno = join(createRequire(import.meta.url).resolve("deno/package.json"), "../bin.cjs");
const quiet = { ...process.env, NO_COLOR: "1", DENO_NO_UPDATE_CHECK: "1" };
const folder = mkdtempSync(join(tmpdir(), "furcate-package-"));
test.after(() => rmSync(folder, { recursive: true }));

/** Besides the example page, whose files may come and go. */
const CONTENTS = [
  "CHANGELOG.md",
  "LICENSE",
  "README.md",
  "dist/cli.js",
  "dist/cpu.wasm",
  "dist/furcate.d.ts",
  "dist/furcate.js",
  "dist/maze.js",
  "dist/text.wasm",
  "models/maze.gguf",
  "package.json",
];

test("the tarball holds what users need and nothing else", async () => {
  const { stdout } = await run("npm", ["pack", "--json", "--ignore-scripts", "--pack-destination", folder], {
    cwd: root,
  });
  const [{ files, filename, size }] = JSON.parse(stdout) as {
    files: { path: string }[];
    filename: string;
    size: number;
  }[];
  const paths = files.map(({ path }) => path).sort();
  const page = paths.filter((path) => path.startsWith("examples/page/"));
  assert.equal(
    paths.filter((path) => !page.includes(path)),
    CONTENTS,
  );
  for (const path of page) assert.match(path, /\.(html|js|css|svg|png|webmanifest)$/);
  console.log(`measured: the package is ${size.toLocaleString("en")} bytes, ${paths.length} files`);

  writeFileSync(join(folder, "package.json"), '{ "private": true, "type": "module" }');
  const install = ["install", "--offline", "--no-audit", "--no-fund", "--no-package-lock", `./${filename}`];
  await run("npm", install, { cwd: folder });
  const { dependencies } = JSON.parse(readFileSync(join(folder, "node_modules/furcate/package.json"), "utf8"));
  assert.is(dependencies, undefined);
});

// The first that loads a model; it speaks of "model.gguf".
const [, example] = /^```js\n(.*?)^```$/ms.exec(readFileSync(join(root, "README.md"), "utf8")) ?? ["", ""];
const NO_NETWORK = `import { Socket } from "node:net";
Socket.prototype.connect = () => { throw new Error("this test has no network"); };
globalThis.fetch = () => Promise.reject(new Error("this test has no network"));
`;

test("installed, it runs README's first example in Node and in Deno", async () => {
  writeFileSync(join(folder, "model.gguf"), randomModel({ type: "Q8_0", chatTemplate: CHAT_TEMPLATE }));
  writeFileSync(join(folder, "example.js"), example);
  writeFileSync(join(folder, "no-network.mjs"), NO_NETWORK);
  const options = { cwd: folder, env: quiet };
  const node = await run(process.execPath, ["--import", "./no-network.mjs", "example.js"], options);
  assert.match(node.stdout, /prompt tokens stored once/);
  const args = ["run", "--no-remote", "--node-modules-dir=manual", "--allow-read=.", "example.js"];
  const inDeno = await run(process.execPath, [deno, ...args], options);
  assert.is(inDeno.stdout, node.stdout, "the same answers");
  const cli = join(folder, "node_modules/.bin/furcate");
  const { stdout } = await run(cli, ["generate", "-m", "model.gguf", "--max-tokens", "3", "a"], options);
  assert.ok(stdout.length > 1);
});

test("bundlers for pages take it as it is, and keep a worker's only import", async () => {
  writeFileSync(join(folder, "page.js"), 'import { load } from "furcate"; globalThis.load = load;');
  writeFileSync(join(folder, "worker.js"), 'import "furcate";');
  for (const entry of ["page.js", "worker.js"]) {
    const { outputFiles, warnings } = await build({
      entryPoints: [join(folder, entry)],
      bundle: true,
      minify: true,
      platform: "browser",
      format: "esm",
      write: false,
    });
    assert.equal(warnings, []);
    assert.ok(outputFiles[0].text.length > 300_000, `${entry}: ${outputFiles[0].text.length} characters`);
  }
});

test("bundled with a program of its own it starts one worker, whose copy of that program stops where it loads", async () => {
  const program = `import { load } from "furcate";
    console.log("begins");
    const model = await load("model.gguf", { worker: true, backend: "wasm" });
    const { choices, stats } = await model.generate("a", { maxTokens: 2, ignoreEos: true });
    await new Promise((resolve) => setTimeout(resolve, 1500));
    console.log("ends", choices[0].tokenIds.length, stats.workerFallback);
    model.dispose();`;
  writeFileSync(join(folder, "program.js"), program);
  const entryPoints = [join(folder, "program.js")];
  await build({ entryPoints, bundle: true, format: "esm", outfile: join(folder, "bundled.js"), logLevel: "error" });
  const args = ["run", "--no-remote", "--node-modules-dir=manual", "--allow-read=.", "bundled.js"];
  const { stdout } = await run(process.execPath, [deno, ...args], { cwd: folder, env: quiet, timeout: 60_000 });
  assert.is(stdout, "begins\nbegins\nends 2 undefined\n");
  const bundle = readFileSync(join(root, "dist/furcate.js"), "utf8");
  assert.is(
    bundle.split("import(/* @vite-ignore */ /* webpackIgnore: true */ ").length,
    2,
    "bundlers do not look there",
  );
});

test("its types need neither a page's nor a GPU's", async () => {
  const source = `import { load, type LoadOptions } from "furcate";
    export const wasm: LoadOptions["wasm"] = undefined;
    export const answer = load("model.gguf").then((model) => model.generate("a", { n: 2 }));`;
  writeFileSync(join(folder, "typed.mts"), source);
  const types = createRequire(import.meta.url).resolve("@types/node/package.json");
  const flags = ["--noEmit", "--strict", "--target", "es2022", "--lib", "es2022", "--module", "nodenext"];
  const tsc = join(root, "node_modules/typescript/bin/tsc");
  const typed = [tsc, ...flags, "--typeRoots", join(types, "../.."), "--types", "node", "typed.mts"];
  await run(process.execPath, typed, { cwd: folder });
});

test("installed, it serves the page with all that the page keeps for a visit without a network", async () => {
  const server = await startNode([], join(folder, "node_modules/furcate/dist/cli.js"));
  try {
    const get = async (name: string) => (await fetch(`${server.origin}/${name}`)).status;
    const list = await (await fetch(`${server.origin}/service-worker.js`)).text();
    const names = [...list.matchAll(/^ {2}"(?:\.\/)?([^"]*)",$/gm)].map(([, name]) => name);
    assert.ok(names.length > 5 && names.includes("") && names.includes("furcate.js"), names.join());
    for (const name of [...names, "models/maze.gguf"]) assert.is(await get(name), 200, name);
  } finally {
    await server.close();
  }
});

test("Deno's check of the examples passes, and so does JSR's dry run", async () => {
  const examples = join(root, "examples/deno");
  await run(process.execPath, [deno, "check", "answers.ts", "serve.ts"], { cwd: examples, env: quiet });
  const args = [deno, "publish", "--dry-run", "--allow-dirty"];
  const { stderr } = await run(process.execPath, args, { cwd: root, env: quiet, maxBuffer: 1 << 26 });
  assert.match(stderr, /Dry run complete/);
  const versions = ["package.json", "jsr.json"].map(
    (name) => JSON.parse(readFileSync(join(root, name), "utf8")).version,
  );
  assert.is(versions[0], versions[1]);
});

test.run();
