// First pass over rows of logits: the largest of every 32 after edits, and what both log-sum-exps need, in one reading.
// Knows nothing of k; top_k.wgsl goes on from here. Twin of logits.ts (adjust, highest, logSumExp).
//
//   logits    (rows, stride) bits of f32; the raw values stay as they are
//   requests  (rows, 2) first edit, edits, 1 / temperature f32, target, then what top_k alone reads; then the edits: id, bias, scale,
//             less, ids rising. Each edit's bias makes room here for its token's adjusted logit.
//   keys      (rows, keys_stride) of these the first `groups`: the key of each group's largest adjusted logit
//   stats     (rows, chunks) key of the largest raw logit, sum of exp(raw - largest) f32, then both of the adjusted ones
//
// Numbers are compared as keys: whole numbers in the order of the floats, 0 and -0 alike. WGSL may take infinities and NaN to be
// absent, so bits decide what is one. One workgroup a chunk of 2048; a lane has 4 logits at a time; workgroup y = row.

override EDITS: bool; // whether any row has edits
override TILE: u32 = select(QUADS, CHUNK, EDITS); // a processor holds more workgroups without
const LANES = 128u;
const STRIPE = 8u; // sums are taken by stripes of lanes, then over the stripes: few barriers
const CHUNK = 2048u;
const PARTS = 4u; // of a chunk: 4 logits a lane
const QUADS = CHUNK / 4u;
const GROUP = 32u;

const EXPONENT = 0x7f800000u;
const MINUS_INFINITY = 0xff800000u;
const BROKEN = 0xffffffffu; // the key of NaN and +Infinity
const IMPOSSIBLE = 0x007fffffu; // the key of -Infinity, and of what is beyond the vocabulary
const INFINITE = 0xff800000u; // what the key of +Infinity would be; NaN's are above, or with a sign below IMPOSSIBLE

struct Sizes { vocab: u32, stride4: u32, first: u32, groups: u32, chunks: u32, keys_stride: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> logits: array<vec4u>;
@group(0) @binding(2) var<storage, read_write> requests: array<vec4u>;
@group(0) @binding(3) var<storage, read_write> keys: array<u32>;
@group(0) @binding(4) var<storage, read_write> stats: array<vec4u>;

/// Where there are edits (of each 4, quads) bits of adjusted logits: lanes side by side meet different banks. Then the largest key
/// of each 4.
var<workgroup> tile: array<u32, TILE>;
var<workgroup> by_lane: array<vec2u, LANES>; // what lanes add up, or else have in common
var<workgroup> stripe_tops: array<vec2u, STRIPE>;

fn finite(bits: u32) -> bool {
  return (bits & EXPONENT) != EXPONENT;
}

/// The largest key of four.
fn largest(bits: vec4u) -> u32 {
  let keys = select(bits | vec4u(0x80000000u), ~bits, bits > vec4u(0x80000000u));
  let high = max(max(keys.x, keys.y), max(keys.z, keys.w));
  let low = min(min(keys.x, keys.y), min(keys.z, keys.w));
  return select(high, BROKEN, low < IMPOSSIBLE || high >= INFINITE);
}

fn value_of(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key ^ 0x80000000u, key >= 0x80000000u));
}

/// Sum of exp((logit - top) · slope) over four; impossible ones add nothing.
fn mass(bits: vec4u, top: f32, slope: f32) -> f32 {
  let terms = exp(max((bitcast<vec4f>(bits) - vec4f(top)) * slope, vec4f(-100.0)));
  return dot(select(terms, vec4f(0.0), bits == vec4u(MINUS_INFINITY)), vec4f(1.0));
}

/// Where a chunk's logit has its place in the tile.
fn place_of(at: u32) -> u32 {
  return at % 4u * QUADS + at / 4u;
}

fn quad_at(quad: u32) -> vec4u {
  return vec4u(tile[quad], tile[quad + QUADS], tile[quad + 2u * QUADS], tile[quad + 3u * QUADS]);
}

/// x / y rounded as f32 is, x above 0: WGSL lets its own division be some steps off. By long division of the 24-bit fractions.
fn divided(x: f32, y: f32) -> u32 {
  let a = bitcast<u32>(x);
  let b = bitcast<u32>(y);
  var exponent = i32(a >> 23u) - i32(b >> 23u) + 127;
  var rest = (a & 0x7fffffu) | 0x800000u;
  let divisor = (b & 0x7fffffu) | 0x800000u;
  if (rest < divisor) {
    rest <<= 1u;
    exponent -= 1;
  }
  if (!finite(a) || a < 0x800000u || exponent < 1) { return bitcast<u32>(x / y); }
  if (exponent > 254) { return EXPONENT; }
  var quotient = 0u; // 24 bits and one to round by
  for (var i = 0u; i < 25u; i++) {
    let fits = rest >= divisor;
    quotient = (quotient << 1u) | u32(fits);
    rest = (rest - select(0u, divisor, fits)) << 1u;
  }
  let up = quotient & ((quotient >> 1u) | u32(rest != 0u)) & 1u;
  // A carry goes on into the exponent, which is what it should do.
  return (u32(exponent) << 23u) + (quotient >> 1u) + up - 0x800000u;
}

