// The OpenAI endpoint as a function, called by the real openai client and by hand: answers against direct calls of the model,
// streams, errors, limits, aborts, CORS. On random models; the runtimes that serve it are in servers.test.ts.

import OpenAI, { type APIError } from "openai";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FurcateError, type GenerateOptions, load, type Model, openAIHandler, type Result } from "../src/index.ts";
import { rejects } from "./support/backends.ts";
import { CHAT_TEMPLATE, randomModel } from "./support/random-model.ts";

const EOS = 297;
/** The model ends at this token too. */
const IM_END = 299;
const model = await load(randomModel({ seed: 11, chatTemplate: CHAT_TEMPLATE }), { backend: "wasm" });
const handler = openAIHandler(model, { modelId: "random" });
const client = clientOf(handler);
/** Keeps a sample from ending before its limit. */
const NO_END = { [EOS]: -100, [IM_END]: -100 };
const messages = [
  { role: "system" as const, content: "Be short." },
  { role: "user" as const, content: "Name a river." },
];

/** A client whose requests go straight to a handler. */
function clientOf(handle: (request: Request) => Promise<Response>, maxRetries = 0): OpenAI {
  return new OpenAI({
    baseURL: "http://local/v1",
    apiKey: "none",
    maxRetries,
    fetch: (url, init) => handle(new Request(url as string, init as RequestInit)),
  });
}

function post(path: string, body: unknown, init: RequestInit = {}): Request {
  const text = typeof body === "string" ? body : JSON.stringify(body);
  const headers = { "content-type": "application/json" };
  return new Request(`http://local${path}`, { method: "POST", body: text, headers, ...init });
}

const texts = (choices: Result["choices"]) => choices.map(({ text }) => text);

// ---------------------------------------------------------------------------------------------- answers

test("models: the one there is", async () => {
  const { data } = await client.models.list();
  assert.equal(
    data.map(({ id, object, owned_by }) => [id, object, owned_by]),
    [["random", "model", "furcate"]],
  );
  assert.is((await client.models.retrieve("random")).id, "random");
  const named = clientOf(openAIHandler(model));
  assert.is((await named.models.retrieve("random 11")).id, "random 11", "by default its own name");
});

test("a chat of n = 8 is what the model itself answers", async () => {
  const direct: GenerateOptions = {
    n: 8,
    maxTokens: 20,
    temperature: 0.9,
    topP: 0.95,
    seed: 5,
    logitBias: { [EOS]: 2 },
  };
  const want = await model.generate(messages, direct);
  const asked = { n: 8, max_tokens: 20, temperature: 0.9, top_p: 0.95, seed: 5, logit_bias: { [EOS]: 2 } };
  const got = await client.chat.completions.create({ model: "random", messages, ...asked });
  assert.match(got.id, /^chatcmpl-[0-9a-f]{32}$/);
  assert.is(got._request_id, got.id.slice("chatcmpl-".length));
  assert.is(got.object, "chat.completion");
  assert.is(got.model, "random");
  assert.ok(Math.abs(got.created - Date.now() / 1000) < 60);
  assert.equal(
    got.choices,
    want.choices.map(({ index, text, finishReason, seed }) => ({
      index,
      message: { role: "assistant", content: text, refusal: null },
      logprobs: null,
      finish_reason: finishReason,
      seed,
    })),
  );
  assert.equal(new Set(got.choices.map(({ finish_reason }) => finish_reason)), new Set(["stop", "length"]));
  const { promptTokens, completionTokens } = want.usage;
  assert.equal(got.usage, {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: promptTokens - 1 },
  });
  for (const choice of got.choices) {
    const { seed } = choice as unknown as { seed: number };
    const again = await client.chat.completions.create({ model: "random", messages, ...asked, n: 1, seed });
    assert.is(again.choices[0].message.content, choice.message.content, "a choice's seed gives it again");
  }
});

