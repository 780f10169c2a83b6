// A maze on a canvas, and all paths through it as they grow. Knows mazes and canvases; nothing of models.

import { EAST, SIZE, SOUTH } from "./maze.js";

/** What a path can be; where paths meet the later one shows. */
const STATES = ["wrong", "growing", "valid"];
/** Everything is in rooms: a room is 1 wide, the margin this much. */
const MARGIN = 0.35;

/** Draws on a canvas whose width and colours its style gives: --wall, --ink, --card, and of paths --wrong, --growing and --valid. */
export function newDrawing(canvas) {
  const context = canvas.getContext("2d");
  let maze;
  let walls;
  let paths = []; // { rooms, state } each
  let lit; // of the path that is looked at, the index
  let best; // of the first one, once they are ranked
  let frame = 0;
  // Asked for when they change: to ask makes the browser lay out the page.
  let pixels = 0;
  const colors = {};

  new ResizeObserver(([{ contentRect }]) => {
    pixels = Math.round(contentRect.width * devicePixelRatio);
    later();
  }).observe(canvas);
  readColors();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", readColors);

  function readColors() {
    const style = getComputedStyle(canvas);
    for (const name of ["wall", "ink", "card", ...STATES]) colors[name] = style.getPropertyValue(`--${name}`);
    later();
  }

  function later() {
    if (frame) return;
    frame = requestAnimationFrame(() => {
      frame = 0;
      draw();
    });
  }

  function draw() {
    if (!maze || pixels === 0) return;
    if (canvas.width !== pixels) canvas.width = canvas.height = pixels;
    const scale = pixels / (SIZE + 2 * MARGIN);
    context.setTransform(scale, 0, 0, scale, MARGIN * scale, MARGIN * scale);
    context.clearRect(-MARGIN, -MARGIN, SIZE + 2 * MARGIN, SIZE + 2 * MARGIN);
    context.lineCap = context.lineJoin = "round";
    context.globalAlpha = 1;
    context.strokeStyle = colors.wall;
    context.lineWidth = 0.09;
    context.stroke(walls);
    const shown = lit ?? best;
    for (const state of STATES) {
      context.strokeStyle = context.fillStyle = colors[state];
      for (const [i, path] of paths.entries())
        if (path.state === state && i !== shown)
          drawPath(path, i, shown === undefined ? 0.75 : lit === undefined ? 0.3 : 0.12);
    }
    if (paths[shown]) {
      context.strokeStyle = context.fillStyle = colors[paths[shown].state];
      drawPath(paths[shown], undefined, 1);
    }
    context.globalAlpha = 1;
    for (const [room, letter] of [
      [maze.start, "S"],
      [maze.goal, "G"],
    ])
      drawEnd(room, letter, scale);
  }

  /** Each path has a lane of its own in the corridors, so that many can be told from one; without an index it is heavy, in the middle. */
  function drawPath({ rooms, state }, index, alpha) {
    if (rooms.length === 0) return;
    const lane = (turn) => (index === undefined ? 0.5 : 0.24 + 0.52 * (((index + 1) * turn) % 1));
    const [dx, dy] = [lane(0.618), lane(0.755)];
    const at = (room) => [(room % SIZE) + dx, Math.floor(room / SIZE) + dy];
    context.globalAlpha = alpha;
    context.lineWidth = index === undefined ? 0.3 : 0.1;
    context.beginPath();
    for (const room of rooms) context.lineTo(...at(room));
    context.stroke();
    const [x, y] = at(rooms[rooms.length - 1]);
    context.beginPath();
    if (state === "growing") {
      context.arc(x, y, 0.16, 0, 7);
      context.fill();
    } else if (state === "wrong") {
      const r = index === undefined ? 0.26 : 0.16;
      line(context, x - r, y - r, x + r, y + r);
      line(context, x - r, y + r, x + r, y - r);
      context.stroke();
    }
  }

  function drawEnd(room, letter, scale) {
    const [x, y] = [(room % SIZE) + 0.5, Math.floor(room / SIZE) + 0.5];
    context.beginPath();
    context.arc(x, y, 0.46, 0, 7);
    context.fillStyle = colors.ink;
    context.fill();
    context.fillStyle = colors.card;
    // Letters in pixels: browsers round fonts of less than one.
    context.save();
    context.setTransform(1, 0, 0, 1, (x + MARGIN) * scale, (y + MARGIN) * scale);
    context.font = `700 ${0.62 * scale}px system-ui, sans-serif`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(letter, 0, 0.04 * scale);
    context.restore();
  }

  return {
    /** A maze without paths. */
    show(newMaze) {
      [maze, walls, paths, lit, best] = [newMaze, wallsOf(newMaze), [], undefined, undefined];
      later();
    },
    /** Paths as they are now: rooms, and whether they are growing, valid or wrong. */
    grow(newPaths) {
      paths = newPaths;
      later();
    },
    /** The path that is looked at, by its index; undefined for none. */
    light(index) {
      lit = index;
      later();
    },
    /** The path that came out first. */
    crown(index) {
      best = index;
      later();
    },
  };
}

function wallsOf({ open }) {
  const walls = new Path2D();
  walls.roundRect(0, 0, SIZE, SIZE, 0.2);
  for (let room = 0; room < SIZE * SIZE; room++) {
    const [x, y] = [room % SIZE, Math.floor(room / SIZE)];
    if (x < SIZE - 1 && !(open[room] & EAST)) line(walls, x + 1, y, x + 1, y + 1);
    if (y < SIZE - 1 && !(open[room] & SOUTH)) line(walls, x, y + 1, x + 1, y + 1);
  }
  return walls;
}

function line(path, x, y, toX, toY) {
  path.moveTo(x, y);
  path.lineTo(toX, toY);
}
