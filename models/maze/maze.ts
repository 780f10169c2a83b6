// Mazes of 24 × 24 rooms: made from a seed, written as a prompt, read back, solved, verified, drawn.
// The only definition of a maze in this repository: training, the tests, `npm start` and the benchmarks import it.
// No dependencies; runs in Node, Deno and browsers. Knows nothing of tokens, models or files.
//
//   const maze = generateMaze(7);
//   const prompt = mazePrompt(maze);               // "aa╷ab┌ac─…\n" a row, then "ca→xf:"
//   const { valid, reason } = verifyPath(maze, " ca cb db …");
//   console.log(drawMaze(maze, [rooms]));

/** Rooms a side. The model was trained on this size alone. */
export const SIZE = 24;
const ROOMS = SIZE * SIZE;
/** Start and goal of a generated maze are at least this many steps apart on the shortest path. */
export const MIN_STEPS = 16;
/** Chance that a wall which is no longer needed is taken out: this makes loops, so there are many right paths. */
export const LOOP_CHANCE = 0.1;
/** Seeds below this are for evaluation and play; training uses those from here to 2^32 − 1 and no other. */
export const FIRST_TRAINING_SEED = 2 ** 31;

/** Open sides of a room, added up. */
export const NORTH = 1;
export const EAST = 2;
export const SOUTH = 4;
export const WEST = 8;

export interface Maze {
  /** (SIZE · SIZE) open sides of each room, row by row from the top left. */
  readonly open: Uint8Array;
  /** Rooms are numbers: row · SIZE + column. */
  readonly start: number;
  readonly goal: number;
}

export interface Verdict {
  readonly valid: boolean;
  /** Why, in words: "reaches xf in 37 steps" or the first thing that is wrong. */
  readonly reason: string;
  /** The rooms walked up to the first fault, the faulty one left out. */
  readonly rooms: number[];
}

export type MazeFault = "malformed" | "size" | "no-path";

/** What is wrong with a maze or its text. `fault`: "size" (not 24 × 24), "malformed", or "no-path" from start to goal. */
export class MazeError extends Error {
  readonly fault: MazeFault;
  constructor(fault: MazeFault, message: string) {
    super(message);
    this.name = "MazeError";
    this.fault = fault;
  }
}

/** The maze of this seed (an integer from 0 to 2^32 − 1). The same walls can carry many problems: `pair` picks the ends. */
export function generateMaze(seed: number, pair = 0): Maze {
  return withEnds({ open: carve(seed), start: 0, goal: 0 }, seed, pair);
}

/** The same walls with another random start and goal, at least MIN_STEPS apart. */
export function withEnds(maze: Maze, seed: number, pair: number): Maze {
  const random = randomStream(checkedSeed(seed), 1 + pair);
  for (;;) {
    const start = below(random, ROOMS);
    const goal = below(random, ROOMS);
    if (distances(maze.open, start)[goal]! >= MIN_STEPS) return { open: maze.open, start, goal };
  }
}

/** A random near-shortest path: the shortest one when each step costs 1 + 0.5 · uniform. Rooms from start to goal.
 *  Throws MazeError "no-path" when there is none. */
export function solveMaze(maze: Maze, seed: number): number[] {
  const random = randomStream(checkedSeed(seed), 0x50a7);
  const { open } = maze;
  const cost = new Float64Array(ROOMS).fill(Number.POSITIVE_INFINITY);
  const from = new Int16Array(ROOMS).fill(-1);
  const done = new Uint8Array(ROOMS);
  const heap = new Heap(4 * ROOMS);
  cost[maze.start] = 0;
  heap.push(0, maze.start);
  while (heap.size > 0) {
    const room = heap.pop();
    if (done[room]) continue;
    if (room === maze.goal) return walkBack(from, maze.start, maze.goal);
    done[room] = 1;
    for (let side = 0; side < 4; side++) {
      if (!(open[room]! & (1 << side))) continue;
      const next = room + STEP[side]!;
      const through = cost[room]! + 1 + 0.5 * random();
      if (done[next] || through >= cost[next]!) continue;
      cost[next] = through;
      from[next] = room;
      heap.push(through, next);
    }
  }
  throw noPath(maze);
}

/** Steps on the shortest path from start to goal. Throws MazeError "no-path" when there is none. */
export function shortestSteps(maze: Maze): number {
  const steps = distances(maze.open, maze.start)[maze.goal]!;
  if (steps < 0) throw noPath(maze);
  return steps;
}

/** The prompt: a line per row of rooms, each room as its name and its shape, then `start→goal:`. Throws MazeError. */
export function mazePrompt(maze: Maze): string {
  checkMaze(maze);
  return `${mazeRows(maze)}${roomName(maze.start)}→${roomName(maze.goal)}:`;
}

