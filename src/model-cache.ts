// Keeps the bytes of URLs on this device: OPFS where there is one, else the Cache API; in chunks, each with its hash, beside a
// manifest that names the version. What a killed page had is there the next time, the rest is asked for by Range; what is broken
// is fetched again. Without the server what is kept must do.
// Knows chunks and versions; how a server is asked is source.ts's, what the bytes mean nobody's here.

import { FurcateError, fail } from "./errors.ts";
import type { ByteSource } from "./source/bytes.ts";

/** Bytes of a chunk; its file has the SHA-256 behind them. */
const CHUNK_BYTES = 4 << 20;
const HASH_BYTES = 32;
/** Chunks that may wait to be written; then reading waits for them. */
const MOST_WRITES = 2;
/** Milliseconds before a broken connection is tried again, as long as nothing more arrives. */
const RETRY_MS = [200, 1000, 3000];
/** Bytes of both ends of a file that are compared where a server names no version. */
const END_BYTES = 64 << 10;

/** What is known of a URL's file without asking. */
interface Manifest {
  readonly size: number;
  /** The server's ETag or date; undefined where it lets neither be read. */
  readonly version?: string;
  /** When it was last opened, milliseconds since 1970. */
  readonly used: number;
}

/**
 * The bytes of `url`, from this device where they are kept and the server still has the same. `open` asks the server, with a
 * first request of so many bytes. Errors: those of `open`, and `network` where something is not kept and the server out of reach.
 */
export async function openCached(
  url: string,
  open: (headBytes?: number) => Promise<ByteSource>,
  signal?: AbortSignal,
): Promise<ByteSource> {
  const store = await openStore();
  if (!store) return open();
  const key = hex(await digest(new TextEncoder().encode(url))).slice(0, 32);
  let known = await readManifest(store, key);
  let server: ByteSource | undefined;
  try {
    server = await open(known && 1);
  } catch (error) {
    if (!known || !isOutOfReach(error)) throw error;
  }
  try {
    signal?.throwIfAborted();
    if (server && !Number.isFinite(server.size)) return server;
    if (known && server && !(await isSame(store, key, known, server, signal))) known = undefined;
    if (!known) await removeAll(store, key);
  } catch (error) {
    server?.close();
    throw error;
  }
  const { size, version } = (server ?? known) as Manifest & ByteSource;
  const manifest: Manifest = { size, version, used: Date.now() };
  const writer = newWriter(store, key);
  await writer.write(`${key}.json`, new TextEncoder().encode(JSON.stringify(manifest)));
  const kept = new Set(await store.names(`${key}.`).catch(() => []));
  return chunkSource({ name: nameOf(url), manifest, store, key, kept, writer, server, open });
}

interface Parts {
  readonly name: string;
  readonly manifest: Manifest;
  readonly store: Store;
  readonly key: string;
  /** Names of what is stored. */
  readonly kept: Set<string>;
  readonly writer: Writer;
  readonly server: ByteSource | undefined;
  readonly open: (headBytes: number) => Promise<ByteSource>;
}

