// Bytes of URLs that are kept on the device: what a second opening asks of the server, after cuts, damage, changes, full storage
// and without a server. Over a Cache API of this file; tests/page.test.ts has the browser's own OPFS and Cache API.

import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FurcateError } from "../src/errors.ts";
import { type ByteSource, openSource } from "../src/source.ts";
import { newRandom } from "./support/random.ts";

const MIB = 1 << 20;
const CHUNK = 4 * MIB;
const random = newRandom(3);
const newFile = (length: number): Uint8Array => Uint8Array.from({ length }, () => random.below(256));
const original = newFile(2 * CHUNK + 1234);

// ---------------------------------------------------------------------------------------------- storage

/** What the Cache API keeps, by URL; more than `quota` bytes do not fit. */
let kept = new Map<string, Uint8Array>();
let quota = Infinity;
const held = () => [...kept.values()].reduce((sum, { length }) => sum + length, 0);
Object.defineProperty(globalThis, "caches", {
  value: {
    open: async () => ({
      match: async (url: string) =>
        kept.has(url) ? new Response(kept.get(url) as Uint8Array<ArrayBuffer>) : undefined,
      async put(url: string, response: Response) {
        const bytes = new Uint8Array(await response.arrayBuffer());
        if (held() - (kept.get(url)?.length ?? 0) + bytes.length > quota)
          throw new DOMException("no more fits", "QuotaExceededError");
        kept.set(url, bytes);
      },
      delete: async (url: string) => kept.delete(url),
      keys: async () => [...kept.keys()].map((url) => ({ url })),
    }),
  },
});
const chunks = () => [...kept.keys()].filter((url) => !url.endsWith(".json"));

// ---------------------------------------------------------------------------------------------- a server

let file = original;
let headers: Record<string, string> = {};
/** Bytes of a body after which the connection is cut; each cut counts one down. */
let cut = { after: 0, times: 0 };
let asked: string[] = [];
let sent = 0;
const server = createServer((request, response) => {
  asked.push(request.headers.range ?? "");
  const [, from, to] = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "") as RegExpExecArray;
  const end = to ? Math.min(Number(to) + 1, file.length) : file.length;
  const body = file.subarray(Number(from), end);
  const range = `bytes ${from}-${end - 1}/${file.length}`;
  response.writeHead(206, { "Content-Length": body.length, "Content-Range": range, ...headers });
  const isCut = cut.times > 0 && body.length > cut.after;
  if (isCut) cut.times--;
  const part = isCut ? body.subarray(0, cut.after) : body;
  sent += part.length;
  if (isCut) response.write(part, () => response.destroy());
  else response.end(part);
});
await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
const { port } = server.address() as AddressInfo;
const url = (name = "model") => `http://127.0.0.1:${port}/${name}.gguf`;
test.after(() => {
  server.closeAllConnections();
  server.close();
});
test.before.each(() => {
  kept = new Map();
  quota = Infinity;
  file = original;
  headers = { ETag: '"1"' };
  cut = { after: 0, times: 0 };
  begin();
});

function begin(): void {
  asked = [];
  sent = 0;
}

/** The whole file, as load reads it: the head first, then one pass from within it, which is left at the last byte. */
async function readAll(source: ByteSource): Promise<Uint8Array> {
  const out = new Uint8Array(source.size);
  out.set(await source.read(0, Math.min(MIB + 5, source.size)));
  let at = Math.min(MIB, source.size);
  const parts = source.stream(at, source.size - at);
  while (at < out.length) {
    const part = (await parts.next()).value as Uint8Array;
    out.set(part, at);
    at += part.length;
  }
  return out;
}

async function load(name?: string, want = file): Promise<void> {
  const source = await openSource(url(name), { cache: true });
  try {
    assert.is(source.size, want.length);
    assert.ok(Buffer.compare(await readAll(source), want) === 0, "the bytes are the server's");
  } finally {
    source.close();
  }
  await settled();
}

