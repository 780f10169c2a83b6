// F32: a unit is 4 columns of an output; a tile is 16 columns.
const TILE_COLUMNS: u32 = 16u;
const UNIT_COLUMNS: u32 = 4u;

struct Unit { values: vec4u }

fn load_unit(panel: u32, tile: u32, output: u32, part: u32) -> Unit {
  return Unit(weights[panel + tile * 64u + output * 4u + part]);
}
fn four(unit: Unit, i: u32) -> vec4f {
  return bitcast<vec4f>(unit.values);
}
