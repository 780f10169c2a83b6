// The OpenAI endpoint as a function from Request to Response: routes, limits, statuses, CORS, streams, and how many may wait.
// Knows HTTP and the public Model; what bodies mean is in openai/requests.ts, how answers are worded in openai/replies.ts.

import type { HandlerOptions, Model, Stream } from "./api.ts";
import { FurcateError, fail, show } from "./errors.ts";
import { CHAT, COMPLETION, choicesOf, usageOf, type Wording } from "./openai/replies.ts";
import { ApiError, type Call, readChat, readCompletion } from "./openai/requests.ts";
import { refuseUnknown, whole } from "./options.ts";
import { nextTask } from "./queue.ts";

/**
 * Serves a model at POST /v1/chat/completions, POST /v1/completions and GET /v1/models as the OpenAI API does: n, stream, logprobs,
 * seed, stop, penalties, logit_bias, usage; whole choices also have furcate's `seed`. Errors come with the API's statuses and JSON
 * shape; the function itself never rejects. Once a request is aborted or its stream cancelled, nothing more is computed for it.
 */
export function openAIHandler(model: Model, options: HandlerOptions = {}): (request: Request) => Promise<Response> {
  refuseUnknown(options, { modelId: true, cors: true, maxBodyBytes: true, maxQueue: true }, "openAIHandler");
  const { modelId = model.info.name || "furcate", cors = false } = options;
  if (typeof modelId !== "string" || modelId === "") fail("option", `modelId is ${modelId}, expected a text`);
  if (typeof cors !== "boolean" && typeof cors !== "string")
    fail("option", `cors is ${cors}, expected true, false or an origin`);
  const maxBodyBytes = whole(options.maxBodyBytes, "maxBodyBytes", 1) ?? 4 << 20;
  const enter = createPlaces((whole(options.maxQueue, "maxQueue", 0) ?? 64) + 1);
  const card = { id: modelId, object: "model", created: seconds(), owned_by: "furcate" };

  async function route(request: Request, id: string): Promise<Response> {
    const { pathname } = new URL(request.url);
    if (pathname === "/v1/chat/completions") return answer(request, id, readChat, CHAT);
    if (pathname === "/v1/completions") return answer(request, id, readCompletion, COMPLETION);
    const named = /^\/v1\/models(?:\/(.+))?$/.exec(pathname);
    if (!named) throw new ApiError(404, `there is nothing at ${request.method} ${pathname}`, "unknown_url");
    checkMethod(request, "GET");
    if (named[1] === undefined) return json({ object: "list", data: [card] });
    if (decoded(named[1]) !== modelId)
      throw new ApiError(
        404,
        `the model "${decoded(named[1])}" does not exist: this is "${modelId}"`,
        "model_not_found",
      );
    return json(card);
  }

  async function answer(
    request: Request,
    id: string,
    read: (body: unknown, modelId: string) => Call,
    wording: Wording,
  ): Promise<Response> {
    checkMethod(request, "POST");
    const call = read(await bodyOf(request, maxBodyBytes), modelId);
    const leave = enter();
    const gone = new AbortController();
    const abort = () => gone.abort();
    request.signal.addEventListener("abort", abort);
    if (request.signal.aborted) abort();
    // Some runtimes abort the requests that were answered, too: from then on nobody listens.
    const end = () => {
      leave();
      request.signal.removeEventListener("abort", abort);
    };
    const callOptions = { ...call.options, signal: gone.signal };
    const head = {
      id: wording.idPrefix + id,
      created: seconds(),
      model: modelId,
      system_fingerprint: `furcate-${model.backend}`,
    };
    try {
      if (call.stream) {
        const streams = call.prompts.map((prompt) => model.stream(prompt, callOptions));
        // Nothing is computed any more, however slowly the events are read.
        const results = streams.map(({ result }) => result);
        Promise.allSettled(results).then(end);
        // What is wrong with any of the prompts is known at once, and answered before the first event.
        await Promise.race([Promise.all(results), nextTask()]);
        return await eventStream(eventsOf(streams, call, wording, head), abort);
      }
      const results = await Promise.all(call.prompts.map((prompt) => model.generate(prompt, callOptions)));
      end();
      const usage = usageOf(results.map((result) => result.usage));
      return json({ ...head, object: wording.object, choices: choicesOf(results, call.kept, wording), usage });
    } catch (error) {
      end();
      if (gone.signal.aborted) return new Response(null, { status: 499 }); // nobody reads it
      abort(); // the other prompts
      throw error;
    }
  }

  try {
    if (typeof cors === "string") new Headers({ "access-control-allow-origin": cors });
  } catch {
    fail("option", `cors is ${show(cors)}, expected true, false or an origin`);
  }
  return async (request) => {
    const id = crypto.randomUUID().replaceAll("-", "");
    const isPreflight = cors !== false && request.method === "OPTIONS";
    const response = isPreflight ? preflight(request) : await route(request, id).catch(refusal);
    response.headers.set("x-request-id", id);
    if (cors !== false) {
      response.headers.set("access-control-allow-origin", cors === true ? "*" : cors);
      response.headers.set("access-control-expose-headers", "x-request-id, retry-after");
      if (cors !== true) response.headers.append("vary", "origin");
    }
    return response;
  };
}