function chunkSource({ name, manifest, store, key, kept, writer, server, open }: Parts): ByteSource {
  const { size, version } = manifest;
  /** The server's bytes from `at` on, where some are under way; `rest` is of a part that reached beyond a chunk. */
  let coming: { at: number; rest: Uint8Array; readonly parts: AsyncGenerator<Uint8Array> } | undefined;
  /** Chunks that were read at random, until a stream has passed them. */
  const held = new Map<number, Uint8Array>();

  const lengthOf = (chunk: number) => Math.min(CHUNK_BYTES, size - chunk * CHUNK_BYTES);
  const nameOfChunk = (chunk: number) => chunkName(key, manifest, chunk);

  /** A chunk that is stored whole. */
  async function stored(chunk: number): Promise<Uint8Array | undefined> {
    const file = nameOfChunk(chunk);
    if (!kept.has(file)) return undefined;
    const bytes = await readChunk(store, file, lengthOf(chunk));
    if (!bytes) kept.delete(file);
    return bytes;
  }

  /** The bytes from `at` on that the server sends, without end. Where the connection breaks it is made anew. */
  async function nextPart(at: number, signal?: AbortSignal): Promise<Uint8Array> {
    for (let tries = 0; ; tries++) {
      try {
        if (coming?.at !== at) {
          leave();
          server ??= await reopen();
          coming = { at, rest: new Uint8Array(0), parts: server.stream(at, endOfGap(at) - at, signal) };
        }
        if (coming.rest.length > 0) return coming.rest;
        const { value, done } = await coming.parts.next();
        if (done) fail("network", `${name}: ended after ${at.toLocaleString("en")} bytes`);
        return value;
      } catch (error) {
        leave();
        signal?.throwIfAborted();
        const isCut = error instanceof FurcateError && error.code === "network";
        if (!isCut || tries === RETRY_MS.length || !server) throw error;
        await pause(RETRY_MS[tries], signal);
      }
    }
  }

  async function reopen(): Promise<ByteSource> {
    const again = await open(1).catch((cause: Error) =>
      fail("network", `${name}: not all of it is stored here, and the server cannot be reached: ${cause.message}`, {
        cause,
      }),
    );
    if (again.size !== size || (version && again.version && again.version !== version)) {
      again.close();
      fail("network", `${name}: it changed on the server; load it again`);
    }
    return again;
  }

  /** Where the next chunk begins that is stored. */
  function endOfGap(at: number): number {
    let chunk = Math.floor(at / CHUNK_BYTES) + 1;
    while (chunk * CHUNK_BYTES < size && !kept.has(nameOfChunk(chunk))) chunk++;
    return Math.min(chunk * CHUNK_BYTES, size);
  }

  function leave(): void {
    coming?.parts.return(undefined).catch(() => {});
    coming = undefined;
  }

  /** A chunk from the server, in the parts that it comes in; then it is stored. Returns the whole. */
  async function* fetched(chunk: number, signal?: AbortSignal): AsyncGenerator<Uint8Array, Uint8Array> {
    await writer.room();
    const file = new Uint8Array(lengthOf(chunk) + HASH_BYTES);
    const bytes = file.subarray(0, lengthOf(chunk));
    for (let filled = 0; filled < bytes.length; ) {
      const at = chunk * CHUNK_BYTES + filled;
      const part = await nextPart(at, signal);
      const taken = part.subarray(0, bytes.length - filled);
      bytes.set(taken, filled);
      if (coming) Object.assign(coming, { at: at + taken.length, rest: part.subarray(taken.length) });
      yield bytes.subarray(filled, filled + taken.length);
      filled += taken.length;
    }
    writer.later(async () => {
      file.set(await digest(bytes), bytes.length);
      if (await writer.write(nameOfChunk(chunk), file)) kept.add(nameOfChunk(chunk));
    });
    return bytes;
  }

  async function whole(chunk: number, signal?: AbortSignal): Promise<Uint8Array> {
    let bytes = held.get(chunk) ?? (await stored(chunk));
    if (!bytes) {
      const parts = fetched(chunk, signal);
      let next = await parts.next();
      while (!next.done) next = await parts.next();
      bytes = next.value;
    }
    return bytes;
  }

  return {
    name,
    size,
    version,
    async read(offset, length, signal) {
      signal?.throwIfAborted();
      const out = new Uint8Array(length);
      for (let at = offset; at < offset + length; ) {
        const chunk = Math.floor(at / CHUNK_BYTES);
        const bytes = await whole(chunk, signal);
        held.set(chunk, bytes);
        const part = bytes.subarray(at - chunk * CHUNK_BYTES, offset + length - chunk * CHUNK_BYTES);
        out.set(part, at - offset);
        at += part.length;
      }
      return out;
    },
    async *stream(offset, length, signal) {
      const end = offset + length;
      let at = offset;
      /** A part of the file that begins at `from`: what of it is wanted. */
      const wanted = (part: Uint8Array, from: number) => part.subarray(Math.max(at - from, 0), Math.max(end - from, 0));
      let ahead: Promise<Uint8Array | undefined> | undefined;
      while (at < end) {
        signal?.throwIfAborted();
        const chunk = Math.floor(at / CHUNK_BYTES);
        const from = chunk * CHUNK_BYTES;
        const bytes = held.get(chunk) ?? (await (ahead ?? stored(chunk)));
        held.delete(chunk);
        ahead = undefined;
        if (bytes) {
          // The next one is read while the taker works on this one.
          if (from + CHUNK_BYTES < end && !held.has(chunk + 1)) ahead = stored(chunk + 1);
          const part = wanted(bytes, from);
          at += part.length;
          yield part;
          continue;
        }
        let begin = from;
        const parts = fetched(chunk, signal);
        for await (const part of parts) {
          const taken = wanted(part, begin);
          begin += part.length;
          at += taken.length;
          // Who has all that was wanted asks no more: the chunk must be whole, and on its way to the store, before that.
          if (at === end) while (!(await parts.next()).done);
          if (taken.length > 0) yield taken;
        }
      }
    },
    close() {
      leave();
      held.clear();
      server?.close();
    },
  };
}

