// Matrix products of many rows by subgroup matrices: out[row] = W · x[row], or that added to what out holds, or gate and up joined
// by silu. Knows nothing of what the rows are.
//
//   weights  packed panels of 16 outputs (src/webgpu/layout.ts)    x  tiles of 16 rows × 16 columns (tiles.wgsl), 16-bit
//   out      (rows, out_stride) f32; of gated ones tiles as x has them
//
// A workgroup computes PANELS panels for TEAMS · ROW_TILES tiles of rows. Each team has some of the tiles of rows; its SHARES
// subgroups take turns at the columns' tiles, and their sums are joined at the end. Nothing is loaded twice by a team.

enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);

// head
const SIDE: u32 = 16u; // of a subgroup matrix
alias Left = subgroup_matrix_left<f16, 16, 16>;
alias Right = subgroup_matrix_right<f16, 16, 16>;
alias Result = subgroup_matrix_result<f32, 16, 16>;
// end of head

// head
// Tiles of 16 × 16 as they lie in storage.
@group(0) @binding(1) var<storage, read> weights: array<f16>;

const UNPACKS = false;
fn unpack_tile(panel: u32, tile: u32, place: u32, lane: u32) {}
fn left(panel: u32, tile: u32, step: u32, place: u32, at: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&weights, panel * 8u + tile * 256u + at, 16u);
}
// end of head

// head
// F16: a tile is 16 columns.
const TILE_COLUMNS: u32 = 16u;
// end of head

override PANELS: u32;
override ROW_TILES: u32;
override SHARES: u32;
override TEAMS: u32;
override SUBGROUP: u32; // lanes of a subgroup
override GATED: bool; // whether panels come in pairs, of the gate and of up

const PARTS: u32 = 16u / SIDE; // matrices across a tile
const STEPS: u32 = TILE_COLUMNS / 16u; // tiles of x across a tile of weights
override LANES: u32 = SHARES * TEAMS * SUBGROUP;

struct Sizes {
  rows: u32,
  x_tiles: u32,     // of a row of tiles
  out_at: u32,      // where the first row's results of this dispatch begin
  out_stride: u32,  // of gated ones tiles of a row of tiles
  outputs: u32,     // results of a row
  panel: u32,       // the first panel in this buffer
  panels: u32,
  up_panel: u32,    // the first of up's; else unused
  panel_units: u32, // vec4u of a panel
  tiles: u32,       // of a panel
  add: u32,         // 1: to what out holds
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(2) var<storage, read> x: array<f16>;
@group(0) @binding(3) var<storage, read_write> out: array<u32>;

const PAIR: u32 = 2u; // tiles of results of each subgroup that are joined at a time
var<workgroup> partial: array<f32, 256u * PAIR * SHARES * TEAMS>;

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let subgroup = lane / SUBGROUP;
  let share = subgroup % SHARES;
  let first_panel = group.y * select(PANELS, PANELS / 2u, GATED);
  let first_row = (group.x * TEAMS + subgroup / SHARES) * ROW_TILES;
  let row_tiles = (sizes.rows + 15u) / 16u;

  var sums: array<Result, 64>; // (ROW_TILES, PANELS, PARTS of a tile's rows, PARTS of its outputs)
  for (var i = 0u; i < ROW_TILES * PANELS * PARTS * PARTS; i++) { sums[i] = Result(); }
  var panels: array<u32, 8>; // those beyond the last are the last again
  for (var p = 0u; p < PANELS; p++) {
    let place = min(first_panel + select(p, p / 2u, GATED), sizes.panels - 1u);
    panels[p] = (select(sizes.panel, sizes.up_panel, GATED && p % 2u == 1u) + place) * sizes.panel_units;
  }
  var rows: array<u32, 8>; // where tiles of rows begin
  for (var r = 0u; r < ROW_TILES; r++) { rows[r] = min(first_row + r, row_tiles - 1u) * sizes.x_tiles * 256u; }

