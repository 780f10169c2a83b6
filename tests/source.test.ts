// Where bytes come from: every kind of source gives the same bytes, and a real server on this machine that behaves and misbehaves.

import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gzipSync } from "node:zlib";
import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Source } from "../src/api.ts";
import { FurcateError } from "../src/errors.ts";
import { readGguf } from "../src/formats/gguf.ts";
import { type ByteSource, openSource } from "../src/source.ts";
import { newRandom } from "./support/random.ts";
import { randomModel } from "./support/random-model.ts";

const MIB = 1 << 20;
const random = newRandom(1);
const file = Uint8Array.from({ length: 5 * MIB + 17 }, () => random.below(256));
/** Bytes of the head that openSource asks a server for. */
const HEAD = 2 * MIB;

const folder = mkdtempSync(join(tmpdir(), "furcate-source-"));
test.after(() => rmSync(folder, { recursive: true }));

async function collect(source: ByteSource, offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array> {
  const out = new Uint8Array(length);
  let at = 0;
  for await (const chunk of source.stream(offset, length, signal)) {
    out.set(chunk, at);
    at += chunk.length;
  }
  assert.is(at, length);
  return out;
}

/** The error that it rejects with. */
async function rejection(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => assert.unreachable("not rejected"),
    (error: unknown) => error,
  );
}

async function refused(promise: Promise<unknown>, code: string, message: RegExp): Promise<void> {
  const error = await rejection(promise);
  assert.instance(error, FurcateError, String(error));
  assert.is((error as FurcateError).code, code);
  assert.match((error as FurcateError).message, message);
}

const same = (got: Uint8Array, want: Uint8Array, what?: string) => assert.ok(Buffer.compare(got, want) === 0, what);

// ---------------------------------------------------------------------------------------------- without a server

test("bytes, Blob, File, path, file:, data: and blob: give the same bytes", async () => {
  const path = join(folder, "a file.bin");
  writeFileSync(path, file);
  const padded = new Uint8Array(file.length + 20);
  padded.set(file, 10);
  const small = file.slice(0, 1000);
  const sources: Record<string, [Source, Uint8Array]> = {
    Uint8Array: [padded.subarray(10, 10 + file.length), file],
    Buffer: [Buffer.from(file), file],
    ArrayBuffer: [file.slice().buffer, file],
    Blob: [new Blob([file]), file],
    File: [new File([file], "model.gguf"), file],
    path: [path, file],
    "file: text": [pathToFileURL(path).href, file],
    "file: URL": [pathToFileURL(path), file],
    data: [`data:application/octet-stream;base64,${Buffer.from(small).toString("base64")}`, small],
    blob: [URL.createObjectURL(new Blob([file])), file],
  };
  for (const [kind, [given, want]] of Object.entries(sources)) {
    const source = await openSource(given);
    assert.is(source.size, want.length, kind);
    same(await source.read(0, 16), want.slice(0, 16), kind);
    same(await source.read(want.length - 7, 7), want.slice(-7), kind);
    assert.is((await source.read(3, 0)).length, 0);
    same(await collect(source, 100, want.length - 100), want.subarray(100), kind);
    same(await collect(source, 5, 600), want.subarray(5, 605), kind);
    assert.is((await collect(source, want.length, 0)).length, 0);
    await refused(source.read(want.length, 1), "internal", /asked for bytes/);
    source.close();
  }
});

test("given bytes are read in place", async () => {
  const source = await openSource(file);
  assert.is((await source.read(10, 20)).buffer, file.buffer);
  for await (const chunk of source.stream(1, 100)) assert.is(chunk.buffer, file.buffer);
});

test("a file is streamed through two buffers, whatever its size", async () => {
  const path = join(folder, "large.bin");
  writeFileSync(path, new Uint8Array(40 * MIB));
  const source = await openSource(path);
  const buffers = new Set<ArrayBufferLike>();
  for await (const chunk of source.stream(0, source.size)) buffers.add(chunk.buffer);
  assert.is(buffers.size, 2);
  source.close();
});

