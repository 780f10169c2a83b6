// How the maze demonstration looks: the drawing, and a column of figures beside it where there is room, below it elsewhere.
// Knows mazes and terminals; nothing of models.

import type { Stream } from "furcate";
import { drawMaze, type Maze, SIZE, verifyPath } from "../../models/maze/maze.ts";
import type { Outcome } from "./maze.ts";
import { bar } from "./panel.ts";
import { bytes } from "./report.ts";
import { openScreen, type Paint, paintFor } from "./screen.ts";
import { harmless, wrap } from "./text.ts";

const FRAME_MS = 50;
const GAP = 2;
/** Cells of the column of figures: what the drawing leaves of a terminal of 80. */
const COLUMN = 30;
/** Cells of drawing and column side by side. */
export const WIDTH = 2 * SIZE - 1 + GAP + COLUMN;

type Style = Parameters<Paint>[0];
/** What a path can be, with its colour; where rooms are shared the later one shows. */
const STATES = { wrong: "red", growing: "cyan", valid: "green" } as const;

const ATTENTION = {
  "two-part": "two-part attention",
  "one-part": "one-part attention",
  mixed: "two-part, then one-part",
};

/** Takes the screen, and lets n paths grow over one drawing. */
export function openLive(stdout: typeof process.stdout, maze: Maze, n: number, promptTokens: number) {
  const paint = paintFor(stdout);
  const paths = Array.from({ length: n }, () => ({ text: "", ended: false }));
  const began = performance.now();
  let tokens = 0;
  let first = began;
  let now = began;
  let status = "reading the prompt …";

  const lines = (): string[] => {
    const seen = paths.map(({ text, ended }) => {
      const { valid, rooms } = verifyPath(maze, text);
      // A path is wrong as soon as it leaves the maze, though it go on.
      const isOff = rooms.length < text.split(" ").length - 1;
      return { rooms, state: valid && ended ? "valid" : ended || isOff ? "wrong" : "growing" };
    });
    const styles = new Map<number, Style>();
    const counts: string[] = [];
    for (const [state, style] of Object.entries(STATES)) {
      const those = seen.filter((path) => path.state === state);
      for (const { rooms } of those) for (const room of rooms) styles.set(room, style);
      counts.unshift(paint(style, entry(`${state.padEnd(9)}${bar(those.length / n, COLUMN - 13)}`, `${those.length}`)));
    }
    const allRooms = seen.map(({ rooms }) => rooms);
    return beside(
      draw(maze, allRooms, (room) => styles.get(room) ?? "dim", paint),
      [
        "",
        ...caption(n, promptTokens, paint),
        "",
        ...counts,
        "",
        entry("time", seconds(now - began)),
        entry("tokens", grouped(tokens)),
        entry("tokens per second", now > first ? grouped((tokens / (now - first)) * 1000) : ""),
        "",
        paint("dim", status),
        paint("dim", "Ctrl-C stops"),
      ],
    );
  };

  const screen = openScreen(stdout, lines);
  return {
    close: screen.close,
    say(text: string): void {
      status = text;
      screen.draw();
    },
    /** Draws what comes until the stream ends. */
    async follow(stream: Stream): Promise<void> {
      // What goes wrong is thrown by the loop.
      stream.result.catch(() => {});
      let drawn = 0;
      for await (const { index, text, finishReason } of stream) {
        now = performance.now();
        if (tokens++ === 0) first = now;
        paths[index] = { text: paths[index].text + text, ended: finishReason !== undefined };
        if (now - drawn < FRAME_MS) continue;
        drawn = now;
        status = "all paths grow together";
        screen.draw();
      }
      screen.draw();
    },
  };
}

/** What computed, the finished drawing with the verifier's pick as a heavy line, and the table: where lines are few, its end shows. */
export function outcomeLines(maze: Maze, outcome: Outcome, columns: number, paint: Paint): string[] {
  const { n, choices, picks, single, stats } = outcome;
  const pick = new Set(choices.find(({ index }) => index === picks.verifier.index)?.rooms);
  const valid = new Set(choices.flatMap(({ valid, rooms }) => (valid ? rooms : [])));
  const style = (room: number) => {
    if (pick.has(room)) return picks.verifier.valid ? "bright" : "red";
    return valid.has(room) ? "green" : "dim";
  };
  const drawing = draw(maze, [[...pick]], style, paint);
  const verdict = (name: string, { valid }: { valid: boolean }) =>
    name.padEnd(COLUMN - 5) + (valid ? paint("green", "valid") : paint("red", "wrong"));
  const measured = single.milliseconds.length;
  const isEstimate = measured < n;
  const table = [
    "",
    ...caption(n, outcome.usage.promptTokens, paint),
    "",
    paint("bold", entry("valid paths", `${outcome.valid} of ${n}`)),
    entry("distinct", `${outcome.distinctValid}`),
    entry("shortest found", outcome.shortestFound === null ? "none" : `${outcome.shortestFound} steps`),
    entry("shortest there is", `${outcome.shortest} steps`),
    "",
    verdict("first by verifier", picks.verifier),
    verdict("  by mean log-prob.", picks.meanLogprob),
    verdict("  by vote", picks.vote),
    "",
    paint("bold", entry(`time, one call for ${n}`, seconds(outcome.milliseconds))),
    entry(`${n} calls, one each${isEstimate ? "*" : ""}`, seconds(single.forAll)),
    entry("tokens per second", grouped(stats.tokensPerSecond)),
    entry("K/V stored", bytes(stats.kvBytes)),
    entry("K/V as copies", bytes(stats.kvBytesAsCopies)),
    "",
    paint("dim", `${stats.backend}, ${ATTENTION[stats.attention]}`),
    paint("dim", `again: --seed ${outcome.seed}`),
    ...(isEstimate ? [paint("dim", `* estimated from ${measured} measured`)] : []),
  ];
  const where = [`computed by ${stats.device}`, ...(stats.fallback ? [`no GPU used: ${stats.fallback}`] : [])]
    .flatMap((line) => wrap(harmless(line), columns))
    .map((line) => paint("dim", line));
  return [...where, "", ...(columns >= WIDTH ? beside(drawing, table) : [...drawing, ...table])];
}

function draw(maze: Maze, paths: readonly number[][], style: (room: number) => Style, paint: Paint): string[] {
  const paintRoom = (text: string, room: number) => {
    if (room !== maze.start && room !== maze.goal) return paint(style(room), text);
    return paint("bold", text[0]) + paint(style(room), text.slice(1));
  };
  return drawMaze(maze, paths, paintRoom).split("\n");
}

const beside = (drawing: readonly string[], column: readonly string[]) =>
  drawing.map((line, i) => `${line}${" ".repeat(GAP)}${column[i] ?? ""}`.trimEnd());
const caption = (n: number, promptTokens: number, paint: Paint) => [
  paint("bold", `${n} ${n === 1 ? "answer" : "answers"} from one prompt`),
  paint("bold", `of ${grouped(promptTokens)} tokens, stored once`),
];
const entry = (name: string, value: string) => name + value.padStart(COLUMN - name.length);
const seconds = (ms: number) => `${(ms / 1000).toFixed(1)} s`;
/** 1234.5 -> "1,235" */
const grouped = (value: number) => Math.round(value).toLocaleString("en-US");