test("a chat's stream: choices interleaved, each opened by its role and closed by its reason; then the usage", async () => {
  const asked = { model: "random", messages, n: 8, max_tokens: 20, seed: 5, logit_bias: { [EOS]: 2 } };
  const want = await client.chat.completions.create(asked);
  const stream = await client.chat.completions.create({
    ...asked,
    stream: true,
    stream_options: { include_usage: true },
  });
  const events = [];
  for await (const event of stream) events.push(event);
  const last = events.pop();
  assert.equal(last?.choices, []);
  assert.is(last?.usage?.total_tokens, want.usage?.total_tokens);
  assert.is(new Set(events.map(({ id }) => id)).size, 1);
  for (const { object, usage, choices } of events) {
    assert.is(object, "chat.completion.chunk");
    assert.is(usage, null);
    assert.is(choices.length, 1);
  }
  for (const { index, message, finish_reason } of want.choices) {
    const own = events.flatMap(({ choices }) => choices).filter((choice) => choice.index === index);
    assert.equal(own[0].delta, { role: "assistant", content: "", refusal: null });
    assert.is(own.map(({ delta }) => delta.content ?? "").join(""), message.content);
    assert.equal(own.at(-1)?.delta, {});
    assert.is(own.at(-1)?.finish_reason, finish_reason);
    assert.ok(own.slice(0, -1).every((choice) => choice.finish_reason === null));
  }
  const order = events.map(({ choices }) => choices[0].index);
  assert.ok(order.indexOf(7) < order.lastIndexOf(0), "interleaved");

  const text = await (await handler(post("/v1/chat/completions", { ...asked, stream: true }))).text();
  assert.match(text, /^data: \{.*\}\n\n/);
  assert.match(text, /\n\ndata: \[DONE\]\n\n$/);
  assert.not.match(text, /usage/);
});

test("log-probabilities of a chat, whole and streamed", async () => {
  const asked = { model: "random", messages, n: 3, max_tokens: 12, seed: 1, logprobs: true, top_logprobs: 3 };
  const want = await model.generate(messages, { n: 3, maxTokens: 12, seed: 1, logprobs: 3 });
  const { choices } = await client.chat.completions.create(asked);
  const streamed: unknown[][] = [[], [], []];
  for await (const event of await client.chat.completions.create({ ...asked, stream: true })) {
    const [{ index, logprobs }] = event.choices;
    streamed[index].push(...(logprobs?.content ?? []));
  }
  let invalid = 0;
  for (const [index, { logprobs }] of choices.entries()) {
    const content = logprobs?.content ?? [];
    assert.equal(streamed[index], content, "streamed alike");
    assert.equal(
      content.map(({ token, logprob }) => [token, logprob]),
      want.choices[index].logprobs?.map(({ token, logprob }) => [token, logprob]),
    );
    for (const { token, bytes, top_logprobs } of content) {
      assert.is(top_logprobs.length, 3);
      if (bytes) assert.is(Buffer.from(bytes).toString(), token);
      else invalid++;
    }
  }
  assert.ok(invalid > 0, "some tokens are parts of characters");
  const plain = await client.chat.completions.create({ ...asked, top_logprobs: undefined });
  assert.equal(plain.choices[0].logprobs?.content?.[0].top_logprobs, []);
});

test("completions: texts, ids, several prompts, log-probabilities, whole and streamed", async () => {
  const direct = { n: 2, maxTokens: 10, seed: 3, logprobs: 2 };
  const prompts = ["the river", "of the sea"];
  const want = await Promise.all(prompts.map((prompt) => model.generate(prompt, direct)));
  const asked = { model: "random", n: 2, max_tokens: 10, seed: 3, logprobs: 2 };
  const ids = prompts.map((prompt) => [...model.tokenizer.encode(prompt, { bos: true })]);
  for (const prompt of [prompts, ids]) {
    const { choices, object, id, usage } = await client.completions.create({ ...asked, prompt });
    assert.is(object, "text_completion");
    assert.match(id, /^cmpl-/);
    assert.equal(
      choices.map(({ index, text }) => [index, text]),
      want.flatMap(({ choices }) => texts(choices)).map((text, i) => [i, text]),
    );
    const first = choices[2].logprobs;
    const tokens = want[1].choices[0].logprobs ?? [];
    assert.equal(
      first?.tokens,
      tokens.map(({ token }) => token),
    );
    assert.equal(
      first?.token_logprobs,
      tokens.map(({ logprob }) => logprob),
    );
    assert.ok((first?.top_logprobs ?? []).every((top, i) => tokens[i].token in top));
    assert.equal(first?.text_offset?.slice(0, 2), [0, tokens[0].token.length]);
    assert.is(usage?.completion_tokens, want[0].usage.completionTokens + want[1].usage.completionTokens);

    const streamed = ["", "", "", ""];
    const offsets: number[] = [];
    for await (const event of await client.completions.create({ ...asked, prompt, stream: true })) {
      const [{ index, text, logprobs }] = event.choices;
      streamed[index] += text;
      if (index === 2) offsets.push(...(logprobs?.text_offset ?? []));
    }
    assert.equal(
      streamed,
      choices.map(({ text }) => text),
    );
    assert.equal(offsets, first?.text_offset);
  }
  const [single] = (await client.completions.create({ ...asked, prompt: prompts[0], n: 1 })).choices;
  assert.is(single.text, want[0].choices[0].text);
  const { usage } = await client.completions.create({ model: "random", prompt: "a", logit_bias: NO_END });
  assert.is(usage?.completion_tokens, 16, "as in the API, by default");
});

