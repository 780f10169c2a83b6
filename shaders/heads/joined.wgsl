// A row's whole tail, joined with the context's parts: results are a row's, as attention leaves them. For tiles of one row; D16 are at
// least as many as a context's parts.
//
//   out  (rows, out_stride) f32, or tiles (tiles.wgsl) of (rows, N_HEADS · HEAD_DIM)

const JOINS = true;
override TILES: bool; // then HEAD_DIM is even, and N_HEADS · HEAD_DIM a multiple of 16
@group(0) @binding(4) var<storage, read> values: array<f32>;
@group(0) @binding(5) var<storage, read> lse: array<f32>;
@group(0) @binding(6) var<storage, read_write> out: array<u32>;

/// A number of a row's partial state, its log-sum-exp among the dimensions.
fn given(row: u32, part: u32, d: u32) -> f32 {
  let state = state_of(row, part);
  if (d == LSE) { return lse[state]; }
  return values[state * HEAD_DIM + min(d, HEAD_DIM - 1)];
}

/// Two neighbouring dimensions. Rows behind the last are zeros in tiles: what was there may be f32, and products read it as 16 bits.
fn put(row: u32, d: u32, x: vec2f) {
  if (row >= end_row || d >= HEAD_DIM) { return; }
  let column = (kv_head * GROUP + row % GROUP) * HEAD_DIM + d;
  let to = row / GROUP;
  if (TILES) {
    let tile = to / 16 * (N_HEADS * HEAD_DIM / 16) + column / 16;
    out[(tile * 256 + to % 16 * 16 + column % 16) / 2] = pack2x16float(clamp(x, vec2f(-65504.0), vec2f(65504.0)));
  } else {
    let at = sizes.out_at + to * sizes.out_stride + column;
    out[at] = bitcast<u32>(x.x);
    if (d + 1 < HEAD_DIM) { out[at + 1] = bitcast<u32>(x.y); }
  }
}
