// Every operation of the backends' contract against float64, one suite for all backends and runtimes, through the contract alone.
// Cases and bounds are in fixtures/kernel-cases.ts; what is right is in reference.ts. Knows nothing of who runs the tests.

import * as assert from "uvu/assert";
import {
  type Backend,
  type Batch,
  type Candidates,
  DRAWN,
  type Edits,
  type PreparedBatch,
  type Request,
  type Shape,
  type States,
  type Tensor,
} from "../../src/backend.ts";
import { createSampler, validateSampling } from "../../src/sampler.ts";
import { newTextModule } from "../../src/wasm.ts";
import dequant from "../fixtures/dequant.json" with { type: "json" };
import * as cases from "../fixtures/kernel-cases.ts";
import {
  type BackendUnderTest,
  type Bound,
  close,
  fill,
  newTensor,
  newWeight,
  newWeights,
  plainBatch,
  rejects,
  sameBits,
  valuesOf,
} from "./backends.ts";
import { TENSOR_TYPES } from "./gguf-writer.ts";
import { halves, newRandom, type Random } from "./random.ts";
import { randomBlocks } from "./random-model.ts";
import * as reference from "./reference.ts";

const ROPE_DIM = 6; // of the default shape

/** A step of so many samples begins: kernels may go by their number. */
const begin = (backend: Backend, rows: number) =>
  backend.prepare({ ...plainBatch(new Uint32Array(rows), ROPE_DIM), tails: noTails(rows) });

const normals = (random: Random, length: number, scale = 1) =>
  Float32Array.from({ length }, () => scale * random.normal());

/** What a list of candidates has for a row. */
const ofRow = <T extends { slice(from: number, to: number): T }>({ k, stride }: Candidates, list: T, row: number): T =>
  list.slice(row * stride, row * stride + k);

/** What takes the tests: uvu's `test`, or another that is like it. */
export interface Register {
  (name: string, run: () => Promise<void>): void;
  after(run: () => void): void;
}

