// The endpoint and the example page over HTTP: Node's requests and responses to those of Fetch and back, and files.
// Knows Node's server and what a page asks for; nothing of models.

import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { extname } from "node:path";
import { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";

export interface Server {
  /** Where it is reached, without a slash at the end. */
  readonly origin: string;
  close(): void;
}

/**
 * Serves /v1 by the handler and everything else from the package's folder. host: a name or address to listen at; port: 0 takes a
 * free one. Errors: what listening fails with.
 */
export async function serveHttp(
  handler: (request: Request) => Promise<Response>,
  folder: URL,
  host: string,
  port: number,
): Promise<Server> {
  const isLocal = LOCAL.test(host);
  const server = createServer(async (message, out) => {
    try {
      const request = requestOf(message, out);
      const { pathname, hostname } = new URL(request.url);
      // A page elsewhere whose name was made to point to this machine still sends that name.
      const refused = isLocal && !LOCAL.test(hostname);
      if (refused) await send(new Response(`${hostname} is not served here\n`, { status: 403 }), out);
      else if (/^\/v1(\/|$)/.test(pathname)) await send(await handler(request), out);
      else await send(await fileResponse(request, folder, pathname), out);
    } catch {
      // A broken request, or a client that left: either way there is nobody to tell.
      if (!out.headersSent) out.writeHead(400);
      out.end();
    }
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, host, resolve);
  });
  const { address, port: bound, family } = server.address() as AddressInfo;
  return {
    origin: `http://${family === "IPv6" ? `[${address}]` : address}:${bound}`,
    close() {
      server.close();
      server.closeAllConnections();
    },
  };
}

const LOCAL = /^(localhost|127\.\d+\.\d+\.\d+|\[?::1\]?)$/;

/** Its signal aborts when the client leaves before the answer's end. */
function requestOf(message: IncomingMessage, out: ServerResponse): Request {
  const gone = new AbortController();
  out.once("close", () => {
    if (!out.writableFinished) gone.abort();
  });
  const headers = new Headers();
  for (let i = 0; i < message.rawHeaders.length; i += 2)
    headers.append(message.rawHeaders[i], message.rawHeaders[i + 1]);
  const { method = "GET", url = "/" } = message;
  // A target may name the host by itself, as to a proxy.
  const target = /^https?:\/\//i.test(url) ? url : `http://${message.headers.host ?? "localhost"}${url}`;
  const body = method === "GET" || method === "HEAD" ? undefined : bodyOf(message, out);
  const init = { method, headers, body, signal: gone.signal, duplex: "half" };
  return new Request(new URL(target), init);
}

/** A request's body. Once it is cancelled the answer still goes out; what else comes in is thrown away for a second, then cut off. */
function bodyOf(message: IncomingMessage, out: ServerResponse): ReadableStream<Uint8Array> {
  const parts = message.iterator({ destroyOnReturn: false }) as AsyncIterator<Buffer>;
  return new ReadableStream<Uint8Array>({
    async pull(controller) {
      const { done, value } = await parts.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel() {
      out.setHeader("connection", "close");
      out.once("finish", () => {
        message.resume();
        setTimeout(() => message.destroy(), 1000).unref();
      });
    },
  });
}

async function send(response: Response, out: ServerResponse): Promise<void> {
  out.writeHead(response.status, Object.fromEntries(response.headers));
  if (response.body) await pipeline(Readable.fromWeb(response.body as import("node:stream/web").ReadableStream), out);
  else out.end();
}

// ---------------------------------------------------------------------------------------------- files

/** Beside the page's own folder, what it asks for. */
const FILES: Record<string, string> = {
  "/": "examples/page/index.html",
  "/furcate.js": "dist/furcate.js",
  "/maze.js": "dist/maze.js",
  "/models/maze.gguf": "models/maze.gguf",
};
const TYPES: Record<string, string> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
  ".png": "image/png",
  ".json": "application/json",
  ".webmanifest": "application/manifest+json",
};

/** A file of the page, or a part of it. Scripts may come from here alone, as on the page of whoever takes the example along. */
async function fileResponse({ method, headers }: Request, folder: URL, pathname: string): Promise<Response> {
  if (method !== "GET" && method !== "HEAD")
    return new Response(null, { status: 405, headers: { allow: "GET, HEAD" } });
  const path = FILES[pathname] ?? (/^\/[\w-]+(\.[\w-]+)+$/.test(pathname) ? `examples/page${pathname}` : undefined);
  const file = path && new URL(path, folder);
  if (!file || !existsSync(file)) return new Response(`there is no ${pathname} here\n`, { status: 404 });
  const bytes = await readFile(file);
  const answer = new Headers({
    "content-type": TYPES[extname(file.pathname)] ?? "application/octet-stream",
    "cache-control": "no-cache",
    "accept-ranges": "bytes",
    "content-security-policy": "script-src 'self' 'wasm-unsafe-eval'; object-src 'none'; base-uri 'none'",
  });
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(headers.get("range") ?? "") ?? [];
  const begin = Number(from ?? 0);
  const end = to ? Math.min(Number(to) + 1, bytes.length) : bytes.length;
  const isPart = from !== undefined;
  if (isPart && begin >= end) {
    answer.set("content-range", `bytes */${bytes.length}`);
    return new Response(null, { status: 416, headers: answer });
  }
  if (isPart) answer.set("content-range", `bytes ${begin}-${end - 1}/${bytes.length}`);
  answer.set("content-length", String(end - begin));
  const body = method === "HEAD" ? null : bytes.subarray(begin, end);
  return new Response(body, { status: isPart ? 206 : 200, headers: answer });
}
