// Both parts of a step's attention (paper section 4.2), or prefill, by subgroup matrices: all rows of a tile that share a KV head
// against one slice of the context, each K and V loaded once for all of them; and each sample's rows against a slice of its tail.
// Knows the batch, the cache's layout (src/webgpu/kv-layout.ts) and that of states (attention.ts).
//
//   q       (rows, q_stride) f32, of it (N_HEADS, HEAD_DIM)
//   values  (parts, capacity, N_HEADS, HEAD_DIM) f32, lse (parts, capacity, N_HEADS); of prefill tiles (tiles.wgsl) of (rows, N_HEADS · HEAD_DIM)
//
// A row here is a token's or sample's query head: row = token · GROUP + head of the group. Workgroup x = KV head; of prefill y = tile of
// rows; else y = slice of the context by tile of rows, then slice of a tail by tile of a sample's rows. It goes in steps of STEP tokens:
// K · Qᵀ gives scores, one matrix of tokens a subgroup; their exponentials in 16 bits times V give sums, some matrices of dimensions a
// subgroup. A tile's rows are one matrix or two; K and V are loaded once for both, which go through the same workgroup memory one after the
// other: with twice as much of it a processor holds half as many workgroups.
//
// Scores are in powers of two. Exponentials are of what exceeds a row's reference, which is at most SLACK below the largest score so
// far; only where it moves, the sums so far are scaled.

enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);
diagnostic(off, subgroup_uniformity);

// head
const SIDE: u32 = 16u; // of a subgroup matrix
alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Result = subgroup_matrix_result<f32, 16, 16>;
/// Where a matrix begins in its tile of 16 × 16.
fn in_tile(row: u32, column: u32) -> u32 { return 0u; }
// end of head

override SUBGROUP: u32; // lanes of a subgroup: a half, a quarter or an eighth of a matrix
override N_HEADS: u32;
override N_KV_HEADS: u32;
override HEAD_DIM: u32; // even
override CAUSAL: bool; // prefill: each row sees the tokens before it and itself
override TAIL_PARTS: u32;
override TAIL_SLICE: u32;
override SUBGROUPS: u32; // 8, or 4 where there are four matrices of dimensions
override HALVES: u32; // matrices of rows in a tile: 1 or 2
override GROUP: u32 = N_HEADS / N_KV_HEADS;
override D16: u32 = (HEAD_DIM + 15) / 16 * 16;
override STEP: u32 = SUBGROUPS * SIDE;
override LANES: u32 = SUBGROUPS * SUBGROUP;
override ROWS: u32 = HALVES * SIDE; // in a tile
override SAMPLE_TILES: u32 = (GROUP + ROWS - 1) / ROWS; // of one sample's rows
override ACROSS: u32 = D16 / SIDE; // matrices of dimensions, at most 16
override BOTH: bool = ACROSS > SUBGROUPS; // whether a subgroup has two of them
override SHARES: u32 = max(1, SUBGROUPS / ACROSS); // subgroups that share a step's tokens for the same dimensions
override PLACES: u32 = (SUBGROUPS + ACROSS - 1) / ACROSS; // for all subgroups' sums: some may have none that count
override EACH: u32 = SUBGROUPS / SHARES; // matrices of tokens that each of them has
override MEMBERS: u32 = LANES / SIDE; // lanes of a row's softmax: neighbours in a subgroup
override OF_LANE: u32 = STEP / MEMBERS; // tokens of each: 2, 4 or 8
// Rows in workgroup memory, set off against each other so that loads of neighbouring rows meet different banks.
override QUERY: u32 = D16 + 8;
override WEIGHT: u32 = STEP + 8;
override SCORE: u32 = STEP + 4;
override SUM: u32 = select(D16, 2 * STEP, BOTH) + 4; // with two matrices of dimensions a place for all, also those that do not count
// Words of the batch, as in attend.wgsl.
const CTX_LEN = 1u;
const CONTEXT = 5u;
const TAILS = 6u;
const TAIL_STRIDE = 7u;
const LENGTHS = 8u;
const LEAST = -1e30;
const SLACK = 11.0; // 2^11 is well within 16 bits

