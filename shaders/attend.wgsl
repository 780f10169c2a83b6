// Attention without subgroup matrices: the step's context part (paper section 4.2), tails, samples by themselves, and prefill. Online
// softmax over a tile of rows that share a KV head, each K and V loaded once for all of them.
// Knows the batch, the cache's layout (src/webgpu/kv-layout.ts) and that of states (attention.ts).
//
//   q  (rows, q_stride) f32, of it (N_HEADS, HEAD_DIM)    lse  (parts, capacity, N_HEADS); of prefill nothing
//   values  (parts, capacity, N_HEADS, HEAD_DIM); of prefill (rows, out_stride), of it (N_HEADS, HEAD_DIM)
//
// A row is a query head: sample · GROUP + head of the group; of prefill token · GROUP + head. Workgroup = (KV head, y). Of prefill
// y = tile of rows; else y = slice of the context by tile of all samples' rows, then sample by tile of its own rows by part: of the
// context's slices and then its tail's, those from first_own on. A sample without such a part does nothing. With the head `joined` y is a
// row: its whole tail, and the context's parts, of which the states are read.
// A lane holds its tokens' scores against all rows of the tile, then some dimensions of all rows' sums: in both it meets each K and V
// alone, with the other factor the same for all lanes. A row's result does not depend on the rows beside it. Steps of prefill begin at
// whole multiples of STEP tokens and masked ones change no bit: however a prompt is cut, a row's result is the same.

// head
alias Rows = vec4f; // something of neighbouring rows
const WIDTH = 4u;
fn gather(row: u32, d: u32) -> Rows { return vec4f(query(row, d), query(row + 1, d), query(row + 2, d), query(row + 3, d)); }
fn scatter(row: u32, d: u32, x: Rows, y: Rows) {
  put(row, d, vec2f(x.x, y.x));
  put(row + 1, d, vec2f(x.y, y.y));
  put(row + 2, d, vec2f(x.z, y.z));
  put(row + 3, d, vec2f(x.w, y.w));
}
fn up_to(token: u32, row: u32, x: Rows) -> Rows {
  return select(x, Rows(LEAST), vec4u(token) > batch[CTX_LEN] + (row + vec4u(0, 1, 2, 3)) / GROUP);
}
// end of head

override LANES: u32;
override STEP: u32; // tokens that all lanes compute with at a time: as many as these or twice as many
override SEATS: u32; // lanes for one vector's softmax
override VECTORS: u32; // of rows in a tile: 1, 2 or 4
override N_HEADS: u32;
override N_KV_HEADS: u32;
override HEAD_DIM: u32;
override CAUSAL: bool; // prefill; else a step
override TAIL_PARTS: u32;
override TAIL_SLICE: u32;
override GROUP: u32 = N_HEADS / N_KV_HEADS;
override OWN_TILES: u32 = (GROUP + VECTORS * WIDTH - 1) / (VECTORS * WIDTH); // of a sample's rows
override D16: u32 = (HEAD_DIM + 15) / 16 * 16;
override ACROSS: u32 = D16 / 4; // lanes for all dimensions, four each
override TEAMS: u32 = LANES / ACROSS; // that share a step's tokens
override QUARTER: u32 = STEP / 4; // of a step's tokens
override SHARES: u32 = LANES / QUARTER; // lanes that share a token's dimensions: 4 or 2
override WEIGHTS: u32 = VECTORS * D16; // where they begin in `factors`
override BEHIND: u32 = WEIGHTS + VECTORS * STEP; // and what is behind them
// Words of the batch.
const CTX_LEN = 1u;
const CONTEXT = 5u; // where it has the context's blocks
const TAILS = 6u; // and the tails'
const TAIL_STRIDE = 7u;
const LENGTHS = 8u; // the first tail's
const LEAST = -1e30;
const NONE = 0xffffffffu;
const LSE = 0xffffffffu; // in the place of a dimension

