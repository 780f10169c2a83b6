// Matrix products of one row at a time in f32, as linear.wgsl does them for a few: here only the reading of weights takes time.
// Knows nothing of what the rows are.
//
//   weights  packed panels of 16 outputs (src/webgpu/layout.ts); the head unpacks them
//   x        (rows, x_stride4) vec4f, pad columns zero     norm  (x_stride4) vec4f     out  (rows, out_stride) f32
//
// A workgroup computes OUTPUTS of each of two panels: few, so that there are many workgroups, and each x that a lane loads counts twice.
// A lane keeps to one output of both and to every SLOTS-th tile of its columns, so that consecutive lanes read consecutive units; no
// branch stands between its loads, so that they go out together. An output's partial sums are joined at the end.

// head weights_f16

// head added

override OUTPUTS: u32; // of a panel: 2, 4, 8 or 16
override RAGGED: bool; // whether the last tile has more columns than x
override NORM: bool;   // whether the row is normalised on its way in; else `norm` is not read
override GATED: bool;  // whether the panels are one of the gate and one of up

override LANES: u32; // at least OUTPUTS · PARTS
const PARTS: u32 = TILE_COLUMNS / UNIT_COLUMNS; // units of an output in a tile
override SLOTS: u32 = LANES / OUTPUTS / PARTS;
override KEPT: u32 = min(SLOTS, 8u); // slots that are joined one by one, once the others are added to them

/// As linear.wgsl's.
struct Sizes {
  rows: u32, x_at: u32, x_stride4: u32, cols: u32, eps: f32, out_at: u32, out_stride: u32, outputs: u32,
  panel: u32, panels: u32, up_panel: u32, panel_units: u32, tiles: u32, add: u32,
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> weights: array<vec4u>;
@group(0) @binding(2) var<storage, read> x: array<vec4f>;
@group(0) @binding(3) var<storage, read> norm: array<vec4f>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

/// What a lane sums up: of both panels, and the squares of its columns of x.
struct Sums { panels: vec2f, squares: f32 }
var<workgroup> partial: array<Sums, LANES>; // (slot, output, part)

fn plus(a: Sums, b: Sums) -> Sums { return Sums(a.panels + b.panels, a.squares + b.squares); }

fn added(sum: f32, w: vec4f, a: vec4f) -> f32 {
  return fma(w.w, a.w, fma(w.z, a.z, fma(w.y, a.y, fma(w.x, a.x, sum))));
}

fn joined(output: u32) -> Sums {
  var sums: Sums;
  for (var i = 0u; i < KEPT * PARTS; i++) { sums = plus(sums, partial[(i / PARTS * OUTPUTS + output) * PARTS + i % PARTS]); }
  if (NORM) { sums.panels /= sqrt(sums.squares / f32(sizes.cols) + sizes.eps); }
  return sums;
}

fn stored(at: u32) -> f32 { return out[at]; }
fn store(at: u32, x: f32) { out[at] = x; }

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x;
  let pair = group.y / (16u / OUTPUTS); // of panels
  let first_output = group.y % (16u / OUTPUTS) * OUTPUTS;
  let part = lane % PARTS;
  let output = first_output + lane / PARTS % OUTPUTS;
  // Panels beyond the last are the last again.
  let last = sizes.panels - 1u;
  let one = (sizes.panel + min(select(2u * pair, pair, GATED), last)) * sizes.panel_units;
  let two = (select(sizes.panel + min(2u * pair + 1u, last), sizes.up_panel + min(pair, last), GATED)) * sizes.panel_units;

  var sums: Sums;
  for (var tile = lane / (OUTPUTS * PARTS); tile < sizes.tiles; tile += SLOTS) {
    let of_one = load_unit(one, tile, output, part);
    let of_two = load_unit(two, tile, output, part);
    for (var i = 0u; i < UNIT_COLUMNS / 4u; i++) {
      let column4 = (tile * TILE_COLUMNS + part * UNIT_COLUMNS) / 4u + i;
      var a = x[sizes.x_at + row * sizes.x_stride4 + column4];
      if (RAGGED) { a = select(vec4f(), a, column4 < sizes.x_stride4); }
      if (NORM) {
        sums.squares += dot(a, a);
        a *= norm[column4];
      }
      sums.panels.x = added(sums.panels.x, four(of_one, i), a);
      sums.panels.y = added(sums.panels.y, four(of_two, i), a);
    }
  }

  partial[lane] = sums;
  workgroupBarrier();
  let kept = KEPT * OUTPUTS * PARTS;
  if (lane < kept) {
    for (var other = lane + kept; other < LANES; other += kept) { sums = plus(sums, partial[other]); }
    partial[lane] = sums;
  }
  workgroupBarrier();
  // Pairs of neighbouring outputs, of each panel or of both. With a gate as many lanes come here as without: else compilers keep so many
  // more registers that fewer workgroups share a processor.
  for (var item = lane; item < OUTPUTS; item += LANES) {
    let own = item % (OUTPUTS / 2u) * 2u;
    let first = joined(own).panels;
    let second = joined(own + 1u).panels;
    let ones = vec2f(first.x, second.x);
    let twos = vec2f(first.y, second.y);
    if (GATED && item < OUTPUTS / 2u) {
      // e^-z of very negative gates would be infinite, which WGSL may take to be absent: there silu is 0 to all digits.
      put(row, pair * 16u + first_output + own, ones / (1.0 + exp(min(-ones, vec2f(88.0)))) * twos);
    } else if (!GATED) {
      let is_two = item >= OUTPUTS / 2u;
      put(row, pair * 32u + select(0u, 16u, is_two) + first_output + own, select(ones, twos, is_two));
    }
  }
}
