// Packs rows of quantised blocks as a file has them into panels (src/webgpu/layout.ts).
//
//   raw  (rows, blocks) of BLOCK_WORDS 16-bit words     packed  words of panels of 16 rows, zeroed before
//   broken  the number, counted from 1, of a row with a scale that is infinite or not a number
//
// One lane a tile (32 columns) of two neighbouring rows, which share words.

override BITS: u32;    // of the codes that are kept together: 4 or 8
override HIGH: u32;    // as in heads/weights_q4
override MINIMUM: u32;
override FACTORS: u32;
override BLOCK_WORDS: u32; // 16-bit words of a block, and in it the first of
override SCALE_AT: u32;    //   scale (and minimum),
override FACTORS_AT: u32;  //   factors,
override HIGH_AT: u32;     //   further bits,
override CODES_AT: u32;    //   codes
override FLIP: u32;        // of each four codes: signed ones are kept as unsigned
override BLOCK_TILES: u32 = select(8u, 1u, FACTORS == 0u);
override HEADER: u32 = 8u + 8u * MINIMUM; // words
override TILE: u32 = 16u * BITS + 16u * HIGH + select(8u, 0u, FACTORS == 0u);

const LANES: u32 = 64u;

struct Sizes {
  rows: u32,      // here
  blocks: u32,    // of a row
  tiles: u32,     // of a row
  first: u32,     // row, in packed
  first_row: u32, // row, in the weight
}

@group(0) @binding(0) var<uniform> sizes: Sizes;
@group(0) @binding(1) var<storage, read> raw: array<u32>;
@group(0) @binding(2) var<storage, read_write> packed: array<u32>;
@group(0) @binding(3) var<storage, read_write> broken: array<atomic<u32>>;

fn half(at: u32) -> u32 {
  return (raw[at / 2u] >> (at % 2u * 16u)) & 0xffffu;
}
fn word(at: u32) -> u32 {
  return half(at) | (half(at + 1u) << 16u);
}
fn byte(at: u32, i: u32) -> u32 {
  return (half(at + i / 2u) >> (i % 2u * 8u)) & 0xffu;
}
fn check(half: u32, row: u32) {
  if ((half & 0x7c00u) == 0x7c00u) { atomicMax(&broken[0], sizes.first_row + row + 1u); }
}

// Word i of a tile's codes; with 4 bits column 8i + b in the low and 8i + 4 + b in the high half of byte b.
fn codes(block: u32, tile: u32, i: u32) -> u32 {
  var at = 2u * i;
  var shift = 0u;
  if (BITS == 8u) { return word(block + CODES_AT + at) ^ FLIP; }
  switch (FACTORS) {
    case 0u: { at = 4u * (i % 2u); shift = 4u * (i / 2u); }
    case 1u: { at = 4u * i + tile / 2u * 16u; shift = 4u * (tile % 2u); }
    default: { at = 4u * i + tile / 4u * 32u + tile % 2u * 16u; shift = 4u * (tile / 2u % 2u); }
  }
  let low = (word(block + CODES_AT + at) >> shift) & 0x0f0f0f0fu;
  let high = (word(block + CODES_AT + at + 2u) >> shift) & 0x0f0f0f0fu;
  return low | (high << 4u);
}

// Word i of a tile's further bits: bit 8b + f for column 4f + b.
fn high_bits(block: u32, tile: u32, i: u32) -> u32 {
  var bits = 0u;
  if (FACTORS == 0u) {
    let all = word(block + HIGH_AT);
    for (var column = 0u; column < 32u; column++) { bits |= ((all >> column) & 1u) << (column % 4u * 8u + column / 4u); }
    return bits;
  }
  var at = HIGH_AT;
  var bit = tile;
  if (FACTORS == 2u) { at += tile / 4u * 16u; bit = tile % 4u * 2u + i; }
  for (var f = 0u; f < 8u; f++) { bits |= ((word(block + at + 2u * f) >> bit) & 0x01010101u) << f; }
  return bits;
}

// Two bytes: the factors of a tile's scale and minimum, six bits each in 12 bytes of the block; or two of its scale.
fn factors(block: u32, tile: u32) -> u32 {
  let at = block + FACTORS_AT;
  if (FACTORS == 2u) { return half(at + tile); }
  if (tile < 4u) { return (byte(at, tile) & 63u) | ((byte(at, tile + 4u) & 63u) << 8u); }
  let low = byte(at, tile + 4u);
  return (low & 15u) | ((byte(at, tile - 4u) >> 6u) << 4u) | (((low >> 4u) | ((byte(at, tile) >> 6u) << 4u)) << 8u);
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) group: vec3u, @builtin(num_workgroups) groups: vec3u, @builtin(local_invocation_index) lane: u32) {
  let at = (group.y * groups.x + group.x) * LANES + lane;
  let panel = at / 8u / sizes.tiles;
  let tile = at / 8u % sizes.tiles % BLOCK_TILES;
  let block = at / 8u % sizes.tiles / BLOCK_TILES;
  let header = ((sizes.first / 16u + panel) * sizes.blocks + block) * (HEADER + BLOCK_TILES * TILE);
  let to = header + HEADER + tile * TILE;
  var scales = 0u;
  var both = 0u;
  for (var k = 0u; k < 2u; k++) {
    let output = at % 8u * 2u + k;
    let row = panel * 16u + output;
    if (row >= sizes.rows) { continue; }
    let start = (row * sizes.blocks + block) * BLOCK_WORDS;
    for (var i = 0u; i < BITS; i++) { packed[to + output * BITS + i] = codes(start, tile, i); }
    for (var i = 0u; i < HIGH; i++) { packed[to + 16u * BITS + output * HIGH + i] = high_bits(start, tile, i); }
    if (FACTORS != 0u) { both |= factors(start, tile) << (16u * k); }
    if (tile != 0u) { continue; }
    let scale = half(start + SCALE_AT);
    check(scale, row);
    scales |= scale << (16u * k);
    if (MINIMUM == 1u) {
      let minimum = half(start + SCALE_AT + 1u);
      check(minimum, row);
      packed[header + output] = scale | (minimum << 16u);
    }
  }
  if (panel * 16u + at % 8u * 2u >= sizes.rows) { return; }
  if (FACTORS != 0u) { packed[to + TILE - 8u + at % 8u] = both; }
  if (tile == 0u && MINIMUM == 0u) { packed[header + at % 8u] = scales; }
}