/** The answer as the model was taught it: " ca cb db …". */
export function pathText(rooms: ArrayLike<number>): string {
  let text = "";
  for (let i = 0; i < rooms.length; i++) text += ` ${NAMES[rooms[i]!]}`;
  return text;
}

/** Reads a prompt back. Throws MazeError: "size", "malformed" (says where and what), or "no-path". */
export function parseMaze(text: string): Maze {
  const lines = text.split("\n");
  const ask = lines.pop()!;
  if (lines.length === 0) throw malformed("the text has one line, expected rows of rooms and then start→goal:");
  const wide = [...lines[0]!].length / 3;
  if (lines.length !== SIZE || (wide !== SIZE && Number.isInteger(wide))) {
    throw new MazeError("size", `maze has ${lines.length} rows of ${wide} rooms, expected ${SIZE} rows of ${SIZE}`);
  }
  const open = new Uint8Array(ROOMS);
  for (let row = 0; row < SIZE; row++) {
    const line = [...lines[row]!];
    if (line.length !== 3 * SIZE) {
      throw malformed(`row ${row + 1} has ${line.length} characters, expected ${3 * SIZE} (${SIZE} × name and shape)`);
    }
    for (let column = 0; column < SIZE; column++) {
      const room = row * SIZE + column;
      const [a, b, shape] = line.slice(3 * column, 3 * column + 3);
      if (`${a}${b}` !== NAMES[room])
        throw malformed(`row ${row + 1} has room "${a}${b}" where "${NAMES[room]}" belongs`);
      open[room] = SHAPES.indexOf(shape!);
      if (open[room] === 0 || open[room]! > 15) {
        throw malformed(`room ${NAMES[room]} has the shape "${shape}", expected one of ${SHAPES.slice(1)}`);
      }
    }
  }
  const ends = /^([a-z]{2})→([a-z]{2}):$/.exec(ask);
  if (!ends) throw malformed(`the last line is "${ask.slice(0, 40)}", expected start→goal: such as "ca→xf:"`);
  const [start, goal] = [roomIndex(ends[1]!), roomIndex(ends[2]!)];
  if (start < 0 || goal < 0) throw malformed(`"${ask}" names a room outside aa … ${NAMES[ROOMS - 1]}`);
  const maze = { open, start, goal };
  checkMaze(maze);
  return maze;
}

/** Checks an answer exactly: room names parted by white space, from start to goal, through open sides, no room twice.
 *  Never throws on any text. */
export function verifyPath(maze: Maze, text: string): Verdict {
  const rooms: number[] = [];
  const fault = (reason: string): Verdict => ({ valid: false, reason, rooms });
  const seen = new Uint8Array(ROOMS);
  const words = text.split(/\s+/).filter((word) => word !== "");
  if (words.length === 0) return fault("names no room");
  for (const word of words) {
    const room = roomIndex(word);
    if (room < 0) return fault(`"${word.slice(0, 12)}" is no room`);
    if (rooms.length === 0) {
      if (room !== maze.start) return fault(`begins at ${word}, not at ${NAMES[maze.start]}`);
    } else {
      const last = rooms[rooms.length - 1]!;
      const side = sideTowards(last, room);
      if (side < 0) return fault(`${NAMES[last]} and ${word} are not neighbours`);
      if (!(maze.open[last]! & (1 << side))) return fault(`there is a wall between ${NAMES[last]} and ${word}`);
      if (seen[room]) return fault(`visits ${word} twice`);
    }
    seen[room] = 1;
    rooms.push(room);
  }
  const last = rooms[rooms.length - 1]!;
  if (last !== maze.goal) return fault(`ends at ${NAMES[last]}, not at ${NAMES[maze.goal]}`);
  return { valid: true, reason: `reaches ${NAMES[last]} in ${rooms.length - 1} steps`, rooms };
}

/** The maze as SIZE lines of 2 · SIZE − 1 characters: corridors as thin lines, the steps of `paths` as heavy ones,
 *  S and G at the ends. `paint(text, room, share)` may colour a room's characters; `share` is the part of the paths
 *  that pass through the room, 0 to 1. */
