// The demonstration: a random maze, n paths through it from one call, verified, ranked, and set against one call per path.
// Knows mazes, and of furcate what anyone knows who imports it.

import { type Choice, FurcateError, load, type Result, type Stats, type Usage } from "furcate";
import * as mazes from "../../models/maze/maze.ts";
import type { Arguments } from "./arguments.ts";
import { openLive, outcomeLines, WIDTH } from "./maze-screen.ts";
import { document } from "./report.ts";
import { paintFor, sizeOf } from "./screen.ts";

/** Calls of one path each that are measured for the comparison. */
const SINGLES = 3;

/** What came of one maze. */
export interface Outcome {
  seed: number;
  prompt: string;
  n: number;
  valid: number;
  distinctValid: number;
  /** Steps of the shortest valid path that was sampled (null: none was valid), and of the shortest there is. */
  shortestFound: number | null;
  shortest: number;
  /** The first by each ranking. */
  picks: Record<"verifier" | "meanLogprob" | "vote", { index: number; valid: boolean }>;
  /** The one call for all n, prompt included. */
  milliseconds: number;
  /** Calls of one path each, every one computing the prompt: those that were run, and n times their mean. */
  single: { milliseconds: number[]; forAll: number };
  usage: Usage;
  stats: Stats;
  choices: (Choice & mazes.Verdict)[];
}

/** Runs the demonstration and prints what came of it. `text`: a maze's prompt to use; default: the maze of the seed. */
export async function runMaze(source: string, args: Arguments, text: string | undefined, signal: AbortSignal) {
  const { stdout, env } = process;
  const { rank: _, ...given } = args.generate;
  const seed = given.seed ?? Math.floor(Math.random() * mazes.FIRST_TRAINING_SEED);
  // Seeds from FIRST_TRAINING_SEED up are those of mazes that the model has seen.
  const maze = text === undefined ? mazes.generateMaze(seed % mazes.FIRST_TRAINING_SEED) : mazeFrom(text);
  const prompt = mazes.mazePrompt(maze);
  // The model was taught no path of more than about 105 rooms; its scores were measured with this limit.
  const options = { n: 64, maxTokens: 120, ...given, seed, signal };
  const rank = (choice: Choice) => {
    const { valid, rooms } = mazes.verifyPath(maze, choice.text);
    return valid ? 1 / rooms.length : 0;
  };
  const model = await load(source, { ...args.load, signal });
  const { columns, height } = sizeOf(stdout);
  const isLive = stdout.isTTY && env.TERM !== "dumb" && !args.json && columns >= WIDTH && height >= mazes.SIZE;
  const promptTokens = model.tokenizer.encode(prompt, { bos: true }).length;
  const live = isLive ? openLive(stdout, maze, options.n, promptTokens) : undefined;
  try {
    const began = performance.now();
    const stream = model.stream(prompt, { ...options, rank });
    await live?.follow(stream);
    const result = await stream.result;
    const milliseconds = performance.now() - began;
    model.dispose();
    const singles: number[] = [];
    const inOrder = [...result.choices].sort((a, b) => a.index - b.index);
    for (const { seed } of inOrder.slice(0, SINGLES)) {
      live?.say(`now one call per path: ${singles.length + 1} of ${Math.min(SINGLES, options.n)}`);
      // A new model has nothing cached. The same seed gives the same path.
      const fresh = await load(source, { ...args.load, signal });
      const began = performance.now();
      await fresh.generate(prompt, { ...options, n: 1, seed });
      singles.push(performance.now() - began);
      fresh.dispose();
    }
    live?.close();
    const outcome = outcomeOf(maze, seed, result, milliseconds, singles);
    if (args.json) stdout.write(document({ ...outcome, choices: outcome.choices.map(plain) }));
    else stdout.write(`${outcomeLines(maze, outcome, columns, paintFor(stdout)).join("\n")}\n`);
  } finally {
    live?.close();
    model.dispose();
  }
}

function mazeFrom(text: string): mazes.Maze {
  try {
    return mazes.parseMaze(text.replace(/[ \t]*\r?\n/g, "\n").trimEnd());
  } catch (error) {
    if (error instanceof mazes.MazeError)
      throw new FurcateError("option", `--file: ${error.message}`, { cause: error });
    throw error;
  }
}

/** Counts, picks and times of a call whose choices are ranked by the verifier. */
function outcomeOf(maze: mazes.Maze, seed: number, result: Result, milliseconds: number, singles: number[]): Outcome {
  const { usage, stats } = result;
  const choices = result.choices.map((choice) => ({ ...choice, ...mazes.verifyPath(maze, choice.text) }));
  const valid = choices.filter((choice) => choice.valid);
  const answer = ({ text }: Choice) => text.trim().split(/\s+/).join(" ");
  const votes = new Map<string, number>();
  for (const choice of choices) votes.set(answer(choice), (votes.get(answer(choice)) ?? 0) + 1);
  // The order of equals is that of the mean log-probability, as in furcate's own rankings.
  const byLogprob = [...choices].sort((a, b) => b.meanLogprob - a.meanLogprob || a.index - b.index);
  const first = (score: (choice: Choice) => number) => {
    const { index, valid } = [...byLogprob].sort((a, b) => score(b) - score(a))[0];
    return { index, valid };
  };
  return {
    seed,
    prompt: mazes.mazePrompt(maze),
    n: choices.length,
    valid: valid.length,
    distinctValid: new Set(valid.map(answer)).size,
    shortestFound: valid.length > 0 ? Math.min(...valid.map(({ rooms }) => rooms.length - 1)) : null,
    shortest: mazes.shortestSteps(maze),
    picks: {
      verifier: first(({ score }) => score ?? 0),
      meanLogprob: first(({ meanLogprob }) => meanLogprob),
      vote: first((choice) => votes.get(answer(choice)) ?? 0),
    },
    milliseconds,
    single: {
      milliseconds: singles,
      forAll: (singles.reduce((sum, ms) => sum + ms, 0) / singles.length) * choices.length,
    },
    usage,
    stats,
    choices,
  };
}

const plain = ({ rooms: _, ...choice }: Outcome["choices"][0]) => ({ ...choice, tokenIds: [...choice.tokenIds] });
