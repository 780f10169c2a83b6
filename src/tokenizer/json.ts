// A Hugging Face tokenizer.json of the BPE kind -> TokenizerData. Knows that file's fields; what it does not know how to follow to
// the letter, it refuses.

import { fail, show } from "../errors.ts";
import {
  type AddedToken,
  checkId,
  findEnds,
  isByteText,
  MOST_MERGES,
  MOST_TOKENS,
  type NormalizeStep,
  type TokenizerData,
  TokenType,
} from "./data.ts";
import { normalize } from "./normalize.ts";
import { coversAll, type RuleName, ruleOfPattern } from "./rules.ts";

type Fields = Readonly<Record<string, unknown>>;

/** json: the parsed file. Errors: `unsupported` for other kinds and for parts without an equal here; `format` for what is broken. */
export function tokenizerDataFromJson(json: unknown): TokenizerData {
  const file = fields(json, "the file");
  const model = fields(file.model, "model");
  if (model.type !== "BPE" && !(model.type === undefined && Array.isArray(model.merges)))
    fail("unsupported", `tokenizer.json: model.type is ${show(model.type)}, expected "BPE"`);
  for (const name of ["continuing_subword_prefix", "end_of_word_suffix", "dropout"])
    if (model[name] !== undefined && model[name] !== null && model[name] !== "" && model[name] !== 0)
      fail("unsupported", `tokenizer.json: model.${name} is ${show(model[name])}, expected none`);

  const added = Array.from(list(file.added_tokens ?? [], "added_tokens"), (token, i) =>
    fields(token, `added_tokens[${i}]`),
  );
  const { tokens, types } = readTokens(fields(model.vocab, "model.vocab"), added, model.byte_fallback === true);
  const cutting = readPretokenizer(file.pre_tokenizer);
  const steps = readNormalizer(file.normalizer);
  const addedTokens = added.map((token) => readAdded(token, steps));
  if (cutting.steps.length > 0 && addedTokens.some((token) => token.normalized))
    fail(
      "unsupported",
      "tokenizer.json: added tokens are normalized, and the pre_tokenizer changes the text after that",
    );

  const unknown = model.unk_token ?? undefined;
  const unknownId = unknown === undefined ? undefined : tokens.indexOf(unknown as string);
  if (unknownId === -1) fail("format", `tokenizer.json: model.unk_token is ${show(unknown)}, which is no token`);
  const template = beginOfTemplate(file.post_processor);
  const bosText = ["<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<｜begin▁of▁sentence｜>"];
  const named = bosText.map((text) => tokens.indexOf(text)).find((id) => id >= 0 && types[id] === TokenType.Control);
  return {
    kind: cutting.byteLevel ? "byte-level" : "sentencepiece",
    tokens,
    types,
    merges: readMerges(model.merges),
    rules: cutting.rules,
    wholeWords: model.ignore_merges === true,
    unknownId,
    fuseUnknown: model.fuse_unk === true,
    normalizer: [...steps, ...cutting.steps],
    stripsFirstSpace: stripsFirstSpace(file.decoder),
    added: addedTokens,
    bosId:
      template === undefined ? named : checkId(template, tokens.length, "tokenizer.json: the post_processor's token"),
    eosIds: findEnds(tokens, types, []),
    addBos: template !== undefined,
  };
}

