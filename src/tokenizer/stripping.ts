// What the flags of an added token do to its match: single words only, and white space taken on either side.
// Knows UTF-8 bytes; nothing of tokens' texts.

import type { AddedToken } from "./data.ts";

/** The match [begin, end) with the white space it takes, not before `from`; undefined where its neighbours forbid it. */
export function widen(
  token: AddedToken,
  text: Uint8Array,
  from: number,
  begin: number,
  end: number,
): [begin: number, end: number] | undefined {
  if (token.singleWord && (touchesWord(text, begin, -1) || touchesWord(text, end, 1))) return undefined;
  if (token.lstrip)
    for (let width = 1; begin > from && width > 0; begin -= width) width = spaceBefore(text, from, begin);
  if (token.rstrip) for (let width = 1; end < text.length && width > 0; end += width) width = spaceAt(text, end);
  return [begin, end];
}

/** Bytes of the white space that begins at `at`; 0 for none. White space is the Unicode property, which no regular expression of
 *  JavaScript has. */
function spaceAt(text: Uint8Array, at: number): number {
  const lead = text[at]!;
  if (lead === 0x20 || (lead >= 0x09 && lead <= 0x0d)) return 1;
  if (lead === 0xc2) return text[at + 1] === 0x85 || text[at + 1] === 0xa0 ? 2 : 0;
  if (lead < 0xe1 || lead > 0xe3) return 0;
  const rest = (text[at + 1]! << 8) | text[at + 2]!;
  if (lead === 0xe1) return rest === 0x9a80 ? 3 : 0;
  if (lead === 0xe3) return rest === 0x8080 ? 3 : 0;
  const spaces =
    (rest >= 0x8080 && rest <= 0x808a) || rest === 0x80a8 || rest === 0x80a9 || rest === 0x80af || rest === 0x819f;
  return spaces ? 3 : 0;
}

function spaceBefore(text: Uint8Array, from: number, at: number): number {
  for (let width = 1; width <= 3 && at - width >= from; width++) if (spaceAt(text, at - width) === width) return width;
  return 0;
}

const WORD = /^[\p{Alphabetic}\p{M}\p{Nd}\p{Pc}\p{Join_Control}]/u;

/** Whether a letter, mark, digit or the like stands next to `at`: before it (-1) or behind it (1). */
function touchesWord(text: Uint8Array, at: number, side: -1 | 1): boolean {
  let begin = at;
  if (side < 0) {
    if (at === 0) return false;
    do begin--;
    while (begin > 0 && (text[begin]! & 0xc0) === 0x80);
  }
  return (
    begin < text.length &&
    WORD.test(new TextDecoder("utf-8", { ignoreBOM: true }).decode(text.subarray(begin, begin + 4)))
  );
}
