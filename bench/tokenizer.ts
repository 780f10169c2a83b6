// `node --import tsx bench/tokenizer.ts`: encoding 1 MB of text, furcate beside @huggingface/tokenizers, in turns in one process;
// then one long word, decoding, and how long vocabularies take to load. Times are medians of the rounds, in milliseconds.
//
// The text: readmes of the packages installed here (prose and code, in English), this repository's sources, and the tests' texts
// (many scripts and emoji, much of it noise): 600, 200 and up to 200 kB, nothing repeated.

import { readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { Tokenizer as PeerTokenizer } from "@huggingface/tokenizers";
import { createTokenizer, tokenizerDataFromJson } from "../src/tokenizer.ts";
import { newTextModule } from "../src/wasm.ts";
import { FAMILIES, jsonOf } from "../tests/support/families.ts";
import { allTexts } from "../tests/support/texts.ts";

const ROUNDS = 5;
const ROOT = fileURLToPath(new URL("..", import.meta.url));

const COMMON =
  /^[\t\n\r -~\u00a1-\u017e\u0391-\u03ce\u0410-\u044f\u05d0-\u05ea\u0621-\u063a\u0904-\u0939\u0e01-\u0e2e\u2013-\u2026\u3041-\u3096\u4e00-\u9fa5\uac00-\ud7a3\u{1f300}-\u{1f64f}]+$/u;

const text = [
  filesIn("node_modules", ".md").join("\n").slice(0, 600_000),
  ["src", "assembly", "tests"]
    .flatMap((folder) => filesIn(folder, ".ts"))
    .join("\n")
    .slice(0, 200_000),
  // The peer's character classes are the runtime's: only characters on which all Unicode versions agree.
  allTexts()
    .filter((one) => COMMON.test(one))
    .join(" ")
    .slice(0, 200_000),
].join("\n");
const megabytes = new TextEncoder().encode(text).length / 1e6;
console.log(`${megabytes.toFixed(2)} MB of text, ${ROUNDS} rounds, Node ${process.versions.node}`);

const rows: Record<string, string>[] = [];
for (const name of ["gpt2", "llama3", "qwen2", "deepseek-v3", "gpt-4o", "llama2"]) {
  const json = jsonOf(FAMILIES[name]!);
  const peer = new PeerTokenizer(json, {});
  const data = tokenizerDataFromJson(json);
  const times: Record<"load" | "mine" | "peer" | "decode" | "letter", number[]> = {
    load: [],
    mine: [],
    peer: [],
    decode: [],
    letter: [],
  };
  let ids = new Uint32Array();
  let same = true;
  for (let round = 0; round < ROUNDS; round++) {
    const module = await newTextModule();
    const tokenizer = timed(times.load, () => createTokenizer(module, data));
    ids = new Uint32Array(timed(times.mine, () => tokenizer.encode(text, { special: true })));
    const peerIds = timed(times.peer, () => peer.encode(text, { add_special_tokens: false })).ids;
    same &&= peerIds.length === ids.length && peerIds.every((id: number, i: number) => id === ids[i]);
    timed(times.decode, () => tokenizer.decode(ids));
    timed(times.letter, () => tokenizer.encode("a".repeat(1_000_000)));
  }
  const [mine, theirs] = [median(times.mine), median(times.peer)];
  rows.push({
    family: name,
    tokens: String(data.tokens.length),
    "load ms": median(times.load).toFixed(0),
    ids: String(ids.length),
    "encode ms": mine.toFixed(0),
    "MB/s": (megabytes / (mine / 1000)).toFixed(0),
    "peer ms": theirs.toFixed(0),
    "peer / furcate": (theirs / mine).toFixed(1),
    "same ids": same ? "yes" : "no",
    "decode ms": median(times.decode).toFixed(0),
    "1 MB of one letter, ms": median(times.letter).toFixed(0),
  });
}
console.table(rows);

function timed<T>(into: number[], act: () => T): T {
  const began = performance.now();
  const result = act();
  into.push(performance.now() - began);
  return result;
}

function median(values: readonly number[]): number {
  return [...values].sort((a, b) => a - b)[values.length >> 1]!;
}

/** Texts of the folder's files with this ending, in the order of their names. */
function filesIn(folder: string, ending: string): string[] {
  return readdirSync(ROOT + folder, { recursive: true })
    .map(String)
    .filter((name) => name.endsWith(ending))
    .sort()
    .map((name) => readFileSync(`${ROOT}${folder}/${name}`, "utf8"));
}
