// Matrix products of many rows in packed 16-bit arithmetic: out[row] = W · x[row], or gate and up joined by silu. For devices without
// subgroup matrices. Knows nothing of what the rows are.
//
//   weights  packed panels of 16 outputs (src/webgpu/layout.ts)    x  tiles of 16 rows × 16 columns (tiles.wgsl), 16-bit
//   out      (rows, out_stride) f32
//
// A workgroup computes OUTPUTS of each of PANELS panels for ROWS rows; lanes part them as in linear.wgsl. Of 16 columns' products four
// at a time are summed in 16 bits, then two and two, and what is left in f32. So a product is off by 5 · 2⁻¹¹ of the sum of its terms'
// sizes at most beside what rounding x makes it, and with signs at random by about twice that. Sums beyond the range of 16 bits are
// infinite, and stay so: what they are part of is computed again in f32.
// Sums have names and are no array: compilers keep arrays in slow memory.

enable f16;

/// Eight columns of an output, or of a row.
struct Eight { low: vec4<f16>, high: vec4<f16> }

// head
// F16: weights as they lie in storage.
@group(0) @binding(1) var<storage, read> weights: array<Eight>;

fn eight(unit: Unit, i: u32, part: u32) -> Eight { return unit.halves; }
// end of head

// head
// F16: a unit is 8 halves of an output; a tile is 16 columns.
const TILE_COLUMNS: u32 = 16u;
const UNIT_COLUMNS: u32 = 8u;

struct Unit { halves: Eight }

fn load_unit(panel: u32, tile: u32, output: u32, part: u32) -> Unit {
  return Unit(weights[panel + tile * 32u + output * 2u + part]);
}
fn four(unit: Unit, i: u32) -> vec4f {
  return vec4f(select(unit.halves.low, unit.halves.high, i == 1u));
}
// end of head

// As in linear.wgsl, but that nothing is added.
// head
fn put(row: u32, output: u32, sums: vec2f) {
  if (output >= min(sizes.outputs, sizes.panels * 16u)) { return; }
  let at = sizes.out_at + row * sizes.out_stride + output;
  store(at, sums.x);
  if (output + 1u < sizes.outputs) { store(at + 1u, sums.y); }
}
// end of head

const ROWS: u32 = 8u;
override PANELS: u32; // 2 or 4
override OUTPUTS: u32; // 16, or fewer where there are few panels
override GATED: bool; // whether panels come in pairs, of the gate and of up

override LANES: u32; // at least 16 units of a tile
const PARTS: u32 = TILE_COLUMNS / UNIT_COLUMNS; // units of an output in a tile
override SLOTS: u32 = LANES / OUTPUTS / PARTS;
const EIGHTS: u32 = max(1u, UNIT_COLUMNS / 8u); // of a unit's columns
const AHEAD: u32 = select(1u, 2u, EIGHTS == 1u); // tiles of each panel that a lane computes with at a time

