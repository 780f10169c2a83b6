// Rows for products by subgroup matrices or in 16-bit arithmetic: tiles of norm(x), or of x as it is. Knows nothing of what the rows are.
//
//   x  (rows, x_stride4) vec4f, pad columns zero    norm  (x_stride4) vec4f
//   tiles  (rows of tiles, columns of tiles) of 16 rows × 16 columns, row by row, 16-bit floats two to a word
//   squares  (sums, sum_rows, 8) vec4u, of these the first two
//
// One workgroup a row. Rows and columns beyond the last are left as they are: no product's result takes them in. The first
// dispatch of a step of samples also sets its `sums` sums of squares (heads/added_normed.wgsl) to zero.

override NORM: bool; // else `norm` is not read

const LANES: u32 = 256u;
const KEPT: u32 = 4u * LANES; // units of 4 numbers that stay in registers
const STRIPE: u32 = 16u; // sums are taken by stripes of lanes, then over the stripes: few barriers

struct Sizes { x_at: u32, x_stride4: u32, cols: u32, eps: f32, sums: u32, sum_rows: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<vec4f>;
@group(0) @binding(2) var<storage, read> norm: array<vec4f>;
@group(0) @binding(3) var<storage, read_write> tiles: array<vec2u>;
@group(0) @binding(4) var<storage, read_write> squares: array<vec4u>;

var<workgroup> parts: array<f32, LANES>;

/// Four numbers of the row that begins at `start`; zeros behind its last.
fn numbers(start: u32, i: u32) -> vec4f {
  var four = vec4f();
  if (i < sizes.x_stride4) { four = x[start + i]; }
  return four;
}

/// What four numbers are multiplied by, besides the row's scale.
fn weights(i: u32) -> vec4f {
  var four = vec4f(1.0);
  if (NORM && i < sizes.x_stride4) { four = norm[i]; }
  return four;
}

/// Writes a row's four numbers where there are tiles for them.
fn write(row: u32, i: u32, numbers: vec4f) {
  // A tile is 64 units of 4 numbers.
  let across = (sizes.cols + 15u) / 16u;
  if (i >= across * 4u) { return; }
  // Beyond the range of 16 bits the largest of them.
  let four = clamp(numbers, vec4f(-65504.0), vec4f(65504.0));
  let to = row / 16u * across * 64u + row % 16u * 4u;
  tiles[to + i / 4u * 64u + i % 4u] = vec2u(pack2x16float(four.xy), pack2x16float(four.zw));
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let row = group.x;
  let start = sizes.x_at + row * sizes.x_stride4;
  // The first 4096 columns and their weights are loaded all at once, and stay in registers until they are written.
  let a = numbers(start, lane);
  let b = numbers(start, lane + LANES);
  let c = numbers(start, lane + 2u * LANES);
  let d = numbers(start, lane + 3u * LANES);
  let by_a = weights(lane);
  let by_b = weights(lane + LANES);
  let by_c = weights(lane + 2u * LANES);
  let by_d = weights(lane + 3u * LANES);
  for (var i = lane; i < 2u * sizes.sums; i += LANES) { squares[(i / 2u * sizes.sum_rows + row) * 8u + i % 2u] = vec4u(); }
  var scale = 1.0;
  if (NORM) {
    var own = fma(d, d, fma(c, c, fma(b, b, a * a)));
    for (var i = lane + KEPT; i < sizes.x_stride4; i += LANES) { own = fma(x[start + i], x[start + i], own); }
    parts[lane] = dot(own, vec4f(1.0));
    workgroupBarrier();
    if (lane < STRIPE) {
      var sum = 0.0;
      for (var i = lane; i < LANES; i += STRIPE) { sum += parts[i]; }
      parts[lane] = sum;
    }
    workgroupBarrier();
    var sum = 0.0;
    for (var i = 0u; i < STRIPE; i++) { sum += parts[i]; }
    scale = 1.0 / sqrt(sum / f32(sizes.cols) + sizes.eps);
  }
  write(row, lane, a * (scale * by_a));
  write(row, lane + LANES, b * (scale * by_b));
  write(row, lane + 2u * LANES, c * (scale * by_c));
  write(row, lane + 3u * LANES, d * (scale * by_d));
  for (var i = lane + KEPT; i < (sizes.cols + 15u) / 16u * 4u; i += LANES) {
    write(row, i, numbers(start, i) * (scale * weights(i)));
  }
}
