// From verdicts on samples to what n of them are worth: pass@k, best of k, and how sure the means over mazes are.
// Knows numbers alone.

/** Chance that at least one of k samples is right, where `right` of `n` were: 1 − C(n − right, k) / C(n, k), unbiased (arXiv 2107.03374). */
export function passAt(n: number, right: number, k: number): number {
  if (right > n - k) return 1;
  let allWrong = 1;
  for (let i = 0; i < k; i++) allWrong *= (n - right - i) / (n - i);
  return 1 - allWrong;
}

/**
 * Share of right ones among the best of each run of k samples; ties to the first. Samples that fill no run are left out.
 * `score` gets a sample's index, and those of its run.
 */
export function bestOf(
  right: readonly boolean[],
  k: number,
  score: (sample: number, run: readonly number[]) => number,
): number {
  const runs = Math.floor(right.length / k);
  let won = 0;
  for (let first = 0; first < runs * k; first += k) {
    const run = Array.from({ length: k }, (_, i) => first + i);
    const scores = run.map((sample) => score(sample, run));
    if (right[first + scores.indexOf(Math.max(...scores))]) won++;
  }
  return won / runs;
}

/** A mean and its 95 % confidence interval. */
export interface Mean {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
}

const RESAMPLES = 4000;

/** The mean over mazes; the interval by bootstrap: the middle 95 % of the means of as many mazes drawn anew, with replacement. */
export function meanOf(values: readonly number[]): Mean {
  const mean = (sum: number) => sum / values.length;
  const random = newRandom(values.length);
  const means = Float64Array.from({ length: RESAMPLES }, () => {
    let sum = 0;
    for (let i = 0; i < values.length; i++) sum += values[Math.floor(random() * values.length)];
    return mean(sum);
  }).sort();
  return {
    mean: mean(values.reduce((sum, value) => sum + value, 0)),
    low: means[Math.floor(0.025 * RESAMPLES)],
    high: means[Math.ceil(0.975 * RESAMPLES) - 1],
  };
}

/** Numbers in [0, 1), the same for a seed each time (a Weyl sequence through MurmurHash3's finaliser). */
function newRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let x = Math.imul(state ^ (state >>> 16), 0x85ebca6b);
    x = Math.imul(x ^ (x >>> 13), 0xc2b2ae35);
    return ((x ^ (x >>> 16)) >>> 0) / 2 ** 32;
  };
}
