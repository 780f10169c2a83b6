// The benchmark's page on this machine: its script built once, then served. Knows files and headers; nothing of what the page does.

import { readFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";

const HEADERS = {
  "cache-control": "no-cache",
  "content-security-policy": "script-src 'self'; object-src 'none'; base-uri 'none'",
  // An isolated page has clocks of 5 µs instead of 100.
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-embedder-policy": "require-corp",
};

/** Serves the page until it is closed, or the process ends. */
export async function servePage(): Promise<{ readonly origin: string; close(): void }> {
  const file = (path: string) => readFile(new URL(path, import.meta.url));
  const files: Record<string, readonly [type: string, body: Uint8Array]> = {
    "/": ["text/html; charset=utf-8", await file("page/index.html")],
    "/page.css": ["text/css; charset=utf-8", await file("page/page.css")],
    "/page.js": ["text/javascript; charset=utf-8", await script()],
    "/icon.svg": ["image/svg+xml", await file("../../examples/page/icon.svg")],
  };
  const server = createServer(({ url = "/" }, response) => {
    const [type, body] = files[url.replace(/\?.*/, "")] ?? [];
    response.writeHead(body ? 200 : 404, { ...HEADERS, "content-type": type ?? "text/plain" });
    response.end(body ?? "not found");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

async function script(): Promise<Uint8Array> {
  // Only here: where the benchmark is bundled and taken along there is none.
  const { build } = await import("esbuild");
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(new URL("page/page.ts", import.meta.url))],
    bundle: true,
    format: "esm",
    target: "es2022",
    external: ["node:*"], // what only Node runs
    write: false,
    logLevel: "silent",
  });
  return outputFiles[0].contents;
}
