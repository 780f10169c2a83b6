// Figures for people: sizes, times and rates, and what a call reports of itself. Knows results and the document.

/** 1234567 -> "1.2 MB" */
export function bytes(count) {
  const power = count < 1e3 ? 0 : Math.min(3, Math.floor(Math.log10(count) / 3));
  return `${(count / 1000 ** power).toFixed([0, 1, 1, 2][power])} ${["B", "kB", "MB", "GB"][power]}`;
}

/** 1234.5 -> "1,235"; small numbers keep a decimal. */
export const number = (value) =>
  value.toLocaleString("en", { maximumFractionDigits: Math.abs(value) < 100 ? 1 : 0, useGrouping: true });

export const time = (ms) => (ms < 1000 ? `${number(Math.round(ms))} ms` : `${number(ms / 1000)} s`);

/** -0.0712 -> "−0.07" */
export const logprob = (value) => (Number.isFinite(value) ? value.toFixed(2).replace("-", "−") : "–");

export const plural = (count, one, many = `${one}s`) => `${number(count)} ${count === 1 ? one : many}`;

const BACKENDS = { webgpu: "WebGPU", wasm: "WebAssembly" };
const ATTENTION = { "two-part": "in two parts", "one-part": "in one part", mixed: "in two parts, then in one" };

/** Fills a list with what a call says of itself, and the bars of K/V stored and as copies. */
export function showFigures(list, kv, { usage, stats, choices }) {
  const rows = [
    [
      "Computed by",
      BACKENDS[stats.backend],
      `${stats.device}${stats.workerFallback ? "" : ", off the page’s own thread"}`,
    ],
    stats.fallback && ["No GPU used", "", stats.fallback],
    stats.workerFallback && ["Not in a worker", "", stats.workerFallback],
    ["Attention", ATTENTION[stats.attention], stats.attentionReason],
    [
      "Tokens per second",
      `${number(stats.tokensPerSecond)} in all`,
      `${number(stats.tokensPerSecondPerSample)} per answer`,
    ],
    [
      "Prompt",
      `${plural(usage.promptTokens, "token")} in ${time(stats.prefillMs)}`,
      usage.cachedTokens > 0 ? `${number(usage.cachedTokens)} of them kept from before` : "read once for all answers",
    ],
    [
      "Answers",
      `${plural(usage.completionTokens, "token")} in ${time(stats.decodeMs)}`,
      `${plural(stats.steps, "step")}, the median ${time(stats.stepMs.median)}`,
    ],
    ["Memory", `${bytes(stats.peakBytes)} at most`, "weights, keys and values, scratch"],
  ];
  list.replaceChildren(
    ...rows.filter(Boolean).map(([name, value, more]) => {
      const row = document.createElement("div");
      const [dt, dd, small] = ["dt", "dd", "small"].map((tag) => document.createElement(tag));
      dt.textContent = name;
      dd.textContent = value;
      small.textContent = more ?? "";
      if (more) dd.append(" ", small);
      row.append(dt, dd);
      return row;
    }),
  );

  const times = stats.kvBytesAsCopies / stats.kvBytes;
  kv.style.setProperty("--share", Math.min(1, 1 / times));
  kv.querySelector("[data-of=stored]").textContent = bytes(stats.kvBytes);
  kv.querySelector("[data-of=copies]").textContent = bytes(stats.kvBytesAsCopies);
  kv.querySelector("[data-of=saved]").textContent =
    choices.length > 1 ? `${bytes(stats.kvBytesAsCopies - stats.kvBytes)} saved, ${number(times)} times less` : "";
}
