// What a tokenizer promises beyond the oracle's ids: decoding undoes encoding, streams equal wholes, contents cannot write control
// tokens, broken data gives typed errors, and no text is quadratic.

import { existsSync, readdirSync, readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FurcateError } from "../src/errors.ts";
import { readGguf } from "../src/formats/gguf.ts";
import { openSource } from "../src/source.ts";
import {
  createTokenizer,
  type ModelTokenizer,
  type TextPart,
  tokenizerDataFromGguf,
  tokenizerDataFromJson,
} from "../src/tokenizer.ts";
import { newTextModule } from "../src/wasm.ts";
import { FAMILIES, jsonOf, metadataOf } from "./support/families.ts";
import { newRandom } from "./support/random.ts";
import { allTexts, TOKEN_TEXTS } from "./support/texts.ts";

const tokenizers = new Map<string, ModelTokenizer>();

/** The family's tokenizer, made once. */
async function tokenizerOf(name: string): Promise<ModelTokenizer> {
  let tokenizer = tokenizers.get(name);
  if (!tokenizer) {
    tokenizer = createTokenizer(await newTextModule(), tokenizerDataFromJson(jsonOf(FAMILIES[name]!)));
    tokenizers.set(name, tokenizer);
  }
  return tokenizer;
}

/** Lone surrogates as U+FFFD, as every encoder makes them. */
const wellFormed = (text: string) =>
  new TextDecoder("utf-8", { ignoreBOM: true }).decode(new TextEncoder().encode(text));

const texts = allTexts();

// --- decoding

for (const name of ["gpt2", "llama3", "gpt-4o", "deepseek-v3"]) {
  test(`${name}: decode undoes encode`, async () => {
    const tokenizer = await tokenizerOf(name);
    for (const [i, text] of texts.entries())
      if (i % 3 === 0) assert.is(tokenizer.decode(tokenizer.encode(text)), wellFormed(text));
  });
}

test("qwen2: decode undoes encode but for the composition of characters", async () => {
  const tokenizer = await tokenizerOf("qwen2");
  for (const [i, text] of texts.entries())
    if (i % 5 === 0) assert.is(tokenizer.decode(tokenizer.encode(text)), wellFormed(text.normalize("NFC")));
});

test("llama2, gemma: decode undoes encode, the added space included", async () => {
  for (const name of ["llama2", "gemma"]) {
    const tokenizer = await tokenizerOf(name);
    // U+2581 is how these vocabularies write a space, so it comes back as one.
    for (const [i, text] of texts.entries())
      if (i % 5 === 0) assert.is(tokenizer.decode(tokenizer.encode(text)), wellFormed(text).replaceAll("▁", " "));
  }
});

test("33 streams, interleaved, equal their wholes", async () => {
  for (const name of ["gpt2", "llama2"]) {
    const tokenizer = await tokenizerOf(name);
    const random = newRandom(33);
    const streams = Array.from({ length: 33 }, (_, i) => {
      // Half are real texts, rich in characters of several tokens; half are random ids, rich in bytes that are no UTF-8.
      const ids =
        i % 2 === 0 ? tokenizer.encode(texts.slice(i * 300, i * 300 + 40).join("")) : randomIds(tokenizer, random, 600);
      return { ids, at: 0, text: "", decoder: tokenizer.newDecoder({ start: true }) };
    });
    for (let open = streams.slice(); open.length > 0; open = open.filter((stream) => stream.at < stream.ids.length)) {
      const stream = random.pick(open);
      for (let burst = random.below(5); burst >= 0 && stream.at < stream.ids.length; burst--)
        stream.text += stream.decoder.push(stream.ids[stream.at++]!);
    }
    for (const { ids, text, decoder } of streams) assert.is(text + decoder.flush(), tokenizer.decode(ids));
  }
});

function randomIds(
  tokenizer: ModelTokenizer,
  { below, next }: ReturnType<typeof newRandom>,
  count: number,
): Uint32Array {
  // The lowest ids of both vocabularies are single bytes.
  return Uint32Array.from({ length: count }, () => (next() < 0.7 ? below(259) : below(tokenizer.vocabSize)));
}

