// The page: its controls, and what it says while a model is loaded, while it runs, and when something fails.
// Knows the document; what it asks of furcate is in model.js.

import { newCards } from "./cards.js";
import { newDrawing } from "./drawing.js";
import { bytes, number, plural, showFigures, time } from "./figures.js";
import { generateMaze, MazeError, mazePrompt, parseMaze, shortestSteps, verifyPath } from "./maze.js";
import { answer, openModel, promptOf } from "./model.js";

const MAZE_MODEL = new URL("models/maze.gguf", import.meta.url).href;
/** What is set where the user has not: the maze model was taught no path longer than this, and draws best as it is. */
const DEFAULTS = {
  maze: { tokens: 120, temperature: 1, rank: "check" },
  text: { tokens: 64, temperature: 0.8, rank: "mean-logprob" },
};

/** Between two looks at what has come; the browser has the rest of the time. */
const FRAME_MS = 50;

const $ = (id) => document.getElementById(id);
$("problem").replaceChildren(); // what it says where no script runs
const main = document.querySelector("main");
const drawing = newDrawing($("maze"));

/** "maze" or "text": what the model at hand is for, or the one being loaded. */
let mode;
/** What is in the prompt box, or would be. */
const prompts = { maze: newMaze(), text: "Write the first sentence of a story about a lighthouse." };
let source; // of the model at hand, or the last that was to be loaded
let model;
let loading; // aborts it; undefined when nothing is being loaded
let running; // likewise
let stopAll;

// ---------------------------------------------------------------------------------------------- the model

/** Loads a model in the place of the one before. from: a URL or a File. */
async function open(from) {
  loading?.abort();
  running?.abort();
  model?.dispose();
  model = undefined;
  source = from;
  setMode(from === MAZE_MODEL ? "maze" : "text");
  const mine = new AbortController();
  loading = mine;
  problem();
  clearAnswers();
  $("name").textContent = "";
  showProgress(from);
  refresh();
  try {
    const began = performance.now();
    const opened = await openModel(from, {
      backend: $("backend").value,
      onProgress: (progress) => showProgress(from, progress),
      signal: mine.signal,
    });
    if (mine.signal.aborted) return opened.dispose();
    model = opened;
    const { name, parameters, quantization, contextLength } = model.info;
    $("name").textContent =
      `${name}: ${number(parameters / 1e6)} M parameters, ${quantization}, up to ${plural(contextLength, "token")}; ` +
      `ready in ${time(performance.now() - began)}` +
      (isSecureContext
        ? ""
        : ". Browsers keep WebGPU and storage from pages that come neither by https nor from this machine");
    say(`${name} is ready`);
    if (mode === "text") promptHint();
  } catch (error) {
    if (!mine.signal.aborted) problem(error);
  } finally {
    if (loading === mine) {
      loading = undefined;
      $("loading").hidden = true;
      refresh();
    }
  }
}

/** What had come, and when, in the last seconds: those before say little of the network, least of all what a cache gave. */
let lately = [];
const RATE_MS = 3000;

function showProgress(from, progress) {
  $("loading").hidden = false;
  if (!progress) {
    lately = [];
    $("bar").removeAttribute("value");
    $("loaded").textContent =
      `Opening ${typeof from === "string" ? new URL(from).pathname.split("/").pop() : from.name} …`;
    return;
  }
  const { loaded, total, phase } = progress;
  const now = performance.now();
  lately = [...lately.filter((past) => past.phase === phase && now - past.now < RATE_MS), { phase, now, loaded }];
  const rate = ((loaded - lately[0].loaded) / (now - lately[0].now)) * 1000;
  $("bar").value = loaded / total;
  const left = rate > 0 && loaded < total ? `, ${time(((total - loaded) / rate) * 1000)} left` : "";
  $("loaded").textContent =
    `${phase === "upload" ? "To the GPU: " : ""}${bytes(loaded)} of ${bytes(total)}` +
    (rate > 0 && Number.isFinite(rate) ? `, ${bytes(rate)}/s${left}` : "");
}

/** Loads what is chosen, as far as it has been named. */
function openChosen() {
  const from = new FormData($("model")).get("from");
  for (const part of document.querySelectorAll("[data-from]")) part.hidden = part.dataset.from !== from;
  if (from === "maze") open(MAZE_MODEL);
  else if (from === "url") $("url").focus();
}

for (const radio of document.querySelectorAll("[name=from]")) radio.addEventListener("change", openChosen);
$("model").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("url").value.trim();
  if (URL.canParse(text)) open(new URL(text).href);
  else problem({ code: "option", message: `“${text}” is no address: expected one such as https://…/model.gguf` });
});
$("file").addEventListener("change", ({ target }) => target.files[0] && open(target.files[0]));
$("backend").addEventListener("change", () => open(source));
$("cancel").addEventListener("click", () => {
  loading?.abort();
  say("Loading was cancelled");
});

