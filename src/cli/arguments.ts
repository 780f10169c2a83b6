// The command line: one table of options from which both the parser and the help are made. Knows no files and no models.

import { parseArgs } from "node:util";
import type { GenerateOptions, LoadOptions } from "furcate";

export interface Arguments {
  /** "demo": no command was given. */
  command: "demo" | "maze" | "generate" | "tokenize" | "serve" | "help" | "version";
  prompt?: string;
  model?: string;
  file?: string;
  system?: string;
  raw?: boolean;
  json?: boolean;
  full?: boolean;
  host?: string;
  port?: number;
  load: Pick<LoadOptions, "backend" | "contextLength" | "memoryLimit">;
  generate: Omit<GenerateOptions, "rank"> & { rank?: "mean-logprob" | "vote" | "none" };
}

/** A command line that cannot be understood. */
export class UsageError extends Error {}

interface Option {
  /** Which part of Arguments takes it, under its name in camel case. */
  to: "args" | "load" | "generate";
  /** A placeholder of KINDS, words to choose from, or nothing for a flag. */
  kind: keyof typeof KINDS | "TEXTS" | "" | readonly string[];
  help: string;
  short?: string;
  min?: number;
  max?: number;
}

/** How a value is read; undefined where it cannot be. */
const KINDS = {
  TEXT: (text: string) => text,
  FILE: (text: string) => text,
  N: (text: string) => (/^-?\d+$/.test(text) && Number.isSafeInteger(Number(text)) ? Number(text) : undefined),
  X: (text: string) => (/\d/.test(text) && Number.isFinite(Number(text)) ? Number(text) : undefined),
  SIZE: parseSize,
};

// biome-ignore format: a table
const OPTIONS: Record<string, Record<string, Option>> = {
  Model: {
    model: { to: "args", kind: "FILE", short: "m", help: "GGUF file, a path or a URL; default: $FURCATE_MODEL" },
    backend: { to: "load", kind: ["auto", "wasm", "webgpu"], help: "default: auto" },
    "context-length": { to: "load", kind: "N", min: 1, help: "most tokens of prompt and answer; default: the model's" },
    "memory-limit": { to: "load", kind: "SIZE", min: 1, help: "most bytes for weights and K/V: 512M, 2G, 1.5GiB" },
  },
  Prompt: {
    file: { to: "args", kind: "FILE", short: "f", help: "read the prompt from a file; - is standard input" },
    system: { to: "args", kind: "TEXT", help: "system message before the prompt" },
    raw: { to: "args", kind: "", help: "continue the text as it stands; default: put it as a user's message,\nthrough the model's chat template where it has one" },
  },
  Sampling: {
    n: { to: "generate", kind: "N", short: "n", min: 1, max: 65536, help: "number of choices; default: 1" },
    "max-tokens": { to: "generate", kind: "N", min: 0, help: "most tokens of a choice; default: what the context leaves" },
    temperature: { to: "generate", kind: "X", short: "t", min: 0, help: "default: 1; 0 takes the likeliest token" },
    "top-k": { to: "generate", kind: "N", min: 0, help: "only the k likeliest tokens; 0: all" },
    "top-p": { to: "generate", kind: "X", min: 1e-9, max: 1, help: "only the likeliest tokens that make up p" },
    "min-p": { to: "generate", kind: "X", min: 0, max: 1, help: "only tokens p times as likely as the likeliest" },
    "repetition-penalty": { to: "generate", kind: "X", min: 0.01, max: 100, help: "on tokens of prompt and answer; 1: off" },
    "presence-penalty": { to: "generate", kind: "X", min: -100, max: 100, help: "on tokens of the answer; 0: off" },
    "frequency-penalty": { to: "generate", kind: "X", min: -100, max: 100, help: "on tokens of the answer, each time; 0: off" },
    seed: { to: "generate", kind: "N", short: "s", help: "the same seed gives the same choices; default: random" },
    stop: { to: "generate", kind: "TEXTS", help: "end before this text; \\n is a newline; may be repeated" },
    "ignore-eos": { to: "generate", kind: "", help: "go on after the model's end token" },
    attention: { to: "generate", kind: ["auto", "two-part", "one-part"], help: "default: auto, the faster one" },
  },
  Output: {
    rank: { to: "generate", kind: ["mean-logprob", "vote", "none"], help: "default: mean-logprob" },
    full: { to: "args", kind: "", help: "show every choice whole, though the screen be small" },
    json: { to: "args", kind: "", help: "print one JSON document: choices, usage, stats" },
    logprobs: { to: "generate", kind: "N", min: 0, help: "with --json: each token's log-probability and N alternatives" },
  },
  Server: {
    host: { to: "args", kind: "TEXT", help: "name or address to listen at; default: 127.0.0.1, this machine alone" },
    port: { to: "args", kind: "N", short: "p", min: 0, max: 65535, help: "default: 8080; 0 takes a free one" },
  },
  Other: {
    help: { to: "args", kind: "", short: "h", help: "print help" },
    version: { to: "args", kind: "", short: "v", help: "print the version" },
  },
};