test("an incomplete code point is held back, and given up on flush", async () => {
  const tokenizer = await tokenizerOf("gpt2");
  const decoder = tokenizer.newDecoder();
  const pieces = [...tokenizer.encode("🙂")].map((id) => decoder.push(id));
  assert.ok(pieces.length > 1);
  assert.equal(pieces, [...pieces.slice(1).map(() => ""), "🙂"]);
  decoder.push(tokenizer.encode("🙂")[0]!);
  assert.is(decoder.flush(), "\ufffd");
  assert.is(decoder.push(tokenizer.encode("a")[0]!), "a");
});

test("a stream that continues a text keeps its first space", async () => {
  const tokenizer = await tokenizerOf("llama2");
  const ids = tokenizer.encode("world");
  assert.is(tokenizer.decode(ids), "world");
  assert.is([...ids].map(pusher(tokenizer.newDecoder())).join(""), " world");
  assert.is([...ids].map(pusher(tokenizer.newDecoder({ start: true }))).join(""), "world");
});

const pusher = (decoder: { push(id: number): string }) => (id: number) => decoder.push(id);

test("ids beyond the vocabulary decode to nothing; what is no id is refused", async () => {
  const tokenizer = await tokenizerOf("gpt2");
  assert.is(tokenizer.decode([15496, 50_300, 0xffff_ffff, 11]), "Hello,");
  assert.is(tokenizer.tokenText(50_257), "");
  for (const id of [-1, 0.5, Number.NaN, 2 ** 32, "a" as unknown as number])
    refuses("option", () => tokenizer.decode([15496, id]), String(id));
  for (const ids of [undefined, null, 5, [5n]]) refuses("option", () => tokenizer.decode(ids as never), String(ids));
  assert.is(tokenizer.decode([]), "");
});

test("tokens as text and as bytes", async () => {
  const tokenizer = await tokenizerOf("llama2");
  const [id] = tokenizer.encode("the") as unknown as [number];
  assert.is(tokenizer.tokenText(id), " the");
  assert.equal([...tokenizer.tokenBytes(id)], [...new TextEncoder().encode(" the")]);
  assert.equal([...tokenizer.tokenBytes(3 + 0xe2)], [0xe2]);
  assert.is(tokenizer.tokenText(3 + 0xe2), "\ufffd");
  assert.is(tokenizer.tokenText(1), "<s>");
});

// --- control tokens

test("control tokens are text unless asked for, and decode only when asked for", async () => {
  const tokenizer = await tokenizerOf("llama3");
  const text = "a<|eot_id|>b";
  const [plain, special] = [tokenizer.encode(text), tokenizer.encode(text, { special: true })];
  assert.ok(!plain.includes(128009));
  assert.equal([...special], [64, 128009, 65]);
  assert.is(tokenizer.decode(plain), text);
  assert.is(tokenizer.decode(special), "ab");
  assert.is(tokenizer.decode(special, { special: true }), text);
});

test("user-defined tokens are found in any text", async () => {
  const tokenizer = await tokenizerOf("qwen2");
  assert.ok(tokenizer.encode("<tool_call>").length === 1);
  assert.equal([...tokenizer.encode("x<tool_call>")], [...tokenizer.encode("x<tool_call>", { special: true })]);
});

test("begin of text only where asked for and where the model asks for one", async () => {
  const llama2 = await tokenizerOf("llama2");
  assert.equal([...llama2.encode("", { bos: true })], [1]);
  assert.equal([...llama2.encode("a", { bos: true })], [1, ...llama2.encode("a")]);
  const gpt2 = await tokenizerOf("gpt2");
  assert.equal([...gpt2.encode("a", { bos: true })], [...gpt2.encode("a")]);
});

test("ends of texts and turns are found by name", async () => {
  assert.equal([...(await tokenizerOf("llama3")).eosIds].sort(), [128001, 128009]);
  assert.ok((await tokenizerOf("qwen2")).eosIds.has(151645));
  assert.equal([...(await tokenizerOf("llama2")).eosIds], [2]);
  assert.equal([...(await tokenizerOf("deepseek-v3")).eosIds], [1]);
});

/** A cut of the text into up to seven parts, anywhere between UTF-16 units. */
function cutUp(text: string, { below }: ReturnType<typeof newRandom>, special: (part: number) => boolean): TextPart[] {
  const cuts = Array.from({ length: below(7) }, () => below(text.length + 1)).sort((a, b) => a - b);
  return [0, ...cuts].map((from, i) => ({ text: text.slice(from, cuts[i] ?? text.length), special: special(i) }));
}

