// Four floats of 16 bits as they are.
fn halves(unit: Unit, i: u32) -> vec4<f16> {
  return vec4<f16>(bitcast<vec2<f16>>(unit.halves[(2u * i) ^ SWAPPED]), bitcast<vec2<f16>>(unit.halves[(2u * i + 1u) ^ SWAPPED]));
}
