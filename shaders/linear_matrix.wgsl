// Matrix products of many rows by subgroup matrices: out[row] = W · x[row], or that added to what out holds, or gate and up joined
// by silu. Rows may be such that a norm's scale is still to come. Knows nothing of what the rows are.
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
struct Units { none: u32 }
fn units_of(one: Place, two: Place, column: u32, seat: u32) -> Units { return Units(); }
fn unpack(units: Units, one: Place, two: Place, column: u32, share: u32, seat: u32) {}
fn left(source: Place, column: u32, matrix: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&weights, source.panel * 8u + column / 16u * 256u + source.at + column % 16u, 16u);
}
// end of head

// head
// F16: a tile is 16 columns.
const TILE_COLUMNS: u32 = 16u;
// end of head

// head
// Nothing is unpacked.
// end of head

override LEFTS: u32; // 1 or 2: matrices of outputs; 2 where they are gated
override RIGHTS: u32; // 1, 2 or 4: matrices of rows that a team has
override SHARES: u32;
override TEAMS: u32;
override AHEAD: u32; // matrices of columns that a subgroup takes at a time: 1, 2 or 4, whole tiles and whole times in a row
override SUBGROUP: u32; // lanes of a subgroup
override GATED: bool; // whether the outputs are SIDE of the gate and as many of up

override LANES: u32 = SHARES * TEAMS * SUBGROUP;
override CHUNK: u32 = AHEAD * SIDE; // columns that a subgroup takes at a time

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
  squares: u32,     // where the rows' sums of squares begin; else unused, as what follows
  cols: u32,
  eps: f32,
  factor: f32,      // what the rows' tiles are multiplied by, besides the norm's weights
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(2) var<storage, read> x: array<f16>;
@group(0) @binding(4) var<storage, read_write> out: array<u32>;

const MATRIX: u32 = SIDE * SIDE;
const PAIRS: u32 = MATRIX / 2u; // of neighbouring outputs of a row
var<workgroup> partial: array<f32, LEFTS * MATRIX * SHARES * TEAMS>; // (team, share, matrix) of sums, by row
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
// Rows are as the product takes them.
fn norm_scale(row: u32) -> f32 { return 1.0; }
// end of head

// head added

/// The row of a pair of outputs: of all teams' pairs of a matrix, both of the rows from `row` of each team on.
fn row_of(pair: u32, row: u32) -> u32 {
  return team_row + pair / PAIRS % TEAMS * RIGHTS * SIDE + row + pair % PAIRS / (SIDE / 2u);
}

/// The scale of the row that a lane's pairs have.
fn lane_scale(lane: u32, row: u32) -> f32 {
  if (LANES < TEAMS * PAIRS) { return 1.0; }
  return norm_scale(row_of(lane, row));
}