/** Tokens and their kinds by id: the model's vocabulary and, over it, the added tokens. */
function readTokens(vocab: Fields, added: readonly Fields[], byteFallback: boolean) {
  // Two lists instead of pairs: vocabularies have a quarter of a million entries.
  const texts = Object.keys(vocab);
  const ids = Object.values(vocab);
  const count = texts.length + added.length;
  if (count === 0 || count > MOST_TOKENS)
    fail("format", `tokenizer.json: ${count} tokens, expected 1 to ${MOST_TOKENS}`);
  // Published vocabularies leave some ids free; a file that leaves most of them free is broken.
  const limit = 2 * count + 1024;
  let size = 0;
  const check = (id: unknown, text: string): number => {
    if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= limit)
      fail(
        "format",
        `tokenizer.json: token ${show(text)} has id ${show(id)}, expected 0 to ${limit - 1} among ${count} tokens`,
      );
    size = Math.max(size, id + 1);
    return id;
  };
  for (let i = 0; i < texts.length; i++) check(ids[i], texts[i]!);
  for (const { content, id } of added) {
    if (typeof content !== "string" || content === "")
      fail("format", `tokenizer.json: an added token's content is ${show(content)}, expected text`);
    check(id, content);
  }

  const tokens: string[] = new Array(size).fill("");
  const types = new Uint8Array(size).fill(TokenType.Unused);
  const take = (id: number, text: string, type: TokenType) => {
    if (tokens[id] !== "" && tokens[id] !== text)
      fail("format", `tokenizer.json: tokens ${show(tokens[id])} and ${show(text)} both have id ${id}`);
    tokens[id] = text;
    types[id] = type;
  };
  for (let i = 0; i < texts.length; i++)
    take(ids[i] as number, texts[i]!, byteFallback && isByteText(texts[i]!) ? TokenType.Byte : TokenType.Normal);
  for (const token of added) {
    const text = token.content as string;
    const inVocab = Object.hasOwn(vocab, text) ? vocab[text] : token.id;
    if (inVocab !== token.id)
      fail(
        "format",
        `tokenizer.json: added token ${show(text)} has id ${token.id}, but the vocabulary gives it ${inVocab}`,
      );
    take(token.id as number, text, token.special === true ? TokenType.Control : TokenType.UserDefined);
  }
  return { tokens, types };
}

function readAdded(token: Fields, steps: readonly NormalizeStep[]): AddedToken {
  const normalized = token.normalized === true;
  const content = token.content as string;
  return {
    id: token.id as number,
    text: normalized ? normalize(steps, content, true) : content,
    lstrip: token.lstrip === true,
    rstrip: token.rstrip === true,
    singleWord: token.single_word === true,
    normalized,
  };
}

function readMerges(value: unknown): TokenizerData["merges"] {
  const merges = list(value, "model.merges");
  if (merges.length > MOST_MERGES)
    fail("format", `tokenizer.json: model.merges has ${merges.length} merges, expected at most ${MOST_MERGES}`);
  return merges as TokenizerData["merges"];
}

interface Cutting {
  byteLevel: boolean;
  rules: RuleName[];
  /** What the pre-tokenizer does to the text besides cutting it. */
  steps: NormalizeStep[];
}

function readPretokenizer(value: unknown): Cutting {
  const cutting: Cutting = { byteLevel: false, rules: [], steps: [] };
  for (const part of flatten(value, "pre_tokenizer", "pretokenizers")) {
    const name = `tokenizer.json: pre_tokenizer ${show(part.type)}`;
    // The byte-level step respells the text, so what follows it would mean other characters.
    if (cutting.byteLevel) fail("unsupported", `${name} follows ByteLevel, expected ByteLevel to be the last`);
    if (part.type === "ByteLevel") {
      cutting.byteLevel = true;
      if (part.add_prefix_space === true) {
        if (cutting.rules.length > 0) fail("unsupported", `${name} adds a space to every piece of a cut text`);
        cutting.steps.push({ kind: "prepend", text: " ", unlessThere: true, onlyFirst: false });
      }
      if (part.use_regex !== false) cutting.rules.push("gpt2");
    } else if (part.type === "Digits") {
      cutting.rules.push(part.individual_digits === true ? "number" : "numbers");
    } else if (part.type === "Split") {
      const pattern = fields(part.pattern, "pre_tokenizer.pattern");
      // Gemma cuts at spaces that its normalizer has replaced: nothing is left to cut.
      if (pattern.String === " " && part.behavior === "MergedWithPrevious") continue;
      const rule = typeof pattern.Regex === "string" ? ruleOfPattern(pattern.Regex) : undefined;
      if (!rule)
        fail(
          "unsupported",
          `${name} has the pattern ${show(pattern.Regex ?? pattern.String)}, which is not one known here`,
        );
      const isolates =
        part.behavior === "Isolated" || (part.behavior === "Removed" && part.invert === true && coversAll(rule));
      if (!isolates) fail("unsupported", `${name} has the behavior ${show(part.behavior)}, expected "Isolated"`);
      cutting.rules.push(rule);
    } else if (part.type === "Metaspace") {
      const scheme = part.prepend_scheme ?? (part.add_prefix_space === false ? "never" : "always");
      if (part.split !== false) fail("unsupported", `${name} cuts at every space, expected "split": false`);
      const text = part.replacement;
      if (text !== "▁") fail("unsupported", `${name} has the replacement ${show(text)}, expected "▁"`);
      cutting.steps.push({ kind: "replace", from: " ", to: text });
      if (scheme !== "never")
        cutting.steps.push({ kind: "prepend", text, unlessThere: true, onlyFirst: scheme === "first" });
    } else fail("unsupported", `${name} is not computed here`);
  }
  if (!cutting.byteLevel && cutting.rules.length > 0)
    fail("unsupported", "tokenizer.json: the pre_tokenizer cuts text without being byte-level");
  if (cutting.rules.length > 8)
    fail("unsupported", `tokenizer.json: pre_tokenizer has ${cutting.rules.length} parts, expected at most 8`);
  return cutting;
}

