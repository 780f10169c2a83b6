// Rows as heads/prepares.wgsl left them: their norm's scale is found here, and taken over the one that is in them.
@group(0) @binding(7) var<storage, read_write> norms: array<f32>;

override ROWS: u32 = TEAMS * RIGHTS * SIDE;
const STRIPES = 8u; // of a row's sums, so that their order is the same with any number of rows
var<workgroup> scales: array<f32, ROWS>;

fn scale_rows(lane: u32, is_first: bool) {
  workgroupBarrier();
  for (var i = lane; i < ROWS * STRIPES; i += LANES) {
    let row = min(team_row + i % ROWS, sizes.rows - 1u);
    var sum = 0.0;
    for (var slot = i / ROWS; slot * SIDE < sizes.cols; slot += STRIPES) { sum += norms[(2u + slot) * sizes.norm_rows + row]; }
    partial[i] = sum;
  }
  workgroupBarrier();
  for (var i = lane; i < ROWS; i += LANES) {
    let row = min(team_row + i, sizes.rows - 1u);
    var sum = 0.0;
    for (var stripe = 0u; stripe < STRIPES; stripe++) { sum += partial[stripe * ROWS + i]; }
    let scale = 1.0 / sqrt(sum / f32(sizes.cols) + sizes.eps);
    scales[i] = scale / norms[sizes.scales_at + row] * 256.0;
    if (is_first) { norms[sizes.norm_rows - sizes.scales_at + row] = scale; }
  }
}
fn scale_of(row: u32) -> f32 { return scales[row]; }
