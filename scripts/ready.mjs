// Makes a checkout ready to run: installs and builds what is missing or older than its sources, and nothing else.
// Uses only what Node ships, since it runs before the first install.

import { execSync } from "node:child_process";
import { existsSync, readdirSync, statSync } from "node:fs";
import { fileURLToPath } from "node:url";

process.chdir(fileURLToPath(new URL("..", import.meta.url)));

const SOURCES = [
  "package-lock.json",
  "rollup.config.js",
  "scripts/build.mjs",
  "assembly",
  "shaders",
  "src",
  "models/maze/maze.ts",
];

/** Time of the newest change at or below `path`; 0 where there is nothing. */
function changed(path) {
  if (!existsSync(path)) return 0;
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(stat.mtimeMs, ...readdirSync(path).map((name) => changed(`${path}/${name}`)));
}

function run(command) {
  console.error(`> ${command}`);
  execSync(command, { stdio: ["ignore", 2, 2] });
}

if (changed("node_modules/.package-lock.json") < changed("package-lock.json"))
  run("npm ci --include=dev --no-audit --no-fund --loglevel=error");
if (changed("build/stamp") < Math.max(...SOURCES.map(changed))) run("node scripts/build.mjs");
