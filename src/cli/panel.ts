// The panel of choices as they grow: state -> lines of text that fit. Knows the sizes of a terminal; writes nothing to it.

import type { Choice } from "furcate";
import type { Paint } from "./screen.ts";
import { head, tail, wrap } from "./text.ts";

export interface Row {
  /** Harmless text so far. */
  text: string;
  finishReason?: Choice["finishReason"];
}

const MARKS = { stop: "✓", length: "•", abort: "×" };

/** At most `height` lines of at most `columns` cells: heading (two lines), each choice in its share of the height, status. */
export function panelLines(
  heading: readonly [string, string],
  rows: readonly Row[],
  status: string,
  columns: number,
  height: number,
  paint: Paint,
): string[] {
  const space = Math.max(2, height - 4);
  const share = Math.max(1, Math.floor(space / rows.length));
  const margin = String(rows.length - 1).length + 3;
  const room = Math.max(8, columns - margin);
  // Where there are more choices than lines, those that still run come first, and the last line counts the others.
  const order = rows.map((row, index) => ({ row, index }));
  const ended = ({ row }: { row: Row }) => Number(row.finishReason !== undefined);
  if (rows.length > space) order.sort((a, b) => ended(a) - ended(b) || a.index - b.index).splice(space - 1);
  order.sort((a, b) => a.index - b.index);
  const lines = order.flatMap(({ row: { text, finishReason }, index }) => {
    const mark = finishReason ? paint("green", MARKS[finishReason]) : " ";
    const first = `${paint("cyan", String(index).padStart(margin - 2))}${mark} `;
    return newest(text.trimStart(), room, share).map((line, i) => (i === 0 ? first : " ".repeat(margin)) + line);
  });
  if (order.length < rows.length) lines.push(`${" ".repeat(margin)}and ${rows.length - order.length} more`);
  return [
    paint("bold", head(` ${heading[0]}`, columns)),
    paint("dim", head(` ${heading[1]}`, columns)),
    ...lines,
    "",
    paint("dim", head(` ${status}`, columns)),
  ].slice(-height);
}

/** The newest text: on one line its end, on several the last lines of the wrapped text, which stand still while they fill. */
function newest(text: string, columns: number, count: number): string[] {
  if (count === 1) return [tail(text, columns)];
  // Wrapping starts at a fixed place, far enough back, so that it neither moves with each token nor takes ever longer.
  const stride = 4 * columns * count;
  const from = Math.max(0, Math.floor(text.length / stride) - 1) * stride;
  const lines = wrap(text.slice(from), columns).filter((line) => line !== "");
  return lines.length > 0 ? lines.slice(-count) : [""];
}

/** A bar of `columns` cells, filled to a share in 0 … 1. */
export function bar(share: number, columns: number): string {
  const filled = Math.round(Math.min(1, Math.max(0, share)) * columns);
  return "█".repeat(filled) + "░".repeat(columns - filled);
}
