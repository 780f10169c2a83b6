// Text for a terminal: harmless, measured in cells, wrapped and cut. Knows characters; nothing of what the text says.
// Cells are an estimate (terminals differ on emoji sequences): wide East Asian and emoji 2, marks and joiners 0, the rest 1.

const clusters = new Intl.Segmenter(undefined, { granularity: "grapheme" });

const ASCII = /^[ -~]*$/;
const EMPTY = /^[\p{Mn}\p{Me}\p{Cf}\u1160-\u11ff]+$/u;
const WIDE =
  /^[\u1100-\u115f\u2e80-\u303e\u3041-\ua4cf\ua960-\ua97c\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe6f\uff01-\uff60\uffe0-\uffe6\u{16fe0}-\u{18cff}\u{1aff0}-\u{1b2fb}\u{20000}-\u{3fffd}\p{Emoji_Presentation}]|\ufe0f/u;

/** The text with nothing left that could steer a terminal: of the control characters only newline and tab stay as they are. */
export function harmless(text: string): string {
  return text.replace(/\r\n?|[\u2028\u2029]/g, "\n").replace(/[\p{Cc}\p{Surrogate}\p{Bidi_Control}]/gu, (character) => {
    if (character === "\n" || character === "\t") return character;
    return character < " " ? String.fromCharCode(0x2400 + character.charCodeAt(0)) : "\ufffd";
  });
}

/** Cells that a harmless text without newlines takes. */
export function width(text: string): number {
  if (ASCII.test(text)) return text.length;
  let cells = 0;
  for (const { segment } of clusters.segment(text)) cells += clusterWidth(segment);
  return cells;
}

function clusterWidth(cluster: string): number {
  if (EMPTY.test(cluster)) return 0;
  return WIDE.test(cluster) ? 2 : 1;
}

/** Lines of at most `columns` cells, broken at spaces and beside wide characters, elsewhere only inside a longer word. */
export function wrap(text: string, columns: number): string[] {
  return text
    .replaceAll("\t", "    ")
    .split("\n")
    .flatMap((line) => wrapLine(line, columns));
}

function wrapLine(line: string, columns: number): string[] {
  if (line.length <= columns && ASCII.test(line)) return [line];
  const lines: string[] = [];
  let begin = 0;
  let cells = 0;
  let gap = 0; // where the line may end, and the cells before it
  let cellsToGap = 0;
  for (const { segment, index } of clusters.segment(line)) {
    const size = clusterWidth(segment);
    while (cells + size > columns && segment !== " " && index > begin) {
      const atGap = gap > begin;
      lines.push(line.slice(begin, atGap ? gap : index).trimEnd());
      cells -= atGap ? cellsToGap : cells;
      begin = atGap ? gap : index;
    }
    cells += size;
    if (segment === " " || size === 2) {
      gap = index + segment.length;
      cellsToGap = cells;
    }
  }
  return [...lines, line.slice(begin).trimEnd()];
}

/** The beginning of a text on one line of at most `columns` cells; "…" stands for what is cut off. */
export function head(text: string, columns: number): string {
  const line = flat(text.slice(0, 8 * columns));
  return line.length === text.length && width(line) <= columns ? line : `${take(line, columns - 1).trimEnd()}…`;
}

/** The end of a text on one line of at most `columns` cells; "…" stands for what is cut off. */
export function tail(text: string, columns: number): string {
  const line = flat(text.slice(-8 * columns));
  if (line.length === text.length && width(line) <= columns) return line;
  const all = [...clusters.segment(line)].map(({ segment }) => segment);
  let first = all.length;
  for (let left = columns - 1; first > 0; first--) {
    left -= clusterWidth(all[first - 1]);
    if (left < 0) break;
  }
  return `…${all.slice(first).join("")}`;
}

/** The text on one line, as long as it was. */
const flat = (text: string) => text.replace(/[\n\t]/g, " ");

function take(line: string, columns: number): string {
  let left = columns;
  for (const { segment, index } of clusters.segment(line)) {
    left -= clusterWidth(segment);
    if (left < 0) return line.slice(0, index);
  }
  return line;
}
