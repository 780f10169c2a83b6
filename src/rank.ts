// Orders the choices of a call. Knows choices; nothing of how they came about.

import type { Choice, GenerateOptions } from "./api.ts";
import { fail, show } from "./errors.ts";

/**
 * Gives each choice its score and sorts best first: by score, then mean log-probability, then index.
 * - "mean-logprob": the mean log-probability itself
 * - "vote": the share of all choices whose answer is the same; the key is `answer(text)`, by default the trimmed text
 * - a function: what it returns, a finite number
 */
export async function rankChoices(
  choices: Choice[],
  rank: NonNullable<GenerateOptions["rank"]>,
  answer: (text: string) => string = (text) => text.trim(),
): Promise<Choice[]> {
  const scores = await score(choices, rank, answer);
  choices.forEach((choice, i) => {
    choice.score = scores[i];
  });
  return choices.sort(
    (a, b) => (b.score as number) - (a.score as number) || b.meanLogprob - a.meanLogprob || a.index - b.index,
  );
}

async function score(
  choices: readonly Choice[],
  rank: NonNullable<GenerateOptions["rank"]>,
  answer: (text: string) => string,
): Promise<number[]> {
  if (rank === "mean-logprob") return choices.map((choice) => choice.meanLogprob);
  if (rank === "vote") {
    const keys = choices.map((choice) => answer(choice.text));
    const other = keys.findIndex((key) => typeof key !== "string");
    if (other >= 0)
      fail("option", `answer: the function returned ${show(keys[other])} for choice ${other}, expected a text`);
    const votes = new Map<string, number>();
    for (const key of keys) votes.set(key, (votes.get(key) ?? 0) + 1);
    return keys.map((key) => (votes.get(key) as number) / choices.length);
  }
  const scores = await Promise.all(choices.map((choice) => rank(choice)));
  const broken = scores.findIndex((value) => typeof value !== "number" || !Number.isFinite(value));
  if (broken >= 0)
    fail(
      "option",
      `rank: the function returned ${show(scores[broken])} for choice ${broken}, expected a finite number`,
    );
  return scores;
}
