// Four floats of a unit, rounded to 16 bits.
fn halves(unit: Unit, i: u32) -> vec4<f16> {
  return vec4<f16>(clamp(four(unit, i), vec4f(-65504.0), vec4f(65504.0)));
}