test("best_of makes more and gives back the best by mean log-probability", async () => {
  const { choices } = await model.generate("the", { n: 8, maxTokens: 10, seed: 3, rank: "mean-logprob" });
  const asked = { model: "random", prompt: "the", n: 2, best_of: 8, max_tokens: 10, seed: 3 };
  const got = await client.completions.create(asked);
  assert.equal(
    got.choices.map(({ index, text }) => [index, text]),
    texts(choices.slice(0, 2)).map((text, i) => [i, text]),
  );
});

test("every option reaches the model, and null is as good as leaving it out", async () => {
  const calls: GenerateOptions[] = [];
  const spied = clientOf(openAIHandler(spyOn(model, calls), { modelId: "random" }));
  const asked = {
    max_completion_tokens: 7,
    temperature: 0,
    top_p: 0.5,
    frequency_penalty: 0.25,
    presence_penalty: -0.5,
    seed: -9,
    stop: ["x", "yz"],
    logit_bias: { 5: -100 },
  };
  await spied.chat.completions.create({ model: "random", messages, ...asked });
  const { signal, ...options } = calls[0];
  assert.instance(signal, AbortSignal);
  assert.equal(options, {
    n: 1,
    maxTokens: 7,
    temperature: 0,
    topP: 0.5,
    frequencyPenalty: 0.25,
    presencePenalty: -0.5,
    seed: -9,
    stop: ["x", "yz"],
    logitBias: { 5: -100 },
  });
  const nothing = {
    ...Object.fromEntries(Object.keys(asked).map((name) => [name, null])),
    ...{
      n: null,
      stream: null,
      logprobs: null,
      tools: [],
      response_format: { type: "text" },
      user: "me",
      store: false,
    },
    max_completion_tokens: 1,
  };
  const response = await handler(post("/v1/chat/completions", { model: "random", messages, ...nothing }));
  assert.is(response.status, 200, await response.text());
});

test("text parts are joined, developers are the system, and an assistant may have said nothing", async () => {
  const plain = [
    { role: "system", content: "Be short." },
    { role: "assistant", content: "" },
    { role: "user", content: "Name\na river." },
  ];
  const parts = [
    { role: "developer", content: "Be short." },
    { role: "assistant", content: null },
    { role: "user", content: [...["Name", "a river."].map((text) => ({ type: "text", text }))] },
  ];
  const answers = await Promise.all(
    [plain, parts].map(async (messages) => {
      const response = await handler(
        post("/v1/chat/completions", { model: "random", messages, seed: 1, max_tokens: 9 }),
      );
      return ((await response.json()) as OpenAI.ChatCompletion).choices;
    }),
  );
  assert.equal(answers[0], answers[1]);
});

// ---------------------------------------------------------------------------------------------- refusals