/// Of prefill where its results go. Of a step the rest: tiles of all samples' rows, parts of each sample by itself, the first of them,
/// and the first sample, with which states begin.
struct Sizes {
  q_at: u32, q_stride: u32, out_at: u32, out_stride: u32,
  capacity: u32, slice: u32, slices: u32, tiles: u32, own_parts: u32, first_own: u32, first_sample: u32,
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read> kv: array<vec4u>;

/// Queries (vector, dimension); then weights (vector, token). By eights: one check of a place for eight loads, whose code is shorter.
var<workgroup> factors: array<array<Rows, 8>, BEHIND / 8 + select(0u, 1u, VECTORS == 1)>;
var<private> kv_head: u32;
var<private> part: u32;
var<private> end_row: u32; // rows of the tile are below
var<private> table: u32; // where in the batch the blocks are

fn load(at: u32) -> vec4u { return kv[at]; }

fn query(row: u32, d: u32) -> f32 {
  if (row >= end_row || d >= HEAD_DIM) { return 0.0; }
  let at = sizes.q_at + row / GROUP * sizes.q_stride + (kv_head * GROUP + row % GROUP) * HEAD_DIM + d;
  return q[at] * (1.0 / sqrt(f32(HEAD_DIM)));
}

/// Which of a row's partial states a part's is.
fn state_of(row: u32, part: u32) -> u32 {
  return (part * sizes.capacity + row / GROUP - sizes.first_sample) * N_HEADS + kv_head * GROUP + row % GROUP;
}

// head
/// Results go out as partial states; of prefill as they are.
const JOINS = false;
const TILES = false;
@group(0) @binding(4) var<storage, read_write> values: array<f32>;
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;

/// A number of a row's partial state, its log-sum-exp among the dimensions, to be joined with.
fn given(row: u32, part: u32, d: u32) -> f32 { return 0.0; }

/// Two neighbouring dimensions of a row's result; or its log-sum-exp.
fn put(row: u32, d: u32, x: vec2f) {
  if (row >= end_row) { return; }
  if (d == LSE) {
    if (!CAUSAL) { lse[state_of(row, part)] = x.x; }
    return;
  }
  var at = state_of(row, part) * HEAD_DIM;
  if (CAUSAL) { at = sizes.out_at + row / GROUP * sizes.out_stride + (kv_head * GROUP + row % GROUP) * HEAD_DIM; }
  if (d < HEAD_DIM) { values[at + d] = x.x; }
  if (d + 1 < HEAD_DIM) { values[at + d + 1] = x.y; }
}
// end of head

/// Where a token's K begins, in units of 8 elements; its V is 4 D16 units on, and both go on by 32 a tile of dimensions.
fn tile_of(token: u32) -> u32 {
  return (batch[table + token / 32] * N_KV_HEADS + kv_head) * 8 * D16 + token % 32 / 16 * 2 * D16;
}

/// Where a token's K begins, in units of 8 elements; NONE of those from `end` on.
fn keys_of(token: u32, end: u32) -> u32 {
  if (token >= end) { return NONE; }
  return tile_of(token) + token % 16 * 2;
}

/// Tokens of a slice of a tail: whole blocks, so that no tail has more than TAIL_PARTS.
fn tail_slice(length: u32) -> u32 {
  return max(TAIL_SLICE, (length + TAIL_PARTS * 32 - 1) / (TAIL_PARTS * 32) * 32);
}

/// The numbers of a unit.
struct Eight { a: vec2f, b: vec2f, c: vec2f, d: vec2f }

fn eight(x: vec4u) -> Eight {
  return Eight(unpack2x16float(x.x), unpack2x16float(x.y), unpack2x16float(x.z), unpack2x16float(x.w));
}

/// Units of four tokens, or dimensions.
struct Units { x: vec4u, y: vec4u, z: vec4u, w: vec4u }

/// A unit of four tokens' K, given where these begin; zeros of tokens that there are not.
fn keys_at(keys: vec4u, unit: u32) -> Units {
  let at = unit / 2 * 32 + unit % 2;
  return Units(key_at(keys.x, at), key_at(keys.y, at), key_at(keys.z, at), key_at(keys.w, at));
}
fn key_at(key: u32, at: u32) -> vec4u {
  if (key == NONE) { return vec4u(); }
  return load(key + at);
}

/// Eight tokens of four dimensions of V, from a token on.
fn values_at(token: u32, dim: u32) -> Units {
  let at = tile_of(token) + 4 * D16 + token % 16 / 8 + dim * 2;
  return Units(load(at), load(at + 2 * ACROSS), load(at + 4 * ACROSS), load(at + 6 * ACROSS));
}

/// The first n of the eight tokens, then zeros: what lies behind the last may be anything.
fn first_of(units: Units, n: u32) -> Units {
  if (n >= 8) { return units; }
  let at = vec4u(0, 2, 4, 6);
  let mask = select(select(vec4u(0xffff), vec4u(0xffffffff), vec4u(n) > at + 1), vec4u(0), vec4u(n) <= at);
  return Units(units.x & mask, units.y & mask, units.z & mask, units.w & mask);
}

/// Something of all the vectors; and sums of four tokens, or dimensions.
struct Tile { a: Rows, b: Rows, c: Rows, d: Rows }
struct Sums { a: Tile, b: Tile, c: Tile, d: Tile }

fn added(sum: Tile, x: f32, by: Tile) -> Tile {
  var s = sum;
  s.a = fma(Rows(x), by.a, s.a);
  if (VECTORS > 1) { s.b = fma(Rows(x), by.b, s.b); }
  if (VECTORS > 2) {
    s.c = fma(Rows(x), by.c, s.c);
    s.d = fma(Rows(x), by.d, s.d);
  }
  return s;
}

fn factor_at(at: u32) -> Rows { return factors[at / 8][at % 8]; }
fn put_factor(at: u32, x: Rows) { factors[at / 8][at % 8] = x; }

/// What a vector's sums are multiplied by. Of several it has the place of its last dimension's queries, which come back before they are
/// next read: a little more memory, and a processor would hold one workgroup less.
fn scale_place(vector: u32) -> u32 { return select(vector * D16 + D16 - 1, BEHIND, VECTORS == 1); }

/// The queries of one of eight dimensions, or the weights of a token: those of vectors are `stride` apart.
fn tile_at(eight: u32, i: u32, stride: u32) -> Tile {
  var x = Tile(factors[eight][i], Rows(), Rows(), Rows());
  if (VECTORS > 1) { x.b = factors[eight + stride / 8][i]; }
  if (VECTORS > 2) {
    x.c = factors[eight + 2 * stride / 8][i];
    x.d = factors[eight + 3 * stride / 8][i];
  }
  return x;
}

fn put_tile(at: u32, x: Tile) {
  put_factor(at, x.a);
  if (VECTORS > 1) { put_factor(at + STEP, x.b); }
  if (VECTORS > 2) {
    put_factor(at + 2 * STEP, x.c);
    put_factor(at + 3 * STEP, x.d);
  }
}

/// A number of each of four tokens or dimensions, by the same factors: each load of these counts four times.
fn four_added(sums: Sums, x: vec4f, by: Tile) -> Sums {
  return Sums(added(sums.a, x.x, by), added(sums.b, x.y, by), added(sums.c, x.z, by), added(sums.d, x.w, by));
}

/// Eight dimensions of four tokens by their queries, or eight tokens of four dimensions by their weights.
fn units_added(sums: Sums, units: Units, at: u32, stride: u32) -> Sums {
  let x = eight(units.x);
  let y = eight(units.y);
  let z = eight(units.z);
  let w = eight(units.w);
  var s = four_added(sums, vec4f(x.a.x, y.a.x, z.a.x, w.a.x), tile_at(at / 8, 0, stride));
  s = four_added(s, vec4f(x.a.y, y.a.y, z.a.y, w.a.y), tile_at(at / 8, 1, stride));
  s = four_added(s, vec4f(x.b.x, y.b.x, z.b.x, w.b.x), tile_at(at / 8, 2, stride));
  s = four_added(s, vec4f(x.b.y, y.b.y, z.b.y, w.b.y), tile_at(at / 8, 3, stride));
  s = four_added(s, vec4f(x.c.x, y.c.x, z.c.x, w.c.x), tile_at(at / 8, 4, stride));
  s = four_added(s, vec4f(x.c.y, y.c.y, z.c.y, w.c.y), tile_at(at / 8, 5, stride));
  s = four_added(s, vec4f(x.d.x, y.d.x, z.d.x, w.d.x), tile_at(at / 8, 6, stride));
  return four_added(s, vec4f(x.d.y, y.d.y, z.d.y, w.d.y), tile_at(at / 8, 7, stride));
}

fn plus(x: Tile, y: Tile) -> Tile { return Tile(x.a + y.a, x.b + y.b, x.c + y.c, x.d + y.d); }
fn scaled(x: Tile, by: Tile) -> Tile { return Tile(x.a * by.a, x.b * by.b, x.c * by.c, x.d * by.d); }

/// Scores, but of tokens behind the rows' own.
fn seen(token: u32, row: u32, x: Tile) -> Tile {
  if (!CAUSAL) { return x; }
  return Tile(
    up_to(token, row, x.a),
    up_to(token, row + WIDTH, x.b),
    up_to(token, row + 2 * WIDTH, x.c),
    up_to(token, row + 3 * WIDTH, x.d),
  );
}

fn add_score(token: u32, x: Tile) {
  put_tile(WEIGHTS + token, plus(x, tile_at((WEIGHTS + token) / 8, token % 8, STEP)));
}

// head
var<workgroup> partial: array<Rows, VECTORS * SEATS>;

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
  var first_row = id.y * VECTORS * WIDTH;
  var limit = batch[0] * GROUP; // its rows are below
  var number = 0u; // of the part
  var begin = 0u;
  var end = batch[CTX_LEN];
  var is_own = true; // and not a row behind the last
  kv_head = id.x;
  table = batch[CONTEXT];
  if (CAUSAL) {
    end += (min(first_row + VECTORS * WIDTH, limit) - 1) / GROUP + 1;
  } else if (id.y < sizes.slices * sizes.tiles) {
    number = id.y / sizes.tiles;
    first_row = id.y % sizes.tiles * VECTORS * WIDTH; // side by side, so that they find each other's K and V in caches
    begin = number * sizes.slice;
    end = min(begin + sizes.slice, end);
  } else {
    let own = id.y - sizes.slices * sizes.tiles;
    let tile = own / sizes.own_parts;
    let sample = sizes.first_sample + tile / OWN_TILES;
    is_own = sample < batch[0];
    if (!is_own && !TILES) { return; }
    first_row = sample * GROUP + tile % OWN_TILES * VECTORS * WIDTH;
    limit = (sample + 1) * GROUP;
    number = sizes.first_own + own % sizes.own_parts;
    var slice = sizes.slice;
    begin = number * slice;
    if (number >= sizes.slices) {
      end = select(0, batch[LENGTHS + sample], is_own);
      slice = select(tail_slice(end), end, JOINS);
      begin = (number - sizes.slices) * slice;
      table = batch[TAILS] + sample * batch[TAIL_STRIDE];
    }
    end = min(begin + slice, end);
  }
  if (first_row >= limit || (begin >= end && !JOINS)) { return; }
  part = number;
  end_row = limit;
  for (var i = lane; i < D16 * VECTORS; i += LANES) {
    put_factor(i, gather(first_row + i / D16 * WIDTH, i % D16));
  }

