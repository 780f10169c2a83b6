// What is written to a terminal besides text: colours, and a full screen that is always given back.
// Knows escape sequences; nothing of what is shown.

import { writeSync } from "node:fs";
import type { WriteStream } from "node:tty";

export type Paint = (style: keyof typeof STYLES, text: string) => string;

const STYLES = { bold: "1", dim: "2", red: "31", green: "32", cyan: "36", bright: "1;92" };

/** Colours for a stream: none where it is no terminal, or where NO_COLOR says so. */
export function paintFor(stream: WriteStream): Paint {
  if (!stream.isTTY || process.env.NO_COLOR || process.env.TERM === "dumb") return (_, text) => text;
  return (style, text) => `\x1b[${STYLES[style]}m${text}\x1b[0m`;
}

/** Cells and lines of a terminal; the usual ones where it does not say. The last column stays free: writing there wraps. */
export function sizeOf(stream: WriteStream): { columns: number; height: number } {
  return { columns: (stream.columns || 80) - 1, height: stream.rows || 24 };
}

// Alternate screen, no cursor, and no wrapping: a line whose width was guessed wrong is cut off instead of breaking the panel.
const ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l";
const LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l";
// Between these two a terminal that knows them shows nothing half drawn.
const HOLD = "\x1b[?2026h";
const SHOW = "\x1b[?2026l";

/** Takes the whole terminal until close, or until the process exits, and draws what `lines` returns for its present size. */
export function openScreen(stream: WriteStream & { fd: number }, lines: (columns: number, height: number) => string[]) {
  const draw = () => {
    const { columns, height } = sizeOf(stream);
    stream.write(`${HOLD}\x1b[H${lines(columns, height).join("\x1b[K\r\n")}\x1b[J${SHOW}`);
  };
  // At once, since the process may be about to exit.
  const leave = () => writeSync(stream.fd, LEAVE);
  // Ctrl-Z: whoever has the terminal meanwhile finds it as it was.
  const stop = () => {
    leave();
    process.kill(process.pid, "SIGSTOP");
  };
  const enter = () => {
    stream.write(ENTER);
    draw();
  };
  let open = true;
  const close = () => {
    if (!open) return;
    open = false;
    stream.off("resize", draw);
    process.off("exit", leave);
    process.off("SIGTSTP", stop);
    process.off("SIGCONT", enter);
    leave();
  };
  process.on("exit", leave);
  if (process.platform !== "win32") {
    process.on("SIGTSTP", stop);
    process.on("SIGCONT", enter);
  }
  stream.on("resize", draw);
  enter();
  return { draw, close };
}