const chat = { model: "random", messages };
const completion = { model: "random", prompt: "a", max_tokens: 2 };
type Refused = [what: string, path: string, body: unknown, status: number, code: string | null, param: string | null];
const REFUSED: Refused[] = [
  ["no JSON", "/chat/completions", "{", 400, "invalid_json", null],
  ["no object", "/chat/completions", [], 400, "invalid_type", null],
  ["no model", "/chat/completions", { messages }, 400, "missing_required_parameter", "model"],
  ["another model", "/chat/completions", { ...chat, model: "gpt-5" }, 404, "model_not_found", "model"],
  ["no messages", "/chat/completions", { model: "random" }, 400, "missing_required_parameter", "messages"],
  ["empty messages", "/chat/completions", { ...chat, messages: [] }, 400, "invalid_value", "messages"],
  ["a message that is text", "/chat/completions", { ...chat, messages: ["a"] }, 400, "invalid_value", "messages[0]"],
  ["no role", "/chat/completions", { ...chat, messages: [{ content: "a" }] }, 400, "invalid_value", "messages[0].role"],
  [
    "no content",
    "/chat/completions",
    { ...chat, messages: [{ role: "user" }] },
    400,
    "invalid_value",
    "messages[0].content",
  ],
  [
    "an image",
    "/chat/completions",
    { ...chat, messages: [{ role: "user", content: [{ type: "image_url", image_url: { url: "data:" } }] }] },
    400,
    "invalid_value",
    "messages[0].content[0].type",
  ],
  ["n 0", "/chat/completions", { ...chat, n: 0 }, 400, "invalid_value", "n"],
  ["n 129", "/chat/completions", { ...chat, n: 129 }, 400, "invalid_value", "n"],
  ["n as text", "/chat/completions", { ...chat, n: "2" }, 400, "invalid_value", "n"],
  ["a hot temperature", "/chat/completions", { ...chat, temperature: 2.1 }, 400, "invalid_value", "temperature"],
  ["top_p above 1", "/chat/completions", { ...chat, top_p: 1.1 }, 400, "invalid_value", "top_p"],
  ["a strong penalty", "/chat/completions", { ...chat, presence_penalty: 3 }, 400, "invalid_value", "presence_penalty"],
  ["a strong bias", "/chat/completions", { ...chat, logit_bias: { 1: 101 } }, 400, "invalid_value", "logit_bias"],
  ["a bias by text", "/chat/completions", { ...chat, logit_bias: { a: 1 } }, 400, "invalid_value", "logit_bias"],
  ["a bias on no token", "/chat/completions", { ...chat, logit_bias: { 99999: 1 } }, 400, "invalid_value", null],
  ["an empty stop", "/chat/completions", { ...chat, stop: "" }, 400, "invalid_value", "stop"],
  ["many stops", "/chat/completions", { ...chat, stop: Array(17).fill("a") }, 400, "invalid_value", "stop"],
  ["a broken seed", "/chat/completions", { ...chat, seed: 1.5 }, 400, "invalid_value", "seed"],
  ["top_logprobs alone", "/chat/completions", { ...chat, top_logprobs: 2 }, 400, "invalid_value", "top_logprobs"],
  ["max_tokens 0", "/chat/completions", { ...chat, max_tokens: 0 }, 400, "invalid_value", "max_tokens"],
  ["stream as text", "/chat/completions", { ...chat, stream: "yes" }, 400, "invalid_value", "stream"],
  [
    "stream_options alone",
    "/chat/completions",
    { ...chat, stream_options: { include_usage: true } },
    400,
    "invalid_value",
    "stream_options",
  ],
  [
    "JSON as format",
    "/chat/completions",
    { ...chat, response_format: { type: "json_object" } },
    400,
    "unsupported_value",
    "response_format",
  ],
  ["tools", "/chat/completions", { ...chat, tools: [{ type: "function" }] }, 400, "unsupported_value", "tools"],
  ["an unknown field", "/chat/completions", { ...chat, top_k: 5 }, 400, "unknown_parameter", "top_k"],
  ["a field of objects", "/chat/completions", '{"model":"random","toString":1}', 400, "unknown_parameter", "toString"],
  [
    "more than the context",
    "/chat/completions",
    { ...chat, messages: [{ role: "user", content: "a ".repeat(600) }] },
    400,
    "context_length_exceeded",
    null,
  ],
  ["no prompt", "/completions", { model: "random" }, 400, "missing_required_parameter", "prompt"],
  ["an empty prompt", "/completions", { ...completion, prompt: "" }, 400, "invalid_value", null],
  ["a mixed prompt", "/completions", { ...completion, prompt: ["a", 1] }, 400, "invalid_value", "prompt"],
  ["ids out of range", "/completions", { ...completion, prompt: [99999] }, 400, "invalid_value", null],
  ["echo", "/completions", { ...completion, echo: true }, 400, "unsupported_value", "echo"],
  ["logprobs 6", "/completions", { ...completion, logprobs: 6 }, 400, "invalid_value", "logprobs"],
  ["best_of below n", "/completions", { ...completion, n: 3, best_of: 2 }, 400, "invalid_value", "best_of"],
  ["best_of streamed", "/completions", { ...completion, best_of: 2, stream: true }, 400, "invalid_value", "best_of"],
  ["many prompts", "/completions", { ...completion, n: 65, prompt: ["a", "b"] }, 400, "invalid_value", "prompt"],
  ["an unknown route", "/responses", chat, 404, "unknown_url", null],
  ["GET's route", "/models", chat, 405, "method_not_allowed", null],
];