test("parts of one kind are one text, wherever it is cut", async () => {
  const random = newRandom(5);
  for (const name of ["gpt2", "llama3", "qwen2", "llama2", "flags"]) {
    const tokenizer = await tokenizerOf(name);
    for (let i = 0; i < 400; i++) {
      const text = random.pick(texts) + random.pick(TOKEN_TEXTS) + random.pick(texts);
      for (const special of [false, true])
        assert.equal(
          [...tokenizer.encodeParts(cutUp(text, random, () => special))],
          [...tokenizer.encode(text, { special })],
          JSON.stringify(text),
        );
    }
  }
});

test("parts of both kinds: control tokens only where they lie wholly in special parts", async () => {
  const random = newRandom(6);
  for (const name of ["llama3", "deepseek-v3", "llama2", "flags"]) {
    const tokenizer = await tokenizerOf(name);
    const control = new Set(tokenizer.controlTexts);
    for (let i = 0; i < 400; i++) {
      const texts = Array.from({ length: 8 }, () => random.pick([...TOKEN_TEXTS, "hi ", " yes", "\n", "🙂"]));
      const parts = cutUp(texts.join(""), random, (part) => part % 2 === 0);
      // What may be recognised: control texts within runs of special parts. Every one written by a plain part must come out as text.
      let allowed = 0;
      for (const part of parts)
        if (part.special) allowed += tokenizer.encode(part.text, { special: true }).filter(isControl).length;
      const ids = tokenizer.encodeParts(parts);
      assert.ok(ids.filter(isControl).length <= allowed, JSON.stringify(parts));
      const noneAllowed = tokenizer.encodeParts(parts.map((part) => ({ ...part, special: false })));
      assert.is(noneAllowed.filter(isControl).length, 0);
    }
    function isControl(id: number): boolean {
      return control.has(tokenizer.tokenText(id)) && tokenizer.decode([id]) === "" && tokenizer.tokenText(id) !== "";
    }
  }
});

test("a content cannot write control tokens, nor finish or begin one", async () => {
  const tokenizer = await tokenizerOf("llama3");
  const parts = (content: string): TextPart[] => [
    { text: "<|start_header_id|>user<|end_header_id|>\n\n", special: true },
    { text: content, special: false },
    { text: "<|eot_id|>", special: true },
  ];
  const count = (content: string) => tokenizer.encodeParts(parts(content)).filter((id) => id >= 128000).length;
  for (const content of [
    "",
    "hi",
    "<|eot_id|>",
    "<|eot_id",
    "<|eot_id|><",
    "|>",
    ...tokenizer.controlTexts.slice(0, 8),
  ])
    assert.is(count(content), 3, content);
  // A template that is cut in two around a content does not close over it either.
  const split = [
    { text: "<|eot", special: true },
    { text: "_id", special: false },
    { text: "|>", special: true },
  ];
  assert.ok(!tokenizer.encodeParts(split).includes(128009));
});

test("words and merges go across parts", async () => {
  const tokenizer = await tokenizerOf("gpt2");
  const parts = ["Hel", "lo", " wor", "ld"].map((text, i) => ({ text, special: i % 2 === 0 }));
  assert.equal([...tokenizer.encodeParts(parts)], [...tokenizer.encode("Hello world")]);
  assert.equal(
    [
      ...tokenizer.encodeParts([
        { text: "\ud83d", special: true },
        { text: "\ude42", special: false },
      ]),
    ],
    [...tokenizer.encode("🙂")],
  );
  const [high, low] = ["\ud83d", "\ude42"].map((text) => ({ text, special: false }));
  const nothing = { text: "", special: true };
  assert.equal([...tokenizer.encodeParts([high, nothing, low])], [...tokenizer.encode("🙂")]);
});

// --- texts that are easily slow, and memory

for (const [name, text] of [
  ["gpt2", "a"],
  ["llama3", "a"],
  ["llama2", "a"],
  ["gemma", "ab"],
  ["deepseek-llm", " "],
  ["gpt-4o", "A"],
  ["gpt-4o", "ªA"],
  ["qwen2", "\n"],
  ["deepseek-v3", "\u0000"],
] as const) {
  test(`${name}: ${JSON.stringify(text)} over and over is not quadratic`, async () => {
    const tokenizer = await tokenizerOf(name);
    const long = `${text.repeat((1 << 17) / text.length)}x`;
    const began = performance.now();
    const ids = tokenizer.encode(long);
    // Some 30 ms; a quadratic way takes 10^10 steps, which no machine does in two seconds.
    assert.ok(performance.now() - began < 2000);
    assert.is(tokenizer.decode(ids), long);
  });
}

