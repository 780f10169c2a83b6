// Joins a row's partial states, of disjoint tokens, into its result: values weighted by exp(lse - total lse).
// Knows the batch and the layout of states (attention.ts).
//
//   values  (parts, capacity, N_HEADS, HEAD_DIM)    lse  (parts, capacity, N_HEADS)    out  (rows, out_stride)
//
// One lane an element; workgroup y = row. The context's slices are the first parts, then those of the row's own tail.

override LANES: u32 = 64;
override N_HEADS: u32;
override HEAD_DIM: u32;
override TAIL_PARTS: u32;
override TAIL_SLICE: u32;

struct Sizes { first_row: u32, capacity: u32, slice: u32, slices: u32, out_at: u32, out_stride: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> batch: array<u32>;
@group(0) @binding(2) var<storage, read> values: array<f32>;
@group(0) @binding(3) var<storage, read> lse: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<f32>;

/// Tokens of a slice of a tail: whole blocks, so that no tail has more than TAIL_PARTS.
fn tail_slice(length: u32) -> u32 {
  return max(TAIL_SLICE, (length + TAIL_PARTS * 32 - 1) / (TAIL_PARTS * 32) * 32);
}

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= N_HEADS * HEAD_DIM) { return; }
  let length = batch[batch[6] + sizes.first_row + id.y];
  let slice = tail_slice(length);
  let parts = sizes.slices + (length + slice - 1) / slice;
  let state = id.y * N_HEADS + id.x / HEAD_DIM;
  let d = id.x % HEAD_DIM;
  let stride = sizes.capacity * N_HEADS;

  var top = -1e30;
  for (var part = 0u; part < parts; part++) { top = max(top, lse[part * stride + state]); }
  var sum = 0.0;
  var total = 0.0;
  for (var part = 0u; part < parts; part++) {
    let at = part * stride + state;
    let weight = exp(lse[at] - top);
    sum = fma(weight, values[at * HEAD_DIM + d], sum);
    total += weight;
  }
  // A row of no tokens at all is zero.
  out[sizes.out_at + (sizes.first_row + id.y) * sizes.out_stride + id.x] = select(0.0, sum / total, parts > 0);
}
