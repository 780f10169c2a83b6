// x[row] += bias.
//
//   x  (rows, stride), of each the `cols` from `at` on   bias  (cols)
//
// One lane a column; workgroup y = row.

override LANES: u32 = 64;

struct Sizes { at: u32, stride: u32, cols: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> bias: array<f32>;
@group(0) @binding(2) var<storage, read_write> x: array<f32>;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (at.x >= sizes.cols) { return; }
  x[sizes.at + at.y * sizes.stride + at.x] += bias[at.x];
}
