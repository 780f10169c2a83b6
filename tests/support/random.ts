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

/** The nearest numbers that 16-bit floats hold, so that a cache which stores those keeps them as they are. */
export function halves(x: ArrayLike<number>): Float32Array {
  return Float32Array.from(x, (value) => {
    if (value === 0) return 0;
    const step = 2 ** (Math.max(-14, Math.floor(Math.log2(Math.abs(value)))) - 10);
    return Math.round(value / step) * step;
  });
}
