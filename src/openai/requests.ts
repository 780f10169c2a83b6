// What a body of /v1/chat/completions or /v1/completions asks for: checked field by field, as one call's prompts and options.
// Knows the API's fields and its error shape; nothing of HTTP, of queues, or of how answers are written.

import type { GenerateOptions, Message, Prompt } from "../api.ts";

/** An error as the API reports it: `{ error: { message, type, param, code } }` under an HTTP status. */
export class ApiError extends Error {
  constructor(
    readonly status: number,
    message: string,
    readonly code: string | null = null,
    readonly param: string | null = null,
    readonly type = "invalid_request_error",
    readonly headers: Readonly<Record<string, string>> = {},
  ) {
    super(message);
  }
}

export interface Call {
  /** One for a chat; completions may ask for several, each with choices of its own. */
  readonly prompts: readonly Prompt[];
  readonly options: GenerateOptions;
  /** Choices given back of each prompt: the best ones, where more are made. */
  readonly kept: number;
  readonly stream: boolean;
  readonly includeUsage: boolean;
}

type Body = Readonly<Record<string, unknown>>;

/** Most choices of one request, as in the API, and most stop strings, more than there. */
const MOST_CHOICES = 128;
const MOST_STOPS = 16;

/** Fields that change nothing here, with the values that ask for nothing. */
const isText = (value: unknown) => typeof value === "string";
const IGNORED: Record<string, (value: unknown) => boolean> = {
  user: isText,
  safety_identifier: isText,
  prompt_cache_key: isText,
  metadata: (value) => typeof value === "object",
  store: (value) => value === false,
  service_tier: (value) => value === "auto" || value === "default",
  response_format: (value) => isObject(value) && value.type === "text",
  modalities: (value) => Array.isArray(value) && value.join() === "text",
  tools: (value) => Array.isArray(value) && value.length === 0,
  tool_choice: (value) => value === "none" || value === "auto",
  echo: (value) => value === false,
  suffix: (value) => value === "",
};
const SHARED = [
  ..."model n stream stream_options seed stop temperature top_p max_tokens".split(" "),
  ..."frequency_penalty presence_penalty logit_bias logprobs user".split(" "),
];
const CHAT = new Set([
  ...SHARED,
  ..."messages max_completion_tokens top_logprobs metadata store service_tier response_format modalities".split(" "),
  ..."tools tool_choice safety_identifier prompt_cache_key".split(" "),
]);
const COMPLETION = new Set([...SHARED, "prompt", "best_of", "echo", "suffix"]);

/** A chat's call. Errors: ApiError. */
export function readChat(value: unknown, modelId: string): Call {
  const body = fieldsOf(value, CHAT, modelId);
  const shared = readShared(body);
  const top = number(body, "top_logprobs", 0, 20, true);
  const wantsLogprobs = flag(body, "logprobs") ?? false;
  if (top !== undefined && !wantsLogprobs) throw wrong(body, "top_logprobs", "none unless logprobs is true");
  const maxTokens =
    number(body, "max_completion_tokens", 1, Infinity, true) ?? number(body, "max_tokens", 1, Infinity, true);
  return {
    ...shared,
    prompts: [messagesOf(body)],
    options: {
      ...shared.options,
      ...(maxTokens !== undefined && { maxTokens }),
      ...(wantsLogprobs && { logprobs: top ?? 0 }),
    },
  };
}

/** A completion's call. Errors: ApiError. */
export function readCompletion(value: unknown, modelId: string): Call {
  const body = fieldsOf(value, COMPLETION, modelId);
  const shared = readShared(body);
  const { kept, stream } = shared;
  const logprobs = number(body, "logprobs", 0, 5, true);
  const prompts = promptsOf(body);
  const n = number(body, "best_of", kept, MOST_CHOICES, true) ?? kept;
  if (stream && n > kept) throw wrong(body, "best_of", "no more than n in a stream");
  if (prompts.length * n > MOST_CHOICES)
    throw wrong(body, "prompt", `at most ${MOST_CHOICES} choices of all prompts together`);
  return {
    ...shared,
    prompts,
    options: {
      ...shared.options,
      n,
      maxTokens: number(body, "max_tokens", 0, Infinity, true) ?? 16,
      ...(logprobs !== undefined && { logprobs }),
      ...(n > kept && { rank: "mean-logprob" as const }),
    },
  };
}

/** The body's fields but for null ones, which stand for the default. */
function fieldsOf(value: unknown, known: ReadonlySet<string>, modelId: string): Body {
  if (!isObject(value)) throw new ApiError(400, `the body is ${show(value)}, expected a JSON object`, "invalid_type");
  const body = Object.fromEntries(Object.entries(value).filter(([, value]) => value !== null));
  for (const [name, value] of Object.entries(body)) {
    if (!known.has(name)) {
      throw new ApiError(400, `"${name}" is not supported: leave it out`, "unknown_parameter", name);
    }
    if (Object.hasOwn(IGNORED, name) && !IGNORED[name](value)) {
      throw new ApiError(400, `${name} ${show(value)} is not supported: leave it out`, "unsupported_value", name);
    }
  }
  if (body.model === undefined)
    throw new ApiError(400, `you must provide a model: it is "${modelId}"`, "missing_required_parameter", "model");
  if (body.model !== modelId)
    throw new ApiError(
      404,
      `the model ${show(body.model)} does not exist: this is "${modelId}"`,
      "model_not_found",
      "model",
    );
  return body;
}

