// Rows of a table: out[row] = the table's row of the row's id, unpacked. Knows nothing of what the ids stand for.
//
//   weights  packed panels of 16 table rows (src/webgpu/layout.ts); the head unpacks them
//   batch    the prepared batch (src/webgpu/buffers.ts)     out  (rows, stride4) vec4u: f32 by their bits
//   drawn    (rows) what top_k.wgsl drew before, for ids that say DRAWN and of which row
//
// One lane a unit of a row; workgroup y = row. A table in several buffers takes a dispatch each: a row is written by the one that
// holds it.

// head weights_f16

const LANES: u32 = 64u;
const PARTS: u32 = TILE_COLUMNS / UNIT_COLUMNS; // units of a table row in a tile
const DRAWN: u32 = 0x80000000u;
const IDS: u32 = 2u; // word of the batch that says where its ids begin

struct Sizes {
  out_at4: u32,     // vec4 where the first row begins
  out_stride4: u32,
  cols4: u32,
  first_panel: i32, // of this buffer in the table
  panels: u32,      // in this buffer
  panel_units: u32, // vec4u of a panel
  tiles: u32,       // of a panel
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> weights: array<vec4u>;
@group(0) @binding(2) var<storage, read> batch: array<u32>;
@group(0) @binding(3) var<storage, read> drawn: array<u32>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4u>;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (at.y >= batch[0]) { return; }
  var id = batch[batch[IDS] + at.y];
  if (id >= DRAWN) { id = drawn[id - DRAWN]; }
  let panel = u32(i32(id / 16u) - sizes.first_panel); // beyond all panels where it lies before this buffer
  let tile = at.x / PARTS;
  if (panel >= sizes.panels || tile >= sizes.tiles) { return; }
  let unit = load_unit(panel * sizes.panel_units, tile, id % 16u, at.x % PARTS);
  for (var i = 0u; i < UNIT_COLUMNS / 4u; i++) {
    let column4 = at.x * (UNIT_COLUMNS / 4u) + i;
    if (column4 < sizes.cols4) {
      out[sizes.out_at4 + at.y * sizes.out_stride4 + column4] = bitcast<vec4u>(four(unit, i));
    }
  }
}
