// Mazes and the embedded model's file: seeds, prompt form, verifier, messages, drawing, and that every piece of the
// text is the one token it is meant to be. Runs no model.
import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { gguf } from "@huggingface/gguf";
import { Tokenizer } from "@huggingface/tokenizers";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { Encoder, vocabulary } from "../models/maze/data.ts";
import {
  drawMaze,
  EAST,
  FIRST_TRAINING_SEED,
  generateMaze,
  type Maze,
  MazeError,
  type MazeFault,
  MIN_STEPS,
  mazePrompt,
  parseMaze,
  pathText,
  roomIndex,
  roomName,
  SHAPES,
  SIZE,
  shortestSteps,
  solveMaze,
  verifyPath,
  WEST,
  withEnds,
} from "../models/maze/maze.ts";

const ROOMS = SIZE * SIZE;
const MODEL = new URL("../models/maze.gguf", import.meta.url).pathname;
const seeds = [...Array.from({ length: 60 }, (_, i) => i), FIRST_TRAINING_SEED, 2 ** 32 - 1];

test("a seed always means the same maze", () => {
  assert.equal(mazePrompt(generateMaze(5)), mazePrompt(generateMaze(5)));
  assert.is(hash(mazePrompt(generateMaze(0))), 0x1350746d, "seed 0: the model's scores are for these mazes");
  assert.is(hash(mazePrompt(generateMaze(FIRST_TRAINING_SEED))), 0x8f0c1e1b);
  const prompts = new Set(seeds.map((seed) => mazePrompt(generateMaze(seed))));
  assert.is(prompts.size, seeds.length);
  for (const seed of [-1, 0.5, 2 ** 32, Number.NaN]) {
    assert.throws(() => generateMaze(seed), /maze seed is .*, expected an integer from 0 to 4294967295/);
  }
});

test("mazes are connected, agree on their walls, have loops, and ends far enough apart", () => {
  let passages = 0;
  for (const seed of seeds) {
    const maze = generateMaze(seed);
    assert.ok(shortestSteps(maze) >= MIN_STEPS);
    for (let room = 0; room < ROOMS; room++) {
      if (room !== maze.start) shortestSteps({ ...maze, goal: room }); // throws when it can't be reached
      passages += maze.open[room]! & EAST ? 1 : 0;
      if (maze.open[room]! & EAST) assert.ok(maze.open[room + 1]! & WEST);
    }
    passages += [...maze.open].filter((sides) => sides & 1).length;
  }
  // A tree has ROOMS − 1 passages; of the 529 walls it leaves, a tenth goes.
  const loops = passages / seeds.length - (ROOMS - 1);
  assert.ok(loops > 45 && loops < 61, `${loops} loops a maze`);
});

test("the same walls carry many problems", () => {
  const maze = generateMaze(9);
  assert.equal(withEnds(maze, 9, 0), maze);
  const ends = new Set(
    Array.from({ length: 20 }, (_, pair) => withEnds(maze, 9, pair)).map((m) => `${m.start} ${m.goal}`),
  );
  assert.ok(ends.size >= 19);
});

test("solveMaze finds valid paths, no longer than the shortest by more than its noise", () => {
  for (const seed of seeds) {
    const maze = generateMaze(seed);
    const rooms = solveMaze(maze, seed);
    const steps = rooms.length - 1;
    assert.equal(verifyPath(maze, pathText(rooms)), {
      valid: true,
      reason: `reaches ${roomName(maze.goal)} in ${steps} steps`,
      rooms,
    });
    assert.ok(steps <= 1.5 * shortestSteps(maze));
  }
});

test("a prompt has its fixed form and reads back", () => {
  for (const seed of seeds) {
    const maze = generateMaze(seed);
    const prompt = mazePrompt(maze);
    const lines = prompt.split("\n");
    assert.is(lines.length, SIZE + 1);
    assert.match(lines[0]!, /^aa.ab.ac/);
    assert.is(lines[SIZE], `${roomName(maze.start)}→${roomName(maze.goal)}:`);
    assert.equal(parseMaze(prompt), maze);
  }
});

