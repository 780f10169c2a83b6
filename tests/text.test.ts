// How a choice's text is released: stop strings whole, in pieces and across tokens, and characters that are not complete yet.

import { test } from "uvu";
import * as assert from "uvu/assert";
import { createChoiceText } from "../src/text.ts";

/** A choice over tokens of bytes: what each push releases, whether it stopped, and the whole text. */
function run(tokens: readonly (readonly number[])[], stop: readonly string[]) {
  const decoder = new TextDecoder();
  const choice = createChoiceText(
    {
      push: (id) => decoder.decode(Uint8Array.from(tokens[id]), { stream: true }),
      flush: () => decoder.decode(),
    },
    stop,
  );
  const released: string[] = [];
  let stopped = false;
  for (let id = 0; id < tokens.length && !stopped; id++) {
    const step = choice.push(id);
    released.push(step.text);
    stopped = step.stopped;
  }
  released.push(choice.end());
  return { released, stopped, text: choice.text };
}
const bytes = (text: string) => [...new TextEncoder().encode(text)];

test("without stop strings text comes as its characters are complete", () => {
  assert.equal(run([bytes("a"), [0xe2, 0x80], [0x94], bytes("b")], []).released, ["a", "", "—", "b", ""]);
  assert.is(run([bytes("a"), [0xe2, 0x80]], []).text, "a\ufffd", "what never completes is shown at the end");
});

test("a stop string across tokens: what may begin it is held back, and comes when it does not", () => {
  const { released, stopped, text } = run(["x", "E", "N", "E", "N", "D", "y"].map(bytes), ["END"]);
  assert.equal(released, ["x", "", "", "EN", "", "", ""]);
  assert.ok(stopped);
  assert.is(text, "xEN");
});

test("the earliest of several stop strings, within one token", () => {
  assert.equal(run([bytes("one; two. three")], [".", ";"]).text, "one");
});

test("nothing comes after a stop string, not even the beginning of a character", () => {
  assert.is(run([bytes("a"), [0x20, 0xe2, 0x80]], [" "]).text, "a");
});

test("text that is held back when no more tokens come is released", () => {
  const { released, stopped, text } = run(["a", "E"].map(bytes), ["END"]);
  assert.equal([released, stopped, text], [["a", "", "E"], false, "aE"]);
});

test.run();