/** Registers all tests of one backend. */
export function kernelTests(test: Register, { name, exact, halves: wide, refused, create }: BackendUnderTest): void {
  /** A bound that also holds for products of many rows. */
  const widened = (bound: Bound): Bound =>
    wide ? { atol: Math.max(bound.atol, wide.atol), rtol: Math.max(bound.rtol, wide.rtol) } : bound;
  /** Of logits. */
  const ofLogits = (bound: Bound): Bound => (wide?.all === false ? bound : widened(bound));

  const worst = new Map<string, number>(); // error of products of each type
  test.after(() => {
    const figures = [...worst].map(([type, error]) => `${type} ${error.toExponential(1)}`).join(", ");
    console.log(`\nmeasured: ${name}: worst error of products of order 1: ${figures}`);
  });

  // -------------------------------------------------------------------------------------------- products

  for (const { type, cols: widths, outputs, bound } of cases.LINEAR)
    for (const cols of widths)
      test(`${name}: linear ${type}, ${outputs} × ${cols}`, async () => {
        const random = newRandom(cols);
        const backend = await create();
        const most = Math.max(...cases.LINEAR_ROWS);
        const data = randomBlocks(type, outputs * cols, 1 / Math.sqrt(cols), random, cols);
        const weights = reference.dequantise(type, data, outputs * cols);
        const weight = await newWeight(backend, type, outputs, cols, data);
        const values = normals(random, most * cols);
        const before = normals(random, most * outputs);
        const x = await newTensor(backend, values, most, cols, ROPE_DIM);
        const products = Array.from({ length: most }, (_, row) =>
          reference.linear(weights, values.subarray(row * cols, (row + 1) * cols)),
        );
        const expected = (rows: number, add: boolean) =>
          Float64Array.from({ length: rows * outputs }, (_, i) => {
            const product = products[Math.floor(i / outputs)][i % outputs];
            return add ? before[i] + product : product;
          });

        const got: { rows: number; add: boolean; values: Float32Array }[] = [];
        for (const rows of cases.LINEAR_ROWS)
          for (const add of [false, true]) {
            const out = await newTensor(backend, before.subarray(0, rows * outputs), rows, outputs, ROPE_DIM);
            begin(backend, rows);
            if (add) backend.linearAdd(backend.view(x, 0, rows), weight, out);
            else backend.linear(backend.view(x, 0, rows), undefined, [weight], [out]);
            const result = await valuesOf(backend, out);
            const error = close(result, expected(rows, add), widened(bound), `${rows} rows${add ? ", added" : ""}`);
            worst.set(type, Math.max(worst.get(type) ?? 0, error));
            got.push({ rows, add, values: result });
          }
        // A prompt's tokens, which kernels may part otherwise.
        const tokens = await newTensor(backend, before, most, outputs, ROPE_DIM);
        backend.prepare(plainBatch(new Uint32Array(most), ROPE_DIM));
        backend.linearAdd(x, weight, tokens);
        close(await valuesOf(backend, tokens), expected(most, true), widened(bound), `${most} tokens`);
        if (!exact) return;
        for (const add of [false, true]) {
          const all = got.find((g) => g.rows === most && g.add === add)!.values;
          for (const g of got)
            if (g.add === add) sameBits(g.values, all.subarray(0, g.values.length), `${g.rows} rows of ${most}`);
        }
        // Rows that begin elsewhere in the tensor, alone.
        const out = backend.tensor(1, outputs);
        for (const row of [1, 6, most - 1]) {
          backend.linear(backend.view(x, row, 1), undefined, [weight], [out]);
          const all = got.find((g) => g.rows === most && !g.add)!.values;
          sameBits(await valuesOf(backend, out), all.subarray(row * outputs, (row + 1) * outputs), `row ${row} alone`);
        }
      });

  for (const { type, cols, outputs, rows: counts, bound } of cases.LINEAR_LARGE)
    test(`${name}: linear ${type}, ${outputs} × ${cols}, the same bits however many rows come together`, async () => {
      const random = newRandom(cols);
      const backend = await create();
      const [most] = counts;
      const data = randomBlocks(type, outputs * cols, 1 / Math.sqrt(cols), random, cols);
      const weights = reference.dequantise(type, data, outputs * cols);
      const weight = await newWeight(backend, type, outputs, cols, data);
      const values = normals(random, most * cols);
      const x = await newTensor(backend, values, most, cols, ROPE_DIM);
      const want = Array.from({ length: most }, (_, row) => [
        ...reference.linear(weights, values.subarray(row * cols, (row + 1) * cols)),
      ]).flat();
      const results: Float32Array[] = [];
      for (const rows of counts) {
        const out = backend.tensor(rows, outputs);
        begin(backend, rows);
        backend.linear(backend.view(x, 0, rows), undefined, [weight], [out]);
        results.push(await valuesOf(backend, out));
      }
      close(results[0], want, widened(bound), `${most} rows`);
      for (const [i, rows] of counts.entries())
        sameBits(results[i], results[0].subarray(0, rows * outputs), `${rows} rows of ${most}`);
    });

  for (const { name: what, value } of cases.LINEAR_STRAINED)
    test(`${name}: linear, ${what}`, async () => {
      const cols = 1280;
      const outputs = 67; // too many for a small matrix
      const backend = await create();
      const row = Float32Array.from({ length: cols }, (_, k) => value(k));
      const many = wide?.rows ?? 5;
      const x = await newTensor(backend, Array.from({ length: many }, () => [...row]).flat(), many, cols, ROPE_DIM);
      for (const { type } of cases.LINEAR) {
        const data = randomBlocks(type, outputs * cols, 1, newRandom(7), cols);
        if (type === "Q8_0") data.subarray(0, 34).fill(0x80, 2); // codes of -128
        const weights = reference.dequantise(type, data, outputs * cols);
        const weight = await newWeight(backend, type, outputs, cols, data);
        for (const rows of [1, many]) {
          // Where many rows are computed in 16 bits, they are held to their range.
          const inHalves = wide !== undefined && rows > 1;
          const held = inHalves ? row.map((x) => Math.max(-65504, Math.min(65504, x))) : row;
          const want = reference.linear(weights, held);
          const out = backend.tensor(rows, outputs);
          begin(backend, rows);
          backend.linear(backend.view(x, 0, rows), undefined, [weight], [out]);
          const got = await valuesOf(backend, out);
          for (let i = 0; i < got.length; i++) {
            const output = i % outputs;
            const error = Math.abs(got[i] - want[output]);
            const own = weights.subarray(output * cols, (output + 1) * cols);
            const allowed = strainedBound(held, own) + (inHalves ? halvesBound(held, own) : 0);
            if (!(error <= allowed))
              assert.unreachable(`${type}, ${rows} rows, output ${output}: off by ${error}, allowed ${allowed}`);
          }
          if (exact)
            sameBits(got.subarray(0, outputs), got.subarray(got.length - outputs), `${type}: first and last row`);
          if (exact && rows === many) {
            backend.linear(backend.view(x, 0, 1), undefined, [weight], [backend.view(out, 0, 1)]);
            sameBits(
              (await valuesOf(backend, out)).subarray(0, outputs),
              got.subarray(0, outputs),
              `${type}: 1 and ${rows} rows`,
            );
          }
        }
      }
    });

  test(`${name}: a product's result does not take in what padding and scratch held`, async () => {
    const backend = await create();
    const random = newRandom(3);
    const [cols, outputs] = [256, 331];
    for (const { type } of cases.LINEAR) {
      const data = randomBlocks(type, outputs * cols, 1 / 16, random, cols);
      const weight = await newWeight(backend, type, outputs, cols, data);
      const x = await newTensor(backend, normals(random, 3 * cols), 3, cols, ROPE_DIM);
      const broken = backend.vector(new Float32Array(cols).fill(NaN));
      const [out, waste] = [backend.tensor(3, outputs), backend.tensor(1, outputs)];
      backend.linear(x, undefined, [weight], [out]);
      const before = await valuesOf(backend, out);
      backend.linear(broken, undefined, [weight], [waste]);
      backend.linear(x, undefined, [weight], [out]);
      sameBits(await valuesOf(backend, out), before, type);
    }
  });

  // -------------------------------------------------------------------------------------------- rows of tables

  const types: Readonly<Record<string, { blocks: number; block_elements: number; data: string; values_f32: string }>> =
    dequant.types;
  for (const { type } of cases.LINEAR.filter((c) => types[c.type]))
    test(`${name}: embed ${type}, bit for bit`, async () => {
      const { blocks, block_elements: cols, data, values_f32 } = types[type];
      const backend = await create();
      const want = new Float32Array(bytesOf(values_f32).buffer);
      // A row a block; then one row of all blocks.
      const ids = [2, 0, 3, 3, 1];
      const table = await newWeight(backend, type, blocks, cols, bytesOf(data));
      const out = backend.tensor(ids.length, cols);
      backend.embed(table, backend.prepare(plainBatch(ids, ROPE_DIM)), out);
      const got = await valuesOf(backend, out);
      for (const [row, id] of ids.entries())
        sameBits(got.slice(row * cols, (row + 1) * cols), want.slice(id * cols, (id + 1) * cols), `row ${id}`);
      const wide = await newWeight(backend, type, 1, blocks * cols, bytesOf(data));
      const row = backend.tensor(1, blocks * cols);
      backend.embed(wide, backend.prepare(plainBatch([0], ROPE_DIM)), row);
      sameBits(await valuesOf(backend, row), want, "all blocks in one row");
    });

  for (const { type, cols: widths } of cases.LINEAR)
    test(`${name}: embed ${type}, rows of a larger table`, async () => {
      const cols = widths[1];
      const rows = 37;
      const backend = await create();
      const data = randomBlocks(type, rows * cols, 1, newRandom(5), cols);
      const want = Float32Array.from(reference.dequantise(type, data, rows * cols));
      const table = await newWeight(backend, type, rows, cols, data);
      const ids = Array.from({ length: 64 }, (_, i) => (i * 11) % rows);
      const out = backend.tensor(64, cols);
      backend.embed(table, backend.prepare(plainBatch(ids, ROPE_DIM)), out);
      const got = await valuesOf(backend, out);
      for (const [row, id] of ids.entries())
        sameBits(got.slice(row * cols, (row + 1) * cols), want.slice(id * cols, (id + 1) * cols), `row ${id}`);
    });

  // -------------------------------------------------------------------------------------------- element by element

  for (const { name: what, rows, cols, scale, eps, bound } of cases.RMS_NORM)
    test(`${name}: rmsNorm, ${what}`, async () => {
      const random = newRandom(cols);
      const backend = await create();
      const values = normals(random, rows * cols, scale);
      const weight = normals(random, cols);
      const x = await newTensor(backend, values, rows, cols, ROPE_DIM);
      backend.rmsNorm(x, { weight: backend.vector(weight), eps });
      const row = (i: number) => values.subarray(i * cols, (i + 1) * cols);
      const want = Array.from({ length: rows }, (_, i) => [...reference.rmsNorm(row(i), weight, eps)]).flat();
      close(await valuesOf(backend, x), want, bound, "rows");
    });

  test(`${name}: rmsNorm of each head by itself, in place`, async () => {
    const random = newRandom(8);
    const backend = await create();
    const [rows, heads, headDim] = [5, 3, 20];
    const values = normals(random, rows * heads * headDim);
    const weight = normals(random, headDim);
    const x = await newTensor(backend, values, rows, heads * headDim, ROPE_DIM);
    backend.rmsNorm(x, { weight: backend.vector(weight), eps: 1e-6 });
    const head = (i: number) => values.subarray(i * headDim, (i + 1) * headDim);
    const want = Array.from({ length: rows * heads }, (_, i) => [...reference.rmsNorm(head(i), weight, 1e-6)]).flat();
    close(await valuesOf(backend, x), want, { atol: 0, rtol: 1e-6 }, "heads");
  });

  test(`${name}: addBias`, async () => {
    const random = newRandom(8);
    const backend = await create();
    for (const cols of [1, 7, 33, 64]) {
      const [values, bias] = [normals(random, 5 * cols), normals(random, cols)];
      const x = await newTensor(backend, values, 5, cols, ROPE_DIM);
      backend.addBias(backend.view(x, 1, 3), backend.vector(bias));
      const isBiased = (i: number) => i >= cols && i < 4 * cols;
      const want = values.map((value, i) => (isBiased(i) ? value + bias[i % cols] : value));
      sameBits(await valuesOf(backend, x), want, `${cols} columns`);
    }
  });

  test(`${name}: linearGated, gates large and small`, async () => {
    // Weights that pass gates and ups on as they are: gate = [I 0], up = [0 I].
    const width = 48;
    const backend = await create({ hiddenDim: width });
    const random = newRandom(9);
    const edges = [0, -0, 1e-30, 1, -1, 20, -20, 87, -87, 88.5, -88.5, 90, -90, 1e4, -1e4, 1e6, -1e6];
    const gates = Float32Array.from([...edges, ...normals(random, 5 * width - edges.length, 8)]);
    const ups = Float32Array.from(gates, (_, i) => (i < edges.length ? 1 : random.normal()));
    const rows = Array.from({ length: 5 }, (_, row) => {
      const own = (x: Float32Array) => x.subarray(row * width, (row + 1) * width);
      return [...own(gates), ...own(ups)];
    });
    const passing = (first: number) =>
      new Uint8Array(
        Float32Array.from({ length: 2 * width * width }, (_, i) =>
          Number(i % (2 * width) === first + Math.floor(i / (2 * width))),
        ).buffer,
      );
    const [gate, up] = await newWeights(
      backend,
      [0, width].map((first) => ({ type: "F32", rows: width, data: passing(first) })),
      2 * width,
    );
    const x = await newTensor(backend, rows.flat(), 5, 2 * width, ROPE_DIM);
    const out = backend.tensor(5, width);
    // A norm that changes nothing but by eps: each row's root mean square as its weight.
    for (const [row, values] of rows.entries()) {
      const size = Math.sqrt(values.reduce((sum, value) => sum + value * value, 0) / values.length);
      const norm = { weight: backend.vector(new Float32Array(2 * width).fill(size)), eps: 0 };
      begin(backend, 1);
      backend.linearGated(backend.view(x, row, 1), norm, gate, up, backend.view(out, row, 1));
    }
    close(await valuesOf(backend, out), reference.swiglu(gates, ups), cases.GATED, "gated");
  });

  for (const { cols, outputs, types, bound, small } of cases.NORMED)
    test(`${name}: linear and linearGated of normalised rows, weights side by side, ${types.join(" and ")}${small ? ", by kernels of small models" : ""}`, async () => {
      const backend = await create({ hiddenDim: outputs[0] }, undefined, { asLarge: !small });
      const random = newRandom(cols);
      const norm = normals(random, cols);
      const weights = types.map((type, i) => {
        const data = randomBlocks(type, outputs[i] * cols, 1 / Math.sqrt(cols), random, cols);
        return { type, rows: outputs[i], data, values: reference.dequantise(type, data, outputs[i] * cols) };
      });
      const most = Math.max(...cases.LINEAR_ROWS);
      const values = normals(random, most * cols, 3);
      const made = await newWeights(backend, weights, cols);
      const eps = 0.5; // so large that it shows beside squares of 9, in 16 bits too
      const by = { weight: backend.vector(norm), eps };
      const x = await newTensor(backend, values, most, cols, ROPE_DIM);
      const wanted = Array.from({ length: most }, (_, row) => {
        const normed = reference.rmsNorm(values.subarray(row * cols, (row + 1) * cols), norm, eps);
        return weights.map((weight) => reference.linear(weight.values, normed));
      });
      for (const rows of cases.LINEAR_ROWS) {
        const outs = backend.tensors(rows, outputs);
        const from = backend.view(x, 0, rows);
        begin(backend, rows);
        backend.linear(from, by, made, outs);
        for (const [i, out] of outs.entries()) {
          const want = wanted.slice(0, rows).flatMap((products) => [...products[i]]);
          close(await valuesOf(backend, out), want, widened(bound), `${rows} rows, product ${i}`);
        }
        begin(backend, rows);
        backend.unembed(from, by, made[0], outs[0]);
        const logits = wanted.slice(0, rows).flatMap(([product]) => [...product]);
        close(await valuesOf(backend, outs[0]), logits, ofLogits(bound), `${rows} rows, logits`);
        if (outputs[0] !== outputs[1]) continue;
        const gated = backend.tensor(rows, outputs[0]);
        begin(backend, rows);
        backend.linearGated(from, by, made[0], made[1], gated);
        const want = wanted.slice(0, rows).flatMap(([gate, up]) => [...reference.swiglu(gate, up)]);
        const { atol, rtol } = widened(bound);
        const scaled = { rtol, atol: 2 * atol * Math.max(...want.map(Math.abs)) };
        close(await valuesOf(backend, gated), want, scaled, `${rows} rows, gated`);
      }
    });

  for (const { rows, type, width, size, bound } of cases.NEXT_NORM)
    test(`${name}: linearAdd into ${rows} rows of all sizes about ${size}, which a norm reads next, ${type}`, async () => {
      const cols = 320;
      const backend = await create({ dim: cols, hiddenDim: width });
      const random = newRandom(rows);
      const matrix = (outputs: number, cols: number, size: number) => {
        const data = randomBlocks(type, outputs * cols, size / Math.sqrt(cols), random, cols);
        return { type, rows: outputs, data, values: reference.dequantise(type, data, outputs * cols) };
      };
      // Norms' weights are of the stream's size, and what reads normalised rows makes up for it.
      const [gate, up] = [matrix(width, cols, 1 / size), matrix(width, cols, 1 / size)];
      const down = matrix(cols, width, size);
      const [gates, ups] = await newWeights(backend, [gate, up], cols);
      const [downs] = await newWeights(backend, [down], width);
      const eps = 1e-9;
      const norms = [0, 1, 2].map(() => normals(random, cols, size));
      const [first, second, third] = norms.map((weight) => ({ weight: backend.vector(weight), eps }));
      const before = normals(random, rows * cols, size).map((x, i) => x * 8 ** ((Math.floor(i / cols) % 7) - 3));

      const [stream, hidden, out] = [cols, width, width].map((cols) => backend.tensor(rows, cols));
      // Twice, so that nothing may be left of the forward before.
      for (const size of [2, 1]) {
        await fill(
          backend,
          stream,
          before.map((x) => x * size),
          ROPE_DIM,
        );
        begin(backend, rows);
        backend.linearGated(stream, first, gates, ups, hidden);
        backend.linearAdd(hidden, downs, stream, second);
        backend.linearGated(stream, second, gates, ups, hidden);
        backend.linearAdd(hidden, downs, stream, third);
        backend.unembed(stream, third, gates, out);
      }

      const [streamed, logits] = [await valuesOf(backend, stream), await valuesOf(backend, out)];
      for (let row = 0; row < rows; row++) {
        const own = (all: ArrayLike<number>, cols: number) => Array.from(all).slice(row * cols, (row + 1) * cols);
        const normed = (x: ArrayLike<number>, by: number) => reference.rmsNorm(x, norms[by], eps);
        const after = (x: ArrayLike<number>, by: number) => {
          const [g, u] = [gate, up].map(({ values }) => reference.linear(values, normed(x, by)));
          const sums = reference.linear(down.values, reference.swiglu(g, u));
          return Array.from(x, (value, i) => value + sums[i]);
        };
        const x = after(after(own(before, cols), 0), 1);
        // What is added has gone through two gates.
        const { atol, rtol } = widened(bound);
        close(own(streamed, cols), x, { atol: 2 * atol, rtol }, `row ${row}`);
        const want = reference.linear(gate.values, normed(x, 2));
        close(own(logits, width), want, { atol: 2 * atol, rtol }, `row ${row}, logits`);
      }
    });

  // -------------------------------------------------------------------------------------------- rotary positions

  for (const { name: what, headDim, ropeDim, pairs, bound } of cases.ROPE)
    test(`${name}: ropeAppend ${pairs}, ${what}`, async () => {
      const shape = { nHeads: 4, nKvHeads: 2, headDim, ropeDim, ropePairs: pairs, nLayers: 2 };
      const cache = await newCache(await create(shape), shape);
      const { backend } = cache;
      const random = newRandom(headDim);
      const tokens = 40;
      const [q, k, v] = [4, 2, 2].map((heads) => halves(normals(random, tokens * heads * headDim)));
      const angles = Float64Array.from({ length: (tokens * ropeDim) / 2 }, () => 7 * random.normal());
      const turns = Float32Array.from({ length: 2 * angles.length }, (_, i) =>
        i & 1 ? Math.sin(angles[i >> 1]) : Math.cos(angles[i >> 1]),
      );
      const [queries, keys, values] = backend.tensors(tokens, [4 * headDim, 2 * headDim, 2 * headDim]);
      await fill(backend, queries, q, ropeDim);
      await fill(backend, keys, k, ropeDim);
      await fill(backend, values, v, ropeDim);
      const blocks = cache.take(tokens);
      const slots = slotsOf(blocks, 0, tokens);
      const batch = backend.prepare({ ...plainBatch(new Uint32Array(tokens)), turns, slots });
      backend.ropeAppend(queries, keys, values, 1, batch);
      const rotated = await valuesOf(backend, queries);
      const angle = (row: number, i: number) => angles[(row * ropeDim) / 2 + i];
      close(rotated, turned(q, 4 * headDim, headDim, ropeDim, pairs, angle), bound, "q");

      // K and V show in what attention makes of them: each row a sample that sees all tokens.
      const context = { length: tokens, blocks };
      const read = backend.prepare({
        ...plainBatch(new Uint32Array(tokens), ropeDim),
        context,
        tails: noTails(tokens),
      });
      const out = backend.tensor(tokens, 4 * headDim);
      backend.attendOnePart(queries, 1, read, out);
      // Where the cache holds 16 bits, a key beside a rounding's edge may fall to the other side.
      const keysAsKept = turned(k, 2 * headDim, headDim, ropeDim, pairs, angle);
      const wantK = exact ? keysAsKept : halves(keysAsKept);
      const want = reference.attendOnePart({
        nHeads: 4,
        nKvHeads: 2,
        headDim,
        q: rotated,
        context: { k: byHead(wantK, 2, headDim), v: byHead(v, 2, headDim), tokens },
        decode: Array.from({ length: tokens }, () => ({ k: [], v: [], tokens: 0 })),
      });
      const keptBound = widened({ ...bound, atol: exact ? 3 * bound.atol : 1e-4 });
      close(await valuesOf(backend, out), want, keptBound, "attention over rotated keys");
    });

  const HEADS = {
    "heads of whole tiles": { nHeads: 4, nKvHeads: 2, headDim: 32, ropeDim: 24, ropePairs: "interleaved", nLayers: 2 },
    "other heads": { nHeads: 2, nKvHeads: 2, headDim: 12, ropeDim: 12, ropePairs: "interleaved", nLayers: 2 },
    "pairs of halves": { nHeads: 2, nKvHeads: 1, headDim: 16, ropeDim: 16, ropePairs: "halves", nLayers: 2 },
  } as const;
  for (const [what, shape] of Object.entries(HEADS))
    test(`${name}: linearRopeAppend is linear, then ropeAppend, ${what}`, async () => {
      const { nHeads, nKvHeads, headDim, ropeDim } = shape;
      const cols = 64;
      const most = 21;
      const backend = await create(shape);
      const cache = await newCache(backend, shape, 2 * most);
      const random = newRandom(headDim);
      const widths = [nHeads, nKvHeads, nKvHeads].map((heads) => heads * headDim);
      // v of another type lies by itself.
      const weights = await newWeights(
        backend,
        widths.map((rows, i) => {
          const type = i === 2 ? "Q8_0" : "F16";
          return { type, rows, data: randomBlocks(type, rows * cols, 1 / Math.sqrt(cols), random, cols) };
        }),
        cols,
      );
      const norm = { weight: backend.vector(normals(random, cols)), eps: 0.5 };
      for (const rows of [3, most]) {
        const x = await newTensor(backend, normals(random, rows * cols), rows, cols, ropeDim);
        // Each sample's token comes between two that are there already, at an even or an odd place.
        const places = Array.from({ length: rows }, (_, row) => (row * 11 + rows) % 31);
        const blocks = places.map(() => [cache.take(1), cache.take(1)]);
        for (const [row, place] of places.entries()) {
          const [k, v] = [0, 1].map(() => halves(normals(random, (place + 2) * nKvHeads * headDim)));
          for (const block of blocks[row]) await cache.append(k, v, block, 0, 1);
        }
        const turns = Float32Array.from({ length: rows * ropeDim }, (_, i) => Math.cos(i >> 1) * (i & 1 ? 0.6 : 0.8));
        const out = backend.tensor(rows, widths[0]);
        const attended = async (which: number, append: (qkv: Tensor[], batch: PreparedBatch) => void) => {
          const qkv = backend.tensors(rows, widths);
          const prepared = backend.prepare({
            ...plainBatch(new Uint32Array(rows)),
            turns,
            slots: Uint32Array.from(places.flatMap((place, row) => [blocks[row][which][0], place])),
            tails: {
              blocks: blocks.map((of) => of[which]),
              lengths: Uint32Array.from(places, (place) => place + 2),
            },
          });
          append(qkv, prepared);
          backend.attendOnePart(qkv[0], 1, prepared, out);
          return [await valuesOf(backend, qkv[0]), await valuesOf(backend, out)];
        };
        const want = await attended(0, (qkv, batch) => {
          backend.linear(x, norm, weights, qkv);
          backend.ropeAppend(qkv[0], qkv[1], qkv[2], 1, batch);
        });
        const got = await attended(1, (qkv, batch) => backend.linearRopeAppend(x, norm, weights, qkv, 1, batch));
        // What is kept in 16 bits may fall to the other side of a rounding's edge.
        close(got[0], want[0], { atol: 1e-5, rtol: 1e-5 }, `${rows} rows, q`);
        close(got[1], want[1], widened({ atol: exact ? 0 : 1e-3, rtol: 0 }), `${rows} rows, attention`);
        for (const of of blocks) cache.give(of);
      }
    });

  for (const [what, shape] of Object.entries(HEADS))
    test(`${name}: rows behind a step's last leave nothing in the cache, ${what}`, async () => {
      const { nHeads, nKvHeads, headDim, ropeDim } = shape;
      const [rows, room, cols] = [5, 16, 32];
      const backend = await create(shape);
      const cache = await newCache(backend, shape, 16);
      const random = newRandom(headDim);
      const shared = cache.take(96);
      const [k, v] = [0, 1].map(() => halves(normals(random, 96 * nKvHeads * headDim)));
      await cache.append(k, v, shared, 0, LAYER);
      const query = await newTensor(backend, normals(random, nHeads * headDim), 1, nHeads * headDim, ropeDim);
      const out = backend.tensor(1, nHeads * headDim);
      const context = { blocks: shared, length: 96 };
      const see = () => {
        const batch = backend.prepare({ ...plainBatch([0], ropeDim), context, tails: noTails(1) });
        backend.attendOnePart(query, LAYER, batch, out);
        return valuesOf(backend, out);
      };
      const before = await see();

      const widths = [nHeads, nKvHeads, nKvHeads].map((heads) => heads * headDim);
      const data = widths.map((outputs) => randomBlocks("F16", outputs * cols, 1, random, cols));
      const weights = await newWeights(
        backend,
        widths.map((outputs, i) => ({ type: "F16", rows: outputs, data: data[i] })),
        cols,
      );
      const norm = { weight: backend.vector(normals(random, cols)), eps: 0.5 };
      const x = await newTensor(backend, normals(random, room * cols), room, cols, ropeDim);
      const qkv = backend.tensors(room, widths);
      const [width] = widths;
      const [attended, stream] = await Promise.all(
        [width, cols].map((cols) => newTensor(backend, normals(random, room * cols), room, cols, ropeDim)),
      );
      const projection = await newWeight(
        backend,
        "F16",
        cols,
        width,
        randomBlocks("F16", cols * width, 1, random, width),
      );
      const own = Array.from({ length: rows }, () => cache.take(1));
      const prepared = backend.prepare({
        ...plainBatch(new Uint32Array(rows), ropeDim),
        slots: Uint32Array.from(own.flatMap(([block]) => [block, 0])),
        context,
        tails: { blocks: own, lengths: new Uint32Array(rows).fill(1) },
      });
      assert.ok(prepared.rows >= rows && prepared.rows <= room, `${prepared.rows} rows are computed`);
      const [from, ...to] = [x, ...qkv].map((tensor) => backend.view(tensor, 0, prepared.rows));
      backend.linearRopeAppend(from, norm, weights, to, LAYER, prepared);
      backend.linear(from, norm, weights, to);
      backend.ropeAppend(to[0], to[1], to[2], LAYER, prepared);

      // Nor do they hold anything that is no number, whatever was there before.
      const [state, sums] = [attended, stream].map((tensor) => backend.view(tensor, 0, prepared.rows));
      backend.attendOnePart(to[0], LAYER, prepared, state);
      backend.linearAdd(state, projection, sums);
      assert.ok((await valuesOf(backend, sums)).every(Number.isFinite), "all sums are numbers");
      sameBits(await see(), before, "the context");
    });

  // -------------------------------------------------------------------------------------------- attention

  test(`${name}: a forward as one before is run as it was, one of another form anew`, async () => {
    const shape = HEADS["heads of whole tiles"];
    const { nHeads, nKvHeads, headDim, ropeDim } = shape;
    const width = nHeads * headDim;
    const backend = await create(shape);
    const cache = await newCache(backend, shape, 48);
    const random = newRandom(6);
    const filled = async (tokens: number) => {
      const blocks = cache.take(tokens);
      const [k, v] = [0, 1].map(() => halves(normals(random, tokens * nKvHeads * headDim)));
      await cache.append(k, v, blocks, 0, LAYER);
      return blocks;
    };
    const context = await filled(400);
    const tails = [await filled(300), await filled(300), await filled(300)];
    const q = await newTensor(backend, normals(random, 4 * width), 4, width, ropeDim);
    const states = backend.states(4);
    const out = backend.tensor(4, width);
    const forms = [
      { rows: 3, context: 100, tail: 100 },
      { rows: 3, context: 100, tail: 101 },
      { rows: 3, context: 101, tail: 102 },
      { rows: 3, context: 101, tail: 270 }, // the tails of more slices
      { rows: 3, context: 300, tail: 271 }, // the context
      { rows: 2, context: 300, tail: 272 },
      { rows: 2, context: 400, tail: 1 },
      { rows: 3, context: 400, tail: 2 }, // more rows
      { rows: 3, context: 120, tail: 90 }, // as the first
    ];
    const work = {};
    let ran = 0;
    /** All numbers of the rows, as steps read theirs. */
    const run = async ({ rows, context: length, tail }: (typeof forms)[number], again: boolean) => {
      const batch = backend.prepare({
        ...plainBatch(new Uint32Array(rows), ropeDim),
        context: { blocks: context.slice(0, Math.ceil(length / 32)), length },
        tails: {
          blocks: tails.slice(0, rows).map((blocks) => blocks.slice(0, Math.ceil(tail / 32))),
          lengths: new Uint32Array(rows).fill(tail),
        },
      });
      const [from, to] = [q, out].map((tensor) => backend.view(tensor, 0, batch.rows));
      const operations = () => {
        if (again) ran++;
        backend.attendContext(from, LAYER, batch, states);
        backend.attendDecode(from, LAYER, batch, states);
        backend.mergeStates(states, batch, to);
      };
      if (again) backend.forward([work, LAYER], batch, operations);
      else operations();
      const requests = Array.from({ length: rows }, () => ({ edits: new Uint32Array(0), inverseTemperature: 0 }));
      const found = await backend.candidates(to, requests, width);
      return Float32Array.from(requests.flatMap((_, row) => [...ofRow(found, found.raw, row)]));
    };
    const got: Float32Array[] = [];
    for (const form of forms) got.push(await run(form, true));
    assert.is(ran, backend.kind === "webgpu" ? 6 : forms.length, "operations of forwards that ran anew");
    for (const [i, form] of forms.entries()) sameBits(got[i], await run(form, false), JSON.stringify(form));
  });

  for (const c of cases.ATTEND)
    test(`${name}: attention in two parts and in one, ${c.name}`, async () => {
      const random = newRandom(c.headDim + c.context);
      await bothWays(await decodeCase(create, c, () => random.normal()), widened(c.bound), exact);
    });

  test(`${name}: attention with scores of ±10,000`, async () => {
    // Keys are small whole numbers along two dimensions, so that scores are exact and errors are those of the softmax.
    const c = { nHeads: 2, nKvHeads: 1, headDim: 64, context: 40, decode: [1, 35, 3] };
    const scores = [1e4, 1e4 - 1, -1e4, 0, 1e4 - 2];
    const keys = scores.map((score) => [Math.round(score / 1e4), score % 1e4 && (score % 1e4) - 1e4]);
    const found = await decodeCase(create, c, (kind, i) => {
      if (kind === "v") return Math.sin(i);
      const d = i % 64;
      if (d > 1) return 0;
      if (kind === "k") return keys[(i >> 6) % 5][d];
      return [8e4, 8][d] * ((i >> 6) % 2 === 0 ? 1 : -1);
    });
    await bothWays(found, widened(cases.LARGE_SCORES), exact);
  });

  test(`${name}: attention with all scores near -10,000`, async () => {
    const c = { nHeads: 2, nKvHeads: 1, headDim: 64, context: 40, decode: [1, 35, 3] };
    const found = await decodeCase(create, c, (kind, i) => {
      if (kind === "v") return Math.sin(i);
      const d = i % 64;
      if (d > 1) return 0;
      return kind === "q" ? [-8e4, -8][d] : [1, -((i >> 6) % 5)][d];
    });
    await bothWays(found, widened(cases.LARGE_SCORES), exact);
  });

  // Slices of the context are of two steps here. Scores rise by 1 every 2 tokens, by more than sums bear that are not scaled anew.
  for (const [nHeads, nKvHeads, headDim, samples] of [
    [4, 1, 128, 5],
    [9, 3, 64, 2],
  ] as const)
    test(`${name}: attention with scores that rise, ${nHeads} heads of ${headDim} dimensions`, async () => {
      const c = { nHeads, nKvHeads, headDim, context: 2200, decode: [100, ...new Array(samples - 1).fill(1)] };
      const found = await decodeCase(create, c, (kind, i) => {
        if (kind === "v") return Math.sin(i);
        if (i % headDim > 0) return 0;
        return kind === "q" ? Math.sqrt(headDim) : Math.floor(i / (2 * nKvHeads * headDim));
      });
      await bothWays(found, widened(cases.LARGE_SCORES), exact);
    });

  test(`${name}: attention over identical keys is the mean`, async () => {
    const c = { nHeads: 4, nKvHeads: 2, headDim: 20, context: 70, decode: [1, 33, 64] };
    const found = await decodeCase(create, c, (kind, i) =>
      kind === "v" ? Math.cos(i) : kind === "k" ? 3 * Math.sin(i % 20) : Math.cos(5 * i),
    );
    await bothWays(found, widened({ atol: 1e-6, rtol: 1e-5 }), exact);
  });

  test(`${name}: empty parts leave no trace of the states before them`, async () => {
    const c = { nHeads: 4, nKvHeads: 2, headDim: 12, context: 50, decode: [4, 9] };
    const random = newRandom(1);
    const { backend, batch, attention, q } = await decodeCase(create, c, () => random.normal());
    const states = backend.states(2);
    const empty = { k: [], v: [], tokens: 0 };
    const bound = widened({ atol: 2e-6, rtol: 1e-5 });
    await twoParts(backend, q, batch, states);
    const noContext = { ...batch, context: { blocks: new Uint32Array(0), length: 0 } };
    const wantTails = reference.attendOnePart({ ...attention, context: empty });
    close(await twoParts(backend, q, noContext, states), wantTails, bound, "no context");
    await twoParts(backend, q, batch, states);
    const noTails = {
      ...batch,
      tails: { blocks: [new Uint32Array(0), new Uint32Array(0)], lengths: new Uint32Array(2) },
    };
    const wantContext = reference.attendOnePart({ ...attention, decode: [empty, empty] });
    close(await twoParts(backend, q, noTails, states), wantContext, bound, "no tails");
  });

  for (const c of cases.PREFILL)
    test(`${name}: prefill in chunks and at once, ${c.name}`, async () => {
      const { nHeads, nKvHeads, headDim, cuts, bound } = c;
      const group = nHeads / nKvHeads;
      const random = newRandom(headDim);
      const tokens = cuts[0].reduce((a, b) => a + b);
      const [q, k, v] = [nHeads, nKvHeads, nKvHeads].map((heads) => halves(normals(random, tokens * heads * headDim)));
      if (c.rising) {
        // Whole numbers along one dimension, so that scores are exact: they rise by 1 every 4 tokens, in all by more than sums bear
        // that are not scaled anew. Every other query's stay the same: its sums are scaled by 1, and all tokens count in them.
        for (const [i] of q.entries()) q[i] = i % (2 * headDim) === 0 ? Math.sqrt(headDim) : 0;
        for (const [i] of k.entries()) k[i] = i % headDim === 0 ? Math.floor(i / (4 * nKvHeads * headDim)) : 0;
      }
      const [keys, values] = [k, v].map((x) => byHead(x, nKvHeads, headDim));
      const want = new Float64Array(q.length);
      for (let token = 0; token < tokens; token++)
        for (let head = 0; head < nHeads; head++) {
          const at = (token * nHeads + head) * headDim;
          const from = Math.floor(head / group) * tokens * headDim;
          const seen = (x: Float64Array) => x.subarray(from, from + (token + 1) * headDim);
          want.set(reference.attend(q.subarray(at, at + headDim), seen(keys), seen(values)).value, at);
        }

      const shape = { nHeads, nKvHeads, headDim, ropeDim: headDim, nLayers: 2 };
      const results: Float32Array[] = [];
      for (const cut of cuts) {
        assert.is(
          cut.reduce((a, b) => a + b),
          tokens,
          "a cut of the same tokens",
        );
        const cache = await newCache(await create(shape), shape, Math.ceil(tokens / 32));
        const { backend } = cache;
        const blocks = cache.take(tokens);
        const got = new Float32Array(q.length);
        let at = 0;
        for (const rows of cut) {
          const part = (x: Float32Array, heads: number) =>
            x.subarray(at * heads * headDim, (at + rows) * heads * headDim);
          const widths = [nHeads, nKvHeads, nKvHeads].map((heads) => heads * headDim);
          const [queries, newKeys, newValues] = backend.tensors(rows, widths);
          await fill(backend, queries, part(q, nHeads), headDim);
          await fill(backend, newKeys, part(k, nKvHeads), headDim);
          await fill(backend, newValues, part(v, nKvHeads), headDim);
          const batch = backend.prepare({
            ...plainBatch(new Uint32Array(rows), headDim),
            slots: slotsOf(blocks, at, rows),
            context: { blocks, length: at },
          });
          backend.ropeAppend(queries, newKeys, newValues, LAYER, batch);
          const out = backend.tensor(rows, nHeads * headDim);
          backend.attendPrefill(queries, LAYER, batch, out);
          got.set(await valuesOf(backend, out), at * nHeads * headDim);
          at += rows;
        }
        close(got, want, widened(bound), `chunks of ${cut.join(", ")}`);
        results.push(got);
      }
      if (exact) for (const [i, got] of results.entries()) sameBits(got, results[0], `chunks of ${cuts[i].join(", ")}`);
    });

  test(`${name}: copyBlock copies a block's first tokens in all layers, and leaves the original`, async () => {
    const shape = { nHeads: 2, nKvHeads: 1, headDim: 12, ropeDim: 12, nLayers: 3 };
    const { backend, take, append } = await newCache(await create(shape), shape);
    const random = newRandom(2);
    const [k, v, otherK, otherV, q] = [20, 20, 5, 5, 2].map((tokens) => halves(normals(random, tokens * 12)));
    const [block] = take(20);
    const [copy] = take(20);
    const see = async (of: number, length: number, layer: number) => {
      const queries = await newTensor(backend, q, 1, 24, 12);
      const out = backend.tensor(1, 24);
      const context = { blocks: Uint32Array.of(of), length };
      const batch = backend.prepare({ ...plainBatch([0], 12), context, tails: noTails(1) });
      backend.attendOnePart(queries, layer, batch, out);
      return valuesOf(backend, out);
    };
    const want = (keys: Float32Array, values: Float32Array) => {
      const tokens = keys.length / 12;
      const context = { k: keys, v: values, tokens };
      const decode = [{ k: [], v: [], tokens: 0 }];
      return reference.attendOnePart({ nHeads: 2, nKvHeads: 1, headDim: 12, q, context, decode });
    };
    const bound = { atol: 2e-6, rtol: 1e-5 };
    for (const layer of [0, 1, 2]) await append(k, v, Uint32Array.of(block), 0, layer);
    const before = await see(block, 20, 2);
    backend.copyBlock(block, copy, 13);
    for (const layer of [0, 1, 2]) {
      await append(otherK, otherV, Uint32Array.of(copy), 13, layer);
      const joined = (a: Float32Array, b: Float32Array) => Float32Array.from([...a.subarray(0, 13 * 12), ...b]);
      close(await see(copy, 18, layer), want(joined(k, otherK), joined(v, otherV)), bound, `the copy, layer ${layer}`);
      close(await see(block, 20, layer), want(k, v), bound, `the original, layer ${layer}`);
    }
    sameBits(await see(block, 20, 2), before, "the original");
  });

  test(`${name}: blocks are copied in the order that was asked for, many at a time`, async () => {
    const shape = { nHeads: 1, nKvHeads: 1, headDim: 12, ropeDim: 12, nLayers: 2 };
    const { backend, take, append } = await newCache(await create(shape), shape, 90);
    const random = newRandom(3);
    const q = await newTensor(backend, halves(normals(random, 12)), 1, 12, 12);
    const out = backend.tensor(1, 12);
    const see = (of: number) => {
      const context = { blocks: Uint32Array.of(of), length: 32 };
      const batch = backend.prepare({ ...plainBatch([0], 12), context, tails: noTails(1) });
      backend.attendOnePart(q, LAYER, batch, out);
      return valuesOf(backend, out);
    };
    const blocks = Array.from({ length: 90 }, () => take(32)[0]);
    for (const block of blocks) {
      const [k, v] = [32, 32].map((tokens) => halves(normals(random, tokens * 12)));
      await append(k, v, Uint32Array.of(block), 0, LAYER);
    }
    const contents: Float32Array[] = [];
    for (const block of blocks) contents.push(Float32Array.from(await see(block)));
    const copy = (from: number, to: number) => {
      backend.copyBlock(blocks[from], blocks[to], 32);
      contents[to] = contents[from];
    };
    // What was copied goes on, what was copied from is copied to, a target is copied to again; then more than run at once.
    for (const [from, to] of [
      [0, 1],
      [1, 2],
      [3, 0],
      [4, 0],
      [5, 6],
      [7, 5],
      [6, 8],
    ] as const)
      copy(from, to);
    for (let i = 0; i < 80; i++) copy(9, 10 + i);
    for (const [i, block] of blocks.entries()) sameBits(await see(block), contents[i], `block ${i}`);
  });

  test(`${name}: blocks keep their contents when more are reserved`, async () => {
    const shape = { nHeads: 1, nKvHeads: 1, headDim: 20, ropeDim: 20, nLayers: 2 };
    const { backend, take, append } = await newCache(await create(shape), shape);
    const random = newRandom(4);
    const [k, v] = [64, 64].map((tokens) => normals(random, tokens * 20));
    const blocks = take(64);
    await append(k, v, blocks, 0, LAYER);
    const q = await newTensor(backend, normals(random, 20), 1, 20, 20);
    const out = backend.tensor(1, 20);
    const see = () => {
      const context = { blocks, length: 64 };
      const batch = backend.prepare({ ...plainBatch([0], 20), context, tails: noTails(1) });
      backend.attendOnePart(q, LAYER, batch, out);
      return valuesOf(backend, out);
    };
    const before = await see();
    const used = backend.usedBytes;
    await backend.reserveBlocks(2000);
    assert.ok(backend.usedBytes - used >= 1900 * backend.blockBytes, "reserved blocks are counted");
    const reserved = backend.usedBytes;
    await backend.reserveBlocks(1000);
    assert.is(backend.usedBytes, reserved, "blocks are reserved once");
    sameBits(await see(), before, "after");
  });

  // -------------------------------------------------------------------------------------------- candidates

  for (const { name: what, vocab, k, edits: nEdits, levels, bound } of cases.CANDIDATES)
    test(`${name}: candidates, ${what}`, async () => {
      const backend = await create();
      const random = newRandom(vocab);
      const rows = 4;
      const beyond = 2; // rows without a request
      const values = Float32Array.from(
        { length: (rows + beyond) * vocab },
        () => Math.round(4 * levels * random.normal()) / levels,
      );
      const requests: Request[] = Array.from({ length: rows }, (_, row) => ({
        edits: row === 1 ? new Uint32Array(0) : randomEdits(random, vocab, nEdits),
        inverseTemperature: [1, 0, 1.7, 0.3][row],
        target: row === 3 ? undefined : random.below(vocab),
      }));
      const logits = await newTensor(backend, values, rows + beyond, vocab, ROPE_DIM);
      const found = await backend.candidates(logits, requests, k);
      const width = Math.min(k, vocab);
      assert.is(found.k, width);
      for (const [row, request] of requests.entries()) {
        const raw = values.subarray(row * vocab, (row + 1) * vocab);
        const adjusted = edited(raw, request.edits);
        const order = Array.from(adjusted.keys()).sort((a, b) => adjusted[b] - adjusted[a] || a - b);
        const best = order.slice(0, width);
        assert.equal([...ofRow(found, found.ids, row)], best, `row ${row}: ids`);
        sameBits(
          ofRow(found, found.adjusted, row),
          Float32Array.from(best, (id) => adjusted[id]),
          `row ${row}: adjusted`,
        );
        sameBits(
          ofRow(found, found.raw, row),
          Float32Array.from(best, (id) => raw[id]),
          `row ${row}: raw`,
        );
        const allowed = exact ? bound : cases.GPU_LSE;
        close([found.rawLse[row]], [reference.logSumExp(raw)], allowed, `row ${row}: raw log-sum-exp`);
        assert.is(found.target[row], request.target === undefined ? 0 : raw[request.target], `row ${row}: target`);
        if (request.inverseTemperature > 0) {
          const scaled = Float64Array.from(adjusted, (x) => x * request.inverseTemperature);
          close([found.adjustedLse[row]], [reference.logSumExp(scaled)], allowed, `row ${row}: adjusted log-sum-exp`);
        }
        sameBits(await backend.logits(logits, row), raw.slice(), `row ${row}: logits after the call`);
      }
    });

  for (const vocab of [1428, 9600])
    test(`${name}: candidates of ${vocab} tokens, of which the best are forbidden`, async () => {
      const backend = await create();
      const row = Float32Array.from({ length: vocab }, (_, i) => (i * 37) % vocab);
      const forbidden = Array.from(row.keys()).filter((id) => row[id] >= vocab - 300);
      const [minusInfinity, one] = new Uint32Array(Float32Array.of(-Infinity, 1).buffer);
      const edits = Uint32Array.from(forbidden.flatMap((id) => [id, minusInfinity, one, 0]));
      const found = await backend.candidates(backend.vector(row), [{ edits, inverseTemperature: 1 }], 100);
      assert.equal(
        [...ofRow(found, found.adjusted, 0)],
        Array.from({ length: 100 }, (_, rank) => vocab - 301 - rank),
      );
    });

  test(`${name}: candidates of logits of ±10,000, of impossible tokens, of equal ones and of neighbours`, async () => {
    const backend = await create();
    const rows = {
      large: Float32Array.from({ length: 301 }, (_, i) => (i % 3 === 0 ? 1e4 : -1e4) + (i % 7)),
      impossible: Float32Array.from({ length: 301 }, (_, i) => (i % 50 === 9 ? i : -Infinity)),
      equal: new Float32Array(301).fill(-2.5),
      // Nearly all are alike, but the better ones come late.
      alike: Float32Array.from({ length: 9600 }, (_, i) => (i % 32 === 7 && i > 7680 ? 1 : -1)),
      // One of each 32 neighbours, or many neighbours, are better than the others.
      apart: Float32Array.from({ length: 48000 }, (_, i) => (i % 32 === 7 ? 1 : -1 - i / 1e5)),
      together: Float32Array.from({ length: 9600 }, (_, i) => Math.sin(i) + (i < 9200 ? 0 : 3)),
    };
    const k = 100;
    for (const [what, row] of Object.entries(rows)) {
      const request = { edits: new Uint32Array(0), inverseTemperature: 0.5 };
      const found = await backend.candidates(backend.vector(row), [request], k);
      const order = Array.from(row.keys()).sort((a, b) => (row[a] === row[b] ? a - b : row[b] - row[a]));
      assert.equal([...ofRow(found, found.ids, 0)], order.slice(0, k), what);
      const allowed = exact ? { atol: 1e-9, rtol: 1e-13 } : cases.GPU_LSE;
      close(found.rawLse, [reference.logSumExp(row)], allowed, what);
      close(found.adjustedLse, [reference.logSumExp(row.map((x) => x / 2))], allowed, what);
    }
  });

  test(`${name}: candidates, draws that go on beyond them`, async () => {
    const backend = await create();
    const random = newRandom(8);
    const vocab = 5003;
    const k = 64;
    const n = 40;
    const samples = Array.from({ length: n }, (_, i) => i);
    const rowOf = (value: (id: number) => number) => Float32Array.from({ length: vocab }, (_, id) => value(id));
    const biases = Object.fromEntries(samples.map((i) => [100 * i + 1, 2 * random.normal()]));
    const rows: { raw: Float32Array; options: { temperature: number; logitBias?: Record<number, number> } }[] = [
      { raw: rowOf(() => random.normal() / 2), options: { temperature: 1 } },
      { raw: rowOf(() => Math.round(4 * random.normal()) / 4 - 9), options: { temperature: 0.7 } }, // ties by hundreds
      {
        raw: rowOf((id) => (id % 3 === 0 ? -1e30 : random.normal())),
        options: { temperature: 1, logitBias: biases },
      },
      { raw: rowOf(() => 0), options: { temperature: 3 } },
      { raw: rowOf((id) => random.normal() + (id < 50 ? 12 : 0)), options: { temperature: 1 } }, // little beyond
    ];
    const sampler = createSampler(await newTextModule(), vocab);
    const begin = (row: number) => sampler.begin(validateSampling({ ...rows[row].options, seed: row }, vocab), [], n);

    // By float64: all tokens in order, and the mass from each on to the end.
    const orders: number[][] = [];
    const masses: Float64Array[] = [];
    const requests = rows.map(({ raw }, row): Request & { uniforms: number[] } => {
      begin(row);
      const { inverseTemperature } = sampler;
      const edits = sampler.edits(0);
      const adjusted = edited(raw, edits);
      const order = Array.from(adjusted.keys()).sort((a, b) =>
        adjusted[a] === adjusted[b] ? a - b : adjusted[b] - adjusted[a],
      );
      const lse = reference.logSumExp(Float64Array.from(adjusted, (x) => x * inverseTemperature));
      const from = new Float64Array(vocab + 1);
      for (let rank = vocab - 1; rank >= 0; rank--)
        from[rank] = from[rank + 1] + Math.exp(adjusted[order[rank]] * inverseTemperature - lse);
      orders.push(order);
      masses.push(from);
      const beyond = Array.from({ length: 20 }, (_, i) => 1 - from[k] * (1 - i / 20));
      const uniforms = [
        ...samples.map((sample) => sampler.uniform(sample)!),
        ...beyond,
        1 - 2 ** -53,
        1 - from[k] - 1e-3,
        0,
      ];
      return { edits, inverseTemperature, uniforms };
    });
    const most = requests[0].uniforms.length;
    const values = rows.flatMap(({ raw }) => [...raw]);
    const logits = await newTensor(backend, values, rows.length, vocab, ROPE_DIM);
    const found = await backend.candidates(logits, requests, k);
    let drawn = 0;
    let different = 0;
    for (const [row, { uniforms }] of requests.entries()) {
      const rankOf = new Map(orders[row].map((id, rank) => [id, rank]));
      const from = masses[row];
      for (const [i, u] of uniforms.entries()) {
        const id = found.beyond?.ids[row * most + i] ?? -1;
        const what = `row ${row}, draw ${i} of ${u}: token ${id}`;
        if (found.beyond && 1 - u < from[k] * (1 - 1e-4)) assert.ok(id >= 0, what);
        if (1 - u > from[k] + 5e-4) assert.is(id, -1, what);
        if (id < 0) continue;
        // Its own mass is where the draw ends, but for the rounding of sums.
        const rank = rankOf.get(id)!;
        assert.ok(rank >= k && from[rank + 1] < (1 - u) * (1 + 1e-5) && from[rank] > (1 - u) * (1 - 1e-5), what);
        assert.is(found.beyond!.raw[row * most + i], rows[row].raw[id], what);
      }
      begin(row);
      for (const sample of samples) {
        const got = sampler.draw(sample, found, row, row * most + sample);
        const full = sampler.drawFromLogits(sample, rows[row].raw, found, row);
        if (!got) {
          if (found.beyond) assert.unreachable(`row ${row}, sample ${sample}: not decided`);
          continue;
        }
        drawn++;
        if (got.id === full.id) assert.equal(got, full);
        else different++;
      }
    }
    if (found.beyond) assert.is(drawn, rows.length * n);
    assert.ok(different <= drawn / 100, `${different} of ${drawn} draws are others than from all logits`);
    // One row and some of its draws, now with tokens that are quite impossible.
    const some = (_: unknown, i: number) => i % 7 === 0;
    const together = found.beyond?.ids.slice(2 * most, 3 * most).filter(some);
    const row = backend.vector(rows[2].raw.map((x) => (x === -1e30 ? -Infinity : x)));
    const alone = await backend.candidates(row, [{ ...requests[2], uniforms: requests[2].uniforms.filter(some) }], k);
    assert.equal(alone.beyond?.ids, together, "alone");
  });

  test(`${name}: candidates, what each row's first draw comes to, and steps that begin with it`, async () => {
    const backend = await create();
    const random = newRandom(11);
    const [vocab, k] = [2100, 64];
    const raws = [1, 3, 0.2].map((scale) => Float32Array.from({ length: vocab }, () => scale * random.normal()));
    const [bias, one] = new Uint32Array(Float32Array.of(9, 1).buffer);
    const numbers = [0, 1e-9, 0.003, 1 - 1e-7, 1 - 2 ** -53, ...Array.from({ length: 13 }, () => random.next())];
    const rows: { raw: Float32Array; request: Request }[] = raws.flatMap((raw, i) =>
      numbers.map((u) => ({
        raw,
        request: {
          edits: Uint32Array.from(i === 1 ? [77, bias, one, 0] : []),
          inverseTemperature: [1, 0.5, 2][i],
          uniforms: [u, 0.5],
        },
      })),
    );
    // The best: of a greedy row, and of one without draws.
    for (const inverseTemperature of [0, 1])
      rows.push({ raw: raws[0], request: { edits: new Uint32Array(0), inverseTemperature } });
    const values = rows.flatMap(({ raw }) => [...raw]);
    const logits = await newTensor(backend, values, rows.length, vocab, ROPE_DIM);
    const requests = rows.map(({ request }) => request);
    const { drawn } = await backend.candidates(logits, requests, k);
    assert.is(drawn !== undefined, backend.drawsAhead);
    if (!drawn) return;

    for (const [row, { raw, request }] of rows.entries()) {
      const { edits, inverseTemperature, uniforms } = request;
      const adjusted = edited(raw, edits);
      const order = Array.from(adjusted.keys()).sort((a, b) => adjusted[b] - adjusted[a] || a - b);
      const rank = order.indexOf(drawn[row]);
      if (!uniforms) {
        assert.is(rank, 0, `row ${row}: the best`);
        continue;
      }
      // The mass from there on, and behind it.
      const lse = reference.logSumExp(Float64Array.from(adjusted, (x) => x * inverseTemperature));
      const mass = (id: number) => Math.exp(adjusted[id] * inverseTemperature - lse);
      const behind = order.slice(rank + 1).reduce((sum, id) => sum + mass(id), 0);
      const left = 1 - uniforms[0];
      const what = `row ${row}, ${uniforms[0]}: rank ${rank}`;
      assert.ok(behind < left + 2e-6 && behind + mass(drawn[row]) > left - 2e-6, what);
    }

    const [cols, last] = [64, rows.length - 1];
    const data = randomBlocks("F16", vocab * cols, 1, newRandom(5), cols);
    const table = await newWeight(backend, "F16", vocab, cols, data);
    const embedded = async (ids: number[]) => {
      const out = backend.tensor(ids.length, cols);
      backend.embed(table, backend.prepare(plainBatch(ids, ROPE_DIM)), out);
      return valuesOf(backend, out);
    };
    const got = await embedded([DRAWN + 7, 9, DRAWN, DRAWN + last]);
    sameBits(got, await embedded([drawn[7], 9, drawn[0], drawn[last]]), "rows of the table");
  });

  // -------------------------------------------------------------------------------------------- errors

  test(`${name}: weights that are infinite or not a number are refused by name and row`, async () => {
    const backend = await create();
    for (const { type } of cases.LINEAR)
      for (const broken of [0x7c00, 0xfc00, 0x7e00]) {
        const [rows, cols] = [19, 512];
        const data = randomBlocks(type, rows * cols, 1, newRandom(1), cols);
        const { blockElements, blockBytes } = TENSOR_TYPES[type];
        const block = ((17 * cols + 300) / blockElements) | 0;
        const view = new DataView(data.buffer, block * blockBytes);
        if (type === "F32")
          view.setUint32(0, broken === 0x7e00 ? 0x7fc00000 : broken === 0x7c00 ? 0x7f800000 : 0xff800000, true);
        else if (type === "BF16")
          view.setUint16(0, broken === 0x7e00 ? 0x7fc0 : broken === 0x7c00 ? 0x7f80 : 0xff80, true);
        else view.setUint16(type === "Q6_K" ? 208 : 0, broken, true);
        const load = () => newWeight(backend, type, rows, cols, data);
        await rejects(load, "format", /"test".*1[67]/, `${type} ${broken.toString(16)}`);
        if (!["Q4_1", "Q5_1", "Q4_K", "Q5_K"].includes(type)) continue;
        const minima = randomBlocks(type, rows * cols, 1, newRandom(1), cols);
        new DataView(minima.buffer).setUint16(block * blockBytes + 2, broken, true);
        await rejects(() => newWeight(backend, type, rows, cols, minima), "format", /"test"/, `${type}'s minimum`);
      }
  });

  test(`${name}: types that are not computed, and rows of no whole blocks`, async () => {
    const backend = await create();
    assert.not(backend.computes("Q2_K"));
    for (const { type } of cases.LINEAR)
      assert.ok(backend.computes(type as Parameters<typeof backend.computes>[0]), type);
    await rejects(() => newWeight(backend, "Q2_K", 8, 256, new Uint8Array(8 * 84)), "unsupported", /Q2_K/);
    await rejects(() => newWeight(backend, "Q4_K", 8, 128, new Uint8Array(8 * 72)), "unsupported", /Q4_K.*128/);
    await rejects(() => newWeight(backend, "Q8_0", 8, 33, new Uint8Array(8 * 34)), "unsupported", /Q8_0.*33/);
  });

  test(`${name}: what does not fit the limit is refused, and the rest goes on`, async () => {
    const limit = 4e6;
    const backend = await create({ nLayers: 2 }, limit);
    const x = await newTensor(backend, normals(newRandom(1), 64), 1, 64, ROPE_DIM);
    const before = await valuesOf(backend, x);
    await rejects(() => newWeight(backend, "F32", 2000, 1000, new Uint8Array(8e6)), "memory", /"test".*4,000,000/);
    await rejects(() => backend.tensor(2000, 1000), "memory", /8,000,000/);
    await rejects(() => backend.reserveBlocks(1000), "memory", /K\/V/);
    await backend.reserveBlocks(3);
    assert.ok(backend.usedBytes <= limit, `${backend.usedBytes} used`);
    sameBits(await valuesOf(backend, x), before, "a tensor from before");
    await rejects(() => backend.tensor(2 ** 20, 2 ** 20), "memory", /./, "4 TiB");
  });

  test(`${name}: logits that are not numbers are an error, not an answer`, async () => {
    const backend = await create();
    const [one] = new Uint32Array(Float32Array.of(1).buffer);
    const [request, edited] = [[], [5, one, one, 0]].map((edits) => ({
      edits: Uint32Array.from(edits),
      inverseTemperature: 1,
    }));
    // NaN, NaN with a sign, Infinity.
    for (const broken of [0x7fc00000, 0xffc00000, 0x7f800000])
      for (const of of [request, edited]) {
        const logits = Float32Array.from({ length: 100 }, (_, i) => i);
        new Uint32Array(logits.buffer)[77] = broken;
        await rejects(
          () => backend.candidates(backend.vector(logits), [of], 4),
          "format",
          /not numbers/,
          broken.toString(16),
        );
      }
    const sound = await backend.candidates(backend.vector(Float32Array.of(1, 3, 2)), [request], 1);
    assert.is(sound.ids[0], 1, "usable afterwards");
  });

  if (refused)
    test(`${name}: no variant is given up that this runtime can compile`, async () => {
      // Deno names subgroups among a device's features, but its compiler cannot parse what uses them; nor 16-bit floats out of words.
      const known = (label: string) => "Deno" in globalThis && /subgroup|in_halves/.test(label);
      assert.equal(
        [...refused].filter((label) => !known(label)),
        [],
      );
    });
}

