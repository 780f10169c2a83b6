// Quantised weights with codes of 4 bits, and further bits apart: a unit is 32 columns of an output; a tile is 32 columns.
const TILE_COLUMNS: u32 = 32u;
const UNIT_COLUMNS: u32 = 32u;

override HIGH: u32;    // further bits of a code: 0, 1 or 2
override CENTRE: f32;  // what stands for zero among the codes
override MINIMUM: u32; // 1: each scale has a minimum
override FACTORS: u32; // 0: scales as they are; 1: with a factor and one of the minimum a tile; 2: with two signed factors a tile
override BLOCK_TILES: u32 = select(8u, 1u, FACTORS == 0u);
override HEADER_UNITS: u32 = 2u + 2u * MINIMUM;
override TILE_UNITS: u32 = 16u + 4u * HIGH + select(2u, 0u, FACTORS == 0u);

struct Unit { codes: vec4u, high: vec2u, scales: vec2f, minimum: f32 }

fn load_unit(panel: u32, tile: u32, output: u32, part: u32) -> Unit {
  let header = panel + tile / BLOCK_TILES * (HEADER_UNITS + BLOCK_TILES * TILE_UNITS);
  let codes = header + HEADER_UNITS + tile % BLOCK_TILES * TILE_UNITS;
  var unit: Unit;
  unit.codes = weights[codes + output];
  if (HIGH == 1u) { unit.high.x = weights[codes + 16u + output / 4u][output % 4u]; }
  if (HIGH == 2u) {
    let words = weights[codes + 16u + output / 2u];
    unit.high = select(words.xy, words.zw, output % 2u == 1u);
  }
  if (MINIMUM == 1u) {
    let pair = unpack2x16float(weights[header + output / 4u][output % 4u]);
    unit.scales = vec2f(pair.x);
    unit.minimum = pair.y;
  } else {
    unit.scales = vec2f(unpack2x16float(weights[header + output / 8u][output / 2u % 4u] >> (output % 2u * 16u)).x);
  }
  if (FACTORS != 0u) {
    let factors = weights[codes + TILE_UNITS - 2u + output / 8u][output / 2u % 4u] >> (output % 2u * 16u);
    if (FACTORS == 1u) {
      unit.scales *= f32(factors & 0xffu);
      unit.minimum *= -f32((factors >> 8u) & 0xffu);
    } else {
      unit.scales *= vec2f(f32(i32(factors << 24u) >> 24u), f32(i32(factors << 16u) >> 24u));
    }
  }
  return unit;
}
/// Four of a unit's codes, a byte each.
fn codes_of(unit: Unit, i: u32) -> u32 {
  var codes = (unit.codes[i / 2u] >> (i % 2u * 4u)) & 0x0f0f0f0fu;
  if (HIGH > 0u) { codes |= ((unit.high.x >> i) & 0x01010101u) << 4u; }
  if (HIGH > 1u) { codes |= ((unit.high.y >> i) & 0x01010101u) << 5u; }
  return codes;
}
fn scale_of(unit: Unit, i: u32) -> f32 {
  return select(unit.scales.y, unit.scales.x, FACTORS != 2u || i < 4u);
}
fn four(unit: Unit, i: u32) -> vec4f {
  let codes = codes_of(unit, i);
  let values = vec4f(vec4u(codes, codes >> 8u, codes >> 16u, codes >> 24u) & vec4u(0xffu)) - CENTRE;
  // Each product is exact, so this rounds once, fused or not.
  if (MINIMUM == 1u) { return values * scale_of(unit, i) + unit.minimum; }
  return values * scale_of(unit, i);
}