test("encoding and decoding leave nothing in memory, also when they fail", async () => {
  const module = await newTextModule();
  const tokenizer = createTokenizer(module, tokenizerDataFromJson(jsonOf(FAMILIES.flags!)));
  const before = module.used();
  for (const text of texts.slice(0, 300)) tokenizer.decode(tokenizer.encode(text, { special: true }));
  refuses("option", () => tokenizer.decode([0.5]), "");
  refuses("option", () => tokenizer.encode(7 as unknown as string), "");
  tokenizer.newDecoder().push(5);
  assert.is(module.used(), before);
});

test("two vocabularies in one module do not disturb each other", async () => {
  const module = await newTextModule();
  const [gpt2, llama2] = ["gpt2", "llama2"].map((name) =>
    createTokenizer(module, tokenizerDataFromJson(jsonOf(FAMILIES[name]!))),
  ) as [ModelTokenizer, ModelTokenizer];
  for (const text of texts.slice(0, 200)) {
    assert.equal([...gpt2.encode(text)], [...(await tokenizerOf("gpt2")).encode(text)]);
    assert.equal([...llama2.encode(text)], [...(await tokenizerOf("llama2")).encode(text)]);
  }
});

// --- broken data

function refuses(code: string, act: () => unknown, what: string): void {
  try {
    act();
  } catch (error) {
    assert.instance(error, FurcateError, `${what}: ${error}`);
    assert.is((error as FurcateError).code, code, `${what}: ${(error as Error).message}`);
    return;
  }
  assert.unreachable(`${what}: expected an error of the code "${code}"`);
}

/** A small byte-level tokenizer.json, made anew each time. */
// biome-ignore lint/suspicious/noExplicitAny: tests put anything anywhere
function small(): any {
  const vocab: Record<string, number> = {};
  for (let byte = 0x21; byte < 0x7f; byte++) vocab[String.fromCharCode(byte)] = byte - 0x21;
  Object.assign(vocab, { Ġ: 94, he: 95, hel: 96, lo: 97, hello: 98, Ġhello: 99 });
  return {
    model: { type: "BPE", vocab, merges: ["h e", "he l", "l o", ["hel", "lo"], "Ġ hello"] },
    normalizer: null,
    pre_tokenizer: { type: "ByteLevel", add_prefix_space: false, use_regex: true },
    decoder: { type: "ByteLevel" },
    post_processor: null,
    added_tokens: [
      { id: 100, content: "<end>", special: true, normalized: false, lstrip: false, rstrip: false, single_word: false },
    ],
  };
}

/** The same as a GGUF's keys. */
function smallGguf(changes: Record<string, unknown> = {}): Map<string, unknown> {
  const { model } = small();
  const tokens = [...Object.keys(model.vocab), "<end>"];
  return new Map<string, unknown>(
    Object.entries({
      model: "gpt2",
      pre: "gpt-2",
      tokens,
      token_type: tokens.map((token) => (token === "<end>" ? 3 : 1)),
      merges: ["h e", "he l", "l o", "hel lo", "Ġ hello"],
      eos_token_id: 100,
      ...changes,
    }).map(([key, value]): [string, unknown] => [`tokenizer.ggml.${key}`, value]),
  );
}

const sharedModule = newTextModule();

test("the small tokenizer works before it is broken", async () => {
  const module = await sharedModule;
  assert.equal([...createTokenizer(module, tokenizerDataFromJson(small())).encode("hello hello")], [98, 99]);
  const tokenizer = createTokenizer(module, tokenizerDataFromGguf(smallGguf()));
  assert.equal([...tokenizer.encode("hello hello<end>", { special: true })], [98, 99, 100]);
  assert.equal([...tokenizer.eosIds], [100]);
});

test("what ends a text is a control token, whatever a GGUF calls it", async () => {
  const module = await sharedModule;
  const metadata = smallGguf();
  metadata.set(
    "tokenizer.ggml.token_type",
    (metadata.get("tokenizer.ggml.token_type") as number[]).map((type) => (type === 3 ? 4 : type)),
  );
  const tokenizer = createTokenizer(module, tokenizerDataFromGguf(metadata));
  assert.equal([...tokenizer.encode("hello<end>", { special: true })], [98, 100]);
  assert.not.ok(tokenizer.encode("hello<end>").includes(100), "raw text makes no control tokens");
});

