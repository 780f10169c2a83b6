// Root-mean-square norm: out = x / sqrt(mean(x²) + eps) · weight, for each part of `width` columns of each row.
// Knows nothing of what the parts are (whole rows, or heads).
//
//   x  (rows, x_stride)   out  (rows, out_stride)   weight  (width)
//
// One workgroup a part; lanes stride over its columns.

override LANES: u32 = 256;
const STRIPE = 16u;
override IN_PLACE: bool; // x is out; binding 1 is then not read

struct Sizes { width: u32, x_at: u32, x_stride: u32, out_at: u32, out_stride: u32, eps: f32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

var<workgroup> parts: array<f32, LANES>;
var<workgroup> result: f32;

fn value(at: u32) -> f32 {
  if (IN_PLACE) { return out[at]; }
  return x[at];
}

/// A number of the part that begins at `start`; zero behind its last.
fn column(start: u32, i: u32) -> f32 {
  var v = 0.0;
  if (i < sizes.width) { v = value(start + i); }
  return v;
}

fn weight_of(i: u32) -> f32 {
  var by = 0.0;
  if (i < sizes.width) { by = weight[i]; }
  return by;
}

/// Sums are taken by stripes of lanes, then over the stripes: few barriers.
fn sum_of_lanes(lane: u32, own: f32) -> f32 {
  parts[lane] = own;
  workgroupBarrier();
  if (lane < STRIPE) {
    var sum = 0.0;
    for (var i = lane; i < LANES; i += STRIPE) { sum += parts[i]; }
    parts[lane] = sum;
  }
  workgroupBarrier();
  if (lane == 0u) {
    var sum = 0.0;
    for (var i = 0u; i < STRIPE; i++) { sum += parts[i]; }
    result = sum;
  }
  return workgroupUniformLoad(&result);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let part = group.x * sizes.width;
  let start = sizes.x_at + group.y * sizes.x_stride + part;
  let end = sizes.out_at + group.y * sizes.out_stride + part;

  // The first columns and their weights are loaded all at once, and stay in registers until they are written.
  let a = column(start, lane);
  let b = column(start, lane + LANES);
  let c = column(start, lane + 2u * LANES);
  let d = column(start, lane + 3u * LANES);
  let by_a = weight_of(lane);
  let by_b = weight_of(lane + LANES);
  let by_c = weight_of(lane + 2u * LANES);
  let by_d = weight_of(lane + 3u * LANES);

  var own = a * a + b * b + c * c + d * d;
  for (var i = lane + 4u * LANES; i < sizes.width; i += LANES) {
    let v = value(start + i);
    own += v * v;
  }
  let scale = 1.0 / sqrt(sum_of_lanes(lane, own) / f32(sizes.width) + sizes.eps);
  if (lane < sizes.width) { out[end + lane] = a * scale * by_a; }
  if (lane + LANES < sizes.width) { out[end + lane + LANES] = b * scale * by_b; }
  if (lane + 2u * LANES < sizes.width) { out[end + lane + 2u * LANES] = c * scale * by_c; }
  if (lane + 3u * LANES < sizes.width) { out[end + lane + 3u * LANES] = d * scale * by_d; }
  for (var i = lane + 4u * LANES; i < sizes.width; i += LANES) { out[end + i] = value(start + i) * scale * weight[i]; }
}