/// A logit after an edit, each operation rounded by itself.
fn adjust(logit: u32, edit: vec4u) -> u32 {
  if (!finite(logit) || !finite(edit.y)) {
    let impossible = (finite(logit) || logit == MINUS_INFINITY) && (finite(edit.y) || edit.y == MINUS_INFINITY);
    return select(EXPONENT, MINUS_INFINITY, impossible);
  }
  let biased = bitcast<f32>(logit) + bitcast<f32>(edit.y);
  let scale = bitcast<f32>(edit.z);
  // No id reaches bit 31; but that no compiler knows, and so it cannot fuse this product with the difference below.
  var penalised = bitcast<u32>(biased * scale) | (edit.x >> 31u);
  if (biased > 0.0) { penalised = divided(biased, scale); }
  if (!finite(penalised)) { return penalised; }
  return bitcast<u32>(bitcast<f32>(penalised) - bitcast<f32>(edit.w));
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.y;
  let start = group.x * CHUNK;
  let request = requests[2u * row];
  let slope = bitcast<f32>(request.z);

  // 1. The raw logits.
  var raw: array<vec4u, PARTS>;
  for (var part = 0u; part < PARTS; part++) {
    let id = start + 4u * (part * LANES + lane);
    raw[part] = vec4u(MINUS_INFINITY);
    if (id < sizes.vocab) { raw[part] = logits[(sizes.first + row) * sizes.stride4 + id / 4u]; }
    if (id + 4u > sizes.vocab) {
      let exist = vec4u(id) + vec4u(0u, 1u, 2u, 3u) < vec4u(sizes.vocab);
      raw[part] = select(vec4u(MINUS_INFINITY), raw[part], exist);
    }
  }

  // 2. The edits of this chunk's tokens.
  var changed = raw;
  if (EDITS) {
    for (var part = 0u; part < PARTS; part++) {
      for (var i = 0u; i < 4u; i++) { tile[place_of(4u * (part * LANES + lane) + i)] = raw[part][i]; }
    }
    workgroupBarrier();
    var edit = request.x;
    var end = request.x + request.y;
    while (edit < end) {
      let middle = (edit + end) / 2u;
      if (requests[middle].x < start) { edit = middle + 1u; } else { end = middle; }
    }
    for (edit += lane; edit < request.x + request.y; edit += LANES) {
      let change = requests[edit];
      if (change.x >= min(start + CHUNK, sizes.vocab)) { break; }
      let after = adjust(tile[place_of(change.x - start)], change);
      tile[place_of(change.x - start)] = after;
      requests[edit].y = after;
    }
    workgroupBarrier();
    for (var part = 0u; part < PARTS; part++) { changed[part] = quad_at(part * LANES + lane); }
    workgroupBarrier();
  }

  // 3. The largest of each group, and of the chunk.
  var top = vec2u(0u);
  for (var part = 0u; part < PARTS; part++) {
    let best = largest(changed[part]);
    tile[part * LANES + lane] = best;
    top = max(top, vec2u(best));
  }
  if (EDITS) {
    top.x = 0u;
    for (var part = 0u; part < PARTS; part++) { top.x = max(top.x, largest(raw[part])); }
  }
  by_lane[lane] = top;
  workgroupBarrier();
  let here = group.x * (CHUNK / GROUP) + lane;
  if (lane < CHUNK / GROUP && here < sizes.groups) {
    var best = 0u;
    for (var i = 0u; i < GROUP / 4u; i++) { best = max(best, tile[lane * (GROUP / 4u) + i]); }
    keys[row * sizes.keys_stride + here] = best;
  }
  if (lane < STRIPE) {
    for (var i = lane; i < LANES; i += STRIPE) { top = max(top, by_lane[i]); }
    stripe_tops[lane] = top;
  }
  workgroupBarrier();
  top = stripe_tops[0];
  for (var i = 1u; i < STRIPE; i++) { top = max(top, stripe_tops[i]); }

  // 4. Their sums of exponentials.
  let best = vec2f(value_of(top.x), value_of(top.y));
  var sum = vec2f(0.0);
  for (var part = 0u; part < PARTS; part++) {
    sum += vec2f(mass(raw[part], best.x, 1.0), mass(changed[part], best.y, slope));
  }
  by_lane[lane] = bitcast<vec2u>(sum);
  workgroupBarrier();
  if (lane < STRIPE) {
    for (var i = lane + STRIPE; i < LANES; i += STRIPE) { sum += bitcast<vec2f>(by_lane[i]); }
    by_lane[lane] = bitcast<vec2u>(sum);
  }
  workgroupBarrier();
  if (lane == 0u) {
    for (var i = 1u; i < STRIPE; i++) { sum += bitcast<vec2f>(by_lane[i]); }
    let both = bitcast<vec2u>(sum);
    stats[row * sizes.chunks + group.x] = vec4u(top.x, both.x, top.y, both.y);
  }
}
