// What a tokenizer is made from, whichever file it came from: the neutral description that gguf.ts and json.ts produce and
// createTokenizer takes. Types, and the checks that both readers share.

import { fail, show } from "../errors.ts";
import type { RuleName } from "./rules.ts";

export interface TokenizerData {
  /** byte-level: normal tokens are spelled in GPT-2's byte alphabet. sentencepiece: plain text with U+2581 for a space. */
  readonly kind: "byte-level" | "sentencepiece";
  /** By id; "" for an id that nothing has. */
  readonly tokens: readonly string[];
  /** TokenType by id. */
  readonly types: Uint8Array;
  /** Best first; "left right" or the two apart. Unused where there are scores. */
  readonly merges: readonly (string | readonly [string, string])[];
  /** By id: pairs merge where their text is a token, highest score first. */
  readonly scores?: Float32Array;
  /** How text is cut into words (byte-level only). */
  readonly rules: readonly RuleName[];
  /** A word that is a token stays whole, whatever the merges say. */
  readonly wholeWords: boolean;
  /** Stands for what is neither token nor byte. */
  readonly unknownId?: number;
  /** Neighbouring unknown characters give one unknown token. */
  readonly fuseUnknown: boolean;
  readonly normalizer: readonly NormalizeStep[];
  /** A decoded text loses the one space that encoding put before it. */
  readonly stripsFirstSpace: boolean;
  readonly added: readonly AddedToken[];
  readonly bosId?: number;
  /** Ids that end a text or a turn. */
  readonly eosIds: readonly number[];
  /** Whether the model asks for a begin-of-text token. */
  readonly addBos: boolean;
}

/** Numbered as in GGUF's tokenizer.ggml.token_type. */
export const enum TokenType {
  Normal = 1,
  Unknown = 2,
  Control = 3,
  UserDefined = 4,
  Unused = 5,
  Byte = 6,
}

/** A token that is looked for in the text before it is cut into words. */
export interface AddedToken {
  readonly id: number;
  /** What to look for; where the token is normalized, after normalisation. */
  readonly text: string;
  /** Takes the white space before it. */
  readonly lstrip: boolean;
  /** Takes the white space behind it. */
  readonly rstrip: boolean;
  /** Counts only where no letter or digit touches it. */
  readonly singleWord: boolean;
  /** Looked for in normalised text, after those that are not. */
  readonly normalized: boolean;
}

/** One step of what happens to text between added tokens before it is cut. */
export type NormalizeStep =
  | { readonly kind: "unicode"; readonly form: "NFC" | "NFD" | "NFKC" | "NFKD" }
  | { readonly kind: "replace"; readonly from: string; readonly to: string }
  /** unlessThere: not before a text that begins so; onlyFirst: not behind an added token. */
  | { readonly kind: "prepend"; readonly text: string; readonly unlessThere: boolean; readonly onlyFirst: boolean };

/** Most tokens of a vocabulary: 16 times what the largest published one has. */
export const MOST_TOKENS = 1 << 22;
/** Most merges. */
export const MOST_MERGES = 1 << 24;

/** Texts that mark the end of a text or turn in published models, where no metadata says so. */
const END_TEXTS: ReadonlySet<string> = new Set([
  "</s>",
  "<eos>",
  "<|endoftext|>",
  "<|end_of_text|>",
  "<｜end▁of▁sentence｜>",
  "<|eot_id|>",
  "<|eom_id|>",
  "<|im_end|>",
  "<|end|>",
  "<|return|>",
  "<|call|>",
  "<end_of_turn>",
  "<turn|>",
  "<end_of_utterance>",
  "<EOT>",
  "_<EOT>",
  "[EOT]",
  "[EOS]",
  "<|fim_pad|>",
  "<|repo_name|>",
  "<|file_sep|>",
]);

/** Ids of added tokens whose text marks an end, and those given. */
export function findEnds(tokens: readonly string[], types: Uint8Array, given: readonly number[]): number[] {
  const ends = new Set(given);
  const texts = new Set<string>();
  for (const [id, type] of types.entries())
    if ((type === TokenType.Control || type === TokenType.UserDefined) && END_TEXTS.has(tokens[id]!)) {
      ends.add(id);
      texts.add(tokens[id]!);
    }
  // Where a model has tokens of its own for returning and calling, <|end|> only closes a message among several.
  if (texts.has("<|return|>") && texts.has("<|call|>")) {
    const end = tokens.indexOf("<|end|>");
    if (!given.includes(end)) ends.delete(end);
  }
  return [...ends];
}

/** Whether the token is spelled as SentencePiece spells single bytes, <0x00> to <0xFF>. */
export function isByteText(text: string): boolean {
  return text.length === 6 && /^<0x[0-9A-Fa-f]{2}>$/.test(text);
}

/** The value as an id of this vocabulary; a `format` error naming it otherwise. */
export function checkId(value: unknown, size: number, what: string): number {
  const id = typeof value === "bigint" ? Number(value) : value;
  if (typeof id !== "number" || !Number.isInteger(id) || id < 0 || id >= size)
    fail("format", `${what} is ${show(value)}, expected the id of one of the ${size} tokens`);
  return id;
}
