// Quantised weights with codes of 8 bits, of which there is Q8_0 alone: a unit is 16 columns of an output; a tile is 32 columns.
const TILE_COLUMNS: u32 = 32u;
const UNIT_COLUMNS: u32 = 16u;

const CENTRE: f32 = 128.0; // what stands for zero among the codes
// As in weights_q4: no further bits, no minimum, scales without factors.
const HIGH: u32 = 0u;
const MINIMUM: u32 = 0u;
const FACTORS: u32 = 0u;

struct Unit { codes: vec4u, scale: f32, minimum: f32 }

fn load_unit(panel: u32, tile: u32, output: u32, part: u32) -> Unit {
  let header = panel + tile * 34u;
  let scale = unpack2x16float(weights[header + output / 8u][output / 2u % 4u] >> (output % 2u * 16u)).x;
  return Unit(weights[header + 2u + output * 2u + part], scale, 0.0);
}
/// Four of a unit's codes, a byte each.
fn codes_of(unit: Unit, i: u32) -> u32 { return unit.codes[i]; }
fn scale_of(unit: Unit, i: u32) -> f32 { return unit.scale; }
fn four(unit: Unit, i: u32) -> vec4f {
  let codes = codes_of(unit, i);
  return (vec4f(vec4u(codes, codes >> 8u, codes >> 16u, codes >> 24u) & vec4u(0xffu)) - CENTRE) * unit.scale;
}