const bytesOf = (base64: string) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));

// ---------------------------------------------------------------------------------------------- products

/**
 * Activations in blocks of 32 rounded to 16 bits are off by half a step, largest / 65534; f32 sums by their own steps; and blocks
 * below 1e-30 may be taken for zeros.
 */
function strainedBound(x: Float32Array, weights: Float64Array): number {
  let bound = 0;
  for (let first = 0; first < x.length; first += 32) {
    let largest = 0;
    let size = 0;
    for (let k = first; k < first + 32; k++) {
      largest = Math.max(largest, Math.abs(x[k]));
      size += Math.abs(weights[k]);
    }
    bound += size * (largest / 65534 + largest * 4e-6 + 1e-30);
  }
  return bound;
}

/** What products may be off by where both factors are rounded to 16-bit floats, whose steps are 2⁻²⁴ at least. */
function halvesBound(x: Float32Array, weights: Float64Array): number {
  return weights.reduce((sum, w, k) => sum + Math.abs(w * x[k]) * 2 ** -10 + Math.abs(w) * 2 ** -25, 0);
}

// ---------------------------------------------------------------------------------------------- attention

/** The layer under test; layer 0 holds NaN. */
const LAYER = 1;

interface Cache {
  readonly backend: Backend;
  /** Blocks for so many tokens, in no order; their contents are NaN. */
  take(tokens: number): Uint32Array;
  /** Blocks that are free again, with what they hold. */
  give(blocks: readonly Uint32Array[]): void;
  /** Puts K and V (tokens, nKvHeads, headDim) into blocks, from place `first` on. */
  append(k: Float32Array, v: Float32Array, blocks: Uint32Array, first: number, layer: number): Promise<void>;
}