  let seat_vector = lane / SEATS;
  let seat = lane % SEATS;
  var top = Rows(LEAST);
  var sum = Rows(0.0);
  let team = lane / ACROSS;
  let dim = lane % ACROSS;
  let share = lane / QUARTER;
  let quarter = share * 4 / SHARES; // its first
  let place = lane % QUARTER;
  var sums = Sums();
  var last_query = Rows();
  if (VECTORS > 1 && lane < VECTORS) { last_query = gather(first_row + lane * WIDTH, D16 - 1); }

  // Where they are joined, the context's parts are the last step, each like a token of known score and values; their scores take the
  // queries' place.
  let parts = select(0u, sizes.slices, JOINS && is_own);
  for (var step = begin; step < end + select(0, STEP, parts > 0); step += STEP) {
    let of_parts = JOINS && step >= end;
    var weights = WEIGHTS + seat_vector * STEP;
    if (of_parts) {
      weights = 0;
      workgroupBarrier();
      if (lane < parts) { put_factor(lane, Rows(given(first_row, lane, LSE))); }
      workgroupBarrier();
    } else {
      // A lane has a token of each quarter of the step, beginning with its own, and a share of their dimensions' units.
      let one = step + place + quarter * QUARTER;
      let two = step + place + (quarter + 1) % 4 * QUARTER;
      let three = step + place + (quarter + 2) % 4 * QUARTER;
      let last = step + place + (quarter + 3) % 4 * QUARTER;
      let keys = vec4u(keys_of(one, end), keys_of(two, end), keys_of(three, end), keys_of(last, end));
      workgroupBarrier();
      if (VECTORS > 1) {
        if (lane < VECTORS) { put_factor(scale_place(lane), last_query); }
        workgroupBarrier();
      }
      // What comes next is on its way meanwhile. In place of a branch, for which compilers copy registers, the last is asked for once more.
      var scores = Sums();
      if (share < D16 / 8) {
        var units = keys_at(keys, share);
        for (var unit = share; unit < D16 / 8; unit += SHARES) {
          let ahead = unit + SHARES;
          let next = keys_at(keys, select(unit, ahead, ahead < D16 / 8));
          scores = units_added(scores, units, unit * 8, D16);
          units = next;
        }
      }
      put_tile(WEIGHTS + one - step, seen(one, first_row, scores.a));
      if (SHARES == 2) { put_tile(WEIGHTS + two - step, seen(two, first_row, scores.b)); }
      workgroupBarrier();
      if (SHARES == 4) {
        add_score(two - step, scores.b);
        workgroupBarrier();
      }
      add_score(three - step, scores.c);
      if (SHARES == 4) { workgroupBarrier(); }
      add_score(last - step, scores.d);
      workgroupBarrier();
    }

    let tokens = select(min(STEP, end - step), parts, of_parts);
    var most = top;
    if (seat_vector < VECTORS) {
      for (var t = seat; t < tokens; t += SEATS) { most = max(most, factor_at(weights + t)); }
    }
    let next = greatest(lane, most);
    if (seat_vector < VECTORS) {
      let shrink = exp(top - next);
      top = next;
      sum *= shrink;
      for (var t = seat; t < tokens; t += SEATS) {
        let weight = exp(factor_at(weights + t) - top);
        put_factor(weights + t, weight);
        sum += weight;
      }
      if (seat == 0) { put_factor(scale_place(seat_vector), shrink); }
    }
    workgroupBarrier();

    // Compilers copy the sums' registers around branches: there is none where every lane is in a team. Teams without tokens ask for what
    // the first one asks for, too.
    if (TEAMS * ACROSS == LANES || team < TEAMS) {
      var shrink = Tile(factor_at(scale_place(0)), Rows(), Rows(), Rows());
      if (VECTORS > 1) { shrink.b = factor_at(scale_place(1)); }
      if (VECTORS > 2) {
        shrink.c = factor_at(scale_place(2));
        shrink.d = factor_at(scale_place(3));
      }
      sums = Sums(scaled(sums.a, shrink), scaled(sums.b, shrink), scaled(sums.c, shrink), scaled(sums.d, shrink));
      if (!of_parts) {
        var units = values_at(step + select(0, team * 8, team * 8 < tokens), dim);
        for (var t = team * 8; t < tokens; t += TEAMS * 8) {
          let ahead = t + TEAMS * 8;
          let next = values_at(step + select(t, ahead, ahead < tokens), dim);
          sums = units_added(sums, first_of(units, tokens - t), WEIGHTS + t, STEP);
          units = next;
        }
      }
    }
  }

