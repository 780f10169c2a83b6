// Runs every tests/**/*.test.ts (or those whose path contains an argument), each in a process of its own, and adds up: two at a
// time, but for those that measure time. A test file is a program: it prints what it skips, and ends with uvu's totals. The last line counts the tests of all files.

import { spawn } from "node:child_process";
import { readdirSync } from "node:fs";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

const wanted = process.argv.slice(2);
const files = readdirSync("tests", { recursive: true })
  .map((name) => `tests/${name}`)
  .filter((name) => name.endsWith(".test.ts") && (wanted.length === 0 || wanted.some((part) => name.includes(part))))
  .sort();

/** Runs one file; resolves to its exit status, output and seconds. */
function run(file) {
  const began = performance.now();
  return new Promise((done) => {
    const child = spawn(process.execPath, ["--import", "tsx", file], { stdio: ["ignore", "pipe", "pipe"] });
    let output = "";
    const collect = (chunk) => {
      output += chunk;
    };
    child.stdout.on("data", collect);
    child.stderr.on("data", collect);
    child.on("close", (status) => done({ status, output, seconds: (performance.now() - began) / 1000 }));
  });
}

let passed = 0;
let failed = 0;

/** Runs files one after another until none is left. */
async function work(left) {
  for (let file = left.shift(); file !== undefined; file = left.shift()) report(file, await run(file));
}

function report(file, { status, output, seconds }) {
  const total = Number(/Total:\s+(\d+)/.exec(output)?.[1] ?? 0);
  const good = Number(/Passed:\s+(\d+)/.exec(output)?.[1] ?? 0);
  // A file that died without totals, or that tested nothing, counts as one failure.
  const bad = Math.max(total - good, status !== 0 || total === 0 ? 1 : 0);
  passed += good;
  failed += bad;
  console.log(`${bad === 0 ? "ok  " : "FAIL"} ${file}  ${good}/${total}  ${seconds.toFixed(1)} s`);
  const lines = output.split("\n");
  if (bad > 0) console.log(output);
  else for (const line of lines) if (/^(skipped|measured): /.test(line)) console.log(`     ${line}`);
}

const TIMED = /\/(exact|maze|page|queue|soak|worth)\.test/;
const together = files.filter((file) => !TIMED.test(file));
await Promise.all([work(together), work(together)]);
await work(files.filter((file) => TIMED.test(file)));
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed === 0 && passed > 0 ? 0 : 1;
