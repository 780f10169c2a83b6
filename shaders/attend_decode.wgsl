// Each sample by itself: its tail, of its own length, in slices; and for the one-part path the context's slices too. Online softmax;
// gives one partial state a query head and slice.
// Knows the batch, the cache's layout (src/webgpu/kv-layout.ts) and that of states (attention.ts).
//
//   q  (rows, q_stride) f32, of it (N_HEADS, HEAD_DIM)    values  (parts, capacity, N_HEADS, HEAD_DIM)    lse  (parts, capacity, N_HEADS)
//
// Workgroup = (KV head and tile of its query heads, part, sample). Parts are the context's slices, then the tail's; a sample without
// such a part does nothing. Lanes work as in attend_context.wgsl.

// head
alias Rows = vec4f; // neighbouring rows' sums
alias Factors = vec4f; // and factors
const WIDTH = 4u;
fn pair(word: u32) -> vec2f { return unpack2x16float(word); }
fn gather(row: u32, d: u32) -> Rows { return vec4f(query(row, d), query(row + 1, d), query(row + 2, d), query(row + 3, d)); }
fn scatter(row: u32, d: u32, x: Rows) { put(row, d, x.x); put(row + 1, d, x.y); put(row + 2, d, x.z); put(row + 3, d, x.w); }
// end of head

override LANES: u32 = 64; // and tokens of a step
override VECTORS: u32; // of rows in a tile, at most 8
override N_HEADS: u32;
override N_KV_HEADS: u32;
override HEAD_DIM: u32;
override TAIL_PARTS: u32;
override TAIL_SLICE: u32;
override GROUP: u32 = N_HEADS / N_KV_HEADS;
override D16: u32 = (HEAD_DIM + 15) / 16 * 16;
override DIMS: u32 = (D16 + LANES - 1) / LANES; // of a lane, at most 4
override ACROSS: u32 = (D16 + DIMS - 1) / DIMS; // lanes for all dimensions
override TEAMS: u32 = LANES / ACROSS; // that share a step's tokens
const SEATS = 8u; // lanes for one vector's softmax
const LEAST = -1e30;
const LSE = 0xffffffffu; // in the place of a dimension