test("the verifier takes a right path in any white space and names the first fault of a wrong one", () => {
  // Corridors along the rows, joined at their ends: aa … ax bx … ba ca …
  const maze = snake();
  const row = (r: number) => Array.from({ length: SIZE }, (_, c) => roomName(r * SIZE + c));
  const right = [...row(0), ...row(1).reverse(), ...row(2).slice(0, 3)];
  const check = (words: string[]) => verifyPath({ ...maze, goal: roomIndex("cc") }, words.join(" "));
  assert.ok(check(right).valid);
  assert.ok(verifyPath({ ...maze, goal: roomIndex("cc") }, `\n ${right.join("\t\n ")}  `).valid);
  const wrong: [string, string[], RegExp, number][] = [
    ["nothing", [], /^names no room$/, 0],
    ["a wall", ["aa", "ba"], /^there is a wall between aa and ba$/, 1],
    ["a jump", ["aa", "ab", "ad"], /^ab and ad are not neighbours$/, 2],
    ["over the edge of a row", [...row(0), "ba"], /^ax and ba are not neighbours$/, 24],
    ["the wrong start", right.slice(1), /^begins at ab, not at aa$/, 0],
    ["the wrong goal", right.slice(0, -1), /^ends at cb, not at cc$/, 50],
    ["past the goal", [...right, "cd"], /^ends at cd, not at cc$/, 52],
    ["back and forth", ["aa", "ab", "aa", ...right.slice(1)], /^visits aa twice$/, 2],
    ["standing still", ["aa", "aa", ...right.slice(1)], /^aa and aa are not neighbours$/, 1],
    ["an unknown room", ["aa", "az"], /^"az" is no room$/, 1],
    ["letters run together", ["aaab"], /^"aaab" is no room$/, 0],
    ["capitals", ["AA"], /^"AA" is no room$/, 0],
    ["the end of text spelt out", [...right, "<|endoftext|>"], /^"<\|endoftext\|" is no room$/, 51],
  ];
  for (const [name, words, reason, rooms] of wrong) {
    const verdict = check(words);
    assert.not(verdict.valid, name);
    assert.match(verdict.reason, reason, name);
    assert.is(verdict.rooms.length, rooms, name);
  }
});

test("the verifier refuses every path with one step taken out or turned", () => {
  for (const seed of seeds.slice(0, 12)) {
    const maze = generateMaze(seed);
    const rooms = solveMaze(maze, seed);
    for (let i = 0; i < rooms.length; i++) {
      assert.not(verifyPath(maze, pathText(rooms.filter((_, k) => k !== i))).valid);
      assert.not(verifyPath(maze, pathText(rooms.map((room, k) => (k === i ? (room + 1) % ROOMS : room)))).valid);
    }
  }
});

