// Measures the embedded model on held-out mazes through furcate's public API: which samples are right, and what n of them take.
// Writes plain data that later runs, on this machine or another, can be joined with. Knows nothing of tables and pictures.

import { cpus, loadavg } from "node:os";
import type { Model } from "furcate";
import { generateMaze, mazePrompt, verifyPath } from "../../models/maze/maze.ts";

/** Samples of one maze and temperature, and the largest n whose time is taken. */
export const SAMPLES = 64;
/** The numbers of samples that the tables show. */
export const COUNTS = [1, 2, 4, 8, 16, 32, 64];
/** As in `npm start`. */
const MAX_TOKENS = 120;
/** Before those that are measured, and no mazes of theirs: as many as it takes for steps of most numbers of rows to have come. */
const WARM_UP_SEEDS = [996, 997, 998, 999];

type Kind = "wasm" | "webgpu";

/** The samples of one maze at one temperature. */
export interface Drawn {
  readonly temperature: number;
  /** A digit for each sample: 1 where it is a valid path. */
  readonly right: string;
  readonly meanLogprobs: readonly number[];
  /** How many tokens each mean is of: the sample's, and its end. */
  readonly tokens: readonly number[];
  /** For each sample the first that says the same: who votes for whom. */
  readonly same: readonly number[];
}
export interface MazeResult {
  readonly seed: number;
  /** Whether the greedy path is valid. */
  readonly greedy: boolean;
  readonly drawn: readonly Drawn[];
}
/** Calls of n samples on one device, a maze each, nothing of its prompt cached. */
export interface Latency {
  readonly kind: Kind;
  readonly device: string;
  readonly n: number;
  readonly temperature: number;
  /** Milliseconds: the whole call, of it the prompt, and CPU time of all threads; tokens drawn by all samples. */
  readonly calls: readonly { seed: number; ms: number; prefillMs: number; cpuMs: number; tokens: number }[];
}
export interface Results {
  readonly mazes: readonly MazeResult[];
  readonly latency: readonly Latency[];
}

/** Greedy and `samples` sampled paths of each maze, judged. */
export async function measureMazes(
  model: Model,
  seeds: readonly number[],
  temperatures: readonly number[],
  samples = SAMPLES,
): Promise<MazeResult[]> {
  const mazes: MazeResult[] = [];
  for (const seed of seeds) {
    const maze = generateMaze(seed);
    const prompt = mazePrompt(maze);
    const drawn: Drawn[] = [];
    const isRight = (text: string) => verifyPath(maze, text).valid;
    const greedy = await model.generate(prompt, { temperature: 0, maxTokens: MAX_TOKENS });
    for (const temperature of temperatures) {
      const { choices } = await model.generate(prompt, { n: samples, temperature, seed, maxTokens: MAX_TOKENS });
      const texts = choices.map(({ text }) => text);
      drawn.push({
        temperature,
        right: choices.map(({ text }) => Number(isRight(text))).join(""),
        meanLogprobs: choices.map(({ meanLogprob }) => Number(meanLogprob.toFixed(6))),
        tokens: choices.map(({ tokenIds, finishReason }) => tokenIds.length + Number(finishReason === "stop")),
        same: texts.map((text) => texts.indexOf(text)),
      });
    }
    mazes.push({ seed, greedy: isRight(greedy.choices[0].text), drawn });
    if (mazes.length % 16 === 0) console.error(`${mazes.length} of ${seeds.length} mazes`);
  }
  return mazes;
}

/** The time of calls of each n, in turns, the first n another one each maze. `open` loads a model that has seen nothing. */
export async function measureLatency(
  open: () => Promise<Model>,
  seeds: readonly number[],
  temperature: number,
  counts: readonly number[] = COUNTS,
): Promise<Latency[]> {
  // A model for each n: every call computes its prompt, and none is the first of its process.
  const models: Model[] = [];
  const calls = counts.map(() => [] as Latency["calls"][number][]);
  let device = "";
  const busy = loadavg()[0].toFixed(1);
  try {
    for (const n of counts) {
      const model = await open();
      models.push(model);
      for (const seed of WARM_UP_SEEDS)
        await model.generate(mazePrompt(generateMaze(seed)), { n, temperature, seed, maxTokens: MAX_TOKENS });
    }
    for (const [m, seed] of seeds.entries()) {
      const prompt = mazePrompt(generateMaze(seed));
      for (let turn = 0; turn < counts.length; turn++) {
        const i = (m + turn) % counts.length;
        const cpu = process.cpuUsage();
        const began = performance.now();
        const { stats, usage } = await models[i].generate(prompt, {
          n: counts[i],
          temperature,
          seed,
          maxTokens: MAX_TOKENS,
        });
        const ms = performance.now() - began;
        const { user, system } = process.cpuUsage(cpu);
        if (usage.cachedTokens > 64) throw new Error(`maze ${seed}: ${usage.cachedTokens} tokens came from the cache`);
        calls[i].push({
          seed,
          ms,
          prefillMs: stats.prefillMs,
          cpuMs: (user + system) / 1000,
          tokens: usage.completionTokens,
        });
        device = stats.device;
      }
      console.error(`latency: ${m + 1} of ${seeds.length} mazes`);
    }
    const cpu = cpus()[0]?.model.trim() || process.arch;
    const where = models[0].backend === "wasm" ? `${cpu}, ${device}, load average at the start ${busy}` : device;
    return counts.map((n, i) => ({ kind: models[i].backend, device: where, n, temperature, calls: calls[i] }));
  } finally {
    for (const model of models) model.dispose();
  }
}

/** Runs of several programs as one. Later ones win where both measured the same maze and temperature, or kind and n. */
export function join(all: readonly Results[]): Results {
  const mazes = new Map<number, MazeResult>();
  const latency = new Map<string, Latency>();
  for (const results of all) {
    for (const result of results.mazes) {
      const drawn = new Map(mazes.get(result.seed)?.drawn.map((one) => [one.temperature, one]));
      for (const one of result.drawn) drawn.set(one.temperature, one);
      mazes.set(result.seed, { ...result, drawn: [...drawn.values()] });
    }
    for (const one of results.latency) latency.set(`${one.kind} ${one.n} ${one.temperature}`, one);
  }
  const bySeed = [...mazes.values()].sort((a, b) => a.seed - b.seed);
  return { mazes: bySeed, latency: [...latency.values()] };
}
