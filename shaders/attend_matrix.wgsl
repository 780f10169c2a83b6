// The context part (paper section 4.2) and prefill by subgroup matrices: all rows of a tile that share a KV head against one slice of
// the context, each K and V loaded once for all of them.
// Knows the batch, the cache's layout (src/webgpu/kv-layout.ts) and that of states (attention.ts).
//
//   q       (rows, q_stride) f32, of it (N_HEADS, HEAD_DIM)
//   values  (parts, capacity, N_HEADS, HEAD_DIM) f32, lse (parts, capacity, N_HEADS); of prefill tiles (tiles.wgsl) of (rows, N_HEADS · HEAD_DIM)
//
// A row here is a token's or sample's query head: row = token · GROUP + head of the group. Workgroup = (KV head, slice, tile of rows),
// in steps of STEP tokens: K · Qᵀ gives scores, one matrix of tokens a subgroup; their exponentials in 16 bits times V give sums, some
// matrices of dimensions a subgroup. Exponentials are of what exceeds a row's reference, which is at most SLACK below the largest
// score so far; only where it moves, the sums so far are scaled.

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

override SUBGROUP: u32; // lanes of a subgroup
override RIGHTS: u32; // 1 or 2: matrices of rows in a tile
override N_HEADS: u32;
override N_KV_HEADS: u32;
override HEAD_DIM: u32; // even
override CAUSAL: bool; // prefill: each row sees the tokens before it and itself
override GROUP: u32 = N_HEADS / N_KV_HEADS;
override D16: u32 = (HEAD_DIM + 15) / 16 * 16;
const SUBGROUPS = 8u;
const STEP: u32 = SUBGROUPS * SIDE;
override LANES: u32 = SUBGROUPS * SUBGROUP;
override ROWS: u32 = RIGHTS * SIDE;
override ACROSS: u32 = D16 / SIDE; // matrices of dimensions, at most 16
override BOTH: bool = ACROSS > SUBGROUPS; // whether a subgroup has two of them
override SHARES: u32 = max(1, SUBGROUPS / ACROSS); // subgroups that share a step's tokens for the same dimensions
const LEAST = -1e30;
const SLACK = 8.0; // e^8 is well within 16 bits

struct Sizes { q_at: u32, q_stride: u32, capacity: u32, slice: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read> q: array<f32>;
@group(0) @binding(3) var<storage, read> kv: array<f16>;
@group(0) @binding(4) var<storage, read_write> values: array<u32>;
@group(0) @binding(5) var<storage, read_write> lse: array<f32>;

var<workgroup> queries: array<f16, ROWS * D16>; // (row, dimension)
var<workgroup> scores: array<f32, ROWS * max(STEP, D16)>; // (row, token); between steps sums (share, row, dimension)
var<workgroup> weights: array<f16, ROWS * STEP>; // (row, token)
var<workgroup> references: array<f32, ROWS>;
var<workgroup> totals: array<f32, ROWS>;
var<workgroup> shrinks: array<f32, ROWS>;
var<workgroup> moved: u32; // the last step in which a reference moved
var<private> kv_head: u32;
var<private> last_token: u32;

/// Where the tile begins that has a token and a dimension of K; that of V is 32 · D16 on.
fn tile_of(token: u32, dim: u32) -> u32 {
  let block = batch[batch[5] + min(token, last_token) / 32];
  return (block * N_KV_HEADS + kv_head) * 64 * D16 + (token % 32 / 16 * (D16 / 16) + dim / 16) * 256;
}

/// SIDE tokens × SIDE dimensions of K.
fn keys(token: u32, dim: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&kv, tile_of(token, dim) + token % 16 * 16 + dim % 16, 16);
}

/// SIDE dimensions × SIDE tokens of V.
fn values_of(token: u32, dim: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&kv, tile_of(token, dim) + 32 * D16 + dim % 16 * 16 + token % 16, 16);
}

