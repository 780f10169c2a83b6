// Joins a row's partial states, of disjoint tokens, into its result: values weighted by exp(lse - total lse).
// Knows the batch and the layout of states (attention.ts).
//
//   values  (parts, capacity, N_HEADS, HEAD_DIM)    lse  (parts, capacity, N_HEADS)
//   out     (rows, out_stride) f32, or tiles (tiles.wgsl) of (rows, N_HEADS · HEAD_DIM)
//
// Workgroup = (head, row). The context's slices are the first parts, then those of the row's own tail. The parts are dealt out to
// TEAMS teams of lanes, and in a team each lane has some pairs of dimensions. Loads wait neither for one another nor for the row's
// length: up to `most` parts are loaded, of which those that the row has count.

override N_HEADS: u32;
override HEAD_DIM: u32;
override TAIL_PARTS: u32;
override TAIL_SLICE: u32;
override MOST_PARTS: u32; // of context and tail, at most six a team
override TILES: bool; // then HEAD_DIM is even, and N_HEADS · HEAD_DIM a multiple of 16

const TEAMS = 4u;
override TEAM: u32 = select(64u, 32u, HEAD_DIM <= 64);
override LANES: u32 = TEAMS * TEAM;
const LENGTHS = 8u; // where in the batch the tails' lengths begin

struct Sizes { first_row: u32, capacity: u32, slices: u32, most: u32, out_at: u32, out_stride: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read> lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;

var<workgroup> tops: array<f32, MOST_PARTS>; // log-sum-exps
var<workgroup> weights: array<f32, MOST_PARTS>; // not yet divided by their sum
var<workgroup> sums: array<vec2f, LANES>;

/// Tokens of a slice of a tail: whole blocks, so that no tail has more than TAIL_PARTS.
fn tail_slice(length: u32) -> u32 {
  return max(TAIL_SLICE, (length + TAIL_PARTS * 32 - 1) / (TAIL_PARTS * 32) * 32);
}

/// Two neighbouring numbers of a part's state; the second is 0 where the head ends with the first. Beyond the last part anything.
fn pair(part: u32, state: u32, d: u32) -> vec2f {
  var two = vec2f(0.0);
  if (part < sizes.most && d < HEAD_DIM) {
    let at = (part * sizes.capacity * N_HEADS + state) * HEAD_DIM + d;
    two = vec2f(values[at], select(0.0, values[at + min(1, HEAD_DIM - 1 - d)], d + 1 < HEAD_DIM));
  }
  return two;
}

/// The sum with a part's values, where the row has that part. No branch, which compilers might move the loads into.
fn joined(sum: vec2f, part: u32, parts: u32, two: vec2f, total: f32) -> vec2f {
  return select(sum, fma(vec2f(weights[part] / total), two, sum), part < parts);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = sizes.first_row + id.y;
  let state = id.y * N_HEADS + id.x;
  // Rows behind the last have no tail, and leave nothing.
  let is_row = row < batch[0];
  let length = select(0u, batch[LENGTHS + row], is_row);
  let slice = tail_slice(length);
  let parts = sizes.slices + (length + slice - 1) / slice;
  let team = lane / TEAM;
  var own = 0.0;
  if (lane < sizes.most) { own = lse[lane * sizes.capacity * N_HEADS + state]; }

  var total = 0.0;
  for (var first = 0u; first < HEAD_DIM; first += 2 * TEAM) {
    let d = first + lane % TEAM * 2;
    let a = pair(team, state, d);
    let b = pair(team + TEAMS, state, d);
    let c = pair(team + 2 * TEAMS, state, d);
    let e = pair(team + 3 * TEAMS, state, d);
    let f = pair(team + 4 * TEAMS, state, d);
    let g = pair(team + 5 * TEAMS, state, d);
    if (first == 0) {
      if (lane < MOST_PARTS) { tops[lane] = own; }
      workgroupBarrier();
      var top = -1e30;
      for (var part = 0u; part < parts; part++) { top = max(top, tops[part]); }
      if (lane < parts) { weights[lane] = exp(own - top); }
      workgroupBarrier();
      for (var part = 0u; part < parts; part++) { total += weights[part]; }
    }
    var sum = joined(vec2f(0.0), team, parts, a, total);
    sum = joined(sum, team + TEAMS, parts, b, total);
    sum = joined(sum, team + 2 * TEAMS, parts, c, total);
    sum = joined(sum, team + 3 * TEAMS, parts, e, total);
    sum = joined(sum, team + 4 * TEAMS, parts, f, total);
    sum = joined(sum, team + 5 * TEAMS, parts, g, total);
    sums[lane] = sum;
    workgroupBarrier();
    if (is_row && team == 0 && d < HEAD_DIM) {
      // A row of no tokens at all is zero.
      for (var other = 1u; other < TEAMS; other++) { sum += sums[other * TEAM + lane]; }
      let column = id.x * HEAD_DIM + d;
      if (TILES) {
        let tile = row / 16 * (N_HEADS * HEAD_DIM / 16) + column / 16;
        out[(tile * 256 + row % 16 * 16 + column % 16) / 2] = pack2x16float(clamp(sum, vec2f(-65504.0), vec2f(65504.0)));
      } else {
        let to = sizes.out_at + row * sizes.out_stride + column;
        out[to] = bitcast<u32>(sum.x);
        if (d + 1 < HEAD_DIM) { out[to + 1] = bitcast<u32>(sum.y); }
      }
    }
    workgroupBarrier();
  }
}
