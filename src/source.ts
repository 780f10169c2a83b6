// Where bytes come from: a URL (HTTP Range where the server has it), a Blob or File, bytes, or in Node and Deno a path.
// Knows which is which; nothing of what the bytes mean, or of how servers answer (source/http.ts).
// Nothing is held twice: given bytes are read in place, the rest passes through in chunks as fast as the reader takes them.

import type { Source } from "./api.ts";
import { fail } from "./errors.ts";
import { importOptional } from "./host.ts";
import { openCached } from "./model-cache.ts";
import { arriving, type ByteSource, changed, checkRange } from "./source/bytes.ts";
import { openHttp } from "./source/http.ts";

export type { ByteSource } from "./source/bytes.ts";

/**
 * Opens a source: for a URL one request has been answered, for a path the file is open. `cache`: a URL's bytes are kept on this
 * device where it has storage for them; then a server that is out of reach is no error as long as everything is there.
 */
export async function openSource(
  source: Source,
  options: { signal?: AbortSignal; cache?: boolean } = {},
): Promise<ByteSource> {
  const { signal, cache } = options;
  signal?.throwIfAborted();
  if (ArrayBuffer.isView(source) || isArrayBuffer(source)) return bytesSource(bytesOf(source));
  if (typeof Blob !== "undefined" && source instanceof Blob) return blobSource(source, nameOf(source));
  if (typeof source !== "string" && !(source instanceof URL))
    fail("option", `source: got ${describe(source)}; expected a URL, a path, a Blob, an ArrayBuffer or a Uint8Array`);

  if (isPath(source)) return openFile(source, source);
  const url = parseUrl(source);
  if (url.protocol === "file:") return openFile(url, url.href);
  if (url.protocol === "http:" || url.protocol === "https:") {
    const open = (headBytes?: number) => openHttp(url, signal, headBytes);
    return cache ? openCached(url.href.replace(/#.*/, ""), open, signal) : open();
  }
  if (url.protocol === "data:" || url.protocol === "blob:") {
    const name = `${url.protocol} URL`;
    const response = await arriving(() => fetch(url, { signal }), name, signal);
    return blobSource(await arriving(() => response.blob(), name, signal), name);
  }
  return fail("option", `source: got the scheme "${url.protocol}"; expected http:, https:, file:, data: or blob:`);
}

/** The same source as another thread can open it: relative to the same place, bytes copied. */
export function portableSource(source: Source): Source {
  if (typeof source === "string" || source instanceof URL) return isPath(source) ? source : parseUrl(source).href;
  const bytes = ArrayBuffer.isView(source) || isArrayBuffer(source) ? source : undefined;
  // A Blob can be read there again when a device was lost.
  return bytes ? new File([bytesOf(bytes).slice()], "the given bytes") : source;
}

/** Bytes a chunk of a local file or Blob; two are under way at a time. */
const CHUNK_BYTES = 4 << 20;
// ---------------------------------------------------------------------------------------------- bytes, Blob, path

function bytesSource(bytes: Uint8Array): ByteSource {
  const name = "the given bytes";
  return {
    name,
    size: bytes.length,
    async read(offset, length, signal) {
      signal?.throwIfAborted();
      checkRange(name, bytes.length, offset, length);
      return bytes.subarray(offset, offset + length);
    },
    async *stream(offset, length, signal) {
      checkRange(name, bytes.length, offset, length);
      for (let at = offset; at < offset + length; at += CHUNK_BYTES) {
        signal?.throwIfAborted();
        yield bytes.subarray(at, Math.min(at + CHUNK_BYTES, offset + length));
      }
    },
    close() {},
  };
}

function blobSource(blob: Blob, name: string): ByteSource {
  const read = async (offset: number, length: number, signal?: AbortSignal) => {
    checkRange(name, blob.size, offset, length);
    const bytes = await arriving(() => blob.slice(offset, offset + length).arrayBuffer(), name, signal);
    if (bytes.byteLength !== length) changed(name, offset + length, offset + bytes.byteLength);
    return new Uint8Array(bytes);
  };
  return {
    name,
    size: blob.size,
    read,
    stream: (offset, length, signal) => inChunks(offset, length, (at, count) => read(at, count, signal), signal),
    close() {},
  };
}

async function openFile(path: string | URL, name: string): Promise<ByteSource> {
  const files = await importOptional<typeof import("node:fs/promises")>("node:fs/promises").catch((cause: unknown) =>
    fail("option", `source: "${name}" is a path, and this runtime reads no files; expected a URL, a Blob or bytes`, {
      cause,
    }),
  );
  const file = await files.open(path, "r").catch((cause: NodeJS.ErrnoException) => {
    const why = cause.code === "ENOENT" ? "there is no such file" : cause.message;
    return fail("option", `source: "${name}" cannot be opened: ${why}`, { cause });
  });
  let open = true;
  const close = () => {
    if (open) file.close().catch(() => {});
    open = false;
  };
  try {
    const stat = await file.stat();
    if (!stat.isFile()) fail("option", `source: "${name}" is not a regular file`);
    const size = stat.size;
    const readInto = async (buffer: Uint8Array, offset: number, signal?: AbortSignal) => {
      checkRange(name, size, offset, buffer.length);
      for (let done = 0; done < buffer.length; ) {
        const { bytesRead } = await arriving(
          () => file.read(buffer, done, buffer.length - done, offset + done),
          name,
          signal,
        );
        if (bytesRead === 0) changed(name, size, offset + done);
        done += bytesRead;
      }
      return buffer;
    };
    return {
      name,
      size,
      async read(offset, length, signal) {
        checkRange(name, size, offset, length);
        return readInto(new Uint8Array(length), offset, signal);
      },
      stream(offset, length, signal) {
        // Two buffers in turn: one with the reader, one being filled.
        let idle: Uint8Array[] = [];
        return inChunks(
          offset,
          length,
          (at, count) => {
            const buffer = idle.pop() ?? new Uint8Array(Math.min(length, CHUNK_BYTES));
            return readInto(buffer.length === count ? buffer : buffer.subarray(0, count), at, signal);
          },
          signal,
          (done) => {
            idle = [done];
          },
        );
      },
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

/** Reads one chunk ahead of the taker; `done` gets back each chunk that the taker has finished with. */
async function* inChunks(
  offset: number,
  length: number,
  read: (offset: number, length: number) => Promise<Uint8Array>,
  signal?: AbortSignal,
  done?: (chunk: Uint8Array) => void,
): AsyncGenerator<Uint8Array, void, undefined> {
  const end = offset + length;
  function start(at: number): Promise<Uint8Array> | undefined {
    if (at >= end) return undefined;
    const coming = read(at, Math.min(CHUNK_BYTES, end - at));
    // A taker that leaves early must not leave a rejection without a listener.
    coming.catch(() => {});
    return coming;
  }
  let coming = start(offset);
  for (let at = offset; coming; ) {
    const chunk = await coming;
    at += chunk.length;
    coming = start(at);
    signal?.throwIfAborted();
    yield chunk;
    done?.(chunk);
  }
}

// ---------------------------------------------------------------------------------------------- helpers

function parseUrl(source: string | URL): URL {
  if (source instanceof URL) return source;
  try {
    // In a page a text without a scheme is relative to the page.
    return new URL(source, (globalThis as { location?: { href: string } }).location?.href);
  } catch (cause) {
    return fail("option", `source: "${source}" is no URL; expected text like https://…`, { cause });
  }
}

/** Whether it names a file here. Two letters make a scheme: "C:\models" is a path. */
function isPath(source: string | URL): source is string {
  return typeof source === "string" && !/^[a-z][a-z0-9+.-]+:/i.test(source) && hasFiles();
}

const bytesOf = (source: ArrayBuffer | Uint8Array) =>
  ArrayBuffer.isView(source)
    ? new Uint8Array(source.buffer, source.byteOffset, source.byteLength)
    : new Uint8Array(source);

/** Node, Deno and what passes for them. */
function hasFiles(): boolean {
  const runtime = globalThis as { Deno?: unknown; process?: { versions?: { node?: string } } };
  return runtime.Deno !== undefined || runtime.process?.versions?.node !== undefined;
}

const isArrayBuffer = (value: unknown): value is ArrayBuffer =>
  /^\[object (Shared)?ArrayBuffer\]$/.test(Object.prototype.toString.call(value));

const nameOf = (blob: Blob) => (blob as Partial<File>).name ?? "the given Blob";
const describe = (value: unknown) =>
  value === null ? "null" : typeof value === "object" ? (value.constructor?.name ?? "an object") : typeof value;
