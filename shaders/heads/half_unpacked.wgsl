// Weights that are unpacked as 16-bit floats. Of units of four columns the other four are zero.
@group(0) @binding(1) var<storage, read> weights: array<vec4u>;

fn eight(unit: Unit, i: u32, part: u32) -> Eight {
  if (UNIT_COLUMNS == 4u) {
    let own = halves(unit, 0u);
    return Eight(select(vec4<f16>(), own, part % 2u == 0u), select(vec4<f16>(), own, part % 2u == 1u));
  }
  return Eight(halves(unit, 2u * i), halves(unit, 2u * i + 1u));
}
