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
    giveArguments(template.parsed);
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
  function fenced(text: string, open: string, close: string): string {
    const begin = longest(specialTexts, (control, length) => text.startsWith(control.slice(-length)));
    const end = longest(specialTexts, (control, length) => text.endsWith(control.slice(0, length)));
    if (begin + end > text.length) return `${open}${text}${close}`;
    const middle = text.slice(begin, text.length - end).replace(special, `${open}$&${close}`);
    const head = begin > 0 ? `${open}${text.slice(0, begin)}${close}` : "";
    return head + middle + (end > 0 ? `${open}${text.slice(text.length - end)}${close}` : "");
  }

  return {
    render(messages, { addGenerationPrompt = true, tools } = {}) {
      checkMessages(messages);
      // Control tokens' texts inside messages are fenced with two noncharacters that the messages do not contain; the fences
      // survive the template's trimming and comparing, and show afterwards what is plain text.
      const [open, close] = fences(textOf(messages) + textOf(tools ?? null));
      const fence = <T>(value: T): T => mapTexts(value, (text) => fenced(text, open, close)) as T;
      let text: string;
      try {
        text = template.render({
          ...variables,
          ...STRIPS,
          messages: fence(messages),
          tools: tools ? fence(tools) : undefined,
          add_generation_prompt: addGenerationPrompt,
        });
      } catch (cause) {
        fail("option", `chat template: ${(cause as Error).message}`, { cause });
      }
      return split(text, open, close);
    },
  };
}

/** Python's str.strip and its kin with characters to strip, which the library leaves out; under names that no template can write. */
const STRIPS: Readonly<Record<string, (text: string, characters: unknown) => string>> = {
  "str.strip": (text, characters) => stripped(text, characters, true, true),
  "str.lstrip": (text, characters) => stripped(text, characters, true, false),
  "str.rstrip": (text, characters) => stripped(text, characters, false, true),
};

function stripped(text: string, characters: unknown, left: boolean, right: boolean): string {
  const all = [...text];
  const goes = (character: string) =>
    typeof characters === "string" ? characters.includes(character) : /\s/u.test(character);
  let [begin, end] = [0, all.length];
  while (left && begin < end && goes(all[begin])) begin++;
  while (right && end > begin && goes(all[end - 1])) end--;
  return all.slice(begin, end).join("");
}

/** Makes calls of STRIPS of the methods of that name that are given arguments, in a parsed template. */
function giveArguments(node: unknown): void {
  if (node === null || typeof node !== "object") return;
  if (node instanceof Map) giveArguments([...node]);
  else for (const child of Object.values(node)) giveArguments(child);
  const { type, callee, args } = node as { type?: string; callee?: Callee; args?: unknown[] };
  const name = `str.${callee?.property?.value}`;
  if (type !== "CallExpression" || !args?.length || callee?.computed || !Object.hasOwn(STRIPS, name)) return;
  Object.assign(node, { callee: { type: "Identifier", value: name }, args: [callee?.object, ...args] });
}

/** What is called in a template, where it is a member of something. */
interface Callee {
  readonly object?: unknown;
  readonly property?: { readonly value?: unknown };
  readonly computed?: boolean;
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

/** From an opening fence to the next closing one, text is plain. */
function split(text: string, open: string, close: string): Part[] {
  const parts: Part[] = [];
  let special = true;
  let piece = "";
  const end = () => {
    if (piece) parts.push({ text: piece, special });
    piece = "";
  };
  for (const character of text.split(new RegExp(`([${open}${close}])`))) {
    if (character === open || character === close) {
      end();
      special = character === close;
    } else piece += character;
  }
  end();
  return parts;
}
