// Ways to break the shaders, each by one exact replacement in one of them, and which of the suite's tests should notice.
// Knows texts; nothing of how tests run. Where a shader has changed so that `find` is no longer in it once, the mutation is an error:
// find the place that does the same now, or take the mutation out with the code that it was of.

export interface Mutation {
  /** As in shaders/, without the extension. */
  readonly shader: string;
  /** In the shader exactly once, on one line, comments left out. */
  readonly find: string;
  readonly replace: string;
  /** What is wrong then. */
  readonly what: string;
  /** Whether it shows on a device with subgroup matrices alone; else the device's other abilities are left unused. */
  readonly matrix?: boolean;
  /** Names of the kernels' tests that are tried, after "webgpu: ", in the suite's order. */
  readonly tests: RegExp;
}

const CONTEXT = /^attention in two parts and in one, (MHA, 6|GQA, 12|MQA, 20|16 samples)/;
const SLICES = /^attention in two parts and in one, 16 samples/;
const RAGGED = /^attention in two parts and in one, (MHA, 6|GQA, 12|no context|33 samples)/;
const MANY = /^attention in two parts and in one, 33 samples/;
const LARGE = /^attention (in two parts and in one, GQA, 12|with)/;
const PREFILL = /^prefill in chunks and at once, (MHA, 6|GQA, 20)/;
const ROPE = /^ropeAppend (interleaved|halves), (part of|an odd)/;
const BLOCKS = /^(ropeAppend|copyBlock|prefill in chunks and at once, MHA, 6)/;
const PRODUCT = /^linear (F16|Q4_1), \d+ × (99|1056|2080)/;
const NORMED = /^linear and linearGated|^linearGated/;
const CANDIDATES = /^candidates/;
const BEYOND = /^candidates, draws/;

/** The same in every kernel that attends. */
const ATTENDING: readonly (readonly [shader: string, tests: RegExp])[] = [
  ["attend_context", CONTEXT],
  ["attend_decode", RAGGED],
  ["attend_prefill", PREFILL],
];