type CacheShape = Pick<Shape, "nHeads" | "nKvHeads" | "headDim" | "ropeDim" | "nLayers">;

/** A cache of so many blocks, all NaN, so that whatever is read beyond their tokens shows. */
async function newCache(backend: Backend, shape: CacheShape, blocks = 6): Promise<Cache> {
  const { nHeads, nKvHeads, headDim, ropeDim, nLayers } = shape;
  const { blockTokens, maxRows } = backend;
  const width = nKvHeads * headDim;
  const qkv = backend.tensors(maxRows, [nHeads * headDim, width, width]);
  const firstRows = (rows: number) => qkv.map((x) => backend.view(x, 0, rows));
  const [, nanKeys, nanValues] = firstRows(blockTokens);
  const nan = { weight: backend.vector(new Float32Array(width).fill(NaN)), eps: 1 };
  backend.rmsNorm(nanKeys, nan);
  backend.rmsNorm(nanValues, nan);
  await backend.reserveBlocks(blocks);
  for (let block = 0; block < blocks; block++) {
    const slots = slotsOf(Uint32Array.of(block), 0, blockTokens);
    const batch = backend.prepare({ ...plainBatch(new Uint32Array(blockTokens), ropeDim), slots });
    for (let layer = 0; layer < nLayers; layer++)
      backend.ropeAppend(backend.view(qkv[0], 0, blockTokens), nanKeys, nanValues, layer, batch);
  }
  const random = newRandom(99);
  const free = Array.from({ length: blocks }, (_, i) => i);
  return {
    backend,
    take(tokens) {
      const count = Math.ceil(tokens / blockTokens);
      assert.ok(count <= free.length, "the test's cache is too small");
      return Uint32Array.from({ length: count }, () => free.splice(random.below(free.length), 1)[0]);
    },
    give(blocks) {
      free.push(...blocks.flatMap((of) => [...of]));
    },
    async append(k, v, blocks, first, layer) {
      const tokens = k.length / width;
      for (let at = 0; at < tokens; at += maxRows) {
        const rows = Math.min(maxRows, tokens - at);
        const part = (x: Float32Array) => x.subarray(at * width, (at + rows) * width);
        const [q, keys, values] = firstRows(rows);
        await fill(backend, keys, part(k), ropeDim);
        await fill(backend, values, part(v), ropeDim);
        const slots = slotsOf(blocks, first + at, rows);
        const batch = backend.prepare({ ...plainBatch(new Uint32Array(rows), ropeDim), slots });
        backend.ropeAppend(q, keys, values, layer, batch);
      }
    },
  };
}