for (const name of ["dragenter", "dragover", "dragleave", "drop"]) {
  addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return;
    event.preventDefault();
    $("drop").hidden = name === "drop" || (name === "dragleave" && event.relatedTarget === null);
    const file = name === "drop" && event.dataTransfer.files[0];
    if (!file) return;
    document.querySelector("[value=file]").checked = true;
    openChosen();
    open(file);
  });
}

// ---------------------------------------------------------------------------------------------- the prompt

function newMaze() {
  return mazePrompt(generateMaze(Math.floor(Math.random() * 2 ** 31)));
}

function setMode(newMode) {
  if (mode === newMode) return;
  if (mode) prompts[mode] = $("prompt").value;
  mode = newMode;
  main.dataset.mode = mode;
  $("prompt").value = prompts[mode];
  for (const [name, value] of Object.entries(DEFAULTS[mode])) $(name).value = value;
  promptHint();
}

/** The maze in the prompt box; undefined where there is none, with the reason in the hint. */
function promptHint() {
  const hint = $("prompt-hint");
  let text = "Each room by its name and shape, then start→goal. Change it, or take a new one.";
  let maze;
  try {
    if (mode === "maze") maze = parseMaze($("prompt").value.trimEnd());
    else if (!model) text = "";
    else if (promptOf(model, "") === "") text = "The model has no chat template: it continues the text.";
    else text = "Put as a message, by the model’s chat template.";
  } catch (error) {
    if (!(error instanceof MazeError)) throw error;
    text = `${error.message}.`;
  }
  const isBad = mode === "maze" && !maze;
  hint.textContent = text;
  hint.classList.toggle("bad", isBad);
  $("prompt").setAttribute("aria-invalid", isBad);
  if (maze) drawing.show(maze);
  return maze;
}

$("prompt").addEventListener("input", promptHint);
$("new").addEventListener("click", () => {
  $("prompt").value = newMaze();
  clearAnswers();
  promptHint();
});
$("n").addEventListener("input", refresh);

// ---------------------------------------------------------------------------------------------- the answers

async function run() {
  problem();
  const maze = promptHint();
  if (mode === "maze" && !maze) return $("prompt").focus();
  const n = $("n").valueAsNumber;
  const mine = new AbortController();
  running = mine;
  $("figures").hidden = true;

  const answers = newCards($("cards"), n, judgeOf(maze), drawing.light);
  const { cards } = answers;
  stopAll = () => {
    // As long as the prompt is being read there is nothing to keep.
    if (cards.every(({ tokens }) => tokens === 0)) mine.abort();
    else for (const card of cards) card.stop();
  };
  refresh();
  say(`${plural(n, "answer")} under way`);
  if (matchMedia("(max-width: 44rem)").matches) main.querySelector(maze ? "figure" : ".answers").scrollIntoView();

  const began = performance.now();
  let firstToken;
  const draw = () => {
    answers.draw();
    if (maze) drawing.grow(cards.map(({ verdict: { state, rooms = [] } }) => ({ state, rooms })));
    const tokens = cards.reduce((sum, card) => sum + card.tokens, 0);
    if (tokens > 0) firstToken ??= performance.now();
    const going = cards.filter(({ finishReason }) => !finishReason).length;
    const rate = (tokens / (performance.now() - firstToken)) * 1000;
    $("summary").textContent =
      tokens === 0
        ? `reading the prompt, ${time(performance.now() - began)}`
        : `${going} of ${n} writing, ${plural(tokens, "token")}${Number.isFinite(rate) ? `, ${number(rate)} per second` : ""}`;
  };
  const timer = setInterval(draw, FRAME_MS);
  try {
    const rank = $("rank").value;
    const result = await answer(
      model,
      maze ? $("prompt").value.trimEnd() : promptOf(model, $("prompt").value),
      {
        maxTokens: $("tokens").valueAsNumber,
        temperature: $("temperature").valueAsNumber,
        seed: $("seed").value === "" ? undefined : $("seed").valueAsNumber,
        rank: rank === "check" ? ({ text }) => check(maze, text) : rank,
        signal: mine.signal,
      },
      cards,
    );
    clearInterval(timer);
    for (const show of [
      draw,
      () => answers.rank(result.choices, rank === "vote"),
      () => {
        if (maze) drawing.crown(result.choices[0].index);
        $("summary").textContent = summary(maze, cards);
      },
      () => {
        showFigures($("figures").querySelector("dl"), $("figures").querySelector(".kv"), result);
        $("figures").hidden = false;
      },
    ]) {
      // One after the other, so that none keeps the page from answering.
      await new Promise((done) => setTimeout(done, FRAME_MS));
      mine.signal.throwIfAborted();
      show();
    }
    say(`Done: ${summary(maze, cards)}`);
  } catch (error) {
    answers.end();
    $("summary").textContent = "";
    if (!mine.signal.aborted) problem(error);
    else say("Stopped");
  } finally {
    clearInterval(timer);
    if (running === mine) running = undefined;
    refresh();
  }
}