export const MUTATIONS: readonly Mutation[] = [
  // -------------------------------------------------------------------------------------------- attention
  {
    shader: "attend_context",
    find: "if (step + lane < end) {",
    replace: "if (step + lane <= end) {",
    what: "a slice takes in the token behind it",
    tests: CONTEXT,
  },
  {
    shader: "merge_states",
    find: "let parts = sizes.slices + (length + slice - 1) / slice;",
    replace: "let parts = sizes.slices + length / slice;",
    what: "a tail's last slice is dropped",
    tests: RAGGED,
  },
  {
    shader: "attend_prefill",
    find: "vec4u(step + lane) > last",
    replace: "vec4u(step + lane) >= last",
    what: "a token does not see itself",
    tests: PREFILL,
  },
  {
    shader: "rope_append",
    find: "kv[at] = (kv[at] & 0xffff) | (packed(0.0, mine) & 0xffff0000);",
    replace: "kv[at] = packed(0.0, mine);",
    what: "a token's V wipes out that of the one before",
    tests: BLOCKS,
  },
  ...ATTENDING.map(([shader, tests]) => ({
    shader,
    find: "return q[at] / sqrt(f32(HEAD_DIM));",
    replace: "return q[at];",
    what: "scores are not scaled",
    tests,
  })),
  ...ATTENDING.map(([shader, tests]) => ({
    shader,
    find: "for (var t = team * 8; t < tokens; t += TEAMS * 8)",
    replace: "for (var t = team * 8; t + 8 < tokens; t += TEAMS * 8)",
    what: "V of the last eight tokens is dropped",
    tests,
  })),
  ...ATTENDING.map(([shader, tests]) => ({
    shader,
    find: "+ 4 * D16 +",
    replace: "+ 2 * D16 +",
    what: "K's second half is read as V",
    tests,
  })),
  ...ATTENDING.map(([shader, tests]) => ({
    shader,
    find: "sums[r] += weights[r * LANES + dim];",
    replace: "sums[r] = weights[r * LANES + dim];",
    what: "only the last team's sums count",
    tests,
  })),
  {
    shader: "attend_context",
    find: "scatter(first_row + seat_vector * WIDTH, LSE, top + log(total));",
    replace: "scatter(first_row + seat_vector * WIDTH, LSE, top);",
    what: "log-sum-exp without the sum",
    tests: CONTEXT,
  },
  {
    shader: "attend_decode",
    find: "scatter(first_row + seat_vector * WIDTH, LSE, top + log(total));",
    replace: "scatter(first_row + seat_vector * WIDTH, LSE, log(total));",
    what: "log-sum-exp without the largest score",
    tests: RAGGED,
  },
  {
    shader: "attend_context",
    find: "sum *= shrink;",
    replace: "",
    what: "the sum of exponentials is not rescaled",
    tests: SLICES,
  },
  {
    shader: "attend_context",
    find: "if (seat == 0) { scales[seat_vector] = shrink; }",
    replace: "if (seat == 0) { scales[seat_vector] = Rows(1.0); }",
    what: "the values summed so far are not rescaled",
    tests: SLICES,
  },
  {
    shader: "attend_context",
    find: "let end = min(begin + sizes.slice, batch[1]);",
    replace: "let end = min(begin + sizes.slice + 1, batch[1]);",
    what: "slices overlap by a token",
    tests: SLICES,
  },
  {
    shader: "attend_context",
    find: "let at = sizes.q_at + row / GROUP * sizes.q_stride + (kv_head * GROUP + row % GROUP) * HEAD_DIM + d;",
    replace:
      "let at = sizes.q_at + row / GROUP * sizes.q_stride + (kv_head + row % GROUP * N_KV_HEADS) * HEAD_DIM + d;",
    what: "query heads meet the wrong KV head",
    tests: /^attention in two parts and in one, GQA, 12/,
  },
  {
    shader: "attend_decode",
    find: "length = batch[batch[6] + row];",
    replace: "length = batch[batch[6] + id.z];",
    what: "one part: samples from the 33rd on have the lengths of the first",
    tests: MANY,
  },
  {
    shader: "attend_decode",
    find: "blocks = batch[7] + row * batch[8];",
    replace: "blocks = batch[7] + id.z * batch[8];",
    what: "one part: samples from the 33rd on read the tails of the first",
    tests: MANY,
  },
  {
    shader: "attend_decode",
    find: "begin = (sizes.first_part + id.y - sizes.slices) * slice;",
    replace: "begin = (sizes.first_part + id.y) * slice;",
    what: "a tail begins behind as many tokens as the context has slices",
    tests: RAGGED,
  },
  {
    shader: "heads/rows_1",
    find: "return query(row, d);",
    replace: "return query(row, d ^ 1);",
    what: "heads that are alone swap neighbouring dimensions",
    tests: RAGGED,
  },
  {
    shader: "attend_prefill",
    find: "let last = batch[1] + (",
    replace: "let last = (",
    what: "tokens of a later chunk do not see the earlier ones",
    tests: PREFILL,
  },
  {
    shader: "attend_prefill",
    find: "select(scores[r], Rows(LEAST), vec4u(step + lane) > last)",
    replace: "scores[r]",
    what: "tokens see those behind them",
    tests: PREFILL,
  },
  {
    shader: "merge_states",
    find: "total += exp(weights[part] - top);",
    replace: "total = exp(weights[part] - top);",
    what: "parts are not joined by the sum of their shares",
    tests: CONTEXT,
  },
  {
    shader: "merge_states",
    find: "weights[lane] = exp(weights[lane] - top) / total;",
    replace: "weights[lane] = exp(weights[lane]) / total;",
    what: "shares overflow with large scores",
    tests: LARGE,
  },
  {
    shader: "merge_states",
    find: "let slice = tail_slice(length);",
    replace: "let slice = TAIL_SLICE * 2;",
    what: "a tail is taken to have fewer slices than it has",
    tests: /^attention in two parts and in one, long tails/,
  },
  {
    shader: "merge_states",
    find: "part + TEAMS < parts;",
    replace: "part + 2 * TEAMS < parts;",
    what: "with more parts than teams some are dropped",
    tests: SLICES,
  },
  // -------------------------------------------------------------------------------------------- positions and the cache
  {
    shader: "rope_append",
    find: "qkv[first] = x * by.x - y * by.y;",
    replace: "qkv[first] = x * by.x + y * by.y;",
    what: "queries turn the other way",
    tests: ROPE,
  },
  {
    shader: "rope_append",
    find: "x * by.x - other * by.y, is_first);",
    replace: "x * by.x - other * by.y, !is_first);",
    what: "keys turn the other way",
    tests: ROPE,
  },
  {
    shader: "rope_append",
    find: "pair = select(d - ROPE_DIM / 2, d, is_first);",
    replace: "pair = d / 2;",
    what: "keys in halves turn by their neighbours' angle",
    tests: ROPE,
  },
  {
    shader: "rope_append",
    find: "(2 + to.y / 16) * tiles",
    replace: "2 * tiles",
    what: "V of a block's second half lands in the first",
    tests: BLOCKS,
  },
  {
    shader: "rope_append",
    find: "clamp(vec2f(x, y), vec2f(-65504.0), vec2f(65504.0))",
    replace: "round(vec2f(x, y) * 256.0) / 256.0",
    what: "K and V lose bits",
    tests: ROPE,
  },
  // -------------------------------------------------------------------------------------------- products
  {
    shader: "linear",
    find: "if (tile >= sizes.tiles) { break; }",
    replace: "if (tile + 1u >= sizes.tiles) { break; }",
    what: "the last tile of columns is dropped",
    tests: PRODUCT,
  },
  {
    shader: "linear",
    find: "slot < SLOTS; slot++",
    replace: "slot < SLOTS - 1u; slot++",
    what: "the last lanes' sums are dropped",
    tests: PRODUCT,
  },
  {
    shader: "linear",
    find: "{ out[place] += sum; }",
    replace: "{ out[place] = sum; }",
    what: "the residual is lost",
    tests: PRODUCT,
  },
  {
    shader: "linear",
    find: "min(first_row + r, sizes.rows - 1u)",
    replace: "min(first_row + r, sizes.rows - 1u) / 2u * 2u",
    what: "odd rows are the ones before them",
    tests: PRODUCT,
  },
  {
    shader: "linear",
    find: "squares[r] += dot(a, a);",
    replace: "squares[r] = dot(a, a);",
    what: "the norm is that of a lane's last columns",
    tests: NORMED,
  },
  {
    shader: "linear",
    find: "a *= scale;",
    replace: "",
    what: "a norm's weights are left out",
    tests: NORMED,
  },
  {
    shader: "linear",
    find: "* joined(LANES, lane) * scale;",
    replace: "* joined(LANES, lane);",
    what: "up is not normalised",
    tests: NORMED,
  },
  {
    shader: "linear",
    find: "select(p, p / 2u, GATED)",
    replace: "select(p, p, GATED)",
    what: "gate and up of different outputs meet",
    tests: NORMED,
  },
  {
    shader: "heads/weights_q4",
    find: "unit.minimum *= -f32((factors >> 8u) & 0xffu);",
    replace: "unit.minimum *= f32((factors >> 8u) & 0xffu);",
    what: "minima of K types have the wrong sign",
    tests: /^(linear|embed) Q4_K/,
  },
  {
    shader: "heads/weights_q4",
    find: "<< 5u; }",
    replace: "<< 4u; }",
    what: "sixth bits count as fifth",
    tests: /^(linear|embed) Q6_K/,
  },
  {
    shader: "heads/weights_q8",
    find: "codes >> 8u, codes >> 16u",
    replace: "codes >> 16u, codes >> 8u",
    what: "columns of 8 bits change places",
    tests: /^(linear|embed) Q8_0/,
  },
  {
    shader: "pack_blocks",
    find: "^ FLIP",
    replace: "",
    what: "signed codes stay signed",
    tests: /^(linear|embed) Q8_0/,
  },
  {
    shader: "pack_blocks",
    find: "(byte(at, tile - 4u) >> 6u) << 4u",
    replace: "(byte(at, tile - 4u) >> 6u) << 3u",
    what: "upper bits of a K type's scales are misplaced",
    tests: /^(linear|embed) Q4_K/,
  },
  {
    shader: "pack_floats",
    find: "sizes.tiles * 16u + at / parts % 16u;",
    replace: "sizes.tiles * 16u + at / parts % 8u;",
    what: "a panel's second half of outputs is the first",
    tests: /^linear F16/,
  },
  {
    shader: "embed",
    find: "tile, id % 16u, at.x % PARTS",
    replace: "tile, at.y % 16u, at.x % PARTS",
    what: "tables are read by row instead of by id",
    tests: /^embed (Q4_1|F16)/,
  },
  // -------------------------------------------------------------------------------------------- norms and gates
  {
    shader: "rms_norm",
    find: "var scale = 1.0 / sqrt(sum / width + sizes.eps);",
    replace: "var scale = 1.0 / sqrt(sum / width);",
    what: "eps is left out",
    tests: /^rmsNorm/,
  },
  {
    shader: "rms_norm",
    find: "i < LANES; i += STRIPE) { sum += parts[i]; }",
    replace: "i < LANES; i += 2u * STRIPE) { sum += parts[i]; }",
    what: "lanes are left out of the sum",
    tests: /^rmsNorm/,
  },
  {
    shader: "swiglu",
    find: "let silu = z / (1.0",
    replace: "let silu = 1.0 / (1.0",
    what: "the gate is a sigmoid",
    tests: NORMED,
  },
  {
    shader: "add_bias",
    find: "bias[at.x]",
    replace: "bias[at.y]",
    what: "biases go by row",
    tests: /^addBias/,
  },
  // -------------------------------------------------------------------------------------------- candidates
  {
    shader: "top_k",
    find: "a.y > b.y",
    replace: "a.y < b.y",
    what: "ties go to the higher id",
    tests: CANDIDATES,
  },
  {
    shader: "top_k",
    find: "if (edit.x == id) { return edit.y; }",
    replace: "",
    what: "edits do not show in the candidates",
    tests: CANDIDATES,
  },
  {
    shader: "top_k",
    find: "let share = exp(max(below, vec2f(-100.0))) * bitcast<vec2f>(chunk.yw);",
    replace: "let share = bitcast<vec2f>(chunk.yw);",
    what: "chunks' sums are added as they are",
    tests: CANDIDATES,
  },
  {
    shader: "top_k_groups",
    find: "for (edit += lane;",
    replace: "for (edit += lane + 1u;",
    what: "the first edit of a chunk is dropped",
    tests: CANDIDATES,
  },
  {
    shader: "top_k_groups",
    find: "bitcast<f32>(penalised) - bitcast<f32>(edit.w)",
    replace: "bitcast<f32>(penalised) + bitcast<f32>(edit.w)",
    what: "penalties reward",
    tests: CANDIDATES,
  },
  {
    shader: "top_k_groups",
    find: "if (biased > 0.0) { penalised = divided(biased, scale); }",
    replace: "",
    what: "positive logits are multiplied by the penalty",
    tests: CANDIDATES,
  },
  // -------------------------------------------------------------------------------------------- subgroup matrices
  {
    shader: "attend_matrix",
    find: "if (CAUSAL) { seen = min(end, batch[1] + (first_row + row) / GROUP + 1); }",
    replace: "",
    what: "tokens see those behind them",
    matrix: true,
    tests: /^prefill/,
  },
  {
    shader: "attend_matrix",
    find: "totals[row] = totals[row] * shrink + total;",
    replace: "totals[row] = totals[row] + total;",
    what: "the sum of exponentials is not rescaled",
    matrix: true,
    tests: /^attention|^prefill/,
  },
  {
    shader: "attend_matrix",
    find: "lse[state] = references[here] + log(totals[here]);",
    replace: "lse[state] = references[here];",
    what: "log-sum-exp without the sum",
    matrix: true,
    tests: /^attention/,
  },
  {
    shader: "attend_matrix",
    find: "sum += vec2f(scores[at], scores[at + 1]);",
    replace: "sum = vec2f(scores[at], scores[at + 1]);",
    what: "only the last share's sums count",
    matrix: true,
    tests: /^attention|^prefill/,
  },
  {
    shader: "attend_matrix",
    find: "if (step + t >= end) { break; }",
    replace: "if (step + t + SIDE >= end) { break; }",
    what: "V of the last tokens is dropped",
    matrix: true,
    tests: /^attention|^prefill/,
  },
  {
    shader: "linear_matrix",
    find: "for (var share = 0u; share < SHARES; share++) {",
    replace: "for (var share = 1u; share < SHARES; share++) {",
    what: "the first share's sums are dropped",
    matrix: true,
    tests: /^linear/,
  },
  {
    shader: "linear_matrix",
    find: "select(sum, sum + bitcast<f32>(out[at]), sizes.add == 1u)",
    replace: "sum",
    what: "the residual is lost",
    matrix: true,
    tests: /^linear/,
  },
  {
    shader: "linear_matrix",
    find: "if (output >= min(sizes.outputs, sizes.panels * 16u)) { return; }",
    replace: "",
    what: "results go beyond the outputs",
    matrix: true,
    tests: /^linear/,
  },
  {
    shader: "tiles",
    find: "four *= scale * norm[i];",
    replace: "four *= scale;",
    what: "a norm's weights are left out",
    matrix: true,
    tests: NORMED,
  },
  // -------------------------------------------------------------------------------------------- draws beyond the candidates
  {
    shader: "top_k",
    find: "key_of(edited(row, id, four[j]))",
    replace: "key_of(four[j])",
    what: "edits do not count beyond the candidates",
    tests: BEYOND,
  },
  {
    shader: "top_k",
    find: "exp(max((value_of(key) - value_of(top)) * slope, -100.0))",
    replace: "exp(max(value_of(key) - value_of(top), -100.0))",
    what: "beyond the candidates the temperature is 1",
    tests: BEYOND,
  },
  {
    shader: "top_k",
    find: "if (round >= 2u && left <= MOST) {",
    replace: "if (round >= 2u) {",
    what: "of many alike beyond the candidates some are drawn alone",
    tests: BEYOND,
  },
  {
    shader: "top_k",
    find: "(draw.x << shift)",
    replace: "draw.x",
    what: "where little lies beyond the candidates draws end near its end",
    tests: BEYOND,
  },
  {
    shader: "top_k",
    find: "if (draw.x <= beyond) {",
    replace: "if (draw.x < beyond / 2u) {",
    what: "draws that end soon beyond the candidates find nothing",
    tests: BEYOND,
  },
];
