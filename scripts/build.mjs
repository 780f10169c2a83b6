// Builds everything: assembly/ -> build/*.wasm with their types -> build/modules.js (the bytes as text), shaders/ ->
// build/shaders.js (their texts), and all of it -> dist/ (rollup).

import { execFileSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { deflateSync } from "node:zlib";

const root = fileURLToPath(new URL("..", import.meta.url));
const require = createRequire(import.meta.url);
process.chdir(root);

/** Runs a package's command-line program with this Node. */
function tool(name, program, args) {
  const home = dirname(require.resolve(`${name}/package.json`));
  execFileSync(process.execPath, [join(home, program), ...args], { stdio: "inherit" });
}

const MODULES = ["text", "cpu"];
const FLAGS = [
  "-O3",
  "--noAssert",
  "--enable",
  "simd",
  "--runtime",
  "stub",
  "--bindings",
  "raw",
  "--use",
  "abort=",
  "--disableWarning",
  "201",
];

mkdirSync("build", { recursive: true });
for (const name of MODULES)
  tool("assemblyscript", "bin/asc.js", [`assembly/${name}/index.ts`, ...FLAGS, "-o", `build/${name}.wasm`]);

// One file that TypeScript, tests and rollup all import: deflated, since base64 hides what gzip could find.
const packed = MODULES.map((name) => [
  name,
  deflateSync(readFileSync(`build/${name}.wasm`), { level: 9 }).toString("base64"),
]);
writeFileSync("build/modules.js", packed.map(([name, text]) => `export const ${name} = "${text}";\n`).join(""));
writeFileSync(
  "build/modules.d.ts",
  MODULES.map((name) => `/** ${name}.wasm, deflated, base64. */\nexport declare const ${name}: string;\n`).join(""),
);

/** WGSL without comments and indentation; lines, and those that mark a shader's heads, stay. */
const compact = (text) =>
  text
    .split("\n")
    .map((line) => (/^\/\/ (head( \w+)?|end of head)$/.test(line) ? line : line.replace(/\/\/.*/, "").trim()))
    .filter((line) => line !== "")
    .join("\n")
    .concat("\n");

const shaders = Object.fromEntries(
  readdirSync("shaders", { recursive: true })
    .filter((name) => name.endsWith(".wgsl"))
    .sort()
    .map((name) => [name.slice(0, -".wgsl".length), compact(readFileSync(`shaders/${name}`, "utf8"))]),
);
writeFileSync("build/shaders.js", `export const shaders = ${JSON.stringify(shaders, null, 1)};\n`);
writeFileSync(
  "build/shaders.d.ts",
  "/** The texts of shaders/, by name without the extension. */\nexport declare const shaders: Readonly<Record<string, string>>;\n",
);

tool("rollup", "dist/bin/rollup", ["--config", "rollup.config.js", "--silent"]);
for (const name of MODULES) cpSync(`build/${name}.wasm`, `dist/${name}.wasm`);
writeFileSync("build/stamp", "");