// ---------------------------------------------------------------------------------------------- versions

/** Whether the server's file is the one that is kept: by its version, or where that cannot be told by size and both ends. */
async function isSame(
  store: Store,
  key: string,
  known: Manifest,
  server: ByteSource,
  signal?: AbortSignal,
): Promise<boolean> {
  if (known.size !== server.size) return false;
  if (known.version !== undefined && server.version !== undefined) return known.version === server.version;
  if (known.version !== server.version) return false;
  // What is stored of it lies between two chunks: the beginning of the first and the end of the last that are sound. A page that
  // was killed may have left others, empty, and files of the browser's own.
  const prefix = chunkName(key, known, 0).slice(0, -1);
  const names = (await store.names(prefix)).map((name) => Number(name.slice(prefix.length)));
  const chunks = names.filter(Number.isInteger).sort((a, b) => a - b);
  for (const [i, order] of [chunks, [...chunks].reverse()].entries()) {
    let bytes: Uint8Array | undefined;
    let begin = 0;
    for (const chunk of order) {
      begin = chunk * CHUNK_BYTES;
      bytes = await readChunk(store, prefix + chunk, Math.min(CHUNK_BYTES, known.size - begin));
      if (bytes) break;
    }
    if (!bytes) break;
    let at = i === 0 ? 0 : Math.max(0, bytes.length - END_BYTES);
    for await (const part of server.stream(begin + at, Math.min(END_BYTES, bytes.length), signal)) {
      if (!isEqual(part, bytes.subarray(at, at + part.length))) return false;
      at += part.length;
    }
  }
  return true;
}

async function readManifest(store: Store, key: string): Promise<Manifest | undefined> {
  try {
    const manifest = JSON.parse(new TextDecoder().decode(await store.read(`${key}.json`)));
    return Number.isSafeInteger(manifest.size) && manifest.size >= 0 ? manifest : undefined;
  } catch {
    return undefined;
  }
}

/** Chunks of different versions never meet. */
function chunkName(key: string, { size, version }: Manifest, chunk: number): string {
  return `${key}.${size}-${(version ?? "").replace(/[^\w-]/g, "").slice(0, 80)}.${chunk}`;
}

/** A stored chunk of `length` bytes; undefined where it is missing, cut short, or not what was written. */
async function readChunk(store: Store, name: string, length: number): Promise<Uint8Array | undefined> {
  const file = await store.read(name).catch(() => undefined);
  if (file?.length !== length + HASH_BYTES) return undefined;
  const bytes = file.subarray(0, length);
  return isEqual(await digest(bytes), file.subarray(length)) ? bytes : undefined;
}

/** Whether an error says that no answer came, rather than what the answer was. */
const isOutOfReach = (error: unknown) =>
  error instanceof FurcateError && error.code === "network" && error.cause !== undefined;

// ---------------------------------------------------------------------------------------------- storage

/** Named bytes on this device. */
interface Store {
  read(name: string): Promise<Uint8Array | undefined>;
  /** All or nothing. Rejects with a QuotaExceededError where no more fits. */
  write(name: string, bytes: Uint8Array): Promise<void>;
  remove(name: string): Promise<void>;
  names(prefix?: string): Promise<string[]>;
}

type Writer = ReturnType<typeof newWriter>;

/** Writes for one load. Where storage is full, other models go, the one unused for longest first; then nothing more is written. */
function newWriter(store: Store, key: string) {
  let isFull = false;
  let before: Promise<unknown> = Promise.resolve();
  const waiting = new Set<Promise<void>>();

  async function writeNow(name: string, bytes: Uint8Array): Promise<boolean> {
    while (!isFull) {
      try {
        await store.write(name, bytes);
        return true;
      } catch (error) {
        const isQuota = (error as Error)?.name === "QuotaExceededError";
        if (!isQuota || !(await evictOldest(store, key).catch(() => false))) isFull = true;
      }
    }
    return false;
  }

  return {
    /** Whether it was written. One at a time: another's unfinished bytes, or room it is about to make, would pass for full storage. */
    write(name: string, bytes: Uint8Array): Promise<boolean> {
      const written = before.then(() => writeNow(name, bytes));
      before = written;
      return written;
    },
    /** Does some work without anybody waiting for it. */
    later(work: () => Promise<void>): void {
      const done = work()
        .catch(() => {})
        .finally(() => waiting.delete(done));
      waiting.add(done);
    },
    /** Waits until not too much is waiting to be written. */
    async room(): Promise<void> {
      while (waiting.size >= MOST_WRITES) await Promise.race(waiting);
    },
  };
}