interface DecodeShape {
  nHeads: number;
  nKvHeads: number;
  headDim: number;
  /** Tokens that all samples share, and each sample's own. */
  context: number;
  decode: readonly number[];
}

interface DecodeCase {
  readonly backend: Backend;
  readonly batch: Batch;
  readonly q: Tensor;
  /** The same for the reference. */
  readonly attention: reference.AttentionCase;
}

/** Fills a cache and queries with `value` of each number's kind and place. */
async function decodeCase(
  create: (shape: Partial<Shape>) => Promise<Backend>,
  { nHeads, nKvHeads, headDim, context, decode }: DecodeShape,
  value: (kind: "q" | "k" | "v", i: number) => number,
): Promise<DecodeCase> {
  const shape = { nHeads, nKvHeads, headDim, ropeDim: headDim & ~1, nLayers: 2 };
  const blocksOf = (tokens: number) => Math.ceil(tokens / 32);
  const needed = decode.reduce((sum, tokens) => sum + blocksOf(tokens), blocksOf(context));
  const { backend, take, append } = await newCache(await create(shape), shape, needed + 3);
  const rows = decode.length;
  const stretch = async (tokens: number) => {
    const [k, v] = (["k", "v"] as const).map((kind) =>
      halves(Float32Array.from({ length: tokens * nKvHeads * headDim }, (_, i) => value(kind, i))),
    );
    const blocks = take(tokens);
    await append(k, v, blocks, 0, LAYER);
    return { blocks, kept: { k: byHead(k, nKvHeads, headDim), v: byHead(v, nKvHeads, headDim), tokens } };
  };
  const shared = await stretch(context);
  const own: Awaited<ReturnType<typeof stretch>>[] = [];
  for (const tokens of decode) own.push(await stretch(tokens));
  const q = Float32Array.from({ length: rows * nHeads * headDim }, (_, i) => value("q", i));
  return {
    backend,
    batch: {
      ...plainBatch(new Uint32Array(rows), shape.ropeDim),
      context: { blocks: shared.blocks, length: context },
      tails: { blocks: own.map(({ blocks }) => blocks), lengths: Uint32Array.from(decode) },
    },
    q: await newTensor(backend, q, rows, nHeads * headDim, shape.ropeDim),
    attention: { nHeads, nKvHeads, headDim, q, context: shared.kept, decode: own.map(({ kept }) => kept) },
  };
}

