// The answers side by side: a card each while it grows, their order when they are ranked. Knows the document; nothing of models.

import { logprob, plural } from "./figures.js";

/** What an answer's state is called, unless a judge has better words. */
const WORDS = { stop: "finished", length: "cut at the limit", abort: "stopped" };

/**
 * n new cards in a list, in the place of those before. judge: what is known of an answer, from its text and the reason of its end,
 * as { state: "growing" | "ended" | "valid" | "wrong", words? }. point: hears which card is looked at, undefined for none.
 */
export function newCards(list, n, judge, point) {
  const template = document.getElementById("card");
  const cards = Array.from({ length: n }, (_, index) =>
    newCard(template.content.firstElementChild.cloneNode(true), index),
  );
  list.replaceChildren(...cards.map(({ element }) => element));

  function newCard(element, index) {
    const part = (name) => element.querySelector(`[data-of=${name}]`);
    const [text, state, mean, tokens, sure, stop] = ["text", "state", "mean", "tokens", "sure", "stop"].map(part);
    const written = text.appendChild(document.createTextNode(""));
    let sum = 0;
    let isDrawn = false;
    part("index").textContent = index + 1;
    stop.setAttribute("aria-label", `Stop answer ${index + 1}`);
    // What scrolls must be reached by keys as well.
    text.tabIndex = 0;
    for (const name of ["pointerenter", "focusin"]) element.addEventListener(name, () => point(index));
    for (const name of ["pointerleave", "focusout"]) element.addEventListener(name, () => point(undefined));

    const card = {
      element,
      text: "",
      tokens: 0,
      finishReason: undefined,
      verdict: { state: "waiting", words: "waiting" },
      grow({ text, tokenId, logprob, finishReason }) {
        card.text += text;
        if (tokenId >= 0) {
          card.tokens++;
          sum += logprob;
        }
        card.finishReason = finishReason;
        card.verdict = judge(card.text, finishReason);
        isDrawn = false;
      },
      /** Ends it in the model; set by whoever runs it. */
      stop() {},
      /** Shows what has come since the last time. */
      draw() {
        if (isDrawn) return;
        isDrawn = true;
        written.appendData(card.text.trimStart().slice(written.length));
        if (element.dataset.state !== card.verdict.state) element.dataset.state = card.verdict.state;
        const words = card.verdict.words ?? WORDS[card.finishReason] ?? "writing";
        if (state.title !== words) state.title = state.textContent = words;
        tokens.textContent = plural(card.tokens, "token");
        showMean(sum / card.tokens);
        if (card.finishReason) end();
      },
      /** Shows a place in the ranking. */
      place(place, { text, meanLogprob, score }, votes) {
        written.data = text.trim();
        element.dataset.place = place;
        part("place").textContent = place;
        showMean(meanLogprob);
        if (votes) tokens.textContent = `${plural(Math.round(score * n), "vote")}, ${tokens.textContent}`;
      },
    };
    stop.addEventListener("click", () => card.stop());

    function showMean(value) {
      if (mean.textContent !== logprob(value)) mean.textContent = logprob(value);
      // The mean probability of a token, as a bar.
      sure.style.transform = `scaleX(${Number.isFinite(value) ? Math.exp(value) : 0})`;
    }
    /** The button goes; who was on it comes to the next one that is left. */
    function end() {
      const wasFocused = document.activeElement === stop;
      stop.hidden = true;
      if (wasFocused) (list.querySelector("button:not([hidden])") ?? text).focus({ preventScroll: true });
    }
    return card;
  }

  return {
    cards,
    draw() {
      for (const card of cards) card.draw();
    },
    /** No more will come: what still ran has been ended. */
    end() {
      for (const card of cards)
        if (!card.finishReason) card.grow({ text: "", tokenId: -1, logprob: 0, finishReason: "abort" });
      this.draw();
    },
    /** Puts the cards in the order of choices, best first. votes: whether scores are shares of votes. */
    rank(choices, votes) {
      this.end();
      for (const [place, choice] of choices.entries()) cards[choice.index].place(place + 1, choice, votes);
      list.append(...choices.map(({ index }) => cards[index].element));
    },
  };
}
