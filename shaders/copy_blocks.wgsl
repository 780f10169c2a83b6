// Copies blocks of K/V to others of the same buffer, which no copy command does (src/webgpu/kv-layout.ts). Knows nothing of what is in them.
//
//   blocks  (copies) of from and to: none is written that another copy reads, or writes; one from and to the same is none
//   kv      (blocks, units)
//
// Workgroup x = a share of a block's units, y = copy.

override LANES: u32;

struct Sizes { units: u32 } // of 16 bytes, of a block

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> blocks: array<vec2u>;
@group(0) @binding(2) var<storage, read_write> kv: array<vec4u>;

@compute @workgroup_size(LANES)
fn main(@builtin(global_invocation_id) at: vec3u) {
  let copied = blocks[at.y];
  if (at.x >= sizes.units || copied.x == copied.y) { return; }
  kv[copied.y * sizes.units + at.x] = kv[copied.x * sizes.units + at.x];
}
