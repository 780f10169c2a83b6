// The command-line program: commands, exit status, signals, and where the model comes from. Uses furcate as anyone would.

import { readFileSync } from "node:fs";
import { basename } from "node:path";
import { addAbortSignal } from "node:stream";
import { text as readAll } from "node:stream/consumers";
import { fileURLToPath } from "node:url";
import {
  FurcateError,
  load,
  loadTokenizer,
  type Model,
  openAIHandler,
  type Prompt,
  type Result,
  type Stream,
} from "furcate";
import { type Arguments, help, parseArguments, UsageError } from "./cli/arguments.ts";
import { runMaze } from "./cli/maze.ts";
import { bar, panelLines, type Row } from "./cli/panel.ts";
import { bytes, choiceTable, json, plainChoices, statistics } from "./cli/report.ts";
import { openScreen, paintFor, sizeOf } from "./cli/screen.ts";
import { serveHttp } from "./cli/serve.ts";
import { harmless, head } from "./cli/text.ts";

const { stdin, stdout, stderr, env } = process;
const FRAME_MS = 50;

/** Runs the program; resolves to its exit status. */
async function main(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const args = parseArguments(argv);
  if (args.command === "help") stdout.write(help(args.prompt));
  else if (args.command === "version") stdout.write(`${version()}\n`);
  else {
    const source = args.model ?? env.FURCATE_MODEL;
    const isMaze = args.command === "maze" || (args.command === "demo" && !source && args.file === undefined);
    if (isMaze) {
      const { seed = 0 } = args.generate;
      if (seed < 0 || seed > MOST_MAZE) throw new UsageError(`--seed ${seed}: mazes have seeds from 0 to ${MOST_MAZE}`);
      const text = args.file === undefined ? undefined : await promptText(args, signal);
      await runMaze(args.model ?? MAZE_MODEL, args, text, signal);
    } else if (args.command === "serve") await serve(source ?? MAZE_MODEL, args, signal);
    else if (!source) {
      stderr.write(GUIDANCE);
      return 1;
    } else if (args.command === "demo") await generate(source, demonstration(args), signal);
    else await (args.command === "tokenize" ? tokenize : generate)(source, args, signal);
  }
  return 0;
}

function version(): string {
  return JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")).version;
}

// ---------------------------------------------------------------------------------------------- models

const MOST_MAZE = 2 ** 32 - 1;
/** Comes with the package. */
const PACKAGE = new URL("..", import.meta.url);
const MAZE_MODEL = fileURLToPath(new URL("models/maze.gguf", PACKAGE));
const EXAMPLE =
  "https://huggingface.co/bartowski/SmolLM2-135M-Instruct-GGUF/resolve/main/SmolLM2-135M-Instruct-Q8_0.gguf";
const GUIDANCE = `furcate: there is no model for this. Name one with --model or FURCATE_MODEL: a GGUF file of the Llama family, a path or a URL.
A small one to begin with (145 MB):

  curl -L -o smollm2.gguf ${EXAMPLE}
  ${env.npm_lifecycle_event === "start" ? "npm start --" : "furcate"} generate --model smollm2.gguf -n 16 --max-tokens 48 "Name a river."
`;

async function loadModel(source: string, args: Arguments, signal: AbortSignal): Promise<Model> {
  const began = performance.now();
  const show = (text: string) =>
    stderr.isTTY && env.TERM !== "dumb" && stderr.write(`\r${head(text, sizeOf(stderr).columns)}\x1b[K`);
  let drawn = 0;
  show(`Opening ${harmless(basename(source))}`);
  const onProgress = ({ loaded, total, phase }: { loaded: number; total: number; phase: "download" | "upload" }) => {
    const now = performance.now();
    if (now - drawn < FRAME_MS && loaded < total) return;
    drawn = now;
    const verb = phase === "download" ? "Reading  " : "Uploading";
    const share = total > 0 ? `${bar(loaded / total, 24)} ${bytes(loaded)} of ${bytes(total)}` : bytes(loaded);
    show(`${verb} ${share}, ${bytes((loaded / (now - began)) * 1000)}/s`);
  };
  try {
    const model = await load(source, { ...args.load, onProgress, signal });
    const { name, parameters, quantization } = model.info;
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    show("");
    if (!args.json) {
      stderr.write(
        `${harmless(name)}, ${(parameters / 1e6).toFixed(1)} M parameters, ${quantization}: ready in ${seconds} s\n`,
      );
    }
    return model;
  } catch (error) {
    show("");
    throw error;
  }
}

// ---------------------------------------------------------------------------------------------- commands

/** What runs with a model but without a command: as asked, but complete. */
function demonstration(args: Arguments): Arguments {
  const prompt = "Write the first sentence of a story about a lighthouse.";
  if (args.file === undefined) stderr.write(`Prompt: ${prompt}\n`);
  return { ...args, prompt, generate: { n: 16, maxTokens: 48, temperature: 0.8, ...args.generate } };
}

async function tokenize(source: string, args: Arguments, signal: AbortSignal): Promise<void> {
  const text = await promptText(args, signal);
  const tokenizer = await loadTokenizer(source, { signal });
  for (const id of tokenizer.encode(text)) {
    stdout.write(`${String(id).padStart(7)}  ${JSON.stringify(tokenizer.decode([id], { special: true }))}\n`);
  }
}

async function generate(source: string, args: Arguments, signal: AbortSignal): Promise<void> {
  const text = await promptText(args, signal);
  const model = await loadModel(source, args, signal);
  try {
    const { rank = "mean-logprob", ...rest } = args.generate;
    const options = { ...rest, signal, ...(rank !== "none" && { rank }) };
    const prompt = promptOf(model, text, args);
    const live = stdout.isTTY && env.TERM !== "dumb" && !args.json;
    const result = live
      ? await watch(model, text, model.stream(prompt, options), options.n ?? 1)
      : await model.generate(prompt, options);
    if (args.json) stdout.write(json(model.info, result));
    else report(result, args.full ?? false);
  } finally {
    model.dispose();
  }
}

