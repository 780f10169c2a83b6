// What n samples are worth, as bench/worth estimates, joins and draws it; and that its measurements are those of the paths drawn.

import { fileURLToPath } from "node:url";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { chart } from "../bench/worth/chart.ts";
import { bestOf, meanOf, passAt } from "../bench/worth/estimate.ts";
import { COUNTS, join, measureLatency, measureMazes, type Results } from "../bench/worth/measure.ts";
import { goals, passTable, rankTable, worthTable } from "../bench/worth/report.ts";
import { generateMaze, mazePrompt, verifyPath } from "../models/maze/maze.ts";
import { load } from "../src/index.ts";
import { newRandom } from "./support/random.ts";

const open = () => load(fileURLToPath(new URL("../models/maze.gguf", import.meta.url)), { backend: "wasm" });

test("pass@k is the share of all choices of k samples that hold a right one", () => {
  for (const n of [1, 5, 8])
    for (let right = 0; right <= n; right++)
      for (let k = 1; k <= n; k++) {
        let hit = 0;
        let all = 0;
        for (let set = 0; set < 1 << n; set++) {
          const members = Array.from({ length: n }, (_, i) => i).filter((i) => set & (1 << i));
          if (members.length !== k) continue;
          all++;
          if (members.some((i) => i < right)) hit++;
        }
        assert.ok(Math.abs(passAt(n, right, k) - hit / all) < 1e-12, `${right} of ${n}, k = ${k}`);
      }
});

test("the best of k is chosen by its score, in runs of k", () => {
  const right = [true, false, false, true, false, true, true];
  const scores = [-1, -2, -3, -3, -0.5, -0.25, 9];
  const best = (k: number) => bestOf(right, k, (i) => scores[i]);
  assert.is(best(1), 4 / 7);
  assert.is(best(2), 2 / 3, "ties go to the first, what fills no run is left out");
  assert.is(best(3), 1);
  assert.is(best(7), 1);
  const runs: (readonly number[])[] = [];
  bestOf(right, 3, (_, run) => runs.push(run));
  assert.equal([...new Set(runs.map(String))], ["0,1,2", "3,4,5"], "a score may depend on the run, and on no other");
});

test("intervals hold the truth about as often as they say", () => {
  const random = newRandom(5);
  const uniform = () => random.below(1 << 20) / (1 << 20);
  let held = 0;
  for (let i = 0; i < 200; i++) {
    const { mean, low, high } = meanOf(Array.from({ length: 100 }, () => Number(uniform() < 0.7)));
    assert.ok(low <= mean && mean <= high);
    if (low <= 0.7 && 0.7 <= high) held++;
  }
  console.log(`measured: ${held} of 200 intervals hold the mean`);
  assert.ok(held >= 180 && held <= 199, `${held} of 200`);
  assert.equal(meanOf([1, 1, 1]), { mean: 1, low: 1, high: 1 });
});

test("measured are the samples that furcate draws, each judged by the verifier", async () => {
  const model = await open();
  const mazes = await measureMazes(model, [1003, 1000], [0.9], 12);
  const [one] = await measureLatency(open, [1000, 1001], 0.9, [3]);
  assert.equal(
    mazes.map(({ seed }) => seed),
    [1003, 1000],
  );
  for (const { seed, greedy, drawn } of mazes) {
    const maze = generateMaze(seed);
    const call = { maxTokens: 120, seed, temperature: 0.9 };
    const { choices } = await model.generate(mazePrompt(maze), { ...call, n: 12 });
    assert.is(drawn[0].right, choices.map(({ text }) => (verifyPath(maze, text).valid ? "1" : "0")).join(""));
    for (const [i, { meanLogprob }] of choices.entries())
      assert.ok(Math.abs(drawn[0].meanLogprobs[i] - meanLogprob) < 1e-6);
    const path = await model.generate(mazePrompt(maze), { temperature: 0, maxTokens: 120 });
    assert.is(greedy, verifyPath(maze, path.choices[0].text).valid);
  }
  const verdicts = mazes.map(({ drawn }) => drawn[0].right).join("");
  assert.ok(verdicts.includes("0") && verdicts.includes("1"), verdicts);
  assert.equal([one.kind, one.n, one.temperature, one.calls.length], ["wasm", 3, 0.9, 2]);
  for (const { ms, prefillMs, tokens } of one.calls) assert.ok(ms > prefillMs && prefillMs > 0 && tokens >= 3 * 17);
  model.dispose();
});

