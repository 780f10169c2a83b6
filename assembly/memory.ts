// Linear memory: a bump arena over everything behind the static data. The only caller of memory.grow.
// Two uses, never mixed: what is allocated for good (weights, vocabularies, pools that grow), and scratch that lives within
// one call from JavaScript, between mark and release. Scratch is always released before the call returns, so that whatever is
// allocated for good lies below every mark. Knows nothing of what is stored.

const ALIGN: usize = 16;

let top: usize = (__heap_base + (ALIGN - 1)) & ~(ALIGN - 1);

let most: usize = top;

/** `bytes` bytes, 16-byte aligned, contents undefined; 0 where the memory cannot grow that far. */
export function alloc(bytes: usize): usize {
  const at = top;
  const end = at + ((bytes + (ALIGN - 1)) & ~(ALIGN - 1));
  if (end < at) return 0;
  const have = (<usize>memory.size()) << 16;
  if (end > have) {
    const pages = <i32>((end - have + 0xffff) >>> 16);
    if (memory.grow(pages) < 0) return 0;
  }
  top = end;
  most = max(most, top);
  return at;
}

/** The arena's present end, for release. */
export function mark(): usize {
  return top;
}

/** Frees everything allocated since `at` was the mark. */
export function release(at: usize): void {
  top = at;
}

/** Bytes of linear memory handed out so far, static data included. */
export function used(): usize {
  return top;
}

/** The most that were handed out at a time so far, likewise. */
export function peak(): usize {
  return most;
}
