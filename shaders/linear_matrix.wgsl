// Matrix products of many rows by subgroup matrices: out[row] = W · x[row], or that added to what out holds, or gate and up joined
// by silu. Knows nothing of what the rows are.
//
//   weights  packed panels of 16 outputs (src/webgpu/layout.ts)    x  tiles of 16 rows × 16 columns (tiles.wgsl), 16-bit
//   out      (rows, out_stride) f32; of gated ones tiles as x has them
//
// A workgroup computes LEFTS · SIDE outputs (panels, or halves of them) for TEAMS · RIGHTS · SIDE rows. Each team has rows of its own;
// its SHARES subgroups take turns at the columns, and their sums are joined at the end. Nothing is loaded twice by a team. The sums
// have names and are no array: compilers keep arrays of matrices in slow memory.

enable f16;
enable subgroups;
enable chromium_experimental_subgroup_matrix;
diagnostic(off, chromium.subgroup_matrix_uniformity);
diagnostic(off, subgroup_uniformity);

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
fn unpack(source: Place, tile: u32, to: u32, lane: u32) {}
fn left(source: Place, tile: u32, column: u32, to: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&weights, source.panel * 8u + tile * 256u + source.at + column, 16u);
}
// end of head

// head
// F16: a tile is 16 columns.
const TILE_COLUMNS: u32 = 16u;
// end of head

override LEFTS: u32; // 1 or 2: matrices of outputs; 2 where they are gated
override RIGHTS: u32; // 1, 2 or 4: matrices of rows that a team has
override SHARES: u32;
override TEAMS: u32;
override SUBGROUP: u32; // lanes of a subgroup
override GATED: bool; // whether the outputs are SIDE of the gate and as many of up

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
  column: u32,      // the first result's column in its row; this and the others for rows that a norm reads, see the heads
  next_tiles: u32,  // of a row of tiles that go out
  norm_rows: u32,
  scales_at: u32,
  cols: u32,
  eps: f32,
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(2) var<storage, read> x: array<f16>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;

const MATRIX: u32 = SIDE * SIDE;
var<workgroup> partial: array<f32, 2u * MATRIX * SHARES * TEAMS>; // two matrices of each subgroup
var<private> first_output: u32; // of a panel row: what the outputs of the workgroup begin with
var<private> team_row: u32;

/// Where an output's row of its tile begins in the weights.
struct Place { panel: u32, at: u32 }

fn place_of(output: u32, is_up: bool) -> Place {
  let panel = min(output / 16u, sizes.panels - 1u);
  return Place((select(sizes.panel, sizes.up_panel, is_up) + panel) * sizes.panel_units, output % 16u * 16u);
}

fn right(row: u32, column: u32) -> Right {
  // Rows beyond the last are those of the last tile: their results are not taken.
  let tile = min(row / 16u, (sizes.rows - 1u) / 16u);
  return subgroupMatrixLoad<Right, col_major>(&x, (tile * sizes.x_tiles + column / 16u) * 256u + row % 16u * 16u + column % 16u, 16u);
}

fn stored(at: u32) -> f32 { return bitcast<f32>(out[at]); }
fn store(at: u32, x: f32) { out[at] = bitcast<u32>(x); }

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

// head
/// What sums of a row of the workgroup are multiplied with, once all lanes were at scale_rows.
fn scale_rows(lane: u32, is_first: bool) {}
fn scale_of(row: u32) -> f32 { return 1.0; }
// end of head

