// Chat templates: messages -> text, and which of that text came from the messages, so that no message can forge control tokens.
// Renders with @huggingface/jinja. Knows templates; nothing of ids.

import { Template } from "@huggingface/jinja";
import type { Message } from "./api.ts";
import { fail } from "./errors.ts";

/** A piece of rendered text; control tokens count only where `special` is true. */
export interface Part {
  readonly text: string;
  readonly special: boolean;
}

export interface ChatTemplate {
  /** The rendered conversation. Errors: `option` for messages that the template refuses. */
  render(messages: readonly Message[], options?: RenderOptions): Part[];
}

export interface RenderOptions {
  /** Ends with the opening of the assistant's turn; default true. */
  addGenerationPrompt?: boolean;
  tools?: readonly unknown[];
}

/**
 * A chat template. specialTexts: the texts of all control tokens; variables: what the template may refer to by name besides
 * messages, such as bos_token. Errors: `format` for a template that cannot be parsed.
 */
export function createChatTemplate(
  source: string,
  specialTexts: readonly string[],
  variables: Readonly<Record<string, string>>,
): ChatTemplate {
  let template: Template;
  try {
    template = new Template(source);
    speakPython(template.parsed);
  } catch (cause) {
    fail("format", `chat template: ${(cause as Error).message}`, { cause });
  }
  const special = new RegExp(
    specialTexts
      .filter((text) => text.length > 0)
      .sort((a, b) => b.length - a.length)
      .map((text) => text.replace(/[.*+?^${}()|[\]\\/-]/g, "\\$&"))
      .join("|") || "(?!)",
    "g",
  );

  /** A message's text with fences around control tokens' texts, and around what could become one beside its neighbours. */
  function fenced(text: string, fence: (text: string) => string): string {
    const begin = longest(specialTexts, (control, length) => text.startsWith(control.slice(-length)));
    const end = longest(specialTexts, (control, length) => text.endsWith(control.slice(0, length)));
    if (begin + end > text.length) return fence(text);
    const middle = text.slice(begin, text.length - end).replace(special, fence);
    const head = begin > 0 ? fence(text.slice(0, begin)) : "";
    return head + middle + (end > 0 ? fence(text.slice(text.length - end)) : "");
  }

  return {
    render(messages, { addGenerationPrompt = true, tools } = {}) {
      checkMessages(messages);
      // Control tokens' texts inside messages are fenced with two noncharacters that the messages do not contain; the fences
      // survive the template's trimming and comparing, and show afterwards what is plain text.
      const [open, close] = fences(textOf(messages) + textOf(tools ?? null));
      const made = new Set<string>();
      const fence = (text: string) => {
        made.add(text);
        return open + text + close;
      };
      const safe = <T>(value: T): T => mapTexts(value, (text) => fenced(text, fence)) as T;
      let text: string;
      try {
        text = template.render({
          ...variables,
          ...python(open, close),
          messages: safe(messages),
          tools: tools ? safe(tools) : undefined,
          add_generation_prompt: addGenerationPrompt,
        });
      } catch (cause) {
        fail("option", `chat template: ${(cause as Error).message}`, { cause });
      }
      return split(text, open, close, made);
    },
  };
}

/**
 * What templates mean by these, and the library does otherwise: it leaves out the characters to strip, strips what JavaScript calls
 * white space, and compares as loosely as JavaScript does. Under names that no template can write. Stripping goes on behind fences, of
 * which a template may leave one alone where it splits at a control token's text.
 */
function python(open: string, close: string): Record<string, (...of: unknown[]) => unknown> {
  const isFence = (character: string) => character === open || character === close;
  const strip = (left: boolean, right: boolean) => (of: unknown, characters: unknown) => {
    const goes = (character: string) =>
      typeof characters === "string" ? characters.includes(character) : isWhite(character);
    const all = [...(typeof of === "string" ? of : String(of ?? ""))];
    let [begin, end] = [0, all.length];
    while (left && begin < end && (isFence(all[begin]) || goes(all[begin]))) begin++;
    while (right && end > begin && (isFence(all[end - 1]) || goes(all[end - 1]))) end--;
    const kept = (part: string[]) => part.filter(isFence);
    return [...kept(all.slice(0, begin)), ...all.slice(begin, end), ...kept(all.slice(end))].join("");
  };
  return {
    "str.strip": strip(true, true),
    "str.lstrip": strip(true, false),
    "str.rstrip": strip(false, true),
    "object.eq": isEqual,
    "object.ne": (a, b) => !isEqual(a, b),
  };
}