/** Until the process is asked to end. */
async function serve(source: string, args: Arguments, signal: AbortSignal): Promise<void> {
  const model = await loadModel(source, args, signal);
  const { host = "127.0.0.1", port = 8080 } = args;
  try {
    const server = await serveHttp(openAIHandler(model), PACKAGE, host, port).catch((cause: Error) => {
      throw new FurcateError("option", `--host ${host} --port ${port}: ${cause.message}`, { cause });
    });
    stdout.write(`Model "${harmless(model.info.name)}" at ${server.origin}/v1, page at ${server.origin}/\n`);
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve();
      signal.addEventListener("abort", () => resolve());
    });
    server.close();
  } finally {
    model.dispose();
  }
}

async function promptText({ file, prompt = "" }: Arguments, signal: AbortSignal): Promise<string> {
  if (file === undefined) return prompt;
  if (file === "-") return readAll(addAbortSignal(signal, stdin));
  try {
    return new TextDecoder().decode(readFileSync(file)); // without a byte order mark, as from standard input
  } catch (cause) {
    throw new FurcateError("option", `--file: ${(cause as Error).message}`, { cause });
  }
}

/** A user's message where the model has a chat template, else the text itself. */
function promptOf(model: Model, text: string, { raw, system }: Arguments): Prompt {
  if (raw) return text;
  const messages = [{ role: "user", content: text }];
  if (system !== undefined) messages.unshift({ role: "system", content: system });
  try {
    model.applyChatTemplate(messages);
    return messages;
  } catch (error) {
    if (system === undefined && error instanceof FurcateError && error.code === "unsupported") return text;
    throw error;
  }
}

/** Shows the choices as they grow, and resolves to the result. */
async function watch({ info, backend }: Model, prompt: string, stream: Stream, n: number): Promise<Result> {
  const rows: Row[] = Array.from({ length: n }, () => ({ text: "" }));
  const heading = [harmless(`${info.name}, ${info.quantization}, ${backend}`), harmless(prompt)] as const;
  let first = 0;
  let tokens = 0;
  const status = () => {
    if (tokens === 0) return "Reading the prompt; Ctrl-C stops";
    const seconds = (performance.now() - first) / 1000;
    const rate = tokens / Math.max(seconds, 0.001);
    const running = rows.filter(({ finishReason }) => !finishReason).length;
    return `${running} of ${n} running, ${tokens} tokens, ${rate.toFixed(1)} tokens/s, ${seconds.toFixed(1)} s; Ctrl-C stops`;
  };
  const paint = paintFor(stdout);
  // What goes wrong is thrown by the loop.
  stream.result.catch(() => {});
  const screen = openScreen(stdout, (columns, height) => panelLines(heading, rows, status(), columns, height, paint));
  try {
    let drawn = 0;
    for await (const { index, text, finishReason } of stream) {
      const now = performance.now();
      if (tokens++ === 0) first = now;
      rows[index] = { text: rows[index].text + harmless(text), finishReason };
      if (now - drawn < FRAME_MS) continue;
      drawn = now;
      screen.draw();
    }
    return await stream.result;
  } catch (error) {
    screen.close();
    // What was on the screen is not lost with it.
    for (const [index, { text }] of rows.entries()) stdout.write(`${String(index).padStart(3)}  ${text.trim()}\n`);
    throw error;
  } finally {
    screen.close();
  }
}

function report(result: Result, full: boolean): void {
  const figures = statistics(result, stderr.isTTY ? sizeOf(stderr).columns : 100, paintFor(stderr));
  if (!stdout.isTTY || result.choices.length === 1) stdout.write(plainChoices(result));
  else {
    const { columns, height } = sizeOf(stdout);
    // Beside the table: the line of the model, an empty one, the figures, and the shell's next line.
    const left = full ? Number.POSITIVE_INFINITY : height - figures.length - 3;
    stdout.write(`${choiceTable(result, columns, left, paintFor(stdout)).join("\n")}\n`);
  }
  stderr.write(`\n${figures.join("\n")}\n`);
}

// ---------------------------------------------------------------------------------------------- the process

/** Tells a failure in one line; returns the exit status. */
function explain(error: unknown): number {
  const usage = error instanceof UsageError;
  const message = error instanceof Error ? error.message : String(error);
  const known = usage || error instanceof FurcateError;
  stderr.write(
    `furcate: ${known ? "" : "unexpected error: "}${harmless(message.replace(/\s*\n\s*/g, " "))}${usage ? " (see furcate --help)" : ""}\n`,
  );
  if (env.FURCATE_DEBUG && error instanceof Error) stderr.write(`${error.stack}\n`);
  return usage ? 2 : 1;
}

const abort = new AbortController();
let interrupted = 0;
for (const [name, status] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const) {
  process.on(name, () => {
    // Asked a second time, do not wait for whatever has not listened to the first.
    if (interrupted) process.exit(status);
    interrupted = status;
    abort.abort();
  });
}
// A reader that has seen enough, such as head, is no failure; and figures that nobody reads are no reason to lose an answer.
stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") stderr.write(`furcate: standard output: ${error.message}\n`);
  process.exit(error.code === "EPIPE" ? 0 : 1);
});
stderr.on("error", () => {});

try {
  process.exitCode = await main(process.argv.slice(2), abort.signal);
} catch (error) {
  if (interrupted) stderr.write("furcate: interrupted\n");
  process.exitCode = interrupted || explain(error);
}