/// Joins the shares' sums of two matrices, both of the rows from `row` of each team on: outputs side by side, or gate and up.
fn finish(subgroup: u32, lane: u32, row: u32, first: Result, second: Result) {
  workgroupBarrier();
  subgroupMatrixStore<col_major>(&partial, subgroup * 2u * MATRIX, first, SIDE);
  if (LEFTS == 2u) { subgroupMatrixStore<col_major>(&partial, (subgroup * 2u + 1u) * MATRIX, second, SIDE); }
  workgroupBarrier();
  // Each lane takes pairs of neighbouring outputs.
  const pairs = MATRIX / 2u;
  for (var e = lane; e < TEAMS * pairs; e += LANES) {
    let team = e / pairs;
    let here = team_row + team * RIGHTS * SIDE + row + e % pairs / (SIDE / 2u);
    if (here >= sizes.rows) { continue; }
    var one = vec2f(0.0);
    var two = vec2f(0.0);
    for (var share = 0u; share < SHARES; share++) {
      let at = (team * SHARES + share) * 2u * MATRIX + e % pairs * 2u;
      one += vec2f(partial[at], partial[at + 1u]);
      if (LEFTS == 2u) { two += vec2f(partial[at + MATRIX], partial[at + MATRIX + 1u]); }
    }
    one *= scale_of(here - team_row);
    two *= scale_of(here - team_row);
    let output = first_output + e % (SIDE / 2u) * 2u;
    if (GATED) {
      // e^-z of very negative gates would be infinite, which WGSL may take to be absent: there silu is 0 to all digits.
      let joined = one / (1.0 + exp(min(-one, vec2f(88.0)))) * two;
      let at = (here / 16u * sizes.out_stride + output / 16u) * 256u + here % 16u * 16u + output % 16u;
      if (output / 16u < sizes.panels) { out[at / 2u] = pack2x16float(clamp(joined, vec2f(-65504.0), vec2f(65504.0))); }
    } else {
      put(here, output, one);
      if (LEFTS == 2u) { put(here, output + SIDE, two); }
    }
  }
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let subgroup = lane / SUBGROUP;
  let share = subgroup % SHARES;
  first_output = group.y * select(LEFTS * SIDE, SIDE, GATED);
  team_row = group.x * TEAMS * RIGHTS * SIDE;
  let row = team_row + subgroup / SHARES * RIGHTS * SIDE;
  let one = place_of(first_output, false);
  let two = place_of(first_output + select(SIDE, 0u, GATED), GATED);

  var one_0 = Result();
  var one_1 = Result();
  var one_2 = Result();
  var one_3 = Result();
  var two_0 = Result();
  var two_1 = Result();
  var two_2 = Result();
  var two_3 = Result();
  let rounds = (sizes.tiles + SHARES - 1u) / SHARES;
  for (var round = 0u; round < rounds; round++) {
    let tile = round * SHARES + share;
    if (UNPACKS) {
      workgroupBarrier();
      if (tile < sizes.tiles) {
        unpack(one, tile, subgroup * 2u, lane % SUBGROUP);
        if (LEFTS == 2u) { unpack(two, tile, subgroup * 2u + 1u, lane % SUBGROUP); }
      }
      workgroupBarrier();
    }
    for (var column = 0u; column < TILE_COLUMNS && tile < sizes.tiles; column += SIDE) {
      let a = left(one, tile, column, subgroup * 2u);
      var b = Left();
      if (LEFTS == 2u) { b = left(two, tile, column, subgroup * 2u + 1u); }
      let r = right(row, tile * TILE_COLUMNS + column);
      one_0 = subgroupMatrixMultiplyAccumulate(a, r, one_0);
      if (LEFTS == 2u) { two_0 = subgroupMatrixMultiplyAccumulate(b, r, two_0); }
      if (RIGHTS > 1u) {
        let r = right(row + SIDE, tile * TILE_COLUMNS + column);
        one_1 = subgroupMatrixMultiplyAccumulate(a, r, one_1);
        if (LEFTS == 2u) { two_1 = subgroupMatrixMultiplyAccumulate(b, r, two_1); }
      }
      if (RIGHTS > 2u) {
        let r = right(row + 2u * SIDE, tile * TILE_COLUMNS + column);
        one_2 = subgroupMatrixMultiplyAccumulate(a, r, one_2);
        if (LEFTS == 2u) { two_2 = subgroupMatrixMultiplyAccumulate(b, r, two_2); }
        let s = right(row + 3u * SIDE, tile * TILE_COLUMNS + column);
        one_3 = subgroupMatrixMultiplyAccumulate(a, s, one_3);
        if (LEFTS == 2u) { two_3 = subgroupMatrixMultiplyAccumulate(b, s, two_3); }
      }
    }
  }

  scale_rows(lane, group.y == 0u);
  finish(subgroup, lane, 0u, one_0, two_0);
  if (RIGHTS > 1u) { finish(subgroup, lane, SIDE, one_1, two_1); }
  if (RIGHTS > 2u) {
    finish(subgroup, lane, 2u * SIDE, one_2, two_2);
    finish(subgroup, lane, 3u * SIDE, one_3, two_3);
  }
}
