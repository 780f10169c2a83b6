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

const LANES = 64u;
const STRIPE = 8u; // sums are taken by stripes of lanes, then over the stripes: few barriers
const CHUNK = 2048u;
const PARTS = 8u; // of a chunk: 4 logits a lane
const GROUP = 32u;

const EXPONENT = 0x7f800000u;
const MINUS_INFINITY = 0xff800000u;
const BROKEN = 0xffffffffu; // the key of NaN and +Infinity
const IMPOSSIBLE = 0x007fffffu; // the key of -Infinity; beyond the vocabulary all are 0

struct Sizes { vocab: u32, stride4: u32, first: u32, groups: u32, chunks: u32, keys_stride: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> logits: array<vec4u>;
@group(0) @binding(2) var<storage, read_write> requests: array<vec4u>;
@group(0) @binding(3) var<storage, read_write> keys: array<u32>;
@group(0) @binding(4) var<storage, read_write> stats: array<vec4u>;

var<workgroup> tile: array<u32, CHUNK>; // (of each 4, quads) bits of adjusted logits: lanes side by side meet different banks
var<workgroup> quads: array<u32, 512>; // key of the largest of each 4
var<workgroup> tops: array<vec2u, LANES>;
var<workgroup> sums: array<vec2f, LANES>;
var<workgroup> stripe_tops: array<vec2u, STRIPE>;

fn finite(bits: u32) -> bool {
  return (bits & EXPONENT) != EXPONENT;
}

/// The keys of four neighbours, the first of them token `id`.
fn keys_of(bits: vec4u, id: u32) -> vec4u {
  let order = select(bits | vec4u(0x80000000u), ~bits, bits > vec4u(0x80000000u));
  let broken = ((bits & vec4u(EXPONENT)) == vec4u(EXPONENT)) & (bits != vec4u(MINUS_INFINITY));
  return select(vec4u(0u), select(order, vec4u(BROKEN), broken), vec4u(id) + vec4u(0u, 1u, 2u, 3u) < vec4u(sizes.vocab));
}

fn value_of(key: u32) -> f32 {
  return bitcast<f32>(select(~key, key ^ 0x80000000u, key >= 0x80000000u));
}

fn largest(x: vec4u) -> u32 {
  return max(max(x.x, x.y), max(x.z, x.w));
}

/// Sum of exp((logit - top) · slope) over four neighbours, the first of them token `id`; impossible ones add nothing.
fn mass(bits: vec4u, id: u32, top: f32, slope: f32) -> f32 {
  let terms = exp(max((bitcast<vec4f>(bits) - vec4f(top)) * slope, vec4f(-100.0)));
  return dot(select(vec4f(0.0), terms, keys_of(bits, id) > vec4u(IMPOSSIBLE)), vec4f(1.0));
}

/// Where a chunk's logit has its place in the tile.
fn place_of(at: u32) -> u32 {
  return at % 4u * (CHUNK / 4u) + at / 4u;
}

fn quad_at(quad: u32) -> vec4u {
  return vec4u(tile[quad], tile[quad + CHUNK / 4u], tile[quad + CHUNK / 2u], tile[quad + CHUNK / 4u * 3u]);
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

  // 1. The raw logits, into registers and into the tile.
  var raw: array<vec4u, PARTS>;
  var top = vec2u(0u);
  for (var part = 0u; part < PARTS; part++) {
    let at = 4u * (part * LANES + lane);
    if (start + at < sizes.vocab) { raw[part] = logits[(sizes.first + row) * sizes.stride4 + (start + at) / 4u]; }
    top.x = max(top.x, largest(keys_of(raw[part], start + at)));
    for (var i = 0u; i < 4u; i++) { tile[place_of(at + i)] = raw[part][i]; }
  }
  workgroupBarrier();

  // 2. The edits of this chunk's tokens.
  var edit = request.x;
  var end = request.x + request.y;
  while (edit < end) {
    let middle = (edit + end) / 2u;
    if (requests[middle].x < start) { edit = middle + 1u; } else { end = middle; }
  }
  for (edit += lane; edit < request.x + request.y; edit += LANES) {
    let change = requests[edit];
    if (change.x >= min(start + CHUNK, sizes.vocab)) { break; }
    let changed = adjust(tile[place_of(change.x - start)], change);
    tile[place_of(change.x - start)] = changed;
    requests[edit].y = changed;
  }
  workgroupBarrier();

  // 3. The largest of each group, and of the chunk.
  for (var part = 0u; part < PARTS; part++) {
    let quad = part * LANES + lane;
    quads[quad] = largest(keys_of(quad_at(quad), start + 4u * quad));
    top.y = max(top.y, quads[quad]);
  }
  tops[lane] = top;
  workgroupBarrier();
  let here = group.x * (CHUNK / GROUP) + lane;
  if (here < sizes.groups) {
    var best = 0u;
    for (var i = 0u; i < GROUP / 4u; i++) { best = max(best, quads[lane * (GROUP / 4u) + i]); }
    keys[row * sizes.keys_stride + here] = best;
  }
  if (lane < STRIPE) {
    for (var i = lane; i < LANES; i += STRIPE) { top = max(top, tops[i]); }
    stripe_tops[lane] = top;
  }
  workgroupBarrier();
  top = stripe_tops[0];
  for (var i = 1u; i < STRIPE; i++) { top = max(top, stripe_tops[i]); }

  // 4. Their sums of exponentials.
  var sum = vec2f(0.0);
  for (var part = 0u; part < PARTS; part++) {
    let quad = part * LANES + lane;
    sum.x += mass(raw[part], start + 4u * quad, value_of(top.x), 1.0);
    sum.y += mass(quad_at(quad), start + 4u * quad, value_of(top.y), slope);
  }
  sums[lane] = sum;
  workgroupBarrier();
  if (lane < STRIPE) {
    for (var i = lane + STRIPE; i < LANES; i += STRIPE) { sum += sums[i]; }
    sums[lane] = sum;
  }
  workgroupBarrier();
  if (lane == 0u) {
    for (var i = 1u; i < STRIPE; i++) { sum += sums[i]; }
    let both = bitcast<vec2u>(sum);
    stats[row * sizes.chunks + group.x] = vec4u(top.x, both.x, top.y, both.y);
  }
}
