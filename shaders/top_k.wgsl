// The k best of each row of logits, from what top_k_groups.wgsl found: the k groups with the largest maxima hold them all, since
// a token outside has k maxima before it. Groups are runs of ids, so this is true of ties too, which go to the lower id.
// Then the tokens of draws that go on beyond the k best, so that nobody need read all logits for them.
// Knows nothing of how edits change a logit. Twin of assembly/cpu/top_k.ts, and of the walk in assembly/text/sample.ts.
//
//   logits, requests, stats  as in top_k_groups.wgsl. A row whose requests are zero has no results. A row's second request: its first
//            draw, draws, where in results their tokens go, and raw logits. A draw: 1 - u as 64 bits after the point, high word
//            first, 2 unused; u is its random number
//   keys     (rows, keys_stride) maxima of `groups`, then room for the keys of the k best groups' tokens
//   results  (rows, 8 + 3 k) key of the largest raw logit, sum of exp(raw - largest) f32, both of the adjusted ones, the target's
//            raw logit, 3 unused; ids (k), adjusted (k) f32, raw (k) f32, best first; then tokens (draws)
//            or NONE, raw (draws) f32
//
// One workgroup a row.

const LANES = 256u;
const STRIPE = 16u; // sums are taken by stripes of lanes, then over the stripes: few barriers
const GROUP = 32u;
const MOST = 128u; // k at most
const PASSES = 8u;

const EXPONENT = 0x7f800000u;
const MINUS_INFINITY = 0xff800000u;
const BROKEN = 0xffffffffu;
const IMPOSSIBLE = 0x007fffffu;
const NONE = 0xffffffffu;
const MARGIN = 6e-5; // of the mass beyond the k best: more than sums are off here and in the sampler

struct Sizes { vocab: u32, stride: u32, first: u32, groups: u32, chunks: u32, keys_stride: u32, k: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> logits: array<u32>;
@group(0) @binding(2) var<storage, read> requests: array<vec4u>;
@group(0) @binding(3) var<storage, read_write> keys: array<u32>;
@group(0) @binding(4) var<storage, read> stats: array<vec4u>;
@group(0) @binding(5) var<storage, read_write> results: array<u32>;

/// Of counts: the first at which they add up to what is wanted, how much of it is wanted, and the whole of it; 0 where none is.
struct Found { index: u32, wanted: u32, having: u32 }

var<workgroup> counts: array<atomic<u32>, LANES>; // by digit
var<workgroup> runs: array<u32, STRIPE>; // sums of counts, 16 after 16
var<workgroup> found: Found;
var<workgroup> n_chosen: atomic<u32>;
var<workgroup> chosen: array<vec2u, MOST>; // key, and what is left of 2³² - 1 after the index
var<workgroup> chosen_groups: array<u32, MOST>; // ids rising
var<workgroup> tops: array<vec2u, LANES>;
var<workgroup> stripe_tops: array<vec2u, STRIPE>;
var<workgroup> sums: array<vec2f, LANES>;
var<workgroup> share_beyond: u32; // of all mass, what lies beyond the k best at most, in 2^-32
var<workgroup> n_left: u32;

fn key_of(bits: u32) -> u32 {
  if ((bits & EXPONENT) == EXPONENT && bits != MINUS_INFINITY) { return BROKEN; }
  return select(bits | 0x80000000u, ~bits, bits > 0x80000000u);
}

fn value_of(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key ^ 0x80000000u, key >= 0x80000000u));
}

fn raw(row: u32, id: u32) -> u32 {
  return logits[(sizes.first + row) * sizes.stride + id];
}

/// Bits of a token's logit after edits, given those before.
fn edited(row: u32, id: u32, bits: u32) -> u32 {
  let request = requests[2u * row];
  var low = request.x;
  var high = request.x + request.y;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (requests[middle].x < id) { low = middle + 1u; } else { high = middle; }
  }
  if (low < request.x + request.y) {
    let edit = requests[low];
    if (edit.x == id) { return edit.y; }
  }
  return bits;
}

