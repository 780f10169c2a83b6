// One row a vector: for one query head alone.
alias Rows = f32;
const WIDTH = 1u;
fn gather(row: u32, d: u32) -> Rows { return query(row, d); }
fn scatter(row: u32, d: u32, x: Rows, y: Rows) { put(row, d, vec2f(x, y)); }
fn up_to(token: u32, row: u32, x: Rows) -> Rows { return select(x, LEAST, token > batch[CTX_LEN] + row / GROUP); }
