// What the benchmark's first tables say: figures of each engine, ratios, goals, and the floors that this machine sets.

import type { ModelConfig } from "../../src/config.ts";
import { figure, median, type Row, type Table } from "../table.ts";
import type { Machine, TokenCost } from "./machine.ts";
import type { Figures, Job } from "./measure.ts";

/** Tokens decoded at n = 1, after the first. */
export const SINGLE = 64;
export const MANY = { n: 16, count: 48 };

type Name = Job["engine"];
export type Results = Partial<Record<Name, Figures[]>>;

const seconds = (ms: number) => ms / 1000;
/** Medians of what the table shows. */
const FIGURES = {
  read: (runs: Figures[]) => median(runs.map(({ readMs }) => seconds(readMs))),
  load: (runs: Figures[]) => median(runs.map(({ loadMs }) => seconds(loadMs))),
  beside: (runs: Figures[]) => median(runs.map(({ loadMs, readMs }) => seconds(loadMs - readMs))),
  prefill: (runs: Figures[]) =>
    median(runs.flatMap(({ one }) => one.map(({ prefillTokens, prefillMs }) => prefillTokens / seconds(prefillMs)))),
  decode: (runs: Figures[]) =>
    median(runs.flatMap(({ one }) => one.map(({ decodeTokens, decodeMs }) => decodeTokens / seconds(decodeMs)))),
  whole: (runs: Figures[]) => median(runs.map(({ many }) => seconds(many?.wholeMs ?? Number.NaN))),
  first: (runs: Figures[]) => median(runs.map(({ many }) => seconds(many?.firstMs ?? Number.NaN))),
  total: (runs: Figures[]) => median(runs.map(({ many }) => many?.tokensPerSecond ?? Number.NaN)),
  kv: (runs: Figures[]) => (runs[0].many?.kvBytes ?? Number.NaN) / 1e6,
  copies: (runs: Figures[]) => (runs[0].many?.kvBytesAsCopies ?? Number.NaN) / 1e6,
  peak: (runs: Figures[]) => Math.max(...runs.map(({ peakBytes }) => peakBytes ?? Number.NaN)) / 1e6,
};

interface Line {
  label: string;
  value: keyof typeof FIGURES;
  /** A ratio to peers would say nothing. */
  alone?: true;
  /** Of furcate's figure over a peer's, or of the figure itself. */
  goals?: { peer?: Name; atLeast?: number; atMost?: number }[];
}
const LINES: Line[] = [
  { label: "reading the file, s", value: "read", alone: true },
  { label: "load to first token, s", value: "load" },
  { label: "load less reading, s", value: "beside", alone: true, goals: [{ atMost: 1.5 }] },
  { label: "prefill, tokens/s", value: "prefill", goals: [{ peer: "wllama", atLeast: 7 }] },
  {
    label: "decode n = 1, tokens/s",
    value: "decode",
    goals: [
      { peer: "wllama", atLeast: 7 },
      { peer: "native", atLeast: 0.8 },
    ],
  },
  { label: `n = ${MANY.n} × ${MANY.count}: whole call, s`, value: "whole", goals: [{ peer: "native", atMost: 0.6 }] },
  { label: "… all first tokens after, s", value: "first" },
  { label: "… then tokens/s in all", value: "total", goals: [{ peer: "native", atLeast: 1 }] },
  { label: "… K/V stored, MB", value: "kv" },
  { label: "… K/V as copies, MB", value: "copies" },
  { label: "peak resident memory, MB", value: "peak" },
];