async function twoParts(backend: Backend, q: Tensor, batch: Batch, states: States): Promise<Float32Array> {
  const prepared = backend.prepare(batch);
  const out = backend.tensor(q.rows, q.cols);
  backend.attendContext(q, LAYER, prepared, states);
  backend.attendDecode(q, LAYER, prepared, states);
  backend.mergeStates(states, prepared, out);
  return valuesOf(backend, out);
}

async function onePart(backend: Backend, q: Tensor, batch: Batch): Promise<Float32Array> {
  const out = backend.tensor(q.rows, q.cols);
  backend.attendOnePart(q, LAYER, backend.prepare(batch), out);
  return valuesOf(backend, out);
}

/** Both paths are right; where a backend promises it, they and each sample alone are equal bit for bit. */
async function bothWays({ backend, batch, q, attention }: DecodeCase, bound: Bound, exact: boolean): Promise<void> {
  const want = reference.attendOnePart(attention);
  const states = backend.states(q.rows + 3);
  const two = await twoParts(backend, q, batch, states);
  close(two, want, bound, "two-part");
  const one = await onePart(backend, q, batch);
  close(one, want, bound, "one-part");
  sameBits(await twoParts(backend, q, batch, states), two, "the same states used again");
  if (!exact) return;
  sameBits(one, two, "one-part and two-part");
  const tails = batch.tails!;
  for (let row = 0; row < q.rows; row += q.rows > 8 ? 5 : 1) {
    const alone = {
      ...batch,
      ids: batch.ids.subarray(0, 1),
      tails: { blocks: [tails.blocks[row]], lengths: tails.lengths.slice(row, row + 1) },
    };
    const query = backend.view(q, row, 1);
    const theirs = two.subarray(row * q.cols, (row + 1) * q.cols);
    sameBits(await twoParts(backend, query, alone, states), theirs, `sample ${row} alone, two-part`);
    sameBits(await onePart(backend, query, alone), theirs, `sample ${row} alone, one-part`);
  }
}

