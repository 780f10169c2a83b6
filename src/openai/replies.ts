// Choices and chunks in the API's words: whole answers, pieces of streams, log-probabilities, usage.
// Knows shapes; nothing of HTTP and of models.

import type { Choice, Chunk, Result, TokenLogprob, Usage } from "../api.ts";

/** How one of the two endpoints words its answers. */
export interface Wording {
  readonly idPrefix: string;
  readonly object: string;
  /** `object` of the pieces of a stream. */
  readonly chunkObject: string;
  whole(choice: Choice, index: number): object;
  /** What a stream says of a choice before its first text; undefined for nothing. */
  opening(index: number): object | undefined;
  /** A piece of text with its token's log-probability. offset: characters of the choice's tokens before it. */
  piece(index: number, chunk: Chunk, offset: number): object;
  closing(index: number, reason: NonNullable<Chunk["finishReason"]>): object;
}

export const CHAT: Wording = {
  idPrefix: "chatcmpl-",
  object: "chat.completion",
  chunkObject: "chat.completion.chunk",
  whole: ({ text, logprobs, finishReason, seed }, index) => ({
    index,
    message: { role: "assistant", content: text, refusal: null },
    logprobs: logprobs ? chatLogprobs(logprobs) : null,
    finish_reason: reasonOf(finishReason),
    seed,
  }),
  opening: (index) => ({
    index,
    delta: { role: "assistant", content: "", refusal: null },
    logprobs: null,
    finish_reason: null,
  }),
  piece: (index, { text, logprobs }) => ({
    index,
    delta: { content: text },
    logprobs: logprobs ? chatLogprobs([logprobs]) : null,
    finish_reason: null,
  }),
  closing: (index, reason) => ({ index, delta: {}, logprobs: null, finish_reason: reasonOf(reason) }),
};

export const COMPLETION: Wording = {
  idPrefix: "cmpl-",
  object: "text_completion",
  chunkObject: "text_completion",
  whole: ({ text, logprobs, finishReason, seed }, index) => ({
    index,
    text,
    logprobs: logprobs ? completionLogprobs(logprobs, 0) : null,
    finish_reason: reasonOf(finishReason),
    seed,
  }),
  opening: () => undefined,
  piece: (index, { text, logprobs }, offset) => ({
    index,
    text,
    logprobs: logprobs ? completionLogprobs([logprobs], offset) : null,
    finish_reason: null,
  }),
  closing: (index, reason) => ({ index, text: "", logprobs: null, finish_reason: reasonOf(reason) }),
};

/** The usage of one request, over its prompts. */
export function usageOf(usages: readonly Usage[]) {
  const sum = (of: (usage: Usage) => number) => usages.reduce((sum, usage) => sum + of(usage), 0);
  const prompt = sum((usage) => usage.promptTokens);
  const completion = sum((usage) => usage.completionTokens);
  return {
    prompt_tokens: prompt,
    completion_tokens: completion,
    total_tokens: prompt + completion,
    prompt_tokens_details: { cached_tokens: sum((usage) => usage.cachedTokens) },
  };
}

/** The choices of a request: `kept` of each result, in order, numbered through. */
export function choicesOf(results: readonly Result[], kept: number, wording: Wording): object[] {
  return results.flatMap(({ choices }, i) =>
    choices.slice(0, kept).map((choice, place) => wording.whole(choice, i * kept + place)),
  );
}

/** The API knows no choice that was stopped alone. */
const reasonOf = (reason: Choice["finishReason"]) => (reason === "length" ? "length" : "stop");

function chatLogprobs(logprobs: readonly TokenLogprob[]) {
  const content = logprobs.map((one) => ({ ...chatLogprob(one), top_logprobs: one.top.map(chatLogprob) }));
  return { content, refusal: null };
}

const chatLogprob = ({ token, logprob }: Omit<TokenLogprob, "top">) => ({
  token,
  logprob: finite(logprob),
  // A part of a character has no text of its own, and its bytes are not known here.
  bytes: token.includes("\ufffd") ? null : [...new TextEncoder().encode(token)],
});

function completionLogprobs(logprobs: readonly TokenLogprob[], offset: number) {
  let at = offset;
  return {
    tokens: logprobs.map(({ token }) => token),
    token_logprobs: logprobs.map(({ logprob }) => finite(logprob)),
    // The token itself is always among them.
    top_logprobs: logprobs.map((one) => {
      const top = new Map<string, number>();
      for (const { token, logprob } of [...one.top, one]) if (!top.has(token)) top.set(token, finite(logprob));
      return Object.fromEntries(top);
    }),
    text_offset: logprobs.map(({ token }) => {
      at += token.length;
      return at - token.length;
    }),
  };
}

/** JSON has no infinity; this is the API's word for it. */
const finite = (logprob: number) => Math.max(logprob, -9999);
