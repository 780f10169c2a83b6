// The k best of each row of logits, from what top_k_groups.wgsl found. Of the largest keys of LIST parts of a row the k-th is a bound
// that k tokens reach; so the k best do, and mostly few besides: each is compared with all. Where more do, as where many are alike,
// the k-th best is found first, digit by digit, and is the bound. Ties go to the lower id.
// Then the tokens of draws that go on beyond the k best, so that nobody need read all logits for them.
// Knows nothing of how edits change a logit. Twin of assembly/cpu/top_k.ts, and of the walk in assembly/text/sample.ts.
//
//   logits, requests, stats  as in top_k_groups.wgsl. A row whose requests are zero has no results. A row's second request: its first
//            draw, draws, where in results their tokens go, and raw logits. A draw: 1 - u as 64 bits after the point, high word
//            first, 2 unused; u is its random number
//   keys     (rows, keys_stride) maxima of `groups`, then room for masses (BINS)
//   results  (rows, 8 + 3 k) key of the largest raw logit, sum of exp(raw - largest) f32, both of the adjusted ones, the target's
//            raw logit, as `drawn`, 2 unused; ids (k), adjusted (k) f32, raw (k) f32, best first; then tokens (draws)
//            or NONE, raw (draws) f32
//   drawn    (rows) the token of the row's first draw, within the k best or beyond; the best where there is none
//
// One workgroup a row.

override LANES: u32 = 256u; // a power of two from LIST to BINS
const STRIPE = 16u; // sums are taken by stripes of lanes, then over the stripes: few barriers
const GROUP = 32u;
const BINS = 2048u; // values of a digit
const SPANS = 32u; // of lanes, whose counts are added up first
const FIRST_OF_KEY = 2u; // of a token's digits, the places' being those before
const PLACES = BINS * BINS - 1u; // the last of them: two digits
const LIST = 256u; // of so few each is compared with all; a power of two above k

const EXPONENT = 0x7f800000u;
const MINUS_INFINITY = 0xff800000u;
const BROKEN = 0xffffffffu;
const IMPOSSIBLE = 0x007fffffu;
const NONE = 0xffffffffu;
const MARGIN = 6e-5; // of the mass beyond the k best: more than sums are off here and in the sampler

struct Sizes { vocab: u32, stride4: u32, first: u32, groups: u32, chunks: u32, keys_stride: u32, k: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> logits: array<vec4u>;
@group(0) @binding(2) var<storage, read> requests: array<vec4u>;
@group(0) @binding(3) var<storage, read_write> keys: array<u32>;
@group(0) @binding(4) var<storage, read> stats: array<vec4u>;
@group(0) @binding(5) var<storage, read_write> results: array<u32>;
@group(0) @binding(6) var<storage, read_write> drawn: array<u32>;

/// Of counts: the first at which they add up to what is wanted, how much of it is wanted, and the whole of it; 0 where none is.
struct Found { index: u32, wanted: u32, having: u32 }

/// What is the same for all draws of a row: its last candidate, the scale of masses, and that of places. Beyond `reach` below the
/// last candidate all masses are 0. `steps`: those of the largest logit's mass. A walk that is `whole` has nothing else but its row:
/// it is of all tokens that reach the bound, each of which weighs 1.
struct Walk { row: u32, last_id: u32, last: f32, top: f32, slope: f32, steps: f32, reach: f32, scale: f32, whole: bool }

/// A token's digits, from the highest on, and which of them are known: place, key, and what is left of 2³² - 1 after the id.
struct Prefix { digits: vec3u, mask: vec3u }
const ANY = Prefix(vec3u(0u), vec3u(0u));

var<workgroup> counts: array<atomic<u32>, BINS>; // by digit
var<workgroup> runs: array<u32, SPANS>; // sums of counts, span after span
var<workgroup> found: Found;
var<workgroup> n_chosen: atomic<u32>;
var<workgroup> chosen: array<vec2u, LIST>; // key, and what is left of 2³² - 1 after the id
var<workgroup> n_groups: atomic<u32>;
var<workgroup> chosen_groups: array<u32, LIST>;
var<workgroup> bound: vec2u; // as in `chosen`: at least k tokens reach it
var<workgroup> last: vec2u; // as in `chosen`: the last candidate
var<workgroup> by_lane: array<vec2u, LANES>; // what lanes add up, or else have in common
var<workgroup> stripe_tops: array<vec2u, STRIPE>;
var<workgroup> share_beyond: u32; // of all mass, what lies beyond the k best at most, in 2^-32
var<workgroup> n_taken: u32; // n_chosen, for all lanes
var<workgroup> drawn_first: u32; // the token of the first draw, if that is within the k best; else the best

fn key_of(bits: u32) -> u32 {
  if ((bits & EXPONENT) == EXPONENT && bits != MINUS_INFINITY) { return BROKEN; }
  return select(bits | 0x80000000u, ~bits, bits > 0x80000000u);
}

fn value_of(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key ^ 0x80000000u, key >= 0x80000000u));
}