/** What is known of an answer while it grows and at its end: of a path, how far it is one. */
const judgeOf = (maze) => (text, finishReason) => {
  if (!maze) return { state: finishReason ? "ended" : "growing" };
  const { valid, reason, rooms } = verifyPath(maze, text);
  if (finishReason === "abort") return { state: "wrong", rooms };
  if (valid && finishReason) return { state: "valid", rooms, words: `valid, ${plural(rooms.length - 1, "step")}` };
  // A path is wrong as soon as it leaves the maze, though it go on.
  const isOff = rooms.length < text.split(" ").length - 1;
  // Cards are narrow.
  const words = reason.replace("there is a wall", "wall");
  return finishReason || isOff ? { state: "wrong", rooms, words } : { state: "growing", rooms };
};

/** A valid path is worth the more the shorter it is, any other nothing. */
function check(maze, text) {
  const { valid, rooms } = verifyPath(maze, text);
  return valid ? 1 / rooms.length : 0;
}

function summary(maze, cards) {
  if (!maze) return `${plural(cards.length, "answer")}, best first`;
  const valid = cards.map(({ verdict }) => verdict).filter(({ state }) => state === "valid");
  const text = `${valid.length} of ${cards.length} valid`;
  $("maze").setAttribute("aria-label", `A maze with paths from start to goal: ${text}`);
  if (valid.length === 0) return text;
  const shortest = Math.min(...valid.map(({ rooms }) => rooms.length - 1));
  return `${text}; shortest ${plural(shortest, "step")}, ${shortestSteps(maze)} possible`;
}

function clearAnswers() {
  $("cards").replaceChildren();
  $("summary").textContent = "";
  $("figures").hidden = true;
  $("maze").setAttribute("aria-label", "A maze");
}

$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  if (running) stopAll();
  else if (model) run();
  else if (!loading) open(source);
});
// A field that is folded away cannot say what is wrong with it.
$("ask").addEventListener("invalid", () => $("sampling").setAttribute("open", ""), true);

// ---------------------------------------------------------------------------------------------- what is said

/** The one button, and what depends on it. */
function refresh() {
  const n = $("n").valueAsNumber;
  const go = $("go");
  $("count").textContent = n;
  if (running) go.textContent = "Stop all";
  else if (loading) go.textContent = "Loading …";
  else if (!model) go.textContent = "Load again";
  else go.textContent = mode === "maze" ? `Find ${plural(n, "path")}` : `Write ${plural(n, "answer")}`;
  go.disabled = loading !== undefined;
  // Whatever is in the fields, it can be stopped.
  go.formNoValidate = $("new").disabled = $("prompt").readOnly = running !== undefined;
}

/** For those who hear the page. */
function say(text) {
  $("status").textContent = text;
}

const TITLES = {
  format: "This file is broken",
  unsupported: "This cannot be computed here",
  memory: "Not enough memory",
  "context-length": "The prompt is too long for this model",
  network: "The model did not arrive",
  "device-lost": "The GPU went away",
  option: "Something in the form is not right",
  webgpu: "There is no WebGPU here",
  other: "Something went wrong",
};
const HINTS = {
  format: "Fetch the file again, or take another one.",
  memory: "Take a smaller model, fewer answers or fewer tokens, or close other pages.",
  network: "Look at the address and the connection. A server elsewhere must let other pages read its files (CORS).",
  "device-lost": "Start again: the model comes back by itself.",
  webgpu: "Have it computed by “GPU, else CPU” or by WebAssembly, which works everywhere, only slower.",
};

/** Shows what went wrong, until the next try; without an error, nothing. */
function problem(error) {
  $("problem").replaceChildren();
  if (!error) return;
  const { code, message = String(error) } = error;
  const kind =
    code === "unsupported" && message.startsWith("backend is webgpu")
      ? "webgpu"
      : error instanceof RangeError
        ? "memory" // what a browser throws when it has none left
        : code in TITLES
          ? code
          : "other";
  for (const [tag, text, name] of [
    ["h2", TITLES[kind], ""],
    ["p", message, ""],
    ["p", HINTS[kind], "hint"],
  ]) {
    if (!text) continue;
    const element = document.createElement(tag);
    element.textContent = text;
    element.className = name;
    $("problem").append(element);
  }
  $("problem").scrollIntoView({ block: "nearest" });
}

// Where there can be none, the page needs the network each time.
navigator.serviceWorker?.register("service-worker.js").catch(() => {});
openChosen();