test("64 samples take at most 5 times what one takes, prompt included", async () => {
  const [one, many] = await measureLatency(open, [1, 2, 3], 1, [1, 64]);
  const sum = ({ calls }: typeof one, pick: "ms" | "cpuMs") => calls.reduce((total, call) => total + call[pick], 0);
  const [wall, cpu] = (["ms", "cpuMs"] as const).map((pick) => sum(many, pick) / sum(one, pick));
  console.log(
    `measured: maze, n = 64 against n = 1: ${wall.toFixed(2)} × the time, ${cpu.toFixed(2)} × the CPU time ` +
      `(${(sum(many, "cpuMs") / 3).toFixed(0)} and ${(sum(one, "cpuMs") / 3).toFixed(0)} ms)`,
  );
  // The CPU time alone is held to it: other programs do not count there.
  assert.ok(cpu <= 5, `${cpu} times`);
});

test("runs are joined, and become tables, goals and a picture", () => {
  const maze = (seed: number, temperature: number, right: string) => ({
    seed,
    greedy: seed % 2 === 0,
    drawn: [
      {
        temperature,
        right,
        meanLogprobs: [...right].map((_, i) => -i),
        tokens: [...right].map((_, i) => (i % 2 === 0 ? 10 : 1)),
        same: [...right].map((_, i) => (i % 4 === 3 ? i - 2 : i)),
      },
    ],
  });
  const latency = (kind: "wasm" | "webgpu", scale: number): Results["latency"] =>
    COUNTS.map((n) => ({
      kind,
      device: `a ${kind}`,
      n,
      temperature: 1,
      calls: [8, 12].map((x) => ({
        seed: x,
        ms: x * scale * (9 + n),
        prefillMs: 1,
        cpuMs: x * scale * (10 + n),
        tokens: 9,
      })),
    }));
  const half = `${"10".repeat(32)}`;
  const none = "0".repeat(64);
  const results = join([
    { mazes: [maze(5, 1, half), maze(4, 1, none)], latency: latency("webgpu", 1) },
    { mazes: [maze(4, 1, half), maze(4, 0.5, none)], latency: [] },
    { mazes: [], latency: latency("wasm", 10) },
  ]);
  assert.equal(
    results.mazes.map(({ seed, drawn }) => [seed, drawn.map(({ temperature }) => temperature)]),
    [
      [4, [1, 0.5]],
      [5, [1]],
    ],
  );
  const table = worthTable(results, 1)!;
  assert.equal(table.rows[0], [
    "1",
    "0.500 ± 0.000",
    "0.500 ± 0.000",
    "0.500 ± 0.000",
    "0.500 ± 0.000",
    "1.00",
    "1.00",
    "1.00",
    "1.10",
    "0.10",
    "1.00",
    "0.10",
  ]);
  assert.equal(
    table.rows[1].slice(2, 5),
    ["1.000 ± 0.000", "0.031 ± 0.000", "1.000 ± 0.000"],
    "the first of two by mean and where votes are equal, the second by sum",
  );
  assert.is(table.rows[2][4], "0.000 ± 0.000", "two of four that say the same outvote the others");
  assert.equal(table.rows[6].slice(5, 9), ["7.30", "7.30", "64.0", "7.40"]);
  assert.equal(
    passTable(results)!.rows.map(([t, one]) => [t, one]),
    [
      ["0.5", "0.000 ± 0.000"],
      ["1", "0.500 ± 0.000"],
    ],
  );
  assert.equal(rankTable(results)!.rows[0].slice(0, 3), ["0.5", "0.000 ± 0.000", "−1.000 ± 0.000"]);
  const lines = goals(results);
  assert.is(lines.filter((line) => / ≤ /.test(line) && line.endsWith("MISSED")).length, 3, lines.join("\n"));
  assert.ok(lines.includes("pass@64 ≥ 0.97 at one temperature: 1.000 ± 0.000 at T = 1: met"), lines.join("\n"));

  const svg = chart(results, 1);
  assert.is(svg.match(/<circle class="dot pass" /g)?.length, COUNTS.length + 1, "a dot for each n, and the legend's");
  assert.ok(
    svg.includes("prefers-color-scheme: dark") && svg.includes("<title") && !/NaN|undefined|Infinity/.test(svg),
  );
  const tags = [...svg.matchAll(/<(\/?)(\w+)[^>]*?(\/?)>/g)];
  const open: string[] = [];
  for (const [, closes, name, single] of tags) {
    if (closes) assert.is(open.pop(), name);
    else if (!single) open.push(name);
  }
  assert.equal(open, []);
  for (const [, x, y] of svg.matchAll(/cx="([\d.-]+)" cy="([\d.-]+)"/g))
    assert.ok(Number(x) >= 64 && Number(x) <= 860 && Number(y) >= 50 && Number(y) <= 470, `${x}, ${y}`);
});

test.run();