fn raw(row: u32, id: u32) -> u32 {
  return logits[(sizes.first + row) * sizes.stride4 + id / 4u][id % 4u];
}

/// Where in the requests a token's edit is; NONE where it has none.
fn edit_of(row: u32, id: u32) -> u32 {
  let request = requests[2u * row];
  var low = request.x;
  var high = request.x + request.y;
  while (low < high) {
    let middle = (low + high) / 2u;
    if (requests[middle].x < id) { low = middle + 1u; } else { high = middle; }
  }
  if (low < request.x + request.y && requests[low].x == id) { return low; }
  return NONE;
}

/// Bits of a token's logit after edits.
fn adjusted(row: u32, id: u32) -> u32 {
  let edit = edit_of(row, id);
  if (edit != NONE) { return requests[edit].y; }
  return raw(row, id);
}

/// Four tokens' raw logits; beyond the row's end impossible ones.
fn four_at(row: u32, i: u32) -> vec4u {
  var four = vec4u(MINUS_INFINITY);
  if (i < sizes.stride4) { four = logits[(sizes.first + row) * sizes.stride4 + i]; }
  return four;
}

/// A lane's next four of these: loads that need not wait for one another.
fn fours_at(row: u32, i: u32) -> array<vec4u, 4> {
  return array<vec4u, 4>(
    four_at(row, i), four_at(row, i + LANES), four_at(row, i + 2u * LANES), four_at(row, i + 3u * LANES));
}

fn before(a: vec2u, b: vec2u) -> bool {
  return a.x > b.x || (a.x == b.x && a.y > b.y);
}

/// A lane's next four keys of keys[at … at + count - 1]: loads that need not wait for one another. Beyond the last 0.
fn keys_at(at: u32, i: u32, count: u32) -> vec4u {
  let indices = vec4u(i) + vec4u(0u, LANES, 2u * LANES, 3u * LANES);
  let places = at + min(indices, vec4u(count - 1u));
  let four = vec4u(keys[places.x], keys[places.y], keys[places.z], keys[places.w]);
  return select(vec4u(0u), four, indices < vec4u(count));
}

/// The sums that the first `count` lanes have in `by_lane`, added up in an order that is always the same.
fn add_up(lane: u32, count: u32) -> vec2f {
  workgroupBarrier();
  if (lane < STRIPE) {
    var own = vec2f(0.0);
    for (var i = lane; i < count; i += STRIPE) { own += bitcast<vec2f>(by_lane[i]); }
    by_lane[lane] = bitcast<vec2u>(own);
  }
  workgroupBarrier();
  var sum = bitcast<vec2f>(by_lane[0]);
  for (var i = 1u; i < STRIPE; i++) { sum += bitcast<vec2f>(by_lane[i]); }
  return sum;
}

/// How many tokens lanes have taken in, for all of them.
fn count_taken(lane: u32) -> u32 {
  workgroupBarrier();
  if (lane == 0u) { n_taken = atomicLoad(&n_chosen); }
  return workgroupUniformLoad(&n_taken);
}

fn clear(lane: u32) {
  for (var i = lane; i < BINS; i += LANES) { atomicStore(&counts[i], 0u); }
  if (lane == 0u) { atomicStore(&n_chosen, 0u); }
  workgroupBarrier();
}

/// Of the five digits of a key and an id (below 2²²) where in its word one begins.
fn shift_of(round: u32) -> u32 {
  return select(11u * (4u - round), 21u - min(11u * round, 21u), round < 3u);
}

