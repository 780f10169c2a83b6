// Pre-tokenizer: cuts UTF-8 text into words and hands each to bpe.ts. A pre-tokenizer is a list of rules; a rule is one published
// regular expression (named in src/tokenizer/rules.ts), written out by hand. The first rule cuts the text into its matches and
// what lies between, the next cuts each of those pieces again, and so on; a rule never sees beyond its piece.
//
// A rule is a function of a place in a piece: it returns where the match that begins there ends, or the place itself for none.
// Alternatives are tried in the expression's order, and repetitions give back what backtracking would.

import { encodeWord } from "./bpe";
import { isInCasedRanges } from "./cased-ranges";
import {
  CASELESS,
  LETTER,
  LOWER,
  MARK,
  maskAt,
  NUMBER,
  PUNCTUATION,
  pointAt,
  SPACE,
  SYMBOL,
  UPPER,
  widthAt,
} from "./unicode";
import { BYTE_LEVEL, CUTTABLE, isLowBlock, Vocab } from "./vocab";

let vocab: Vocab = changetype<Vocab>(0);
let out: usize = 0;

/**
 * Ids of a piece of text without added tokens. text: `length` bytes, 8 to spare behind them; ids: room for one u32 per byte.
 * Returns how many, or -1: no memory.
 */
export function encode(at: usize, text: usize, length: usize, ids: usize): i32 {
  vocab = changetype<Vocab>(at);
  out = ids;
  const end = text + length;
  const done = vocab.traits & BYTE_LEVEL ? cut(vocab.rules, text, end) : cutBeforeSpaces(text, end);
  return done ? <i32>((out - ids) >>> 2) : -1;
}

/** Cuts a piece by the first rule of the list and its pieces by the rest. */
function cut(rules: u64, from: usize, to: usize): bool {
  const rule = <u32>rules & 255;
  if (rule === 0) return word(from, to);
  const rest = rules >>> 8;
  let begin = from;
  for (let at = from; at < to; ) {
    const end = match(rule, at, to);
    if (end === at) {
      at = rule === TRAILING_SPACE ? skipSpaces(at, to) : at + widthAt(at);
      continue;
    }
    if (begin < at && !cut(rest, begin, at)) return false;
    if (!cut(rest, at, end)) return false;
    begin = at = end;
  }
  return begin === to || cut(rest, begin, to);
}

function word(from: usize, to: usize): bool {
  const end = encodeWord(vocab, from, to, out);
  if (end === 0) return false;
  out = end;
  return true;
}

/** Words of U+2581 and what follows it, where the vocabulary allows to cut there; else the whole piece is one word. */
function cutBeforeSpaces(from: usize, to: usize): bool {
  if (from === to) return true;
  if (!(vocab.traits & CUTTABLE)) return word(from, to);
  let begin = from;
  let inside = false;
  for (let at = from; at < to; ) {
    if (isLowBlock(at, to)) {
      if (inside) {
        if (!word(begin, at)) return false;
        begin = at;
        inside = false;
      }
      at += 3;
    } else {
      inside = true;
      at++;
    }
  }
  return word(begin, to);
}

// The rules' numbers; src/tokenizer/rules.ts has the same.
const GPT2: u32 = 1;
const CL100K_3: u32 = 2;
const CL100K_1: u32 = 3;
const CL100K_MARKS: u32 = 4;
const O200K: u32 = 5;
const TEKKEN: u32 = 6;
const DEEPSEEK_V3: u32 = 7;
const NUMBER_1: u32 = 8;
const NUMBERS_3: u32 = 9;
const NUMBERS: u32 = 10;
const DIGITS_3: u32 = 11;
const HAN_KANA: u32 = 12;
const HAN_HANGUL: u32 = 13;
const LINE_BREAK: u32 = 14;
const SPACED_LETTERS: u32 = 15;
const SPACED_CASED: u32 = 16;
const SPACED_PUNCTUATION: u32 = 17;
const SPACED_SIGNS: u32 = 18;
const TRAILING_SPACE: u32 = 19;
const FALCON_SIGNS: u32 = 20;
const DEFAULT_SIGNS: u32 = 21;

