// The text of one choice as it grows: bytes of tokens to text, and stop strings.
// Text that may turn out to begin a stop string is held back until that is settled. Knows nothing of models.

/** What turns ids into text piece by piece, holding back incomplete characters. */
export interface Decoder {
  push(id: number): string;
  flush(): string;
}

export interface ChoiceText {
  /** Text released so far. */
  readonly text: string;
  /** Takes a token; returns the text that it settles, and whether a stop string is complete. */
  push(id: number): { text: string; stopped: boolean };
  /** Releases everything held back: no more tokens will come. */
  end(): string;
}

/** An empty text that ends before the first of the stop strings. */
export function createChoiceText(decoder: Decoder, stop: readonly string[]): ChoiceText {
  let text = "";
  let held = "";
  let stopped = false;
  const release = (length: number): string => {
    const piece = held.slice(0, length);
    held = held.slice(length);
    text += piece;
    return piece;
  };
  return {
    get text() {
      return text;
    },
    push(id) {
      const piece = decoder.push(id);
      if (stop.length === 0) {
        text += piece;
        return { text: piece, stopped: false };
      }
      held += piece;
      const at = firstMatch(held, stop);
      if (at < 0) return { text: release(held.length - heldBack(held, stop)), stopped: false };
      stopped = true;
      return { text: release(at), stopped };
    },
    end() {
      // What came after a stop string is nobody's.
      if (stopped) return "";
      held += decoder.flush();
      const at = firstMatch(held, stop);
      return release(at < 0 ? held.length : at);
    },
  };
}

/** A token as log-probabilities name it. */
export const tokenLogprob = (
  { tokenText }: { tokenText(id: number): string },
  { id, logprob }: { id: number; logprob: number },
) => ({ tokenId: id, token: tokenText(id), logprob });

/** Where the earliest stop string begins; -1 where there is none. */
function firstMatch(text: string, stop: readonly string[]): number {
  let first = -1;
  for (const one of stop) {
    const at = text.indexOf(one);
    if (at >= 0 && (first < 0 || at < first)) first = at;
  }
  return first;
}

/** Length of the longest end of the text that begins a stop string. */
function heldBack(text: string, stop: readonly string[]): number {
  let longest = 0;
  for (const one of stop) {
    for (let length = Math.min(one.length - 1, text.length); length > longest; length--) {
      if (text.endsWith(one.slice(0, length))) longest = length;
    }
  }
  return longest;
}
