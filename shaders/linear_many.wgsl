// Matrix products of many rows: out[row] = W · x[row], or that added to what out holds, or gate and up joined by silu. For devices
// without subgroup matrices. Knows nothing of what the rows are.
//
//   weights  packed panels of 16 outputs (src/webgpu/layout.ts); the head unpacks them     x  as the arithmetic's head reads it
//   out      (rows, out_stride) f32; or tiles (tiles.wgsl)
//
// A workgroup computes a panel of outputs or two, of a gate's and up's half and half, for 8 rows or 16. A lane has a quarter of the
// outputs, eight of the rows and every SLOTS-th tile of their columns, or a share of it: so what it loads counts eight times and four, or
// eight and eight, and no lane waits for another until sums are joined at the end. Sums have names and are no array: compilers keep
// arrays in slow memory.

// head weights_f16

// head in_floats

// head
// Products in 16-bit arithmetic have 16-bit weights from here (heads/halves_*.wgsl).
// end of head

// head
// Rows are as the product takes them.
fn norm_scale(row: u32) -> f32 { return 1.0; }
// end of head

// head added

override LANES: u32;
override ROW_GROUPS: u32; // 1 or 2: eights of rows
override RAGGED: bool;    // whether the last tile has more columns than x
override PANELS: u32;     // of outputs that a workgroup computes: 1, or with in_floats 2
override GATED: bool;     // whether half of the outputs are the gate's, and half up's
override TILES: bool;     // whether results go out as tiles; gated ones alone may

const PARTS: u32 = TILE_COLUMNS / UNIT_COLUMNS; // units of an output in a tile
override UNITS: u32 = STEP / UNIT_COLUMNS; // 1, 2 or 4: of these at a time
const SIDE: u32 = 16u; // results of a row that neighbouring lanes have (heads/added_normed.wgsl)
override SHARES: u32 = TILE_COLUMNS / STEP; // of a tile, which lanes part
override PLACES: u32 = 4u * ROW_GROUPS; // lanes with sums of their own
override SLOTS: u32 = LANES / PLACES / SHARES;
override FOURS: u32 = select(4u, 2u, GATED); // of four outputs of a lane those that results are of
override CHUNKS: u32 = LANES / PLACES / 4u; // parts of a sum once each lane has joined four

struct Sizes {
  rows: u32,
  x_at: u32,        // where the first row begins
  x_stride: u32,    // of a row of floats, in vec4; of a row of tiles, in tiles
  out_at: u32,      // where the first row's results of this dispatch begin
  out_stride: u32,  // of tiles those of a row of tiles
  outputs: u32,     // results of a row
  panel: u32,       // the first panel in this buffer
  panels: u32,
  up_panel: u32,    // the first of up's; else unused
  panel_units: u32, // vec4u of a panel
  tiles: u32,       // of a panel
  add: u32,         // 1: to what out holds
  squares: u32,     // as linear_matrix.wgsl's, where a norm has begun or begins
  cols: u32,
  eps: f32,
  factor: f32,
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;

/// Sums of a lane's first four rows and of the others; those of four outputs; and of its fours.
struct Rows { near: vec4f, far: vec4f }
struct Sums { a: Rows, b: Rows, c: Rows, d: Rows }
struct Both { one: Sums, two: Sums }

/// What a lane loads at a time of an output, and of four.
struct Units { a: Unit, b: Unit, c: Unit, d: Unit }
struct Weights { a: Units, b: Units, c: Units, d: Units }

var<workgroup> partial: array<vec4f, 4u * LANES>; // of four rows: (output, share, slot, place)

fn units_at(panel: u32, tile: u32, output: u32, share: u32) -> Units {
  var units: Units;
  let part = share * UNITS;
  units.a = load_unit(panel, tile, output, part);
  if (UNITS > 1u) { units.b = load_unit(panel, tile, output, part + 1u); }
  if (UNITS > 2u) {
    units.c = load_unit(panel, tile, output, part + 2u);
    units.d = load_unit(panel, tile, output, part + 3u);
  }
  return units;
}

fn unit_of(units: Units, i: u32) -> Unit {
  var unit = units.a;
  if (UNITS > 1u && i == 1u) { unit = units.b; }
  if (UNITS > 2u && i == 2u) { unit = units.c; }
  if (UNITS > 2u && i == 3u) { unit = units.d; }
  return unit;
}

/// Of two outputs of a panel and of two others, of the same or another.
fn weights_at(panel: u32, output: u32, other_panel: u32, other: u32, tile: u32, share: u32) -> Weights {
  return Weights(
    units_at(panel, tile, output, share),
    units_at(panel, tile, output + 4u, share),
    units_at(other_panel, tile, other, share),
    units_at(other_panel, tile, other + 4u, share),
  );
}

/// Where a panel begins; those beyond the last are the last again.
fn panel_at(panel: u32, is_up: bool) -> u32 {
  return (select(sizes.panel, sizes.up_panel, is_up) + min(panel, sizes.panels - 1u)) * sizes.panel_units;
}

/// Joins fours of sums in `partial`: one of each is left in the place of the first.
fn join_fours(lane: u32) {
  let apart = CHUNKS * PLACES;
  let at = lane / apart * LANES + lane % apart;
  partial[at] += partial[at + apart] + (partial[at + 2u * apart] + partial[at + 3u * apart]);
}

/// A row's sum for an output, the i-th of its lanes' four.
fn joined(i: u32, place: u32, row: u32) -> f32 {
  var sum = 0.0;
  for (var chunk = 0u; chunk < CHUNKS; chunk++) { sum += partial[i * LANES + chunk * PLACES + place][row]; }
  return sum;
}

fn stored(at: u32) -> f32 { return bitcast<f32>(out[at]); }
fn store(at: u32, x: f32) { out[at] = bitcast<u32>(x); }

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let share = lane % SHARES;
  let place = lane / SHARES % PLACES; // (group of rows, output)
  let slot = lane / SHARES / PLACES;
  let first_row = group.x * 8u * ROW_GROUPS;
  let first_output = group.y * 4u * FOURS * PANELS;
  let rows = place_of(first_row + place / 4u);
  let output = first_output % 16u + place % 4u;
  let one = panel_at(first_output / 16u, false);
  let two = panel_at(first_output / 16u + select(PANELS - 1u, 0u, GATED), GATED);
  // Of a gate's and up's outputs those that belong together are in one four.
  let beside = select(one, two, GATED);
  let other = select(output + 8u, output, GATED);