function readNormalizer(value: unknown): NormalizeStep[] {
  return flatten(value, "normalizer", "normalizers").map(readNormalizeStep);
}

function readNormalizeStep(part: Fields): NormalizeStep {
  switch (part.type) {
    case "NFC":
    case "NFD":
    case "NFKC":
    case "NFKD":
      return { kind: "unicode", form: part.type };
    case "Prepend":
      if (typeof part.prepend === "string")
        return { kind: "prepend", text: part.prepend, unlessThere: false, onlyFirst: false };
      break;
    case "Replace": {
      const from = fields(part.pattern, "normalizer.pattern").String;
      if (typeof from === "string" && from !== "" && typeof part.content === "string")
        return { kind: "replace", from, to: part.content };
    }
  }
  fail("unsupported", `tokenizer.json: the normalizer ${show(part.type)}, or this form of it, is not computed here`);
}

function stripsFirstSpace(decoder: unknown): boolean {
  return flatten(decoder, "decoder", "decoders").some(
    (part) =>
      (part.type === "Strip" && part.content === " " && part.start === 1) ||
      (part.type === "Metaspace" && part.prepend_scheme !== "never" && part.add_prefix_space !== false),
  );
}

/** The id that a template puts before the text, if any. */
function beginOfTemplate(value: unknown): unknown {
  for (const part of flatten(value, "post_processor", "processors")) {
    if (part.type !== "TemplateProcessing") continue;
    const first = fields(list(part.single, "post_processor.single")[0], "post_processor.single[0]").SpecialToken;
    if (first === undefined) continue;
    const name = String(fields(first, "SpecialToken").id);
    const token = fields(
      fields(part.special_tokens, "post_processor.special_tokens")[name],
      `special token ${show(name)}`,
    );
    return list(token.ids, "post_processor ids")[0];
  }
  return undefined;
}

/** A part, or the parts of a Sequence, in order; none for null. */
function flatten(value: unknown, what: string, inner: string, depth = 0): Fields[] {
  if (value === null || value === undefined) return [];
  if (depth > 8) fail("format", `tokenizer.json: ${what} nests deeper than 8 sequences`);
  const part = fields(value, what);
  if (part.type !== "Sequence") return [part];
  return list(part[inner], `${what}.${inner}`).flatMap((one) => flatten(one, what, inner, depth + 1));
}

function fields(value: unknown, what: string): Fields {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    fail("format", `tokenizer.json: ${what} is ${show(value)}, expected an object`);
  return value as Fields;
}

function list(value: unknown, what: string): readonly unknown[] {
  if (!Array.isArray(value)) fail("format", `tokenizer.json: ${what} is ${show(value)}, expected an array`);
  return value;
}
