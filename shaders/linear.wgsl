// Matrix products of a few rows in f32: out[row] = W · norm(x[row]), or that added to what out holds, or gate and up joined by silu.
// Knows nothing of what the rows are.
//
//   weights  packed panels of 16 outputs (src/webgpu/layout.ts); the head unpacks them
//   x        (rows, x_stride4) vec4f, pad columns zero     norm  (x_stride4) vec4f     out  (rows, out_stride) f32
//
// A workgroup computes OUTPUTS of each of PANELS panels for ROWS rows. A lane keeps to one of them and to every SLOTS-th tile of its
// columns, so consecutive lanes read consecutive units; an output's partial sums are joined at the end. Sums have names and are no
// array: compilers keep arrays in slow memory.

// head weights_f16

// A head with overrides stands before all that follow from others: Deno's compiler fails otherwise.
// head added

override ROWS: u32; // 2 or 4
override PANELS: u32; // 2 or 4: more sums for each load of x
override OUTPUTS: u32; // 16, or fewer where there are few panels
override RAGGED: bool; // whether the last tile has more columns than x
override NORM: bool;   // whether rows are normalised on their way in; else `norm` is not read
override GATED: bool;  // whether panels come in pairs, of the gate and of up

override LANES: u32; // at least 16 units of a tile
const PARTS: u32 = TILE_COLUMNS / UNIT_COLUMNS; // units of an output in a tile
override SLOTS: u32 = LANES / OUTPUTS / PARTS;

struct Sizes {
  rows: u32,
  x_at: u32,        // vec4 where the first row begins
  x_stride4: u32,
  cols: u32,
  eps: f32,
  out_at: u32,      // where the first row's results of this dispatch begin
  out_stride: u32,
  outputs: u32,     // results of a row
  panel: u32,       // the first panel in this buffer
  panels: u32,
  up_panel: u32,    // the first of up's; else unused
  panel_units: u32, // vec4u of a panel
  tiles: u32,       // of a panel
  add: u32,         // 1: to what out holds
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> weights: array<vec4u>;
@group(0) @binding(2) var<storage, read> x: array<vec4f>;
@group(0) @binding(3) var<storage, read> norm: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

var<workgroup> partial: array<vec4f, 2u * LANES>; // of the rows: first panel, second panel
var<workgroup> scales: array<f32, 4>;

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

/// Four columns of the rows, by column.
struct Four { x: vec4f, y: vec4f, z: vec4f, w: vec4f }

fn rows_at(row: u32, column4: u32) -> Four {
  var last = vec4f();
  var third = vec4f();
  let first = x[place_of(row) + column4];
  let second = x[place_of(row + 1u) + column4];
  if (ROWS > 2u) {
    third = x[place_of(row + 2u) + column4];
    last = x[place_of(row + 3u) + column4];
  }
  return Four(
    vec4f(first.x, second.x, third.x, last.x),
    vec4f(first.y, second.y, third.y, last.y),
    vec4f(first.z, second.z, third.z, last.z),
    vec4f(first.w, second.w, third.w, last.w),
  );
}

/// Where a row begins in x; rows beyond the last are the last again.
fn place_of(row: u32) -> u32 {
  return sizes.x_at + min(row, sizes.rows - 1u) * sizes.x_stride4;
}

fn added(sum: vec4f, w: vec4f, a: Four) -> vec4f {
  return fma(w.wwww, a.w, fma(w.zzzz, a.z, fma(w.yyyy, a.y, fma(w.xxxx, a.x, sum))));
}

fn normed(a: Four, scale: vec4f) -> Four {
  return Four(a.x * scale.x, a.y * scale.y, a.z * scale.z, a.w * scale.w);
}

fn squared(a: Four) -> vec4f {
  return fma(a.w, a.w, fma(a.z, a.z, fma(a.y, a.y, a.x * a.x)));
}

/// The rows' scales from their sums of squares.
fn scale_rows(lane: u32, squares: vec4f) {
  partial[lane] = squares;
  workgroupBarrier();
  if (lane < ROWS) { scales[lane] = 1.0 / sqrt(joined(0u, 0u, lane).x / f32(sizes.cols) + sizes.eps); }
}

fn stored(at: u32) -> f32 { return out[at]; }
fn store(at: u32, x: f32) { out[at] = x; }

/// Joins the rows' sums of two panels: OUTPUTS results of each row and panel.
fn finish(lane: u32, first_row: u32, first_output: u32, one: vec4f, two: vec4f) {
  workgroupBarrier();
  partial[lane] = one;
  partial[LANES + lane] = two;
  workgroupBarrier();
  for (var item = lane; item < OUTPUTS / 2u * ROWS * select(2u, 1u, GATED); item += LANES) {
    let which = item / (OUTPUTS / 2u); // row and panel
    let own = item % (OUTPUTS / 2u) * 2u;
    let here = which % ROWS;
    let column = first_output + select(which / ROWS, 0u, GATED) * 16u + own;
    if (first_row + here >= sizes.rows) { continue; }
    var scale = 1.0;
    if (NORM) { scale = scales[here]; }
    let at = which / ROWS * LANES;
    var sums = joined(at, own, here) * scale;
    if (GATED) {
      // e^-z of very negative gates would be infinite, which WGSL may take to be absent: there silu is 0 to all digits.
      let ups = joined(LANES, own, which) * scale;
      sums = sums / (1.0 + exp(min(-sums, vec2f(88.0)))) * ups;
    }
    put(first_row + here, column, sums);
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

  var of_one = vec4f();
  var of_two = vec4f();
  var of_three = vec4f();
  var of_last = vec4f();
  var squares = vec4f();
  for (var tile = lane / (OUTPUTS * PARTS); tile < sizes.tiles; tile += SLOTS) {
    let unit = load_unit(one, tile, output, part);
    let second = load_unit(two, tile, output, part);
    var third = unit;
    var fourth = second;
    if (PANELS == 4u) {
      third = load_unit(three, tile, output, part);
      fourth = load_unit(last, tile, output, part);
    }
    for (var i = 0u; i < UNIT_COLUMNS / 4u; i++) {
      let column4 = (tile * TILE_COLUMNS + part * UNIT_COLUMNS) / 4u + i;
      if (RAGGED && column4 >= sizes.x_stride4) { break; }
      let w = four(unit, i);
      let v = four(second, i);
      var u: vec4f;
      var t: vec4f;
      if (PANELS == 4u) {
        u = four(third, i);
        t = four(fourth, i);
      }
      var scale = vec4f();
      if (NORM) { scale = norm[column4]; }
      var a = rows_at(first_row, column4);
      if (NORM) {
        squares += squared(a);
        a = normed(a, scale);
      }
      of_one = added(of_one, w, a);
      of_two = added(of_two, v, a);
      if (PANELS == 4u) {
        of_three = added(of_three, u, a);
        of_last = added(of_last, t, a);
      }
    }
  }

  if (NORM) { scale_rows(lane, squares); }
  // All sums by the same piece of code: a GPU keeps little of it, and fetches what it has not kept.
  for (var turn = 0u; turn < PANELS / 2u; turn++) {
    let is_far = turn == 1u;
    finish(lane, first_row, first_output + select(0u, wide / 2u, is_far), select(of_one, of_three, is_far), select(of_two, of_last, is_far));
  }
}
