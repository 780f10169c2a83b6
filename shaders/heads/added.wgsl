// Results go to their rows, in the place of what is there or added to it. (heads/rotated.wgsl: they turn and go into the cache;
// heads/added_normed.wgsl: a norm begins with them.)
/// Two neighbouring results of a row; the second is none where the results end with the first.
fn put(row: u32, output: u32, sums: vec2f) {
  if (output >= min(sizes.outputs, sizes.panels * 16u)) { return; }
  let at = sizes.out_at + row * sizes.out_stride + output;
  var x = sums;
  if (sizes.add == 1u) { x += vec2f(stored(at), stored(at + 1u)); }
  store(at, x.x);
  if (output + 1u < sizes.outputs) { store(at + 1u, x.y); }
}
