// Results are queries, keys and values side by side: q and k are turned by their rows' angles, and k and v go into the rows' slots.
// For samples, which share no word of the cache; heads of whole tiles, pairs (2 i, 2 i + 1). Otherwise rope_append.wgsl does it.
override N_HEADS: u32;
override N_KV_HEADS: u32;
override HEAD_DIM: u32;
override ROPE_DIM: u32;
const TURNS_AT = 3u; // words of the batch that say where it has these
const SLOTS_AT = 4u;
@group(0) @binding(5) var<storage, read> batch: array<u32>;
@group(0) @binding(6) var<storage, read_write> kv: array<u32>; // 16-bit floats, two to a word (src/webgpu/kv-layout.ts)

/// Beyond the range of 16 bits the largest of them. What is kept is always finite, since products with masked tokens take it in.
fn packed(x: vec2f) -> u32 {
  let words = pack2x16float(clamp(x, vec2f(-65504.0), vec2f(65504.0)));
  let infinite = ((words & 0x7c007c00u) + 0x04000400u) & 0x80008000u; // the top bit of each half that is infinite or not a number
  return words & ~(infinite >> 5u);
}

fn put(row: u32, output: u32, sums: vec2f) {
  if (output >= min(sizes.outputs, sizes.panels * 16u)) { return; }
  var column = sizes.out_at % sizes.out_stride + output;
  let d = column % HEAD_DIM;
  let is_query = column < N_HEADS * HEAD_DIM;
  // All loads first: they wait for one another as it is.
  let rows = batch[0];
  let slot = batch[SLOTS_AT] + 2u * row;
  if (row >= rows) { return; }
  let block = batch[slot];
  let place = batch[slot + 1u];
  var x = sums;
  if (column < (N_HEADS + N_KV_HEADS) * HEAD_DIM && d < ROPE_DIM) {
    let at = batch[TURNS_AT] + row * ROPE_DIM + d;
    let turn = vec2f(bitcast<f32>(batch[at]), bitcast<f32>(batch[at + 1u]));
    x = vec2f(x.x * turn.x - x.y * turn.y, x.x * turn.y + x.y * turn.x);
  }
  if (is_query) {
    let at = sizes.out_at + row * sizes.out_stride + output;
    store(at, x.x);
    store(at + 1u, x.y);
    return;
  }
  column -= N_HEADS * HEAD_DIM;
  let tiles = HEAD_DIM / 16u;
  let first = (block * N_KV_HEADS + column / HEAD_DIM % N_KV_HEADS) * 4u * tiles + place / 16u * tiles + d / 16u;
  let halves = packed(x);
  if (column < N_KV_HEADS * HEAD_DIM) {
    kv[first * 128u + place % 16u * 8u + d % 16u / 2u] = halves;
    return;
  }
  // Two tokens of a dimension share a word.
  let at = (first + 2u * tiles) * 128u + d % 16u * 8u + place % 16u / 2u;
  let both = vec2u(kv[at], kv[at + 8u]);
  let shift = place % 2u * 16u;
  kv[at] = insertBits(both.x, halves & 0xffffu, shift, 16u);
  kv[at + 8u] = insertBits(both.y, halves >> 16u, shift, 16u);
}
