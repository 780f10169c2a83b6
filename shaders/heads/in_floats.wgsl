// Products in f32 of rows as they are.
//
//   x  (rows, x_stride) vec4f, pad columns zero; what lies behind the last row is read too, and no other row's sum takes it in

/// Columns that a lane computes with at a time. Of eight rows fewer: it then has fewer registers, and more lanes hide what each waits for.
override STEP: u32 = select(max(16u, UNIT_COLUMNS), UNIT_COLUMNS, ROW_GROUPS == 1u);

@group(0) @binding(1) var<storage, read> weights: array<vec4u>;
@group(0) @binding(2) var<storage, read> x: array<vec4f>;

/// Four columns of four rows, by column.
struct Four { x: vec4f, y: vec4f, z: vec4f, w: vec4f }

/// Where a row begins in x.
fn place_of(row: u32) -> u32 { return sizes.x_at + row * sizes.x_stride; }

fn rows_at(place: u32, column4: u32) -> Four {
  if (RAGGED && column4 >= sizes.x_stride) { return Four(); }
  let at = place + column4;
  let apart = ROW_GROUPS * sizes.x_stride;
  let a = x[at];
  let b = x[at + apart];
  let c = x[at + 2u * apart];
  let d = x[at + 3u * apart];
  return Four(vec4f(a.x, b.x, c.x, d.x), vec4f(a.y, b.y, c.y, d.y), vec4f(a.z, b.z, c.z, d.z), vec4f(a.w, b.w, c.w, d.w));
}

/// The i-th four columns of a unit, or of several together.
fn four_of(units: Units, i: u32) -> vec4f { return four(unit_of(units, i / (UNIT_COLUMNS / 4u)), i % (UNIT_COLUMNS / 4u)); }

fn four_added(sum: vec4f, w: vec4f, a: Four) -> vec4f {
  return fma(w.wwww, a.w, fma(w.zzzz, a.z, fma(w.yyyy, a.y, fma(w.xxxx, a.x, sum))));
}
fn rows_added(sums: Rows, w: vec4f, near: Four, far: Four) -> Rows {
  return Rows(four_added(sums.near, w, near), four_added(sums.far, w, far));
}

fn four_rows_added(s: Sums, w: Weights, i: u32, near: Four, far: Four) -> Sums {
  return Sums(
    rows_added(s.a, four_of(w.a, i), near, far),
    rows_added(s.b, four_of(w.b, i), near, far),
    rows_added(s.c, four_of(w.c, i), near, far),
    rows_added(s.d, four_of(w.d, i), near, far),
  );
}

fn added(sums: Both, first: Weights, second: Weights, place: u32, column: u32) -> Both {
  var s = sums;
  let apart = 4u * ROW_GROUPS * sizes.x_stride;
  for (var i = 0u; i < STEP / 4u; i++) {
    let near = rows_at(place, column / 4u + i);
    let far = rows_at(place + apart, column / 4u + i);
    s.one = four_rows_added(s.one, first, i, near, far);
    if (PANELS == 2u) { s.two = four_rows_added(s.two, second, i, near, far); }
  }
  return s;
}

fn settled(pair: vec2f, panel: u32, output: u32, row: u32) -> vec2f { return pair; }
