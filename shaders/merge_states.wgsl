// Joins a row's partial states, of disjoint tokens, into its result: values weighted by exp(lse - total lse).
// Knows the batch and the layout of states (attention.ts).
//
//   values  (parts, capacity, N_HEADS, HEAD_DIM)    lse  (parts, capacity, N_HEADS)
//   out     (rows, out_stride) f32, or tiles (tiles.wgsl) of (rows, N_HEADS · HEAD_DIM)
//
// The context's slices are the first parts, then those of the row's own tail. A workgroup is four teams of lanes or eight, and in a team
// each lane has a pair of dimensions. A team joins all of a head's parts, six at most: workgroup = (four heads, row). Or teams share a
// head, take turns at its parts, and join what they have: workgroup = (head, row). Where a team has fewer lanes than a head has pairs,
// workgroups next to each other have blocks of them. Loads wait neither for one another nor for the row's length: up to `most` parts
// are loaded, of which those that the row has count.

override N_HEADS: u32;
override HEAD_DIM: u32;
override TAIL_PARTS: u32;
override TAIL_SLICE: u32;
override SHARING: u32; // teams that share a head: 1, 4 or 8
override TEAM: u32; // lanes of one
override TILES: bool; // then HEAD_DIM is even, and N_HEADS · HEAD_DIM a multiple of 16

override SHARED: bool = SHARING > 1;
override TEAMS: u32 = max(4, SHARING);
override LANES: u32 = TEAMS * TEAM;
override BLOCKS: u32 = (HEAD_DIM + 2 * TEAM - 1) / (2 * TEAM); // of a head's dimensions
const LENGTHS = 8u; // where in the batch the tails' lengths begin

struct Sizes { first_row: u32, capacity: u32, slices: u32, most: u32, out_at: u32, out_stride: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read> lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;

/// Of teams that share a head: the largest log-sum-exp and the sum of the weights that go by it; lane by lane sums of weighed values.
var<workgroup> tops: array<f32, TEAMS>;
var<workgroup> totals: array<f32, TEAMS>;
var<workgroup> sums: array<vec2f, LANES>;

const LEAST = -1e30;

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

/// A part's log-sum-exp; that of no tokens where the row has no such part.
fn lse_of(part: u32, parts: u32, state: u32) -> f32 {
  var own = LEAST;
  if (part < sizes.most) { own = lse[part * sizes.capacity * N_HEADS + state]; }
  return select(LEAST, own, part < parts);
}

/// The sum with a part's values, where the row has that part. No branch, which compilers might move the loads into.
fn joined(sum: vec2f, part: u32, parts: u32, two: vec2f, weight: f32) -> vec2f {
  return select(sum, fma(vec2f(weight), two, sum), part < parts);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  let team = lane / TEAM;
  let head = select(id.x / BLOCKS * TEAMS + team, id.x / BLOCKS, SHARED);
  let d = (id.x % BLOCKS * TEAM + lane % TEAM) * 2;
  let row = sizes.first_row + id.y;
  let state = id.y * N_HEADS + min(head, N_HEADS - 1);
  // Rows behind the last have no tail, and leave nothing but zeros in tiles: what was there may be f32, and products read it as 16 bits.
  let is_own = row < batch[0] && head < N_HEADS;
  let length = select(0u, batch[LENGTHS + row], is_own);
  let slice = tail_slice(length);
  let parts = sizes.slices + (length + slice - 1) / slice;

  let p = vec3u(0, 1, 2) * SHARING + select(0u, team, SHARED);
  let q = p + 3 * SHARING;
  let l = vec3f(lse_of(p.x, parts, state), lse_of(p.y, parts, state), lse_of(p.z, parts, state));
  let m = vec3f(lse_of(q.x, parts, state), lse_of(q.y, parts, state), lse_of(q.z, parts, state));
  let both = max(l, m);
  let top = max(max(both.x, both.y), both.z);
  let v = select(vec3f(0.0), exp(l - top), p < vec3u(parts));
  let w = select(vec3f(0.0), exp(m - top), q < vec3u(parts));
  let total = v.x + v.y + v.z + w.x + w.y + w.z;
  let a = pair(p.x, state, d);
  let b = pair(p.y, state, d);
  let c = pair(p.z, state, d);
  let e = pair(q.x, state, d);
  let f = pair(q.y, state, d);
  let g = pair(q.z, state, d);
  var sum = joined(vec2f(0.0), p.x, parts, a, v.x);
  sum = joined(sum, p.y, parts, b, v.y);
  sum = joined(sum, p.z, parts, c, v.z);
  sum = joined(sum, q.x, parts, e, w.x);
  sum = joined(sum, q.y, parts, f, w.y);
  sum = joined(sum, q.z, parts, g, w.z);
  var whole = total;
  if (SHARED) {
    sums[lane] = sum;
    if (lane % TEAM == 0) {
      tops[team] = top;
      totals[team] = total;
    }
    workgroupBarrier();
    var highest = tops[0];
    for (var other = 1u; other < TEAMS; other++) { highest = max(highest, tops[other]); }
    sum = vec2f(0.0);
    whole = 0.0;
    for (var other = 0u; other < TEAMS; other++) {
      let weight = exp(tops[other] - highest);
      sum = fma(vec2f(weight), sums[other * TEAM + lane % TEAM], sum);
      whole = fma(weight, totals[other], whole);
    }
  }
  if ((is_own || (TILES && head < N_HEADS)) && d < HEAD_DIM && (team == 0 || !SHARED)) {
    // A row of no tokens at all is zero.
    sum = select(vec2f(0.0), sum / max(whole, 1e-30), is_own);
    let column = head * HEAD_DIM + d;
    if (TILES) {
      let tile = row / 16 * (N_HEADS * HEAD_DIM / 16) + column / 16;
      out[(tile * 256 + row % 16 * 16 + column % 16) / 2] = pack2x16float(clamp(sum, vec2f(-65504.0), vec2f(65504.0)));
    } else {
      let to = sizes.out_at + row * sizes.out_stride + column;
      out[to] = bitcast<u32>(sum.x);
      if (d + 1 < HEAD_DIM) { out[to + 1] = bitcast<u32>(sum.y); }
    }
  }
}
