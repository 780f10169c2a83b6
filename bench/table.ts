// One table, for a terminal or as Markdown: the first column to the left, the others to the right.

export type Row = readonly (string | undefined)[];

export interface Table {
  readonly title: string;
  readonly head: Row;
  readonly rows: readonly Row[];
}

export function toText({ title, head, rows }: Table): string {
  const widths = head.map((_, i) => Math.max(...[head, ...rows].map((row) => row[i]?.length ?? 0)));
  const line = (row: Row) =>
    widths.map((width, i) => (i === 0 ? (row[i] ?? "").padEnd(width) : (row[i] ?? "").padStart(width))).join("  ");
  return [title, line(head), widths.map((width) => "-".repeat(width)).join("  "), ...rows.map(line), ""].join("\n");
}

export function toMarkdown({ title, head, rows }: Table): string {
  const line = (row: Row) => `| ${head.map((_, i) => row[i] ?? "").join(" | ")} |`;
  return [
    `${title}\n`,
    line(head),
    `|${head.map((_, i) => (i === 0 ? "---" : "---:")).join("|")}|`,
    ...rows.map(line),
  ].join("\n");
}

/** A number with three or so digits; empty for none. */
export function figure(value: number | undefined, unit = ""): string {
  if (value === undefined || Number.isNaN(value)) return "";
  const size = Math.abs(value);
  return value.toFixed(size >= 100 ? 0 : size >= 10 ? 1 : 2) + unit;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2;
}
