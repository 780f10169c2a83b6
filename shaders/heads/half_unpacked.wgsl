// Weights that are unpacked, and rounded to 16 bits. Of units of four columns the other four are zero.
@group(0) @binding(1) var<storage, read> weights: array<vec4u>;

fn eight(unit: Unit, i: u32, part: u32) -> Eight {
  if (UNIT_COLUMNS == 4u) {
    let own = rounded(four(unit, 0u));
    return Eight(select(vec4<f16>(), own, part % 2u == 0u), select(vec4<f16>(), own, part % 2u == 1u));
  }
  return Eight(rounded(four(unit, 2u * i)), rounded(four(unit, 2u * i + 1u)));
}
fn rounded(values: vec4f) -> vec4<f16> {
  return vec4<f16>(clamp(values, vec4f(-65504.0), vec4f(65504.0)));
}