/** What chats and completions have in common. */
function readShared(body: Body): Omit<Call, "prompts"> {
  const kept = number(body, "n", 1, MOST_CHOICES, true) ?? 1;
  const stream = flag(body, "stream") ?? false;
  const streamOptions = object(body, "stream_options") ?? {};
  if (body.stream_options !== undefined && !stream) throw wrong(body, "stream_options", "none unless stream is true");
  for (const [name, value] of Object.entries(streamOptions)) {
    if (typeof value !== "boolean" || (name !== "include_usage" && value)) {
      throw new ApiError(
        400,
        `"${name}" is not supported: leave it out`,
        "unknown_parameter",
        `stream_options.${name}`,
      );
    }
  }
  const options: GenerateOptions = {
    n: kept,
    seed: number(body, "seed", Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER, true),
    temperature: orLeast(number(body, "temperature", 0, 2), 1e-5, 0),
    topP: orLeast(number(body, "top_p", 0, 1), Number.MIN_VALUE, Number.MIN_VALUE),
    frequencyPenalty: number(body, "frequency_penalty", -2, 2),
    presencePenalty: number(body, "presence_penalty", -2, 2),
    logitBias: logitBiasOf(body),
    stop: stopsOf(body),
  };
  return { options, kept, stream, includeUsage: streamOptions.include_usage === true };
}

function messagesOf(body: Body): Message[] {
  const { messages } = body;
  if (messages === undefined) throw missing("messages");
  if (!Array.isArray(messages) || messages.length === 0) throw wrong(body, "messages", "a list of { role, content }");
  return messages.map((message: unknown, i) => {
    const at = `messages[${i}]`;
    if (!isObject(message)) throw wrong({ [at]: message }, at, "an object with role and content");
    const { role } = message;
    if (typeof role !== "string") throw wrong({ [`${at}.role`]: role }, `${at}.role`, "a text");
    // Templates know the developer by the older name.
    return { ...message, role: role === "developer" ? "system" : role, content: contentOf(message, at) };
  });
}

/** A message's text, from its text parts too; an assistant's may be missing beside tool calls. */
function contentOf({ role, content }: Body, message: string): string {
  const at = `${message}.content`;
  if (typeof content === "string") return content;
  if ((content === null || content === undefined) && role === "assistant") return "";
  if (!Array.isArray(content)) throw wrong({ [at]: content }, at, "a text or a list of text parts");
  const texts = content.map((part: unknown, i) => {
    if (isObject(part) && part.type === "text" && typeof part.text === "string") return part.text;
    const type = isObject(part) ? part.type : part;
    throw wrong({ [`${at}[${i}].type`]: type }, `${at}[${i}].type`, '"text" with a text: the model reads text alone');
  });
  return texts.join("\n");
}

function promptsOf(body: Body): Prompt[] {
  const { prompt } = body;
  if (prompt === undefined) throw missing("prompt");
  const isIds = (value: unknown): value is number[] =>
    Array.isArray(value) && value.length > 0 && value.every((id) => Number.isInteger(id) && id >= 0);
  if (typeof prompt === "string" || isIds(prompt)) return [prompt];
  if (Array.isArray(prompt) && prompt.length > 0) {
    if (prompt.every((one) => typeof one === "string") || prompt.every(isIds)) return prompt;
  }
  throw wrong(body, "prompt", "a text, a list of token ids, or a list of one of these");
}

function stopsOf(body: Body): string[] | undefined {
  const { stop } = body;
  if (stop === undefined) return undefined;
  const all: unknown[] = Array.isArray(stop) ? stop : [stop];
  if (all.length > MOST_STOPS || all.some((text) => typeof text !== "string" || text === ""))
    throw wrong(body, "stop", `a text or a list of at most ${MOST_STOPS} texts, none empty`);
  return all as string[];
}

function logitBiasOf(body: Body): Record<number, number> | undefined {
  const biases = object(body, "logit_bias");
  for (const [id, bias] of Object.entries(biases ?? {})) {
    if (!/^\d+$/.test(id) || typeof bias !== "number" || Math.abs(bias) > 100)
      throw wrong(body, "logit_bias", "token ids with numbers from -100 to 100");
  }
  return biases as Record<number, number> | undefined;
}

/** A number of the body in [least, most], or undefined. */
function number(body: Body, name: string, least: number, most: number, whole = false): number | undefined {
  const value = body[name];
  if (value === undefined) return undefined;
  if (typeof value === "number" && value >= least && value <= most && (!whole || Number.isSafeInteger(value)))
    return value;
  const range = [least > -1e9 && ` from ${least}`, most < 1e9 && ` to ${most}`].filter(Boolean).join("");
  throw wrong(body, name, `a ${whole ? "whole " : ""}number${range}`);
}

/** What lies below the least that furcate computes with, as near to it as it computes: the likeliest token alone. */
const orLeast = (value: number | undefined, least: number, otherwise: number) =>
  value !== undefined && value < least ? otherwise : value;

function flag(body: Body, name: string): boolean | undefined {
  const value = body[name];
  if (value === undefined || typeof value === "boolean") return value;
  throw wrong(body, name, "true or false");
}

function object(body: Body, name: string): Body | undefined {
  const value = body[name];
  if (value === undefined || isObject(value)) return value;
  throw wrong(body, name, "an object");
}

const isObject = (value: unknown): value is Body =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const wrong = (body: Body, param: string, expected: string) =>
  new ApiError(400, `${param} is ${show(body[param])}, expected ${expected}`, "invalid_value", param);

const missing = (param: string) => new ApiError(400, `"${param}" is missing`, "missing_required_parameter", param);

function jsonOf(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch {
    return "nested too deeply"; // though it could be parsed
  }
}

/** A value as an error shows it, cut to a size. */
function show(value: unknown): string {
  const text = jsonOf(value) ?? "missing";
  return text.length > 100 ? `${text.slice(0, 100)}…` : text;
}
