// Tiles that are unpacked into workgroup memory first.
@group(0) @binding(1) var<storage, read> weights: array<vec4u>;

var<workgroup> unpacked: array<f16, TEAMS * SHARES * PANELS * 16u * TILE_COLUMNS>; // (subgroup, panel) tiles of 16 × 16

const UNPACKS = true;
fn unpack_tile(panel: u32, tile: u32, place: u32, lane: u32) {
  const across = TILE_COLUMNS / UNIT_COLUMNS;
  for (var i = lane; i < 16u * across; i += SUBGROUP) {
    let unit = load_unit(panel, tile, i / across, i % across);
    for (var j = 0u; j < UNIT_COLUMNS / 4u; j++) {
      let column = i % across * UNIT_COLUMNS + j * 4u;
      let at = (place * TILE_COLUMNS + column / 16u * 16u + i / across) * 16u + column % 16u;
      let values = vec4<f16>(clamp(four(unit, j), vec4f(-65504.0), vec4f(65504.0)));
      for (var k = 0u; k < 4u; k++) { unpacked[at + k] = values[k]; }
    }
  }
}
fn left(panel: u32, tile: u32, step: u32, place: u32, at: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&unpacked, (place * TILE_COLUMNS + step * 16u) * 16u + at, 16u);
}
