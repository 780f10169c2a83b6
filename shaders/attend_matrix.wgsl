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
// subgroup. Exponentials are of what exceeds a row's reference, which is at most SLACK below the largest score so far; only where it
// moves, the sums so far are scaled.

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
// end of head

override SUBGROUP: u32; // lanes of a subgroup, at least SIDE / 8
override N_HEADS: u32;
override N_KV_HEADS: u32;
override HEAD_DIM: u32; // even
override CAUSAL: bool; // prefill: each row sees the tokens before it and itself
override TAIL_PARTS: u32;
override TAIL_SLICE: u32;
override GROUP: u32 = N_HEADS / N_KV_HEADS;
override D16: u32 = (HEAD_DIM + 15) / 16 * 16;
const SUBGROUPS = 8u;
const STEP: u32 = SUBGROUPS * SIDE;
override LANES: u32 = SUBGROUPS * SUBGROUP;
const ROWS = SIDE; // in a tile: with more of them a processor holds fewer workgroups, and waits more
override SAMPLE_TILES: u32 = (GROUP + ROWS - 1) / ROWS; // of one sample's rows
override ACROSS: u32 = D16 / SIDE; // matrices of dimensions, at most 16
override BOTH: bool = ACROSS > SUBGROUPS; // whether a subgroup has two of them
override SHARES: u32 = max(1, SUBGROUPS / ACROSS); // subgroups that share a step's tokens for the same dimensions
override EACH: u32 = SUBGROUPS / SHARES; // matrices of tokens that each of them has
override MEMBERS: u32 = LANES / ROWS; // lanes of a row's softmax: neighbours in a subgroup
override OF_LANE: u32 = STEP / MEMBERS; // tokens of each: 2, 4 or 8
// Rows in workgroup memory, set off against each other so that loads of neighbouring rows meet different banks.
override QUERY: u32 = D16 + 8;
override WEIGHT: u32 = STEP + 8;
override SCORE: u32 = STEP + 4;
override SUM: u32 = D16 + 4;
// Words of the batch, as in attend.wgsl.
const CTX_LEN = 1u;
const CONTEXT = 5u;
const TAILS = 6u;
const TAIL_STRIDE = 7u;
const LENGTHS = 8u;
const LEAST = -1e30;
const SLACK = 8.0; // e^8 is well within 16 bits

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
var<workgroup> scores: array<f32, ROWS * max(SCORE, SHARES * SUM)>; // (row, token); between steps sums (share, row, dimension)
var<workgroup> weights: array<f16, ROWS * WEIGHT>; // (row, token)
var<workgroup> references: array<f32, ROWS>;
var<workgroup> totals: array<f32, ROWS>;
var<workgroup> shrinks: array<f32, ROWS>;
var<workgroup> moved: array<u32, 4>; // the first: the last step in which a reference moved
var<workgroup> blocks: array<u32, 2 * STEP / 32>; // where this step's blocks and the next one's have the KV head

/// Tokens of a slice of a tail: whole blocks, so that no tail has more than TAIL_PARTS.
fn tail_slice(length: u32) -> u32 {
  return max(TAIL_SLICE, (length + TAIL_PARTS * 32 - 1) / (TAIL_PARTS * 32) * 32);
}

/// Where the tile begins that has a token and a dimension of K; that of V is 32 · D16 on.
fn tile_of(token: u32, dim: u32) -> u32 {
  return blocks[token / 32 % (2 * STEP / 32)] + (token % 32 / 16 * (D16 / 16) + dim / 16) * 256;
}

/// SIDE tokens × SIDE dimensions of K, of a token's tiles. Dimensions beyond the last are the last again.
fn keys(tiles: u32, token: u32, dim: u32) -> Left {
  let d = min(dim, D16 - SIDE);
  return subgroupMatrixLoad<Left, row_major>(&kv, tiles + d / 16 * 256 + token % 16 * 16 + d % 16, 16);
}