/// As in attend.wgsl, but that all samples' parts are those of their tails.
struct Sizes {
  q_at: u32, q_stride: u32, out_at: u32, out_stride: u32,
  capacity: u32, slice: u32, slices: u32, tiles: u32, tail_parts: u32,
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read> kv: array<f16>;
@group(0) @binding(4) var<storage, read_write> values: array<u32>;
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;

// All of these are whole multiples of 16 bytes: matrices are loaded from such places only, and drivers put one behind the other.
var<workgroup> queries: array<f16, ROWS * QUERY>; // (row, dimension)
var<workgroup> scores: array<f32, SIDE * max(SCORE, PLACES * SUM)>; // of one matrix of rows (row, token); or sums (share, row, dimension)
var<workgroup> weights: array<f16, SIDE * WEIGHT>; // of one matrix of rows (row, token)
var<workgroup> references: array<f32, ROWS>; // in the end, as the totals
var<workgroup> totals: array<f32, ROWS>;
var<workgroup> shrinks: array<f32, SIDE>;
var<workgroup> moved: array<u32, 4>; // the first: the last step and matrix of rows in which a reference moved
var<workgroup> blocks: array<u32, 2 * STEP / 32>; // where this step's blocks and the next one's have the KV head

/// Tokens of a slice of a tail: whole blocks, so that no tail has more than TAIL_PARTS.
fn tail_slice(length: u32) -> u32 {
  return max(TAIL_SLICE, (length + TAIL_PARTS * 32 - 1) / (TAIL_PARTS * 32) * 32);
}

/// Where the tile begins that has a token and a dimension of K; that of V is 32 · D16 on.
fn tile_of(token: u32, dim: u32) -> u32 {
  return blocks[token / 32 % (2 * STEP / 32)] + (token % 32 / 16 * (D16 / 16) + dim / 16) * 256;
}

/// SIDE tokens × SIDE dimensions of K, of a token's tiles.
fn keys(tiles: u32, token: u32, dim: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&kv, tiles + dim / 16 * 256 + in_tile(token, dim), 16);
}

/// SIDE dimensions × SIDE tokens of V.
fn values_of(token: u32, dim: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&kv, tile_of(token, dim) + 32 * D16 + in_tile(dim, token), 16);
}

fn query(rows: u32, dim: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&queries, rows * SIDE * QUERY + dim, QUERY);
}

fn weight(t: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&weights, t, WEIGHT);
}

/// Scores of SIDE tokens for one of the tile's matrices of rows. The first eight matrices of keys are loaded.
fn scores_of(
  rows: u32, tiles: u32, token: u32,
  k_0: Left, k_1: Left, k_2: Left, k_3: Left, k_4: Left, k_5: Left, k_6: Left, k_7: Left,
) -> Result {
  var sum = subgroupMatrixMultiplyAccumulate(k_0, query(rows, 0), Result());
  if (ACROSS > 1) { sum = subgroupMatrixMultiplyAccumulate(k_1, query(rows, SIDE), sum); }
  if (ACROSS > 2) { sum = subgroupMatrixMultiplyAccumulate(k_2, query(rows, 2 * SIDE), sum); }
  if (ACROSS > 3) { sum = subgroupMatrixMultiplyAccumulate(k_3, query(rows, 3 * SIDE), sum); }
  if (ACROSS > 4) { sum = subgroupMatrixMultiplyAccumulate(k_4, query(rows, 4 * SIDE), sum); }
  if (ACROSS > 5) { sum = subgroupMatrixMultiplyAccumulate(k_5, query(rows, 5 * SIDE), sum); }
  if (ACROSS > 6) { sum = subgroupMatrixMultiplyAccumulate(k_6, query(rows, 6 * SIDE), sum); }
  if (ACROSS > 7) { sum = subgroupMatrixMultiplyAccumulate(k_7, query(rows, 7 * SIDE), sum); }
  for (var d = 8 * SIDE; d < D16; d += SIDE) { sum = subgroupMatrixMultiplyAccumulate(keys(tiles, token, d), query(rows, d), sum); }
  return sum;
}