/// Joins the shares' sums of two matrices, both of the rows from `row` of each team on: outputs side by side, or gate and up. Where a
/// lane's pairs are not of one row, the rows' scales are found here.
fn finish(subgroup: u32, lane: u32, row: u32, first: Result, second: Result, one_scale: f32) {
  workgroupBarrier();
  subgroupMatrixStore<col_major>(&partial, subgroup * LEFTS * MATRIX, first, SIDE);
  if (LEFTS == 2u) { subgroupMatrixStore<col_major>(&partial, (subgroup * LEFTS + 1u) * MATRIX, second, SIDE); }
  workgroupBarrier();
  // Each lane takes pairs of neighbouring outputs, of one of the matrices, or of both where they are joined.
  for (var e = lane; e < TEAMS * PAIRS * select(LEFTS, 1u, GATED); e += LANES) {
    let which = e / (TEAMS * PAIRS);
    let team = e / PAIRS % TEAMS;
    let here = row_of(e, row);
    if (here >= sizes.rows) { continue; }
    var sums = vec2f(0.0);
    var ups = vec2f(0.0);
    for (var share = 0u; share < SHARES; share++) {
      let at = ((team * SHARES + share) * LEFTS + which) * MATRIX + e % PAIRS * 2u;
      sums += vec2f(partial[at], partial[at + 1u]);
      if (GATED) { ups += vec2f(partial[at + MATRIX], partial[at + MATRIX + 1u]); }
    }
    var scale = one_scale;
    if (LANES < TEAMS * PAIRS) { scale = norm_scale(here); }
    sums *= scale;
    ups *= scale;
    let output = first_output + which * SIDE + e % (SIDE / 2u) * 2u;
    if (GATED) {
      // e^-z of very negative gates would be infinite, which WGSL may take to be absent: there silu is 0 to all digits.
      let joined = sums / (1.0 + exp(min(-sums, vec2f(88.0)))) * ups;
      let at = (here / 16u * sizes.out_stride + output / 16u) * 256u + here % 16u * 16u + output % 16u;
      if (output / 16u < sizes.panels) { out[at / 2u] = pack2x16float(clamp(joined, vec2f(-65504.0), vec2f(65504.0))); }
    } else {
      put(here, output, sums);
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
  let mine = share * LEFTS; // of unpacked matrices
  let columns = sizes.tiles * TILE_COLUMNS;
  // All teams unpack what their shares have in common. The next is on its way meanwhile; behind the last columns it is these again.
  let seat = subgroup / SHARES * SUBGROUP + lane % SUBGROUP;
  var units = units_of(one, two, min(share * CHUNK, columns - CHUNK), seat);
  var a: Left;
  var b: Left;
  var c: Left;
  var d: Left;
  var e: Left;
  var f: Left;
  var g: Left;
  var h: Left;
  for (var first = 0u; first < columns; first += SHARES * CHUNK) {
    let at = first + share * CHUNK;
    if (UNPACKS) {
      workgroupBarrier();
      unpack(units, one, two, min(at, columns - CHUNK), share, seat);
      units = units_of(one, two, min(at + SHARES * CHUNK, columns - CHUNK), seat);
      workgroupBarrier();
    }
    if (at < columns) {
      a = left(one, at, mine);
      if (LEFTS == 2u) { e = left(two, at, mine + 1u); }
      if (AHEAD > 1u) {
        b = left(one, at + SIDE, mine);
        if (LEFTS == 2u) { f = left(two, at + SIDE, mine + 1u); }
      }
      if (AHEAD > 2u) {
        c = left(one, at + 2u * SIDE, mine);
        d = left(one, at + 3u * SIDE, mine);
        if (LEFTS == 2u) {
          g = left(two, at + 2u * SIDE, mine + 1u);
          h = left(two, at + 3u * SIDE, mine + 1u);
        }
      }
      {
        let r = right(row, at);
        one_0 = subgroupMatrixMultiplyAccumulate(a, r, one_0);
        if (LEFTS == 2u) { two_0 = subgroupMatrixMultiplyAccumulate(e, r, two_0); }
        if (AHEAD > 1u) {
          let s = right(row, at + SIDE);
          one_0 = subgroupMatrixMultiplyAccumulate(b, s, one_0);
          if (LEFTS == 2u) { two_0 = subgroupMatrixMultiplyAccumulate(f, s, two_0); }
        }
        if (AHEAD > 2u) {
          let t = right(row, at + 2u * SIDE);
          one_0 = subgroupMatrixMultiplyAccumulate(c, t, one_0);
          if (LEFTS == 2u) { two_0 = subgroupMatrixMultiplyAccumulate(g, t, two_0); }
          let u = right(row, at + 3u * SIDE);
          one_0 = subgroupMatrixMultiplyAccumulate(d, u, one_0);
          if (LEFTS == 2u) { two_0 = subgroupMatrixMultiplyAccumulate(h, u, two_0); }
        }
      }
      if (RIGHTS > 1u) {
        let r = right(row + SIDE, at);
        one_1 = subgroupMatrixMultiplyAccumulate(a, r, one_1);
        if (LEFTS == 2u) { two_1 = subgroupMatrixMultiplyAccumulate(e, r, two_1); }
        if (AHEAD > 1u) {
          let s = right(row + SIDE, at + SIDE);
          one_1 = subgroupMatrixMultiplyAccumulate(b, s, one_1);
          if (LEFTS == 2u) { two_1 = subgroupMatrixMultiplyAccumulate(f, s, two_1); }
        }
        if (AHEAD > 2u) {
          let t = right(row + SIDE, at + 2u * SIDE);
          one_1 = subgroupMatrixMultiplyAccumulate(c, t, one_1);
          if (LEFTS == 2u) { two_1 = subgroupMatrixMultiplyAccumulate(g, t, two_1); }
          let u = right(row + SIDE, at + 3u * SIDE);
          one_1 = subgroupMatrixMultiplyAccumulate(d, u, one_1);
          if (LEFTS == 2u) { two_1 = subgroupMatrixMultiplyAccumulate(h, u, two_1); }
        }
      }
      if (RIGHTS > 2u) {
        let r = right(row + 2u * SIDE, at);
        one_2 = subgroupMatrixMultiplyAccumulate(a, r, one_2);
        if (LEFTS == 2u) { two_2 = subgroupMatrixMultiplyAccumulate(e, r, two_2); }
        if (AHEAD > 1u) {
          let s = right(row + 2u * SIDE, at + SIDE);
          one_2 = subgroupMatrixMultiplyAccumulate(b, s, one_2);
          if (LEFTS == 2u) { two_2 = subgroupMatrixMultiplyAccumulate(f, s, two_2); }
        }
        if (AHEAD > 2u) {
          let t = right(row + 2u * SIDE, at + 2u * SIDE);
          one_2 = subgroupMatrixMultiplyAccumulate(c, t, one_2);
          if (LEFTS == 2u) { two_2 = subgroupMatrixMultiplyAccumulate(g, t, two_2); }
          let u = right(row + 2u * SIDE, at + 3u * SIDE);
          one_2 = subgroupMatrixMultiplyAccumulate(d, u, one_2);
          if (LEFTS == 2u) { two_2 = subgroupMatrixMultiplyAccumulate(h, u, two_2); }
        }
      }
      if (RIGHTS > 2u) {
        let r = right(row + 3u * SIDE, at);
        one_3 = subgroupMatrixMultiplyAccumulate(a, r, one_3);
        if (LEFTS == 2u) { two_3 = subgroupMatrixMultiplyAccumulate(e, r, two_3); }
        if (AHEAD > 1u) {
          let s = right(row + 3u * SIDE, at + SIDE);
          one_3 = subgroupMatrixMultiplyAccumulate(b, s, one_3);
          if (LEFTS == 2u) { two_3 = subgroupMatrixMultiplyAccumulate(f, s, two_3); }
        }
        if (AHEAD > 2u) {
          let t = right(row + 3u * SIDE, at + 2u * SIDE);
          one_3 = subgroupMatrixMultiplyAccumulate(c, t, one_3);
          if (LEFTS == 2u) { two_3 = subgroupMatrixMultiplyAccumulate(g, t, two_3); }
          let u = right(row + 3u * SIDE, at + 3u * SIDE);
          one_3 = subgroupMatrixMultiplyAccumulate(d, u, one_3);
          if (LEFTS == 2u) { two_3 = subgroupMatrixMultiplyAccumulate(h, u, two_3); }
        }
      }
    }
  }

  // The scales come before all that waits for others.
  let scale_0 = lane_scale(lane, 0u);
  var scale_1 = 1.0;
  var scale_2 = 1.0;
  var scale_3 = 1.0;
  if (RIGHTS > 1u) { scale_1 = lane_scale(lane, SIDE); }
  if (RIGHTS > 2u) {
    scale_2 = lane_scale(lane, 2u * SIDE);
    scale_3 = lane_scale(lane, 3u * SIDE);
  }
  finish(subgroup, lane, 0u, one_0, two_0, scale_0);
  if (RIGHTS > 1u) { finish(subgroup, lane, SIDE, one_1, two_1, scale_1); }
  if (RIGHTS > 2u) {
    finish(subgroup, lane, 2u * SIDE, one_2, two_2, scale_2);
    finish(subgroup, lane, 3u * SIDE, one_3, two_3, scale_3);
  }
}
