// Counter-based random numbers: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC11).
// A number depends on its key and counter alone. Knows nothing of samples or tokens.

// The four words of the last block.
let x0: u32 = 0;
let x1: u32 = 0;
let x2: u32 = 0;
let x3: u32 = 0;

/** The generator itself: counter (4) u32 and key (2) u32 -> out (4) u32. */
export function philox(counter: usize, key: usize, out: usize): void {
  x2 = load<u32>(counter, 8);
  x3 = load<u32>(counter, 12);
  rounds(load<u32>(counter), load<u32>(counter, 4), load<u32>(key), load<u32>(key, 4));
  store<u32>(out, x0);
  store<u32>(out, x1, 4);
  store<u32>(out, x2, 8);
  store<u32>(out, x3, 12);
}

/** A number in [0, 1) of 53 bits: key = the choice's seed as two words, counter = (position, 0, 0, 0). */
export function uniform(seedLow: u32, seedHigh: u32, position: u32): f64 {
  x2 = 0;
  x3 = 0;
  rounds(position, 0, seedLow, seedHigh);
  return (<f64>(x0 >>> 5) * 67108864 + <f64>(x1 >>> 6)) / 9007199254740992;
}

/** The seed of choice `index` > 0 of a call, from 0 to 2^53 - 1: key = the call's seed, counter = (index, 0, 0, 1). */
export function choiceSeed(seedLow: u32, seedHigh: u32, index: u32): f64 {
  x2 = 0;
  x3 = 1;
  rounds(index, 0, seedLow, seedHigh);
  return <f64>(x0 >>> 11) * 4294967296 + <f64>x1;
}

/** Ten rounds over (a, b, x2, x3), into x0 … x3. */
function rounds(a: u32, b: u32, keyLow: u32, keyHigh: u32): void {
  let c = x2;
  let d = x3;
  for (let round = 0; round < 10; round++) {
    const first = <u64>a * 0xd2511f53;
    const second = <u64>c * 0xcd9e8d57;
    a = <u32>(second >>> 32) ^ b ^ keyLow;
    b = <u32>second;
    c = <u32>(first >>> 32) ^ d ^ keyHigh;
    d = <u32>first;
    keyLow += 0x9e3779b9;
    keyHigh += 0xbb67ae85;
  }
  x0 = a;
  x1 = b;
  x2 = c;
  x3 = d;
}
