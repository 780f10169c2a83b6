// The command-line program as users run it, on a small random model, and the parts of it that are plain functions.

import { spawn, spawnSync } from "node:child_process";
import { EventEmitter } from "node:events";
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { stripVTControlCharacters } from "node:util";
import type { Choice, Result, Stream } from "furcate";
import { test } from "uvu";
import * as assert from "uvu/assert";
import {
  drawMaze,
  EAST,
  generateMaze,
  mazePrompt,
  NORTH,
  parseMaze,
  pathText,
  roomName,
  SHAPES,
  SIZE,
  SOUTH,
  shortestSteps,
  solveMaze,
  verifyPath,
  WEST,
} from "../models/maze/maze.ts";
import { help, parseArguments, parseSize, UsageError } from "../src/cli/arguments.ts";
import type { Outcome } from "../src/cli/maze.ts";
import { openLive, outcomeLines } from "../src/cli/maze-screen.ts";
import { bar, panelLines, type Row } from "../src/cli/panel.ts";
import { bytes, choiceTable, json, plainChoices, statistics } from "../src/cli/report.ts";
import { openScreen, type Paint } from "../src/cli/screen.ts";
import { harmless, head, tail, width, wrap } from "../src/cli/text.ts";
import { newRandom } from "./support/random.ts";
import { CHAT_TEMPLATE, randomModel } from "./support/random-model.ts";

const CLI = fileURLToPath(new URL("../dist/cli.js", import.meta.url));
const folder = mkdtempSync(join(tmpdir(), "furcate-cli-"));
const MODEL = join(folder, "model.gguf");
const CHAT_MODEL = join(folder, "chat.gguf");
writeFileSync(MODEL, randomModel({ name: "small \x1b[31mmodel", contextLength: 100_000 }));
writeFileSync(CHAT_MODEL, randomModel({ chatTemplate: CHAT_TEMPLATE }));
test.after(() => rmSync(folder, { recursive: true }));

/** Runs the program with nothing of this process's environment that it would look at. */
function furcate(args: string[], options: { input?: string; env?: Record<string, string> } = {}) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [CLI, ...args], {
    encoding: "utf8",
    input: options.input ?? "",
    env: { PATH: process.env.PATH, ...options.env },
    timeout: 20_000,
  });
  return { status, stdout, stderr };
}

// ---------------------------------------------------------------------------------------------- the program

