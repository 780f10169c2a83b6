// Matrix products of many rows in f32: out[row] = W · x[row], or that added to what out holds, or gate and up joined by silu.
// Knows nothing of what the rows are.
//
//   weights  packed panels of 16 outputs (src/webgpu/layout.ts); the head unpacks them
//   x        (rows, x_stride4) vec4f, pad columns zero     out  (rows, out_stride) f32
//
// A workgroup computes VECTORS · 4 · ACROSS outputs for ROWS rows: a quarter of its lanes has every fourth CHUNK of columns, and the
// quarters' sums are joined at the end. A lane has four outputs, or twice four, of four rows: what it needs of a chunk lies in
// workgroup memory. Sums have names and are no array: compilers keep arrays in slow memory.

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

override ROWS: u32; // 16 or 32
override VECTORS: u32; // 1 or 2
override GATED: bool; // whether the second vector's outputs are up's; VECTORS is 2 then

const LANES = 256u;
const QUARTER = 64u; // lanes
override CHUNK: u32 = select(8u, 4u, ROWS == 16u && VECTORS == 2u); // columns; what workgroup memory of 16 KiB allows
override ACROSS: u32 = QUARTER / (ROWS / 4u); // lanes of a quarter for ever four more outputs
override WIDTH: u32 = 4u * ACROSS; // outputs of a vector

struct Sizes {
  rows: u32,
  x_at: u32,        // vec4 where the first row begins
  x_stride4: u32,
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
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

var<workgroup> w: array<vec4f, 4u * CHUNK * VECTORS * ACROSS>; // (quarter, column, vector, lane across)
var<workgroup> a: array<vec4f, 4u * CHUNK * (ROWS / 4u)>; // (quarter, column, four rows)
var<private> first_output: u32;
var<private> first_row: u32;

/// A chunk of an output, column by column.
fn stage_weights(quarter: u32, chunk: u32, vector: u32, output: u32) {
  let of_up = GATED && vector == 1u;
  let number = first_output + select(vector * WIDTH, 0u, of_up) + output;
  let panel = select(sizes.panel, sizes.up_panel, of_up) + min(number / 16u, sizes.panels - 1u);
  for (var i = 0u; i < CHUNK; i += 4u) {
    let column = chunk * CHUNK + i;
    let tile = column / TILE_COLUMNS;
    var values = vec4f();
    if (tile < sizes.tiles) {
      let unit = load_unit(panel * sizes.panel_units, tile, number % 16u, column % TILE_COLUMNS / UNIT_COLUMNS);
      values = four(unit, column % UNIT_COLUMNS / 4u);
    }
    for (var c = 0u; c < 4u; c++) {
      w[((quarter * CHUNK + i + c) * VECTORS + vector) * ACROSS + output / 4u][output % 4u] = values[c];
    }
  }
}

/// Four columns of a chunk of a row.
fn stage_row(quarter: u32, chunk: u32, row: u32, i: u32) {
  let column4 = (chunk * CHUNK + i) / 4u;
  var values = vec4f();
  if (column4 < sizes.x_stride4) { values = x[sizes.x_at + min(first_row + row, sizes.rows - 1u) * sizes.x_stride4 + column4]; }
  for (var c = 0u; c < 4u; c++) { a[(quarter * CHUNK + i + c) * (ROWS / 4u) + row / 4u][row % 4u] = values[c]; }
}

/// Joins the quarters' sums of one output of each lane, and of one of the second vector. one, two: of the lane's four rows.
fn finish(lane: u32, j: u32, one: vec4f, two: vec4f) {
  workgroupBarrier();
  w[lane] = one;
  if (VECTORS == 2u) { w[LANES + lane] = two; }
  workgroupBarrier();
  // Now a lane has one of the rows.
  let place = lane % QUARTER;
  let row = first_row + place / ACROSS * 4u + lane / QUARTER;
  let output = first_output + place % ACROSS * 4u + j;
  if (row >= sizes.rows) { return; }
  var sum = w[place][lane / QUARTER];
  for (var q = 1u; q < 4u; q++) { sum += w[q * QUARTER + place][lane / QUARTER]; }
  var other = 0.0;
  if (VECTORS == 2u) {
    for (var q = 0u; q < 4u; q++) { other += w[LANES + q * QUARTER + place][lane / QUARTER]; }
  }
  if (GATED) {
    // e^-z of very negative gates would be infinite, which WGSL may take to be absent: there silu is 0 to all digits.
    put(row, output, sum / (1.0 + exp(min(-sum, 88.0))) * other);
  } else {
    put(row, output, sum);
    if (VECTORS == 2u) { put(row, output + WIDTH, other); }
  }
}

fn put(row: u32, output: u32, sum: f32) {
  if (output >= min(sizes.outputs, sizes.panels * 16u)) { return; }
  let at = sizes.out_at + row * sizes.out_stride + output;
  if (sizes.add == 1u) { out[at] += sum; } else { out[at] = sum; }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  first_row = group.x * ROWS;
  first_output = group.y * WIDTH * select(VECTORS, 1u, GATED);
  let quarter = lane / QUARTER;
  let place = lane % QUARTER;
  let outputs = place % ACROSS;
  let rows = place / ACROSS;

  var one_0 = vec4f();
  var one_1 = vec4f();
  var one_2 = vec4f();
  var one_3 = vec4f();
  var two_0 = vec4f();
  var two_1 = vec4f();
  var two_2 = vec4f();
  var two_3 = vec4f();
  let chunks = sizes.tiles * TILE_COLUMNS / CHUNK;
  for (var first = 0u; first < chunks; first += 4u) {
    workgroupBarrier();
    for (var i = place; i < VECTORS * WIDTH; i += QUARTER) { stage_weights(quarter, first + quarter, i / WIDTH, i % WIDTH); }
    for (var i = place; i < ROWS * (CHUNK / 4u); i += QUARTER) { stage_row(quarter, first + quarter, i % ROWS, i / ROWS * 4u); }
    workgroupBarrier();
    for (var k = 0u; k < CHUNK; k++) {
      let column = quarter * CHUNK + k;
      let r = a[column * (ROWS / 4u) + rows];
      let u = w[column * VECTORS * ACROSS + outputs];
      one_0 = fma(vec4f(u.x), r, one_0);
      one_1 = fma(vec4f(u.y), r, one_1);
      one_2 = fma(vec4f(u.z), r, one_2);
      one_3 = fma(vec4f(u.w), r, one_3);
      if (VECTORS == 2u) {
        let v = w[(column * VECTORS + 1u) * ACROSS + outputs];
        two_0 = fma(vec4f(v.x), r, two_0);
        two_1 = fma(vec4f(v.y), r, two_1);
        two_2 = fma(vec4f(v.z), r, two_2);
        two_3 = fma(vec4f(v.w), r, two_3);
      }
    }
  }
  finish(lane, 0u, one_0, two_0);
  finish(lane, 1u, one_1, two_1);
  finish(lane, 2u, one_2, two_2);
  finish(lane, 3u, one_3, two_3);
}