/// What a lane knows of its row: the reference, and the sum of its own exponentials.
struct Softmax { reference: f32, total: f32 }

/// Exponentials of a row's scores, of which `seen` count, as weights. Where that moves the reference, `mark` says so.
fn soften(before: Softmax, lane: u32, seen: u32, mark: u32) -> Softmax {
  let row = lane / MEMBERS;
  let member = lane % MEMBERS;
  // A lane has four tokens, or twice or half as many; side by side are those of neighbours, which lie in different banks.
  let tokens = vec4u(member) + vec4u(0, 1, 2, 3) * MEMBERS;
  let at = row * SCORE + member;
  var early = vec4f(scores[at], scores[at + MEMBERS], LEAST, LEAST);
  if (OF_LANE > 2) { early = vec4f(early.xy, scores[at + 2 * MEMBERS], scores[at + 3 * MEMBERS]); }
  var late = vec4f(LEAST);
  if (OF_LANE > 4) {
    let then = at + 4 * MEMBERS;
    late = vec4f(scores[then], scores[then + MEMBERS], scores[then + 2 * MEMBERS], scores[then + 3 * MEMBERS]);
  }
  if (seen < STEP) {
    early = select(vec4f(LEAST), early, tokens < vec4u(seen));
    late = select(vec4f(LEAST), late, tokens + 4 * MEMBERS < vec4u(seen));
  }
  let larger = max(early, late);
  var most = max(max(larger.x, larger.y), max(larger.z, larger.w));
  var now = before;
  if (subgroupAny(most > before.reference + SLACK)) {
    for (var other = 1u; other < MEMBERS; other *= 2) { most = max(most, subgroupShuffleXor(most, other)); }
    var shrink = 1.0;
    if (most > before.reference + SLACK) {
      shrink = exp2(before.reference - most);
      now = Softmax(most, before.total * shrink);
    }
    if (member == 0) {
      shrinks[row] = shrink;
      if (shrink != 1.0) { moved[0] = mark; }
    }
  } else if (member == 0) {
    shrinks[row] = 1.0;
  }
  let to = row * WEIGHT + member;
  let those = exp2(early - now.reference);
  var sums = those;
  weights[to] = f16(those.x);
  weights[to + MEMBERS] = f16(those.y);
  if (OF_LANE > 2) {
    weights[to + 2 * MEMBERS] = f16(those.z);
    weights[to + 3 * MEMBERS] = f16(those.w);
  }
  if (OF_LANE > 4) {
    let those = exp2(late - now.reference);
    sums += those;
    weights[to + 4 * MEMBERS] = f16(those.x);
    weights[to + 5 * MEMBERS] = f16(those.y);
    weights[to + 6 * MEMBERS] = f16(those.z);
    weights[to + 7 * MEMBERS] = f16(those.w);
  }
  now.total += dot(sums, vec4f(1.0));
  return now;
}

/// A row's reference and total, for all lanes.
fn keep(softmax: Softmax, lane: u32, rows: u32) {
  var total = softmax.total;
  for (var other = 1u; other < MEMBERS; other *= 2) { total += subgroupShuffleXor(total, other); }
  let row = rows * SIDE + lane / MEMBERS;
  references[row] = softmax.reference;
  totals[row] = total;
}

/// Where a subgroup's sums go in workgroup memory, those of the first dimensions and those of the second, and which it has.
struct Place { at: u32, second_at: u32, has_one: bool, has_two: bool }

/// A subgroup's sums, scaled by how far their rows' references moved, at their place. All subgroups come here.
fn scaled(sums: Result, at: u32, lane: u32) -> Result {
  subgroupMatrixStore<col_major>(&scores, at, sums, SUM);
  workgroupBarrier();
  for (var i = lane; i < SIDE * SIDE; i += SUBGROUP) { scores[at + i / SIDE * SUM + i % SIDE] *= shrinks[i / SIDE]; }
  workgroupBarrier();
  let result = subgroupMatrixLoad<Result, col_major>(&scores, at, SUM);
  workgroupBarrier();
  return result;
}

