// F16: a unit is 8 halves of an output, neighbouring pairs of them swapped or not; a tile is 16 columns.
override SWAPPED: u32 = 0u; // 1: swapped

const TILE_COLUMNS: u32 = 16u;
const UNIT_COLUMNS: u32 = 8u;

struct Unit { halves: vec4u }

fn load_unit(panel: u32, tile: u32, output: u32, part: u32) -> Unit {
  return Unit(weights[panel + tile * 32u + output * 2u + part]);
}
fn four(unit: Unit, i: u32) -> vec4f {
  return vec4f(unpack2x16float(unit.halves[(2u * i) ^ SWAPPED]), unpack2x16float(unit.halves[(2u * i + 1u) ^ SWAPPED]));
}
