// The benchmark's page: options from a form, which the address keeps, and the lines that measure.ts finds, as they come.
// Knows the document; nothing of GPUs. Options that the form lacks (type, dec, steps) may stand in the address.

import { figure } from "../../table.ts";
import { DEFAULTS, type Line, measure, readOptions } from "../measure.ts";

const SHAPES = ["tiny", "smollm-135m", "llama-1b"];

const $ = <T extends HTMLElement>(id: string) => document.getElementById(id) as T;
const form = $<HTMLFormElement>("options");
const [go, copy] = [$<HTMLButtonElement>("go"), $<HTMLButtonElement>("copy")];
const names = [...document.querySelectorAll("th")].map((th) => th.textContent ?? "");
const lines: Line[] = [];
let stopped = true;

form.querySelector("[name=shape]")?.append(...SHAPES.map((shape) => new Option(shape)));
const address: Record<string, string> = { ...DEFAULTS, ...Object.fromEntries(new URLSearchParams(location.search)) };
for (const control of form.elements)
  if (control instanceof HTMLInputElement && control.type === "checkbox")
    control.checked = address[control.name].split(",").includes(control.value);
  else if (control instanceof HTMLInputElement || control instanceof HTMLSelectElement)
    control.value = address[control.name];

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (stopped) void run();
  else {
    stopped = true;
    go.disabled = true; // until the line at hand is done
  }
});

copy.addEventListener("click", async () => {
  try {
    await navigator.clipboard.writeText(JSON.stringify(lines, undefined, 1));
    say(`Copied ${lines.length} lines.`);
  } catch (error) {
    problem((error as Error).message);
  }
});

async function run(): Promise<void> {
  stopped = false;
  go.textContent = "Stop";
  $("problem").textContent = "";
  try {
    const given = { ...address, ...Object.fromEntries(new FormData(form)) };
    const paths = new FormData(form).getAll("paths").join();
    const options = readOptions({ ...given, paths });
    history.replaceState(null, "", `?${new URLSearchParams({ ...given, paths })}`);
    for await (const found of measure(options)) {
      if (found.kind === "begins") say(`Working: ${found.what} …`);
      else if (found.kind === "model") $("device").textContent = found.device;
      else if (found.kind === "failed") problem(`${found.what}: ${found.reason}`);
      else if (found.kind === "line") add(found.line);
      if (stopped) break;
    }
    say(stopped ? "Stopped." : "Done.");
  } catch (error) {
    problem((error as Error).message);
    say("Stopped.");
  }
  stopped = true;
  go.disabled = false;
  go.textContent = "Measure";
}

function add(line: Line): void {
  lines.push(line);
  copy.disabled = false;
  const { shape, type, context, n, path, chose, ms, floorMs, gbPerS, tflopPerS, anchorMs } = line;
  const cells = [
    shape,
    String(context),
    String(n),
    chose ? `auto: ${chose}` : path,
    ms.toFixed(2),
    short(floorMs),
    short(gbPerS),
    `${short((100 * floorMs) / ms)} %`,
    short(tflopPerS),
    anchorMs ? (ms / anchorMs).toFixed(2) : "",
  ];
  const row = $<HTMLTableSectionElement>("lines").insertRow();
  for (const [i, text] of cells.entries()) {
    const cell = row.insertCell();
    cell.textContent = text;
    cell.dataset.name = names[i];
  }
  const more = document.createElement("small");
  more.textContent = ` ${type}, ${line.class}`;
  row.cells[0].append(more);
}

/** Of what is small, two digits wherever they are. */
const short = (value: number) => (value < 1 ? String(Number(value.toPrecision(2))) : figure(value));

function say(text: string): void {
  $("status").textContent = text;
}

function problem(text: string): void {
  $("problem").append(`${text}\n`);
}
