// What all sources of bytes are, and what their reads share: ranges, aborts, errors. Knows nothing of where bytes come from.

import { FurcateError, fail } from "../errors.ts";

/** A file's bytes. Every error is a FurcateError, except that an aborted call rejects with `signal.reason`. */
export interface ByteSource {
  /** For messages: the URL without its query, the path, or what kind of bytes. */
  readonly name: string;
  /** Bytes; Infinity while a server has not told it. */
  readonly size: number;
  /** What tells this version of a server's file from others, where it lets that be read: ETag, else the date. */
  readonly version?: string;
  /** Bytes offset … offset + length, valid for good; fewer only where a source of untold size ends (then `size` is known). */
  read(offset: number, length: number, signal?: AbortSignal): Promise<Uint8Array>;
  /** The same bytes in order, in chunks of any size; each chunk is valid until the next is asked for. Ends early only by an error. */
  stream(offset: number, length: number, signal?: AbortSignal): AsyncGenerator<Uint8Array, void, undefined>;
  /** Ends what is under way and frees handles. */
  close(): void;
}

/** Runs a read: an abort rejects with the signal's reason, any other failure with a network error. `where` completes the message. */
export async function arriving<T>(
  read: () => Promise<T>,
  name: string,
  signal?: AbortSignal,
  where?: () => string,
): Promise<T> {
  signal?.throwIfAborted();
  try {
    const result = await read();
    signal?.throwIfAborted();
    return result;
  } catch (cause) {
    signal?.throwIfAborted();
    if (cause instanceof FurcateError) throw cause;
    const inner = cause instanceof Error && cause.cause instanceof Error ? cause.cause : cause;
    const why = inner instanceof Error ? inner.message || inner.name : String(inner);
    return fail("network", `${name}: reading failed${where ? ` ${where()}` : ""}: ${why}`, { cause });
  }
}

export function checkRange(name: string, size: number, offset: number, length: number): void {
  if (!(offset >= 0 && length >= 0 && offset + length <= size))
    fail("internal", `${name}: asked for bytes ${spell(offset, offset + length)}, but it has ${spellBytes(size)}`);
}

export function changed(name: string, expected: number, got: number): never {
  return fail(
    "network",
    `${name}: ended after ${spellBytes(got)}; expected ${expected.toLocaleString("en")}: it changed while being read`,
  );
}

export const spell = (start: number, end: number) =>
  `${start.toLocaleString("en")} to ${end === Infinity ? "the end" : end.toLocaleString("en")}`;
export const spellBytes = (bytes: number) => `${bytes.toLocaleString("en")} bytes`;
