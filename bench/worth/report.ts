// What the measurements say: quality and time by number of samples, quality by temperature, and whether the goals are met.

import { figure, type Row, type Table } from "../table.ts";
import { bestOf, type Mean, meanOf, passAt } from "./estimate.ts";
import { COUNTS, type Drawn, type Latency, type Results } from "./measure.ts";

/** Samples that the ranking without a verifier chooses from. */
const RANKED = 16;
/** Ways to choose without a verifier, as the tables call them. */
const RANKINGS = {
  mean: "mean log-probability",
  sum: "sum of log-probabilities",
  vote: "vote",
};
export type Ranking = keyof typeof RANKINGS;
const rankings = Object.keys(RANKINGS) as Ranking[];
/** n at once may take this many times what one takes, and this many seconds. */
const LIMITS = { wasm: { ratio: 5, seconds: 5 }, webgpu: { ratio: 2, seconds: 1 } };
const NAMES = { wasm: "CPU", webgpu: "GPU" };

/** Each maze's samples at one temperature. */
const drawnAt = ({ mazes }: Results, temperature: number): Drawn[] =>
  mazes.flatMap(({ drawn }) => drawn.filter((one) => one.temperature === temperature));
export const temperaturesOf = ({ mazes }: Results): number[] =>
  [...new Set(mazes.flatMap(({ drawn }) => drawn.map(({ temperature }) => temperature)))].sort((a, b) => a - b);

/** Share of mazes solved by one of n samples, as a verifier finds it. */
export const passOf = (results: Results, temperature: number, n: number): Mean =>
  meanOf(drawnAt(results, temperature).map(({ right }) => passAt(right.length, count(right), n)));
/** Share of mazes solved by the best of n samples, chosen without a verifier. */
export const rankedOf = (results: Results, temperature: number, n: number, by: Ranking): Mean =>
  meanOf(drawnAt(results, temperature).map((drawn) => ranked(drawn, n, by)));
export const greedyOf = ({ mazes }: Results): Mean => meanOf(mazes.map(({ greedy }) => Number(greedy)));
/** What ranking adds to greedy, maze by maze. */
function gainOf({ mazes }: Results, temperature: number, by: Ranking): Mean {
  const differences = mazes.flatMap(({ greedy, drawn }) =>
    drawn.filter((one) => one.temperature === temperature).map((one) => ranked(one, RANKED, by) - Number(greedy)),
  );
  return meanOf(differences);
}
const count = (right: string) => [...right].filter((digit) => digit === "1").length;
function ranked({ right, meanLogprobs, tokens, same }: Drawn, n: number, by: Ranking): number {
  const scores: Record<Ranking, (sample: number, run: readonly number[]) => number> = {
    mean: (sample) => meanLogprobs[sample],
    sum: (sample) => meanLogprobs[sample] * tokens[sample],
    // As many votes are parted by the mean log-probability, as in furcate's own ranking; e to its power is at most 1.
    vote: (sample, run) =>
      run.filter((other) => same[other] === same[sample]).length + Math.exp(meanLogprobs[sample]) / 2,
  };
  return bestOf(
    [...right].map((digit) => digit === "1"),
    n,
    scores[by],
  );
}

/** Mean seconds of a call of n samples on one kind of device, at one temperature. */
export interface Times {
  readonly kind: Latency["kind"];
  readonly device: string;
  readonly mazes: number;
  readonly counts: readonly number[];
  readonly seconds: readonly number[];
  readonly cpuSeconds: readonly number[];
}
export function timesOf({ latency }: Results, temperature: number): Times[] {
  const kinds = [...new Set(latency.map(({ kind }) => kind))].sort();
  return kinds.map((kind): Times => {
    const of = latency.filter((one) => one.kind === kind && one.temperature === temperature).sort((a, b) => a.n - b.n);
    const mean = (of: Latency, pick: (call: Latency["calls"][number]) => number) =>
      of.calls.reduce((sum, call) => sum + pick(call), 0) / of.calls.length / 1000;
    return {
      kind,
      device: of[0]?.device ?? "",
      mazes: of[0]?.calls.length ?? 0,
      counts: of.map(({ n }) => n),
      seconds: of.map((one) => mean(one, ({ ms }) => ms)),
      cpuSeconds: of.map((one) => mean(one, ({ cpuMs }) => cpuMs)),
    };
  });
}

/** A line for each n: what is solved, and what it takes. Undefined where nothing was measured. */
export function worthTable(results: Results, temperature: number): Table | undefined {
  const times = timesOf(results, temperature).filter(({ counts }) => counts.length > 0);
  const hasQuality = drawnAt(results, temperature).length > 0;
  if (!hasQuality && times.length === 0) return undefined;
  const rows = COUNTS.map((n): Row => {
    const quality = hasQuality
      ? [share(passOf(results, temperature, n)), ...rankings.map((by) => share(rankedOf(results, temperature, n, by)))]
      : [];
    const taken = times.flatMap(({ kind, counts, seconds, cpuSeconds }) => {
      const at = counts.indexOf(n);
      const one = seconds[counts.indexOf(1)];
      const cells = [figure(seconds[at]), figure(seconds[at] / one), figure(n * one)];
      return kind === "wasm" ? [...cells, figure(cpuSeconds[at])] : cells;
    });
    return [`${n}`, ...quality, ...taken];
  });
  const heads = times.flatMap(({ kind }) => {
    const name = NAMES[kind];
    const cells = [`${name}: n at once, s`, "× n = 1", "n calls of one, s"];
    return kind === "wasm" ? [...cells, "CPU time at once, s"] : cells;
  });
  return {
    title: `n samples of one prompt at temperature ${temperature}: share of mazes solved, and time (prompt included)`,
    head: [
      "n",
      ...(hasQuality ? ["pass@n (verifier)", ...rankings.map((by) => `best of n by ${RANKINGS[by]}`)] : []),
      ...heads,
    ],
    rows,
  };
}

