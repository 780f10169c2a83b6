// Matrix products in f32: out[row] = W · norm(x[row]), or that added to what out holds, or gate and up joined by silu.
// Knows nothing of what the rows are.
//
//   weights  packed panels of 16 outputs (src/webgpu/layout.ts); the head unpacks them
//   x        (rows, x_stride4) vec4f, pad columns zero     norm  (x_stride4) vec4f     out  (rows, out_stride) f32
//
// A workgroup computes OUTPUTS of each of PANELS panels for ROWS rows. A lane keeps to one of them and to every SLOTS-th tile of its
// columns, so consecutive lanes read consecutive units; an output's partial sums are joined at the end. The order of sums depends
// on the weight alone, never on ROWS, PANELS or the number of rows: a row computes the same bits in any company.
// Sums have names and are no array: compilers keep arrays in slow memory.

// head
// F16: a unit is 8 halves of an output; a tile is 16 columns.
const TILE_COLUMNS: u32 = 16u;
const UNIT_COLUMNS: u32 = 8u;

struct Unit { halves: vec4u }

fn load_unit(panel: u32, tile: u32, output: u32, part: u32) -> Unit {
  return Unit(weights[panel + tile * 32u + output * 2u + part]);
}
fn four(unit: Unit, i: u32) -> vec4f {
  return vec4f(unpack2x16float(unit.halves[2u * i]), unpack2x16float(unit.halves[2u * i + 1u]));
}
// end of head

// A head with overrides stands before all that follow from others: Deno's compiler fails otherwise.
// head
/// Two neighbouring results of a row; the second is none where the results end with the first.
fn put(row: u32, output: u32, sums: vec2f) {
  if (output >= min(sizes.outputs, sizes.panels * 16u)) { return; }
  let at = sizes.out_at + row * sizes.out_stride + output;
  var x = sums;
  if (sizes.add == 1u) { x += vec2f(stored(at), stored(at + 1u)); }
  store(at, x.x);
  if (output + 1u < sizes.outputs) { store(at + 1u, x.y); }
}
// end of head

override ROWS: u32; // 1, 2, 4 or 8
override PANELS: u32; // 1, 2 or 4: more sums for each load of x
override OUTPUTS: u32; // 16, or fewer where there are few panels
override AHEAD: u32 = select(2u, 1u, PANELS == 4u); // tiles of each panel that a lane loads before it computes with them
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

override JOINED: u32 = min(ROWS, 4u); // rows whose sums are joined at a time
override PAIR: u32 = min(PANELS, 2u); // panels whose sums are joined at a time
override TURNS: u32 = select(1u, 2u, ROWS == 8u) * select(1u, 2u, PANELS == 4u); // until all are
var<workgroup> partial: array<vec4f, LANES * PAIR>; // of up to four rows: first panel, second panel
var<workgroup> scales: array<f32, 8>;

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

/// Four columns of four rows, or of two, by column.
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

/// The scales of up to four rows from their sums of squares.
fn scale_rows(lane: u32, first: u32, squares: vec4f) {
  workgroupBarrier();
  partial[lane] = squares;
  workgroupBarrier();
  if (lane < JOINED) { scales[first + lane] = 1.0 / sqrt(joined(0u, 0u, lane).x / f32(sizes.cols) + sizes.eps); }
}

fn stored(at: u32) -> f32 { return out[at]; }
fn store(at: u32, x: f32) { out[at] = x; }