test("a malformed maze, another size, or no path gets a clear message", () => {
  const prompt = mazePrompt(generateMaze(1));
  const lines = prompt.split("\n");
  const shut = snake();
  shut.open[SIZE - 1]! &= ~4; // the way from the first row to the second
  shut.open[2 * SIZE - 1]! &= ~1;
  const closed = Uint8Array.from(snake().open).fill(0, 0, 1);
  const outside = Uint8Array.from(snake().open);
  outside[0]! |= WEST;
  const oneSided = Uint8Array.from(snake().open);
  oneSided[0]! |= 4;
  const cases: [MazeFault, RegExp, () => unknown][] = [
    ["malformed", /the text has one line, expected rows/, () => parseMaze("Which way to the goal?")],
    ["size", /24 rows of 16 rooms, expected 24 rows of 24/, () => parseMaze(crop(lines, 24, 16))],
    ["size", /16 rows of 16 rooms, expected 24 rows of 24/, () => parseMaze(crop(lines, 16, 16))],
    ["size", /25 rows of 24 rooms/, () => parseMaze(`${lines[0]}\n${prompt}`)],
    ["malformed", /row 3 has 71 characters, expected 72/, () => parseMaze(edit(lines, 2, lines[2]!.slice(1)))],
    ["malformed", /row 2 has room "xa" where "ba"/, () => parseMaze(edit(lines, 1, `x${lines[1]!.slice(1)}`))],
    ["malformed", /room ba has the shape "#"/, () => parseMaze(edit(lines, 1, `ba#${lines[1]!.slice(3)}`))],
    ["malformed", /room ba has the shape " "/, () => parseMaze(edit(lines, 1, `ba ${lines[1]!.slice(3)}`))],
    ["malformed", /the last line is "ca to xf", expected start→goal/, () => parseMaze(edit(lines, SIZE, "ca to xf"))],
    ["malformed", /"ca→zz:" names a room outside aa … xx/, () => parseMaze(edit(lines, SIZE, "ca→zz:"))],
    ["malformed", /start and goal are both ca/, () => parseMaze(edit(lines, SIZE, "ca→ca:"))],
    ["malformed", /room aa has open sides 0/, () => mazePrompt({ ...snake(), open: closed })],
    ["malformed", /room aa is open to the outside \(west\)/, () => mazePrompt({ ...snake(), open: outside })],
    ["malformed", /room aa is open to ba, which is closed/, () => mazePrompt({ ...snake(), open: oneSided })],
    ["malformed", /start or goal is room 576, expected 0 to 575/, () => mazePrompt({ ...snake(), goal: ROOMS })],
    ["size", /maze has 256 rooms, expected 576/, () => mazePrompt({ ...snake(), open: new Uint8Array(256) })],
    ["no-path", /no path from aa to xa/, () => mazePrompt(shut)],
    ["no-path", /no path from aa to xa/, () => solveMaze(shut, 1)],
    ["no-path", /no path from aa to xa/, () => shortestSteps(shut)],
  ];
  for (const [fault, message, run] of cases) {
    try {
      run();
    } catch (error) {
      assert.instance(error, MazeError);
      assert.is((error as MazeError).fault, fault, `${message}`);
      assert.match((error as MazeError).message, message);
      continue;
    }
    assert.unreachable(`nothing was thrown, expected ${message}`);
  }
});

test("drawings show corridors thin, walked steps heavy, and both ends", () => {
  const maze = snake();
  const plain = drawMaze(maze).split("\n");
  assert.is(plain.length, SIZE);
  assert.ok(plain.every((line) => line.length === 2 * SIZE - 1));
  assert.is(plain[0]!.slice(0, 6), "S─────");
  assert.is(plain[0]!.at(-1), "┐");
  assert.is(plain[1]!.at(-1), "┘");
  const walked = drawMaze(maze, [[0, 1, 2]]);
  assert.is(walked.slice(0, 7), "S━━━╾──");
  const shares: number[] = [];
  drawMaze(maze, [[0, 1], [0]], (text, room, share) => {
    shares[room] = share;
    return text;
  });
  assert.equal(shares.slice(0, 3), [1, 0.5, 0]);
});

test("every piece of the text is one token under the GPT-2 pre-tokenizer", () => {
  const tokenizer = bpe();
  const encoder = new Encoder();
  for (const seed of seeds.slice(0, 8)) {
    const maze = generateMaze(seed);
    const rooms = solveMaze(maze, seed);
    const ids = new Uint16Array(1180 + rooms.length + 1);
    encoder.grid(maze.open, ids, 0);
    encoder.ask(maze.start, maze.goal, ids, 1176);
    encoder.path(rooms, ids, 1180, rooms.length + 1);
    assert.is(ids.at(-1), encoder.endOfText);
    const prompt = tokenizer.encode(mazePrompt(maze), { add_special_tokens: false }).ids;
    assert.is(prompt.length, 1180);
    const whole = tokenizer.encode(mazePrompt(maze) + pathText(rooms), { add_special_tokens: false }).ids;
    assert.equal([...whole], [...ids.subarray(0, -1)]);
  }
  const words = [...Array(ROOMS).keys()].flatMap((room) => [roomName(room), ` ${roomName(room)}`]);
  for (const word of [...words, ...SHAPES.slice(1), "→", ":", "\n"]) {
    assert.is(tokenizer.encode(word, { add_special_tokens: false }).ids.length, 1, word);
  }
});