/// Scales a subgroup's sums of the dimensions from `dim` on by how far their rows' references moved. All subgroups come here.
fn scaled(sums: Result, share: u32, dim: u32, row: u32, is_used: bool, lane: u32) -> Result {
  let at = (share * ROWS + row) * D16 + dim;
  if (is_used) { subgroupMatrixStore<col_major>(&scores, at, sums, D16); }
  workgroupBarrier();
  if (is_used) {
    for (var i = lane; i < SIDE * SIDE; i += SUBGROUP) { scores[at + i / SIDE * D16 + i % SIDE] *= shrinks[row + i / SIDE]; }
  }
  workgroupBarrier();
  var result = sums;
  if (is_used) { result = subgroupMatrixLoad<Result, col_major>(&scores, at, D16); }
  workgroupBarrier();
  return result;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  kv_head = id.x;
  let subgroup = lane / SUBGROUP;
  let seat = lane % SUBGROUP;
  let first_row = id.z * ROWS;
  let all_rows = batch[0] * GROUP;
  var begin = id.y * sizes.slice;
  var end = min(begin + sizes.slice, batch[1]);
  if (CAUSAL) {
    begin = 0;
    end = batch[1] + (min(first_row + ROWS, all_rows) - 1) / GROUP + 1;
  }
  last_token = end - 1;

  let root = 1.0 / sqrt(f32(HEAD_DIM));
  for (var i = lane; i < ROWS * D16; i += LANES) {
    let row = first_row + i / D16;
    let dim = i % D16;
    var x = 0.0;
    if (row < all_rows && dim < HEAD_DIM) {
      x = q[sizes.q_at + row / GROUP * sizes.q_stride + (kv_head * GROUP + row % GROUP) * HEAD_DIM + dim] * root;
    }
    queries[i] = f16(clamp(x, -65504.0, 65504.0));
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
  var one_0 = Result();
  var one_1 = Result();
  var two_0 = Result();
  var two_1 = Result();

  for (var step = begin; step < end; step += STEP) {
    // 1. Scores of SIDE tokens a subgroup.
    let token = step + subgroup * SIDE;
    var scores_0 = Result();
    var scores_1 = Result();
    for (var d = 0u; d < D16; d += SIDE) {
      let k = keys(token, d);
      scores_0 = subgroupMatrixMultiplyAccumulate(k, subgroupMatrixLoad<Right, col_major>(&queries, d, D16), scores_0);
      if (RIGHTS > 1) {
        scores_1 = subgroupMatrixMultiplyAccumulate(k, subgroupMatrixLoad<Right, col_major>(&queries, SIDE * D16 + d, D16), scores_1);
      }
    }
    subgroupMatrixStore<col_major>(&scores, subgroup * SIDE, scores_0, STEP);
    if (RIGHTS > 1) { subgroupMatrixStore<col_major>(&scores, SIDE * STEP + subgroup * SIDE, scores_1, STEP); }
    workgroupBarrier();

    // 2. Their exponentials, some rows a subgroup.
    for (var row = subgroup; row < ROWS; row += SUBGROUPS) {
      var seen = end;
      if (CAUSAL) { seen = min(end, batch[1] + (first_row + row) / GROUP + 1); }
      var most = LEAST;
      for (var t = seat; t < STEP; t += SUBGROUP) {
        if (step + t < seen) { most = max(most, scores[row * STEP + t]); }
      }
      most = subgroupMax(most);
      var reference = references[row];
      var shrink = 1.0;
      if (most > reference + SLACK) {
        shrink = exp(reference - most);
        reference = most;
      }
      var total = 0.0;
      for (var t = seat; t < STEP; t += SUBGROUP) {
        var weight = 0.0;
        if (step + t < seen) { weight = exp(scores[row * STEP + t] - reference); }
        total += weight;
        weights[row * STEP + t] = f16(weight);
      }
      total = subgroupAdd(total);
      if (seat == 0) {
        if (shrink != 1.0 && step > begin) { moved = step; }
        references[row] = reference;
        shrinks[row] = shrink;
        totals[row] = totals[row] * shrink + total;
      }
    }

    // 3. Sums of values, by matrices of dimensions.
    if (workgroupUniformLoad(&moved) == step && step > begin) {
      one_0 = scaled(one_0, share, dim, 0, has_one, seat);
      if (RIGHTS > 1) { one_1 = scaled(one_1, share, dim, SIDE, has_one, seat); }
      if (BOTH) {
        two_0 = scaled(two_0, 0, dim + SUBGROUPS * SIDE, 0, has_two, seat);
        if (RIGHTS > 1) { two_1 = scaled(two_1, 0, dim + SUBGROUPS * SIDE, SIDE, has_two, seat); }
      }
    }
    if (has_one) {
      for (var t = share * SIDE; t < STEP; t += SHARES * SIDE) {
        if (step + t >= end) { break; }
        let v = values_of(step + t, dim);
        let w = subgroupMatrixLoad<Right, col_major>(&weights, t, STEP);
        one_0 = subgroupMatrixMultiplyAccumulate(v, w, one_0);
        if (has_two) { two_0 = subgroupMatrixMultiplyAccumulate(values_of(step + t, dim + SUBGROUPS * SIDE), w, two_0); }
        if (RIGHTS > 1) {
          let w = subgroupMatrixLoad<Right, col_major>(&weights, SIDE * STEP + t, STEP);
          one_1 = subgroupMatrixMultiplyAccumulate(v, w, one_1);
          if (has_two) { two_1 = subgroupMatrixMultiplyAccumulate(values_of(step + t, dim + SUBGROUPS * SIDE), w, two_1); }
        }
      }
    }
  }

  workgroupBarrier();
  if (has_one) {
    subgroupMatrixStore<col_major>(&scores, share * ROWS * D16 + dim, one_0, D16);
    if (RIGHTS > 1) { subgroupMatrixStore<col_major>(&scores, (share * ROWS + SIDE) * D16 + dim, one_1, D16); }
  }
  if (has_two) {
    subgroupMatrixStore<col_major>(&scores, dim + SUBGROUPS * SIDE, two_0, D16);
    if (RIGHTS > 1) { subgroupMatrixStore<col_major>(&scores, SIDE * D16 + dim + SUBGROUPS * SIDE, two_1, D16); }
  }
  workgroupBarrier();
  for (var i = lane; i < ROWS * (D16 / 2); i += LANES) {
    let here = i / (D16 / 2);
    let d = i % (D16 / 2) * 2;
    let row = first_row + here;
    if (row >= all_rows || d >= HEAD_DIM) { continue; }
    var sum = vec2f(0.0);
    for (var s = 0u; s < SHARES; s++) {
      let at = (s * ROWS + here) * D16 + d;
      sum += vec2f(scores[at], scores[at + 1]);
    }
    sum /= totals[here];
    let head = kv_head * GROUP + row % GROUP;
    if (CAUSAL) {
      let column = head * HEAD_DIM + d;
      let tile = row / GROUP / 16 * ((N_HEADS * HEAD_DIM + 15) / 16) + column / 16;
      values[(tile * 256 + row / GROUP % 16 * 16 + column % 16) / 2] = pack2x16float(sum);
    } else {
      let state = (id.y * sizes.capacity + row / GROUP) * N_HEADS + head;
      values[state * HEAD_DIM + d] = bitcast<u32>(sum.x);
      values[state * HEAD_DIM + d + 1] = bitcast<u32>(sum.y);
      if (d == 0) { lse[state] = references[here] + log(totals[here]); }
    }
  }
}