/// Looks up in `counts`, which lanes have added to since all were 0, where they add up to `wanted`.
fn look_up(lane: u32, wanted: u32) -> Found {
  if (lane == 0u) { found = Found(0u, 0u, 0u); }
  workgroupBarrier();
  let first = lane * (BINS / LANES);
  var own = 0u;
  for (var i = 0u; i < BINS / LANES; i++) { own += atomicLoad(&counts[first + i]); }
  by_lane[lane].x = own;
  workgroupBarrier();
  let span = LANES / SPANS;
  if (lane < SPANS) {
    var run = 0u;
    for (var i = 0u; i < span; i++) { run += by_lane[lane * span + i].x; }
    runs[lane] = run;
  }
  workgroupBarrier();
  var better = 0u;
  for (var i = 0u; i < lane / span; i++) { better += runs[i]; }
  for (var i = lane / span * span; i < lane; i++) { better += by_lane[i].x; }
  if (better < wanted && better + own >= wanted) {
    var bin = first;
    var having = atomicLoad(&counts[bin]);
    while (better + having < wanted) {
      better += having;
      bin++;
      having = atomicLoad(&counts[bin]);
    }
    found = Found(bin, wanted - better, having);
  }
  return workgroupUniformLoad(&found);
}

/// Finds `bound` from the largest keys of LIST parts of the row, which are the first of `counts`: a little below the k-th of them.
fn find_bound(lane: u32) {
  // Their last bits give way to their numbers, so that none are equal.
  if (lane < LIST / 2u) {
    let two = vec2u(atomicLoad(&counts[2u * lane]), atomicLoad(&counts[2u * lane + 1u]));
    chosen[lane] = two / LIST * LIST + 2u * lane + vec2u(0u, 1u);
  }
  workgroupBarrier();
  if (lane < LIST) {
    let own = chosen[lane / 2u][lane % 2u];
    var better = vec2u(0u);
    for (var i = 0u; i < LIST / 2u; i++) { better += vec2u(chosen[i] > vec2u(own)); }
    if (better.x + better.y == sizes.k - 1u) { bound = vec2u(own / LIST * LIST, 0u); }
  }
  workgroupBarrier();
}

/// Masses in whole steps: with these, sums are the same in any order. One below half a step is none.
fn mass(logits: vec4f, walk: Walk) -> vec4u {
  return vec4u(exp(max((logits - vec4f(walk.top)) * walk.slope, vec4f(-100.0))) * walk.steps + vec4f(0.5));
}

/// Places from the least likely tokens' up to the last candidate's: steps of the logits, so that few tokens share one. A token
/// that comes later has no lower a place than one before it.
fn places(logits: vec4f, walk: Walk) -> vec4u {
  let below = min(vec4f(walk.last) - logits, vec4f(walk.reach));
  return vec4u(PLACES) - min(vec4u(below * walk.scale), vec4u(PLACES));
}

/// Which of four tokens the walk is of: those that come after the last candidate and are possible, or that reach the bound.
fn come_after(bits: vec4u, ids: vec4u, walk: Walk) -> vec4<bool> {
  let exist = ids < vec4u(sizes.vocab);
  if (walk.whole) {
    let keys = vec4u(key_of(bits.x), key_of(bits.y), key_of(bits.z), key_of(bits.w));
    return exist & ((keys > bound.xxxx) | ((keys == bound.xxxx) & (~ids >= bound.yyyy)));
  }
  let logits = bitcast<vec4f>(bits);
  let after = (logits < vec4f(walk.last)) | ((logits == vec4f(walk.last)) & (ids > vec4u(walk.last_id)));
  return exist & after & (bits != vec4u(MINUS_INFINITY));
}

/// Adds four tokens' masses to `counts` by the first digit of their places.
fn weigh(four: vec4u, i: u32, walk: Walk) {
  let ids = vec4u(4u * i) + vec4u(0u, 1u, 2u, 3u);
  let logits = bitcast<vec4f>(four);
  let masses = select(vec4u(0u), mass(logits, walk), come_after(four, ids, walk));
  let bins = places(logits, walk) / BINS;
  if (masses.x > 0u) { atomicAdd(&counts[bins.x], masses.x); }
  if (masses.y > 0u) { atomicAdd(&counts[bins.y], masses.y); }
  if (masses.z > 0u) { atomicAdd(&counts[bins.z], masses.z); }
  if (masses.w > 0u) { atomicAdd(&counts[bins.w], masses.w); }
}

