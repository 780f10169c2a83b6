// Rows are tiles that heads/added_normed.wgsl has left, with its squares (sums, rows, 8 vec4u, of these the first two): results are
// multiplied by the norm's scales.
@group(0) @binding(7) var<storage, read> squares: array<vec4u>;

/// Of a row, without the tiles' factor.
fn norm_scale(row: u32) -> f32 {
  let at = (sizes.squares + row) * 8u;
  let low = dot(vec4f(squares[at]), vec4f(0x1p-48, 0x1p-32, 0x1p-16, 1.0));
  let high = dot(vec4f(squares[at + 1u]), vec4f(0x1p16, 0x1p32, 0x1p48, 0x1p64));
  return 1.0 / (sizes.factor * sqrt((low + high) / f32(sizes.cols) + sizes.eps));
}