// biome-ignore-start format: tables
// biome-ignore lint/suspicious/noExplicitAny: tests put anything anywhere
const BROKEN_JSON: Record<string, [code: string, change: (json: any) => unknown]> = {
  "not an object": ["format", () => 7],
  null: ["format", () => null],
  "no model": ["format", (json) => delete json.model],
  WordPiece: ["unsupported", (json) => (json.model.type = "WordPiece")],
  Unigram: ["unsupported", (json) => (json.model = { type: "Unigram", vocab: [["a", 0]] })],
  "no vocabulary": ["format", (json) => delete json.model.vocab],
  "an empty vocabulary": [
    "format",
    (json) => Object.assign(json, { model: { type: "BPE", vocab: {}, merges: [] }, added_tokens: [] }),
  ],
  "an id twice": ["format", (json) => (json.model.vocab.he = 3)],
  "a negative id": ["format", (json) => (json.model.vocab.he = -1)],
  "a huge id": ["format", (json) => (json.model.vocab.he = 4e9)],
  "half an id": ["format", (json) => (json.model.vocab.he = 1.5)],
  "an id as text": ["format", (json) => (json.model.vocab.he = "95")],
  "an added token of a taken id": ["format", (json) => (json.added_tokens[0].id = 5)],
  "an added token with another id than the vocabulary's": ["format", (json) => (json.added_tokens[0].content = "he")],
  "an added token without text": ["format", (json) => (json.added_tokens[0].content = "")],
  "an added token of a huge id": ["format", (json) => (json.added_tokens[0].id = 1e9)],
  "added tokens that are no list": ["format", (json) => (json.added_tokens = { 0: "a" })],
  "no merges": ["format", (json) => delete json.model.merges],
  "a merge of no tokens": ["format", (json) => json.model.merges.push("he zz")],
  "a merge to no token": ["format", (json) => json.model.merges.push("l l")],
  "a merge of one part": ["format", (json) => json.model.merges.push("hello")],
  "a merge of an empty part": ["format", (json) => json.model.merges.push(" he")],
  "a merge that ends in a space": ["format", (json) => json.model.merges.push("he ")],
  "an empty merge": ["format", (json) => json.model.merges.push("")],
  "a merge of three": ["format", (json) => json.model.merges.push(["h", "e", "l"])],
  "a merge that is a number": ["format", (json) => json.model.merges.push(5)],
  "a merge that is null": ["format", (json) => json.model.merges.push(null)],
  "a merge of half characters": ["format", (json) => json.model.merges.push(["\ud83d", "\ude42"])],
  "a lone surrogate in a token": [
    "format",
    (json) => Object.assign(json.model.vocab, { "x\ud83d": 101, "\ude42y": 102 }),
  ],
  "an unknown token that is none": ["format", (json) => (json.model.unk_token = "<nothing>")],
  dropout: ["unsupported", (json) => (json.model.dropout = 0.1)],
  "a subword prefix": ["unsupported", (json) => (json.model.continuing_subword_prefix = "##")],
  "an unknown pre-tokenizer": ["unsupported", (json) => (json.pre_tokenizer = { type: "Bert" })],
  "an unknown pattern": [
    "unsupported",
    (json) => (json.pre_tokenizer = { type: "Split", pattern: { Regex: "x+" }, behavior: "Isolated" }),
  ],
  "an unknown behaviour": [
    "unsupported",
    (json) => (json.pre_tokenizer = { type: "Split", pattern: { Regex: "\\p{N}" }, behavior: "Removed" }),
  ],
  "an unknown normalizer": ["unsupported", (json) => (json.normalizer = { type: "Precompiled" })],
  "sequences without end": [
    "format",
    (json) => {
      for (let i = 0; i < 5000; i++) json.pre_tokenizer = { type: "Sequence", pretokenizers: [json.pre_tokenizer] };
    },
  ],
  "a template of no token": [
    "format",
    (json) =>
      (json.post_processor = {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "<x>" } }],
        special_tokens: {},
      }),
  ],
  "a template of a wrong id": [
    "format",
    (json) =>
      (json.post_processor = {
        type: "TemplateProcessing",
        single: [{ SpecialToken: { id: "<x>" } }],
        special_tokens: { "<x>": { ids: [1e6] } },
      }),
  ],
};
// biome-ignore-end format: tables