fn adjusted(row: u32, id: u32) -> u32 {
  return edited(row, id, raw(row, id));
}

fn before(a: vec2u, b: vec2u) -> bool {
  return a.x > b.x || (a.x == b.x && a.y > b.y);
}

/// A lane's next four keys of keys[at … at + count - 1]: loads that need not wait for one another. Beyond the last anything.
fn keys_at(at: u32, i: u32, count: u32) -> vec4u {
  let places = at + min(vec4u(i) + vec4u(0u, LANES, 2u * LANES, 3u * LANES), vec4u(count - 1u));
  return vec4u(keys[places.x], keys[places.y], keys[places.z], keys[places.w]);
}

/// The lanes' sums added up, in an order that is always the same.
fn add_up(lane: u32, own: vec2f) -> vec2f {
  var sum = own;
  sums[lane] = sum;
  workgroupBarrier();
  if (lane < STRIPE) {
    for (var i = lane + STRIPE; i < LANES; i += STRIPE) { sum += sums[i]; }
    sums[lane] = sum;
  }
  workgroupBarrier();
  sum = sums[0];
  for (var i = 1u; i < STRIPE; i++) { sum += sums[i]; }
  return sum;
}

/// Looks up in `counts`, which lanes have added to since all were 0, where they add up to `wanted`.
fn look_up(lane: u32, wanted: u32) -> Found {
  if (lane == 0u) { found = Found(0u, 0u, 0u); }
  workgroupBarrier();
  if (lane < STRIPE) {
    var run = 0u;
    for (var i = 0u; i < LANES / STRIPE; i++) { run += atomicLoad(&counts[lane * STRIPE + i]); }
    runs[lane] = run;
  }
  workgroupBarrier();
  var better = 0u;
  for (var i = 0u; i < lane / STRIPE; i++) { better += runs[i]; }
  for (var i = lane & ~(STRIPE - 1u); i < lane; i++) { better += atomicLoad(&counts[i]); }
  let having = atomicLoad(&counts[lane]);
  if (better < wanted && better + having >= wanted) { found = Found(lane, wanted - better, having); }
  return workgroupUniformLoad(&found);
}

/// Puts the `wanted` best of keys[at … at + count - 1] into `chosen`, in no order, ties to the lower index: digit by digit from
/// the highest down, of the key and then of the index, until all that share the digits so far are wanted. wanted ≤ count.
fn choose(lane: u32, at: u32, count: u32, all_wanted: u32) {
  var prefix = vec2u(0u);
  var mask = vec2u(0u);
  var wanted = all_wanted;
  for (var round = select(0u, PASSES, count == wanted); round < PASSES; round++) {
    let of_index = round >= PASSES / 2u;
    let shift = 24u - 8u * (round % 4u);
    atomicStore(&counts[lane], 0u);
    workgroupBarrier();
    for (var i = lane; i < count; i += 4u * LANES) {
      let four = keys_at(at, i, count);
      for (var j = 0u; j < 4u; j++) {
        let item = vec2u(four[j], ~(i + j * LANES));
        let digit = (select(item.x, item.y, of_index) >> shift) & 255u;
        if (i + j * LANES < count && all((item & mask) == prefix)) { atomicAdd(&counts[255u - digit], 1u); }
      }
    }
    let now = look_up(lane, wanted);
    wanted = now.wanted;
    let digits = vec2u(select(255u, 0u, of_index), select(0u, 255u, of_index)) << vec2u(shift);
    mask |= digits;
    prefix |= digits & (vec2u(255u - now.index) << vec2u(shift));
    if (now.wanted == now.having) { break; }
  }
  if (lane == 0u) { atomicStore(&n_chosen, 0u); }
  workgroupBarrier();
  for (var i = lane; i < count; i += 4u * LANES) {
    let four = keys_at(at, i, count);
    for (var j = 0u; j < 4u; j++) {
      let item = vec2u(four[j], ~(i + j * LANES));
      if (i + j * LANES < count && !before(prefix, item & mask)) {
        let place = atomicAdd(&n_chosen, 1u);
        if (place < MOST) { chosen[place] = item; }
      }
    }
  }
  workgroupBarrier();
}

