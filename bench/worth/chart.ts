// The picture: share of mazes solved against the time it takes, n from 1 to 64. One SVG, readable on light and dark ground.

import { COUNTS, type Results } from "./measure.ts";
import { greedyOf, passOf, rankedOf, type Times, timesOf } from "./report.ts";

const [WIDTH, HEIGHT] = [860, 470];
const PLOT = { left: 64, right: 640, top: 58, bottom: 400 };
const TICKS = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100];
const NAMES = { wasm: "CPU", webgpu: "GPU" };

interface Series {
  /** Of its style, and in the legend. */
  readonly look: string;
  readonly name: string;
  readonly note: string;
  /** Seconds, share, and what the point is called. */
  readonly points: readonly { x: number; y: number; label?: string }[];
}

/** Quality at one temperature against time on each kind of device that was measured. */
export function chart(results: Results, temperature: number): string {
  const series = timesOf(results, temperature)
    .filter(({ counts }) => counts.length > 0)
    .flatMap((times, i) => seriesOf(results, temperature, times, i === 0));
  const xs = series.flatMap(({ points }) => points.map(({ x }) => x));
  const ys = series.flatMap(({ points }) => points.map(({ y }) => y));
  const [least, most] = [Math.min(...xs) / 1.25, Math.max(...xs) * 1.25];
  const bottom = Math.max(0, Math.floor(Math.min(...ys) * 10 - 0.2) / 10);
  const X = (x: number) => PLOT.left + ((PLOT.right - PLOT.left) * Math.log(x / least)) / Math.log(most / least);
  const Y = (y: number) => PLOT.bottom - ((PLOT.bottom - PLOT.top) * (y - bottom)) / (1 - bottom);
  const out: string[] = [];
  for (let y = bottom; y < 1.001; y += 0.1) {
    out.push(`<path class="grid" d="M${PLOT.left} ${fix(Y(y))}H${PLOT.right}"/>`);
    out.push(`<text class="faint" x="${PLOT.left - 10}" y="${fix(Y(y) + 4)}" text-anchor="end">${y.toFixed(1)}</text>`);
  }
  for (const x of TICKS.filter((x) => x >= least && x <= most)) {
    out.push(`<path class="grid" d="M${fix(X(x))} ${PLOT.top}V${PLOT.bottom}"/>`);
    out.push(`<text class="faint" x="${fix(X(x))}" y="${PLOT.bottom + 20}" text-anchor="middle">${x} s</text>`);
  }
  const middle = (PLOT.left + PLOT.right) / 2;
  out.push(
    `<text class="faint" x="${middle}" y="${PLOT.bottom + 46}" text-anchor="middle">time until the last sample has ended, prompt included</text>`,
  );
  for (const { look, points } of series) {
    const line = points.map(({ x, y }, i) => `${i === 0 ? "M" : "L"}${fix(X(x))} ${fix(Y(y))}`).join("");
    if (points.length > 1) out.push(`<path class="line ${look}" d="${line}"/>`);
    for (const { x, y, label } of points) {
      out.push(`<circle class="dot ${look}" cx="${fix(X(x))}" cy="${fix(Y(y))}" r="${points.length > 1 ? 3.5 : 5}"/>`);
      if (label)
        out.push(
          `<text class="faint small" x="${fix(X(x) - 7)}" y="${fix(Y(y) - 4)}" text-anchor="end">${label}</text>`,
        );
    }
  }
  series.forEach(({ look, name, note }, i) => {
    const y = PLOT.top + 14 + i * 52;
    out.push(
      `<path class="line ${look}" d="M${PLOT.right + 22} ${y - 4}h26"/><circle class="dot ${look}" cx="${PLOT.right + 35}" cy="${y - 4}" r="3.5"/>`,
    );
    out.push(`<text class="ink" x="${PLOT.right + 56}" y="${y}">${name}</text>`);
    out.push(`<text class="faint small" x="${PLOT.right + 56}" y="${y + 17}">${note}</text>`);
  });
  const told = series.map(
    ({ name, points }) => `${name}: ${points.map(({ x, y }) => `${y.toFixed(2)} in ${x.toFixed(2)} s`).join(", ")}`,
  );
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="system-ui, sans-serif" font-size="13" role="img" aria-labelledby="t d">
  <title id="t">Share of mazes solved against time</title>
  <desc id="d">${told.join(". ")}.</desc>
  <style>
    .ink { fill: #1f2933 } .faint { fill: #6b7785 } .small { font-size: 11.5px } .grid { stroke: #6b7785; stroke-opacity: .22; fill: none }
    .line { fill: none; stroke-width: 2 } .dot { stroke: none }
    .line.pass { stroke: #2f74b5 } .dot.pass { fill: #2f74b5 } .line.gpu { stroke: #2f8f57 } .dot.gpu { fill: #2f8f57 }
    .line.rank { stroke: #c9761c } .dot.rank { fill: #c9761c } .line.calls { stroke: #7d8894; stroke-dasharray: 5 4 } .dot.calls { fill: #7d8894 }
    .line.sum { stroke-dasharray: 2 3 }
    .line.greedy { stroke: none } .dot.greedy { fill: #b5404f }
    @media (prefers-color-scheme: dark) {
      .ink { fill: #e6ebf0 } .faint { fill: #9aa7b4 } .grid { stroke: #9aa7b4 }
      .line.pass { stroke: #7ab2e8 } .dot.pass { fill: #7ab2e8 } .line.gpu { stroke: #6fca94 } .dot.gpu { fill: #6fca94 }
      .line.rank { stroke: #eda65a } .dot.rank { fill: #eda65a } .line.calls { stroke: #8b96a2 } .dot.calls { fill: #8b96a2 } .dot.greedy { fill: #e8808c }
    }
  </style>
  <text class="ink" x="${PLOT.left}" y="28" font-weight="600">What n samples of one prompt are worth: share of mazes solved, n = 1 … 64, temperature ${temperature}</text>
  ${out.join("\n  ")}
</svg>
`;
}

function seriesOf(results: Results, temperature: number, times: Times, isFirst: boolean): Series[] {
  const { kind, counts, seconds } = times;
  const name = NAMES[kind];
  const shown = COUNTS.filter((n) => counts.includes(n));
  const at = (n: number) => seconds[counts.indexOf(n)];
  const pass = shown.map((n) => passOf(results, temperature, n).mean);
  const ranked = (by: "mean" | "sum") =>
    shown.map((n) => ({ x: at(n), y: rankedOf(results, temperature, n, by).mean }));
  const main: Series = {
    look: isFirst ? "pass" : "gpu",
    name: `${name}: n at once`,
    note: "a verifier picks",
    points: shown.map((n, i) => ({ x: at(n), y: pass[i], label: `${n}` })),
  };
  if (!isFirst) return [main];
  return [
    main,
    {
      look: "calls",
      name: `${name}: n calls of one`,
      note: "a verifier picks",
      points: shown.map((n, i) => ({ x: n * at(1), y: pass[i] })),
    },
    { look: "rank", name: `${name}: n at once`, note: "no verifier: mean log-prob.", points: ranked("mean") },
    { look: "rank sum", name: `${name}: n at once`, note: "no verifier: sum of them", points: ranked("sum") },
    { look: "greedy", name: `${name}: greedy`, note: "one path", points: [{ x: at(1), y: greedyOf(results).mean }] },
  ];
}

const fix = (value: number) => value.toFixed(1);
