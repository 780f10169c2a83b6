// gate = silu(gate) · up, with silu(z) = z / (1 + e^-z).
//
//   gate, up  (rows, stride), pad columns zero
//
// One lane four columns; workgroup y = row.

override LANES: u32 = 64;

struct Sizes { stride4: u32, first_gate: u32, first_up: u32 }

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read_write> gate: array<vec4f>;
@group(0) @binding(2) var<storage, read> up: array<vec4f>;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) at: vec3u) {
  if (at.x >= sizes.stride4) { return; }
  let i = (sizes.first_gate + at.y) * sizes.stride4 + at.x;
  let z = gate[i];
  // e^-z of very negative gates would be infinite, which WGSL may take to be absent: there silu is 0 to all digits.
  let silu = z / (1.0 + exp(min(-z, vec4f(88.0))));
  gate[i] = silu * up[(sizes.first_up + at.y) * sizes.stride4 + at.x];
}