/** As str.isspace has it. */
const isWhite = (character: string) =>
  (/\s/u.test(character) && character !== "\ufeff") || "\x1c\x1d\x1e\x1f\x85".includes(character);

/** True and false are numbers; of lists and objects each is itself alone. */
function isEqual(a: unknown, b: unknown): boolean {
  const isNumber = (value: unknown) => typeof value === "number" || typeof value === "boolean";
  return isNumber(a) && isNumber(b) ? Number(a) === Number(b) : a === b;
}

/** Makes calls of the above of what a parsed template has in their place: methods, the filter trim, == and !=. */
function speakPython(node: unknown): void {
  if (node === null || typeof node !== "object") return;
  for (const child of node instanceof Map ? [...node].flat() : Object.values(node)) speakPython(child);
  const { type, callee, args = [], operand, filter, operator, left, right } = node as Parsed;
  const call = (value: string, ...args: unknown[]) =>
    Object.assign(node, { type: "CallExpression", callee: { type: "Identifier", value }, args });
  const method = callee?.computed === false ? callee.property?.value : undefined;
  if (type === "CallExpression" && /^[lr]?strip$/.test(method ?? "")) call(`str.${method}`, callee?.object, ...args);
  const name = filter?.callee?.value ?? filter?.value;
  if (type === "FilterExpression" && name === "trim") call("str.strip", operand, ...(filter?.args ?? []));
  if (type !== "BinaryExpression") return;
  if (operator?.value === "==") call("object.eq", left, right);
  if (operator?.value === "!=") call("object.ne", left, right);
}

/** Of a parsed template, as far as it is looked at here. */
interface Parsed {
  readonly type?: string;
  readonly callee?: Parsed & { readonly object?: unknown; readonly property?: Parsed; readonly computed?: boolean };
  readonly args?: unknown[];
  readonly operand?: unknown;
  readonly filter?: Parsed;
  readonly operator?: Parsed;
  readonly left?: unknown;
  readonly right?: unknown;
  readonly value?: string;
}

/** The longest proper part of any text, from 1 character on, that matches; 0 where none does. */
function longest(texts: readonly string[], matches: (text: string, length: number) => boolean): number {
  let found = 0;
  for (const text of texts) {
    for (let length = text.length - 1; length > found; length--) if (matches(text, length)) found = length;
  }
  return found;
}

function checkMessages(messages: readonly Message[]): void {
  if (!Array.isArray(messages)) fail("option", `messages are ${typeof messages}, expected a list of { role, content }`);
  messages.forEach((message, i) => {
    for (const field of ["role", "content"] as const) {
      const got = message?.[field];
      if (typeof got !== "string") fail("option", `messages[${i}].${field} is ${typeof got}, expected a string`);
    }
  });
}

/** All that messages or tools contain. Errors: `option` for what is no JSON. */
function textOf(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch (cause) {
    return fail("option", `messages: ${(cause as Error).message}, expected what JSON can hold`, { cause });
  }
}

/** Two of Unicode's 32 noncharacters U+FDD0 … U+FDEF that the text lacks. */
function fences(text: string): [string, string] {
  const free: string[] = [];
  for (let code = 0xfdd0; code <= 0xfdef && free.length < 2; code++) {
    const character = String.fromCharCode(code);
    if (!text.includes(character)) free.push(character);
  }
  if (free.length < 2)
    fail("option", "messages: all of the noncharacters U+FDD0 to U+FDEF occur, expected two at least to be free");
  return [free[0], free[1]];
}

function mapTexts(value: unknown, change: (text: string) => string): unknown {
  if (typeof value === "string") return change(value);
  if (Array.isArray(value)) return value.map((item) => mapTexts(item, change));
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [change(key), mapTexts(item, change)]));
}

/**
 * From an opening fence to a closing one what was fenced, or what stripping left of it, is plain; other fences are what a template left
 * of a pair, and mean nothing.
 */
function split(text: string, open: string, close: string, made: ReadonlySet<string>): Part[] {
  const parts: Part[] = [];
  const add = (text: string, special: boolean) => {
    const last = parts[parts.length - 1];
    if (last?.special === special && special) parts[parts.length - 1] = { text: last.text + text, special };
    else if (text) parts.push({ text, special });
  };
  // Texts and fences by turns.
  const pieces = text.split(new RegExp(`([${open}${close}])`));
  for (let i = 0; i < pieces.length; i += 2) {
    const isBetween = pieces[i - 1] === open && pieces[i + 1] === close;
    add(pieces[i], !(isBetween && [...made].some((text) => text.includes(pieces[i]))));
  }
  return parts;
}
