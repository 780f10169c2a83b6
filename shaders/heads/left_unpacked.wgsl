// Rows of tiles that are unpacked into workgroup memory first.
@group(0) @binding(1) var<storage, read> weights: array<vec4u>;

var<workgroup> unpacked: array<f16, TEAMS * SHARES * 2u * SIDE * TILE_COLUMNS>; // (subgroup, 2) of SIDE outputs each, row by row

const UNPACKS = true;
fn unpack(source: Place, tile: u32, to: u32, lane: u32) {
  const across = TILE_COLUMNS / UNIT_COLUMNS;
  for (var i = lane; i < SIDE * across; i += SUBGROUP) {
    let unit = load_unit(source.panel, tile, source.at / 16u + i / across, i % across);
    let at = (to * SIDE + i / across) * TILE_COLUMNS + i % across * UNIT_COLUMNS;
    for (var j = 0u; j < UNIT_COLUMNS / 4u; j++) {
      let values = vec4<f16>(clamp(four(unit, j), vec4f(-65504.0), vec4f(65504.0)));
      for (var k = 0u; k < 4u; k++) { unpacked[at + j * 4u + k] = values[k]; }
    }
  }
}
fn left(source: Place, tile: u32, column: u32, to: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&unpacked, to * SIDE * TILE_COLUMNS + column, TILE_COLUMNS);
}