for (const [what, path, body, status, code, param] of REFUSED) {
  test(`refused: ${what}`, async () => {
    const response = await handler(post(`/v1${path}`, body));
    const { error } = (await response.json()) as { error: Record<string, string> };
    assert.equal([response.status, error.code, error.param], [status, code, param], error.message);
    assert.is(error.type, "invalid_request_error");
    assert.ok(error.message.length > 10);
    assert.is(response.headers.get("content-type"), "application/json");
    assert.is(response.headers.get("access-control-allow-origin"), null);
  });
}

test("the client sees errors as its own kinds, in streams before their first event too", async () => {
  const long = { ...chat, messages: [{ role: "user" as const, content: "a ".repeat(600) }] };
  for (const stream of [false, true]) {
    const error = await errorOf(client.chat.completions.create({ ...long, stream }));
    assert.instance(error, OpenAI.BadRequestError);
    assert.is((error as APIError).code, "context_length_exceeded");
  }
  assert.instance(await errorOf(client.models.retrieve("other")), OpenAI.NotFoundError);
  const untaught = clientOf(openAIHandler(await load(randomModel(), { backend: "wasm" }), { modelId: "random" }));
  const error = await errorOf(untaught.chat.completions.create(chat));
  assert.match((error as APIError).message, /400 .*no chat template/);
});

test("methods and content types", async () => {
  const get = await handler(new Request("http://local/v1/chat/completions"));
  assert.equal([get.status, get.headers.get("allow")], [405, "POST"]);
  for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/jsonish"]) {
    const response = await handler(post("/v1/chat/completions", chat, { headers: { "content-type": type } }));
    assert.is(response.status, 415, type);
  }
  const headers = { "content-type": "Application/JSON; charset=utf-8" };
  const response = await handler(post("/v1/chat/completions", { ...chat, max_tokens: 1 }, { headers }));
  assert.is(response.status, 200);
});

test("bodies beyond the limit are refused while they come in", async () => {
  const small = openAIHandler(model, { modelId: "random", maxBodyBytes: 1000 });
  let sent = 0;
  let cancelled = false;
  const endless = new ReadableStream({
    pull(controller) {
      sent += 100;
      controller.enqueue(new Uint8Array(100).fill(32));
    },
    cancel() {
      cancelled = true;
    },
  });
  const headers = { "content-type": "application/json" };
  const streamed = { method: "POST", headers, body: endless, duplex: "half" } as RequestInit;
  const response = await small(new Request("http://local/v1/completions", streamed));
  assert.is(response.status, 413);
  assert.ok(cancelled && sent <= 1200, `${sent} bytes were taken`);
  const announced = new Request("http://local/v1/completions", {
    ...{ method: "POST", headers: { ...headers, "content-length": "1001" }, body: "{}" },
  });
  assert.is((await small(announced)).status, 413);
  const body = JSON.stringify(completion);
  assert.is((await small(post("/v1/completions", body + " ".repeat(1000 - body.length)))).status, 200);
});