const noTails = (rows: number) => ({
  blocks: Array.from({ length: rows }, () => new Uint32Array(0)),
  lengths: new Uint32Array(rows),
});

/** Block and place of `rows` consecutive tokens. */
function slotsOf(blocks: Uint32Array, first: number, rows: number): Uint32Array {
  return Uint32Array.from({ length: 2 * rows }, (_, i) => {
    const token = first + (i >> 1);
    return i & 1 ? token % 32 : blocks[token >> 5];
  });
}

/** (tokens, heads, headDim) to the reference's (heads, tokens, headDim). */
function byHead(x: ArrayLike<number>, heads: number, headDim: number): Float64Array {
  const tokens = x.length / (heads * headDim);
  return Float64Array.from({ length: x.length }, (_, i) => {
    const [head, token, d] = [Math.floor(i / (tokens * headDim)), Math.floor(i / headDim) % tokens, i % headDim];
    return x[(token * heads + head) * headDim + d];
  });
}

/** Rows of heads, each pair turned by its row's angle. */
function turned(
  x: Float32Array,
  width: number,
  headDim: number,
  ropeDim: number,
  pairs: Shape["ropePairs"],
  angle: (row: number, pair: number) => number,
): Float64Array {
  const out = Float64Array.from(x);
  for (let head = 0; head < x.length; head += headDim)
    for (let i = 0; i < ropeDim / 2; i++) {
      const [a, b] = pairs === "halves" ? [head + i, head + i + ropeDim / 2] : [head + 2 * i, head + 2 * i + 1];
      const by = angle(Math.floor(head / width), i);
      out[a] = x[a] * Math.cos(by) - x[b] * Math.sin(by);
      out[b] = x[a] * Math.sin(by) + x[b] * Math.cos(by);
    }
  return out;
}