function match(rule: u32, at: usize, to: usize): usize {
  switch (rule) {
    case GPT2:
      return gpt2(at, to);
    case CL100K_3:
      return cl100k(at, to, 3, LETTER);
    case CL100K_1:
      return cl100k(at, to, 1, LETTER);
    case CL100K_MARKS:
      return cl100k(at, to, 1, LETTER | MARK);
    case O200K:
      return o200k(at, to, 3, true);
    case TEKKEN:
      return o200k(at, to, 1, false);
    case DEEPSEEK_V3:
      return deepseekV3(at, to);
    case NUMBER_1:
      return numbers(at, to, 1);
    case NUMBERS_3:
      return numbers(at, to, 3);
    case NUMBERS:
      return run(at, to, NUMBER);
    case DIGITS_3:
      return isDigit(at, to) && isDigit(at + 1, to) && isDigit(at + 2, to) ? at + 3 : at;
    case HAN_KANA:
      return hanKana(at, to);
    case HAN_HANGUL:
      return hanHangul(at, to);
    case LINE_BREAK:
      return isLineBreak(at) ? at + 1 : at;
    case SPACED_LETTERS:
      return spaced(at, to, LETTER);
    case SPACED_CASED:
      return spacedCased(at, to);
    case SPACED_PUNCTUATION:
      return spaced(at, to, PUNCTUATION);
    case SPACED_SIGNS:
      return spacedSigns(at, to);
    case TRAILING_SPACE:
      return trailingSpace(at, to);
    case FALCON_SIGNS:
      return signs(at, to, true);
    case DEFAULT_SIGNS:
      return signs(at, to, false);
    default:
      return at;
  }
}

/** 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
function gpt2(at: usize, to: usize): usize {
  const end = contraction(at, to, false);
  if (end > at) return end;
  const from = isBlank(at) ? at + 1 : at;
  if (from < to) {
    const mask = maskAt(from);
    if (mask & LETTER) return run(from, to, LETTER);
    if (mask & NUMBER) return run(from, to, NUMBER);
    if (!(mask & SPACE)) return runOutside(from, to, LETTER | NUMBER | SPACE);
  }
  return spaces(at, to);
}

/**
 * (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,most}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * letters: what counts as \p{L} but in the first class, \p{L} alone or with \p{M}.
 */
function cl100k(at: usize, to: usize, most: u32, letters: u32): usize {
  let end = contraction(at, to, true);
  if (end > at) return end;
  const mask = maskAt(at);
  if (!(mask & (LETTER | NUMBER)) && !isLineBreak(at)) {
    const from = at + widthAt(at);
    end = run(from, to, letters);
    if (end > from) return end;
  }
  if (mask & letters) return run(at, to, letters);
  if (mask & NUMBER) return numbers(at, to, most);
  end = marksAndBreaks(at, to, letters | NUMBER | SPACE, false);
  if (end > at) return end;
  end = lineBreaks(at, to);
  return end > at ? end : spaces(at, to);
}

/**
 * [^\r\n\p{L}\p{N}]?[U]*[V]+C?|[^\r\n\p{L}\p{N}]?[U]+[V]*C?|\p{N}{1,most}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
 * with U = \p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}, V = \p{Ll}\p{Lm}\p{Lo}\p{M} and C = (?i:'s|'t|'re|'ve|'m|'ll|'d).
 */
function o200k(at: usize, to: usize, most: u32, contracts: bool): usize {
  if (maskAt(at) & NUMBER) return numbers(at, to, most);
  const wordEnd = casedWord(at, to);
  if (wordEnd > at) return contracts ? contraction(wordEnd, to, true) : wordEnd;
  let end = marksAndBreaks(at, to, LETTER | NUMBER | SPACE, true);
  if (end > at) return end;
  end = lineBreaks(at, to);
  return end > at ? end : spaces(at, to);
}

/** The first two alternatives of o200k without C: first [U]*[V]+, then [U]+, each with and then without a character before. */
function casedWord(at: usize, to: usize): usize {
  const bare = maskAt(at) & LETTER || isLineBreak(at) ? at : at + widthAt(at);
  let end = lowering(bare, to);
  if (end > bare) return end;
  end = lowering(at, to);
  if (end > at) return end;
  end = run(bare, to, UPPER | CASELESS | MARK);
  return end > bare ? end : run(at, to, UPPER | CASELESS | MARK);
}

