// Matrix products of few rows: out[row] = W · x[row], or added to what out holds. Knows nothing of what the rows are.
//
//   weights  packed panels of 16 outputs (src/webgpu/layout.ts); the head unpacks them
//   x        (rows, stride4) vec4f, pad columns zero     out  (rows, stride) f32
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
override RAGGED: bool; // whether the last tile has more columns than x

const LANES: u32 = 256u;
const PARTS: u32 = TILE_COLUMNS / UNIT_COLUMNS; // units of an output in a tile
const SLOTS: u32 = LANES / 16u / PARTS;
const MOST: u32 = 32u; // ROWS · PANELS at most
const JOINED: u32 = 2u; // sums of a lane that are joined at a time: workgroup memory is what a pipeline costs on software

struct Sizes {
  rows: u32,
  x_first: u32,
  x_stride4: u32,
  out_first: u32,
  out_stride: u32,
  outputs: u32,     // of the whole weight
  first_panel: u32, // of this buffer in the weight
  panels: u32,      // in this buffer
  panel_units: u32, // vec4u of a panel
  tiles: u32,       // of a panel
  add: u32,         // 1: to what out holds
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> weights: array<vec4u>;
@group(0) @binding(2) var<storage, read> x: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

var<workgroup> partial: array<f32, LANES * JOINED>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let first_row = group.x * ROWS;
  let panel = group.y * PANELS;
  let part = lane % PARTS;
  let output = lane / PARTS % 16u;

  var sums: array<f32, MOST>; // (ROWS, PANELS)
  var rows: array<u32, MOST>; // where they begin in x; rows and panels beyond the last are the last again
  for (var r = 0u; r < ROWS; r++) {
    rows[r] = (sizes.x_first + min(first_row + r, sizes.rows - 1u)) * sizes.x_stride4;
  }
  var panels: array<u32, 4>;
  for (var p = 0u; p < PANELS; p++) { panels[p] = min(panel + p, sizes.panels - 1u) * sizes.panel_units; }

  for (var tile = lane / (16u * PARTS); tile < sizes.tiles; tile += SLOTS) {
    var units: array<Unit, 4>;
    for (var p = 0u; p < PANELS; p++) { units[p] = load_unit(panels[p], tile, output, part); }
    let column4 = (tile * TILE_COLUMNS + part * UNIT_COLUMNS) / 4u;
    for (var i = 0u; i < UNIT_COLUMNS / 4u; i++) {
      var w: array<vec4f, 4>;
      for (var p = 0u; p < PANELS; p++) { w[p] = four(units[p], i); }
      for (var r = 0u; r < ROWS; r++) {
        var a = x[rows[r] + column4 + i];
        if (RAGGED) { a = select(vec4f(), a, column4 + i < sizes.x_stride4); }
        for (var p = 0u; p < PANELS; p++) {
          let at = r * PANELS + p;
          sums[at] = fma(w[p].w, a.w, fma(w[p].z, a.z, fma(w[p].y, a.y, fma(w[p].x, a.x, sums[at]))));
        }
      }
    }
  }

  // A result is one of 16 outputs of one row and panel: lanes take turns, 16 results of each of JOINED sums at a time.
  for (var first = 0u; first < ROWS * PANELS; first += JOINED) {
    for (var i = 0u; i < JOINED; i++) {
      if (first + i < ROWS * PANELS) { partial[i * LANES + lane] = sums[first + i]; }
    }
    workgroupBarrier();
    let at = first + lane / 16u;
    let row = first_row + at / PANELS;
    let column = (sizes.first_panel + panel + at % PANELS) * 16u + lane % 16u;
    if (lane < 16u * JOINED && at < ROWS * PANELS && panel + at % PANELS < sizes.panels && row < sizes.rows && column < sizes.outputs) {
      var sum = 0.0;
      for (var slot = 0u; slot < SLOTS; slot++) {
        for (var k = 0u; k < PARTS; k++) {
          sum += partial[lane / 16u * LANES + (slot * 16u + lane % 16u) * PARTS + k];
        }
      }
      let place = (sizes.out_first + row) * sizes.out_stride + column;
      if (sizes.add == 1u) { out[place] += sum; } else { out[place] = sum; }
    }
    workgroupBarrier();
  }
}
