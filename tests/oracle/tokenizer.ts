// Writes tests/fixtures/tokenizer-ids.json: the oracle's ids of all texts for all families, as one hash per batch.
// Needs Python with the `tokenizers` package (PYTHON names the interpreter). Run: node --import tsx tests/oracle/tokenizer.ts

import { execFileSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { BATCH, FAMILIES, fileOf } from "../support/families.ts";
import { allTexts, hashTexts } from "../support/texts.ts";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));
// The oracle takes well-formed text only: lone surrogates become U+FFFD, as an encoder makes them.
const texts = allTexts().map((text) =>
  new TextDecoder("utf-8", { ignoreBOM: true }).decode(new TextEncoder().encode(text)),
);
const families = Object.fromEntries(
  Object.entries(FAMILIES).map(([name, { from, ...changes }]) => [name, { file: fileOf(from), ...changes }]),
);
const output = execFileSync(process.env.PYTHON ?? "python3", [here("tokenizer.py")], {
  input: JSON.stringify({ batch: BATCH, texts, families }),
  maxBuffer: 1 << 28,
});
const { version, hashes } = JSON.parse(output.toString()) as { version: string; hashes: Record<string, string> };
writeFileSync(
  here("../fixtures/tokenizer-ids.json"),
  `${JSON.stringify({ oracle: `tokenizers ${version} (Rust), Unicode 16.0.0`, texts: hashTexts(), hashes }, null, 1)}\n`,
);
console.log(`${texts.length} texts, ${Object.keys(hashes).length} families, tokenizers ${version}`);
