// All that this page says to furcate: a model in a worker, and answers that grow side by side. Knows nothing of the page.

import { load } from "./furcate.js";

/** source: a URL, whose bytes stay on this device for the next visit, or a File. Rejects with a FurcateError that says why. */
export async function openModel(source, { backend, onProgress, signal }) {
  const model = await load(source, { backend, worker: true, onProgress, signal });
  if (typeof source === "string") navigator.storage?.persist?.();
  return model;
}

/** What the user wrote, as the model's chat template puts it; where there is none, the bare text. */
export function promptOf(model, text) {
  const messages = [{ role: "user", content: text }];
  try {
    model.applyChatTemplate(messages);
    return messages;
  } catch {
    return text;
  }
}

/** One answer for each card, all at once. A card hears its own tokens and may stop itself. Resolves to what they came to. */
export async function answer(model, prompt, options, cards) {
  const stream = model.stream(prompt, { ...options, n: cards.length });
  for (const [index, card] of cards.entries()) card.stop = () => stream.stop(index);
  for await (const chunk of stream) cards[chunk.index].grow(chunk);
  return stream.result;
}
