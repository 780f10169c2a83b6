// What the training script asks of the mazes: the vocabulary, batches of token ids, held-out prompts, verdicts.
// The mazes themselves are maze.ts's; this file only turns its text into ids and talks over stdin and stdout.
//
//   data.ts vocabulary                       JSON { tokens, merges, endOfText }: byte-level BPE, GPT-2 pre-tokenizer
//   data.ts train --first b --every k --batch n    batches b, b + k, b + 2k … without end, u16 (n, RECORD) each
//   data.ts held-out --first s --count n     prompts of the evaluation seeds s, s + 1 …, u16 (n, PROMPT)
//   data.ts score --first s                  stdin: JSON [[answer, …] of seed s, [answer, …] of seed s + 1, …]
//                                            stdout: JSON ["1101…", …], a digit per answer: 1 where it is valid
import { readFileSync, realpathSync, writeSync } from "node:fs";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";
import { FIRST_TRAINING_SEED, generateMaze, roomName, SHAPES, SIZE, solveMaze, verifyPath, withEnds } from "./maze.ts";

const ROOMS = SIZE * SIZE;
/** Tokens of the rooms: name and shape each, and a newline a row. */
const GRID = 2 * ROOMS + SIZE;
/** Tokens of a prompt: the rooms, then start, arrow, goal, colon. */
const PROMPT = GRID + 4;
/** One maze carries a problem per slot in training (start, arrow, goal, colon, path, end of text). The problems are
 *  sorted by length and each slot holds the problem of its rank; the few that are longer lose their last rooms. */
const SLOTS = [36, 40, 46, 52, 56, 64, 76, 110];
/** Fills a slot's rest; no token. */
const NOTHING = 0xffff;
const END_OF_TEXT = "<|endoftext|>";

/** Tokens in the order of their ids, each in GPT-2's spelling of bytes, and the merges that make them. */
export function vocabulary(): { tokens: string[]; merges: string[]; endOfText: number } {
  const merges: string[] = [];
  const names = Array.from({ length: ROOMS }, (_, room) => roomName(room));
  for (const name of names) merges.push(`${name[0]} ${name[1]}`);
  for (const name of names) merges.push(`Ġ ${name}`);
  for (const symbol of `${SHAPES.slice(1)}→`) {
    const [a, b, c] = spell(symbol);
    if (!merges.includes(`${a} ${b}`)) merges.push(`${a} ${b}`);
    merges.push(`${a}${b} ${c}`);
  }
  const tokens = [...BYTES, ...merges.map((merge) => merge.replace(" ", "")), END_OF_TEXT];
  return { tokens, merges, endOfText: tokens.length - 1 };
}

/** Byte values in the order of their ids: those that GPT-2 prints as themselves, then the others. */
const BYTE_VALUES = (() => {
  const plain = [...span(0x21, 0x7e), ...span(0xa1, 0xac), ...span(0xae, 0xff)];
  return [...plain, ...span(0, 0xff).filter((byte) => !plain.includes(byte))];
})();
const PLAIN_BYTES = 188;
/** GPT-2's spelling of each, in the same order: the others are moved up to U+0100 and on. */
const BYTES = BYTE_VALUES.map((byte, i) => String.fromCharCode(i < PLAIN_BYTES ? byte : 256 + i - PLAIN_BYTES));

function span(from: number, to: number): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

function spell(text: string): string[] {
  return [...new TextEncoder().encode(text)].map((byte) => BYTES[BYTE_VALUES.indexOf(byte)]!);
}

/** Ids of a maze's text, straight from tables: every piece of it is one token (tests/maze.test.ts holds this to the text). */
export class Encoder {
  private readonly id = new Map(vocabulary().tokens.map((token, id) => [token, id]));
  private readonly shapes = [...SHAPES].map((shape, sides) => (sides === 0 ? 0 : this.of(shape)));
  private readonly names = Array.from({ length: ROOMS }, (_, room) => this.of(roomName(room)));
  private readonly steps = Array.from({ length: ROOMS }, (_, room) => this.of(` ${roomName(room)}`));
  private readonly newline = this.of("\n");
  private readonly arrow = this.of("→");
  private readonly colon = this.of(":");
  readonly endOfText = this.id.get(END_OF_TEXT)!;

  private of(text: string): number {
    return this.id.get(spell(text).join(""))!;
  }