test("what is no source is named", async () => {
  await refused(openSource(5 as unknown as Source), "option", /got number; expected a URL, a path, a Blob/);
  await refused(openSource(null as unknown as Source), "option", /got null/);
  await refused(openSource("ftp://host/x.gguf"), "option", /got the scheme "ftp:"/);
  await refused(openSource("http://"), "option", /is no URL/);
  await refused(openSource(join(folder, "nothing")), "option", /there is no such file/);
  await refused(openSource(folder), "option", /is not a regular file/);
});

test("a file that shrinks while it is read", async () => {
  const path = join(folder, "shrinking.bin");
  writeFileSync(path, file);
  const source = await openSource(path);
  truncateSync(path, 3 * MIB);
  await refused(source.read(0, file.length), "network", /ended after 3,145,728 bytes/);
  await refused(collect(source, 0, file.length), "network", /it changed while being read/);
  source.close();
});

// ---------------------------------------------------------------------------------------------- a server

type Handler = (request: IncomingMessage, response: ServerResponse, range: [number, number] | undefined) => void;
const handlers = new Map<string, Handler>();
let requests: string[] = [];
const open = new Set<Socket>();
const server = createServer((request, response) => {
  const { pathname } = new URL(request.url!, "http://x");
  requests.push(`${request.method} ${request.headers.range ?? ""}`.trim());
  const match = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
  const end = match?.[2] ? Math.min(Number(match[2]) + 1, file.length) : file.length;
  handlers.get(pathname)!(request, response, match ? [Number(match[1]), end] : undefined);
});
server.on("connection", (socket) => {
  open.add(socket);
  socket.on("close", () => open.delete(socket));
});
server.listen(0, "127.0.0.1");
test.before(async () => {
  while (!server.listening) await pause(5);
});
const origin = () => `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
test.after(() => {
  for (const socket of open) socket.destroy();
  server.close();
});

let nPaths = 0;
/** A new address that is answered by `handler`. */
function serve(handler: Handler): string {
  const path = `/${++nPaths}/model.gguf`;
  handlers.set(path, handler);
  requests = [];
  return `${origin()}${path}`;
}

function partial(
  response: ServerResponse,
  [from, to]: [number, number],
  headers: Record<string, string | number> = {},
): void {
  response.writeHead(206, {
    "content-range": `bytes ${from}-${to - 1}/${file.length}`,
    "content-length": to - from,
    ...headers,
  });
  response.end(file.subarray(from, to));
}

const pause = (ms: number) => new Promise((done) => setTimeout(done, ms));

test("with Range: the head, and one request for all behind it", async () => {
  const source = await openSource(serve((_request, response, range) => partial(response, range!)));
  assert.is(source.size, file.length);
  assert.match(source.name, /^http:\/\/127\.0\.0\.1:\d+\/\d+\/model\.gguf$/);
  same(await source.read(0, 100), file.slice(0, 100));
  same(await source.read(HEAD - 10, 10), file.slice(HEAD - 10, HEAD));
  assert.equal(requests, [`GET bytes=0-${HEAD - 1}`]);
  same(await source.read(0, HEAD + 1000), file.slice(0, HEAD + 1000));
  same(await collect(source, 700, file.length - 700), file.subarray(700));
  assert.equal(requests.slice(1), [`GET bytes=${HEAD}-${HEAD + 999}`, `GET bytes=${HEAD + 1000}-${file.length - 1}`]);
  // Anywhere else afterwards, too.
  same(await source.read(4 * MIB, 50), file.slice(4 * MIB, 4 * MIB + 50));
  same(await source.read(10, 50), file.slice(10, 60));
  source.close();
});

test("a file smaller than the head takes one request", async () => {
  const bytes = randomModel();
  const url = serve((_request, response) => {
    response.writeHead(206, { "content-range": `bytes 0-${bytes.length - 1}/${bytes.length}` });
    response.end(bytes);
  });
  const source = await openSource(url);
  const gguf = await readGguf(source);
  same(await collect(source, gguf.dataOffset, bytes.length - gguf.dataOffset), bytes.subarray(gguf.dataOffset));
  assert.is(requests.length, 1);
});

for (const [kind, headers] of [
  ["that tells the length", { "content-length": file.length }],
  ["that does not", {}],
] as const)
  test(`without Range, from a server ${kind}: one request for head and stream`, async () => {
    const url = serve((_request, response) => {
      response.writeHead(200, headers);
      response.end(file);
    });
    const source = await openSource(url);
    assert.is(source.size, "content-length" in headers ? file.length : Infinity);
    same(await source.read(0, 1000), file.slice(0, 1000));
    same(await source.read(0, HEAD + 5000), file.slice(0, HEAD + 5000));
    same(await collect(source, 300, file.length - 300), file.subarray(300));
    assert.is(requests.length, 1);
    // A second pass has to ask again.
    same(await collect(source, 3 * MIB, 500), file.subarray(3 * MIB, 3 * MIB + 500));
    assert.is(requests.length, 2);
    source.close();
  });

test("without Range and length: reading beyond the end finds the size", async () => {
  const url = serve((_request, response) => {
    response.writeHead(200);
    response.end(file);
  });
  const source = await openSource(url);
  same(await source.read(0, 100 * MIB), file);
  assert.is(source.size, file.length);
  const other = await openSource(url);
  await refused(collect(other, 0, file.length + 1), "network", /ended after 5,242,897 bytes; expected 5,242,898/);
});

test("a server that forgets Range after the first request", async () => {
  const url = serve((_request, response, range) => {
    if (range?.[0] === 0) return partial(response, range);
    response.writeHead(200, { "content-length": file.length });
    response.end(file);
  });
  const source = await openSource(url);
  same(await collect(source, 900, file.length - 900), file.subarray(900));
  same(await source.read(4 * MIB, 10), file.slice(4 * MIB, 4 * MIB + 10));
  source.close();
});

test("a compressed answer: the length of what is seen is not told", async () => {
  const text = new Uint8Array(3 * MIB).fill(65);
  const url = serve((_request, response) => {
    const body = gzipSync(text);
    response.writeHead(200, { "content-encoding": "gzip", "content-length": body.length });
    response.end(body);
  });
  const source = await openSource(url);
  assert.is(source.size, Infinity);
  same(await collect(source, 0, text.length), text);
  // All of it, however much that is: a tokenizer.json is read so.
  const whole = await openSource(url);
  same(await whole.read(0, whole.size), text);
});

test("a server that hides Content-Range, as from pages of other origins: HEAD tells the size", async () => {
  const url = serve((request, response, range) => {
    if (request.method === "HEAD") response.writeHead(200, { "content-length": file.length }).end();
    else {
      response.writeHead(206, { "content-length": range![1] - range![0] });
      response.end(file.subarray(...range!));
    }
  });
  const source = await openSource(url);
  assert.is(source.size, file.length);
  same(await collect(source, 0, file.length), file);
  assert.equal(
    requests.map((request) => request.slice(0, 4)),
    ["GET", "HEAD", "GET"].map((method) => method.padEnd(4)),
  );
});

test("a redirect is followed", async () => {
  const target = serve((_request, response, range) => partial(response, range!));
  const source = await openSource(serve((_request, response) => response.writeHead(302, { location: target }).end()));
  same(await collect(source, 0, file.length), file);
});

test("an empty file", async () => {
  const range = serve((_request, response) => response.writeHead(416, { "content-range": "bytes */0" }).end());
  const plain = serve((_request, response) => response.writeHead(200, { "content-length": 0 }).end());
  for (const url of [range, plain]) {
    const source = await openSource(url);
    assert.is(source.size, 0);
    await refused(readGguf(source), "format", /is empty/);
  }
});

for (const [status, message] of [
  [404, /got HTTP 404 Not Found; expected 200 or 206/],
  [403, /got HTTP 403 Forbidden; .*gated or private/],
  [500, /got HTTP 500/],
  [204, /got HTTP 204/],
  [416, /no such range/],
] as const)
  test(`HTTP ${status} is a network error that keeps the query to itself`, async () => {
    const headers = status === 416 ? { "content-range": "bytes */9" } : {};
    const url = serve((_request, response) => response.writeHead(status, headers).end());
    await refused(openSource(`${url}?token=secret`), "network", message);
    const error = await rejection(openSource(`${url}?token=secret`));
    assert.not.match((error as Error).message, /secret/);
  });

test("no server at all", async () => {
  const other = createServer();
  await new Promise<void>((done) => other.listen(0, "127.0.0.1", done));
  const { port } = other.address() as AddressInfo;
  await new Promise((done) => other.close(done));
  await refused(openSource(`http://127.0.0.1:${port}/x.gguf`), "network", /reading failed: connect ECONNREFUSED/);
});

