// Results are rows that a norm reads next. What products then take of them, x · weights of the norm, goes out as tiles besides, and for
// heads/prepared.wgsl, which scales by the whole row's squares, their sums over each SIDE outputs. Tiles hold 16 bits: the row's last
// scale, and 2^-8 for rows that grew since then, keep what goes in there within them.
@group(0) @binding(5) var<storage, read> next: array<f32>; // weights of the norm
@group(0) @binding(6) var<storage, read_write> tiles: array<u32>;
@group(0) @binding(7) var<storage, read_write> norms: array<f32>; // (2, norm_rows) last and next scale by turns; (slots, norm_rows) sums

fn put(row: u32, output: u32, sums: vec2f) {
  var square = 0.0;
  let column = sizes.column + output;
  if (output < min(sizes.outputs, sizes.panels * 16u)) {
    let at = sizes.out_at + row * sizes.out_stride + output;
    let x = sums + vec2f(stored(at), stored(at + 1u));
    let has_two = output + 1u < sizes.outputs;
    store(at, x.x);
    if (has_two) { store(at + 1u, x.y); }
    square = x.x * x.x + select(0.0, x.y * x.y, has_two);
    let by = vec2f(next[column], next[column + 1u]) * (norms[sizes.scales_at + row] / 256.0);
    let to = (row / 16u * sizes.next_tiles + column / 16u) * 256u + row % 16u * 16u + column % 16u;
    tiles[to / 2u] = pack2x16float(clamp(x * by, vec2f(-65504.0), vec2f(65504.0)));
  }
  // SIDE / 2 neighbouring lanes of a subgroup have a row.
  for (var other = 1u; other < SIDE / 2u; other *= 2u) { square += subgroupShuffleXor(square, other); }
  if (output % SIDE == 0u) { norms[(2u + column / SIDE) * sizes.norm_rows + row] = square; }
}