test("models/maze.gguf is small, ordinary and holds this vocabulary", async () => {
  const { metadata, tensorInfos } = await gguf(MODEL, { allowLocalFile: true });
  const { tokens, merges, endOfText } = vocabulary();
  const fields = metadata as Record<string, unknown>;
  assert.equal(fields["tokenizer.ggml.tokens"], tokens);
  assert.equal(fields["tokenizer.ggml.merges"], merges);
  assert.is(fields["tokenizer.ggml.eos_token_id"], endOfText);
  assert.is(fields["tokenizer.ggml.add_bos_token"], false);
  assert.is(fields["tokenizer.ggml.pre"], "gpt-2");
  assert.is(fields["general.architecture"], "llama");
  assert.is(tensorInfos.length, 2 + 9 * 6);
  assert.ok(readFileSync(MODEL).length <= 4e6);
});

test("nothing but the program knows of mazes: its text is text, its model a model", () => {
  const root = fileURLToPath(new URL("..", import.meta.url));
  const files = ["src", "assembly", "shaders"].flatMap((folder) =>
    readdirSync(`${root}/${folder}`, { recursive: true }).map((name) => `${folder}/${name}`),
  );
  const sources = files.filter((name) => /\.(ts|wgsl)$/.test(name));
  const knowing = sources.filter((name) => /maze/i.test(readFileSync(`${root}/${name}`, "utf8")));
  assert.ok(sources.length > knowing.length && knowing.includes("src/cli/maze.ts"));
  assert.equal(
    knowing.filter((name) => !/^src\/cli(\.ts|\/)/.test(name)),
    [],
  );
});

test("thousands of mazes a second", () => {
  const began = performance.now();
  const count = 2000;
  for (let seed = 0; seed < count; seed++) generateMaze(seed);
  const perSecond = count / ((performance.now() - began) / 1000);
  console.log(`measured: maze.ts makes ${Math.round(perSecond)} mazes a second on one core`);
  assert.ok(perSecond > 1000, `${perSecond} mazes a second`);
});

/** One corridor through all rooms, from aa along each row in turn to xa. */
function snake(): Maze {
  const open = new Uint8Array(ROOMS);
  const join = (a: number, side: number, b: number) => {
    open[a]! |= side;
    open[b]! |= side === EAST ? WEST : 1;
  };
  for (let room = 0; room < ROOMS; room++) {
    if ((room + 1) % SIZE !== 0) join(room, EAST, room + 1);
    const row = Math.floor(room / SIZE);
    const turn = row % 2 === 0 ? SIZE - 1 : 0;
    if (room % SIZE === turn && row < SIZE - 1) join(room, 4, room + SIZE);
  }
  return { open, start: 0, goal: (SIZE - 1) * SIZE };
}

function crop(lines: string[], rows: number, columns: number): string {
  return [...lines.slice(0, rows).map((line) => line.slice(0, 3 * columns)), lines[SIZE]].join("\n");
}

function edit(lines: string[], row: number, line: string): string {
  return lines.map((old, i) => (i === row ? line : old)).join("\n");
}

function bpe(): Tokenizer {
  const { tokens, merges } = vocabulary();
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  const vocab = Object.fromEntries(tokens.map((token, id) => [token, id]));
  return new Tokenizer(
    {
      version: "1.0",
      added_tokens: [],
      normalizer: null,
      pre_tokenizer: byteLevel,
      post_processor: null,
      decoder: byteLevel,
      model: { type: "BPE", vocab, merges, unk_token: null, fuse_unk: false, byte_fallback: false },
    } as never,
    {} as never,
  );
}

/** FNV-1a of the text's UTF-16 units. */
function hash(text: string): number {
  let h = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193) >>> 0;
  return h;
}

test.run();
