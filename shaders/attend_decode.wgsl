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

override LANES: u32;
override SEATS: u32; // lanes for one vector's softmax
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
var<workgroup> tiles: array<u32, LANES / 32>; // where a step's blocks begin, as tile_of
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

/// A token's K, in units of 8 elements.
fn keys_of(token: u32) -> u32 { return tile_of(token) + token % 16 * 2; }

/// Eight tokens of a dimension of V, of which so many are there.
fn values_of(at: u32, tokens: u32) -> Eight {
  var x = load(at);
  if (tokens < 8) { x = first_of(x, tokens); }
  return eight(x);
}

/// The numbers of a unit, and what each is multiplied with.
struct Eight { a: vec2f, b: vec2f, c: vec2f, d: vec2f }
struct Octet { a: Factors, b: Factors, c: Factors, d: Factors, e: Factors, f: Factors, g: Factors, h: Factors }

fn eight(x: vec4u) -> Eight { return Eight(pair(x.x), pair(x.y), pair(x.z), pair(x.w)); }

fn added(sum: Rows, x: Eight, by: Octet) -> Rows {
  var s = fma(Rows(x.a.x), by.a, sum);
  s = fma(Rows(x.a.y), by.b, s);
  s = fma(Rows(x.b.x), by.c, s);
  s = fma(Rows(x.b.y), by.d, s);
  s = fma(Rows(x.c.x), by.e, s);
  s = fma(Rows(x.c.y), by.f, s);
  s = fma(Rows(x.d.x), by.g, s);
  return fma(Rows(x.d.y), by.h, s);
}

/// Eight dimensions of a vector's queries, and eight tokens' weights.
fn queries_of(unit: u32, vector: u32) -> Octet {
  let at = unit * 8 * VECTORS + vector;
  return Octet(
    queries[at],
    queries[at + VECTORS],
    queries[at + 2 * VECTORS],
    queries[at + 3 * VECTORS],
    queries[at + 4 * VECTORS],
    queries[at + 5 * VECTORS],
    queries[at + 6 * VECTORS],
    queries[at + 7 * VECTORS],
  );
}
fn weights_of(token: u32, vector: u32) -> Octet {
  let at = vector * LANES + token;
  return Octet(
    weights[at],
    weights[at + 1],
    weights[at + 2],
    weights[at + 3],
    weights[at + 4],
    weights[at + 5],
    weights[at + 6],
    weights[at + 7],
  );
}

// head
/// The largest that a vector's seats have, and their sum. All lanes come here.
fn greatest(lane: u32, x: Rows) -> Rows {
  if (lane < SEATS * VECTORS) { partial[lane] = x; }
  workgroupBarrier();
  var most = x;
  for (var i = 0u; i < SEATS; i++) { most = max(most, partial[lane / SEATS % VECTORS * SEATS + i]); }
  return most;
}
fn total(lane: u32, x: Rows) -> Rows {
  if (lane < SEATS * VECTORS) { partial[lane] = x; }
  workgroupBarrier();
  var sum = Rows(0.0);
  for (var i = 0u; i < SEATS; i++) { sum += partial[lane / SEATS % VECTORS * SEATS + i]; }
  return sum;
}
// end of head

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  kv_head = id.x % N_KV_HEADS;
  part = sizes.first_part + id.y;
  sample = id.z;
  let first_row = id.x / N_KV_HEADS * VECTORS * WIDTH;
  let row = sizes.first_row + id.z;
  if (row >= batch[0]) { return; }
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
    var scores: array<Rows, 8>; // one for each vector
    for (var i = 0u; i < VECTORS; i++) { scores[i] = Rows(LEAST); }
    workgroupBarrier();
    if (lane < LANES / 32 && step + lane * 32 < end) { tiles[lane] = tile_of(step + lane * 32); }
    if (step + lane < end) {
      for (var i = 0u; i < VECTORS; i++) { scores[i] = Rows(0.0); }
      let first = keys_of(step + lane);
      for (var unit = 0u; unit < D16 / 8; unit++) {
        let at = unit / 2 * 32 + unit % 2;
        let x = eight(load(first + at));
        for (var r = 0u; r < VECTORS; r++) {
          let by = queries_of(unit, r);
          scores[r] = added(scores[r], x, by);
        }
      }
    }
    for (var r = 0u; r < VECTORS; r++) {
      weights[r * LANES + lane] = scores[r];
    }
    workgroupBarrier();

    var most = top;
    if (seat_vector < VECTORS) {
      for (var t = seat; t < LANES; t += SEATS) { most = max(most, weights[seat_vector * LANES + t]); }
    }
    let next = greatest(lane, most);
    if (seat_vector < VECTORS) {
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
        let at = tiles[t / 32] + t % 32 / 16 * 2 * D16 + 4 * D16 + t % 16 / 8;
        for (var i = 0u; i < DIMS; i += 2) {
          let d = dim + i * ACROSS;
          if (d >= D16) { continue; }
          let has_two = i + 1 < DIMS && d + ACROSS < D16;
          let x = values_of(at + d * 2, tokens - t);
          var y = x;
          if (has_two) { y = values_of(at + (d + ACROSS) * 2, tokens - t); }
          for (var r = 0u; r < VECTORS; r++) {
            let by = weights_of(t, r);
            sums[i * VECTORS + r] = added(sums[i * VECTORS + r], x, by);
            if (has_two) { sums[(i + 1) * VECTORS + r] = added(sums[(i + 1) * VECTORS + r], y, by); }
          }
        }
      }
    }
  }

  workgroupBarrier();
  let all = total(lane, sum);
  if (seat_vector < VECTORS && seat == 0) {
    scales[seat_vector] = 1.0 / all;
    scatter(first_row + seat_vector * WIDTH, LSE, top + log(all));
  }
  if (TEAMS > 1) {
    for (var i = 0u; i < DIMS; i++) {
      workgroupBarrier();
      for (var r = 0u; r < VECTORS; r++) { weights[r * LANES + lane] = sums[i * VECTORS + r]; }
      workgroupBarrier();
      if (team == 0) {
        for (var r = 0u; r < VECTORS; r++) {
          for (var other = 1u; other < TEAMS; other++) { sums[i * VECTORS + r] += weights[r * LANES + other * ACROSS + dim]; }
        }
      }
    }
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