for (const [what, [code, change]] of Object.entries(BROKEN_JSON))
  test(`tokenizer.json with ${what}: ${code}`, async () => {
    const module = await sharedModule;
    const json = small();
    const changed = change(json);
    const value = what === "not an object" || what === "null" ? changed : json;
    refuses(code, () => createTokenizer(module, tokenizerDataFromJson(value)), what);
  });

// biome-ignore format: a table
const BROKEN_GGUF: Record<string, [code: string, changes: Record<string, unknown>]> = {
  "no model": ["format", { model: undefined }],
  "a model of another kind": ["unsupported", { model: "bert" }],
  "an unknown pre-tokenizer": ["unsupported", { pre: "megalodon" }],
  "a pre-tokenizer that is a number": ["unsupported", { pre: 4 }],
  "no tokens": ["format", { tokens: undefined }],
  "an empty vocabulary": ["format", { tokens: [], token_type: [] }],
  "millions of tokens": ["format", { tokens: new Array(1 << 23) }],
  "millions of merges": ["format", { merges: new Array(1 << 25) }],
  "tokens that are numbers": ["format", { tokens: new Uint32Array(101) }],
  "a token that is none": ["format", { tokens: [...smallGguf().get("tokenizer.ggml.tokens") as string[]].fill(5 as never, 7, 8) }],
  "a token twice": ["format", { tokens: [...smallGguf().get("tokenizer.ggml.tokens") as string[]].fill("he", 7, 8) }],
  "too few types": ["format", { token_type: [1, 1] }],
  "an unknown type": ["format", { token_type: new Array(101).fill(9) }],
  "a byte token that is none": ["format", { token_type: new Array(101).fill(6) }],
  "no merges": ["format", { merges: undefined }],
  "a merge of no tokens": ["format", { merges: ["h e", "q zz"] }],
  "a merge that is none": ["format", { merges: ["h e", 5] }],
  "an end beyond the vocabulary": ["format", { eos_token_id: 101 }],
  "a negative begin": ["format", { bos_token_id: -1 }],
  "a begin that is text": ["format", { bos_token_id: "1" }],
  "a begin that may or may not be": ["format", { add_bos_token: 1, bos_token_id: 3 }],
  "llama without scores": ["format", { model: "llama" }],
  "llama with too few scores": ["format", { model: "llama", scores: new Float32Array(5) }],
  "llama with a score that is none": ["format", { model: "llama", scores: new Float32Array(101).fill(Number.NaN) }],
};

for (const [what, [code, changes]] of Object.entries(BROKEN_GGUF))
  test(`GGUF with ${what}: ${code}`, async () => {
    const module = await sharedModule;
    refuses(code, () => createTokenizer(module, tokenizerDataFromGguf(smallGguf(changes))), what);
  });

test("a tokenizer.json broken in 1,500 ways: a tokenizer that works, or a typed error", async () => {
  const random = newRandom(9);
  const module = await newTextModule();
  const values = [
    null,
    undefined,
    -1,
    0,
    1,
    1.5,
    1e9,
    2 ** 53,
    Number.NaN,
    "",
    " ",
    "he",
    "\ud800",
    "▁",
    [],
    {},
    [[]],
    true,
    ["h", "e"],
    "BPE",
    "Sequence",
  ];
  let works = 0;
  for (let i = 0; i < 1500; i++) {
    const json = small();
    for (let changes = 1 + random.below(3); changes > 0; changes--) {
      // biome-ignore lint/suspicious/noExplicitAny: a walk through anything
      let place: any = json;
      for (let depth = random.below(5); ; depth--) {
        const keys = Object.keys(place);
        const key = keys.length > 0 ? random.pick(keys) : "x";
        if (depth <= 0 || typeof place[key] !== "object" || place[key] === null) {
          if (random.next() < 0.2) delete place[key];
          else place[key] = random.pick(values);
          break;
        }
        place = place[key];
      }
    }
    const before = module.mark();
    try {
      const tokenizer = createTokenizer(module, tokenizerDataFromJson(json));
      tokenizer.decode(tokenizer.encode("hello <end> wörld 🙂\n", { special: true }), { special: true });
      works++;
    } catch (error) {
      assert.instance(error, FurcateError, `${(error as Error).stack}\n${String(i)}`);
    }
    module.release(before);
  }
  assert.ok(works > 50 && works < 1450, `${works} work`);
});