/** Answers the head well and then as `handler` does. */
const afterHead =
  (handler: (response: ServerResponse, range: [number, number]) => void): Handler =>
  (_request, response, range) =>
    range![0] === 0 ? partial(response, range!, { etag: '"one"' }) : handler(response, range!);

const BROKEN: [string, (response: ServerResponse, range: [number, number]) => void, RegExp][] = [
  [
    "other bytes",
    (response, [from, to]) => partial(response, [from + 1, to]),
    /asked for bytes 2,097,152 to 5,242,897, got Content-Range "bytes 2097153-/,
  ],
  ["fewer bytes", (response, [from, to]) => partial(response, [from, to - 1]), /got Content-Range/],
  [
    "a senseless range",
    (response, range) => partial(response, range, { "content-range": "bytes here" }),
    /got Content-Range "bytes here"/,
  ],
  [
    "a body that is short",
    (response, [from, to]) => {
      response.writeHead(206, { "content-range": `bytes ${from}-${to - 1}/${file.length}` });
      response.end(file.subarray(from, to - 100));
    },
    /ended after 5,242,797 bytes; expected 5,242,897: try again/,
  ],
  [
    "a body that is long",
    (response, [from, to]) => {
      response.writeHead(206, { "content-range": `bytes ${from}-${to - 1}/${file.length}` });
      response.end(Buffer.concat([file.subarray(from, to), new Uint8Array(100)]));
    },
    /got more than the 5,242,897 bytes that the server announced/,
  ],
  [
    "a connection that is cut",
    (response, [from, to]) => {
      response.writeHead(206, {
        "content-range": `bytes ${from}-${to - 1}/${file.length}`,
        "content-length": to - from,
      });
      response.write(file.subarray(from, from + MIB), () => response.destroy());
    },
    /reading failed after 3,\d{3},\d{3} bytes/,
  ],
  [
    "another ETag",
    (response, range) => partial(response, range, { etag: '"two"' }),
    /got ETag "two", before "one": it changed on the server/,
  ],
  [
    "another size",
    (response, [from, to]) =>
      partial(response, [from, to], { "content-range": `bytes ${from}-${to - 1}/${file.length + 1}` }),
    /had 5,242,897 bytes, now 5,242,898 bytes: it changed on the server/,
  ],
  ["an error", (response) => response.writeHead(503).end(), /got HTTP 503/],
];
for (const [what, handler, message] of BROKEN)
  test(`a stream that gets ${what}`, async () => {
    const source = await openSource(serve(afterHead(handler)));
    await refused(collect(source, 0, file.length), "network", message);
    source.close();
  });