  let rounds = (sizes.tiles + SHARES - 1u) / SHARES;
  for (var round = 0u; round < rounds; round++) {
    let tile = round * SHARES + share;
    if (UNPACKS) {
      workgroupBarrier();
      if (tile < sizes.tiles) {
        for (var p = 0u; p < PANELS; p++) { unpack_tile(panels[p], tile, subgroup * PANELS + p, lane % SUBGROUP); }
      }
      workgroupBarrier();
    }
    if (tile < sizes.tiles) {
      for (var step = 0u; step < STEPS; step++) {
        for (var k = 0u; k < PARTS; k++) {
          var lefts: array<Left, 16>; // (PANELS, PARTS)
          for (var p = 0u; p < PANELS; p++) {
            for (var i = 0u; i < PARTS; i++) {
              lefts[p * PARTS + i] = left(panels[p], tile, step, subgroup * PANELS + p, i * SIDE * 16u + k * SIDE);
            }
          }
          var rights: array<Right, 16>; // (ROW_TILES, PARTS)
          for (var r = 0u; r < ROW_TILES; r++) {
            for (var n = 0u; n < PARTS; n++) {
              let at = rows[r] + (tile * STEPS + step) * 256u + n * SIDE * 16u + k * SIDE;
              rights[r * PARTS + n] = subgroupMatrixLoad<Right, col_major>(&x, at, 16u);
            }
          }
          for (var r = 0u; r < ROW_TILES; r++) {
            for (var p = 0u; p < PANELS; p++) {
              for (var n = 0u; n < PARTS; n++) {
                for (var i = 0u; i < PARTS; i++) {
                  let at = ((r * PANELS + p) * PARTS + n) * PARTS + i;
                  sums[at] = subgroupMatrixMultiplyAccumulate(lefts[p * PARTS + i], rights[r * PARTS + n], sums[at]);
                }
              }
            }
          }
        }
      }
    }
  }

  // Two tiles of each subgroup at a time: the shares' sums become results.
  for (var first = 0u; first < ROW_TILES * PANELS; first += PAIR) {
    workgroupBarrier();
    for (var j = 0u; j < PAIR; j++) {
      for (var n = 0u; n < PARTS; n++) {
        for (var i = 0u; i < PARTS; i++) {
          let at = (subgroup * PAIR + j) * 256u + n * SIDE * 16u + i * SIDE;
          subgroupMatrixStore<col_major>(&partial, at, sums[((first + j) * PARTS + n) * PARTS + i], 16u);
        }
      }
    }
    workgroupBarrier();
    // Two neighbouring outputs of a row: 128 of them a tile.
    for (var e = lane; e < TEAMS * 128u; e += LANES) {
      let team = e / 128u;
      let row = ((group.x * TEAMS + team) * ROW_TILES + first / PANELS) * 16u + e % 128u / 8u;
      if (row >= sizes.rows) { continue; }
      var results = array<vec2f, PAIR>(); // said, since Dawn zeroes no variable again in a loop
      for (var j = 0u; j < PAIR; j++) {
        for (var s = 0u; s < SHARES; s++) {
          let at = ((team * SHARES + s) * PAIR + j) * 256u + e % 128u * 2u;
          results[j] += vec2f(partial[at], partial[at + 1u]);
        }
      }
      if (GATED) {
        let panel = first_panel + first % PANELS / 2u;
        if (panel >= sizes.panels) { continue; }
        let z = results[0];
        let joined = z / (1.0 + exp(min(-z, vec2f(88.0)))) * results[1];
        let to = (row / 16u * sizes.out_stride + panel) * 256u + row % 16u * 16u + e % 8u * 2u;
        out[to / 2u] = pack2x16float(clamp(joined, vec2f(-65504.0), vec2f(65504.0)));
      } else {
        for (var j = 0u; j < PAIR; j++) {
          let panel = first_panel + first % PANELS + j;
          let column = panel * 16u + e % 8u * 2u;
          if (panel >= sizes.panels) { continue; }
          let to = sizes.out_at + row * sizes.out_stride + column;
          for (var i = 0u; i < 2u; i++) {
            if (column + i < sizes.outputs) {
              var sum = results[j][i];
              if (sizes.add == 1u) { sum += bitcast<f32>(out[to + i]); }
              out[to + i] = bitcast<u32>(sum);
            }
          }
        }
      }
    }
  }
}