// --- reference data

const testdata = process.env.FURCATE_TESTDATA;
if (testdata && existsSync(`${testdata}/golden`)) {
  test("the goldens of the tiny models, from tokenizer.json and GGUF", async () => {
    const { cases } = JSON.parse(readFileSync(`${testdata}/golden/tokenizer-golden.json`, "utf8"));
    for (const folder of readdirSync(`${testdata}/golden/tiny`)) {
      const path = `${testdata}/golden/tiny/${folder}`;
      const gguf = await readGguf(await openSource(readFileSync(`${path}/model-f32.gguf`)));
      for (const from of [
        tokenizerDataFromJson(JSON.parse(readFileSync(`${path}/tokenizer.json`, "utf8"))),
        tokenizerDataFromGguf(gguf.metadata),
      ]) {
        const tokenizer = createTokenizer(await newTextModule(), from);
        for (const { text, special, ids, decoded } of cases) {
          assert.equal([...tokenizer.encode(text, { special })], ids, `${folder}: ${JSON.stringify(text)}`);
          assert.is(tokenizer.decode(ids, { special: true }), decoded);
        }
      }
    }
  });

  test("SmolLM2: ids of prompts and rendered chats", async () => {
    const source = await openSource(readFileSync(`${testdata}/models/SmolLM2-135M-Instruct.Q4_1.gguf`));
    const { metadata } = await readGguf(source);
    const module = await newTextModule();
    const began = performance.now();
    const data = tokenizerDataFromGguf(metadata);
    const tokenizer = createTokenizer(module, data);
    console.log(`measured: SmolLM2's vocabulary (49,152 tokens) loads in ${(performance.now() - began).toFixed(0)} ms`);
    const { prompts, chats } = JSON.parse(readFileSync(`${testdata}/golden/smollm2.json`, "utf8"));
    for (const { name, text, ids, greedy } of prompts) {
      // The golden ids come from a tokenizer without the published pre-tokenizer's first step, which sets digits apart. It shows
      // only in the licence, where several spaces stand before a digit.
      const withoutDigits = createTokenizer(module, { ...data, rules: ["gpt2"] });
      assert.equal([...withoutDigits.encode(text, { bos: true })], ids);
      if (!name.startsWith("licence")) assert.equal([...tokenizer.encode(text, { bos: true })], ids);
      if (typeof greedy?.text === "string") assert.is(tokenizer.decode(greedy.ids, { special: true }), greedy.text);
    }
    for (const { rendered, ids } of chats) assert.equal([...tokenizer.encode(rendered, { special: true })], ids);
    assert.ok(tokenizer.eosIds.has(2));
    // The vocabulary lacks tokens for some bytes, mostly of rare planes: those are lost, as in the published tokenizer.
    const bytes = new Set<number>();
    for (let id = 0; id < tokenizer.vocabSize; id++) {
      const token = tokenizer.tokenBytes(id);
      if (token.length === 1) bytes.add(token[0]!);
    }
    assert.ok(bytes.size > 200);
    for (const [i, text] of texts.entries())
      if (i % 5 === 0 && new TextEncoder().encode(text).every((byte) => bytes.has(byte)))
        assert.is(tokenizer.decode(tokenizer.encode(text)), wellFormed(text));
  });
} else console.log("skipped: tiny goldens and SmolLM2 (FURCATE_TESTDATA names no folder with golden/)");

test("metadata of every published name of a pre-tokenizer makes a tokenizer", async () => {
  const module = await newTextModule();
  for (const pre of [
    "llama-bpe",
    "qwen2",
    "deepseek-llm",
    "deepseek-coder",
    "gpt-4o",
    "tekken",
    "falcon",
    "command-r",
    "default",
  ]) {
    const before = module.mark();
    const tokenizer = createTokenizer(module, tokenizerDataFromGguf(smallGguf({ pre })));
    assert.ok(tokenizer.encode("hello 12345 wörld\n").length > 0, pre);
    module.release(before);
  }
  assert.ok(metadataOf(FAMILIES.gpt2!).size > 4);
});

test.run();