const ALL: Record<string, Option> = Object.assign({}, ...Object.values(OPTIONS));

/** Reads the arguments behind the program's name. Errors: UsageError. */
export function parseArguments(argv: readonly string[]): Arguments {
  const { values, positionals } = parse(argv);
  const [command = "demo", ...words] = positionals;
  const args = { load: {}, generate: {} } as Arguments;
  for (const [name, value] of Object.entries(values)) {
    const { to } = ALL[name];
    const key = name.replace(/-./g, (dash) => dash[1].toUpperCase());
    Object.assign(to === "args" ? args : args[to], { [key]: convert(name, value) });
  }
  if (values.version) return { ...args, command: "version" };
  if (values.help || command === "help") return { ...args, command: "help", prompt: positionals.at(-1) };
  if (!isCommand(command)) throw new UsageError(`unknown command "${command}"; expected ${COMMANDS.join(", ")}`);
  if (command === "maze" && words.length > 0) throw new UsageError("maze takes no text; --file gives it a maze");
  if (command === "serve" && (words.length > 0 || args.file !== undefined)) {
    throw new UsageError("serve takes no text: prompts come over HTTP");
  }
  const unused = Object.keys(values).find((name) =>
    UNUSED[command].some((part) => part === name || (part in OPTIONS && name in OPTIONS[part])),
  );
  if (unused) {
    const what = command === "demo" ? "what runs without a command" : command;
    throw new UsageError(`${spell(unused)} does not go with ${what}`);
  }
  if (args.generate.logprobs !== undefined && !args.json) throw new UsageError("--logprobs goes with --json");
  if (words.length > 0) args.prompt = words.join(" ");
  if (args.prompt !== undefined && args.file !== undefined) throw new UsageError("give a prompt or --file, not both");
  if (args.raw && args.system !== undefined)
    throw new UsageError("--system cannot go with --raw: it needs the template");
  if ((command === "generate" || command === "tokenize") && args.prompt === undefined && args.file === undefined) {
    throw new UsageError(`${command} needs a text or --file`);
  }
  return { ...args, command };
}

/** Parts of the table, and single options, that say nothing to a command. */
const UNUSED: Record<(typeof COMMANDS)[number] | "demo", readonly string[]> = {
  demo: ["Server"],
  generate: ["Server"],
  maze: ["Server", "system", "raw", "rank", "full"],
  tokenize: ["Sampling", "Output", "Server", "system", "raw", "backend", "context-length", "memory-limit"],
  serve: ["Prompt", "Sampling", "Output"],
};
/** What may be named; "demo" is what runs where nothing is. */
const COMMANDS = ["generate", "tokenize", "serve", "maze"] as const;
const isCommand = (word: string): word is (typeof COMMANDS)[number] | "demo" =>
  word === "demo" || COMMANDS.some((command) => command === word);

function parse(argv: readonly string[]): { values: Record<string, unknown>; positionals: string[] } {
  const options = Object.entries(ALL).map(([name, { kind, short }]) => {
    const type = kind === "" ? ("boolean" as const) : ("string" as const);
    return [name, { type, multiple: kind === "TEXTS", ...(short && { short }) }];
  });
  try {
    return parseArgs({ args: [...argv], options: Object.fromEntries(options), allowPositionals: true });
  } catch (error) {
    throw new UsageError((error as Error).message.replace(/\s+/g, " "));
  }
}