/// Adds a step's values times their weights.
fn weighed(
  sums: Result, first: u32, across: u32,
  v_0: Left, v_1: Left, v_2: Left, v_3: Left, v_4: Left, v_5: Left, v_6: Left, v_7: Left,
) -> Result {
  var sum = subgroupMatrixMultiplyAccumulate(v_0, weight(first), sums);
  if (EACH > 1) { sum = subgroupMatrixMultiplyAccumulate(v_1, weight(first + across), sum); }
  if (EACH > 2) { sum = subgroupMatrixMultiplyAccumulate(v_2, weight(first + 2 * across), sum); }
  if (EACH > 3) { sum = subgroupMatrixMultiplyAccumulate(v_3, weight(first + 3 * across), sum); }
  if (EACH > 4) { sum = subgroupMatrixMultiplyAccumulate(v_4, weight(first + 4 * across), sum); }
  if (EACH > 5) { sum = subgroupMatrixMultiplyAccumulate(v_5, weight(first + 5 * across), sum); }
  if (EACH > 6) { sum = subgroupMatrixMultiplyAccumulate(v_6, weight(first + 6 * across), sum); }
  if (EACH > 7) { sum = subgroupMatrixMultiplyAccumulate(v_7, weight(first + 7 * across), sum); }
  return sum;
}

/// The same for the dimensions of a subgroup's second matrix.
fn weighed_two(sums: Result, step: u32, dim: u32) -> Result {
  var sum = sums;
  for (var t = 0u; t < STEP; t += SIDE) { sum = subgroupMatrixMultiplyAccumulate(values_of(step + t, dim), weight(t), sum); }
  return sum;
}

/// Tokens of a step that a row sees.
fn seen_of(row: u32, step: u32, end: u32) -> u32 {
  var seen = min(STEP, end - step);
  if (CAUSAL) { seen = min(seen, max(step, batch[CTX_LEN] + row / GROUP + 1) - step); }
  return seen;
}