/** Removes the model that was opened longest ago, other than `key`'s; false where there is none. */
async function evictOldest(store: Store, key: string): Promise<boolean> {
  const names = await store.names();
  let oldest: { key: string; used: number } | undefined;
  for (const other of new Set(names.map((name) => name.split(".")[0]))) {
    // Without a manifest nobody can use it.
    const used = (await readManifest(store, other))?.used ?? 0;
    if (other !== key && used < (oldest?.used ?? Infinity)) oldest = { key: other, used };
  }
  if (oldest) await removeAll(store, oldest.key);
  return oldest !== undefined;
}

/** Removes all of a model, its manifest first. */
async function removeAll(store: Store, key: string): Promise<void> {
  await store.remove(`${key}.json`).catch(() => {});
  for (const name of await store.names(`${key}.`).catch(() => [])) await store.remove(name).catch(() => {});
}

const NAME = "furcate-models";

async function openStore(): Promise<Store | undefined> {
  // The cache of an edge worker is not its own.
  if (!globalThis.crypto?.subtle || globalThis.navigator?.userAgent === "Cloudflare-Workers") return undefined;
  return (await openOpfs().catch(() => undefined)) ?? (await openCacheApi().catch(() => undefined));
}

async function openOpfs(): Promise<Store | undefined> {
  const root = await globalThis.navigator?.storage?.getDirectory?.();
  if (!root || !("createWritable" in FileSystemFileHandle.prototype)) return undefined;
  const folder = await root.getDirectoryHandle(NAME, { create: true });
  return {
    async read(name) {
      const file = await folder.getFileHandle(name).catch(() => undefined);
      return file && new Uint8Array(await (await file.getFile()).arrayBuffer());
    },
    async write(name, bytes) {
      // What a writable was given shows when it is closed, all at once.
      const file = await (await folder.getFileHandle(name, { create: true })).createWritable();
      try {
        await file.write(bytes as Uint8Array<ArrayBuffer>);
        await file.close();
      } catch (error) {
        await file.abort().catch(() => {});
        // Of full storage Chromium at times says no more than that a pipe broke (AbortError); its estimate of the quota is no help.
        const isFull = (error as Error).name === "AbortError";
        throw isFull ? new DOMException("no more fits", "QuotaExceededError") : error;
      }
    },
    remove: (name) => folder.removeEntry(name),
    async names(prefix = "") {
      const names: string[] = [];
      // DOM types know no keys() yet.
      for await (const name of (folder as unknown as { keys(): AsyncIterable<string> }).keys())
        if (name.startsWith(prefix)) names.push(name);
      return names;
    },
  };
}

async function openCacheApi(): Promise<Store | undefined> {
  const cache = await globalThis.caches?.open(NAME);
  if (!cache) return undefined;
  const base = "https://furcate.invalid/";
  return {
    async read(name) {
      const response = await cache.match(base + name);
      return response && new Uint8Array(await response.arrayBuffer());
    },
    write: (name, bytes) => cache.put(base + name, new Response(bytes as Uint8Array<ArrayBuffer>)),
    async remove(name) {
      await cache.delete(base + name);
    },
    async names(prefix = "") {
      const names = (await cache.keys()).map(({ url }) => url.slice(base.length));
      return names.filter((name) => name.startsWith(prefix));
    },
  };
}

// ---------------------------------------------------------------------------------------------- helpers

const digest = async (bytes: Uint8Array) =>
  new Uint8Array(await crypto.subtle.digest("SHA-256", bytes as Uint8Array<ArrayBuffer>));

const hex = (bytes: Uint8Array) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");

const isEqual = (a: Uint8Array, b: Uint8Array) => a.length === b.length && a.every((byte, i) => byte === b[i]);

function nameOf(url: string): string {
  const { origin, pathname } = new URL(url);
  return origin + pathname;
}

function pause(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", abort, { once: true });
  });
}