test("CORS: pages of other origins ask first, and are let in where the option says so", async () => {
  const asked = { origin: "https://a.example", "access-control-request-method": "POST" };
  const preflight = () =>
    new Request("http://local/v1/completions", {
      method: "OPTIONS",
      headers: { ...asked, "access-control-request-headers": "authorization,content-type,x-stainless-os" },
    });
  for (const [cors, origin] of [
    [true, "*"],
    ["https://a.example", "https://a.example"],
  ] as const) {
    const open = openAIHandler(model, { modelId: "random", cors });
    const before = await open(preflight());
    assert.is(before.status, 204);
    assert.is(before.headers.get("access-control-allow-origin"), origin);
    assert.match(before.headers.get("access-control-allow-methods") ?? "", /POST/);
    assert.match(before.headers.get("access-control-allow-headers") ?? "", /x-stainless-os/);
    for (const body of [completion, { ...completion, stream: true }, {}]) {
      const response = await open(post("/v1/completions", body));
      assert.is(response.headers.get("access-control-allow-origin"), origin, "on errors too");
      await response.text();
    }
  }
  const closed = await handler(preflight());
  assert.equal([closed.status, closed.headers.get("access-control-allow-origin")], [405, null]);
});

test("wrong options of the handler are errors", async () => {
  for (const options of [
    { maxQueue: -1 },
    { maxBodyBytes: 0.5 },
    { cors: 1 },
    { cors: "日本" },
    { modelId: "" },
    { port: 1 },
  ])
    await rejects(() => openAIHandler(model, options as object), "option", new RegExp(Object.keys(options)[0]));
});

test("what the API takes and furcate does not compute with is as near to it as can be", async () => {
  const calls: GenerateOptions[] = [];
  const spied = clientOf(openAIHandler(spyOn(model, calls), { modelId: "random" }));
  await spied.chat.completions.create({ model: "random", messages, max_tokens: 1, top_p: 0, temperature: 1e-7 });
  assert.equal([calls[0].topP, calls[0].temperature], [Number.MIN_VALUE, 0]);
});

test("a list of prompts of which one is wrong is refused as a whole, streamed or not", async () => {
  const handler = openAIHandler(model, { modelId: "random" });
  for (const stream of [false, true]) {
    const body = JSON.stringify({ model: "random", prompt: ["the", ""], max_tokens: 3, stream });
    const headers = { "content-type": "application/json" };
    const response = await handler(new Request("http://furcate/v1/completions", { method: "POST", headers, body }));
    assert.is(response.status, 400, `stream: ${stream}`);
    assert.match((await response.json()).error.message, /the prompt is empty/);
  }
});

test("bodies nested ever so deep are refused, and so are such messages", async () => {
  const nested = `${"[".repeat(20_000)}${"]".repeat(20_000)}`;
  const handler = openAIHandler(model, { modelId: "random" });
  for (const [path, body] of [
    ["completions", `{"model":"random","prompt":${nested}}`],
    ["chat/completions", `{"model":"random","messages":[{"role":"user","content":"a","extra":${nested}}]}`],
  ]) {
    const headers = { "content-type": "application/json" };
    const response = await handler(new Request(`http://furcate/v1/${path}`, { method: "POST", headers, body }));
    assert.is(response.status, 400, path);
  }
});

