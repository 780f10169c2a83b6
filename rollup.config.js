// One ESM bundle with WASM inlined, its types, and beside it the command-line program and the mazes as a page imports them.

import resolve from "@rollup/plugin-node-resolve";
import dts from "rollup-plugin-dts";
import esbuild from "rollup-plugin-esbuild";

/** Where Deno finds the types; put before the code once minifying has taken the comments out. */
const types = { name: "types", renderChunk: (code) => `/* @ts-self-types="./furcate.d.ts" */\n${code}` };
/** What bundlers of whoever uses furcate must not look for (src/host.ts); minifying has taken these comments out, too. */
const optional = {
  name: "optional imports",
  renderChunk: (code) => code.replace(/\bimport\((\w+)\)/g, "import(/* @vite-ignore */ /* webpackIgnore: true */ $1)"),
};
const code = [resolve(), esbuild({ target: "es2022", minify: true }), optional, types];

export default [
  {
    input: "src/index.ts",
    output: { file: "dist/furcate.js", format: "es" },
    external: [/^node:/],
    plugins: code,
  },
  {
    input: "src/cli.ts",
    output: { file: "dist/cli.js", format: "es", banner: "#!/usr/bin/env node", paths: { furcate: "./furcate.js" } },
    external: ["furcate", /^node:/],
    plugins: [esbuild({ target: "es2022" })],
  },
  {
    input: "models/maze/maze.ts",
    output: { file: "dist/maze.js", format: "es" },
    plugins: [esbuild({ target: "es2022" })],
  },
  {
    input: "src/index.ts",
    output: { file: "dist/furcate.d.ts", format: "es" },
    plugins: [dts()],
  },
];