struct Sizes { q_at: u32, q_stride: u32, capacity: u32, slice: u32, slices: u32, first_part: u32, first_row: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read> kv: array<vec4u>;
@group(0) @binding(4) var<storage, read_write> values: array<f32>;
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;

var<workgroup> queries: array<Factors, D16 * VECTORS>; // (dimension, vector)
var<workgroup> weights: array<Factors, VECTORS * LANES>; // (vector, token): scores, then their exponentials
var<workgroup> partial: array<Rows, VECTORS * SEATS>;
var<workgroup> scales: array<Rows, VECTORS>;
var<private> kv_head: u32;
var<private> part: u32;
var<private> sample: u32; // of those that states are for
var<private> blocks: u32; // where in the batch the part's sequence has its blocks

fn load(at: u32) -> vec4u { return kv[at]; }

fn query(row: u32, d: u32) -> f32 {
  if (row >= GROUP || d >= HEAD_DIM) { return 0.0; }
  let at = sizes.q_at + (sizes.first_row + sample) * sizes.q_stride + (kv_head * GROUP + row) * HEAD_DIM + d;
  return q[at] / sqrt(f32(HEAD_DIM));
}

fn put(row: u32, d: u32, x: f32) {
  if (row >= GROUP) { return; }
  let at = (part * sizes.capacity + sample) * N_HEADS + kv_head * GROUP + row;
  if (d == LSE) { lse[at] = x; } else if (d < HEAD_DIM) { values[at * HEAD_DIM + d] = x; }
}

/// Where a token's K begins, in units of 8 elements; its V is 4 D16 units on, and both go on by 32 a tile of dimensions.
fn tile_of(token: u32) -> u32 {
  return (batch[blocks + token / 32] * N_KV_HEADS + kv_head) * 8 * D16 + token % 32 / 16 * 2 * D16;
}

/// The first n of 8 elements, then zeros: what lies behind the last token may be anything.
fn first_of(x: vec4u, n: u32) -> vec4u {
  let at = vec4u(0, 2, 4, 6);
  return select(select(x & vec4u(0xffff), x, vec4u(n) > at + 1), vec4u(0), vec4u(n) <= at);
}

/// Tokens of a slice of a tail: whole blocks, so that no tail has more than TAIL_PARTS.
fn tail_slice(length: u32) -> u32 {
  return max(TAIL_SLICE, (length + TAIL_PARTS * 32 - 1) / (TAIL_PARTS * 32) * 32);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  kv_head = id.x % N_KV_HEADS;
  part = sizes.first_part + id.y;
  sample = id.z;
  let first_row = id.x / N_KV_HEADS * VECTORS * WIDTH;
  let row = sizes.first_row + id.z;
  let in_tail = sizes.first_part + id.y >= sizes.slices;
  var slice = sizes.slice;
  var begin = (sizes.first_part + id.y) * slice;
  var length = batch[1];
  blocks = batch[5];
  if (in_tail) {
    length = batch[batch[6] + row];
    slice = tail_slice(length);
    begin = (sizes.first_part + id.y - sizes.slices) * slice;
    blocks = batch[7] + row * batch[8];
  }
  let end = min(begin + slice, length);
  if (begin >= end) { return; }
  for (var i = lane; i < D16 * VECTORS; i += LANES) {
    queries[i] = Factors(gather(first_row + i % VECTORS * WIDTH, i / VECTORS));
  }

  let seat_vector = lane / SEATS;
  let seat = lane % SEATS;
  var top = Rows(LEAST);
  var sum = Rows(0.0);
  let team = lane / ACROSS;
  let dim = lane % ACROSS;
  var sums: array<Rows, 32>; // (DIMS, VECTORS)

  for (var step = begin; step < end; step += LANES) {
    var scores: array<Rows, 8>;
    for (var r = 0u; r < VECTORS; r++) { scores[r] = Rows(LEAST); }
    workgroupBarrier();
    if (step + lane < end) {
      for (var r = 0u; r < VECTORS; r++) { scores[r] = Rows(0.0); }
      let at = tile_of(step + lane) + (step + lane) % 16 * 2;
      for (var unit = 0u; unit < D16 / 8; unit++) {
        let x = load(at + unit / 2 * 32 + unit % 2);
        let a = pair(x.x);
        let b = pair(x.y);
        let c = pair(x.z);
        let d = pair(x.w);
        for (var r = 0u; r < VECTORS; r++) {
          let base = unit * 8 * VECTORS + r;
          var s = scores[r];
          s = fma(Rows(a.x), queries[base], s);
          s = fma(Rows(a.y), queries[base + VECTORS], s);
          s = fma(Rows(b.x), queries[base + 2 * VECTORS], s);
          s = fma(Rows(b.y), queries[base + 3 * VECTORS], s);
          s = fma(Rows(c.x), queries[base + 4 * VECTORS], s);
          s = fma(Rows(c.y), queries[base + 5 * VECTORS], s);
          s = fma(Rows(d.x), queries[base + 6 * VECTORS], s);
          s = fma(Rows(d.y), queries[base + 7 * VECTORS], s);
          scores[r] = s;
        }
      }
    }
    for (var r = 0u; r < VECTORS; r++) { weights[r * LANES + lane] = scores[r]; }
    workgroupBarrier();

    if (seat_vector < VECTORS) {
      var most = Rows(LEAST);
      for (var t = seat; t < LANES; t += SEATS) { most = max(most, weights[seat_vector * LANES + t]); }
      partial[lane] = most;
    }
    workgroupBarrier();
    if (seat_vector < VECTORS) {
      var next = top;
      for (var i = 0u; i < SEATS; i++) { next = max(next, partial[seat_vector * SEATS + i]); }
      let shrink = exp(top - next);
      top = next;
      sum *= shrink;
      for (var t = seat; t < LANES; t += SEATS) {
        let weight = exp(weights[seat_vector * LANES + t] - top);
        weights[seat_vector * LANES + t] = weight;
        sum += weight;
      }
      if (seat == 0) { scales[seat_vector] = shrink; }
    }
    workgroupBarrier();

    if (team < TEAMS) {
      for (var r = 0u; r < VECTORS; r++) {
        for (var i = 0u; i < DIMS; i++) { sums[i * VECTORS + r] *= scales[r]; }
      }
      let tokens = min(LANES, end - step);
      for (var t = team * 8; t < tokens; t += TEAMS * 8) {
        let at = tile_of(step + t) + 4 * D16 + (step + t) % 16 / 8;
        for (var i = 0u; i < DIMS; i++) {
          let d = dim + i * ACROSS;
          if (d >= D16) { continue; }
          var x = load(at + d * 2);
          if (t + 8 > tokens) { x = first_of(x, tokens - t); }
          let a = pair(x.x);
          let b = pair(x.y);
          let c = pair(x.z);
          let e = pair(x.w);
          for (var r = 0u; r < VECTORS; r++) {
            let base = r * LANES + t;
            var s = sums[i * VECTORS + r];
            s = fma(Rows(a.x), weights[base], s);
            s = fma(Rows(a.y), weights[base + 1], s);
            s = fma(Rows(b.x), weights[base + 2], s);
            s = fma(Rows(b.y), weights[base + 3], s);
            s = fma(Rows(c.x), weights[base + 4], s);
            s = fma(Rows(c.y), weights[base + 5], s);
            s = fma(Rows(e.x), weights[base + 6], s);
            s = fma(Rows(e.y), weights[base + 7], s);
            sums[i * VECTORS + r] = s;
          }
        }
      }
    }
  }

  workgroupBarrier();
  if (seat_vector < VECTORS) { partial[lane] = sum; }
  workgroupBarrier();
  if (seat_vector < VECTORS && seat == 0) {
    var total = Rows(0.0);
    for (var i = 0u; i < SEATS; i++) { total += partial[lane + i]; }
    scales[seat_vector] = 1.0 / total;
    scatter(first_row + seat_vector * WIDTH, LSE, top + log(total));
  }
  // Teams' sums come together one after another; with several teams a lane has one dimension.
  for (var other = 1u; other < TEAMS; other++) {
    workgroupBarrier();
    if (team == other) { for (var r = 0u; r < VECTORS; r++) { weights[r * LANES + dim] = sums[r]; } }
    workgroupBarrier();
    if (team == 0) { for (var r = 0u; r < VECTORS; r++) { sums[r] += weights[r * LANES + dim]; } }
  }
  workgroupBarrier();
  if (team == 0) {
    for (var r = 0u; r < VECTORS; r++) {
      for (var i = 0u; i < DIMS; i++) {
        scatter(first_row + r * WIDTH, dim + i * ACROSS, sums[i * VECTORS + r] * scales[r]);
      }
    }
  }
}