function convert(name: string, value: unknown): unknown {
  const { kind, min = Number.NEGATIVE_INFINITY, max = Number.POSITIVE_INFINITY } = ALL[name];
  if (kind === "") return value;
  if (kind === "TEXTS") {
    const texts = (value as string[]).map((text) => text.replaceAll("\\n", "\n"));
    if (texts.includes("")) throw new UsageError(`${spell(name)} "": expected a text`);
    return texts;
  }
  const got = typeof kind === "string" ? KINDS[kind](value as string) : kind.find((word) => word === value);
  if (got !== undefined && (typeof got === "string" || (got >= min && got <= max))) return got;
  const nouns = {
    N: "a whole number",
    X: "a number",
    SIZE: "a number of bytes such as 512M or 2G",
    TEXT: "a text",
    FILE: "a file",
  };
  const expected = typeof kind === "string" ? nouns[kind] : kind.join(", ");
  const range = [min > -Infinity && ` of at least ${min}`, max < Infinity && ` at most ${max}`].filter(Boolean);
  throw new UsageError(`${spell(name)} ${JSON.stringify(value)}: expected ${expected}${range.join(" and")}`);
}

/** Bytes of "1048576", "512M", "2G" (powers of 1000) or "2GiB" (of 1024); undefined for anything else. */
export function parseSize(text: string): number | undefined {
  const match = /^(\d+(?:\.\d+)?)(?:([kmgt])(i?)b?|b)?$/i.exec(text);
  if (!match) return undefined;
  const [, digits, unit = "b", binary] = match;
  return Math.floor(Number(digits) * (binary ? 1024 : 1000) ** "bkmgt".indexOf(unit.toLowerCase()));
}

/** The help of the program, or of one command. */
export function help(command?: string): string {
  if (command === "tokenize") return HELP_TOKENIZE;
  if (command === "maze") return HELP_MAZE;
  if (command === "serve") return `${HELP_SERVE}\n${section("Model")}\n${section("Server")}`;
  if (command !== "generate") return HELP;
  const sections = Object.keys(OPTIONS).filter((title) => title !== "Server");
  return `furcate generate [options] "prompt"\n\n${sections.map(section).join("\n")}\n${HELP_END}`;
}

function section(title: string): string {
  const rows = Object.entries(OPTIONS[title]).map(([name, option]) => {
    const { kind, short = name, help } = option;
    const value = typeof kind === "string" ? kind.replace("TEXTS", "TEXT") : "NAME";
    const words = typeof kind === "string" ? "" : `${kind.join(", ")}; `;
    const left = `${short !== name ? `-${short}, ` : ""}${spell(name)} ${value}`;
    return `  ${left.padEnd(25)} ${words}${help.replace("\n", `\n${" ".repeat(28)}`)}\n`;
  });
  return `${title}\n${rows.join("")}`;
}

const spell = (name: string) => (name.length === 1 ? `-${name}` : `--${name}`);

const HELP = `furcate: many answers from one prompt, on your own device

  furcate                                a demonstration: 64 paths through a maze
  furcate generate [options] "prompt"    n choices of your prompt
  furcate tokenize [options] "text"      a text's tokens
  furcate serve [options]                the OpenAI endpoint and a page, over HTTP
  furcate maze [options]                 the demonstration, by its name
  furcate COMMAND --help                 all options
  furcate --version

Example
  furcate generate --model model.gguf -n 16 "Name a river."
`;
const HELP_TOKENIZE = `furcate tokenize [options] "text"

Prints a line for each token: its id, and its text as JSON. Reads no weights.

  -m, --model FILE          GGUF file or tokenizer.json, a path or a URL; default: $FURCATE_MODEL
  -f, --file FILE           read the text from a file; - is standard input
`;
const HELP_MAZE = `furcate maze [options]

A model that comes along (2.8 MB) solves a random maze many times at once. The paths are drawn as they grow,
verified exactly and ranked; then the same is measured with one call per path.

  -n N                      number of paths; default: 64
  -s, --seed N              this maze and these paths again; default: random
  -t, --temperature X       default: 1
  -f, --file FILE           a maze's text, as models/maze/README.md describes it
  -m, --model FILE          another model of mazes
      --json                print one JSON document: figures, and every path with its verdict

Options of generate for sampling, --backend and --attention work too.
`;
const HELP_SERVE = `furcate serve [options]

Serves POST /v1/chat/completions, POST /v1/completions and GET /v1/models as the OpenAI API does,
and the example page at /. Without a model it serves the maze solver that comes along.
Ctrl-C ends it.
`;
const HELP_END = `In a terminal the choices are shown as they grow; elsewhere they are printed at the end.
Choices go to standard output, progress and statistics to standard error. Control characters
in answers are made visible; --json has the exact texts.
Exit status: 0 done, 1 failed, 2 wrong arguments, 130 interrupted.
NO_COLOR=1 turns colours off, FURCATE_DEBUG=1 prints the stack of an error.
`;
