// Seeded random numbers for tests: the same seed gives the same numbers everywhere.

export interface Random {
  /** 0 … 1, 1 exclusive. */
  next(): number;
  /** A whole number, 0 … below - 1. */
  below(below: number): number;
  /** Normally distributed, mean 0, deviation 1. */
  normal(): number;
  pick<T>(from: ArrayLike<T>): T;
}

/** A 32-bit generator: a counter through an avalanche of multiplications and shifts. */
export function newRandom(seed: number): Random {
  let state = seed >>> 0;
  const bits = () => {
    state = (state + 0x9e3779b9) >>> 0;
    let x = state;
    x = Math.imul(x ^ (x >>> 16), 0x21f0aaad);
    x = Math.imul(x ^ (x >>> 15), 0x735a2d97);
    return (x ^ (x >>> 15)) >>> 0;
  };
  const next = () => bits() / 0x1_0000_0000;
  const below = (n: number) => Math.floor(next() * n);
  return {
    next,
    below,
    normal: () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next()),
    pick: (from) => from[below(from.length)],
  };
}