/// SIDE dimensions × SIDE tokens of V. Tokens beyond the step's last are the last again.
fn values_of(step: u32, t: u32, dim: u32) -> Left {
  let token = step + min(t, STEP - SIDE);
  return subgroupMatrixLoad<Left, row_major>(&kv, tile_of(token, dim) + 32 * D16 + dim % 16 * 16 + token % 16, 16);
}

fn query(dim: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&queries, min(dim, D16 - SIDE), QUERY);
}

fn weight(t: u32) -> Right {
  return subgroupMatrixLoad<Right, col_major>(&weights, min(t, STEP - SIDE), WEIGHT);
}

/// Scales a subgroup's sums of the dimensions from `dim` on by how far their rows' references moved. All subgroups come here.
fn scaled(sums: Result, share: u32, dim: u32, is_used: bool, lane: u32) -> Result {
  let at = share * ROWS * SUM + dim;
  if (is_used) { subgroupMatrixStore<col_major>(&scores, at, sums, SUM); }
  workgroupBarrier();
  if (is_used) {
    for (var i = lane; i < SIDE * SIDE; i += SUBGROUP) { scores[at + i / SIDE * SUM + i % SIDE] *= shrinks[i / SIDE]; }
  }
  workgroupBarrier();
  var result = sums;
  if (is_used) { result = subgroupMatrixLoad<Result, col_major>(&scores, at, SUM); }
  workgroupBarrier();
  return result;
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

  let root = 1.0 / sqrt(f32(HEAD_DIM));
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
  for (var i = lane; i < ROWS; i += LANES) {
    references[i] = LEAST;
    totals[i] = 0.0;
  }
  workgroupBarrier();

  let share = subgroup / ACROSS; // of a step's tokens, for the dimensions of one matrix, or two
  let dim = subgroup % ACROSS * SIDE;
  let has_one = share < SHARES;
  let has_two = BOTH && subgroup + SUBGROUPS < ACROSS;
  var one = Result();
  var two = Result();

  var next_0: Left;
  var next_1: Left;
  var next_2: Left;
  var next_3: Left;
  var next_4: Left;
  var next_5: Left;
  var next_6: Left;
  var next_7: Left;
  let first_tiles = tile_of(begin + subgroup * SIDE, 0);
  next_0 = keys(first_tiles, begin + subgroup * SIDE, 0);
  next_1 = keys(first_tiles, begin + subgroup * SIDE, SIDE);
  next_2 = keys(first_tiles, begin + subgroup * SIDE, 2 * SIDE);
  next_3 = keys(first_tiles, begin + subgroup * SIDE, 3 * SIDE);
  if (D16 > 4 * SIDE) {
    next_4 = keys(first_tiles, begin + subgroup * SIDE, 4 * SIDE);
    next_5 = keys(first_tiles, begin + subgroup * SIDE, 5 * SIDE);
    next_6 = keys(first_tiles, begin + subgroup * SIDE, 6 * SIDE);
    next_7 = keys(first_tiles, begin + subgroup * SIDE, 7 * SIDE);
  }
  for (var step = begin; step < end; step += STEP) {
    // 1. Scores of SIDE tokens a subgroup.
    let token = step + subgroup * SIDE;
    var scored = Result();
    let tiles = tile_of(token, 0);
    // Eight loads at a time, the next ones before these are used, so that few wait for one another.
    for (var d = 0u; d < D16; d += 8 * SIDE) {
      let k_0 = next_0;
      let k_1 = next_1;
      let k_2 = next_2;
      let k_3 = next_3;
      let k_4 = next_4;
      let k_5 = next_5;
      let k_6 = next_6;
      let k_7 = next_7;
      if (d + 8 * SIDE < D16) {
        next_0 = keys(tiles, token, d + 8 * SIDE);
        next_1 = keys(tiles, token, d + 9 * SIDE);
        next_2 = keys(tiles, token, d + 10 * SIDE);
        next_3 = keys(tiles, token, d + 11 * SIDE);
        next_4 = keys(tiles, token, d + 12 * SIDE);
        next_5 = keys(tiles, token, d + 13 * SIDE);
        next_6 = keys(tiles, token, d + 14 * SIDE);
        next_7 = keys(tiles, token, d + 15 * SIDE);
      }
      scored = subgroupMatrixMultiplyAccumulate(k_0, query(d), scored);
      if (d + SIDE < D16) { scored = subgroupMatrixMultiplyAccumulate(k_1, query(d + SIDE), scored); }
      if (d + 2 * SIDE < D16) { scored = subgroupMatrixMultiplyAccumulate(k_2, query(d + 2 * SIDE), scored); }
      if (d + 3 * SIDE < D16) { scored = subgroupMatrixMultiplyAccumulate(k_3, query(d + 3 * SIDE), scored); }
      if (d + 4 * SIDE < D16) { scored = subgroupMatrixMultiplyAccumulate(k_4, query(d + 4 * SIDE), scored); }
      if (d + 5 * SIDE < D16) { scored = subgroupMatrixMultiplyAccumulate(k_5, query(d + 5 * SIDE), scored); }
      if (d + 6 * SIDE < D16) { scored = subgroupMatrixMultiplyAccumulate(k_6, query(d + 6 * SIDE), scored); }
      if (d + 7 * SIDE < D16) { scored = subgroupMatrixMultiplyAccumulate(k_7, query(d + 7 * SIDE), scored); }
    }
    // The first values, which arrive while weights are made.
    let first = share * SIDE;
    let across = SHARES * SIDE;
    var v_0 = values_of(step, first, dim);
    var v_1 = values_of(step, first + across, dim);
    var v_2 = values_of(step, first + 2 * across, dim);
    var v_3 = values_of(step, first + 3 * across, dim);
    var v_4: Left;
    var v_5: Left;
    var v_6: Left;
    var v_7: Left;
    if (EACH > 4) {
      v_4 = values_of(step, first + 4 * across, dim);
      v_5 = values_of(step, first + 5 * across, dim);
      v_6 = values_of(step, first + 6 * across, dim);
      v_7 = values_of(step, first + 7 * across, dim);
    }
    subgroupMatrixStore<col_major>(&scores, subgroup * SIDE, scored, SCORE);
    workgroupBarrier();

    // 2. Their exponentials, some rows a subgroup; and where the next step's blocks are.
    if (lane < STEP / 32) {
      let block = (step + STEP) / 32 + lane;
      blocks[block % (2 * STEP / 32)] = (batch[table + min(block, last_block)] * N_KV_HEADS + kv_head) * 64 * D16;
    }
    let seats = lane / MEMBERS;
    let row = seats % 2 * 4 + seats / 2 % 4 + seats / 8 * 8; // rows four apart lie in other banks
    let member = lane % MEMBERS;
    var seen = min(STEP, end - step);
    if (CAUSAL) { seen = min(seen, max(step, batch[CTX_LEN] + (first_row + row) / GROUP + 1) - step); }
    // A lane has four tokens, or twice as many, and keeps their scores: loads that do not wait for one another.
    let at = row * SCORE + member;
    let tokens = vec4u(member) + vec4u(0, 1, 2, 3) * MEMBERS;
    let some = vec4f(scores[at], scores[at + MEMBERS], scores[at + 2 * MEMBERS], scores[at + 3 * MEMBERS]);
    let early = select(vec4f(LEAST), some, tokens < vec4u(seen));
    var late = vec4f(LEAST);
    if (OF_LANE > 4) {
      let then = at + 4 * MEMBERS;
      let others = vec4f(scores[then], scores[then + MEMBERS], scores[then + 2 * MEMBERS], scores[then + 3 * MEMBERS]);
      late = select(late, others, tokens + 4 * MEMBERS < vec4u(seen));
    }
    let larger = max(early, late);
    var most = max(max(larger.x, larger.y), max(larger.z, larger.w));
    for (var other = 1u; other < MEMBERS; other *= 2) { most = max(most, subgroupShuffleXor(most, other)); }
    var reference = references[row];
    var shrink = 1.0;
    if (most > reference + SLACK) {
      shrink = exp(reference - most);
      reference = most;
    }
    let to = row * WEIGHT + member;
    let those = exp(early - reference);
    var sums = those;
    weights[to] = f16(those.x);
    weights[to + MEMBERS] = f16(those.y);
    if (OF_LANE > 2) {
      weights[to + 2 * MEMBERS] = f16(those.z);
      weights[to + 3 * MEMBERS] = f16(those.w);
    }
    if (OF_LANE > 4) {
      let those = exp(late - reference);
      sums += those;
      weights[to + 4 * MEMBERS] = f16(those.x);
      weights[to + 5 * MEMBERS] = f16(those.y);
      weights[to + 6 * MEMBERS] = f16(those.z);
      weights[to + 7 * MEMBERS] = f16(those.w);
    }
    var total = dot(sums, vec4f(1.0));
    for (var other = 1u; other < MEMBERS; other *= 2) { total += subgroupShuffleXor(total, other); }
    if (member == 0) {
      if (shrink != 1.0 && step > begin) { moved[0] = step; }
      references[row] = reference;
      shrinks[row] = shrink;
      totals[row] = totals[row] * shrink + total;
    }

    // 3. Sums of values, by matrices of dimensions.
    if (workgroupUniformLoad(&moved[0]) == step && step > begin) {
      one = scaled(one, share, dim, has_one, seat);
      if (BOTH) { two = scaled(two, 0, dim + SUBGROUPS * SIDE, has_two, seat); }
    }
    if (step + STEP < end) {
      // The next step's first keys.
      let token = step + STEP + subgroup * SIDE;
      let tiles = tile_of(token, 0);
      next_0 = keys(tiles, token, 0);
      next_1 = keys(tiles, token, SIDE);
      next_2 = keys(tiles, token, 2 * SIDE);
      next_3 = keys(tiles, token, 3 * SIDE);
      if (D16 > 4 * SIDE) {
        next_4 = keys(tiles, token, 4 * SIDE);
        next_5 = keys(tiles, token, 5 * SIDE);
        next_6 = keys(tiles, token, 6 * SIDE);
        next_7 = keys(tiles, token, 7 * SIDE);
      }
    }
    one = subgroupMatrixMultiplyAccumulate(v_0, weight(first), one);
    if (EACH > 1) { one = subgroupMatrixMultiplyAccumulate(v_1, weight(first + across), one); }
    if (EACH > 2) { one = subgroupMatrixMultiplyAccumulate(v_2, weight(first + 2 * across), one); }
    if (EACH > 3) { one = subgroupMatrixMultiplyAccumulate(v_3, weight(first + 3 * across), one); }
    if (EACH > 4) { one = subgroupMatrixMultiplyAccumulate(v_4, weight(first + 4 * across), one); }
    if (EACH > 5) { one = subgroupMatrixMultiplyAccumulate(v_5, weight(first + 5 * across), one); }
    if (EACH > 6) { one = subgroupMatrixMultiplyAccumulate(v_6, weight(first + 6 * across), one); }
    if (EACH > 7) { one = subgroupMatrixMultiplyAccumulate(v_7, weight(first + 7 * across), one); }
    if (has_two) {
      for (var t = 0u; t < STEP; t += SIDE) {
        let v = values_of(step, t, dim + SUBGROUPS * SIDE);
        two = subgroupMatrixMultiplyAccumulate(v, weight(t), two);
      }
    }
  }

  workgroupBarrier();
  if (has_one) {
    subgroupMatrixStore<col_major>(&scores, share * ROWS * SUM + dim, one, SUM);
  }
  if (has_two) {
    subgroupMatrixStore<col_major>(&scores, dim + SUBGROUPS * SIDE, two, SUM);
  }
  workgroupBarrier();
  for (var i = lane; i < ROWS * (D16 / 2); i += LANES) {
    let here = i / (D16 / 2);
    let d = i % (D16 / 2) * 2;
    let row = first_row + here;
    if (row >= end_row || d >= HEAD_DIM) { continue; }
    var sum = vec2f(0.0);
    for (var s = 0u; s < SHARES; s++) {
      let at = (s * ROWS + here) * SUM + d;
      sum += vec2f(scores[at], scores[at + 1]);
    }
    sum /= totals[here];
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
      if (d == 0) { lse[state] = references[here] + log(totals[here]); }
    }
  }
}
