// Text <-> ids over text.wasm: puts a vocabulary into its memory, finds added tokens, normalises what lies between and has it
// encoded. Knows TokenizerData, whichever file it came from; the cutting and merging itself is in assembly/text.

import type { Tokenizer } from "./api.ts";
import { fail, show } from "./errors.ts";
import { type AddedToken, type NormalizeStep, type TokenizerData, TokenType } from "./tokenizer/data.ts";
import { normalize } from "./tokenizer/normalize.ts";
import { packRules } from "./tokenizer/rules.ts";
import { widen } from "./tokenizer/stripping.ts";
import { allocate, f32, type TextModule, u8, u32 } from "./wasm.ts";

export type { AddedToken, TokenizerData } from "./tokenizer/data.ts";
export { tokenizerDataFromGguf } from "./tokenizer/gguf.ts";
export { tokenizerDataFromJson } from "./tokenizer/json.ts";

/** What the rest of furcate knows of a tokenizer beyond the public interface. */
export interface ModelTokenizer extends Tokenizer {
  /** Ids that end a text or a turn. */
  readonly eosIds: ReadonlySet<number>;
  /** Texts of all control tokens, and of the unknown one: what a message must not be able to write. */
  readonly controlTexts: readonly string[];
  /** Encodes the parts as one text, but control tokens are recognised only where they lie wholly in `special` parts. */
  encodeParts(parts: readonly TextPart[]): Uint32Array;
  /** The token as text; bytes that are no UTF-8 by themselves as U+FFFD. "" for ids beyond the vocabulary. */
  tokenText(id: number): string;
  tokenBytes(id: number): Uint8Array;
  newDecoder(options?: DecoderOptions): StreamDecoder;
}

export interface TextPart {
  readonly text: string;
  readonly special: boolean;
}

export interface DecoderOptions {
  /** The ids begin a text, so that a space which encoding put there is left out; default false: they continue one. */
  start?: boolean;
}

/** Decodes ids one by one; a code point that is not complete yet is held back. */
export interface StreamDecoder {
  push(id: number): string;
  /** What is still held back, as U+FFFD; the decoder is then as new. */
  flush(): string;
}

/** In text.wasm: no id. */
const NONE = 0xffff_ffff;
// Traits of assembly/text/vocab.ts.
const BYTE_LEVEL = 1;
const WHOLE_WORDS = 2;
const SCORED = 4;
const FUSE_UNKNOWN = 8;
/** Bytes that text.wasm may read, but does not use, behind a text. */
const SLACK = 8;