/** [U]*[V]+ of o200k; `at` for no match. */
function lowering(at: usize, to: usize): usize {
  let end = at;
  let lastEither = at;
  while (end < to) {
    const mask = maskAt(end);
    if (mask & LOWER) return run(end, to, LOWER | CASELESS | MARK);
    if (!(mask & (UPPER | CASELESS | MARK))) break;
    end += widthAt(end);
    // Where no lower case follows, the last character that is in both classes is given back to [V]+.
    if (mask & (CASELESS | MARK)) lastEither = end;
  }
  return lastEither;
}

/**
 * [ASCII punctuation][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 */
function deepseekV3(at: usize, to: usize): usize {
  const lead: u32 = load<u8>(at);
  const mask = maskAt(at);
  let end: usize;
  if (lead < 0x80 && mask & (PUNCTUATION | SYMBOL)) {
    end = at + 1;
    while (end < to && isLatin(load<u8>(end))) end++;
    if (end > at + 1) return end;
  }
  if (!(mask & (LETTER | PUNCTUATION | SYMBOL)) && !isLineBreak(at)) {
    const from = at + widthAt(at);
    end = run(from, to, LETTER | MARK);
    if (end > from) return end;
  }
  if (mask & (LETTER | MARK)) return run(at, to, LETTER | MARK);
  const from = isBlank(at) ? at + 1 : at;
  end = run(from, to, PUNCTUATION | SYMBOL);
  if (end > from) {
    while (end < to && isLineBreak(end)) end++;
    return end;
  }
  end = lineBreaks(at, to);
  return end > at ? end : spaces(at, to);
}

/** 's|'t|'re|'ve|'m|'ll|'d; with `anyCase` (?i:…), where U+017F is an s too. */
function contraction(at: usize, to: usize, anyCase: bool): usize {
  if (at + 1 >= to || load<u8>(at) !== 0x27) return at;
  const bit: u32 = anyCase ? 0x20 : 0;
  const letter = load<u8>(at, 1) | bit;
  switch (letter) {
    case 0x73: // s
    case 0x74: // t
    case 0x6d: // m
    case 0x64: // d
      return at + 2;
    case 0xe5: // U+017F is c5 bf; with the bit of lower case set, e5
      return load<u8>(at, 1) === 0xc5 && load<u8>(at, 2) === 0xbf ? at + 3 : at;
  }
  if (at + 2 >= to) return at;
  const second = load<u8>(at, 2) | bit;
  if (letter === 0x6c) return second === 0x6c ? at + 3 : at; // ll
  if (letter === 0x72 || letter === 0x76) return second === 0x65 ? at + 3 : at; // re, ve
  return at;
}

/** ` ?[^outside]+[\r\n]*`, or with a slash among the breaks. */
function marksAndBreaks(at: usize, to: usize, outside: u32, slash: bool): usize {
  const from = isBlank(at) ? at + 1 : at;
  let end = runOutside(from, to, outside);
  if (end === from) return at;
  while (end < to && (isLineBreak(end) || (slash && load<u8>(end) === 0x2f))) end++;
  return end;
}

/** \s*[\r\n]+: white space up to its last line break. */
function lineBreaks(at: usize, to: usize): usize {
  let end = at;
  while (at < to && maskAt(at) & SPACE) {
    const isBreak = isLineBreak(at);
    at += widthAt(at);
    if (isBreak) end = at;
  }
  return end;
}

/** \s+(?!\S)|\s+: all white space at the end of the piece; else all but the last, which the next word may take. */
function spaces(at: usize, to: usize): usize {
  let end = at;
  let last = at;
  while (end < to && maskAt(end) & SPACE) {
    last = end;
    end += widthAt(end);
  }
  return end < to && last > at ? last : end;
}

/** \s+$ */
function trailingSpace(at: usize, to: usize): usize {
  return skipSpaces(at, to) === to && maskAt(at) & SPACE ? to : at;
}

/** The next place at which \s+$ can begin to match: behind the white space at `at`, or behind the one character. */
function skipSpaces(at: usize, to: usize): usize {
  const end = run(at, to, SPACE);
  return end > at ? end : at + widthAt(at);
}

