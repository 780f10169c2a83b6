// Rows of tiles that are unpacked into workgroup memory first.
@group(0) @binding(1) var<storage, read> weights: array<vec4u>;

const UNPACKS = true;
const ITEM = min(UNIT_COLUMNS, 16u); // columns of an output that a lane unpacks at a time
const ACROSS = TILE_COLUMNS / ITEM;
const ROW = TILE_COLUMNS + 8u; // of workgroup memory: neighbouring ones begin in other banks
override ITEMS: u32 = (SIDE * ACROSS + SUBGROUP - 1u) / SUBGROUP; // of a lane, at most 4
var<workgroup> unpacked: array<f16, TEAMS * SHARES * 2u * SIDE * ROW>; // (subgroup, 2) of SIDE outputs each, row by row

/// What a lane unpacks of a tile, as it was loaded.
struct Units { a: Unit, b: Unit, c: Unit, d: Unit }

fn units_of(source: Place, tile: u32, lane: u32) -> Units {
  var units: Units;
  units.a = unit_of(source, tile, lane);
  if (ITEMS > 1u) { units.b = unit_of(source, tile, lane + SUBGROUP); }
  if (ITEMS > 2u) {
    units.c = unit_of(source, tile, lane + 2u * SUBGROUP);
    units.d = unit_of(source, tile, lane + 3u * SUBGROUP);
  }
  return units;
}
fn unit_of(source: Place, tile: u32, item: u32) -> Unit {
  let i = min(item, SIDE * ACROSS - 1u);
  return load_unit(source.panel, tile, source.at / 16u + i / ACROSS, i % ACROSS * ITEM / UNIT_COLUMNS);
}

fn unpack(units: Units, to: u32, lane: u32) {
  unpack_item(units.a, to, lane);
  if (ITEMS > 1u) { unpack_item(units.b, to, lane + SUBGROUP); }
  if (ITEMS > 2u) {
    unpack_item(units.c, to, lane + 2u * SUBGROUP);
    unpack_item(units.d, to, lane + 3u * SUBGROUP);
  }
}
fn unpack_item(unit: Unit, to: u32, item: u32) {
  if (item >= SIDE * ACROSS) { return; }
  let first = item % ACROSS * ITEM;
  let at = (to * SIDE + item / ACROSS) * ROW + first;
  for (var j = 0u; j < ITEM / 4u; j++) {
    let values = vec4<f16>(clamp(four(unit, first % UNIT_COLUMNS / 4u + j), vec4f(-65504.0), vec4f(65504.0)));
    for (var k = 0u; k < 4u; k++) { unpacked[at + j * 4u + k] = values[k]; }
  }
}
fn left(source: Place, column: u32, to: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&unpacked, to * SIDE * ROW + column % TILE_COLUMNS, ROW);
}