/** Until nothing more is being written. */
async function settled(): Promise<void> {
  for (let before = -1; before !== held(); ) {
    before = held();
    await new Promise((done) => setTimeout(done, 60));
  }
}

// ---------------------------------------------------------------------------------------------- tests

test("the first time two requests bring everything, the second time one byte does", async () => {
  await load();
  assert.equal(asked, [`bytes=0-${2 * MIB - 1}`, `bytes=${2 * MIB}-${file.length - 1}`]);
  assert.is(sent, file.length);
  assert.is(chunks().length, 3);
  begin();
  await load();
  assert.equal(asked, ["bytes=0-0"]);
});

test("without the option nothing is kept", async () => {
  const source = await openSource(url());
  await readAll(source);
  source.close();
  assert.is(kept.size, 0);
});

test("any part can be read, in any order, first and second time", async () => {
  for (let time = 0; time < 2; time++) {
    const source = await openSource(url(), { cache: true });
    for (const [offset, length] of [
      [CHUNK - 3, 10],
      [0, 5],
      [2 * CHUNK + 1000, 234],
      [CHUNK - 1, CHUNK + 2],
      [7, 0],
    ]) {
      const got = await source.read(offset, length);
      assert.ok(Buffer.compare(got, file.subarray(offset, offset + length)) === 0, `${offset} ${length}`);
    }
    source.close();
    await settled();
  }
});

test("a cut connection goes on where it ended, in the same load", async () => {
  cut = { after: 3 * MIB, times: 2 };
  await load();
  assert.is(cut.times, 0);
  assert.is(sent, file.length);
  assert.equal(asked.slice(2), [`bytes=${5 * MIB}-${file.length - 1}`, `bytes=${8 * MIB}-${file.length - 1}`]);
});

test("a load that ended early leaves its whole chunks to the next", async () => {
  const source = await openSource(url(), { cache: true });
  const leave = new AbortController();
  const parts = source.stream(0, source.size, leave.signal);
  for (let got = 0; got <= CHUNK; ) got += ((await parts.next()).value as Uint8Array).length;
  leave.abort();
  source.close();
  await settled();
  assert.is(chunks().length, 1);
  begin();
  await load();
  assert.equal(asked, ["bytes=0-0", `bytes=${CHUNK}-${file.length - 1}`]);
});

test("a damaged or truncated chunk is noticed and fetched again", async () => {
  for (const damage of [
    (bytes: Uint8Array) => Uint8Array.from(bytes, (byte, i) => (i === 77 ? byte ^ 1 : byte)),
    (bytes: Uint8Array) => bytes.subarray(0, 1000),
    () => new Uint8Array(0),
  ]) {
    kept.clear();
    await load();
    const name = chunks().find((url) => url.endsWith(".1")) as string;
    const sound = kept.get(name) as Uint8Array;
    kept.set(name, damage(sound));
    begin();
    await load();
    assert.equal(asked, ["bytes=0-0", `bytes=${CHUNK}-${2 * CHUNK - 1}`]);
    assert.ok(Buffer.compare(kept.get(name) as Uint8Array, sound) === 0, "the chunk is sound again");
  }
});

test("a missing chunk and a broken manifest are fetched again", async () => {
  await load();
  kept.delete(chunks()[0]);
  begin();
  await load();
  assert.is(sent, CHUNK);
  const manifest = [...kept.keys()].find((url) => url.endsWith(".json")) as string;
  for (const text of ["{", "null", '{"size":-1}', '"text"']) {
    kept.set(manifest, new TextEncoder().encode(text));
    begin();
    await load();
    assert.is(sent, file.length, text);
  }
});