/** Puts the vocabulary into the module's memory, for good. Errors: `format` for merges or tokens that contradict each other. */
export function createTokenizer(module: TextModule, data: TokenizerData): ModelTokenizer {
  const vocab = fillVocabulary(module, data);
  const tries = fillAdded(module, vocab, data);
  const widened = new Map(
    data.added.filter((token) => token.lstrip || token.rstrip || token.singleWord).map((token) => [token.id, token]),
  );
  const { bosId } = data;
  const eosIds = new Set(data.eosIds);
  const controlTexts = data.tokens.filter(
    (_, id) => data.types[id] === TokenType.Control || data.types[id] === TokenType.Unknown,
  );
  const size = data.tokens.length;
  const encoder: Encoder = { module, vocab, tries, widened, steps: data.normalizer };

  function withBos(ids: Uint32Array, bos: boolean | undefined): Uint32Array {
    if (!bos || !data.addBos || bosId === undefined) return ids;
    const all = new Uint32Array(ids.length + 1);
    all[0] = bosId;
    all.set(ids, 1);
    return all;
  }

  /** UTF-8 of the ids, copied out of the module's memory. */
  function bytesOf(ids: Uint32Array, special: boolean): Uint8Array<ArrayBuffer> {
    const before = module.mark();
    try {
      const from = allocate(module, ids.length * 4, "ids to decode");
      u32(module, from, ids.length).set(ids);
      const length = module.decode(vocab, from, ids.length, special, 0);
      const to = allocate(module, length, "decoded text");
      module.decode(vocab, from, ids.length, special, to);
      return u8(module, to, length).slice();
    } finally {
      module.release(before);
    }
  }

  /** Of tokens that are text by themselves, as far as they were asked for: most are asked for again and again. */
  const texts = new Map<number, string | undefined>();

  /** The token as text without control tokens; undefined where it may be but a part of a character. */
  function ownText(id: number): string | undefined {
    if (!texts.has(id)) {
      const text = newTextDecoder().decode(bytesOf(checkIds([id]), false));
      texts.set(id, text.includes("\ufffd") ? undefined : text);
    }
    return texts.get(id);
  }

  const strip = (text: string) => (data.stripsFirstSpace && text.startsWith(" ") ? text.slice(1) : text);

  return {
    vocabSize: size,
    eosIds,
    controlTexts,

    encode(text, options = {}) {
      if (typeof text !== "string") fail("option", `encode: text is ${show(text)}, expected a string`);
      return withBos(encodeParts(encoder, [{ text, special: options.special === true }]), options.bos);
    },
    encodeParts: (parts) => encodeParts(encoder, parts),
    decode(ids, options = {}) {
      return strip(newTextDecoder().decode(bytesOf(checkIds(ids), options.special === true)));
    },
    tokenText: (id) => newTextDecoder().decode(bytesOf(checkIds([id]), true)),
    tokenBytes: (id) => bytesOf(checkIds([id]), true),

    newDecoder({ start = false } = {}) {
      let decoder: TextDecoder | undefined; // made where a token is no text by itself
      let isHolding = false; // whether it may hold back a part of a character
      let begins = start;
      const finish = (text: string) => {
        if (!begins || text === "") return text;
        begins = false;
        return strip(text);
      };
      return {
        push(id) {
          const text = ownText(id);
          if (text === "" || (text !== undefined && !isHolding)) return finish(text);
          isHolding = text === undefined;
          decoder ??= newTextDecoder();
          return finish(decoder.decode(bytesOf(checkIds([id]), false), { stream: true }));
        },
        flush() {
          const text = isHolding ? finish(decoder?.decode() ?? "") : "";
          isHolding = false;
          begins = start;
          return text;
        },
      };
    },
  };
}

/** Writes tokens, merges and scores into the module; returns the vocabulary's address. */
function fillVocabulary(module: TextModule, data: TokenizerData): number {
  const { tokens, types } = data;
  const text = new TextEncoder().encode(tokens.join(""));
  let traits = data.kind === "byte-level" ? BYTE_LEVEL : 0;
  if (data.wholeWords) traits |= WHOLE_WORDS;
  if (data.scores) traits |= SCORED;
  if (data.fuseUnknown) traits |= FUSE_UNKNOWN;
  const vocab = module.newVocab(tokens.length, text.length, traits, data.unknownId ?? NONE, packRules(data.rules));
  if (vocab === 0) fail("memory", `a vocabulary of ${tokens.length} tokens does not fit in WebAssembly memory`);
  u8(module, module.tokenBytes(vocab), text.length).set(text);
  const lengths = u32(module, module.tokenLengths(vocab), tokens.length);
  for (let id = 0; id < tokens.length; id++) lengths[id] = tokens[id]!.length;
  u8(module, module.tokenTypes(vocab), tokens.length).set(types);
  // Minus zero and zero are one score.
  if (data.scores) f32(module, module.tokenScores(vocab), tokens.length).set(data.scores.map((score) => score + 0));
  const bad = -1 - module.indexTokens(vocab);
  if (bad >= 0)
    fail("format", `token ${bad} is ${show(tokens[bad])}, which is in the vocabulary twice or no well-formed Unicode`);
  if (!data.scores) fillMerges(module, vocab, data);
  return vocab;
}

