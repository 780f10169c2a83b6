// Root-mean-square norm: out = x / sqrt(mean(x²) + eps) · weight, for each part of WIDTH columns of each row.
// Knows nothing of what the parts are (whole rows, or heads).
//
//   x, out  (rows, stride)   weight  (width)
//
// One workgroup a part; lanes stride over its columns.

override LANES: u32 = 64;
override IN_PLACE: bool; // x is out; binding 1 is then not read

struct Sizes { width: u32, stride: u32, first_in: u32, first_out: u32, eps: f32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

var<workgroup> sums: array<f32, LANES>;

fn value(at: u32) -> f32 {
  if (IN_PLACE) { return out[at]; }
  return x[at];
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let part = group.x * sizes.width;
  let start = (sizes.first_in + group.y) * sizes.stride + part;
  let end = (sizes.first_out + group.y) * sizes.stride + part;

  // The largest magnitude is taken out first: squares of large values would leave the range of f32.
  var top = 0.0;
  for (var i = lane; i < sizes.width; i += LANES) { top = max(top, abs(value(start + i))); }
  sums[lane] = top;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { sums[lane] = max(sums[lane], sums[lane + half]); }
  }
  workgroupBarrier();
  top = max(sums[0], 1e-30);
  workgroupBarrier();

  var sum = 0.0;
  for (var i = lane; i < sizes.width; i += LANES) {
    let scaled = value(start + i) / top;
    sum += scaled * scaled;
  }
  sums[lane] = sum;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { sums[lane] += sums[lane + half]; }
  }
  workgroupBarrier();
  // 1 / sqrt(mean + eps) with the magnitude put back: sqrt(mean · top² + eps) = top · sqrt(mean + eps / top²).
  let scale = 1.0 / sqrt(sums[0] / f32(sizes.width) + sizes.eps / top / top);
  for (var i = lane; i < sizes.width; i += LANES) { out[end + i] = value(start + i) / top * scale * weight[i]; }
}
