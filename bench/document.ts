// Puts what was measured into a page of docs/, between the marks that name it. Knows nothing of what it says.

import { readFileSync, writeFileSync } from "node:fs";

/** Replaces what stands between `<!-- measured: NAME -->` and `<!-- end: NAME -->` in the file, for each name of `parts`. */
export function refresh(file: string, parts: Record<string, string>): void {
  let document = readFileSync(file, "utf8");
  for (const [name, text] of Object.entries(parts)) {
    const [begin, end] = [`<!-- measured: ${name} -->`, `<!-- end: ${name} -->`];
    const [before, rest] = document.split(begin);
    if (rest === undefined || !rest.includes(end)) throw new Error(`${file} lacks the marks ${begin} … ${end}`);
    document = `${before}${begin}\n\n${text}\n\n${end}${rest.slice(rest.indexOf(end) + end.length)}`;
  }
  writeFileSync(file, document);
}