/** Every engine beside the others, with ratios and goals. */
export function comparison(results: Results): Table {
  const names: Name[] = ["furcate", "wllama", "native"];
  const rounds = Math.max(...Object.values(results).map((runs) => runs.length));
  const value = (line: Line, name: Name) => {
    const runs = results[name];
    return runs ? FIGURES[line.value](runs) : Number.NaN;
  };
  const wllamaN = results.wllama?.[0].many?.n;
  const rows = LINES.map((line): Row => {
    const figures = names.map((name) => value(line, name));
    const otherN = ["whole", "first", "total"].includes(line.value) && wllamaN !== undefined && wllamaN !== MANY.n;
    const cells = figures.map((x, i) => figure(x) + (names[i] === "wllama" && otherN ? ` (n = ${wllamaN})` : ""));
    const ratios = [figures[1], figures[2]].map((x, i) =>
      (i === 0 && otherN) || line.alone ? "" : figure(figures[0] / x),
    );
    return [line.label, ...cells, ...ratios, (line.goals ?? []).map((goal) => verdict(goal, line)).join("; ")];
  });
  /** A goal and whether it is met. */
  function verdict({ peer, atLeast, atMost }: NonNullable<Line["goals"]>[number], line: Line): string {
    const got = peer ? value(line, "furcate") / value(line, peer) : value(line, "furcate");
    const wanted = `${atLeast !== undefined ? `≥ ${atLeast}` : `≤ ${atMost}`}${peer ? ` × ${peer}` : ""}`;
    if (Number.isNaN(got)) return `${wanted}: not measured`;
    return `${wanted}: ${got >= (atLeast ?? -Infinity) && got <= (atMost ?? Infinity) ? "met" : "MISSED"}`;
  }
  const [any] = Object.values(results);
  return {
    title: `One thread, prompt of ${any[0].one[0].promptTokens} tokens; medians of ${rounds} processes of each engine`,
    head: ["", ...names, "÷ wllama", "÷ native", "goal (SmolLM2-135M, Q4_1)"],
    rows,
  };
}

/** What the machine would need at least for the same work, beside what furcate needed. */
export function floors(
  runs: Figures[] | undefined,
  machine: Machine,
  cost: TokenCost,
  { nLayers, nHeads, headDim }: ModelConfig,
): Table | undefined {
  if (!runs?.[0].many) return undefined;
  const prompt = runs[0].one[0].prefillTokens;
  const { layers, logits } = cost;
  const row = (label: string, rows: 1 | 16 | 64, all: number, context: number, ms: number): Row => {
    const reading = (cost.bytes / machine.readBandwidth) * 1000;
    const weights = ((all * rows) / machine.kernel[rows]) * 1000;
    const attention = ((2 * nLayers * nHeads * headDim * context * rows) / machine.peakFloat) * 1000;
    const floor = Math.max(reading, weights + attention);
    const rate = cost.bytes / ms / 1e6;
    return [
      label,
      figure(reading),
      figure(weights),
      figure(attention),
      figure(floor),
      figure(ms),
      figure(ms / floor),
      figure(rate),
    ];
  };
  return {
    title:
      `Floors, milliseconds: ${figure(cost.bytes / 1e6)} MB of weights and ${figure((layers + logits) / 1e6)} M multiply-adds a token; ` +
      `measured here: reading ${figure(machine.readBandwidth / 1e9)} GB/s, linear ${[1, 16, 64].map((n) => figure(machine.kernel[n as 1] / 1e9)).join(" / ")} ` +
      `G multiply-adds/s at 1 / 16 / 64 rows, from registers ${figure(machine.peakInteger / 1e9)} (16 bits) and ${figure(machine.peakFloat / 1e9)} (f32)`,
    head: ["", "reading weights", "multiplying them", "attention", "floor", "measured", "÷ floor", "weights GB/s"],
    rows: [
      row("64 rows of prefill", 64, layers, prompt / 2, (64 / FIGURES.prefill(runs)) * 1000),
      row("step at n = 1", 1, layers + logits, prompt + SINGLE / 2, 1000 / FIGURES.decode(runs)),
      row(`step at n = ${MANY.n}`, 16, layers + logits, prompt + MANY.count / 2, (MANY.n / FIGURES.total(runs)) * 1000),
    ],
  };
}
