// Packs rows of F32, F16 or BF16 as a file has them into panels (src/webgpu/layout.ts).
//
//   raw  (rows, cols) values, one after another     packed  words of panels of 16 rows, zeroed before
//   broken  the number, counted from 1, of a row that holds what is infinite or not a number
//
// One lane a unit: 4 words of one row.

override WORDS: u32;    // 16-bit words of a value: 1 or 2
override SWAPPED: u32 = 0u; // 1: words of a unit go by pairs, the second first
override EXPONENT: u32; // the bits of a value's first word that are all ones where it is infinite or not a number

const LANES: u32 = 64u;

struct Sizes {
  rows: u32,      // here
  cols: u32,
  tiles: u32,     // of a row
  first: u32,     // row, in packed
  first_row: u32, // row, in the weight
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> raw: array<u32>;
@group(0) @binding(2) var<storage, read_write> packed: array<u32>;
@group(0) @binding(3) var<storage, read_write> broken: array<atomic<u32>>;

fn word(at: u32) -> u32 {
  return (raw[at / 2u] >> (at % 2u * 16u)) & 0xffffu;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let at = (group.y * groups.x + group.x) * LANES + lane;
  let columns = 8u / WORDS;
  let parts = 16u / columns;
  let tile = at / (16u * parts);
  let row = tile / sizes.tiles * 16u + at / parts % 16u;
  let column = tile % sizes.tiles * 16u + at % parts * columns;
  if (row >= sizes.rows || column >= sizes.cols) { return; }
  let start = (row * sizes.cols + column) * WORDS;
  let count = min(8u, (sizes.cols - column) * WORDS);
  var unit = vec4u();
  for (var i = 0u; i < count; i++) {
    let value = word(start + i);
    unit[i / 2u] |= value << (i % 2u * 16u);
    if (i % WORDS == WORDS - 1u && (value & EXPONENT) == EXPONENT) { atomicMax(&broken[0], sizes.first_row + row + 1u); }
  }
  let to = (sizes.first / 16u * sizes.tiles * 16u * parts + at) * 4u;
  for (var i = 0u; i < 4u; i++) { packed[to + (i ^ SWAPPED)] = unit[i]; }
}