  /** Writes GRID ids. */
  grid(open: Uint8Array, out: Uint16Array, at: number): void {
    for (let room = 0; room < ROOMS; room++) {
      out[at++] = this.names[room]!;
      out[at++] = this.shapes[open[room]!]!;
      if ((room + 1) % SIZE === 0) out[at++] = this.newline;
    }
  }

  /** Writes 4 ids: start, arrow, goal, colon. */
  ask(start: number, goal: number, out: Uint16Array, at: number): void {
    out.set([this.names[start]!, this.arrow, this.names[goal]!, this.colon], at);
  }

  /** Writes as many ids of the path and the end of text as fit into `space`. */
  path(rooms: readonly number[], out: Uint16Array, at: number, space: number): void {
    for (let i = 0; i < Math.min(rooms.length, space); i++) out[at + i] = this.steps[rooms[i]!]!;
    if (rooms.length < space) out[at + rooms.length] = this.endOfText;
  }
}

/** Record of a training seed: (GRID) ids of the rooms, then the slots. */
function trainingRecord(encoder: Encoder, seed: number, out: Uint16Array): void {
  const maze = generateMaze(seed);
  const problems = SLOTS.map((_, pair) => {
    const problem = pair === 0 ? maze : withEnds(maze, seed, pair);
    return { problem, rooms: solveMaze(problem, (seed ^ (pair * 0x9e3779b1)) >>> 0) };
  }).sort((a, b) => a.rooms.length - b.rooms.length);
  out.fill(NOTHING);
  encoder.grid(maze.open, out, 0);
  let at = GRID;
  for (const [slot, { problem, rooms }] of problems.entries()) {
    encoder.ask(problem.start, problem.goal, out, at);
    encoder.path(rooms, out, at + 4, SLOTS[slot]! - 4);
    at += SLOTS[slot]!;
  }
}

function train(first: number, every: number, batch: number): never {
  const encoder = new Encoder();
  const width = GRID + SLOTS.reduce((sum, slot) => sum + slot);
  const block = new Uint16Array(batch * width);
  for (let index = first; ; index += every) {
    for (let i = 0; i < batch; i++) {
      const seed = FIRST_TRAINING_SEED + ((index * batch + i) % (2 ** 32 - FIRST_TRAINING_SEED));
      trainingRecord(encoder, seed, block.subarray(i * width, (i + 1) * width));
    }
    put(block);
  }
}

function heldOut(first: number, count: number): void {
  const encoder = new Encoder();
  const block = new Uint16Array(count * PROMPT);
  for (let i = 0; i < count; i++) {
    const maze = evaluationMaze(first + i);
    encoder.grid(maze.open, block, i * PROMPT);
    encoder.ask(maze.start, maze.goal, block, i * PROMPT + GRID);
  }
  put(block);
}

function score(first: number): void {
  const answers = JSON.parse(readFileSync(0, "utf8")) as string[][]; // by maze, then by sample
  const verdicts = answers.map((texts, i) => {
    const maze = evaluationMaze(first + i);
    return texts.map((text) => (verifyPath(maze, text).valid ? "1" : "0")).join("");
  });
  console.log(JSON.stringify(verdicts));
}

function evaluationMaze(seed: number) {
  if (seed >= FIRST_TRAINING_SEED) throw new RangeError(`seed ${seed} is a training seed, expected one below 2^31`);
  return generateMaze(seed);
}

function put(block: Uint16Array): void {
  const bytes = new Uint8Array(block.buffer, block.byteOffset, block.byteLength);
  let at = 0;
  while (at < bytes.length) {
    try {
      at += writeSync(1, bytes, at);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EPIPE") process.exit(0); // the reader has what it wants
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
    }
  }
}

function main(): void {
  const number = { type: "string", default: "0" } as const;
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { first: number, count: number, every: number, batch: number },
  });
  const first = Number(values.first);
  const job = positionals[0];
  if (job === "vocabulary")
    console.log(JSON.stringify({ ...vocabulary(), grid: GRID, slots: SLOTS, nothing: NOTHING }));
  else if (job === "train") train(first, Number(values.every), Number(values.batch));
  else if (job === "held-out") heldOut(first, Number(values.count));
  else if (job === "score") score(first);
  else throw new Error(`data.ts: got "${job}", expected vocabulary, train, held-out or score`);
}

if (process.argv[1] && import.meta.url === pathToFileURL(realpathSync(process.argv[1])).href) main();
