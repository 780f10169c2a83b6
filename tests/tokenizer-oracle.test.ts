// Ids of 20,000 texts for every family of tokenizers, against the oracle: the Rust package `tokenizers` 0.23.3, whose regular
// expressions know Unicode 16.0.0 (tests/oracle writes the fixture). Once from the tokenizer.json, once from the keys of a GGUF.

import { readFileSync } from "node:fs";
import { Tokenizer as PeerTokenizer } from "@huggingface/tokenizers";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createTokenizer, type TokenizerData, tokenizerDataFromGguf, tokenizerDataFromJson } from "../src/tokenizer.ts";
import { newTextModule } from "../src/wasm.ts";
import { BATCH, FAMILIES, hashIds, isSpecial, jsonOf, metadataOf } from "./support/families.ts";
import { allTexts, hashTexts } from "./support/texts.ts";

const fixture = JSON.parse(readFileSync(new URL("fixtures/tokenizer-ids.json", import.meta.url), "utf8")) as {
  oracle: string;
  texts: number;
  hashes: Record<string, string>;
};
const texts = allTexts();

test("the fixture is of these texts", () => {
  assert.ok(texts.length >= 20_000);
  assert.is(hashTexts(), fixture.texts, "the texts have changed: write the fixture anew (tests/oracle/tokenizer.ts)");
});

for (const [name, family] of Object.entries(FAMILIES)) {
  test(`${name}: ids from tokenizer.json`, () => agrees(name, tokenizerDataFromJson(jsonOf(family)), 1));
  // The same rules, read from other keys: every fifth batch will do.
  if (family.pre || name === "llama2" || name === "gemma")
    test(`${name}: ids from a GGUF's keys`, () => {
      const metadata = metadataOf(family);
      // Ends that tokenizer.json does not call special are control tokens of a GGUF's all the same, which the oracle does not know.
      const types = Uint8Array.from(metadata.get("tokenizer.ggml.token_type") as number[]);
      return agrees(name, { ...tokenizerDataFromGguf(metadata), types }, 5);
    });
}

/** Compares every so-manieth batch; names the first text of the first batch that differs. */
async function agrees(name: string, data: TokenizerData, every: number): Promise<void> {
  const tokenizer = createTokenizer(await newTextModule(), data);
  const want = Buffer.from(fixture.hashes[name]!, "base64");
  assert.is(want.length, Math.ceil(texts.length / BATCH) * 4);
  for (let at = 0; at < texts.length; at += BATCH * every) {
    const batch = texts.slice(at, at + BATCH);
    const ids = batch.map((text, i) => tokenizer.encode(text, { special: isSpecial(at + i) }));
    if (hashIds(ids) !== want.readUInt32LE((at / BATCH) * 4))
      assert.unreachable(`texts ${at} to ${at + batch.length - 1} differ, from ${JSON.stringify(batch[0])} on`);
  }
}

// The peer in JavaScript, live: what the fixture's hashes cannot show, a second implementation that agrees. Its regular
// expressions are those of the runtime, so only characters whose classes have not changed since Unicode 10 are compared.
for (const name of ["gpt2", "llama3", "gpt-4o", "llama2"]) {
  test(`${name}: @huggingface/tokenizers agrees`, async () => {
    const json = jsonOf(FAMILIES[name]!);
    const peer = new PeerTokenizer(json, {});
    const tokenizer = createTokenizer(await newTextModule(), tokenizerDataFromJson(json));
    let compared = 0;
    for (let at = 0; at < texts.length && compared < 1000; at += at < 300 ? 1 : 7) {
      const text = texts[at]!;
      if (!isPlain(text)) continue;
      compared++;
      const want = peer.encode(text, { add_special_tokens: false }).ids;
      assert.equal([...tokenizer.encode(text, { special: true })], want, JSON.stringify(text));
    }
    assert.ok(compared >= 500, `${compared} texts compared`);
  });
}

const isPlain = (text: string) =>
  /^[\t\n\r -~\u00a1-\u017e\u0391-\u03ce\u0410-\u044f\u3041-\u3096\u4e00-\u9fa5\uac00-\ud7a3]*$/.test(text);

test.run();