test("another version on the server replaces what is kept: by ETag, by date, by size, and by its ends where nothing tells", async () => {
  const other = newFile(original.length);
  const sameHead = original.slice();
  sameHead[sameHead.length - 1] ^= 1;
  const cases: [Record<string, string>, Record<string, string>, Uint8Array][] = [
    [{ ETag: '"1"' }, { ETag: '"2"' }, other],
    [{ "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT" }, { "Last-Modified": "Tue, 02 Jan 2024 00:00:00 GMT" }, other],
    [{}, {}, original.slice(0, -9)],
    [{}, {}, other],
    [{}, {}, sameHead],
    [{ ETag: '"1"' }, {}, other],
  ];
  for (const [before, after, changed] of cases) {
    kept.clear();
    [headers, file] = [before, original];
    await load();
    [headers, file] = [after, changed];
    await load();
    const count = kept.size;
    begin();
    await load();
    assert.ok(sent < MIB, "now the new one is kept");
    assert.is(kept.size, count);
    assert.is(count, 4, "and the old one is gone");
  }
});

test("a server that names no version is asked for both ends, not for the file", async () => {
  headers = {};
  await load();
  begin();
  await load();
  assert.is(asked.length, 3);
  // What was under way when enough had come may exceed it.
  assert.ok(asked.slice(1).every((range) => /^bytes=(\d+)-(\d+)$/.test(range)));
});

test("what a killed page left unfinished is fetched again, and nothing else, also where no version tells", async () => {
  headers = {};
  await load();
  const last = chunks().find((url) => url.endsWith(".2")) as string;
  kept.set(last, new Uint8Array(0));
  kept.set(`${last}.crswap`, new Uint8Array(7));
  begin();
  await load();
  assert.ok(asked.includes(`bytes=${2 * CHUNK}-${file.length - 1}`), asked.join());
  assert.ok(sent < CHUNK / 2, `${sent}`);
});

test("without a server what is kept is enough, and what is not is named", async () => {
  await load();
  const broken = new Map(kept);
  const port = (server.address() as AddressInfo).port;
  server.closeAllConnections();
  await new Promise((done) => server.close(done));
  try {
    await load();
    kept = broken;
    kept.delete(chunks().find((url) => url.endsWith(".2")) as string);
    const source = await openSource(url(), { cache: true });
    const error = await readAll(source).catch((error) => error);
    assert.instance(error, FurcateError);
    assert.is(error.code, "network");
    assert.match(error.message, /not all of it is stored here, and the server cannot be reached/);
    const unknown = await openSource(url("unknown"), { cache: true }).catch((error) => error);
    assert.is(unknown.code, "network");
  } finally {
    await new Promise<void>((done) => server.listen(port, "127.0.0.1", done));
  }
});

test("full storage: the model unused for longest goes, and then nothing is kept any more, but everything is read", async () => {
  await load("a");
  await new Promise((done) => setTimeout(done, 5));
  await load("b");
  await new Promise((done) => setTimeout(done, 5));
  await load("a");
  quota = held() + 100;
  await load("c");
  begin();
  await load("a");
  assert.equal(asked, ["bytes=0-0"], "a was used last, and stays");
  begin();
  await load("c");
  assert.equal(asked, ["bytes=0-0"], "c has b's place");
  kept.clear();
  quota = CHUNK + 1000;
  begin();
  await load("d");
  assert.is(sent, file.length);
  assert.is(chunks().length, 1);
  assert.ok(held() <= quota);
});

test("storage that refuses everything is done without", async () => {
  quota = 0;
  await load();
  await load();
  assert.is(kept.size, 0);
});

test("an abort rejects with its reason", async () => {
  const reason = new Error("enough");
  const leave = new AbortController();
  const source = await openSource(url(), { cache: true, signal: leave.signal });
  const parts = source.stream(0, source.size, leave.signal);
  await parts.next();
  leave.abort(reason);
  const error = await (async () => {
    for (;;) if ((await parts.next()).done) return undefined;
  })().catch((error) => error);
  assert.is(error, reason);
  source.close();
});

test.run();