export function drawMaze(
  maze: Maze,
  paths: readonly ArrayLike<number>[] = [],
  paint: (text: string, room: number, share: number) => string = (text) => text,
): string {
  const walked = new Uint8Array(ROOMS); // sides that some path uses
  const visits = new Float64Array(ROOMS);
  for (const path of paths) {
    for (let i = 0; i < path.length; i++) {
      visits[path[i]!]! += 1 / paths.length;
      const side = i > 0 ? sideTowards(path[i - 1]!, path[i]!) : -1;
      if (side < 0) continue;
      walked[path[i - 1]!]! |= 1 << side;
      walked[path[i]!]! |= 1 << ((side + 2) & 3);
    }
  }
  const weight = (room: number, side: number) =>
    walked[room]! & (1 << side) ? 2 : maze.open[room]! & (1 << side) ? 1 : 0;
  const lines: string[] = [];
  for (let row = 0; row < SIZE; row++) {
    let line = "";
    for (let room = row * SIZE; room < (row + 1) * SIZE; room++) {
      const sides = weight(room, 0) + 3 * weight(room, 1) + 9 * weight(room, 2) + 27 * weight(room, 3);
      const mark = room === maze.start ? "S" : room === maze.goal ? "G" : LINES[sides]!;
      const joint = (room + 1) % SIZE === 0 ? "" : " ─━"[weight(room, 1)]!;
      line += paint(mark + joint, room, visits[room]!);
    }
    lines.push(line);
  }
  return lines.join("\n");
}

/** "ca": the row's letter, then the column's. */
export function roomName(room: number): string {
  return NAMES[room]!;
}

/** The room of a name, or −1 when there is no such room. */
export function roomIndex(name: string): number {
  if (name.length !== 2) return -1;
  const row = name.charCodeAt(0) - 97;
  const column = name.charCodeAt(1) - 97;
  return row >= 0 && row < SIZE && column >= 0 && column < SIZE ? row * SIZE + column : -1;
}

/** Shape of a room by its open sides (0 … 15): a line drawn towards each open side. */
export const SHAPES = " ╵╶└╷│┌├╴┘─┴┐┤┬┼";

// ---- helpers ----

/** Heavy and thin lines by north + 3 · east + 9 · south + 27 · west, each 0 none, 1 thin, 2 heavy. */
const LINES = " ╵╹╶└┖╺┕┗╷│╿┌├┞┍┝┡╻╽┃┎┟┠┏┢┣╴┘┚─┴┸╼┶┺┐┤┦┬┼╀┮┾╄┒┧┨┰╁╂┲╆╊╸┙┛╾┵┹━┷┻┑┥┩┭┽╃┯┿╇┓┪┫┱╅╉┳╈╋";
const STEP = [-SIZE, 1, SIZE, -1]; // by side: north, east, south, west
const NAMES: readonly string[] = Array.from({ length: ROOMS }, (_, room) =>
  String.fromCharCode(97 + Math.floor(room / SIZE), 97 + (room % SIZE)),
);

/** Walls of a seed: a depth-first tree, then each wall that is left goes with LOOP_CHANCE. */
function carve(seed: number): Uint8Array {
  const random = randomStream(checkedSeed(seed), 0);
  const open = new Uint8Array(ROOMS);
  const stack = new Int16Array(ROOMS);
  const seen = new Uint8Array(ROOMS);
  let depth = 1;
  stack[0] = below(random, ROOMS);
  seen[stack[0]!] = 1;
  const choices = [0, 0, 0, 0];
  while (depth > 0) {
    const room = stack[depth - 1]!;
    let count = 0;
    for (let side = 0; side < 4; side++) {
      if (hasSide(room, side) && !seen[room + STEP[side]!]) choices[count++] = side;
    }
    if (count === 0) {
      depth--;
      continue;
    }
    const side = choices[below(random, count)]!;
    const next = room + STEP[side]!;
    join(open, room, side);
    seen[next] = 1;
    stack[depth++] = next;
  }
  for (let room = 0; room < ROOMS; room++) {
    for (let side = 1; side <= 2; side++) {
      if (!hasSide(room, side) || open[room]! & (1 << side)) continue;
      if (random() < LOOP_CHANCE) join(open, room, side);
    }
  }
  return open;
}

function join(open: Uint8Array, room: number, side: number): void {
  open[room]! |= 1 << side;
  open[room + STEP[side]!]! |= 1 << ((side + 2) & 3);
}

function hasSide(room: number, side: number): boolean {
  if (side === 0) return room >= SIZE;
  if (side === 1) return (room + 1) % SIZE !== 0;
  if (side === 2) return room < ROOMS - SIZE;
  return room % SIZE !== 0;
}

/** The side of `a` that faces its neighbour `b`, or −1 when they are not neighbours. */
function sideTowards(a: number, b: number): number {
  for (let side = 0; side < 4; side++) if (hasSide(a, side) && a + STEP[side]! === b) return side;
  return -1;
}

