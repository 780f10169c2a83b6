// Root-mean-square norm: out = x / sqrt(mean(x²) + eps) · weight, for each part of `width` columns of each row.
// Knows nothing of what the parts are (whole rows, or heads).
//
//   x, out  (rows, stride)   weight  (width)
//
// One workgroup a part; lanes stride over its columns.

override LANES: u32 = 256;
override IN_PLACE: bool; // x is out; binding 1 is then not read

// Sums of squares between these are good to all digits of f32; others are summed again in parts of the largest magnitude.
const LEAST = 1e-30;
const MOST = 1e37;

struct Sizes { width: u32, stride: u32, first_in: u32, first_out: u32, eps: f32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> weight: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;

var<workgroup> parts: array<f32, LANES>;

fn value(at: u32) -> f32 {
  if (IN_PLACE) { return out[at]; }
  return x[at];
}

fn sum_of_lanes(lane: u32, own: f32) -> f32 {
  parts[lane] = own;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { parts[lane] += parts[lane + half]; }
  }
  return workgroupUniformLoad(&parts[0]);
}

fn most_of_lanes(lane: u32, own: f32) -> f32 {
  parts[lane] = own;
  for (var half = LANES / 2u; half > 0u; half /= 2u) {
    workgroupBarrier();
    if (lane < half) { parts[lane] = max(parts[lane], parts[lane + half]); }
  }
  return workgroupUniformLoad(&parts[0]);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(local_invocation_index) lane: u32) {
  let part = group.x * sizes.width;
  let start = (sizes.first_in + group.y) * sizes.stride + part;
  let end = (sizes.first_out + group.y) * sizes.stride + part;
  let width = f32(sizes.width);

  var own = 0.0;
  for (var i = lane; i < sizes.width; i += LANES) {
    let v = value(start + i);
    own += v * v;
  }
  let sum = sum_of_lanes(lane, own);
  var unit = 1.0; // what x is measured in
  var scale = 1.0 / sqrt(sum / width + sizes.eps);
  if (!(sum > LEAST && sum < MOST)) {
    own = 0.0;
    for (var i = lane; i < sizes.width; i += LANES) { own = max(own, abs(value(start + i))); }
    unit = max(most_of_lanes(lane, own), LEAST);
    own = 0.0;
    for (var i = lane; i < sizes.width; i += LANES) {
      let v = value(start + i) / unit;
      own += v * v;
    }
    // sqrt(mean · unit² + eps) = unit · sqrt(mean + eps / unit²)
    scale = 1.0 / sqrt(sum_of_lanes(lane, own) / width + sizes.eps / unit / unit);
  }
  for (var i = lane; i < sizes.width; i += LANES) { out[end + i] = value(start + i) / unit * scale * weight[i]; }
}
