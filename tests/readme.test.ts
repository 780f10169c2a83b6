// Every snippet of README runs as it stands, over a small random model named model.gguf.
// A snippet of a kind that nothing here runs is a failure.

import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { CHAT_TEMPLATE, randomModel } from "./support/random-model.ts";
import { DENO_FLAGS } from "./support/servers.ts";

const root = fileURLToPath(new URL("..", import.meta.url));
const run = promisify(execFile);
const readme = readFileSync(join(root, "README.md"), "utf8");
const snippets = [...readme.matchAll(/^```(\w+)\n(.*?)^```$/gms)].map(([, language, code]) => ({ language, code }));
const scripts = JSON.parse(readFileSync(join(root, "package.json"), "utf8")).scripts as Record<string, string>;
const model = randomModel({ seed: 3, dim: 64, type: "Q8_0", chatTemplate: CHAT_TEMPLATE });

/** A folder with the model, where the package resolves by its name. */
let folder: string;
test.before(async () => {
  folder = await mkdtemp(join(tmpdir(), "furcate-"));
  await writeFile(join(folder, "model.gguf"), model);
  await writeFile(join(folder, "package.json"), '{ "type": "module" }');
  await run("mkdir", ["node_modules"], { cwd: folder });
  await symlink(root, join(folder, "node_modules/furcate"));
  await symlink(join(root, "node_modules/openai"), join(folder, "node_modules/openai"));
});
test.after(() => rm(folder, { recursive: true }));

async function runFile(name: string, code: string): Promise<string> {
  await writeFile(join(folder, name), code);
  const { stdout } = await run(process.execPath, [name], { cwd: folder });
  return stdout;
}

const titleOf = (code: string) => code.trim().split("\n").slice(-1)[0].slice(0, 60);
/** Files that a snippet shows whole, and what it is known by. Other tests run them. */
const FILES = {
  "examples/worker/worker.js": "furcate/cpu.wasm", // worker.test.ts
  "examples/page/model.js": "openModel", // page.test.ts
};
const isFile = (code: string) => Object.values(FILES).some((mark) => code.includes(mark));

test("README has snippets of known kinds only", () => {
  assert.ok(snippets.length >= 8);
  assert.equal([...new Set(snippets.map(({ language }) => language))].sort(), ["html", "js", "sh"]);
});

for (const { code } of snippets.filter(({ language, code }) => language === "js" && !isFile(code))) {
  test(`js: ${titleOf(code)}`, async () => {
    assert.ok((await runFile("snippet.js", code)).trim().length > 0, "it prints something");
  });
}

for (const [name, mark] of Object.entries(FILES)) {
  test(`js: ${name}, in full`, () => {
    const [{ code }, ...others] = snippets.filter(({ code }) => code.includes(mark));
    assert.is(code, readFileSync(join(root, name), "utf8"));
    assert.is(others.length, 0);
  });
}

for (const line of snippets
  .filter(({ language }) => language === "sh")
  .flatMap(({ code }) => code.trim().split("\n"))) {
  const command = line.replace(/#.*/, "").trim();
  test(`sh: ${command}`, async () => {
    const words = [...command.matchAll(/"([^"]*)"|(\S+)/g)].map(([, quoted, plain]) => quoted ?? plain);
    // Servers are run by servers.test.ts, with the flags that README names.
    if (words.at(-2) === "examples/deno/serve.ts") {
      assert.equal(words.slice(2, -2), DENO_FLAGS);
      return;
    }
    if (words[0] === "deno") {
      const deno = join(createRequire(import.meta.url).resolve("deno/package.json"), "../bin.cjs");
      const args = words.slice(1).map((word) => (word.startsWith("examples/") ? join(root, word) : word));
      const { stdout } = await run(process.execPath, [deno, ...args], { cwd: folder });
      assert.is(stdout.trim().split("\n").length, 8);
      return;
    }
    const script = words[1] === "run" ? words[2] : words[1];
    assert.is(words[0], "npm");
    assert.ok(scripts[script], `package.json has a script "${script}"`);
    if (words[2] !== "--") return; // `npm start` and `npm test` by themselves are run by what runs this
    assert.match(scripts[script], /node dist\/cli\.js$/);
    if (words[3] === "serve") {
      assert.equal(words.slice(4), ["--model", "model.gguf"]);
      return;
    }
    const { stdout } = await run(process.execPath, [join(root, "dist/cli.js"), ...words.slice(3)], { cwd: folder });
    assert.ok(stdout.trim().length > 0);
  });
}

test("html: the example page's own script tag", () => {
  const [{ code }, ...others] = snippets.filter(({ language }) => language === "html");
  assert.ok(readFileSync(join(root, "examples/page/index.html"), "utf8").includes(code));
  assert.is(others.length, 0);
});

test.run();