/** A line for each temperature: what a verifier finds. */
export function passTable(results: Results): Table | undefined {
  return byTemperature(
    results,
    "Share of mazes solved, by temperature: pass@n",
    COUNTS.map((n) => `${n}`),
    (temperature) => COUNTS.map((n) => share(passOf(results, temperature, n))),
  );
}

/** A line for each temperature: the best of RANKED without a verifier, and what that is above the greedy path. */
export function rankTable(results: Results): Table | undefined {
  return byTemperature(
    results,
    `Share of mazes solved, by temperature: the best of ${RANKED} without a verifier; one greedy path: ${share(greedyOf(results))}`,
    rankings.flatMap((by) => [`by ${RANKINGS[by]}`, "above greedy"]),
    (temperature) =>
      rankings.flatMap((by) => [
        share(rankedOf(results, temperature, RANKED, by)),
        signed(gainOf(results, temperature, by)),
      ]),
  );
}

function byTemperature(results: Results, title: string, head: Row, row: (temperature: number) => Row) {
  const temperatures = temperaturesOf(results);
  if (temperatures.length === 0) return undefined;
  return { title, head: ["T", ...head], rows: temperatures.map((t) => [`${t}`, ...row(t)]) };
}

/** Each goal, what was measured, and whether it is met. */
export function goals(results: Results): string[] {
  const lines: string[] = [];
  const say = (name: string, got: string, isMet: boolean) => lines.push(`${name}: ${got}: ${isMet ? "met" : "MISSED"}`);
  const temperatures = temperaturesOf(results);
  const best = (of: (temperature: number) => Mean) =>
    temperatures.map((t) => ({ t, ...of(t) })).reduce((most, next) => (next.mean > most.mean ? next : most));
  if (temperatures.length > 0) {
    const inside = ({ mean }: Mean) => mean >= 0.4 && mean <= 0.75;
    const greedy = greedyOf(results);
    say("greedy in 0.40 … 0.75", share(greedy), inside(greedy));
    const one = best((t) => passOf(results, t, 1));
    say("pass@1 at its best temperature in 0.40 … 0.75", `${share(one)} at T = ${one.t}`, inside(one));
    const most = Math.max(...COUNTS);
    const all = best((t) => passOf(results, t, most));
    say(`pass@${most} ≥ 0.97 at one temperature`, `${share(all)} at T = ${all.t}`, all.mean >= 0.97);
    for (const by of rankings) {
      const gain = best((t) => gainOf(results, t, by));
      const got = `${signed(gain)} at T = ${gain.t}`;
      say(`best of ${RANKED} by ${RANKINGS[by]} above greedy by more than the interval`, got, gain.low > 0);
    }
  }
  for (const temperature of new Set(results.latency.map(({ temperature }) => temperature)))
    for (const { kind, seconds, cpuSeconds, counts } of timesOf(results, temperature)) {
      const [one, all] = [1, 64].map((n) => seconds[counts.indexOf(n)]);
      const [oneCpu, allCpu] = [1, 64].map((n) => cpuSeconds[counts.indexOf(n)]);
      if (one === undefined || all === undefined) continue;
      const limits = LIMITS[kind];
      const name = `${NAMES[kind]}, T = ${temperature}: n = 64`;
      say(`${name} in ≤ ${limits.seconds} s`, `${figure(all)} s`, all <= limits.seconds);
      say(
        `${name} in ≤ ${limits.ratio} × n = 1`,
        `${figure(all / one)} × (CPU time ${figure(allCpu / oneCpu)} ×)`,
        all <= limits.ratio * one,
      );
    }
  return lines;
}

/** The mazes and machines, in a sentence or two. */
export function howMeasured(results: Results): string {
  const { mazes, latency } = results;
  const seeds = mazes.map(({ seed }) => seed);
  const sentences: string[] = [];
  if (seeds.length > 0)
    sentences.push(
      `Quality: ${seeds.length} held-out mazes (seeds ${Math.min(...seeds)} … ${Math.max(...seeds)}), ` +
        `${mazes[0].drawn[0].right.length} samples of each at each temperature; ± is half a 95 % confidence interval (bootstrap over mazes).`,
    );
  for (const temperature of new Set(latency.map(({ temperature }) => temperature)))
    for (const { kind, device, mazes } of timesOf(results, temperature))
      sentences.push(`${NAMES[kind]}: ${device}; means over ${mazes} mazes at temperature ${temperature}.`);
  return sentences.join(" ");
}

/** "0.612 ± 0.031": half the interval. */
const share = ({ mean, low, high }: Mean) => `${mean.toFixed(3)} ± ${((high - low) / 2).toFixed(3)}`;
const sign = (value: number) => `${value < 0 ? "−" : "+"}${Math.abs(value).toFixed(3)}`;
const signed = ({ mean, low, high }: Mean) => `${sign(mean)} ± ${((high - low) / 2).toFixed(3)}`;