/// The masses of all tokens after the last candidate, by the first digit of their places, from keys[to] on.
fn weigh_all(lane: u32, walk: Walk, to: u32) {
  clear(lane);
  for (var i = lane; i < sizes.stride4; i += 4u * LANES) {
    var fours = fours_at(walk.row, i);
    for (var j = 0u; j < 4u; j++) { weigh(fours[j], i + j * LANES, walk); }
  }
  // Edited tokens' raw masses out, and the others in: whole numbers, so that nothing of them is left.
  let request = requests[2u * walk.row];
  for (var i = request.x + lane; i < request.x + request.y; i += LANES) {
    let edit = requests[i];
    let both = vec4u(raw(walk.row, edit.x), edit.y, MINUS_INFINITY, MINUS_INFINITY);
    let masses = select(vec4u(0u), mass(bitcast<vec4f>(both), walk), come_after(both, edit.xxxx, walk));
    let bins = places(bitcast<vec4f>(both), walk) / BINS;
    atomicSub(&counts[bins.x], masses.x);
    atomicAdd(&counts[bins.y], masses.y);
  }
  workgroupBarrier();
  for (var i = lane; i < BINS; i += LANES) { keys[to + i] = atomicLoad(&counts[i]); }
}

fn weight(logit: f32, walk: Walk) -> u32 {
  if (walk.whole) { return 1u; }
  return mass(vec4f(logit), walk).x;
}

/// Takes in a token of the walk if it has the digits that are known: its weight by its next digit, and the token itself where
/// there is room for it.
fn take(bits: u32, id: u32, place: u32, known: Prefix, round: u32, walk: Walk) {
  let digits = vec3u(place, key_of(bits), ~id);
  if (any((digits & known.mask) != known.digits)) { return; }
  var digit = place % BINS;
  if (round > 1u) { digit = (select(digits.y, digits.z, round >= 5u) >> shift_of(round - 2u)) % BINS; }
  atomicAdd(&counts[digit], weight(bitcast<f32>(bits), walk));
  let to = atomicAdd(&n_chosen, 1u);
  if (to < LIST) { chosen[to] = digits.yz; }
}

/// The same for four neighbours by their raw logits, but for those that have edits. Few have the place: these alone are looked up.
fn take_four(four: vec4u, i: u32, known: Prefix, round: u32, walk: Walk) {
  let ids = vec4u(4u * i) + vec4u(0u, 1u, 2u, 3u);
  let at = places(bitcast<vec4f>(four), walk);
  let hits = come_after(four, ids, walk) & ((at & known.mask.xxxx) == known.digits.xxxx);
  if (!any(hits)) { return; }
  for (var j = 0u; j < 4u; j++) {
    if (hits[j] && edit_of(walk.row, ids[j]) == NONE) { take(four[j], ids[j], at[j], known, round, walk); }
  }
}

/// The same for all that have edits. Then how many tokens lanes have taken in, for all of them.
fn take_edits(lane: u32, known: Prefix, round: u32, walk: Walk) -> u32 {
  let request = requests[2u * walk.row];
  for (var i = request.x + lane; i < request.x + request.y; i += LANES) {
    let edit = requests[i];
    if (come_after(edit.yyyy, edit.xxxx, walk).x) {
      take(edit.y, edit.x, places(bitcast<vec4f>(edit.yyyy), walk).x, known, round, walk);
    }
  }
  return count_taken(lane);
}

/// The same for all tokens, from none on.
fn take_all(lane: u32, known: Prefix, round: u32, walk: Walk) -> u32 {
  clear(lane);
  if (walk.whole) {
    // Of a group that does not reach the bound no token does.
    for (var group = lane; group < sizes.groups; group += LANES) {
      if (keys[walk.row * sizes.keys_stride + group] < bound.x) { continue; }
      for (var i = group * (GROUP / 4u); i < (group + 1u) * (GROUP / 4u); i++) {
        take_four(four_at(walk.row, i), i, known, round, walk);
      }
    }
  } else {
    for (var i = lane; i < sizes.stride4; i += 4u * LANES) {
      var fours = fours_at(walk.row, i);
      for (var j = 0u; j < 4u; j++) { take_four(fours[j], i + j * LANES, known, round, walk); }
    }
  }
  return take_edits(lane, known, round, walk);
}