test("failures of the model become statuses, and one amid a stream an event", async () => {
  const failing = (error: Error, after = 0): Model => ({
    ...model,
    generate: () => Promise.reject(error),
    stream: () => ({
      result: Promise.reject(error).catch(() => null as never),
      stop() {},
      async *[Symbol.asyncIterator]() {
        for (let i = 0; i < after; i++) yield { index: 0, text: "a", tokenId: 1, logprob: -1 };
        throw error;
      },
    }),
  });
  const lost = new FurcateError("device-lost", "the GPU went away");
  const { error: log } = console;
  const logged: unknown[] = [];
  console.error = (...values) => logged.push(...values);
  try {
    for (const [error, status, code, message] of [
      [lost, 503, "device-lost", "the GPU went away"],
      [new FurcateError("disposed", "the model was disposed of"), 503, "disposed", "the model was disposed of"],
      [new FurcateError("memory", "no room"), 400, "memory", "no room"],
      [new FurcateError("internal", "a defect"), 500, "internal", "the server failed to answer: its log says why"],
      [new TypeError("secret"), 500, "internal", "the server failed to answer: its log says why"],
    ] as const) {
      const broken = openAIHandler(failing(error), { modelId: "random" });
      for (const stream of [false, true]) {
        const response = await broken(post("/v1/completions", { ...completion, stream }));
        const told = ((await response.json()) as { error: Record<string, string> }).error;
        assert.equal([response.status, told.code, told.message], [status, code, message]);
        assert.is(told.type, status < 500 ? "invalid_request_error" : "server_error");
      }
    }
  } finally {
    console.error = log;
  }
  assert.is(logged.length, 4, "what nobody foresaw is in the log");
  const dying = clientOf(openAIHandler(failing(lost, 3), { modelId: "random" }));
  let heard = "";
  const error = await errorOf(
    (async () => {
      for await (const { choices } of await dying.completions.create({ ...completion, stream: true }))
        heard += choices[0].text;
    })(),
  );
  assert.is(heard, "aaa");
  assert.match((error as Error).message, /the GPU went away/);
});

// ---------------------------------------------------------------------------------------------- many at once

test("beyond its places the queue refuses with 429, and the client's retry succeeds", async () => {
  const calls: GenerateOptions[] = [];
  const narrow = openAIHandler(spyOn(model, calls), { modelId: "random", maxQueue: 1 });
  const gone = new AbortController();
  const long = { ...completion, max_tokens: 500, logit_bias: NO_END };
  const first = await narrow(post("/v1/completions", { ...long, stream: true }, { signal: gone.signal }));
  const second = narrow(post("/v1/completions", completion));
  while (calls.length < 2) await new Promise((resolve) => setTimeout(resolve, 1));
  const third = await narrow(post("/v1/completions", completion));
  const { error } = (await third.json()) as { error: Record<string, string> };
  assert.equal([third.status, error.code, third.headers.get("retry-after")], [429, "rate_limit_exceeded", "1"]);
  assert.match(error.message, /2 requests/);
  const retried = clientOf(narrow, 3).completions.create(completion);
  await first.body?.cancel();
  assert.is((await second).status, 200);
  assert.is((await retried).choices.length, 1);
  assert.ok(calls[0].signal?.aborted, "a cancelled stream ends its call");
  assert.not(calls[1].signal?.aborted);
});

test("a client that leaves ends its call, waiting or served, streamed or not; afterwards its signal means nothing", async () => {
  const calls: GenerateOptions[] = [];
  const spied = openAIHandler(spyOn(model, calls), { modelId: "random", maxQueue: 2 });
  const long = { ...completion, max_tokens: 500, logit_bias: NO_END };
  const gone = Array.from({ length: 3 }, () => new AbortController());
  const begun = gone.map(({ signal }) => {
    return spied(post("/v1/completions", long, { signal }));
  });
  while (calls.length < 3) await new Promise((resolve) => setTimeout(resolve, 1));
  for (const [i, controller] of gone.entries()) {
    controller.abort();
    assert.is((await begun[i]).status, 499);
    assert.ok(calls[i].signal?.aborted);
  }
  const answered = new AbortController();
  for (const stream of [false, true]) {
    const request = post("/v1/completions", { ...completion, stream }, { signal: answered.signal });
    assert.ok((await (await spied(request)).text()).length > 0);
  }
  answered.abort();
  assert.equal(
    calls.slice(3).map(({ signal }) => signal?.aborted),
    [false, false],
  );
  const early = post("/v1/completions", completion, { signal: AbortSignal.abort() });
  assert.is((await spied(early)).status, 499);
  assert.is((await spied(post("/v1/completions", completion))).status, 200, "every place is free again");
});

/** The model, with the options of its calls noted. */
function spyOn(model: Model, calls: GenerateOptions[]): Model {
  const note = (options: GenerateOptions = {}) => calls.push(options);
  return {
    ...model,
    generate(prompt, options) {
      note(options);
      return model.generate(prompt, options);
    },
    stream(prompt, options) {
      note(options);
      return model.stream(prompt, options);
    },
  };
}

const errorOf = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );

test.run();