/** \p{N}{1,most} */
function numbers(at: usize, to: usize, most: u32): usize {
  for (; most > 0 && at < to && maskAt(at) & NUMBER; most--) at += widthAt(at);
  return at;
}

/** \s?[class]+ */
function spaced(at: usize, to: usize, mask: u32): usize {
  const from = afterSpace(at, to);
  const end = run(from, to, mask);
  return end > from ? end : at;
}

/** \s?[cased letters]+, the letters as DeepSeek LLM lists them. */
function spacedCased(at: usize, to: usize): usize {
  const from = afterSpace(at, to);
  let end = from;
  while (end < to && isInCasedRanges(pointAt(end))) end += widthAt(end);
  return end > from ? end : at;
}

/** \s?[!-/:-~！-／：-～‘-‟　-。]+ */
function spacedSigns(at: usize, to: usize): usize {
  const from = afterSpace(at, to);
  let end = signRun(from, to);
  if (end > from) return end;
  // U+3000 is white space as well as a sign: alone it is given back to the signs.
  end = signRun(at, to);
  return end;
}

function signRun(at: usize, to: usize): usize {
  for (; at < to; at += widthAt(at)) {
    const point = pointAt(at);
    const isSign =
      point < 0x80
        ? (point >= 0x21 && point <= 0x2f) || (point >= 0x3a && point <= 0x7e)
        : (point >= 0xff01 && point <= 0xff0f) ||
          (point >= 0xff1a && point <= 0xff5e) ||
          (point >= 0x2018 && point <= 0x201f) ||
          (point >= 0x3000 && point <= 0x3002);
    if (!isSign) break;
  }
  return at;
}

/** [一-龥぀-ゟ゠-ヿ]+ */
function hanKana(at: usize, to: usize): usize {
  for (; at < to; at += 3) {
    const point = pointAt(at);
    if (!((point >= 0x4e00 && point <= 0x9fa5) || (point >= 0x3040 && point <= 0x30ff))) break;
  }
  return at;
}

/** [一-龥ࠀ-一가-퟿]+ */
function hanHangul(at: usize, to: usize): usize {
  for (; at < to; at += 3) {
    const point = pointAt(at);
    if (!((point >= 0x0800 && point <= 0x9fa5) || (point >= 0xac00 && point <= 0xd7ff))) break;
  }
  return at;
}

/** [\p{P}\$\+<=>\^~\|`]+, or without the backquote. */
function signs(at: usize, to: usize, backquote: bool): usize {
  for (; at < to; at += widthAt(at)) {
    const mask = maskAt(at);
    if (mask & PUNCTUATION) continue;
    // The symbols of ASCII are exactly those that the expression lists.
    const byte: u32 = load<u8>(at);
    if (!(mask & SYMBOL) || byte >= 0x80 || (byte === 0x60 && !backquote)) break;
  }
  return at;
}

/** The end of the characters of these classes. */
function run(at: usize, to: usize, mask: u32): usize {
  while (at < to && maskAt(at) & mask) at += widthAt(at);
  return at;
}

/** The end of the characters of no such class. */
function runOutside(at: usize, to: usize, mask: u32): usize {
  while (at < to && !(maskAt(at) & mask)) at += widthAt(at);
  return at;
}

function afterSpace(at: usize, to: usize): usize {
  if (!(maskAt(at) & SPACE)) return at;
  const after = at + widthAt(at);
  return after < to ? after : at;
}

// @ts-ignore: decorator
@inline
function isBlank(at: usize): bool {
  return load<u8>(at) === 0x20;
}

// @ts-ignore: decorator
@inline
function isLineBreak(at: usize): bool {
  const byte = load<u8>(at);
  return byte === 0x0a || byte === 0x0d;
}

// @ts-ignore: decorator
@inline
function isLatin(byte: u8): bool {
  return (byte | 0x20) >= 0x61 && (byte | 0x20) <= 0x7a;
}

// @ts-ignore: decorator
@inline
function isDigit(at: usize, to: usize): bool {
  return at < to && load<u8>(at) >= 0x30 && load<u8>(at) <= 0x39;
}