test("another Last-Modified, where there is no ETag", async () => {
  let date = 0;
  const url = serve((_request, response, range) =>
    partial(response, range!, { "last-modified": new Date(++date * 1e9).toUTCString() }),
  );
  const source = await openSource(url);
  await refused(source.read(4 * MIB, 5), "network", /it changed on the server/);
});

test("a head that is cut, with Range and without", async () => {
  const cut = serve((_request, response) => {
    response.writeHead(206, { "content-range": `bytes 0-${HEAD - 1}/${file.length}`, "content-length": HEAD });
    response.write(file.subarray(0, 1000), () => response.destroy());
  });
  await refused(openSource(cut), "network", /reading failed/);
  const plain = serve((_request, response) => {
    response.writeHead(200, { "content-length": file.length });
    response.write(file.subarray(0, 3 * MIB), () => response.destroy());
  });
  const source = await openSource(plain);
  await refused(collect(source, 0, file.length), "network", /reading failed after/);
});

// ---------------------------------------------------------------------------------------------- abort, pace

test("an aborted signal rejects with its reason, for every kind of source and at every point", async () => {
  const reason = new Error("enough");
  const path = join(folder, "abort.bin");
  writeFileSync(path, file);
  const aborted = AbortSignal.abort(reason);
  const url = serve((_request, response, range) => partial(response, range!));
  for (const given of [file, new Blob([file]), path, url]) {
    assert.is(await rejection(openSource(given, { signal: aborted })), reason);
    const source = await openSource(given);
    assert.is(await rejection(source.read(0, 10, aborted)), reason);
    assert.is(await rejection(collect(source, 0, file.length, aborted)), reason);
    const later = new AbortController();
    const reading = (async () => {
      for await (const _ of source.stream(0, file.length, later.signal)) later.abort(reason);
    })();
    assert.is(await rejection(reading), reason);
    source.close();
  }
});