// ---------------------------------------------------------------------------------------------- requests

/** Milliseconds between a request's signs of life, and without one until its place is free: edge workers end requests silently. */
const SIGN_MS = 1000;
const GONE_MS = 10_000;

/** Places for so many requests, waiting or served: a function that takes one and returns what gives it back. Errors: ApiError 429. */
function createPlaces(count: number): () => () => void {
  const taken = new Set<{ seen: number }>();
  return () => {
    for (const place of taken) if (Date.now() - place.seen > GONE_MS) taken.delete(place);
    if (taken.size >= count) {
      const message = `${taken.size} requests are waiting or served, at most ${count} may be: try again later`;
      throw new ApiError(429, message, "rate_limit_exceeded", null, "requests", { "retry-after": "1" });
    }
    const place = { seen: Date.now() };
    taken.add(place);
    const timer = setInterval(() => {
      place.seen = Date.now();
    }, SIGN_MS);
    return () => {
      clearInterval(timer);
      taken.delete(place);
    };
  };
}

function checkMethod({ method, url }: Request, expected: "GET" | "POST"): void {
  if (method === expected) return;
  const message = `${new URL(url).pathname} does not take ${method}, expected ${expected}`;
  throw new ApiError(405, message, "method_not_allowed", null, undefined, { allow: expected });
}

/** The body, parsed. A page of another origin can send only other types than JSON without asking first, so these are refused. */
async function bodyOf(request: Request, maxBytes: number): Promise<unknown> {
  const type = request.headers.get("content-type");
  if (!/^application\/json\s*(;|$)/i.test(type ?? "")) {
    const message = `the content type is ${type ?? "missing"}, expected application/json`;
    throw new ApiError(415, message, "unsupported_content_type");
  }
  const tooLarge = () =>
    new ApiError(413, `the body is larger than ${maxBytes.toLocaleString("en")} bytes`, "request_too_large");
  if (Number(request.headers.get("content-length")) > maxBytes) throw tooLarge();
  const decoder = new TextDecoder("utf-8", { fatal: true });
  let text = "";
  let bytes = 0;
  const reader = request.body?.getReader();
  try {
    for (;;) {
      const part = await reader?.read();
      if (!part || part.done) break;
      bytes += part.value.length;
      if (bytes > maxBytes) throw tooLarge();
      text += decoder.decode(part.value, { stream: true });
    }
    return JSON.parse(text + decoder.decode());
  } catch (error) {
    reader?.cancel().catch(() => {});
    if (error instanceof ApiError) throw error;
    throw new ApiError(400, `the body is not JSON: ${(error as Error).message}`, "invalid_json");
  }
}

