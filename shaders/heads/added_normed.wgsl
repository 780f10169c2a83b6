// Results are always added to their rows, which a norm reads next. So they go out as tiles (tiles.wgsl) too, multiplied by the norm's
// weights and a factor but not by its scale, and their squares are added up by row: what reads the tiles takes the scale from there
// (heads/scaled.wgsl). Numbers may be of up to 2²¹, the norm's weights being of order 1.
//
//   norm     (out_stride) f32     tiles  16-bit tiles of (rows, out_stride)
//   squares  (sums, rows, 32) of these the first eight: a whole number of 2⁻⁴⁸, 16 bits a word and room for 65,536 carries, so that
//            sums are the same in any order. Rows are apart so that additions to some need not wait for those to others.
enable subgroups;
diagnostic(off, subgroup_uniformity);

@group(0) @binding(5) var<storage, read> norm: array<f32>;
@group(0) @binding(6) var<storage, read_write> tiles: array<u32>;
@group(0) @binding(7) var<storage, read_write> squares: array<atomic<u32>>;

/// Two neighbouring results of a row.
fn put(row: u32, output: u32, sums: vec2f) {
  if (output >= min(sizes.outputs, sizes.panels * 16u)) { return; }
  let at = sizes.out_at + row * sizes.out_stride + output;
  let x = sums + vec2f(stored(at), stored(at + 1u));
  store(at, x.x);
  store(at + 1u, x.y);
  let column = sizes.out_at % sizes.out_stride + output;
  let by = vec2f(norm[column], norm[column + 1u]) * sizes.factor;
  let two = clamp(x * by, vec2f(-65504.0), vec2f(65504.0));
  let tile = row / 16u * (sizes.out_stride / 16u) + column / 16u;
  tiles[tile * 128u + row % 16u * 8u + column % 16u / 2u] = pack2x16float(two);
  // Lanes side by side have a row's results of a matrix.
  var square = dot(x, x);
  square += subgroupShuffleXor(square, 1u);
  square += subgroupShuffleXor(square, 2u);
  if (SIDE == 16u) { square += subgroupShuffleXor(square, 4u); }
  if (output % SIDE == 0u) { add_square(row, square); }
}

fn add_square(row: u32, square: f32) {
  let bits = bitcast<u32>(min(square, 0x1p46));
  let shift = i32(bits >> 23u) - 102; // of its 24 bits, in 2⁻⁴⁸
  let fraction = ((bits & 0x7fffffu) | 0x800000u) >> u32(clamp(-shift, 0, 31));
  let by = u32(max(shift, 0)) % 16u;
  let at = (sizes.squares + row) * 32u + u32(max(shift, 0)) / 16u;
  atomicAdd(&squares[at], (fraction << by) & 0xffffu);
  atomicAdd(&squares[at + 1u], (fraction >> (16u - by)) & 0xffffu);
  atomicAdd(&squares[at + 2u], (fraction >> 16u) >> (16u - by));
}
