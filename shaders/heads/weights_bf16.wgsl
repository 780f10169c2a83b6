// BF16: a unit is 8 columns of an output, each the upper half of an f32; a tile is 16 columns.
const TILE_COLUMNS: u32 = 16u;
const UNIT_COLUMNS: u32 = 8u;

struct Unit { halves: vec4u }

fn load_unit(panel: u32, tile: u32, output: u32, part: u32) -> Unit {
  return Unit(weights[panel + tile * 32u + output * 2u + part]);
}
fn four(unit: Unit, i: u32) -> vec4f {
  let a = unit.halves[2u * i];
  let b = unit.halves[2u * i + 1u];
  return bitcast<vec4f>(vec4u(a << 16u, a & 0xffff0000u, b << 16u, b & 0xffff0000u));
}