test("an abort while a server is silent ends at once and closes the connection", async () => {
  const reason = new Error("enough");
  let closed = 0;
  const silent = (response: ServerResponse) => response.on("close", () => closed++);
  const never = serve((_request, response) => silent(response));
  const stalls = serve(
    afterHead((response, [from, to]) => {
      silent(response);
      response.writeHead(206, { "content-range": `bytes ${from}-${to - 1}/${file.length}` });
      response.write(file.subarray(from, from + 1000));
    }),
  );
  const began = performance.now();
  assert.is(await rejection(openSource(never, { signal: abortSoon(reason) })), reason);
  const source = await openSource(stalls);
  assert.is(await rejection(collect(source, 0, file.length, abortSoon(reason))), reason);
  const other = await openSource(stalls);
  assert.is(await rejection(other.read(0, HEAD + 5000, abortSoon(reason))), reason);
  assert.ok(performance.now() - began < 3000);
  for (let i = 0; closed < 3 && i < 100; i++) await pause(10);
  assert.is(closed, 3);
});

function abortSoon(reason: Error): AbortSignal {
  const controller = new AbortController();
  setTimeout(() => controller.abort(reason), 50);
  return controller.signal;
}

test("a slow server is waited for", async () => {
  const url = serve((_request, response) => {
    response.writeHead(200, { "content-length": 500 });
    let sent = 0;
    const timer = setInterval(() => {
      response.write(file.subarray(sent, sent + 50));
      sent += 50;
      if (sent < 500) return;
      clearInterval(timer);
      response.end();
    }, 10);
  });
  const source = await openSource(url);
  same(await collect(source, 0, 500), file.subarray(0, 500));
});

test("a taker that pauses holds the server back, and one that leaves closes the connection", async () => {
  const total = 64 * MIB;
  const part = new Uint8Array(64 * 1024);
  let sent = 0;
  let closed = false;
  const url = serve((_request, response) => {
    response.writeHead(200, { "content-length": total });
    response.on("close", () => {
      closed = true;
    });
    const more = () => {
      while (sent < total && !closed) {
        sent += part.length;
        if (!response.write(part)) return void response.once("drain", more);
      }
    };
    more();
  });
  const source = await openSource(url);
  const stream = source.stream(0, total);
  let got = 0;
  while (got < 4 * MIB) got += (await stream.next()).value!.length;
  await pause(300);
  const ahead = sent - got;
  assert.ok(ahead < 24 * MIB, `the server was ${ahead} bytes ahead`);
  console.log(`\nmeasured: a server is at most ${(ahead / MIB).toFixed(1)} MiB ahead of a taker that pauses`);
  await stream.return();
  for (let i = 0; !closed && i < 100; i++) await pause(10);
  assert.ok(closed);
});

test("close ends what is under way", async () => {
  let closed = false;
  const url = serve((_request, response) => {
    response.on("close", () => {
      closed = true;
    });
    response.writeHead(200, { "content-length": file.length });
    response.write(file.subarray(0, 3 * MIB));
  });
  const source = await openSource(url);
  source.close();
  for (let i = 0; !closed && i < 100; i++) await pause(10);
  assert.ok(closed);
});

test.run();