struct Sizes {
  rows: u32,
  x_tiles: u32,     // of a row of tiles
  out_at: u32,      // where the first row's results of this dispatch begin
  out_stride: u32,
  outputs: u32,     // results of a row
  panel: u32,       // the first panel in this buffer
  panels: u32,
  up_panel: u32,    // the first of up's; else unused
  panel_units: u32, // vec4u of a panel
  tiles: u32,       // of a panel
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(2) var<storage, read> x: array<Eight>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

var<workgroup> partial: array<vec4f, LANES * 2u>; // of four rows: first panel, second panel

/// Sixteen columns likewise.
struct Sixteen { first: Eight, second: Eight }
/// Sixteen columns of four rows.
struct Four { x: Sixteen, y: Sixteen, z: Sixteen, w: Sixteen }

/// The rows of a tile from two places on, of eight columns each.
fn rows_at(first: u32, second: u32) -> Four {
  return Four(
    Sixteen(x[first], x[second]),
    Sixteen(x[first + 2u], x[second + 2u]),
    Sixteen(x[first + 4u], x[second + 4u]),
    Sixteen(x[first + 6u], x[second + 6u]),
  );
}

/// Where a row begins.
fn row_at(row: u32) -> u32 {
  return row / 16u * sizes.x_tiles * 32u + row % 16u * 2u;
}

/// Where eight columns of a row lie, behind where it begins.
fn columns_at(tile: u32, part: u32, i: u32) -> u32 {
  let eighth = (tile * TILE_COLUMNS + part * UNIT_COLUMNS) / 8u + i;
  return eighth / 2u * 32u + eighth % 2u;
}

fn product(w: Sixteen, a: Sixteen) -> f32 {
  var sum = w.first.low * a.first.low;
  sum = fma(w.first.high, a.first.high, sum);
  sum = fma(w.second.low, a.second.low, sum);
  sum = fma(w.second.high, a.second.high, sum);
  let two = sum.xy + sum.zw;
  return f32(two.x) + f32(two.y);
}

fn products(w: Sixteen, a: Four) -> vec4f {
  return vec4f(product(w, a.x), product(w, a.y), product(w, a.z), product(w, a.w));
}

/// The i-th sixteen columns of a lane's unit, or its units of two tiles.
fn sixteen(here: Unit, next: Unit, i: u32, part: u32) -> Sixteen {
  if (AHEAD == 2u) { return Sixteen(eight(here, 0u, part), eight(next, 0u, part)); }
  return Sixteen(eight(here, 2u * i, part), eight(here, 2u * i + 1u, part));
}

/// The parts of two neighbouring outputs' sums for a row among those that lie in `partial` from `at` on.
fn joined(at: u32, output: u32, row: u32) -> vec2f {
  var sum = vec2f(0.0);
  for (var slot = 0u; slot < SLOTS; slot++) {
    for (var k = 0u; k < PARTS; k++) {
      let part = at + (slot * OUTPUTS + output) * PARTS + k;
      sum += vec2f(partial[part][row], partial[part + PARTS][row]);
    }
  }
  return sum;
}

/// Whether a number is neither infinite nor none: by its bits, for WGSL may take it to be so.
fn is_finite(number: f32) -> bool {
  return (bitcast<u32>(number) & 0x7f800000u) != 0x7f800000u;
}

/// A product in f32.
fn whole(panel: u32, output: u32, row: u32) -> f32 {
  var sum = 0.0;
  for (var tile = 0u; tile < sizes.tiles; tile++) {
    for (var part = 0u; part < PARTS; part++) {
      let unit = load_unit(panel, tile, output, part);
      for (var i = 0u; i < UNIT_COLUMNS / 4u; i++) {
        let columns = x[row_at(row) + columns_at(tile, part, i / 2u)];
        let is_high = (part * UNIT_COLUMNS / 4u + i) % 2u == 1u;
        sum += dot(four(unit, i), vec4f(select(columns.low, columns.high, is_high)));
      }
    }
  }
  return sum;
}

fn store(at: u32, x: f32) { out[at] = x; }

/// Joins the sums of four rows and of two panels, which are side by side, or gate and up.
fn finish(lane: u32, first_row: u32, first_output: u32, first: u32, second: u32, one: vec4f, two: vec4f) {
  workgroupBarrier();
  partial[lane] = one;
  partial[LANES + lane] = two;
  workgroupBarrier();
  for (var item = lane; item < OUTPUTS / 2u * 4u * select(2u, 1u, GATED); item += LANES) {
    let row = first_row + item / (OUTPUTS / 2u) % 4u;
    let own = item % (OUTPUTS / 2u) * 2u;
    let output = first_output % 16u + own;
    let is_second = item >= OUTPUTS / 2u * 4u;
    if (row >= sizes.rows) { continue; }
    let at = select(0u, LANES, is_second);
    let panel = select(first, second, is_second);
    var sums = vec4f(joined(at, own, row % 4u), 0.0, 0.0);
    if (GATED) { sums = vec4f(sums.xy, joined(LANES, own, row % 4u)); }
    for (var i = 0u; i < 4u; i++) {
      if (!is_finite(sums[i])) { sums[i] = whole(select(panel, second, i >= 2u), output + i % 2u, row); }
    }
    // e^-z of very negative gates would be infinite, which WGSL may take to be absent: there silu is 0 to all digits.
    if (GATED) { sums = vec4f(sums.xy / (1.0 + exp(min(-sums.xy, vec2f(88.0)))) * sums.zw, 0.0, 0.0); }
    put(row, first_output + own + select(0u, 16u, is_second), sums.xy);
  }
}

/// Where a panel begins; those beyond the last are the last again.
fn panel_at(panel: u32, is_up: bool) -> u32 {
  return (select(sizes.panel, sizes.up_panel, is_up) + min(panel, sizes.panels - 1u)) * sizes.panel_units;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first_row = group.x * ROWS;
  let wide = select(PANELS, PANELS / 2u, GATED) * 16u; // results of a row for all shares of the panels
  let first_output = group.y / (16u / OUTPUTS) * wide + group.y % (16u / OUTPUTS) * OUTPUTS;
  let first_panel = first_output / 16u;
  let part = lane % PARTS;
  let output = first_output % 16u + lane / PARTS % OUTPUTS;
  let one = panel_at(first_panel, false);
  let two = panel_at(first_panel + select(1u, 0u, GATED), GATED);
  let three = panel_at(first_panel + select(2u, 1u, GATED), false);
  let last = panel_at(first_panel + select(3u, 1u, GATED), GATED);
  let rows = row_at(first_row);

  var one_a = vec4f();
  var one_b = vec4f();
  var two_a = vec4f();
  var two_b = vec4f();
  var three_a = vec4f();
  var three_b = vec4f();
  var last_a = vec4f();
  var last_b = vec4f();
  for (var tile = lane / (OUTPUTS * PARTS); tile < sizes.tiles; tile += SLOTS * AHEAD) {
    let one_here = load_unit(one, tile, output, part);
    let two_here = load_unit(two, tile, output, part);
    var three_here = Unit();
    var last_here = Unit();
    if (PANELS == 4u) {
      three_here = load_unit(three, tile, output, part);
      last_here = load_unit(last, tile, output, part);
    }
    // Beyond the last tile all weights are zero.
    var one_next = Unit();
    var two_next = Unit();
    var three_next = Unit();
    var last_next = Unit();
    if (AHEAD == 2u && tile + SLOTS < sizes.tiles) {
      one_next = load_unit(one, tile + SLOTS, output, part);
      two_next = load_unit(two, tile + SLOTS, output, part);
      if (PANELS == 4u) {
        three_next = load_unit(three, tile + SLOTS, output, part);
        last_next = load_unit(last, tile + SLOTS, output, part);
      }
    }
    for (var i = 0u; i < AHEAD * EIGHTS / 2u; i++) {
      let w = sixteen(one_here, one_next, i, part);
      let v = sixteen(two_here, two_next, i, part);
      let u = sixteen(three_here, three_next, i, part);
      let t = sixteen(last_here, last_next, i, part);
      let first = rows + columns_at(tile, part, 2u * i);
      var second = rows + columns_at(min(tile + SLOTS, sizes.tiles - 1u), part, 0u);
      if (AHEAD == 1u) { second = rows + columns_at(tile, part, 2u * i + 1u); }
      let a = rows_at(first, second);
      one_a += products(w, a);
      two_a += products(v, a);
      if (PANELS == 4u) {
        three_a += products(u, a);
        last_a += products(t, a);
      }
      let b = rows_at(first + 8u, second + 8u);
      one_b += products(w, b);
      two_b += products(v, b);
      if (PANELS == 4u) {
        three_b += products(u, b);
        last_b += products(t, b);
      }
    }
  }

  // All sums by the same piece of code: a GPU keeps little of it, and fetches what it has not kept.
  for (var turn = 0u; turn < PANELS; turn++) {
    let is_far = PANELS == 4u && turn % 2u == 1u;
    let is_late = turn >= PANELS / 2u;
    var near = select(one_a, three_a, is_far);
    var other = select(two_a, last_a, is_far);
    if (is_late) {
      near = select(one_b, three_b, is_far);
      other = select(two_b, last_b, is_far);
    }
    let first = select(one, three, is_far);
    let second = select(two, last, is_far);
    finish(lane, first_row + select(0u, 4u, is_late), first_output + select(0u, wide / 2u, is_far), first, second, near, other);
  }
}
