// What is printed of a finished call: the ranked choices, the statistics, or both as JSON. Knows results; writes nothing.

import type { Choice, ModelInfo, Result } from "furcate";
import type { Paint } from "./screen.ts";
import { harmless, head, wrap } from "./text.ts";

/** Every choice whole, best first; one alone as its bare text. */
export function plainChoices({ choices }: Result): string {
  if (choices.length === 1) return `${harmless(choices[0].text)}\n`;
  const blocks = choices.map((choice, place) => {
    const { index, text, tokenIds, finishReason, meanLogprob } = choice;
    const votes = votesOf(choice, choices.length);
    const figures = `${votes && `${votes} votes, `}mean log-probability ${meanLogprob.toFixed(3)}`;
    return `#${place + 1}  choice ${index}, ${figures}, ${tokenIds.length} tokens, ${finishReason}\n${harmless(text.trim())}\n`;
  });
  return blocks.join("\n");
}

/** A table for a terminal. The best is whole and last, where the eye is; the others share what it leaves of `height` lines. */
export function choiceTable({ choices }: Result, columns: number, height: number, paint: Paint): string[] {
  const n = choices.length;
  const voted = votesOf(choices[0], n) !== "";
  const title = `choice${voted ? "  votes" : ""}  logprob  tokens  `;
  const room = Math.max(20, columns - title.length);
  const texts = choices.map(({ text }) => wrap(harmless(text.trim()), room).filter((line) => line !== ""));
  // Lines left for the others are dealt out one by one, from the second best on.
  const spare = height - 1 - texts[0].length;
  const limit = (place: number) =>
    place === 0 ? Infinity : Math.max(1, Math.floor((spare + n - 1 - place) / (n - 1)));
  const rows = choices.map((choice, place) => {
    const { index, meanLogprob, tokenIds } = choice;
    const votes = voted ? `  ${votesOf(choice, n).padStart(5)}` : "";
    const figures = `${String(index).padStart(6)}${votes}  ${meanLogprob.toFixed(3).padStart(7)}  ${String(tokenIds.length).padStart(6)}  `;
    const all = texts[place];
    const last = limit(place) - 1;
    const lines = all.length - 1 > last ? [...all.slice(0, last), head(all.slice(last).join(" "), room)] : all;
    const painted = place === 0 ? lines.map((line) => paint("bold", line)) : lines;
    return `${paint("cyan", figures)}${painted.join(`\n${" ".repeat(title.length)}`)}`;
  });
  const cut = texts.some((lines, place) => lines.length > limit(place));
  return [
    paint("dim", `${title}text, best last${cut ? " (cut to the screen; --full shows all)" : ""}`),
    ...rows.reverse(),
  ];
}

/** "5/16": the choices with the same answer, where votes were counted: their score is a share, above 0 as no log-probability is. */
function votesOf({ score }: Choice, n: number): string {
  return score !== undefined && score > 0 ? `${Math.round(score * n)}/${n}` : "";
}

/** The statistics of a call, as lines of at most `columns` cells. */
export function statistics({ choices, usage, stats }: Result, columns: number, paint: Paint): string[] {
  const { stepMs, kvBytes, kvBytesAsCopies } = stats;
  const reused = usage.cachedTokens > 0 ? ` (${usage.cachedTokens} of them kept from before)` : "";
  const lines = {
    speed: `${rate(stats.tokensPerSecond)} tokens/s in all, ${rate(stats.tokensPerSecondPerSample)} per sample`,
    prompt: `${usage.promptTokens} tokens${reused} in ${time(stats.prefillMs)}`,
    answers: `${usage.completionTokens} tokens in ${time(stats.decodeMs)}, ${stats.steps} steps of ${time(stepMs.median)}, at most ${time(stepMs.max)}`,
    "K/V": `${bytes(kvBytes)} stored; as copies ${bytes(kvBytesAsCopies)}, ${(kvBytesAsCopies / kvBytes || 1).toFixed(1)} times as much`,
    attention: `${stats.attention}: ${stats.attentionReason}`,
    device: `${stats.backend}, ${stats.device}; memory at most ${bytes(stats.peakBytes)}`,
    ...(stats.fallback && { "no GPU": stats.fallback }),
    seed: `${choices.find(({ index }) => index === 0)?.seed}`,
  };
  return Object.entries(lines).flatMap(([name, text]) =>
    wrap(harmless(text), Math.max(20, columns - 11)).map((line, i) => paint("dim", (i ? "" : name).padEnd(11)) + line),
  );
}

/** One JSON document, texts exactly as generated. */
export function json(model: ModelInfo, { choices, usage, stats }: Result): string {
  const plain = choices.map((choice) => ({ ...choice, tokenIds: Array.from(choice.tokenIds) }));
  return document({ model, choices: plain, usage, stats });
}

/** JSON with no byte that a terminal obeys. */
export function document(value: object): string {
  const text = JSON.stringify(value, undefined, 2);
  // JSON.stringify leaves DEL and the C1 controls as they are, which some terminals obey.
  return `${text.replace(/[\u007f-\u009f]/g, (character) => `\\u00${character.charCodeAt(0).toString(16)}`)}\n`;
}

/** Bytes for people: 1234567 -> "1.2 MB". */
export function bytes(count: number): string {
  const power = count < 1e3 ? 0 : Math.min(3, Math.floor(Math.log10(count) / 3));
  return `${(count / 1000 ** power).toFixed([0, 1, 1, 2][power])} ${["B", "kB", "MB", "GB"][power]}`;
}

const time = (ms: number) => (ms < 1e4 ? `${ms.toFixed(ms < 10 ? 1 : 0)} ms` : `${(ms / 1e3).toFixed(1)} s`);
const rate = (perSecond: number) => perSecond.toFixed(perSecond < 100 ? 1 : 0);
