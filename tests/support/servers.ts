// Servers under test as processes of their own: started, found by the line or the port that they name, ended. And requests to them.
// Knows processes and ports; nothing of what servers answer.

import { type ChildProcess, spawn } from "node:child_process";
import { createRequire } from "node:module";
import type { AddressInfo } from "node:net";
import { createServer } from "node:net";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const require = createRequire(import.meta.url);
export const root = fileURLToPath(new URL("../..", import.meta.url));

export interface ServerProcess {
  readonly origin: string;
  readonly child: ChildProcess;
  /** What it has written so far. */
  output(): string;
  /** Ends it; resolves to its exit status, null for a signal. */
  close(signal?: NodeJS.Signals): Promise<number | null>;
}

/** A port that nobody uses at present. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** `furcate serve` with these arguments besides; of another installation, or with options for Node, where these are given. */
export async function startNode(
  args: readonly string[],
  cli = join(root, "dist/cli.js"),
  options: readonly string[] = [],
): Promise<ServerProcess> {
  const port = await freePort();
  return start(process.execPath, [...options, cli, "serve", "--port", String(port), ...args], port);
}

/** What README tells users to give Deno for serving. */
export const DENO_FLAGS = ["--allow-read", "--allow-net=127.0.0.1", "--no-remote"];

/** examples/deno/serve.ts over a model. */
export async function startDeno(model: string): Promise<ServerProcess> {
  const port = await freePort();
  const deno = join(require.resolve("deno/package.json"), "../bin.cjs");
  const script = join(root, "examples/deno/serve.ts");
  const args = ["run", ...DENO_FLAGS, script, model, String(port)];
  return start(process.execPath, [deno, ...args], port);
}

/** A config's worker in workerd, its inspector at `inspector` where that is a port. */
export async function startWorkerd(config: string, inspector?: number): Promise<ServerProcess> {
  const port = await freePort();
  const binary = require.resolve("@cloudflare/workerd-linux-64/bin/workerd");
  const args = ["serve", config, `-shttp=127.0.0.1:${port}`];
  if (inspector) args.push(`-i127.0.0.1:${inspector}`);
  return start(binary, args, port);
}

/** Whether workerd's program is installed for this machine. */
export const hasWorkerd = (() => {
  try {
    return require.resolve("@cloudflare/workerd-linux-64/bin/workerd") !== "";
  } catch {
    return false;
  }
})();

/** Starts a program and waits until it answers at its port. */
async function start(program: string, args: readonly string[], port: number): Promise<ServerProcess> {
  // In a group of its own: some are programs that only start another, and that one is to end as well.
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], detached: true });
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.on("data", (text) => {
      output += text;
    });
  }
  const ended = new Promise<number | null>((resolve) => child.once("exit", resolve));
  const origin = `http://127.0.0.1:${port}`;
  const close = (signal: NodeJS.Signals = "SIGKILL") => {
    if (child.exitCode === null && child.signalCode === null) process.kill(-(child.pid as number), signal);
    return ended;
  };
  for (const until = Date.now() + 20_000; ; ) {
    const up = await fetch(`${origin}/v1/models`).then(
      (response) => response.ok,
      () => false,
    );
    if (up) return { origin, child, output: () => output, close };
    if (Date.now() > until || child.exitCode !== null) {
      await close();
      throw new Error(`${program} ${args.join(" ")} does not answer:\n${output}`);
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
