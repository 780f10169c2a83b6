// Products in packed 16-bit arithmetic of rows as 16-bit tiles. Of 16 columns each second one's products are summed in 16 bits, and both
// sums, then what they come to in f32. So a product is off by 9 · 2⁻¹¹ of the sum of its terms' sizes at most beside what rounding x
// makes it, and with signs at random by about twice that; terms below 2⁻¹⁴ have fewer digits. Sums beyond the range of 16 bits are
// infinite, and stay so: what they are part of is computed again in f32. Weights and rows are loaded as whole words: compilers take
// apart loads of 16-bit vectors.
//
//   x  tiles of 16 rows × 16 columns (tiles.wgsl)
enable f16;

const STEP: u32 = max(16u, UNIT_COLUMNS); // columns that a lane computes with at a time

@group(0) @binding(1) var<storage, read> weights: array<vec4u>;
@group(0) @binding(2) var<storage, read> x: array<vec4u>;

/// Sixteen columns of a row; and of an output.
struct Row { low: vec4u, high: vec4u }
struct Sixteen { a: vec4<f16>, b: vec4<f16>, c: vec4<f16>, d: vec4<f16> }

/// Where a row begins in x, and its tiles: the next row is 2 on, the next 16 columns 32.
fn place_of(row: u32) -> u32 { return row / 16u * sizes.x_stride * 32u + row % 16u * 2u; }

fn row_at(at: u32) -> Row { return Row(x[at], x[at + 1u]); }

/// The i-th sixteen columns of a unit, or of several together.
fn sixteen(units: Units, i: u32) -> Sixteen {
  return Sixteen(four_halves(units, 4u * i), four_halves(units, 4u * i + 1u), four_halves(units, 4u * i + 2u), four_halves(units, 4u * i + 3u));
}
fn four_halves(units: Units, i: u32) -> vec4<f16> {
  return halves(unit_of(units, i / (UNIT_COLUMNS / 4u)), i % (UNIT_COLUMNS / 4u));
}

fn two(word: u32) -> vec2<f16> { return bitcast<vec2<f16>>(word); }

/// Sixteen columns of four outputs; and sums of their products, each of every second column.
struct Outputs { a: Sixteen, b: Sixteen, c: Sixteen, d: Sixteen }
struct Halves { a: vec2<f16>, b: vec2<f16>, c: vec2<f16>, d: vec2<f16> }

fn two_added(s: Halves, a: vec2<f16>, b: vec2<f16>, c: vec2<f16>, d: vec2<f16>, word: u32) -> Halves {
  let x = two(word);
  return Halves(fma(a, x, s.a), fma(b, x, s.b), fma(c, x, s.c), fma(d, x, s.d));
}

fn whole_of(sum: vec2<f16>) -> f32 {
  // For eight rows a compiler would make do with so few registers then that it loads less at a time: up to a quarter slower.
  if (ROW_GROUPS == 1u) { return f32(sum.x) + f32(sum.y); }
  return f32(sum.x + sum.y);
}

/// A row's products with four outputs, word by word of the row: what the next multiplication has too a GPU need not read again.
fn products(w: Outputs, x: Row) -> vec4f {
  var s = Halves(w.a.a.xy * two(x.low.x), w.b.a.xy * two(x.low.x), w.c.a.xy * two(x.low.x), w.d.a.xy * two(x.low.x));
  s = two_added(s, w.a.a.zw, w.b.a.zw, w.c.a.zw, w.d.a.zw, x.low.y);
  s = two_added(s, w.a.b.xy, w.b.b.xy, w.c.b.xy, w.d.b.xy, x.low.z);
  s = two_added(s, w.a.b.zw, w.b.b.zw, w.c.b.zw, w.d.b.zw, x.low.w);
  s = two_added(s, w.a.c.xy, w.b.c.xy, w.c.c.xy, w.d.c.xy, x.high.x);
  s = two_added(s, w.a.c.zw, w.b.c.zw, w.c.c.zw, w.d.c.zw, x.high.y);
  s = two_added(s, w.a.d.xy, w.b.d.xy, w.c.d.xy, w.d.d.xy, x.high.z);
  s = two_added(s, w.a.d.zw, w.b.d.zw, w.c.d.zw, w.d.d.zw, x.high.w);
  return vec4f(whole_of(s.a), whole_of(s.b), whole_of(s.c), whole_of(s.d));
}

/// Sixteen columns of four rows.
struct Four { x: Row, y: Row, z: Row, w: Row }

fn rows_at(at: u32) -> Four {
  let apart = 2u * ROW_GROUPS;
  return Four(row_at(at), row_at(at + apart), row_at(at + 2u * apart), row_at(at + 3u * apart));
}

/// Four rows' products with four outputs, by output.
fn all_products(w: Outputs, x: Four) -> mat4x4f {
  return transpose(mat4x4f(products(w, x.x), products(w, x.y), products(w, x.z), products(w, x.w)));
}

/// Of the first four outputs alone: with eight, lanes have so many registers that a GPU holds few of them, and it is slower.
fn added(sums: Both, first: Weights, second: Weights, place: u32, column: u32) -> Both {
  var s = sums.one;
  for (var i = 0u; i < STEP / 16u; i++) {
    let at = place + (column / 16u + i) * 32u;
    let near_rows = rows_at(at);
    let far_rows = rows_at(at + 8u * ROW_GROUPS);
    let w = Outputs(sixteen(first.a, i), sixteen(first.b, i), sixteen(first.c, i), sixteen(first.d, i));
    let near = all_products(w, near_rows);
    let far = all_products(w, far_rows);
    s.a = Rows(s.a.near + near[0], s.a.far + far[0]);
    s.b = Rows(s.b.near + near[1], s.b.far + far[1]);
    s.c = Rows(s.c.near + near[2], s.c.far + far[2]);
    s.d = Rows(s.d.near + near[3], s.d.far + far[3]);
  }
  return Both(s, sums.two);
}

/// Whether a number is neither infinite nor none: by its bits, for WGSL may take it to be so.
fn is_finite(number: f32) -> bool {
  return (bitcast<u32>(number) & 0x7f800000u) != 0x7f800000u;
}

/// A product in f32.
fn whole(panel: u32, output: u32, row: u32) -> f32 {
  var sum = 0.0;
  for (var tile = 0u; tile < sizes.tiles; tile++) {
    for (var part = 0u; part < PARTS; part++) {
      let unit = load_unit(panel, tile, output, part);
      for (var i = 0u; i < UNIT_COLUMNS / 4u; i++) {
        let column4 = (tile * TILE_COLUMNS + part * UNIT_COLUMNS) / 4u + i;
        let columns = row_at(place_of(row) + column4 / 4u * 32u);
        let words = select(columns.low, columns.high, column4 % 4u >= 2u);
        let pair = select(words.xy, words.zw, column4 % 2u == 1u);
        sum += dot(four(unit, i), vec4f(unpack2x16float(pair.x), unpack2x16float(pair.y)));
      }
    }
  }
  return sum;
}

/// A row's sums for an output and the next, where they are infinite computed again.
fn settled(pair: vec2f, panel: u32, output: u32, row: u32) -> vec2f {
  var sums = pair;
  for (var i = 0u; i < 2u; i++) {
    if (!is_finite(sums[i])) { sums[i] = whole(panel, output + i, row); }
  }
  return sums;
}