function fillMerges(module: TextModule, vocab: number, { merges }: TokenizerData): void {
  const lengths = new Uint32Array(2 * merges.length);
  const spelled = merges.map((merge, i) => {
    const isText = typeof merge === "string";
    const isPair = Array.isArray(merge) && merge.length === 2 && merge.every((part) => typeof part === "string");
    const left = isText ? merge.indexOf(" ", 1) : isPair ? merge[0].length : 0;
    const text = isText ? merge : isPair ? `${merge[0]} ${merge[1]}` : "";
    if (left <= 0 || left + 1 >= text.length) fail("format", `merge ${i} is ${show(merge)}, expected two tokens`);
    lengths[2 * i] = left;
    lengths[2 * i + 1] = text.length - left - 1;
    return text;
  });
  const text = new TextEncoder().encode(spelled.join(""));
  if (!module.reserveMerges(vocab, merges.length))
    fail("memory", `${merges.length} merges do not fit in WebAssembly memory`);
  const before = module.mark();
  try {
    const at = allocate(module, text.length + SLACK, "merges");
    const table = allocate(module, lengths.byteLength, "merges");
    u8(module, at, text.length).set(text);
    u32(module, table, lengths.length).set(lengths);
    const unknown = -1 - module.addMerges(vocab, at, table, merges.length);
    if (unknown >= 0)
      fail("format", `merge ${unknown} is ${show(merges[unknown])}, expected both parts and the whole to be tokens`);
  } finally {
    module.release(before);
  }
}

/** Puts added tokens into the tries; says which of the two have any. */
function fillAdded(module: TextModule, vocab: number, data: TokenizerData): [plain: boolean, normalized: boolean] {
  const texts = data.added.map(({ text }) => new TextEncoder().encode(text));
  const longest = texts.reduce((most, text) => Math.max(most, text.length), 0);
  const total = texts.reduce((sum, text) => sum + text.length, 0);
  if (total >= 1 << 24) fail("format", `added tokens have ${total} bytes in all, expected less than 16 MiB`);
  if (!module.reserveAdded(vocab, total))
    fail("memory", `${texts.length} added tokens do not fit in WebAssembly memory`);
  const before = module.mark();
  try {
    const place = allocate(module, longest, "an added token");
    for (const [i, text] of texts.entries()) {
      u8(module, place, text.length).set(text);
      module.addAdded(vocab, data.added[i]!.normalized ? 1 : 0, place, text.length, data.added[i]!.id);
    }
  } finally {
    module.release(before);
  }
  return [data.added.some((token) => !token.normalized), data.added.some((token) => token.normalized)];
}

/** What encoding needs of a tokenizer. */
interface Encoder {
  readonly module: TextModule;
  readonly vocab: number;
  /** Whether there are added tokens for text as it is, and for normalised text. */
  readonly tries: readonly [boolean, boolean];
  /** Added tokens with flags that change their matches. */
  readonly widened: ReadonlyMap<number, AddedToken>;
  readonly steps: readonly NormalizeStep[];
}

/** UTF-8 in the module's memory, and where control tokens count in it: regions is the address of u32 (regionCount, 2). */
interface Text {
  readonly at: number;
  readonly end: number;
  readonly regions: number;
  readonly regionCount: number;
}

function encodeParts(encoder: Encoder, parts: readonly TextPart[]): Uint32Array {
  const { module } = encoder;
  const before = module.mark();
  try {
    const ids: Uint32Array[] = [];
    const whole = parts.length === 1 ? parts[0]!.text : parts.map((part) => part.text).join("");
    const text = writeParts(module, whole, parts);
    forEachPiece(encoder, 0, text, ids, (from, to) => {
      const isWhole = from === text.at && to === text.end;
      encodeBetween(encoder, text, from, to, isWhole ? whole : undefined, ids);
    });
    return concat(ids);
  } finally {
    module.release(before);
  }
}

/** Text between added tokens: normalised, searched for those that count in normalised text, and encoded. */
function encodeBetween(
  encoder: Encoder,
  text: Text,
  from: number,
  to: number,
  known: string | undefined,
  ids: Uint32Array[],
): void {
  const { module, steps } = encoder;
  const encode = (begin: number, end: number) => ids.push(encodePiece(encoder, begin, end));
  if (steps.length > 0) {
    const raw = known ?? newTextDecoder().decode(u8(module, from, to - from));
    const changed = normalize(steps, raw, from === text.at);
    if (changed !== raw) {
      // Bytes have moved, so control tokens count here only where they did in all of the piece.
      const special = isAllSpecial(module, text, from, to);
      const before = module.mark();
      forEachPiece(encoder, 1, writeParts(module, changed, [{ text: changed, special }]), ids, encode);
      module.release(before);
      return;
    }
  }
  forEachPiece(encoder, 1, { ...text, at: from, end: to }, ids, encode);
}

