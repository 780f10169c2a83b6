// The oracle against what others computed: dequantisation bit for bit, logits and greedy ids of tiny models, and itself.

import { existsSync, readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { newRandom } from "./support/random.ts";
import { CHAT_TEMPLATE, randomBlocks, randomModel, toHalf } from "./support/random-model.ts";
import {
  type AttentionCase,
  attend,
  attendOnePart,
  attendTwoPart,
  dequantise,
  halfToNumber,
  type KeysValues,
  loadReference,
  logSoftmax,
  logSumExp,
  mergeStates,
  rope,
} from "./support/reference.ts";

interface DequantFixture {
  types: Record<string, { blocks: number; block_elements: number; data: string; values_f32: string }>;
}
const fixture: DequantFixture = JSON.parse(readFileSync(new URL("./fixtures/dequant.json", import.meta.url), "utf8"));

for (const [type, { blocks, block_elements, data, values_f32 }] of Object.entries(fixture.types)) {
  test(`dequantise ${type}: bit for bit`, () => {
    const got = new Float32Array(dequantise(type, Buffer.from(data, "base64"), blocks * block_elements));
    assert.is(Buffer.from(got.buffer).toString("base64"), values_f32);
  });
}

test("toHalf is the nearest half, and halfToNumber its inverse", () => {
  for (let bits = 0; bits < 0x10000; bits++) {
    const value = halfToNumber(bits);
    if (!Number.isNaN(value)) assert.is(toHalf(value), bits);
  }
  assert.is(toHalf(1 + 2 ** -11), 0x3c00, "tie to even");
  assert.is(toHalf(1 + 3 * 2 ** -11), 0x3c02, "tie to even");
  assert.is(toHalf(2047.9 / 1024), 0x4000, "carries into the exponent");
});

// ---------------------------------------------------------------------------------------------- tiny models

interface Golden {
  cases: {
    ids: number[];
    last_logits: number[];
    token_logprobs: number[];
    argmax: number[];
    logsumexp: number[];
    greedy: number[];
    greedy_gaps: number[];
  }[];
}

const data = process.env.FURCATE_TESTDATA;
const FILES = [
  ["llama-mha", "model-f32.gguf", "golden.json"],
  ["llama-mha", "model-f16.gguf", "golden-f16.json"],
  ["llama-mha", "model-q8_0.gguf", "golden-q8_0.json"],
  ["llama-gqa", "model-f32.gguf", "golden.json"],
  ["llama-gqa", "model-q8_0.gguf", "golden-q8_0.json"],
  ["llama-mqa", "model-f32.gguf", "golden.json"],
  ["llama-rope-llama3", "model-f32.gguf", "golden.json"],
];
if (data === undefined || !existsSync(`${data}/golden/tiny`)) {
  console.log("skipped: oracle against the tiny llama goldens: FURCATE_TESTDATA is not set or has no golden/tiny");
} else {
  let worst = 0;
  for (const [model, file, golden] of FILES) {
    test(`${model} ${file}: logits and greedy ids of ${golden}`, () => {
      const reference = loadReference(readFileSync(`${data}/golden/tiny/${model}/${file}`));
      const { cases }: Golden = JSON.parse(readFileSync(`${data}/golden/tiny/${model}/${golden}`, "utf8"));
      assert.is(cases.length, 3);
      for (const c of cases) {
        const logits = reference.logits(c.ids);
        const last = logits.at(-1)!;
        assert.is(last.length, c.last_logits.length);
        // The goldens are float32, six decimals; float32 against float64 differs by about 1e-5.
        for (let i = 0; i < last.length; i++) worst = Math.max(worst, near(last[i], c.last_logits[i], 2e-5));
        for (let j = 0; j < c.token_logprobs.length; j++)
          worst = Math.max(worst, near(logSoftmax(logits[j])[c.ids[j + 1]], c.token_logprobs[j], 2e-5));
        for (let j = 0; j < logits.length; j++)
          worst = Math.max(worst, near(logSumExp(logits[j]), c.logsumexp[j], 2e-5));
        const greedy = reference.greedy(c.ids, c.greedy.length);
        assert.equal(greedy.ids, c.greedy);
        for (let j = 0; j < c.greedy.length; j++) near(greedy.gaps[j], c.greedy_gaps[j], 4e-5);
      }
    });
  }
  test.after(() =>
    console.log(`\nmeasured: oracle against the tiny llama goldens: worst difference ${worst.toExponential(1)}`),
  );
}

// ---------------------------------------------------------------------------------------------- against itself

test("one softmax and two merged states are the same; no decode tokens, no context, ragged samples", () => {
  const random = newRandom(5);
  const tokens = (nKvHeads: number, headDim: number, count: number): KeysValues => {
    const values = () => Float64Array.from({ length: nKvHeads * count * headDim }, () => random.normal());
    return { k: values(), v: values(), tokens: count };
  };
  for (const [nHeads, nKvHeads, headDim] of [
    [4, 4, 8],
    [6, 2, 12],
    [4, 1, 6],
  ])
    for (const context of [0, 1, 9]) {
      const c: AttentionCase = {
        nHeads,
        nKvHeads,
        headDim,
        q: Float64Array.from({ length: 3 * nHeads * headDim }, () => 3 * random.normal()),
        context: tokens(nKvHeads, headDim, context),
        decode: [1, 4, context === 0 ? 2 : 0].map((count) => tokens(nKvHeads, headDim, count)),
      };
      const one = attendOnePart(c);
      const two = attendTwoPart(c);
      assert.is(one.length, 3 * nHeads * headDim);
      one.forEach((value, i) => {
        near(two[i], value, 1e-13);
      });
    }
});

test("merging states is associative, and an empty state changes nothing", () => {
  const random = newRandom(6);
  const normal = (length: number) => Float64Array.from({ length }, () => 4 * random.normal());
  const q = normal(6);
  const [a, b, c, empty] = [5, 1, 3, 0].map((count) => attend(q, normal(6 * count), normal(6 * count)));
  const flat = mergeStates([a, b, c]);
  const nested = mergeStates([a, mergeStates([empty, mergeStates([b, c])])]);
  near(nested.lse, flat.lse, 1e-13);
  flat.value.forEach((value, i) => {
    near(nested.value[i], value, 1e-13);
  });
  assert.is(mergeStates([empty, empty]).lse, -Infinity);
});

test("rope keeps lengths, depends on distances alone, and leaves the rest of a head as it is", () => {
  const random = newRandom(7);
  const by = { ropeDim: 8, base: 10000, factor: 1 };
  const q = Float64Array.from({ length: 12 }, () => random.normal());
  const k = Float64Array.from({ length: 12 }, () => random.normal());
  const dot = (a: Float64Array, b: Float64Array) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  near(dot(rope(q, 12, 7, by), rope(k, 12, 3, by)), dot(rope(q, 12, 104, by), rope(k, 12, 100, by)), 1e-12);
  assert.equal(rope(q, 12, 5, by).slice(8), q.slice(8));
  assert.is.not(rope(q, 12, 5, by)[6], q[6]);
  near(rope(q, 12, 6, { ...by, factor: 2 })[0], rope(q, 12, 3, by)[0], 1e-15);
});

for (const type of ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"]) {
  test(`random blocks of ${type} have the wanted mean and deviation`, () => {
    const values = dequantise(type, randomBlocks(type, 256 * 200, 0.08, newRandom(3)), 256 * 200);
    const mean = values.reduce((sum, value) => sum + value) / values.length;
    const deviation = Math.sqrt(values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length);
    near(mean, 0, 0.012);
    near(deviation, 0.08, 0.024);
  });
}

test("random models are finite, of order 1, and the same for the same seed", () => {
  const cases = [
    { dim: 64, nHeads: 4, nKvHeads: 1, tied: true },
    { dim: 48, nHeads: 4, nKvHeads: 2, headDim: 12, ropeDim: 6, bias: true, ropeBase: 500 },
    { dim: 60, nHeads: 3, headDim: 20, hiddenDim: 44, ropeScaling: { kind: "linear" as const, factor: 4 } },
    { dim: 256, nHeads: 2, hiddenDim: 256, type: "Q4_K", chatTemplate: CHAT_TEMPLATE },
    { dim: 256, nHeads: 4, nKvHeads: 2, hiddenDim: 512, nLayers: 1, type: "Q6_K", vocab: 320 },
    {
      dim: 36,
      nHeads: 6,
      headDim: 6,
      ropeScaling: { kind: "llama3" as const, factor: 8, lowFrequency: 1, highFrequency: 4, originalContext: 64 },
    },
  ];
  for (const options of cases) {
    const bytes = randomModel({ ...options, seed: 9 });
    assert.equal(randomModel({ ...options, seed: 9 }), bytes);
    const reference = loadReference(bytes);
    const ids = [5, 81, 200, 17, 5, 90];
    const rows = reference.logits(ids);
    const all = rows.flatMap((row) => [...row]);
    assert.ok(all.every(Number.isFinite));
    const deviation = Math.sqrt(all.reduce((sum, value) => sum + value * value, 0) / all.length);
    assert.ok(deviation > 0.7 && deviation < 3, `deviation ${deviation}`);
    // A token's logits depend on what went before, and a cache changes nothing.
    assert.ok(Math.abs(rows[4][3] - rows[0][3]) > 1e-6);
    const cache = reference.newCache();
    reference.logits(ids.slice(0, 2), cache);
    assert.equal(reference.logits(ids.slice(2), cache).at(-1), rows.at(-1));
  }
});

/** Fails unless |got − want| ≤ bound (NaN fails); the difference. */
function near(got: number, want: number, bound: number): number {
  const difference = Math.abs(got - want);
  assert.ok(difference <= bound, `got ${got}, expected ${want} ± ${bound}`);
  return difference;
}

test.run();
