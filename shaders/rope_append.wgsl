// Rotary positions, and the rows' keys and values into the cache: q turns in place; k turns, and goes with v into the row's slot.
// Knows the batch and the cache's layout (src/webgpu/kv-layout.ts); nothing of what attention makes of them.
//
//   qkv  (rows, stride) f32: a row of q, of k and of v each from its place on    kv  16-bit floats, two to a word
//
// Workgroup y = row. One lane turns a pair of q, makes one word of K (two dimensions of a token), or one word of V (one dimension of
// two tokens).

override LANES: u32 = 64;
override N_HEADS: u32;
override N_KV_HEADS: u32;
override HEAD_DIM: u32;
override ROPE_DIM: u32;
override HALVES: bool; // pairs are (i, i + ROPE_DIM / 2), else (2 i, 2 i + 1)
override D16: u32 = (HEAD_DIM + 15) / 16 * 16;
// Words of the batch that say where it has these.
const TURNS_AT = 3u;
const SLOTS_AT = 4u;

struct Sizes { stride: u32, q_at: u32, k_at: u32, v_at: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read_write> qkv: array<f32>;
@group(0) @binding(3) var<storage, read_write> kv: array<u32>;

fn slot(row: u32) -> vec2u {
  let at = batch[SLOTS_AT] + 2 * row;
  return vec2u(batch[at], batch[at + 1]);
}

/// Cosine and sine of a row's pair.
fn turn(row: u32, pair: u32) -> vec2f {
  let at = batch[TURNS_AT] + row * ROPE_DIM + 2 * pair;
  return vec2f(bitcast<f32>(batch[at]), bitcast<f32>(batch[at + 1]));
}

/// Dimension d of the head that begins at `start`, turned.
fn turned_key(row: u32, start: u32, d: u32) -> f32 {
  if (d >= HEAD_DIM) { return 0.0; }
  let x = qkv[start + d];
  if (d >= ROPE_DIM) { return x; }
  var pair = d / 2;
  var mate = d ^ 1;
  var is_first = (d & 1) == 0;
  if (HALVES) {
    is_first = d < ROPE_DIM / 2;
    pair = select(d - ROPE_DIM / 2, d, is_first);
    mate = select(pair, d + ROPE_DIM / 2, is_first);
  }
  let by = turn(row, pair);
  let other = qkv[start + mate];
  return select(other * by.y + x * by.x, x * by.x - other * by.y, is_first);
}

fn value(row: u32, head: u32, d: u32) -> f32 {
  if (d >= HEAD_DIM) { return 0.0; }
  return qkv[sizes.v_at + row * sizes.stride + head * HEAD_DIM + d];
}

/// Beyond the range of 16 bits the largest of them. What is kept is always finite, since products with masked tokens take it in.
fn packed(x: f32, y: f32) -> u32 {
  let words = pack2x16float(clamp(vec2f(x, y), vec2f(-65504.0), vec2f(65504.0)));
  let infinite = ((words & 0x7c007c00u) + 0x04000400u) & 0x80008000u; // the top bit of each half that is infinite or not a number
  return words & ~(infinite >> 5u);
}

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3u) {
  let row = id.y;
  if (row >= batch[0]) { return; }
  var unit = id.x;

  if (unit < N_HEADS * (ROPE_DIM / 2)) {
    let pair = unit % (ROPE_DIM / 2);
    let start = sizes.q_at + row * sizes.stride + unit / (ROPE_DIM / 2) * HEAD_DIM;
    let first = start + select(2 * pair, pair, HALVES);
    let second = first + select(1u, ROPE_DIM / 2, HALVES);
    let by = turn(row, pair);
    let x = qkv[first];
    let y = qkv[second];
    qkv[first] = x * by.x - y * by.y;
    qkv[second] = x * by.y + y * by.x;
    return;
  }
  unit -= N_HEADS * (ROPE_DIM / 2);

  let to = slot(row);
  let tiles = D16 / 16;
  if (unit < N_KV_HEADS * (D16 / 2)) {
    let head = unit / (D16 / 2);
    let d = unit % (D16 / 2) * 2;
    let start = sizes.k_at + row * sizes.stride + head * HEAD_DIM;
    let tile = (to.x * N_KV_HEADS + head) * 4 * tiles + to.y / 16 * tiles + d / 16;
    kv[tile * 128 + to.y % 16 * 8 + d % 16 / 2] = packed(turned_key(row, start, d), turned_key(row, start, d + 1));
    return;
  }
  unit -= N_KV_HEADS * (D16 / 2);
  if (unit >= N_KV_HEADS * D16) { return; }

  // Tokens 2 i and 2 i + 1 share a word. Where both are in the batch the first one's row writes it.
  let is_second = (to.y & 1) == 1;
  if (is_second && row > 0 && all(slot(row - 1) == to - vec2u(0, 1))) { return; }
  let head = unit / D16;
  let d = unit % D16;
  let tile = (to.x * N_KV_HEADS + head) * 4 * tiles + (2 + to.y / 16) * tiles + d / 16;
  let at = tile * 128 + d % 16 * 8 + to.y % 16 / 2;
  let mine = value(row, head, d);
  if (is_second) {
    kv[at] = (kv[at] & 0xffff) | (packed(0.0, mine) & 0xffff0000);
  } else if (row + 1 < batch[0] && all(slot(row + 1) == to + vec2u(0, 1))) {
    kv[at] = packed(mine, value(row + 1, head, d));
  } else {
    kv[at] = (kv[at] & 0xffff0000) | (packed(mine, 0.0) & 0xffff);
  }
}