/** Adds the ids of the added tokens in the text, and calls `between` for what lies between them, in order. */
function forEachPiece(
  { module, vocab, tries, widened }: Encoder,
  trie: 0 | 1,
  { at, end, regions, regionCount }: Text,
  ids: Uint32Array[],
  between: (from: number, to: number) => void,
): void {
  let begin = at;
  for (let from = at; tries[trie] && from < end; ) {
    const found = module.nextAdded(vocab, trie, from, end, regions, regionCount);
    if (found === end) break;
    const id = module.matchId();
    from = module.matchEnd();
    const token = widened.get(id);
    const match = token
      ? widen(token, u8(module, at, end - at), begin - at, found - at, from - at)?.map((offset) => offset + at)
      : [found, from];
    if (!match) continue;
    if (begin < match[0]!) between(begin, match[0]!);
    ids.push(Uint32Array.of(id));
    begin = from = match[1]!;
  }
  if (begin < end) between(begin, end);
}

function encodePiece({ module, vocab }: Encoder, from: number, to: number): Uint32Array {
  const before = module.mark();
  try {
    const out = allocate(module, (to - from) * 4, "token ids");
    const count = module.encode(vocab, from, to - from, out);
    if (count < 0) fail("memory", `a text of ${to - from} bytes is too long to encode in WebAssembly memory`);
    return u32(module, out, count).slice();
  } finally {
    module.release(before);
  }
}

/** Writes the text and its regions into scratch memory. `whole` is the parts' texts joined. */
function writeParts(module: TextModule, whole: string, parts: readonly TextPart[]): Text {
  const at = allocate(module, whole.length * 3 + SLACK, "text to encode");
  const regions = allocate(module, parts.length * 8, "text to encode");
  let end = at;
  let begin = 0;
  let stop = 0;
  let regionCount = 0;
  for (const [i, part] of parts.entries()) {
    stop += part.text.length;
    // Neighbours of one kind are one region.
    if (i + 1 < parts.length && parts[i + 1]!.special === part.special) continue;
    // A code point of which two parts have one half each belongs to the one where control tokens do not count.
    const split = begin < stop && isHigh(whole.charCodeAt(stop - 1)) && isLow(whole.charCodeAt(stop));
    const last = Math.max(begin, split ? stop + (part.special ? -1 : 1) : stop);
    end += writeText(whole.slice(begin, last), u8(module, end, (last - begin) * 3));
    begin = last;
    u32(module, regions + regionCount++ * 8, 2).set([end, part.special ? 1 : 0]);
  }
  return { at, end, regions, regionCount };
}

/** Whether control tokens count in all of [from, to). */
function isAllSpecial(module: TextModule, { at, regions, regionCount }: Text, from: number, to: number): boolean {
  const table = u32(module, regions, regionCount * 2);
  let begin = at;
  for (let i = 0; i < table.length; i += 2) {
    if (table[i + 1] === 0 && begin < to && table[i]! > from) return false;
    begin = table[i]!;
  }
  return true;
}

/** Writes the text as UTF-8, lone surrogates as U+FFFD; returns the bytes written. */
function writeText(text: string, target: Uint8Array): number {
  return new TextEncoder().encodeInto(text, target).written;
}

const isHigh = (unit: number) => unit >= 0xd800 && unit <= 0xdbff;
const isLow = (unit: number) => unit >= 0xdc00 && unit <= 0xdfff;

const newTextDecoder = () => new TextDecoder("utf-8", { ignoreBOM: true });

function checkIds(ids: ArrayLike<number>): Uint32Array {
  if (ids instanceof Uint32Array) return ids;
  if (typeof ids !== "object" || ids === null)
    fail("option", `decode: the ids are ${show(ids)}, expected a list of them`);
  for (let i = 0; i < ids.length; i++)
    if (!Number.isInteger(ids[i]) || ids[i] < 0 || ids[i] > 0xffff_ffff)
      fail("option", `decode: id ${i} is ${show(ids[i])}, expected a token id`);
  return Uint32Array.from(ids);
}

function concat(parts: readonly Uint32Array[]): Uint32Array {
  if (parts.length === 1) return parts[0]!;
  const all = new Uint32Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
