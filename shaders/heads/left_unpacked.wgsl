// Weights that are unpacked into workgroup memory first.
@group(0) @binding(1) var<storage, read> weights: array<vec4u>;

const UNPACKS = true;
const PARTS: u32 = TILE_COLUMNS / UNIT_COLUMNS; // units of an output in a tile
override OUTPUTS: u32 = LEFTS * SIDE; // of a workgroup
override UNITS: u32 = OUTPUTS * CHUNK / UNIT_COLUMNS; // of a share's columns
override SEATS: u32 = TEAMS * SUBGROUP; // lanes that unpack them
override ITEMS: u32 = (UNITS + SEATS - 1u) / SEATS; // units of a lane
override TILES: u32 = CHUNK / TILE_COLUMNS; // of a share's columns
override ROW: u32 = CHUNK + 8u; // of workgroup memory: neighbouring ones begin in other banks
override ROWS: u32 = SHARES * OUTPUTS;
override UNPACKED: u32 = ROWS * ROW;
var<workgroup> unpacked: array<f16, UNPACKED>; // (share, matrix, output of SIDE) rows of CHUNK columns

/// The first that a lane unpacks of a share's columns, as they were loaded.
struct Units { a: Unit, b: Unit, c: Unit, d: Unit }

fn units_of(one: Place, two: Place, column: u32, seat: u32) -> Units {
  var units: Units;
  units.a = unit_of(one, two, column, seat);
  if (ITEMS > 1u) { units.b = unit_of(one, two, column, seat + SEATS); }
  if (ITEMS > 2u) {
    units.c = unit_of(one, two, column, seat + 2u * SEATS);
    units.d = unit_of(one, two, column, seat + 3u * SEATS);
  }
  return units;
}
// Items count units as they lie in storage: those of an output, the outputs, the tiles.
fn unit_of(one: Place, two: Place, column: u32, item: u32) -> Unit {
  let i = min(item, UNITS - 1u);
  let output = i / PARTS % OUTPUTS;
  let tile = column / TILE_COLUMNS + i / (PARTS * OUTPUTS);
  let is_two = output >= SIDE;
  let first = select(one.at, two.at, is_two) / 16u;
  return load_unit(select(one.panel, two.panel, is_two), tile, first + output % SIDE, i % PARTS);
}

fn unpack(units: Units, one: Place, two: Place, column: u32, share: u32, seat: u32) {
  unpack_unit(units.a, share, seat);
  if (ITEMS > 1u) { unpack_unit(units.b, share, seat + SEATS); }
  if (ITEMS > 2u) {
    unpack_unit(units.c, share, seat + 2u * SEATS);
    unpack_unit(units.d, share, seat + 3u * SEATS);
  }
  for (var i = 4u; i < ITEMS; i++) { unpack_unit(unit_of(one, two, column, seat + i * SEATS), share, seat + i * SEATS); }
}
fn unpack_unit(unit: Unit, share: u32, item: u32) {
  if (item >= UNITS) { return; }
  // Neither is beyond its range. That it is said spares each store a check of its own, and lets compilers join them.
  let row = (share * OUTPUTS + item / PARTS % OUTPUTS) % ROWS;
  let column = item / (PARTS * OUTPUTS) % TILES * TILE_COLUMNS + item % PARTS * UNIT_COLUMNS;
  for (var i = 0u; i < UNIT_COLUMNS / 4u; i++) {
    let values = halves(unit, i);
    let at = row * ROW + column + 4u * i;
    unpacked[at] = values.x;
    unpacked[at + 1u] = values.y;
    unpacked[at + 2u] = values.z;
    unpacked[at + 3u] = values.w;
  }
}
fn left(source: Place, column: u32, matrix: u32) -> Left {
  return subgroupMatrixLoad<Left, row_major>(&unpacked, matrix * SIDE * ROW + column % CHUNK, ROW);
}
