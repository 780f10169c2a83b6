// Matrix products of few rows: out[row] = W · norm(x[row]), or that added to what out holds, or gate and up joined by silu.
// Knows nothing of what the rows are.
//
//   weights  packed panels of 16 outputs (src/webgpu/layout.ts); the head unpacks them
//   x        (rows, x_stride4) vec4f, pad columns zero     norm  (x_stride4) vec4f     out  (rows, out_stride) f32
//
// A workgroup computes PANELS panels for ROWS rows. A lane keeps to one of a panel's 16 outputs and to every SLOTS-th tile of
// its columns, so consecutive lanes read consecutive units; the 16 partial sums of an output are joined at the end. The order of
// sums depends on the weight alone, never on ROWS, PANELS or the number of rows: a row computes the same bits in any company.

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

override ROWS: u32;
override PANELS: u32;
override AHEAD: u32;    // tiles of each panel that a lane loads before it computes with them
override RAGGED: bool; // whether the last tile has more columns than x
override NORM: bool;   // whether rows are normalised on their way in; else `norm` is not read
override GATED: bool;  // whether panels come in pairs, of the gate and of up

const LANES: u32 = 256u;
const PARTS: u32 = TILE_COLUMNS / UNIT_COLUMNS; // units of an output in a tile
const SLOTS: u32 = LANES / 16u / PARTS;
const MOST: u32 = 32u; // ROWS · PANELS at most
const JOINED: u32 = 2u; // sums of a lane that are joined at a time: workgroup memory is what a pipeline costs on software

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

var<workgroup> partial: array<f32, LANES * JOINED>;
var<workgroup> scales: array<f32, ROWS>;

/// The 16 parts of lane `output`'s sum among those that lie in `partial` from `at` on.
fn joined(at: u32, output: u32) -> f32 {
  var sum = 0.0;
  for (var slot = 0u; slot < SLOTS; slot++) {
    for (var k = 0u; k < PARTS; k++) { sum += partial[at + (slot * 16u + output) * PARTS + k]; }
  }
  return sum;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first_row = group.x * ROWS;
  let first_panel = group.y * select(PANELS, PANELS / 2u, GATED);
  let part = lane % PARTS;
  let output = lane / PARTS % 16u;

  var sums: array<f32, MOST>; // (ROWS, PANELS)
  var squares: array<f32, 8>; // (ROWS)
  var rows: array<u32, 16>; // where they begin in x; rows and panels beyond the last are the last again
  for (var r = 0u; r < ROWS; r++) { rows[r] = sizes.x_at + min(first_row + r, sizes.rows - 1u) * sizes.x_stride4; }
  var panels: array<u32, 4>;
  for (var p = 0u; p < PANELS; p++) {
    let place = min(first_panel + select(p, p / 2u, GATED), sizes.panels - 1u);
    panels[p] = (select(sizes.panel, sizes.up_panel, GATED && p % 2u == 1u) + place) * sizes.panel_units;
  }

  for (var first = lane / (16u * PARTS); first < sizes.tiles; first += SLOTS * AHEAD) {
    var units: array<Unit, 8>; // (AHEAD, PANELS)
    for (var i = 0u; i < AHEAD; i++) {
      let tile = min(first + i * SLOTS, sizes.tiles - 1u);
      for (var p = 0u; p < PANELS; p++) { units[i * PANELS + p] = load_unit(panels[p], tile, output, part); }
    }
    for (var step = 0u; step < AHEAD; step++) {
      let tile = first + step * SLOTS;
      if (tile >= sizes.tiles) { break; }
      let column4 = (tile * TILE_COLUMNS + part * UNIT_COLUMNS) / 4u;
      for (var i = 0u; i < UNIT_COLUMNS / 4u; i++) {
        let inside = !RAGGED || column4 + i < sizes.x_stride4;
        var w: array<vec4f, 4>;
        for (var p = 0u; p < PANELS; p++) { w[p] = four(units[step * PANELS + p], i); }
        var scale = vec4f();
        if (NORM && inside) { scale = norm[column4 + i]; }
        for (var r = 0u; r < ROWS; r++) {
          var a = vec4f();
          if (inside) { a = x[rows[r] + column4 + i]; }
          if (NORM) {
            squares[r] += dot(a, a);
            a *= scale;
          }
          for (var p = 0u; p < PANELS; p++) {
            let at = r * PANELS + p;
            sums[at] = fma(w[p].w, a.w, fma(w[p].z, a.z, fma(w[p].y, a.y, fma(w[p].x, a.x, sums[at]))));
          }
        }
      }
    }
  }

  if (NORM) {
    for (var first = 0u; first < ROWS; first += JOINED) {
      for (var i = 0u; i < JOINED; i++) {
        if (first + i < ROWS) { partial[i * LANES + lane] = squares[first + i]; }
      }
      workgroupBarrier();
      if (lane < JOINED && first + lane < ROWS) {
        scales[first + lane] = 1.0 / sqrt(joined(lane * LANES, 0u) / f32(sizes.cols) + sizes.eps);
      }
      workgroupBarrier();
    }
  }

  // A result is one of 16 outputs of one row and panel: lanes take turns, 16 results of each of JOINED sums at a time.
  for (var first = 0u; first < ROWS * PANELS; first += JOINED) {
    for (var i = 0u; i < JOINED; i++) {
      if (first + i < ROWS * PANELS) { partial[i * LANES + lane] = sums[first + i]; }
    }
    workgroupBarrier();
    let at = first + lane / 16u * select(1u, 2u, GATED);
    let row = first_row + at / PANELS;
    let panel = first_panel + select(at % PANELS, at % PANELS / 2u, GATED);
    let column = panel * 16u + lane % 16u;
    if (lane < select(16u * JOINED, 16u, GATED) && at < ROWS * PANELS && panel < sizes.panels && row < sizes.rows && column < sizes.outputs) {
      var scale = 1.0;
      if (NORM) { scale = scales[at / PANELS]; }
      var sum = joined(lane / 16u * LANES, lane % 16u) * scale;
      if (GATED) {
        // e^-z of very negative gates would be infinite, which WGSL may take to be absent: there silu is 0 to all digits.
        sum = sum / (1.0 + exp(min(-sum, 88.0))) * joined(LANES, lane) * scale;
      }
      let place = sizes.out_at + row * sizes.out_stride + column;
      if (sizes.add == 1u) { out[place] += sum; } else { out[place] = sum; }
    }
    workgroupBarrier();
  }
}