  workgroupBarrier();
  let all = total(lane, sum);
  if (seat_vector < VECTORS && seat == 0) {
    put_factor(scale_place(seat_vector), 1.0 / max(all, Rows(1e-30))); // of no tokens at all the result is zero
    scatter(first_row + seat_vector * WIDTH, LSE, top + log(all), Rows()); // which partial states alone have
  }
  // What the teams have of each dimension, joined. One piece of code for all four: fetching code is what a short dispatch waits for.
  for (var i = 0u; i < 4; i++) {
    var own = sums.a;
    if (i == 1) { own = sums.b; }
    if (i == 2) { own = sums.c; }
    if (i == 3) { own = sums.d; }
    for (var other = team; other < parts; other += TEAMS) {
      own.a = fma(Rows(given(first_row, other, i * ACROSS + dim)), factor_at(other), own.a);
    }
    workgroupBarrier();
    put_tile(WEIGHTS + lane, own);
    workgroupBarrier();
    for (var item = lane; item < VECTORS * ACROSS / 2; item += LANES) {
      let vector = item / (ACROSS / 2);
      let two = item % (ACROSS / 2) * 2;
      var one_whole = Rows(0.0);
      var next_whole = Rows(0.0);
      for (var other = 0u; other < TEAMS; other++) {
        let at = WEIGHTS + vector * STEP + other * ACROSS + two;
        one_whole += factor_at(at);
        next_whole += factor_at(at + 1);
      }
      let scale = factor_at(scale_place(vector));
      scatter(first_row + vector * WIDTH, i * ACROSS + two, one_whole * scale, next_whole * scale);
    }
  }
}
