// Broken GGUFs all the way: 2,000 by default, FURCATE_FUZZ=10000 for more. Each is refused by a typed error, or loads and answers;
// none hangs, none leaves memory behind. What the reader alone makes of them is in gguf-fuzz.test.ts.

import { test } from "uvu";
import * as assert from "uvu/assert";
import { FurcateError, load } from "../src/index.ts";
import { collect, held } from "./support/memory.ts";
import { fieldsOf, type Mutant, mutate } from "./support/mutate.ts";
import { newRandom } from "./support/random.ts";
import { CHAT_TEMPLATE, randomModel } from "./support/random-model.ts";

const CASES = Number(process.env.FURCATE_FUZZ ?? 2000);
const CASE_MS = 2000;
const MIB = 1 << 20;

const files = ["Q8_0", "Q4_K"].map((type) => {
  const dim = type === "Q4_K" ? 256 : 32;
  return randomModel({ dim, hiddenDim: dim, nLayers: 1, nHeads: 2, type, chatTemplate: CHAT_TEMPLATE });
});
const fields = files.map(fieldsOf);

test(`${CASES.toLocaleString("en")} mutants: an answer, or a typed error, in bounded time and memory`, async () => {
  const outcomes = new Map<string, number>();
  let slowest = 0;
  let before = 0;
  for (let i = 0; i < CASES; i++) {
    if (i === Math.floor(CASES / 5)) before = await held();
    const of = i % files.length;
    const mutant = mutate(files[of], fields[of], newRandom(1_000_000 + i));
    const began = performance.now();
    const outcome = await answer(mutant, i);
    const took = performance.now() - began;
    slowest = Math.max(slowest, took);
    assert.ok(took < CASE_MS, `case ${i} took ${took} ms: ${mutant.what}`);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    if (i % 50 === 0) collect();
  }
  const grown = (await held()) - before;
  const list = [...outcomes].map(([outcome, count]) => `${count} ${outcome}`).join(", ");
  console.log(
    `\nmeasured: ${CASES} broken models: ${list}; slowest ${slowest.toFixed(0)} ms, memory grew by ${(grown / MIB).toFixed(2)} MiB`,
  );
  assert.ok(grown < 8 * MIB, `memory grew by ${grown} bytes`);
  assert.ok((outcomes.get("answered") ?? 0) > CASES / 50 && (outcomes.get("format") ?? 0) > CASES / 4);
});

/** Loads a mutant and asks it something; the error's code, or "answered". */
async function answer({ bytes, what }: Mutant, i: number): Promise<string> {
  try {
    const model = await load(bytes, { memoryLimit: 64 * MIB });
    try {
      const prompt = i % 2 === 0 ? "a b" : [{ role: "user", content: "a b" }];
      const { choices } = await model.generate(prompt, { n: 2, maxTokens: 2, seed: i });
      assert.is(choices.length, 2);
    } finally {
      model.dispose();
    }
    return "answered";
  } catch (error) {
    if (error instanceof FurcateError && error.code !== "internal") {
      assert.ok(error.message.length < 1000, error.message);
      return error.code;
    }
    throw new Error(`case ${i} (${what}) ended in something else than a FurcateError: ${(error as Error).stack}`, {
      cause: error,
    });
  }
}

test.run();