function decoded(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

// ---------------------------------------------------------------------------------------------- responses

/** The chunks of streams as the API's events: choices interleaved, each opened first and closed last; then the usage. */
async function* eventsOf(
  streams: readonly Stream[],
  { kept, includeUsage }: Call,
  wording: Wording,
  head: object,
): AsyncGenerator<object, void, undefined> {
  const event = (choices: object[], usage: object | null = null) => ({
    ...head,
    object: wording.chunkObject,
    choices,
    ...(includeUsage && { usage }),
  });
  for (const [i, stream] of streams.entries()) {
    const offsets = new Map<number, number>();
    for await (const chunk of stream) {
      const index = i * kept + chunk.index;
      const offset = offsets.get(index) ?? 0;
      const opening = offsets.has(index) ? undefined : wording.opening(index);
      if (opening) yield event([opening]);
      if (chunk.text !== "" || chunk.logprobs) yield event([wording.piece(index, chunk, offset)]);
      if (chunk.finishReason) yield event([wording.closing(index, chunk.finishReason)]);
      offsets.set(index, offset + (chunk.logprobs?.token.length ?? 0));
    }
  }
  if (!includeUsage) return;
  const results = await Promise.all(streams.map(({ result }) => result));
  yield event([], usageOf(results.map(({ usage }) => usage)));
}

/** Server-sent events, from the first one on: errors before it are the caller's. abort: called when nobody reads any more. */
async function eventStream(events: AsyncGenerator<object, void, undefined>, abort: () => void): Promise<Response> {
  let event = await events.next();
  const encoder = new TextEncoder();
  let cancelled = false;
  const body = new ReadableStream<Uint8Array>({
    async pull(controller) {
      const data = event.done ? "[DONE]" : JSON.stringify(event.value);
      controller.enqueue(encoder.encode(`data: ${data}\n\n`));
      if (event.done) controller.close();
      else {
        event = await events.next().catch((error: unknown) => {
          if (!cancelled) controller.enqueue(encoder.encode(`data: ${JSON.stringify(describe(error).body)}\n\n`));
          if (!cancelled) controller.close();
          return { done: true, value: undefined };
        });
      }
    },
    cancel() {
      cancelled = true;
      abort();
    },
  });
  const headers = { "content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache" };
  return new Response(body, { headers });
}

function json(body: object, status = 200): Response {
  const headers = { "content-type": "application/json", "cache-control": "no-store" };
  return new Response(JSON.stringify(body), { status, headers });
}

/** What a browser asks before it sends JSON to another origin. */
function preflight(request: Request): Response {
  const asked = request.headers.get("access-control-request-headers") ?? "authorization, content-type";
  const headers = {
    "access-control-allow-methods": "GET, POST",
    "access-control-allow-headers": asked,
    "access-control-max-age": "86400",
  };
  return new Response(null, { status: 204, headers });
}

function refusal(error: unknown): Response {
  const { status, headers, body } = describe(error);
  const response = json(body, status);
  for (const [name, value] of Object.entries(headers)) response.headers.set(name, value);
  return response;
}

/** Statuses of furcate's errors, and their names in the API where it has one. */
const STATUSES: Partial<Record<string, readonly [status: number, code?: string]>> = {
  option: [400, "invalid_value"],
  unsupported: [400],
  memory: [400],
  "context-length": [400, "context_length_exceeded"],
  "device-lost": [503],
  disposed: [503],
};

function describe(error: unknown) {
  let told: ApiError;
  if (error instanceof ApiError) told = error;
  else {
    const code = error instanceof FurcateError ? error.code : "internal";
    const [status, name = code] = STATUSES[code] ?? [500];
    // What nobody foresaw is for whoever runs the server.
    if (status === 500) console.error(error);
    const message = status === 500 ? "the server failed to answer: its log says why" : (error as Error).message;
    told = new ApiError(status, message, name, null, status < 500 ? undefined : "server_error");
  }
  const { status, headers, message, type, param, code } = told;
  return { status, headers, body: { error: { message, type, param, code } } };
}

const seconds = () => Math.floor(Date.now() / 1000);