/// The same for all of a whole walk, by its groups, if there is room for them; else LIST or more.
fn take_best(lane: u32, walk: Walk) -> u32 {
  for (var i = lane; i < sizes.groups; i += 4u * LANES) {
    let four = keys_at(walk.row * sizes.keys_stride, i, sizes.groups);
    for (var j = 0u; j < 4u; j++) {
      let id = (i + j * LANES) * GROUP;
      if (id < sizes.vocab && !before(bound, vec2u(four[j], ~id))) {
        let to = atomicAdd(&n_groups, 1u);
        if (to < LIST) { chosen_groups[to] = id / GROUP; }
      }
    }
  }
  workgroupBarrier();
  // Each group has one at least, so that of more than LIST groups LIST tokens are taken.
  let eights = min(atomicLoad(&n_groups), LIST) * (GROUP / 8u);
  for (var i = lane; i < eights; i += LANES) {
    let at = chosen_groups[i / 4u] * (GROUP / 4u) + i % 4u * 2u;
    var both = array<vec4u, 2>(four_at(walk.row, at), four_at(walk.row, at + 1u));
    for (var j = 0u; j < 2u; j++) { take_four(both[j], at + j, ANY, FIRST_OF_KEY, walk); }
  }
  return take_edits(lane, ANY, FIRST_OF_KEY, walk);
}

/// Of the tokens of the walk the one at which their weights, added up from the least likely on, come to all that is wanted; or NONE.
/// Digit by digit, until those that share the digits are few: of places the two, which mostly do, then those of keys and ids.
/// `counts` are by the digit of the first round. All masses after the last candidate and their roundings come to less than 2³².
fn find(lane: u32, walk: Walk, all_wanted: u32, first_round: u32) -> u32 {
  var known = ANY;
  var wanted = all_wanted;
  for (var round = first_round; round < 7u; round++) {
    let now = look_up(lane, wanted);
    if (now.having == 0u) { return NONE; }
    wanted = now.wanted;
    if (round < 2u) {
      known.digits.x |= now.index << (11u - 11u * round);
      known.mask.x |= (BINS - 1u) << (11u - 11u * round);
    } else {
      let word = select(vec3u(0u, 1u, 0u), vec3u(0u, 0u, 1u), round >= 5u);
      known.digits |= word * (now.index << shift_of(round - 2u));
      known.mask |= word * ((BINS - 1u) << shift_of(round - 2u));
    }
    if (round == 6u) { break; }
    let left = take_all(lane, known, round + 1u, walk);
    if (left <= LIST) { return among(lane, walk, wanted, left); }
  }
  return ~known.digits.z & (BINS * BINS - 1u);
}

/// The same among the `left` tokens in `chosen`.
fn among(lane: u32, walk: Walk, wanted: u32, left: u32) -> u32 {
  if (lane == 0u) { found.index = NONE; }
  if (lane < left) { by_lane[lane].x = weight(value_of(chosen[lane].x), walk); }
  workgroupBarrier();
  if (lane < left) {
    var less = 0u;
    for (var i = 0u; i < left; i++) { less += select(0u, by_lane[i].x, before(chosen[lane], chosen[i])); }
    if (less < wanted && less + by_lane[lane].x >= wanted) { found.index = ~chosen[lane].y; }
  }
  return workgroupUniformLoad(&found).index;
}

