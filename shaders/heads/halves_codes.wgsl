// Four quantised weights of a unit in 16-bit arithmetic, two at a time, as good as rounded once.
override MIDDLE: f32 = CENTRE + f32(MINIMUM * (8u << HIGH)); // codes are taken from it: what is near zero keeps more digits

fn halves(unit: Unit, i: u32) -> vec4<f16> {
  let codes = codes_of(unit, i);
  // 1024 + code as the bits of a 16-bit float: exact.
  let even = bitcast<vec2<f16>>((codes & 0x00ff00ffu) | 0x64006400u);
  let odd = bitcast<vec2<f16>>(((codes >> 8u) & 0x00ff00ffu) | 0x64006400u);
  let values = vec4<f16>(even.x, odd.x, even.y, odd.y) - vec4<f16>(f16(1024.0 + MIDDLE));
  let exact = clamp(scale_of(unit, i), -65504.0, 65504.0);
  let upper = bitcast<f32>(bitcast<u32>(exact) & 0xffffe000u); // what 16 bits hold
  var rest = vec4<f16>();
  if (MINIMUM == 1u) { rest = vec4<f16>(f16(clamp(unit.minimum + (MIDDLE - CENTRE) * exact, -65504.0, 65504.0))); }
  // Scales with factors have more digits than 16 bits hold.
  if (FACTORS != 0u) { rest = fma(values, vec4<f16>(f16(exact - upper)), rest); }
  return clamp(fma(values, vec4<f16>(f16(upper)), rest), vec4<f16>(-65504.0h), vec4<f16>(65504.0h));
}