/// A token's mass in whole steps: with these, sums are the same in any order.
fn mass(key: u32, top: u32, slope: f32, steps: f32) -> u32 {
  return u32(exp(max((value_of(key) - value_of(top)) * slope, -100.0)) * steps + 0.5);
}

/// Of the tokens after `last` the one at which their masses, added up from the least likely on, exceed `rest`; or NONE. Digit by
/// digit as in `choose`, by mass instead of number, until those that share the digits are few. `steps`: those of the largest
/// logit's mass; all masses after `last` and their roundings come to less than 2³². A mass below half a step is none.
fn walk(lane: u32, row: u32, last: vec2u, rest: u32, top: u32, slope: f32, steps: f32) -> u32 {
  var prefix = vec2u(0u);
  var mask = vec2u(0u);
  var wanted = rest + 1u;
  for (var round = 0u; round < PASSES; round++) {
    let of_id = round >= PASSES / 2u;
    let shift = 24u - 8u * (round % 4u);
    atomicStore(&counts[lane], 0u);
    if (lane == 0u) { atomicStore(&n_chosen, 0u); }
    workgroupBarrier();
    for (var i = lane; i < sizes.vocab; i += 4u * LANES) {
      let ids = min(vec4u(i) + vec4u(0u, LANES, 2u * LANES, 3u * LANES), vec4u(sizes.vocab - 1u));
      let four = vec4u(raw(row, ids.x), raw(row, ids.y), raw(row, ids.z), raw(row, ids.w));
      for (var j = 0u; j < 4u; j++) {
        let id = i + j * LANES;
        let item = vec2u(key_of(edited(row, id, four[j])), ~id);
        if (id < sizes.vocab && item.x > IMPOSSIBLE && before(last, item) && all((item & mask) == prefix)) {
          let digit = (select(item.x, item.y, of_id) >> shift) & 255u;
          atomicAdd(&counts[digit], mass(item.x, top, slope, steps));
          // They may be few enough once two digits are known.
          if (round >= 2u) {
            let place = atomicAdd(&n_chosen, 1u);
            if (place < MOST) { chosen[place] = item; }
          }
        }
      }
    }
    let now = look_up(lane, wanted);
    if (now.having == 0u) { return NONE; }
    if (lane == 0u) { n_left = atomicLoad(&n_chosen); }
    let left = workgroupUniformLoad(&n_left);
    if (round >= 2u && left <= MOST) {
      if (lane < left) {
        var less = 0u;
        for (var i = 0u; i < left; i++) {
          if (before(chosen[lane], chosen[i])) { less += mass(chosen[i].x, top, slope, steps); }
        }
        if (less < wanted && less + mass(chosen[lane].x, top, slope, steps) >= wanted) { found.index = ~chosen[lane].y; }
      }
      return workgroupUniformLoad(&found).index;
    }
    wanted = now.wanted;
    let digits = vec2u(select(255u, 0u, of_id), select(0u, 255u, of_id)) << vec2u(shift);
    mask |= digits;
    prefix |= digits & (vec2u(now.index) << vec2u(shift));
  }
  return ~prefix.y;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x;
  let k = sizes.k;
  let out = row * (8u + 3u * k);
  let request = requests[2u * row];
  if (request.x == 0u) { return; }
  let slope = bitcast<f32>(request.z);

  // 1. The chunks' largest, and their sums set off against it.
  var top = vec2u(0u);
  for (var i = lane; i < sizes.chunks; i += LANES) { top = max(top, stats[row * sizes.chunks + i].xz); }
  tops[lane] = top;
  workgroupBarrier();
  if (lane < STRIPE) {
    for (var i = lane; i < LANES; i += STRIPE) { top = max(top, tops[i]); }
    stripe_tops[lane] = top;
  }
  workgroupBarrier();
  for (var i = 0u; i < STRIPE; i++) { top = max(top, stripe_tops[i]); }
  var sum = vec2f(0.0);
  for (var i = lane; i < sizes.chunks; i += LANES) {
    let chunk = stats[row * sizes.chunks + i];
    let below = vec2f(value_of(chunk.x) - value_of(top.x), (value_of(chunk.z) - value_of(top.y)) * slope);
    let share = exp(max(below, vec2f(-100.0))) * bitcast<vec2f>(chunk.yw);
    sum += select(vec2f(0.0), share, chunk.xz > vec2u(IMPOSSIBLE));
  }
  sum = add_up(lane, sum);
  if (lane == 0u) {
    let both = bitcast<vec2u>(sum);
    results[out] = top.x;
    results[out + 1u] = both.x;
    results[out + 2u] = top.y;
    results[out + 3u] = both.y;
    results[out + 4u] = 0u;
    if (request.w < sizes.vocab) { results[out + 4u] = raw(row, request.w); }
  }

  // 2. The k best groups, in the order of their ids, so that an index stands for an id in ties.
  let maxima = row * sizes.keys_stride;
  let n_groups = min(k, sizes.groups);
  choose(lane, maxima, sizes.groups, n_groups);
  if (lane < n_groups) {
    var rank = 0u;
    for (var i = 0u; i < n_groups; i++) { rank += u32(chosen[i].y > chosen[lane].y); }
    chosen_groups[rank] = ~chosen[lane].y;
  }
  workgroupBarrier();

  // 3. Their tokens.
  let tokens = maxima + sizes.groups;
  for (var i = lane; i < n_groups * GROUP; i += LANES) {
    let id = chosen_groups[i / GROUP] * GROUP + i % GROUP;
    var key = 0u;
    if (id < sizes.vocab) { key = key_of(adjusted(row, id)); }
    keys[tokens + i] = key;
  }
  storageBarrier();
  choose(lane, tokens, n_groups * GROUP, k);

  // 4. Best first.
  if (lane < k) {
    var rank = 0u;
    for (var i = 0u; i < k; i++) { rank += u32(before(chosen[i], chosen[lane])); }
    let index = ~chosen[lane].y;
    let id = chosen_groups[index / GROUP] * GROUP + index % GROUP;
    let at = out + 8u + rank;
    results[at] = id;
    results[at + k] = adjusted(row, id);
    results[at + 2u * k] = raw(row, id);
  }

  // 5. Draws beyond them. Steps are 2^-31 of all mass, halved for each time that the share beyond leaves room for it.
  let draws = requests[2u * row + 1u];
  if (draws.y == 0u) { return; }
  storageBarrier();
  var kept = 0.0;
  if (lane < k) {
    let below = value_of(key_of(results[out + 8u + k + lane])) - value_of(top.y);
    kept = exp(max(below * slope, -100.0));
  }
  kept = add_up(lane, vec2f(kept)).x;
  if (lane == 0u) { share_beyond = u32(clamp(1.0 - kept / sum.y + MARGIN, MARGIN, 0.9999999) * 4294967296.0); }
  let beyond = workgroupUniformLoad(&share_beyond);
  let shift = countLeadingZeros(beyond);
  let steps = 2147483648.0 * f32(1u << shift) / sum.y;
  let last = vec2u(key_of(results[out + 8u + 2u * k - 1u]), ~results[out + 8u + k - 1u]);
  for (var i = 0u; i < draws.y; i++) {
    let draw = requests[draws.x + i];
    var id = NONE;
    if (draw.x <= beyond) {
      let rest = ((draw.x << shift) | ((draw.y >> (31u - shift)) >> 1u)) >> 1u;
      id = walk(lane, row, last, rest, top.y, slope, steps);
    }
    if (lane == 0u) {
      results[draws.z + i] = id;
      if (id != NONE) { results[draws.w + i] = raw(row, id); }
    }
  }
}