fn tell(row: u32, out: u32, id: u32) {
  results[out + 5u] = id;
  drawn[row] = id;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x;
  let k = sizes.k;
  let out = row * (8u + 3u * k);
  let request = requests[2u * row];
  let draws = requests[2u * row + 1u];
  if (request.x == 0u) { return; }
  let slope = bitcast<f32>(request.z);

  // 1. The largest of LIST parts of the groups, or of the tokens where there are few groups, in counts, which begin as 0; and of the
  // chunks, whose sums are set off against it.
  var most = vec4u(0u);
  if (sizes.groups < k) {
    for (var id = lane; id < sizes.vocab; id += LANES) { most.x = max(most.x, key_of(adjusted(row, id))); }
  } else {
    for (var i = lane; i < sizes.groups; i += 4u * LANES) {
      most = max(most, keys_at(row * sizes.keys_stride, i, sizes.groups));
    }
  }
  atomicMax(&counts[lane % LIST], max(max(most.x, most.y), max(most.z, most.w)));
  var top = vec2u(0u);
  for (var i = lane; i < sizes.chunks; i += LANES) { top = max(top, stats[row * sizes.chunks + i].xz); }
  by_lane[lane] = top;
  workgroupBarrier();
  let busy = min(sizes.chunks, LANES);
  if (lane < STRIPE) {
    for (var i = lane; i < busy; i += STRIPE) { top = max(top, by_lane[i]); }
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
  by_lane[lane] = bitcast<vec2u>(sum);
  sum = add_up(lane, busy);
  if (lane == 0u) {
    let both = bitcast<vec2u>(sum);
    results[out] = top.x;
    results[out + 1u] = both.x;
    results[out + 2u] = top.y;
    results[out + 3u] = both.y;
    results[out + 4u] = 0u;
    if (request.w < sizes.vocab) { results[out + 4u] = raw(row, request.w); }
  }

  // 2. The k best tokens, and mostly a few more.
  find_bound(lane);
  var all: Walk;
  all.row = row;
  all.whole = true;
  var n = take_best(lane, all);
  if (n >= LIST) {
    let reaching = take_all(lane, ANY, FIRST_OF_KEY, all);
    let id = find(lane, all, reaching - k + 1u, FIRST_OF_KEY);
    if (lane == 0u) {
      bound = vec2u(key_of(adjusted(row, id)), ~id);
      atomicStore(&n_groups, 0u);
      atomicStore(&n_chosen, 0u);
    }
    workgroupBarrier();
    n = take_best(lane, all);
  }

  // 3. Best first, and their masses.
  if (lane < n) {
    let own = chosen[lane];
    var rank = 0u;
    for (var i = 0u; i < n; i++) { rank += u32(before(chosen[i], own)); }
    if (rank < k) {
      let id = ~own.y;
      let at = out + 8u + rank;
      results[at] = id;
      results[at + k] = adjusted(row, id);
      results[at + 2u * k] = raw(row, id);
      let below = (value_of(own.x) - value_of(top.y)) * slope;
      by_lane[rank] = vec2u(bitcast<u32>(exp(max(below, -100.0))), id);
      if (rank == k - 1u) { last = own; }
      if (rank == 0u) { drawn_first = id; }
    }
  }

  // 4. The first draw, if it is among them.
  workgroupBarrier();
  if (draws.y == 0u) {
    if (lane == 0u) { tell(row, out, drawn_first); }
    return;
  }
  if (lane < k) {
    var better = 0.0;
    for (var i = 0u; i < lane; i++) { better += bitcast<f32>(by_lane[i].x); }
    let wanted = (1.0 - f32(requests[draws.x].x) / 4294967296.0) * sum.y;
    let own = by_lane[lane];
    if (better <= wanted && better + bitcast<f32>(own.x) > wanted) { drawn_first = own.y; }
  }

  // 5. Draws beyond them. Steps are 2^-31 of all mass, halved for each time that the share beyond leaves room for it.
  let kept = add_up(lane, k).x;
  if (lane == 0u) {
    share_beyond = u32(clamp(1.0 - kept / sum.y + MARGIN, MARGIN, 0.9999999) * 4294967296.0);
    atomicStore(&n_chosen, 0u);
  }
  let beyond = workgroupUniformLoad(&share_beyond);
  for (var i = lane; i < draws.y; i += LANES) {
    results[draws.z + i] = NONE;
    if (requests[draws.x + i].x <= beyond) { atomicAdd(&n_chosen, 1u); }
  }
  let taken = count_taken(lane);
  if (lane == 0u) { tell(row, out, drawn_first); }
  if (taken == 0u) { return; }
  let shift = countLeadingZeros(beyond);
  let steps = 2147483648.0 * f32(1u << shift) / sum.y;
  // Logits further than ln(2 · steps) / slope below the largest have masses of less than half a step.
  let reach = max(log(2.0 * steps) / slope - (value_of(top.y) - value_of(last.x)), 1e-30);
  let walk = Walk(row, ~last.y, value_of(last.x), value_of(top.y), slope, steps, reach, f32(PLACES) / reach, false);
  let weighed = row * sizes.keys_stride + sizes.groups;
  weigh_all(lane, walk, weighed);
  for (var i = 0u; i < draws.y; i++) {
    let draw = requests[draws.x + i];
    if (draw.x > beyond) { continue; }
    let rest = ((draw.x << shift) | ((draw.y >> (31u - shift)) >> 1u)) >> 1u;
    for (var j = lane; j < BINS; j += LANES) { atomicStore(&counts[j], keys[weighed + j]); }
    let id = find(lane, walk, rest + 1u, 0u);
    if (lane == i % LANES && id != NONE) {
      results[draws.z + i] = id;
      results[draws.w + i] = raw(row, id);
      if (i == 0u) { tell(row, out, id); }
    }
  }
}
