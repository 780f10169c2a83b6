// Short byte strings by words of 8 bytes: hash and comparison. They read up to 7 bytes beyond an end, which must lie in memory
// (buffers have 8 to spare), and mask them. Knows nothing of what the bytes mean.

/** 32 well-mixed bits. */
export function hashBytes(at: usize, length: usize): u32 {
  let hash: u64 = 0x9e3779b97f4a7c15 ^ (<u64>length * 0xff51afd7ed558ccd);
  for (; length > 8; length -= 8, at += 8) hash = mix(hash ^ load<u64>(at));
  hash = mix(hash ^ headOf(at, length));
  return <u32>(hash ^ (hash >>> 32));
}

/** The first 8 bytes, or fewer and zeros. */
// @ts-ignore: decorator
@inline
export function headOf(at: usize, length: usize): u64 {
  // Shifts count modulo 64, so that a length of 0 needs a case of its own.
  return length >= 8 ? load<u64>(at) : length === 0 ? 0 : load<u64>(at) & (((<u64>1) << (<u64>length << 3)) - 1);
}

// @ts-ignore: decorator
@inline
function mix(hash: u64): u64 {
  hash *= 0xbf58476d1ce4e5b9;
  return hash ^ (hash >>> 29);
}

/** Whether `length` bytes at both places are the same. */
export function sameBytes(one: usize, other: usize, length: usize): bool {
  for (; length > 8; length -= 8, one += 8, other += 8) if (load<u64>(one) !== load<u64>(other)) return false;
  return headOf(one, length) === headOf(other, length);
}