/** Steps from one room to every other, −1 where there is no way. */
function distances(open: Uint8Array, start: number): Int16Array {
  const steps = new Int16Array(ROOMS).fill(-1);
  const queue = new Int16Array(ROOMS);
  let [head, tail] = [0, 1];
  queue[0] = start;
  steps[start] = 0;
  while (head < tail) {
    const room = queue[head++]!;
    for (let side = 0; side < 4; side++) {
      if (!(open[room]! & (1 << side))) continue;
      const next = room + STEP[side]!;
      if (steps[next]! >= 0) continue;
      steps[next] = steps[room]! + 1;
      queue[tail++] = next;
    }
  }
  return steps;
}

function walkBack(from: Int16Array, start: number, goal: number): number[] {
  const rooms = [goal];
  while (rooms[rooms.length - 1] !== start) rooms.push(from[rooms[rooms.length - 1]!]!);
  return rooms.reverse();
}

function mazeRows(maze: Maze): string {
  let text = "";
  for (let room = 0; room < ROOMS; room++) {
    text += NAMES[room]! + SHAPES[maze.open[room]!]!;
    if ((room + 1) % SIZE === 0) text += "\n";
  }
  return text;
}

/** Throws unless the maze has the right size, agreeing walls, two different ends and a path between them. */
function checkMaze(maze: Maze): void {
  const { open, start, goal } = maze;
  if (open.length !== ROOMS) {
    throw new MazeError("size", `maze has ${open.length} rooms, expected ${ROOMS} (${SIZE} × ${SIZE})`);
  }
  for (const end of [start, goal]) {
    if (!(Number.isInteger(end) && end >= 0 && end < ROOMS)) {
      throw malformed(`start or goal is room ${end}, expected 0 to ${ROOMS - 1}`);
    }
  }
  if (start === goal) throw malformed(`start and goal are both ${NAMES[start]}, expected two rooms`);
  for (let room = 0; room < ROOMS; room++) {
    const sides = open[room]!;
    if (sides === 0 || sides > 15) throw malformed(`room ${NAMES[room]} has open sides ${sides}, expected 1 to 15`);
    for (let side = 0; side < 4; side++) {
      const isOpen = (sides & (1 << side)) !== 0;
      if (isOpen && !hasSide(room, side))
        throw malformed(`room ${NAMES[room]} is open to the outside (${SIDES[side]})`);
      if (isOpen && !(open[room + STEP[side]!]! & (1 << ((side + 2) & 3)))) {
        throw malformed(`room ${NAMES[room]} is open to ${NAMES[room + STEP[side]!]}, which is closed on that side`);
      }
    }
  }
  if (distances(open, start)[goal]! < 0) throw noPath(maze);
}

const SIDES = ["north", "east", "south", "west"];

function malformed(what: string): MazeError {
  return new MazeError("malformed", `maze is malformed: ${what}`);
}

function noPath(maze: Maze): MazeError {
  return new MazeError("no-path", `maze has no path from ${NAMES[maze.start]} to ${NAMES[maze.goal]}`);
}

function checkedSeed(seed: number): number {
  if (Number.isInteger(seed) && seed >= 0 && seed < 2 ** 32) return seed;
  throw new RangeError(`maze seed is ${seed}, expected an integer from 0 to ${2 ** 32 - 1}`);
}

/** Uniform numbers in [0, 1): sfc32 (Chris Doty-Humphrey, PractRand), one stream per (seed, stream). */
function randomStream(seed: number, stream: number): () => number {
  let a = seed | 0;
  let b = stream | 0;
  let c = 0x9e3779b9 | 0;
  let counter = 1;
  const next = () => {
    const out = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + out) | 0;
    return (out >>> 0) / 2 ** 32;
  };
  for (let i = 0; i < 15; i++) next();
  return next;
}

function below(random: () => number, count: number): number {
  return Math.floor(random() * count);
}

/** Binary heap of rooms, the cheapest first. */
class Heap {
  size = 0;
  private readonly keys: Float64Array;
  private readonly rooms: Int16Array;
  constructor(capacity: number) {
    this.keys = new Float64Array(capacity);
    this.rooms = new Int16Array(capacity);
  }
  push(key: number, room: number): void {
    let at = this.size++;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (this.keys[parent]! <= key) break;
      this.keys[at] = this.keys[parent]!;
      this.rooms[at] = this.rooms[parent]!;
      at = parent;
    }
    this.keys[at] = key;
    this.rooms[at] = room;
  }
  pop(): number {
    const top = this.rooms[0]!;
    const key = this.keys[--this.size]!;
    const room = this.rooms[this.size]!;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.size) break;
      if (child + 1 < this.size && this.keys[child + 1]! < this.keys[child]!) child++;
      if (this.keys[child]! >= key) break;
      this.keys[at] = this.keys[child]!;
      this.rooms[at] = this.rooms[child]!;
      at = child;
    }
    this.keys[at] = key;
    this.rooms[at] = room;
    return top;
  }
}