/// Results of one of the tile's matrices of rows.
fn put(place: Place, rows: u32, one: Result, two: Result, lane: u32, kv_head: u32, part: u32, first_row: u32, end_row: u32) {
  let upper = rows * SIDE;
  workgroupBarrier();
  if (place.has_one) { subgroupMatrixStore<col_major>(&scores, place.at, one, SUM); }
  if (place.has_two) { subgroupMatrixStore<col_major>(&scores, place.second_at, two, SUM); }
  workgroupBarrier();
  for (var i = lane; i < SIDE * (D16 / 2); i += LANES) {
    let here = i / (D16 / 2);
    let d = i % (D16 / 2) * 2;
    let row = first_row + upper + here;
    if (row >= end_row || d >= HEAD_DIM) { continue; }
    var sum = vec2f(0.0);
    for (var s = 0u; s < SHARES; s++) {
      let at = (s * SIDE + here) * SUM + d;
      sum += vec2f(scores[at], scores[at + 1]);
    }
    sum /= totals[upper + here];
    let head = kv_head * GROUP + row % GROUP;
    if (CAUSAL) {
      let column = head * HEAD_DIM + d;
      let tile = row / GROUP / 16 * ((N_HEADS * HEAD_DIM + 15) / 16) + column / 16;
      // V kept within 16 bits, and weights that are rounded, may come to a little more than 16 bits hold.
      sum = clamp(sum, vec2f(-65504.0), vec2f(65504.0));
      values[(tile * 256 + row / GROUP % 16 * 16 + column % 16) / 2] = pack2x16float(sum);
    } else {
      let state = (part * sizes.capacity + row / GROUP) * N_HEADS + head;
      values[state * HEAD_DIM + d] = bitcast<u32>(sum.x);
      values[state * HEAD_DIM + d + 1] = bitcast<u32>(sum.y);
      if (d == 0) { lse[state] = (references[upper + here] + log2(totals[upper + here])) * 0.6931471805599453; }
    }
  }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let kv_head = id.x;
  let subgroup = lane / SUBGROUP;
  let seat = lane % SUBGROUP;
  var first_row = id.y * ROWS;
  var end_row = batch[0] * GROUP;
  var part = 0u;
  var begin = 0u;
  var end = batch[CTX_LEN];
  var table = batch[CONTEXT]; // where in the batch the blocks are
  if (CAUSAL) {
    end += (min(first_row + ROWS, end_row) - 1) / GROUP + 1;
  } else if (id.y < sizes.slices * sizes.tiles) {
    part = id.y / sizes.tiles;
    first_row = id.y % sizes.tiles * ROWS; // side by side, so that they find each other's K and V in caches
    if (first_row >= end_row) { return; }
    begin = part * sizes.slice;
    end = min(begin + sizes.slice, end);
  } else {
    let own = id.y - sizes.slices * sizes.tiles;
    let tile = own / sizes.tail_parts;
    let sample = tile / SAMPLE_TILES;
    if (sample >= batch[0]) { return; }
    first_row = sample * GROUP + tile % SAMPLE_TILES * ROWS;
    end_row = (sample + 1) * GROUP;
    let length = batch[LENGTHS + sample];
    begin = own % sizes.tail_parts * tail_slice(length);
    end = min(begin + tail_slice(length), length);
    part = sizes.slices + own % sizes.tail_parts;
    table = batch[TAILS] + sample * batch[TAIL_STRIDE];
    if (begin >= end) { return; }
  }
  // Blocks beyond the last are the last again.
  let last_block = (end - 1) / 32;
  if (lane < STEP / 32) {
    let block = begin / 32 + lane;
    blocks[block % (2 * STEP / 32)] = (batch[table + min(block, last_block)] * N_KV_HEADS + kv_head) * 64 * D16;
  }

  let root = 1.4426950408889634 / sqrt(f32(HEAD_DIM)); // and log2(e)
  for (var i = lane * 2; i < ROWS * D16; i += LANES * 2) {
    let row = first_row + i / D16;
    let dim = i % D16;
    var x = vec2f(0.0);
    if (row < end_row && dim < HEAD_DIM) {
      let at = sizes.q_at + row / GROUP * sizes.q_stride + (kv_head * GROUP + row % GROUP) * HEAD_DIM + dim;
      x = clamp(vec2f(q[at], q[at + 1]) * root, vec2f(-65504.0), vec2f(65504.0));
    }
    queries[i / D16 * QUERY + dim] = f16(x.x);
    queries[i / D16 * QUERY + dim + 1] = f16(x.y);
  }
  workgroupBarrier();

  let share = min(subgroup / ACROSS, SHARES - 1); // of a step's tokens, for the dimensions of one matrix, or two
  let dim = subgroup % ACROSS * SIDE;
  let second_dim = dim + SUBGROUPS * SIDE;
  let place = Place(
    subgroup / ACROSS * SIDE * SUM + dim, second_dim, subgroup / ACROSS < SHARES, BOTH && subgroup + SUBGROUPS < ACROSS,
  );
  let has_lower = HALVES == 2 && first_row + SIDE < end_row; // whether the tile's second matrix has rows
  // Sums of the upper rows and of the lower.
  var one = Result();
  var two = Result();
  var lower_one = Result();
  var lower_two = Result();
  var upper = Softmax(LEAST, 0.0);
  var lower = Softmax(LEAST, 0.0);

  for (var step = begin; step < end; step += STEP) {
    // 1. Scores of SIDE tokens a subgroup.
    let token = step + subgroup * SIDE;
    let tiles = tile_of(token, 0);
    let k_0 = keys(tiles, token, 0);
    var k_1: Left;
    var k_2: Left;
    var k_3: Left;
    var k_4: Left;
    var k_5: Left;
    var k_6: Left;
    var k_7: Left;
    if (ACROSS > 1) { k_1 = keys(tiles, token, SIDE); }
    if (ACROSS > 2) { k_2 = keys(tiles, token, 2 * SIDE); }
    if (ACROSS > 3) { k_3 = keys(tiles, token, 3 * SIDE); }
    if (ACROSS > 4) { k_4 = keys(tiles, token, 4 * SIDE); }
    if (ACROSS > 5) { k_5 = keys(tiles, token, 5 * SIDE); }
    if (ACROSS > 6) { k_6 = keys(tiles, token, 6 * SIDE); }
    if (ACROSS > 7) { k_7 = keys(tiles, token, 7 * SIDE); }
    let scored = scores_of(0, tiles, token, k_0, k_1, k_2, k_3, k_4, k_5, k_6, k_7);
    var lower_scored: Result;
    if (has_lower) { lower_scored = scores_of(1, tiles, token, k_0, k_1, k_2, k_3, k_4, k_5, k_6, k_7); }
    // The values, which arrive while weights are made.
    let first = share * SIDE;
    let across = SHARES * SIDE;
    let v_0 = values_of(step + first, dim);
    var v_1: Left;
    var v_2: Left;
    var v_3: Left;
    var v_4: Left;
    var v_5: Left;
    var v_6: Left;
    var v_7: Left;
    if (EACH > 1) { v_1 = values_of(step + first + across, dim); }
    if (EACH > 2) { v_2 = values_of(step + first + 2 * across, dim); }
    if (EACH > 3) { v_3 = values_of(step + first + 3 * across, dim); }
    if (EACH > 4) { v_4 = values_of(step + first + 4 * across, dim); }
    if (EACH > 5) { v_5 = values_of(step + first + 5 * across, dim); }
    if (EACH > 6) { v_6 = values_of(step + first + 6 * across, dim); }
    if (EACH > 7) { v_7 = values_of(step + first + 7 * across, dim); }
    subgroupMatrixStore<col_major>(&scores, subgroup * SIDE, scored, SCORE);
    workgroupBarrier();

    // 2. Exponentials of the upper rows; and where the next step's blocks are.
    if (lane < STEP / 32) {
      let block = (step + STEP) / 32 + lane;
      blocks[block % (2 * STEP / 32)] = (batch[table + min(block, last_block)] * N_KV_HEADS + kv_head) * 64 * D16;
    }
    upper = soften(upper, lane, seen_of(first_row + lane / MEMBERS, step, end), step + 1);

    // 3. Their sums of values, by matrices of dimensions.
    if (workgroupUniformLoad(&moved[0]) == step + 1 && step > begin) {
      one = scaled(one, place.at, seat);
      if (BOTH) { two = scaled(two, place.second_at, seat); }
    }
    one = weighed(one, first, across, v_0, v_1, v_2, v_3, v_4, v_5, v_6, v_7);
    if (place.has_two) { two = weighed_two(two, step, second_dim); }

    // 4. The same for the lower rows.
    if (has_lower) {
      subgroupMatrixStore<col_major>(&scores, subgroup * SIDE, lower_scored, SCORE);
      workgroupBarrier();
      lower = soften(lower, lane, seen_of(first_row + SIDE + lane / MEMBERS, step, end), step + 2);
      if (workgroupUniformLoad(&moved[0]) == step + 2 && step > begin) {
        lower_one = scaled(lower_one, place.at, seat);
        if (BOTH) { lower_two = scaled(lower_two, place.second_at, seat); }
      }
      lower_one = weighed(lower_one, first, across, v_0, v_1, v_2, v_3, v_4, v_5, v_6, v_7);
      if (place.has_two) { lower_two = weighed_two(lower_two, step, second_dim); }
    }
  }

  keep(upper, lane, 0);
  put(place, 0, one, two, lane, kv_head, part, first_row, end_row);
  if (has_lower) {
    keep(lower, lane, 1);
    put(place, 1, lower_one, lower_two, lane, kv_head, part, first_row, end_row);
  }
}
