// Joins a row's partial states, of disjoint tokens, into its result: values weighted by exp(lse - total lse).
// Knows the batch and the layout of states (attention.ts).
//
//   values  (parts, capacity, N_HEADS, HEAD_DIM)    lse  (parts, capacity, N_HEADS)
//   out     (rows, out_stride) f32, or tiles (tiles.wgsl) of (rows, N_HEADS · HEAD_DIM)
//
// Workgroup = (head, row). The context's slices are the first parts, then those of the row's own tail. The parts are dealt out to
// TEAMS teams of lanes, and in a team each lane has some pairs of dimensions: loads do not wait for one another.

override N_HEADS: u32;
override HEAD_DIM: u32;
override TAIL_PARTS: u32;
override TAIL_SLICE: u32;
override TILES: bool; // then HEAD_DIM is even, and N_HEADS · HEAD_DIM a multiple of 16

const LANES = 256u;
const TEAMS = 4u;
const TEAM = LANES / TEAMS;
const MOST_PARTS = 64u;

struct Sizes { first_row: u32, capacity: u32, slice: u32, slices: u32, out_at: u32, out_stride: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read> lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;

var<workgroup> weights: array<f32, MOST_PARTS>; // log-sum-exps, then shares
var<workgroup> sums: array<vec2f, LANES>;

/// Tokens of a slice of a tail: whole blocks, so that no tail has more than TAIL_PARTS.
fn tail_slice(length: u32) -> u32 {
  return max(TAIL_SLICE, (length + TAIL_PARTS * 32 - 1) / (TAIL_PARTS * 32) * 32);
}

/// Two neighbouring numbers of a state; the second is 0 where the head ends with the first.
fn pair(at: u32, d: u32) -> vec2f {
  return vec2f(values[at + d], select(0.0, values[at + min(d + 1, HEAD_DIM - 1)], d + 1 < HEAD_DIM));
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = sizes.first_row + id.y;
  if (row >= batch[0]) { return; }
  let length = batch[batch[6] + row];
  let slice = tail_slice(length);
  let parts = sizes.slices + (length + slice - 1) / slice;
  let state = id.y * N_HEADS + id.x;
  let stride = sizes.capacity * N_HEADS;

  if (lane < parts) { weights[lane] = lse[lane * stride + state]; }
  workgroupBarrier();
  var top = -1e30;
  for (var part = 0u; part < parts; part++) { top = max(top, weights[part]); }
  var total = 0.0;
  for (var part = 0u; part < parts; part++) { total += exp(weights[part] - top); }
  workgroupBarrier();
  if (lane < parts) { weights[lane] = exp(weights[lane] - top) / total; }
  workgroupBarrier();

  let team = lane / TEAM;
  for (var first = 0u; first < HEAD_DIM; first += 2 * TEAM) {
    let d = first + lane % TEAM * 2;
    var sum = vec2f(0.0);
    if (d < HEAD_DIM) {
      var part = team;
      for (; part + TEAMS < parts; part += 2 * TEAMS) {
        let a = pair((part * stride + state) * HEAD_DIM, d);
        let b = pair(((part + TEAMS) * stride + state) * HEAD_DIM, d);
        sum = fma(vec2f(weights[part + TEAMS]), b, fma(vec2f(weights[part]), a, sum));
      }
      if (part < parts) { sum = fma(vec2f(weights[part]), pair((part * stride + state) * HEAD_DIM, d), sum); }
    }
    sums[lane] = sum;
    workgroupBarrier();
    if (team == 0 && d < HEAD_DIM) {
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
