// What happens to the text between added tokens before it is cut into words.

import type { NormalizeStep } from "./data.ts";

/** The text after all steps. isFirst: no added token comes before it. */
export function normalize(steps: readonly NormalizeStep[], text: string, isFirst: boolean): string {
  for (const step of steps) {
    if (step.kind === "unicode") text = text.normalize(step.form);
    else if (step.kind === "replace") text = text.replaceAll(step.from, step.to);
    else if (text !== "" && (isFirst || !step.onlyFirst) && !(step.unlessThere && text.startsWith(step.text)))
      text = step.text + text;
  }
  return text;
}
