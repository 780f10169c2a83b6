// A file on a server: HTTP Range where the server has it. Few requests: the first one brings the size and the head of the file; `stream`
// is one more for everything behind it. Knows answers and broken connections; nothing of what the bytes mean, or of what is kept here.

import { fail } from "../errors.ts";
import { arriving, type ByteSource, checkRange, spell, spellBytes } from "./bytes.ts";

/** The first request and the smallest that is worth one, bytes. */
const HEAD_BYTES = 2 << 20;
/** Most bytes that are kept of a server's answer so that they can be read again without Range. */
const KEPT_BYTES = 512 << 20;

/** What a server said of the file; must stay the same from one answer to the next. */
interface Identity {
  size: number;
  etag: string | null;
  modified: string | null;
}

/** A body under way. `at`: the file's offset of its next byte; `end`: where it must end, Infinity if nobody said. */
interface Body {
  at: number;
  end: number;
  next(signal?: AbortSignal): Promise<Uint8Array | undefined>;
  cancel(): void;
}

/** Opens a URL: one request has been answered. headBytes: how many the first one asks for. */
export async function openHttp(url: URL, openSignal?: AbortSignal, headBytes = HEAD_BYTES): Promise<ByteSource> {
  const name = `${url.origin}${url.pathname}`;
  let identity: Identity | undefined;
  /** The file's first bytes, kept until a stream has passed them: head.subarray(0, headLength). */
  let head: Uint8Array = new Uint8Array(0);
  let headLength = 0;
  /** The body that goes on where the head ends; a server without Range has just this one. */
  let following: Body | undefined;
  const live = new Set<Body>();

  /** Asks for bytes start … end, end exclusive. The body may begin earlier: at 0 where the server ignores Range. */
  async function request(start: number, end: number, signal?: AbortSignal): Promise<Body> {
    // No If-Range: it is not a simple header, so it would cost pages of other origins a preflight that many servers refuse.
    // Comparing what each answer says of the file finds the same changes.
    const controller = new AbortController();
    const abort = () => controller.abort(signal?.reason);
    signal?.addEventListener("abort", abort);
    try {
      const range = `bytes=${start}-${end === Infinity ? "" : end - 1}`;
      const response = await arriving(
        () => fetch(url, { headers: { Range: range }, signal: controller.signal }),
        name,
        signal,
      );
      try {
        const { said, body } = bodyOf(response, start, end, controller);
        if (response.status === 206 && said.size === Infinity && !identity) said.size = await sizeByHead(signal);
        identity = checkIdentity(identity, said);
        live.add(body);
        return body;
      } catch (error) {
        controller.abort();
        throw error;
      }
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  /** Reads the status line and headers of an answer to a Range request. */
  function bodyOf(response: Response, start: number, end: number, controller: AbortController) {
    const { status, headers } = response;
    const said: Identity = { size: Infinity, etag: headers.get("etag"), modified: headers.get("last-modified") };
    // Behind a content coding the length is that of the coded bytes, which nobody sees.
    const coded = (headers.get("content-encoding") ?? "identity") !== "identity";
    const length = coded ? undefined : wholeNumber(headers.get("content-length"));
    let at = 0;
    let stop = Infinity;
    if (status === 206) {
      const text = headers.get("content-range");
      const match = /^bytes (\d+)-(\d+)\/(\d+|\*)$/i.exec(text?.trim() ?? "");
      if (match) {
        at = Number(match[1]);
        stop = Number(match[2]) + 1;
        if (match[3] !== "*") said.size = Number(match[3]);
        else if (at === start && stop < end) said.size = stop;
      } else if (text === null) {
        // Not visible to pages of other origins unless the server exposes it: then the length alone must fit.
        at = start;
        stop = length === undefined ? end : start + length;
      }
      const wantedEnd = Math.min(end, said.size);
      const fits =
        at === start && (wantedEnd === Infinity || stop === wantedEnd || (stop < wantedEnd && text === null));
      if ((!match && text !== null) || !fits || stop <= at)
        fail(
          "network",
          `${name}: asked for bytes ${spell(start, end)}, got Content-Range "${text}"; expected those bytes`,
        );
      if (text === null && stop < end) said.size = stop;
    } else if (status === 416) {
      const total = /^bytes \*\/(\d+)$/i.exec(headers.get("content-range")?.trim() ?? "");
      if (start > 0 || (total && Number(total[1]) > 0))
        fail("network", `${name}: asked for bytes ${spell(start, end)}, the server has no such range (HTTP 416)`);
      said.size = 0;
      stop = 0;
    } else if (status === 200) {
      if (length !== undefined) {
        said.size = length;
        stop = length;
      }
    } else {
      const hint = status === 401 || status === 403 ? " (is it a gated or private file?)" : "";
      fail(
        "network",
        `${name}: got HTTP ${status} ${response.statusText}; expected 200 or 206${hint}`.replace("  ", " "),
      );
    }
    return { said, body: newBody(status === 416 ? null : response.body, at, stop, controller) };
  }

  function newBody(
    stream: ReadableStream<Uint8Array> | null,
    at: number,
    end: number,
    controller: AbortController,
  ): Body {
    const reader = stream?.getReader();
    const body: Body = {
      at,
      end,
      async next(signal) {
        const abort = () => controller.abort(signal?.reason);
        signal?.addEventListener("abort", abort);
        try {
          const part =
            reader &&
            (await arriving(
              () => reader.read(),
              name,
              signal,
              () => `after ${spellBytes(body.at)}`,
            ));
          if (part?.value) {
            body.at += part.value.length;
            if (body.at > body.end)
              fail("network", `${name}: got more than the ${spellBytes(body.end)} that the server announced`);
            return part.value;
          }
          live.delete(body);
          if (body.at < body.end && body.end !== Infinity)
            fail(
              "network",
              `${name}: ended after ${spellBytes(body.at)}; expected ${body.end.toLocaleString("en")}: try again`,
            );
          return undefined;
        } finally {
          signal?.removeEventListener("abort", abort);
        }
      },
      cancel() {
        live.delete(body);
        controller.abort();
      },
    };
    return body;
  }

  /** A 206 whose Content-Range a page may not see: Content-Length of a HEAD is always visible. */
  async function sizeByHead(signal?: AbortSignal): Promise<number> {
    const response = await fetch(url, { method: "HEAD", signal }).catch(() => undefined);
    signal?.throwIfAborted();
    return (response?.ok && wholeNumber(response.headers.get("content-length"))) || Infinity;
  }

  function checkIdentity(before: Identity | undefined, now: Identity): Identity {
    if (!before) return now;
    const differs = (a: string | null, b: string | null) => a !== null && b !== null && a !== b;
    if (before.size !== Infinity && now.size !== Infinity && before.size !== now.size)
      fail(
        "network",
        `${name}: had ${spellBytes(before.size)}, now ${spellBytes(now.size)}: it changed on the server; load it again`,
      );
    if (differs(before.etag, now.etag) || (before.etag === null && differs(before.modified, now.modified)))
      fail(
        "network",
        `${name}: got ETag ${now.etag ?? now.modified}, before ${before.etag ?? before.modified}: it changed on the server; load it again`,
      );
    return { ...before, size: Math.min(before.size, now.size) };
  }

  const size = () => identity?.size ?? Infinity;

  /** Appends to the head. It grows at least by doubling, so that the sum of all copies stays small. */
  function keep(part: Uint8Array, expected: number): void {
    if (headLength + part.length > head.length) {
      const atOnce = Number.isFinite(expected) ? Math.min(expected, KEPT_BYTES) : 0;
      const grown = new Uint8Array(Math.max(headLength + part.length, atOnce, 2 * head.length));
      grown.set(head.subarray(0, headLength));
      head = grown;
    }
    head.set(part, headLength);
    headLength += part.length;
  }

  /** Makes the head at least `length` long, or as long as the file is. */
  async function growHead(length: number, signal?: AbortSignal): Promise<void> {
    const wanted = Math.min(length, size());
    const refuse = (bytes: string) =>
      fail("network", `${name}: the server ignores Range; expected it to give ${bytes} in parts`);
    if (Number.isFinite(wanted) && wanted > KEPT_BYTES) refuse(spellBytes(wanted));
    while (headLength < wanted && headLength < size()) {
      if (headLength > KEPT_BYTES) refuse(`more than ${spellBytes(KEPT_BYTES)}`);
      following ??= await request(headLength, Math.min(Math.max(wanted, HEAD_BYTES), size()), signal);
      const from = following.at;
      const part = await following.next(signal).catch((error) => {
        // A broken body is of no more use; a later call may ask anew.
        following?.cancel();
        following = undefined;
        throw error;
      });
      if (part) keep(skip(part, headLength - from), Math.min(wanted, size()));
      else if (following.end === Infinity && identity) identity.size = Math.min(identity.size, headLength);
      if (!part || following.at >= Math.min(following.end, size())) {
        if (part) await drained(following, signal);
        following = undefined;
      }
    }
  }

  /** Takes the end of a body whose bytes have all come, so that the connection can serve again. */
  async function drained(body: Body, signal?: AbortSignal): Promise<void> {
    while (await body.next(signal)) if (body.at > body.end) break;
  }

  /** The bytes of a request of its own, starting at `offset` even where the body begins earlier. */
  async function* parts(
    offset: number,
    end: number,
    signal?: AbortSignal,
  ): AsyncGenerator<Uint8Array, void, undefined> {
    let body = following;
    following = undefined;
    // An open body is worth following when all that is wanted lies ahead of it, and it reaches far enough.
    if (body && (body.at > offset || body.end < end || (body.at < offset && body.end !== size()))) {
      body.cancel();
      body = undefined;
    }
    body ??= await request(offset, end, signal);
    try {
      while (body.at < end) {
        const from: number = body.at;
        const part = await body.next(signal);
        if (!part) {
          if (identity && body.end === Infinity) identity.size = Math.min(identity.size, body.at);
          fail(
            "network",
            `${name}: ended after ${spellBytes(body.at)}; expected ${end.toLocaleString("en")}: it is cut off`,
          );
        }
        const wanted = skip(part, offset - from).subarray(0, end - Math.max(from, offset));
        if (wanted.length > 0) yield wanted;
      }
      if (body.end <= end) await drained(body, signal);
    } finally {
      body.cancel();
    }
  }

  await (async () => {
    following = await request(0, headBytes, openSignal);
    await growHead(Math.min(headBytes, following.end), openSignal);
  })().catch((error) => {
    for (const body of live) body.cancel();
    throw error;
  });

  return {
    name,
    get size() {
      return size();
    },
    get version() {
      return identity?.etag ?? identity?.modified ?? undefined;
    },
    async read(offset, length, signal) {
      signal?.throwIfAborted();
      checkRange(name, size(), offset, length);
      const end = offset + length;
      // What continues the head joins it; anything else gets a request of its own.
      if (offset <= headLength || following) {
        await growHead(end, signal);
        return head.subarray(Math.min(offset, headLength), Math.min(end, headLength));
      }
      const bytes = new Uint8Array(length);
      let done = 0;
      for await (const part of parts(offset, end, signal)) {
        bytes.set(part, done);
        done += part.length;
      }
      return bytes;
    },
    async *stream(offset, length, signal) {
      signal?.throwIfAborted();
      checkRange(name, size(), offset, length);
      const end = offset + length;
      let at = offset;
      const kept = head.subarray(Math.min(offset, headLength), Math.min(end, headLength));
      if (end > headLength) {
        // The stream goes on where the head ends: nothing needs the head any more.
        head = new Uint8Array(0);
        headLength = 0;
      }
      if (kept.length > 0) yield kept;
      at += kept.length;
      if (at < end) yield* parts(at, end, signal);
    },
    close() {
      for (const body of live) body.cancel();
      following = undefined;
    },
  };
}

const wholeNumber = (text: string | null) => (text !== null && /^\d+$/.test(text.trim()) ? Number(text) : undefined);
const skip = (part: Uint8Array, bytes: number) => (bytes > 0 ? part.subarray(bytes) : part);