  var sums = Both();
  for (var tile = slot; tile < sizes.tiles; tile += SLOTS) {
    let weights = weights_at(one, output, beside, other, tile, share);
    var second = Weights();
    if (PANELS == 2u) {
      second = weights_at(select(two, one, GATED), select(output, output + 8u, GATED), two, output + 8u, tile, share);
    }
    sums = added(sums, weights, second, rows, tile * TILE_COLUMNS + share * STEP);
  }

  // All sums by the same piece of code: a GPU keeps little of it, and fetches what it has not kept.
  for (var turn = 0u; turn < 2u * PANELS; turn++) {
    let at = (share * SLOTS + slot) * PLACES + place;
    let is_far = turn % 2u == 1u;
    let half = turn / 2u;
    var four = sums.one;
    if (PANELS == 2u && half == 1u) { four = sums.two; }
    workgroupBarrier();
    partial[at] = select(four.a.near, four.a.far, is_far);
    partial[LANES + at] = select(four.b.near, four.b.far, is_far);
    partial[2u * LANES + at] = select(four.c.near, four.c.far, is_far);
    partial[3u * LANES + at] = select(four.d.near, four.d.far, is_far);
    workgroupBarrier();
    join_fours(lane);
    workgroupBarrier();
    // Pairs of neighbouring outputs, those of a row side by side.
    for (var item = lane; item < 2u * PLACES * FOURS; item += LANES) {
      let i = item / 2u % FOURS;
      let number = item / (2u * FOURS) % 4u;
      let left = item / (8u * FOURS) * 4u + item % 2u * 2u;
      let here = first_row + (4u * (turn % 2u) + number) * ROW_GROUPS + left / 4u;
      if (here >= sizes.rows) { continue; }
      let own = first_output + 4u * (half * FOURS + i) + left % 4u;
      var pair = vec2f(joined(i, left, number), joined(i, left + 1u, number));
      let scale = norm_scale(here);
      pair = settled(pair, one, own % 16u, here) * scale;
      if (GATED) {
        let ups = settled(vec2f(joined(i + 2u, left, number), joined(i + 2u, left + 1u, number)), two, own % 16u, here) * scale;
        // e^-z of very negative gates would be infinite, which WGSL may take to be absent: there silu is 0 to all digits.
        pair = pair / (1.0 + exp(min(-pair, vec2f(88.0)))) * ups;
      }
      if (TILES) {
        let at = (here / 16u * sizes.out_stride + own / 16u) * 256u + here % 16u * 16u + own % 16u;
        if (own / 16u < sizes.panels) { out[at / 2u] = pack2x16float(clamp(pair, vec2f(-65504.0), vec2f(65504.0))); }
      } else {
        put(here, own, pair);
      }
    }
  }
}