test("generate prints one choice as bare text, figures on standard error", () => {
  const { status, stdout, stderr } = furcate(["generate", "-m", MODEL, "--max-tokens", "12", "-s", "5", "the"]);
  assert.is(status, 0, stderr);
  const document = JSON.parse(
    furcate(["generate", "-m", MODEL, "--max-tokens", "12", "-s", "5", "--json", "the"]).stdout,
  );
  assert.is(stdout, `${harmless(document.choices[0].text)}\n`);
  for (const name of ["speed", "prompt", "answers", "K/V", "attention", "device"]) {
    assert.match(stderr, new RegExp(`^${name} +\\S`, "m"));
  }
  assert.match(stderr, /^seed +5$/m);
  assert.is(stderr.includes("\x1b"), false, "no control sequences where there is no terminal");
  assert.match(stderr, /^small ␛\[31mmodel, /);
});

test("--json is one document, and the same seed gives it again", () => {
  const args = [
    "generate",
    "-m",
    MODEL,
    "-n",
    "3",
    "--max-tokens",
    "10",
    "--seed",
    "9",
    "--logprobs",
    "2",
    "--json",
    "the",
  ];
  const { status, stdout, stderr } = furcate(args);
  assert.is(status, 0, stderr);
  assert.is(stderr, "");
  assert.is(/\p{Cc}/u.test(stdout.replaceAll("\n", "")), false);
  const { model, choices, usage, stats } = JSON.parse(stdout);
  assert.is(model.architecture, "llama");
  assert.equal(choices.map(({ index }: Choice) => index).sort(), [0, 1, 2]);
  for (const choice of choices) {
    assert.is(choice.score, choice.meanLogprob);
    assert.ok(Number.isSafeInteger(choice.seed) && typeof choice.text === "string");
    assert.ok(choice.tokenIds.length <= 10 && choice.logprobs[0].top.length === 2);
  }
  assert.ok(choices[0].score >= choices[1].score && choices[1].score >= choices[2].score, "best first");
  assert.is(choices.find(({ index }: Choice) => index === 0).seed, 9);
  assert.is(
    usage.completionTokens,
    choices.reduce((sum: number, choice: Choice) => sum + choice.tokenIds.length, 0),
  );
  assert.is(stats.backend, "wasm");
  assert.equal(JSON.parse(furcate(args).stdout).choices, choices);
  const other = args.map((arg) => (arg === "9" ? "10" : arg));
  assert.not.equal(JSON.parse(furcate(other).stdout).choices[0].tokenIds, choices[0].tokenIds);
});

const DENO = fileURLToPath(new URL("../node_modules/.bin/deno", import.meta.url));
if (!existsSync(DENO)) console.log("skipped: the program under Deno: the package deno is not installed");
else {
  test("Deno runs the same file to the same choices", () => {
    const args = ["generate", "-m", MODEL, "-n", "2", "--max-tokens", "6", "-s", "4", "--json", "the"];
    const { status, stdout, stderr } = spawnSync(DENO, ["run", "-A", CLI, ...args], {
      encoding: "utf8",
      env: { ...process.env, NO_COLOR: "1" },
      timeout: 20_000,
    });
    assert.is(status, 0, stderr);
    assert.equal(JSON.parse(stdout).choices, JSON.parse(furcate(args).stdout).choices);
    assert.is(spawnSync(DENO, ["run", "-A", CLI, "generate"], { timeout: 20_000 }).status, 2);
  });
}

test("choices are printed best first, or in their order, or by votes", () => {
  const args = ["generate", "-m", MODEL, "-n", "4", "--max-tokens", "6", "-s", "3", "a"];
  const means = (out: string) => [...out.matchAll(/mean log-probability (\S+),/g)].map(([, mean]) => Number(mean));
  const ranked = means(furcate(args).stdout);
  assert.is(ranked.length, 4);
  assert.equal(
    ranked,
    [...ranked].sort((a, b) => b - a),
  );
  const plain = furcate([...args, "--rank", "none"]).stdout;
  assert.equal(
    [...plain.matchAll(/^#\d {2}choice (\d)/gm)].map(([, index]) => index),
    ["0", "1", "2", "3"],
  );
  const greedy = furcate([...args, "--rank", "vote", "-t", "0"]).stdout;
  assert.is([...greedy.matchAll(/ 4\/4 votes,/g)].length, 4, greedy);
});

test("the prompt: from a file, from standard input, through the chat template unless --raw", () => {
  const file = join(folder, "prompt.txt");
  writeFileSync(file, "the prompt");
  const tokens = (args: string[], input?: string) => {
    const { status, stdout, stderr } = furcate(["generate", "--max-tokens", "1", "--json", ...args], { input });
    assert.is(status, 0, stderr);
    return JSON.parse(stdout).usage.promptTokens;
  };
  const raw = tokens(["-m", MODEL, "the prompt"]);
  assert.is(tokens(["-m", MODEL, "-f", file]), raw);
  assert.is(tokens(["-m", MODEL, "-f", "-"], "the prompt"), raw);
  assert.is(tokens(["-m", CHAT_MODEL, "--raw", "the prompt"]), raw);
  const chat = tokens(["-m", CHAT_MODEL, "the prompt"]);
  assert.ok(chat > raw);
  assert.ok(tokens(["-m", CHAT_MODEL, "--system", "a system", "the prompt"]) > chat);
  const { status, stderr } = furcate(["generate", "-m", MODEL, "--system", "x", "the prompt"]);
  assert.is(status, 1);
  assert.match(stderr, /no chat template/);
});

test("tokenize prints ids and texts", () => {
  const { status, stdout, stderr } = furcate(["tokenize", "-m", MODEL, "the x"]);
  assert.is(status, 0, stderr);
  const lines = stdout
    .trimEnd()
    .split("\n")
    .map((line) => /^ *(\d+) {2}(".*")$/.exec(line));
  assert.is(lines.map((match) => JSON.parse(match?.[2] ?? "null")).join(""), "the x");
});

test("without a model: generate and tokenize say what to do; with one and no command: the text demonstration", () => {
  for (const args of [
    ["generate", "x"],
    ["tokenize", "x"],
    ["--file", "x"],
  ]) {
    const { status, stdout, stderr } = furcate(args);
    assert.is(status, 1);
    assert.is(stdout, "");
    assert.match(stderr, /no model/);
    assert.match(stderr, /--model .*\.gguf/);
  }
  const { status, stdout, stderr } = furcate(["--max-tokens", "3"], { env: { FURCATE_MODEL: MODEL } });
  assert.is(status, 0, stderr);
  assert.is([...stdout.matchAll(/^#\d+ {2}choice/gm)].length, 16);
  assert.match(stderr, /^Prompt: /);
});

test("no arguments: a maze, 64 paths, a table; no control sequences where there is no terminal", () => {
  const { status, stdout, stderr } = furcate([]);
  assert.is(status, 0, stderr);
  assert.is(stderr, "");
  assert.is(stdout.includes("\x1b"), false);
  const lines = stdout.trimEnd().split("\n");
  assert.match(lines[0], /^computed by \S/);
  assert.is(lines[lines.length - 25], "");
  for (const line of lines) assert.ok(width(line) < 80, line);
  for (const row of [
    /64 answers from one prompt$/,
    /of 1,180 tokens, stored once$/,
    /valid paths +\d+ of 64$/,
    /shortest found +(\d+ steps|none)$/,
    /shortest there is +\d+ steps$/,
    /first by verifier +(valid|wrong)$/,
    /time, one call for 64 +[\d.]+ s$/,
    /64 calls, one each\* +[\d.]+ s$/,
    /K\/V stored +\S+ MB$/,
    /\* estimated from 3 measured$/,
  ])
    assert.ok(
      lines.some((line) => row.test(line)),
      `${row}\n${stdout}`,
    );
});

test("the maze's figures are those of its paths, and the same seed gives them again", () => {
  const run = (...args: string[]): Outcome => {
    const { status, stdout, stderr } = furcate(["maze", "-n", "8", "--json", ...args]);
    assert.is(status, 0, stderr);
    return JSON.parse(stdout);
  };
  const outcome = run("--seed", "7");
  const { prompt, choices, picks, shortest, single } = outcome;
  const maze = parseMaze(prompt);
  assert.is(prompt, mazePrompt(generateMaze(7)));
  assert.is(choices.length, 8);
  const verdicts = choices.map(({ text }) => verifyPath(maze, text));
  const right = choices.filter((_, i) => verdicts[i].valid);
  assert.equal(
    choices.map(({ valid, reason }) => ({ valid, reason })),
    verdicts.map(({ valid, reason }) => ({ valid, reason })),
  );
  assert.is(outcome.n, 8);
  assert.is(outcome.valid, right.length);
  assert.is(outcome.distinctValid, new Set(right.map(({ text }) => text)).size);
  assert.is(shortest, shortestSteps(maze));
  const steps = verdicts.filter(({ valid }) => valid).map(({ rooms }) => rooms.length - 1);
  assert.is(outcome.shortestFound, steps.length > 0 ? Math.min(...steps) : null);
  assert.is(picks.verifier.valid, right.length > 0);
  assert.is(picks.verifier.index, choices[0].index);
  const likeliest = [...choices].sort((a, b) => b.meanLogprob - a.meanLogprob)[0];
  assert.equal(picks.meanLogprob, { index: likeliest.index, valid: likeliest.valid });
  const votes = (index: number) => {
    const { text } = choices.find((choice) => choice.index === index) as Choice;
    return choices.filter((choice) => choice.text === text).length;
  };
  assert.is(votes(picks.vote.index), Math.max(...choices.map(({ index }) => votes(index))));
  assert.is(single.milliseconds.length, 3);
  assert.ok(Math.abs(single.forAll / 8 - single.milliseconds.reduce((a, b) => a + b) / 3) < 1e-6);
  assert.ok(outcome.stats.kvBytesAsCopies > 3 * outcome.stats.kvBytes);

  const file = join(folder, "maze.txt");
  writeFileSync(file, `${prompt}\n`);
  assert.equal(run("--seed", "7", "--file", file).choices, choices);
  assert.is.not(run("-n", "1").prompt, prompt, "a new maze without a seed");

  // One corridor along row after row, with a wall across it after the first.
  const corridor = Array.from({ length: SIZE }, (_, row) =>
    Array.from({ length: SIZE }, (_, column) => {
      const [first, last] = row % 2 === 0 ? [0, SIZE - 1] : [SIZE - 1, 0];
      const along = (column > 0 ? WEST : 0) + (column < SIZE - 1 ? EAST : 0);
      const turn =
        (column === first && row > 1 ? NORTH : 0) + (column === last && row > 0 && row < SIZE - 1 ? SOUTH : 0);
      return roomName(row * SIZE + column) + SHAPES[along + turn];
    }).join(""),
  );
  for (const [text, message] of [
    [prompt.split("\n").slice(1).join("\n"), "maze has 23 rows of 24 rooms, expected 24 rows of 24"],
    ["Which way to the goal?", "the text has one line, expected rows"],
    [prompt.replace("ba", "xx"), 'row 2 has room "xx" where "ba"'],
    [[...corridor, "aa→xa:"].join("\n"), "no path from aa to xa"],
    [prompt.replace(/\n..→/, "\nzz→"), '→..:" names a room outside aa … xx'],
  ]) {
    writeFileSync(file, text);
    const { status, stdout, stderr } = furcate(["maze", "--file", file]);
    assert.equal([status, stdout], [1, ""]);
    assert.match(stderr, new RegExp(`^furcate: --file: .*${message}.*\n$`));
  }
});

test("the maze's table fits its terminal, beside the drawing or below it", () => {
  const maze = generateMaze(3);
  const path = solveMaze(maze, 1);
  const choices = [path, path.slice(0, 9)].map((rooms, index) => ({
    ...choice(index, pathText(rooms)),
    ...verifyPath(maze, pathText(rooms)),
  }));
  const { usage, stats } = result(choices);
  const valid = { index: 0, valid: true };
  const outcome: Outcome = {
    ...{
      seed: 2 ** 53 - 1,
      prompt: mazePrompt(maze),
      n: 2,
      valid: 1,
      distinctValid: 1,
      shortestFound: path.length - 1,
    },
    ...{ shortest: path.length - 1, picks: { verifier: valid, meanLogprob: { index: 1, valid: false }, vote: valid } },
    ...{ milliseconds: 1e6, single: { milliseconds: [1e7, 1e7], forAll: 2e7 }, usage, stats, choices },
  };
  const drawing = drawMaze(maze, [path]).split("\n");
  const [by, why, empty, ...beside] = outcomeLines(maze, outcome, 79, noPaint);
  assert.equal([by, why, empty], ["computed by somewhere", "no GPU used: no adapter", ""]);
  assert.is(beside.length, 24);
  assert.ok(drawing.every((line, i) => beside[i].startsWith(line.trimEnd())));
  assert.ok(beside.every((line) => width(line) <= 79));
  assert.match(beside.join("\n"), /by mean log-prob\. +wrong$/m);
  assert.is(beside.join("\n").includes("estimated"), false, "both paths were measured");
  const below = outcomeLines(maze, outcome, 78, noPaint);
  assert.equal(below.slice(3, 27), drawing);
  assert.ok(below.every((line) => width(line) <= 47));
});

test("paths grow on the screen: valid, growing and wrong ones are told apart and counted", async () => {
  const maze = generateMaze(3);
  const words = pathText(solveMaze(maze, 1)).split(/(?= )/);
  const fd = openSync(join(folder, "live"), "w");
  let written = "";
  const terminal = Object.assign(new EventEmitter(), {
    ...{ fd, columns: 80, rows: 24, isTTY: true },
    write: (text: string) => {
      written = text;
    },
  });
  const live = openLive(terminal as unknown as typeof process.stdout, maze, 3, 1180);
  const frame = () => stripVTControlCharacters(written).split("\r\n");
  const shows = (line: RegExp) =>
    assert.ok(
      frame().some((text) => line.test(text)),
      `${line}\n${frame().join("\n")}`,
    );
  shows(/growing +█+ +3$/);
  async function* chunks() {
    for (const [i, text] of words.entries()) {
      yield { index: 0, text, ...(i === words.length - 1 && { finishReason: "stop" }) };
      if (i < 5) yield { index: 1, text };
      if (i < 2) yield { index: 2, text: words[2 * i] };
    }
  }
  await live.follow(Object.assign(chunks(), { result: Promise.resolve() }) as unknown as Stream);
  assert.is(frame().length, 24);
  for (const line of frame()) assert.ok(width(line) < 80, line);
  for (const state of ["valid", "growing", "wrong"]) shows(new RegExp(`${state} +█+░+ +1$`));
  shows(/3 answers from one prompt$/);
  live.say("later");
  shows(/ later$/);
  live.close();
  closeSync(fd);
});

test("failures are one clear line and status 1", () => {
  const broken = join(folder, "broken.gguf");
  writeFileSync(broken, readFileSync(MODEL).subarray(0, 20_000));
  for (const [args, message] of [
    [["-m", join(folder, "none.gguf"), "x"], /none\.gguf/],
    [["-m", broken, "x"], /^furcate: GGUF: /],
    [["-m", MODEL, "-f", join(folder, "none.txt")], /none\.txt/],
    [["-m", MODEL, "--memory-limit", "1k", "x"], /needs at least/],
    [["-m", MODEL, "--context-length", "2", "a long prompt"], /context/],
  ] as const) {
    const { status, stdout, stderr } = furcate(["generate", ...args]);
    assert.is(status, 1, stderr);
    assert.is(stdout, "");
    assert.match(stderr, message);
    assert.is(
      stderr
        .trimEnd()
        .split("\n")
        .filter((line) => line.startsWith("furcate: ")).length,
      1,
    );
    assert.is(/^ +at /m.test(stderr), false, "no stack");
  }
  const { stderr } = furcate(["generate", "-m", broken, "x"], { env: { FURCATE_DEBUG: "1" } });
  assert.match(stderr, /^ +at /m);
});

test("wrong arguments are status 2, before any model is looked for", () => {
  for (const args of [
    ["nonsense"],
    ["generate"],
    ["generate", "--bogus", "x"],
    ["generate", "-n", "0", "x"],
    ["maze", "x"],
  ]) {
    const { status, stdout, stderr } = furcate(args);
    assert.is(status, 2);
    assert.is(stdout, "");
    assert.match(stderr, /^furcate: .*\(see furcate --help\)\n$/);
  }
});

test("--help and --version", () => {
  assert.match(furcate(["--help"]).stdout, /furcate generate \[options\]/);
  const { status, stdout, stderr } = furcate(["generate", "--help"]);
  assert.is(status, 0);
  assert.is(stderr, "");
  assert.is(stdout, help("generate"));
  assert.match(furcate(["maze", "--help"]).stdout, /^furcate maze \[options\]/);
  const { version } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8"));
  assert.is(furcate(["--version"]).stdout, `${version}\n`);
});

/** Runs the program, interrupts it as soon as standard error says `when`, and tells how it ended. */
async function interrupt(args: string[], when: RegExp) {
  const child = spawn(process.execPath, [CLI, ...args], { env: { PATH: process.env.PATH }, timeout: 20_000 });
  let stderr = "";
  let sent = 0;
  child.stderr.on("data", (chunk) => {
    stderr += chunk;
    if (when.test(stderr) && sent === 0) {
      sent = performance.now();
      child.kill("SIGINT");
    }
  });
  const status = await new Promise((resolve) => child.on("close", resolve));
  return { status, stderr, seconds: (performance.now() - sent) / 1000 };
}

test("Ctrl-C while generating: status 130, at once", async () => {
  const long = ["generate", "-m", MODEL, "-n", "8", "--max-tokens", "50000", "--ignore-eos", "the"];
  const { status, stderr, seconds } = await interrupt(long, /ready in/);
  assert.is(status, 130, stderr);
  assert.match(stderr, /furcate: interrupted\n$/);
  assert.ok(seconds < 3, `${seconds} s`);
});

test("Ctrl-C while loading: status 130", async () => {
  // A server that never answers.
  const server = createServer(() => process.kill(child.pid as number, "SIGINT"));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/model.gguf`;
  const child = spawn(process.execPath, [CLI, "generate", "-m", url, "x"], {
    env: { PATH: process.env.PATH },
    timeout: 20_000,
  });
  const status = await new Promise((resolve) => child.on("close", resolve));
  server.closeAllConnections();
  server.close();
  assert.is(status, 130);
});

test("a reader that stops early is no failure", async () => {
  const args = ["generate", "-m", MODEL, "-n", "50", "--max-tokens", "20", "the"];
  const child = spawn(process.execPath, [CLI, ...args], { env: { PATH: process.env.PATH }, timeout: 20_000 });
  child.stdout.destroy();
  let stderr = "";
  child.stderr.on("data", (chunk) => {
    stderr += chunk;
  });
  assert.is(await new Promise((resolve) => child.on("close", resolve)), 0, stderr);
  assert.is(/EPIPE/.test(stderr), false);
});

test("an answer is printed though nobody reads the figures", async () => {
  const args = ["generate", "-m", MODEL, "-n", "2", "--seed=-1", "--max-tokens", "5", "--ignore-eos", "the"];
  const child = spawn(process.execPath, [CLI, ...args], { env: { PATH: process.env.PATH }, timeout: 20_000 });
  child.stderr.destroy();
  let stdout = "";
  child.stdout.on("data", (chunk) => {
    stdout += chunk;
  });
  assert.is(await new Promise((resolve) => child.on("close", resolve)), 0);
  assert.match(stdout, /#2/);
});

// ---------------------------------------------------------------------------------------------- its parts

test("arguments: values arrive under the names of the API", () => {
  const args = parseArguments([
    ..."generate -n16 -m m.gguf --max-tokens 8 -t 0.5 --top-k 3 --top-p .9 --min-p 0.1 --repetition-penalty 1.1".split(
      " ",
    ),
    ..."--presence-penalty=-1 --frequency-penalty 1e-1 --seed 7 --logprobs 0 --rank vote --attention one-part".split(
      " ",
    ),
    ..."--ignore-eos --backend wasm --context-length 100 --memory-limit 2G --json --full --raw".split(" "),
    ...["--stop", "a\\n", "--stop", "b", "two", "words"],
  ]);
  assert.equal(args, {
    command: "generate",
    prompt: "two words",
    model: "m.gguf",
    raw: true,
    json: true,
    full: true,
    load: { backend: "wasm", contextLength: 100, memoryLimit: 2e9 },
    generate: {
      n: 16,
      maxTokens: 8,
      temperature: 0.5,
      topK: 3,
      topP: 0.9,
      minP: 0.1,
      repetitionPenalty: 1.1,
      presencePenalty: -1,
      frequencyPenalty: 0.1,
      seed: 7,
      logprobs: 0,
      rank: "vote",
      attention: "one-part",
      ignoreEos: true,
      stop: ["a\n", "b"],
    },
  });
  assert.equal(parseArguments([]), { command: "demo", load: {}, generate: {} });
  assert.is(parseArguments(["generate", "-h"]).command, "help");
  assert.is(parseArguments(["generate", "--", "-x"]).prompt, "-x");
});

test("arguments: what is wrong is refused by name", () => {
  for (const [line, message] of [
    ["nonsense", /unknown command "nonsense"/],
    ["generate", /needs a text/],
    ["generate --bogus x", /--bogus/],
    ["generate -n 0 x", /-n "0": expected a whole number of at least 1/],
    ["generate -n 1.5 x", /-n "1.5"/],
    ["generate -n 1e3 x", /-n "1e3"/],
    ["generate --seed 9007199254740993 x", /--seed/],
    ["generate --temperature warm x", /--temperature "warm": expected a number/],
    ["generate --temperature=-1 x", /at least 0/],
    ["generate --top-p 1.5 x", /at most 1/],
    ["generate --rank best x", /expected mean-logprob, vote, none/],
    ["generate --backend cuda x", /auto, wasm, webgpu/],
    ["generate --memory-limit 5Q x", /512M or 2G/],
    ["generate --memory-limit 0.1 x --temperature", /temperature/],
    ["generate -f file x", /not both/],
    ["generate --raw --system s x", /--system cannot/],
    ["generate --stop= x", /--stop "": expected a text/],
    ["generate --logprobs 2 x", /--logprobs goes with --json/],
    ["generate --port 80 x", /--port does not go with generate/],
    ["--host x", /--host does not go with what runs without a command/],
    ["tokenize -n 3 x", /-n does not go with tokenize/],
    ["tokenize --json x", /--json does not go with tokenize/],
    ["tokenize --system s x", /--system does not go with tokenize/],
    ["maze --rank vote", /--rank does not go with maze/],
    ["serve --temperature 1", /--temperature does not go with serve/],
    ["serve --system s", /--system does not go with serve/],
  ] as const) {
    assert.throws(
      () => parseArguments(line.split(" ")),
      (error: Error) => error instanceof UsageError && message.test(error.message) && !error.message.includes("\n"),
      line,
    );
  }
});

test("sizes", () => {
  const sizes = {
    "0": 0,
    "1048576": 1048576,
    "12b": 12,
    "512M": 512e6,
    "2G": 2e9,
    "1.5g": 1.5e9,
    "1kB": 1e3,
    "2GiB": 2 ** 31,
    "3Mi": 3 * 2 ** 20,
    "1T": 1e12,
  };
  for (const [text, size] of Object.entries(sizes)) assert.is(parseSize(text), size, text);
  for (const text of ["", "G", "-1", "1.", "1e9", "1 G", "1GG", "1ib", "0x10"])
    assert.is(parseSize(text), undefined, text);
  assert.is(bytes(0), "0 B");
  assert.is(bytes(999), "999 B");
  assert.is(bytes(1234567), "1.2 MB");
  assert.is(bytes(5.5e12), "5500.00 GB");
});

test("harmless: nothing left to steer a terminal, or to turn its text around", () => {
  assert.is(harmless("a\tb\nc"), "a\tb\nc");
  assert.is(harmless("\x1b[2J\x07\x00"), "␛[2J␇␀");
  assert.is(harmless("a\r\nb\rc\u2028d"), "a\nb\nc\nd");
  assert.is(harmless("\x7f\x9b31m\x85\ud800x\udfff"), "\ufffd\ufffd31m\ufffd\ufffdx\ufffd");
  assert.is(harmless("\u202egnp.exe\u2066"), "\ufffdgnp.exe\ufffd");
  assert.is(harmless("😀 日本 e\u0301"), "😀 日本 e\u0301");
});

test("width in cells", () => {
  const widths = {
    "": 0,
    abc: 3,
    日本: 4,
    한국: 4,
    ｆｕｌｌ: 8,
    ﾊﾝ: 2,
    "e\u0301": 1,
    "\u0301": 0,
    "a\u200db": 2,
    "🙂": 2,
    "👩‍👩‍👧": 2,
    "🇩🇪": 2,
    "❤️": 2,
    "❤": 1,
    "👍🏽": 2,
    "…": 1,
    "…é": 2,
    "\u1112\u1161\u11ab": 2,
  };
  for (const [text, cells] of Object.entries(widths)) assert.is(width(text), cells, JSON.stringify(text));
});

test("wrap breaks at spaces, beside wide characters, and inside words only where it must", () => {
  assert.equal(wrap("one two three", 7), ["one two", "three"]);
  assert.equal(wrap("one two three", 100), ["one two three"]);
  assert.equal(wrap("abcdefghij", 4), ["abcd", "efgh", "ij"]);
  assert.equal(wrap("日本語の文", 5), ["日本", "語の", "文"]);
  assert.equal(wrap("a\n\tb\n", 8), ["a", "    b", ""]);
  assert.equal(wrap("ab      cd", 3), ["ab", "cd"]);
  assert.equal(wrap("e\u0301e\u0301e\u0301", 2), ["e\u0301e\u0301", "e\u0301"]);
});

test("head and tail cut to one line", () => {
  assert.is(head("short", 10), "short");
  assert.is(head("one two three", 8), "one two…");
  assert.is(tail("one two three", 8), "…o three");
  assert.is(head("日本語", 5), "日本…");
  assert.is(tail("日本語", 4), "…語");
  assert.is(head("a\nb", 5), "a b");
});

/** Seeded texts of everything that makes columns hard to count. */
function randomTexts(seed: number, count: number): string[] {
  const random = newRandom(seed);
  const pieces = [
    "word ",
    "x",
    " ",
    "\n",
    "\t",
    "日本",
    "한",
    "🙂",
    "👩‍👩‍👧",
    "e\u0301",
    "\u0301",
    "\x1b[2J",
    "\u202e",
    "a_very_long_word_",
    "🇩🇪",
    "ﾊ",
  ];
  return Array.from({ length: count }, () =>
    Array.from({ length: random.below(80) }, () => pieces[random.below(pieces.length)]).join(""),
  );
}

test("whatever the text and the width: lines fit, and wrapping loses nothing but spaces", () => {
  for (const [i, raw] of randomTexts(1, 400).entries()) {
    const text = harmless(raw);
    const columns = 2 + (i % 40);
    const lines = wrap(text, columns);
    for (const line of [...lines, head(text, columns), tail(text, columns)]) {
      assert.ok(width(line) <= columns, `${JSON.stringify(line)} in ${columns}`);
      assert.is(/[\n\t]/.test(line), false);
    }
    assert.is(lines.join("").replace(/\s/g, ""), text.replace(/\s/g, ""));
  }
});

const noPaint: Paint = (_, text) => text;

test("the panel fits its terminal, whatever its size", () => {
  const texts = randomTexts(2, 100).map(harmless);
  for (let i = 0; i < 300; i++) {
    const columns = 20 + ((i * 7) % 120);
    const height = 6 + ((i * 5) % 50);
    const rows: Row[] = texts
      .slice(0, 1 + (i % 70))
      .map((text, at) => ({ text, finishReason: at % 3 ? undefined : "stop" }));
    const lines = panelLines(["title", "prompt"], rows, "status", columns, height, noPaint);
    assert.ok(lines.length <= height, `${lines.length} lines in ${height}`);
    for (const line of lines) assert.ok(width(line) <= columns, `${JSON.stringify(line)} in ${columns}`);
    assert.is(lines.at(-1), " status");
  }
});

test("the panel keeps the newest text in view, and running choices before ended ones", () => {
  const rows = Array.from(
    { length: 20 },
    (_, index): Row => ({
      text: `${"old ".repeat(100)}new${index}`,
      finishReason: index < 10 ? "length" : undefined,
    }),
  );
  const lines = panelLines(["title", "prompt"], rows, "status", 60, 16, noPaint);
  assert.is(lines.length, 16);
  for (let index = 10; index < 20; index++) {
    assert.ok(lines.some((line) => line.startsWith(` ${index}  …`) && line.endsWith(`new${index}`)));
  }
  assert.ok(
    lines.some((line) => line.startsWith("  0• …")),
    lines.join("\n"),
  );
  assert.ok(lines.some((line) => line.trim() === "and 9 more"));
  const spaced = panelLines(["title", "prompt"], [{ text: "a\n\nb\n" }, { text: "" }], "status", 60, 16, noPaint);
  assert.equal(spaced.slice(2, 5), [" 0  a", "    b", " 1  "], "empty lines take no room");
  const one = panelLines(["title", "prompt"], [{ text: `${"long ".repeat(2000)}end` }], "status", 60, 16, noPaint);
  assert.is(one.length, 16);
  assert.match(one.at(-3) ?? "", /end$/);
});

test("a bar", () => {
  assert.is(bar(0, 4), "░░░░");
  assert.is(bar(0.5, 4), "██░░");
  assert.is(bar(7, 4), "████");
});

test("the screen is given back, once, and while the program is stopped, and follows the size of the terminal", () => {
  const path = join(folder, "screen");
  const fd = openSync(path, "w");
  const written: string[] = [];
  const stream = Object.assign(new EventEmitter(), {
    fd,
    columns: 40,
    rows: 10,
    write: (text: string) => written.push(text),
  });
  const screen = openScreen(stream as unknown as Parameters<typeof openScreen>[0], (columns, height) => [
    `${columns}×${height}`,
  ]);
  assert.is(written[0], "\x1b[?1049h\x1b[?25l\x1b[?7l");
  assert.match(written[1], "39×10");
  Object.assign(stream, { columns: 20, rows: 5 });
  stream.emit("resize");
  assert.match(written[2], "19×5");
  const leaving = "\x1b[?7h\x1b[?25h\x1b[?1049l";
  const { kill } = process;
  const killed: unknown[] = [];
  process.kill = (pid, signal) => {
    killed.push(pid, signal);
    return true;
  };
  try {
    process.emit("SIGTSTP", "SIGTSTP");
  } finally {
    process.kill = kill;
  }
  assert.equal(killed, [process.pid, "SIGSTOP"]);
  assert.is(readFileSync(path, "utf8"), leaving);
  process.emit("SIGCONT", "SIGCONT");
  assert.equal([written[3], written.length], [written[0], 5]);
  screen.close();
  screen.close();
  stream.emit("resize");
  assert.is(written.length, 5);
  assert.equal([process.listenerCount("SIGTSTP"), process.listenerCount("SIGCONT")], [0, 0]);
  closeSync(fd);
  assert.is(readFileSync(path, "utf8"), leaving + leaving);
});

const choice = (index: number, text: string, more: Partial<Choice> = {}): Choice => ({
  index,
  text,
  tokenIds: Uint32Array.of(1, 2),
  finishReason: "stop",
  seed: 100 + index,
  meanLogprob: -1 - index / 10,
  ...more,
});
const result = (choices: Choice[]): Result => ({
  choices,
  usage: { promptTokens: 5, cachedTokens: 2, completionTokens: 4 },
  stats: {
    backend: "wasm",
    device: "somewhere",
    fallback: "no adapter",
    attention: "two-part",
    attentionReason: "because",
    steps: 3,
    prefillMs: 12.34,
    decodeMs: 12345,
    stepMs: { median: 1.25, max: 20 },
    tokensPerSecond: 123.4,
    tokensPerSecondPerSample: 61.7,
    kvBytes: 1e6,
    kvBytesAsCopies: 2.5e6,
    peakBytes: 3e9,
  },
});

test("the table: the best whole and last, the others within the height; votes where they were counted", () => {
  const long = "many words ".repeat(40);
  const ranked = result([choice(1, long), choice(0, long), choice(2, "short\x1b\n")]);
  const cut = choiceTable(ranked, 80, 11, noPaint).join("\n").split("\n");
  assert.is(cut.length, 11);
  assert.match(cut[0], /cut to the screen/);
  assert.match(cut[1], /^ +2 {3}-1\.200 +2 {2}short␛$/);
  assert.match(cut[2], /^ +0 {3}-1\.000 .*…$/);
  assert.is(cut.join(" ").split("many").length - 1, 40 + 5, "the best has all its words");
  for (const line of cut) assert.ok(width(line) <= 80);
  const taller = choiceTable(ranked, 80, 14, noPaint).join("\n").split("\n");
  assert.ok(taller.length <= 14);
  assert.is(
    taller.join(" ").split("many").length - 1,
    40 + 15,
    "what is left of the height goes to the second best first",
  );
  const full = choiceTable(ranked, 80, Number.POSITIVE_INFINITY, noPaint).join("\n");
  assert.is(full.split("many").length - 1, 80);
  const votes = result([
    choice(0, "a", { score: 2 / 3 }),
    choice(1, "a", { score: 2 / 3 }),
    choice(2, "b", { score: 1 / 3 }),
  ]);
  assert.match(choiceTable(votes, 80, 20, noPaint).at(-1) ?? "", /^ +0 +2\/3 +-1\.000/);
  assert.match(plainChoices(votes), /^#1 {2}choice 0, 2\/3 votes, mean log-probability -1\.000, 2 tokens, stop\na\n/);
});

test("the statistics say all that there is", () => {
  const lines = statistics(result([choice(1, "b"), choice(0, "a")]), 200, noPaint);
  assert.equal(lines, [
    "speed      123 tokens/s in all, 61.7 per sample",
    "prompt     5 tokens (2 of them kept from before) in 12 ms",
    "answers    4 tokens in 12.3 s, 3 steps of 1.3 ms, at most 20 ms",
    "K/V        1.0 MB stored; as copies 2.5 MB, 2.5 times as much",
    "attention  two-part: because",
    "device     wasm, somewhere; memory at most 3.00 GB",
    "no GPU     no adapter",
    "seed       100",
  ]);
  for (const line of statistics(result([choice(0, "a")]), 40, noPaint)) assert.ok(width(line) <= 40, line);
});

test("JSON has the exact text, and no byte that a terminal obeys", () => {
  const text = "\x1b[2J\x9b\x7f\u202e\ud800日";
  const out = json({ name: "m" } as Parameters<typeof json>[0], result([choice(0, text)]));
  assert.is(/\p{Cc}/u.test(out.replaceAll("\n", "")), false);
  assert.is(JSON.parse(out).choices[0].text, text);
  assert.equal(JSON.parse(out).choices[0].tokenIds, [1, 2]);
});

test.run();