/// Joins the sums of up to four rows, from `row` of the workgroup on, and of up to two panels: OUTPUTS results of each row and panel.
fn finish(lane: u32, first_row: u32, first_output: u32, row: u32, one: vec4f, two: vec4f) {
  workgroupBarrier();
  partial[lane] = one;
  if (PAIR == 2u) { partial[LANES + lane] = two; }
  workgroupBarrier();
  for (var item = lane; item < OUTPUTS / 2u * JOINED * select(PAIR, 1u, GATED); item += LANES) {
    let which = item / (OUTPUTS / 2u); // row and panel
    let own = item % (OUTPUTS / 2u) * 2u;
    let here = row + which % JOINED;
    let column = first_output + select(which / JOINED, 0u, GATED) * 16u + own;
    if (first_row + here >= sizes.rows) { continue; }
    var scale = 1.0;
    if (NORM) { scale = scales[here]; }
    let at = which / JOINED * LANES;
    var sums = joined(at, own, which % JOINED) * scale;
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
  let wide = select(PANELS, max(PANELS / 2u, 1u), GATED) * 16u; // results of a row for all shares of the panels
  let first_output = group.y / (16u / OUTPUTS) * wide + group.y % (16u / OUTPUTS) * OUTPUTS;
  let first_panel = first_output / 16u;
  let part = lane % PARTS;
  let output = first_output % 16u + lane / PARTS % OUTPUTS;
  let one = panel_at(first_panel, false);
  let two = panel_at(first_panel + select(1u, 0u, GATED), GATED);
  let three = panel_at(first_panel + select(2u, 1u, GATED), false);
  let last = panel_at(first_panel + select(3u, 1u, GATED), GATED);

  var one_a = vec4f();
  var one_b = vec4f();
  var two_a = vec4f();
  var two_b = vec4f();
  var three_a = vec4f();
  var three_b = vec4f();
  var last_a = vec4f();
  var last_b = vec4f();
  var squares_a = vec4f();
  var squares_b = vec4f();
  for (var first = lane / (OUTPUTS * PARTS); first < sizes.tiles; first += SLOTS * AHEAD) {
    let next = min(first + SLOTS, sizes.tiles - 1u);
    let one_here = load_unit(one, first, output, part);
    var one_next = one_here;
    var two_here = one_here;
    var two_next = one_here;
    var three_here = one_here;
    var last_here = one_here;
    if (AHEAD == 2u) { one_next = load_unit(one, next, output, part); }
    if (PANELS >= 2u) {
      two_here = load_unit(two, first, output, part);
      if (AHEAD == 2u) { two_next = load_unit(two, next, output, part); }
    }
    if (PANELS == 4u) {
      three_here = load_unit(three, first, output, part);
      last_here = load_unit(last, first, output, part);
    }
    for (var i = 0u; i < AHEAD * (UNIT_COLUMNS / 4u); i++) {
      let is_next = AHEAD == 2u && i >= UNIT_COLUMNS / 4u;
      let tile = first + select(0u, SLOTS, is_next);
      let quad = i % (UNIT_COLUMNS / 4u);
      let column4 = (tile * TILE_COLUMNS + part * UNIT_COLUMNS) / 4u + quad;
      if (tile >= sizes.tiles || (RAGGED && column4 >= sizes.x_stride4)) { break; }
      var w: vec4f;
      var v: vec4f;
      var u: vec4f;
      var t: vec4f;
      if (is_next) { w = four(one_next, quad); } else { w = four(one_here, quad); }
      if (PANELS >= 2u) {
        if (is_next) { v = four(two_next, quad); } else { v = four(two_here, quad); }
      }
      if (PANELS == 4u) {
        u = four(three_here, quad);
        t = four(last_here, quad);
      }
      var scale = vec4f();
      if (NORM) { scale = norm[column4]; }
      if (ROWS == 1u) {
        var a = x[place_of(first_row) + column4];
        if (NORM) {
          squares_a.x += dot(a, a);
          a *= scale;
        }
        one_a.x = fma(w.w, a.w, fma(w.z, a.z, fma(w.y, a.y, fma(w.x, a.x, one_a.x))));
        if (PANELS >= 2u) { two_a.x = fma(v.w, a.w, fma(v.z, a.z, fma(v.y, a.y, fma(v.x, a.x, two_a.x)))); }
        if (PANELS == 4u) {
          three_a.x = fma(u.w, a.w, fma(u.z, a.z, fma(u.y, a.y, fma(u.x, a.x, three_a.x))));
          last_a.x = fma(t.w, a.w, fma(t.z, a.z, fma(t.y, a.y, fma(t.x, a.x, last_a.x))));
        }
        continue;
      }
      var a = rows_at(first_row, column4);
      if (NORM) {
        squares_a += squared(a);
        a = normed(a, scale);
      }
      one_a = added(one_a, w, a);
      if (PANELS >= 2u) { two_a = added(two_a, v, a); }
      if (PANELS == 4u) {
        three_a = added(three_a, u, a);
        last_a = added(last_a, t, a);
      }
      if (ROWS == 8u) {
        var b = rows_at(first_row + 4u, column4);
        if (NORM) {
          squares_b += squared(b);
          b = normed(b, scale);
        }
        one_b = added(one_b, w, b);
        if (PANELS >= 2u) { two_b = added(two_b, v, b); }
        if (PANELS == 4u) {
          three_b = added(three_b, u, b);
          last_b = added(last_b, t, b);
        }
      }
    }
  }

  if (NORM) {
    scale_rows(lane, 0u, squares_a);
    if (ROWS == 8u) { scale_rows(lane, 4u, squares_b); }
  }
  // All sums by the same piece of code: a GPU keeps little of it, and fetches what it has not kept.
  for (var turn = 0u; turn < TURNS; turn++) {
    let is_far = PANELS == 4u && turn % 2u == 1u;
    let is_late = ROWS == 8u && turn >= TURNS / 2u;
    var near = select(one_a, three_a, is_far);
    var other = select(two_a, last_a, is_far);
    if (is_late) {
      near = select(one_b, three_b, is_far);
      other = select(two_b, last_b, is_far);
    }
    finish(lane, first_row, first_output + select(0u, wide / 2u, is_far), select(0u, 4u, is_late), near, other);
  }
}