// ---------------------------------------------------------------------------------------------- edits

/** `count` edits of different tokens, ids ascending. */
function randomEdits(random: Random, vocab: number, count: number): Edits {
  const ids = new Set<number>();
  while (ids.size < Math.min(count, vocab)) ids.add(random.below(vocab));
  const edits = new Uint32Array(4 * ids.size);
  const floats = new Float32Array(edits.buffer);
  for (const [i, id] of [...ids].sort((a, b) => a - b).entries()) {
    edits[4 * i] = id;
    floats[4 * i + 1] = random.next() < 0.3 ? random.pick([100, -100, -Infinity]) : random.normal();
    floats[4 * i + 2] = random.pick([1, 1.3, 0.7, 0.01, 100]);
    floats[4 * i + 3] = random.pick([0, 0.5, -1.25, 0.3]);
  }
  return edits;
}

/** Logits after edits, each step in f32 as the contract says. */
function edited(logits: Float32Array, edits: Edits): Float32Array {
  const out = logits.slice();
  const floats = new Float32Array(edits.buffer, edits.byteOffset, edits.length);
  for (let at = 0; at < edits.length; at += 4) {
    const biased = Math.fround(out[edits[at]] + floats[at + 1]);
    const scale = floats[at + 2];
    out[edits[at]] = Math.fround(biased > 0 ? biased / scale : biased * scale) - floats[at + 3];
  }
  return out;
}
