// The sampler and the CPU's top-k against a naive float64 sampler that imports nothing from src.

import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Candidates, Edits } from "../src/backend.ts";
import { FurcateError } from "../src/errors.ts";
import { choiceSeed, createSampler, type Sampling, validateSampling } from "../src/sampler.ts";
import { f32, f64, newCpuModule, newTextModule, u32 } from "../src/wasm.ts";
import { newRandom, type Random } from "./support/random.ts";

const text = await newTextModule();
const cpu = await newCpuModule();
const NO_EDITS: Edits = new Uint32Array(0);

// --- Random numbers ----------------------------------------------------------------------------------------------------------

// Known answers of Random123 (tests/kat_vectors): counter, key -> result.
const KNOWN = [
  "00000000 00000000 00000000 00000000  00000000 00000000  6627e8d5 e169c58d bc57ac4c 9b00dbd8",
  "ffffffff ffffffff ffffffff ffffffff  ffffffff ffffffff  408f276d 41c83b0e a20bc7c6 6d5451fd",
  "243f6a88 85a308d3 13198a2e 03707344  a4093822 299f31d0  d16cfe09 94fdcceb 5001e420 24126ea1",
];

test("philox4x32-10 gives the published answers", () => {
  for (const line of KNOWN) {
    const words = line.split(/ +/).map((word) => Number.parseInt(word, 16));
    assert.equal(philoxOfModule(words.slice(0, 4), words.slice(4, 6)), words.slice(6));
    assert.equal(philox(words.slice(0, 4), words.slice(4, 6)), words.slice(6));
  }
});

test("uniform numbers and choice seeds are the stated bits of philox, for negative seeds too", () => {
  const random = newRandom(1);
  for (let i = 0; i < 2000; i++) {
    const seed = randomSeed(random);
    const position = random.below(2 ** 32);
    assert.is(text.uniform(seed >>> 0, Math.floor(seed / 2 ** 32) >>> 0, position), uniform(seed, position));
    const index = random.below(1e6);
    const derived = choiceSeed(text, seed, index);
    assert.ok(Number.isSafeInteger(derived));
    const [x0, x1] = philox([index, 0, 0, 1], words(seed));
    assert.is(derived, index === 0 ? seed : (x0 >>> 11) * 2 ** 32 + x1);
  }
  // Written down, so that a choice's seed stays what it is from release to release.
  assert.is(choiceSeed(text, 0, 1), 8209414734234953);
  assert.is(choiceSeed(text, -1, 1), 3018365409174887);
  const seeds = new Set(Array.from({ length: 10_000 }, (_, i) => choiceSeed(text, 7, i)));
  assert.is(seeds.size, 10_000);
});

// --- Top-k -------------------------------------------------------------------------------------------------------------------

test("top-k, its edits and both log-sum-exps equal float64 sorting and summing", () => {
  const random = newRandom(2);
  let worst = 0;
  for (let round = 0; round < 1500; round++) {
    const vocab = round % 50 === 0 ? 8192 + random.below(60_000) : 1 + random.below(300);
    const logits = randomLogits(random, vocab);
    const edits = random.below(2) ? randomEdits(random, vocab) : NO_EDITS;
    const inverseTemperature = random.pick([0, 1, Math.fround(1 / 0.7), Math.fround(1 / 3), 50]);
    const k = 1 + random.below(Math.min(256, vocab + 3));
    const adjusted = edit(logits, edits);
    const before = logits.slice();
    const found = candidates(logits, edits, inverseTemperature, k);
    assert.equal(logits, before, "the row is left as it was");
    const order = inOrder(adjusted).slice(0, k);
    assert.is(found.k, Math.min(k, vocab));
    assert.equal([...found.ids], order);
    assert.equal(
      [...found.adjusted],
      order.map((id) => adjusted[id]),
    );
    assert.equal(
      [...found.raw],
      order.map((id) => logits[id]),
    );
    const rawError = Math.abs(found.rawLse[0] - logSumExp(logits, 1));
    const error = inverseTemperature ? found.adjustedLse[0] - logSumExp(adjusted, inverseTemperature) : 0;
    const scale = 1 + Math.abs(found.rawLse[0]) + Math.abs(found.adjustedLse[0]);
    worst = Math.max(worst, rawError / scale, Math.abs(error) / scale);
  }
  assert.ok(worst < 1e-13, `log-sum-exp off by ${worst}`);
  console.log(`measured: log-sum-exp within ${worst.toExponential(1)} (relative) of a compensated float64 sum`);
});

test("top-k names logits that are no numbers, and rows without a token", () => {
  const row = new Float32Array(1001).fill(1);
  const broken = (at: number, value: number, edits = NO_EDITS) => {
    const copy = row.slice();
    copy[at] = value;
    return status(copy, edits);
  };
  for (const at of [0, 1, 500, 999, 1000]) {
    assert.is(broken(at, Number.NaN), -1);
    assert.is(broken(at, Number.POSITIVE_INFINITY), -1);
    assert.is(broken(at, Number.NEGATIVE_INFINITY), 64);
  }
  assert.is(status(row.slice().fill(Number.NEGATIVE_INFINITY), NO_EDITS), -2);
  assert.is(broken(3, 3e38, editList([[3, 3e38, 1, 0]])), -1, "an edit overflows");
  assert.is(broken(3, 1, editList([[1001, 0, 1, 0]])), -4, "an unknown id");
});

test("top-k is fast", () => {
  const random = newRandom(3);
  const logits = Float32Array.from({ length: 49_152 }, () => random.normal() * 3 - 2);
  const run = topKOf(logits, NO_EDITS, 64);
  const time = (inverseTemperature: number) => fastest(() => run(inverseTemperature), 60);
  const [plain, warm] = [time(1), time(Math.fround(1 / 0.7))];
  console.log(
    `measured: top-k (64 of 49,152) ${plain.toFixed(3)} ms at temperature 1, ${warm.toFixed(3)} ms at 0.7 (two log-sum-exps)`,
  );
  // A naive loop over Math.exp, for a measure that moves with the machine.
  const naive = fastest(() => logits.reduce((sum, x) => sum + Math.exp(x), 0), 60);
  assert.ok(warm < 4 * naive, `${warm} ms against ${naive} ms of Math.exp alone`);
});

// --- One draw ------------------------------------------------------------------------------------------------------------------

test("candidates and full logits draw the naive sampler's token, with its log-probability", () => {
  const random = newRandom(4);
  const samplers = new Map<number, ReturnType<typeof createSampler>>();
  let [decided, undecided, close] = [0, 0, 0];
  for (let round = 0; round < 6000; round++) {
    const vocab = random.pick([1, 2, 5, 31, 64, 257, 1000, 1023]);
    if (!samplers.has(vocab)) samplers.set(vocab, createSampler(text, vocab));
    const sampler = samplers.get(vocab) as ReturnType<typeof createSampler>;
    const logits = randomLogits(random, vocab);
    const sampling = randomSampling(random, vocab);
    const prompt = Array.from({ length: random.below(20) }, () => random.below(vocab));
    const own = Array.from({ length: random.below(40) }, () => random.below(Math.min(vocab, 20)));
    sampler.begin(sampling, prompt, 2);
    for (const id of own) sampler.accept(1, id);

    const edits = sampler.edits(1);
    const adjusted = naiveEdits(logits, sampling, prompt, own);
    assert.equal(edit(logits, edits), adjusted, "edits say what the naive penalties do");
    if (Math.max(...adjusted) === Number.NEGATIVE_INFINITY) continue;

    const u = uniform(choiceSeed(text, sampling.seed, 1), own.length);
    const want = naiveDraw(adjusted, sampling, u);
    const found = candidates(logits, edits, sampler.inverseTemperature, 1 + random.below(80));
    const short = sampler.draw(1, found, 0);
    const full = sampler.drawFromLogits(1, logits, found, 0);
    const alone = sampler.drawFromLogits(1, logits);
    if (short) {
      decided++;
      assert.equal(short, full, `round ${round}: candidates and logits agree`);
    } else undecided++;
    // What lies within rounding of a boundary may fall on either side.
    if (want.margin < 1e-11) close++;
    else {
      assert.is(full.id, want.id, `round ${round}`);
      assert.is(alone.id, want.id, `round ${round}, log-sum-exps computed`);
    }
    const logprob = logits[full.id] - logSumExp(logits, 1);
    assert.ok(
      Math.abs(full.logprob - logprob) <= 1e-11 * (1 + Math.abs(logits[full.id])),
      `log-probability ${full.logprob}, ${logprob}`,
    );
  }
  assert.ok(
    decided > 3000 && undecided > 300 && close < 60,
    `${decided} decided, ${undecided} not, ${close} too close`,
  );
  console.log(
    `measured: ${decided} draws decided by candidates, ${undecided} by all logits; ${close} within rounding of a boundary`,
  );
});

test("what a backend found beyond the candidates is taken where the draw goes on beyond them, and only there", () => {
  const vocab = 300;
  const samples = Array.from({ length: 50 }, (_, sample) => sample);
  const sampler = createSampler(text, vocab);
  const row = randomLogits(newRandom(9), vocab).map((x) => x / 10);
  sampler.begin(validateSampling({ seed: 6, temperature: 0.9 }, vocab), [], samples.length);
  assert.equal(
    samples.map((sample) => sampler.uniform(sample)),
    samples.map((sample) => uniform(choiceSeed(text, 6, sample), 0)),
  );
  const found = candidates(row, NO_EDITS, sampler.inverseTemperature, 64);
  const full = samples.map((sample) => sampler.drawFromLogits(sample, row, found, 0));
  const ids = Int32Array.from(full, ({ id }) => id);
  const beyond = { ids, raw: Float32Array.from(ids, (id) => row[id]) };
  const nothing = { ids: new Int32Array(50).fill(-1), raw: new Float32Array(50) };
  const none = { ids: new Int32Array(0), raw: new Float32Array(0) };
  const wrong = { ids: new Int32Array(50).fill(7), raw: new Float32Array(50) };
  let decided = 0;
  for (const sample of samples) {
    const alone = sampler.draw(sample, found, 0);
    assert.equal(sampler.draw(sample, { ...found, beyond }, 0, sample), full[sample]);
    assert.equal(sampler.draw(sample, { ...found, beyond: nothing }, 0, sample), alone);
    assert.equal(sampler.draw(sample, { ...found, beyond: none }, 0), alone, "none was asked for");
    if (!alone) continue;
    decided++;
    assert.equal(sampler.draw(sample, { ...found, beyond: wrong }, 0, sample), alone);
  }
  assert.ok(decided > 5 && decided < 45, `${decided} of 50 decided by candidates`);

  // The sample's next draw has a number of its own; and where a draw can end sooner no number says where.
  sampler.accept(1, 7);
  assert.is(sampler.uniform(1), uniform(choiceSeed(text, 6, 1), 1));
  for (const [options, asks] of [
    [{ topK: 300, topP: 1, minP: 0 }, true],
    [{ topK: 299 }, false],
    [{ topP: 0.999 }, false],
    [{ minP: 1e-9 }, false],
    [{ temperature: 0 }, false],
  ] as const) {
    sampler.begin(validateSampling({ seed: 6, ...options }, vocab), [], 2);
    assert.is(sampler.uniform(1) !== undefined, asks, JSON.stringify(options));
  }
});

test("order and ties: bias, then penalties; equal logits to the lower id", () => {
  const sampler = createSampler(text, 7);
  const greedy = (options: object, logits: number[], prompt: number[] = [], own: number[] = []) => {
    const sampling = validateSampling({ temperature: 0, seed: 1, ...options }, 7);
    sampler.begin(sampling, prompt, 1);
    for (const id of own) sampler.accept(0, id);
    const row = Float32Array.from(logits);
    const found = candidates(row, sampler.edits(0), 0, 3);
    const short = sampler.draw(0, found, 0);
    assert.equal(short, sampler.drawFromLogits(0, row));
    return short?.id;
  };
  assert.is(greedy({}, [1, 1, 1, 1, 1, 1, 1]), 0);
  assert.is(greedy({}, [0, 2, 1, 2, 2, 1, 1]), 1);
  assert.is(greedy({}, [-0, 0, -1, -1, -1, -1, -1]), 0, "-0 is as large as 0");
  assert.is(greedy({ logitBias: { 5: 2 } }, [1, 2, 0, 0, 0, 0.5, 0]), 5);
  // Bias first: 1 + 1 = 2, halved 1; the other way round it would be 1.5.
  assert.is(greedy({ logitBias: { 0: 1 }, repetitionPenalty: 2 }, [1, 1.25, 0, 0, 0, 0, 0], [0]), 1);
  // Repetition counts the prompt, and an id once however often it came.
  assert.is(greedy({ repetitionPenalty: 2 }, [3, 1.4, 0, 0, 0, 0, 0], [0, 0, 0]), 0);
  assert.is(greedy({ repetitionPenalty: 2 }, [3, 1.6, 0, 0, 0, 0, 0], [0]), 1);
  assert.is(
    greedy({ repetitionPenalty: 2 }, [-1, -1.5, -9, -9, -9, -9, -9], [], [0]),
    1,
    "negative logits are multiplied",
  );
  // Presence and frequency count the sample alone.
  assert.is(greedy({ presencePenalty: 2 }, [3, 2, 0, 0, 0, 0, 0], [0]), 0);
  assert.is(greedy({ presencePenalty: 2 }, [3, 2, 0, 0, 0, 0, 0], [], [0]), 1);
  assert.is(greedy({ frequencyPenalty: 0.4 }, [3, 2, 0, 0, 0, 0, 0], [], [0, 0]), 0);
  assert.is(greedy({ frequencyPenalty: 0.4 }, [3, 2, 0, 0, 0, 0, 0], [], [0, 0, 0]), 1);
});

test("huge logits, impossible tokens, equal logits, one candidate", () => {
  const vocab = 1003;
  const sampler = createSampler(text, vocab);
  const draw = (options: object, row: Float32Array, k: number) => {
    sampler.begin(validateSampling({ seed: 3, ...options }, vocab), [], 400);
    const found = candidates(row, NO_EDITS, sampler.inverseTemperature, k);
    return Array.from({ length: 400 }, (_, sample) => {
      const full = sampler.drawFromLogits(sample, row, found, 0);
      const short = sampler.draw(sample, found, 0);
      if (short) assert.equal(short, full);
      assert.ok(Number.isFinite(full.logprob) || row[full.id] === Number.NEGATIVE_INFINITY);
      return full.id;
    });
  };
  const huge = new Float32Array(vocab).map((_, id) => (id % 2 ? 1e4 : -1e4));
  assert.ok(draw({}, huge, 64).every((id) => id % 2 === 1));
  const few = new Float32Array(vocab).fill(Number.NEGATIVE_INFINITY);
  for (const id of [7, 500, 1002]) few[id] = id / 1000;
  assert.equal(new Set(draw({}, few, 64)), new Set([7, 500, 1002]));
  assert.equal(new Set(draw({ topK: 10 }, few, 64)), new Set([7, 500, 1002]));
  assert.equal(new Set(draw({ topP: 0.999999 }, few, 2)), new Set([7, 500, 1002]));
  const flat = new Float32Array(vocab).fill(-3);
  assert.ok(new Set(draw({}, flat, 64)).size > 250);
  assert.ok(
    draw({ topK: 5 }, flat, 1).every((id) => id < 5),
    "of equal logits top-k keeps the lowest ids",
  );
  assert.ok(draw({ topP: 0.01 }, flat, 64).every((id) => id < 11));
  assert.ok(new Set(draw({ minP: 1 }, flat, 64)).size > 250, "min-p 1 keeps all that are as likely as the best");
  assert.ok(draw({ temperature: 0 }, flat, 1).every((id) => id === 0));

  sampler.begin(validateSampling({ seed: 3 }, vocab), [], 1);
  for (const [value, at] of [
    [Number.NaN, 5],
    [Number.POSITIVE_INFINITY, 1002],
  ]) {
    const row = flat.slice();
    row[at] = value;
    throws(() => sampler.drawFromLogits(0, row), "format", /not numbers/);
  }
  throws(() => sampler.drawFromLogits(0, flat.slice().fill(Number.NEGATIVE_INFINITY)), "format", /no token possible/);
  throws(() => sampler.accept(0, vocab), "internal", /1003/);
});

test("a rounded log-sum-exp, as from a GPU, never draws an unlikely token for the gap that it leaves", () => {
  const vocab = 5000;
  const sampler = createSampler(text, vocab);
  const row = new Float32Array(vocab).map((_, id) => (id < 4 ? 5 : -60));
  const found = candidates(row, NO_EDITS, 1, 64);
  found.adjustedLse[0] += 0.2; // the masses add up to 0.82
  sampler.begin(validateSampling({ seed: 11 }, vocab), [], 4000);
  const counts = [0, 0, 0, 0];
  let gaps = 0;
  for (let sample = 0; sample < 4000; sample++) {
    const short = sampler.draw(sample, found, 0);
    if (!short) gaps++;
    const { id } = sampler.drawFromLogits(sample, row, found, 0);
    if (short) assert.is(short.id, id);
    counts[id]++;
  }
  assert.ok(gaps > 500);
  assert.ok(chiSquare(counts, [1000, 1000, 1000, 1000]).passes, String(counts));
});

// --- Many draws ----------------------------------------------------------------------------------------------------------------

const DRAWS = 120_000;
const cases: [name: string, options: object][] = [
  ["plain", {}],
  ["temperature 0.7", { temperature: 0.7 }],
  ["temperature 2.5", { temperature: 2.5 }],
  ["top-k 20", { topK: 20 }],
  ["top-p 0.8", { topP: 0.8 }],
  ["min-p 0.1", { minP: 0.1 }],
  ["temperature 1.5, top-k 50, top-p 0.9, min-p 0.02", { temperature: 1.5, topK: 50, topP: 0.9, minP: 0.02 }],
  [
    "bias and penalties",
    { logitBias: { 3: 2, 40: -3 }, repetitionPenalty: 1.3, presencePenalty: 0.5, frequencyPenalty: 0.2 },
  ],
];
for (const [name, options] of cases)
  test(`${DRAWS} draws are distributed as they should be: ${name}`, () => {
    const vocab = 301;
    const sampler = createSampler(text, vocab);
    const random = newRandom(5);
    const logits = Float32Array.from({ length: vocab }, () => random.normal() * 2);
    const sampling = validateSampling({ seed: 12345, ...options }, vocab);
    const [prompt, own] = [
      [3, 9, 77],
      [9, 11, 11, 200],
    ];
    const penalised = sampling.repetitionPenalty !== 1;
    const counts = new Array(vocab).fill(0);
    let undecided = 0;
    // Many choices, and many positions of each; with penalties only the choices, each after the same tokens.
    const nSamples = penalised ? DRAWS : 1200;
    sampler.begin(sampling, prompt, nSamples);
    let found: Candidates | undefined;
    for (let sample = 0; sample < nSamples; sample++) {
      if (penalised) for (const id of own) sampler.accept(sample, id);
      found ??= candidates(logits, sampler.edits(sample), sampler.inverseTemperature, 64);
      for (let draw = 0; draw < DRAWS / nSamples; draw++) {
        const short = sampler.draw(sample, found, 0);
        if (!short) undecided++;
        const { id } = short ?? sampler.drawFromLogits(sample, logits, found, 0);
        counts[id]++;
        if (!penalised) sampler.accept(sample, id);
      }
      sampler.end(sample);
    }
    const adjusted = naiveEdits(logits, sampling, prompt, penalised ? own : []);
    const expected = naiveDistribution(adjusted, sampling).map((p) => p * DRAWS);
    const result = chiSquare(counts, expected);
    console.log(
      `measured: ${name}: chi-square ${result.value.toFixed(1)}, ${result.freedom} degrees of freedom, bound ${result.bound.toFixed(1)}; ` +
        `${((100 * undecided) / DRAWS).toFixed(2)} % needed all logits`,
    );
    assert.ok(result.passes, `chi-square ${result.value} above ${result.bound}`);
  });

test("the chi-square test notices a temperature that is 2 % off", () => {
  const vocab = 301;
  const random = newRandom(5);
  const logits = Float32Array.from({ length: vocab }, () => random.normal() * 2);
  const sampler = createSampler(text, vocab);
  sampler.begin(validateSampling({ seed: 12345, temperature: 0.98 }, vocab), [], DRAWS);
  const found = candidates(logits, NO_EDITS, sampler.inverseTemperature, 301);
  const counts = new Array(vocab).fill(0);
  for (let sample = 0; sample < DRAWS; sample++) counts[sampler.draw(sample, found, 0)!.id]++;
  const expected = naiveDistribution([...logits], validateSampling({ seed: 1 }, vocab)).map((p) => p * DRAWS);
  assert.not(chiSquare(counts, expected).passes);
});

// --- Choices -------------------------------------------------------------------------------------------------------------------

test("a choice is the same alone, in any batch and in any order", () => {
  const vocab = 500;
  const sampler = createSampler(text, vocab);
  const options = {
    seed: -99,
    temperature: 0.9,
    topP: 0.95,
    repetitionPenalty: 1.2,
    frequencyPenalty: 0.3,
    logitBias: { 5: 1 },
  };
  // A model for a toy: the next logits follow from the tokens so far.
  const rowAfter = (ids: number[]) => {
    const random = newRandom(ids.reduce((hash, id) => Math.imul(hash ^ id, 0x01000193) >>> 0, 1));
    return Float32Array.from({ length: vocab }, () => random.normal() * 2);
  };
  const run = (sampling: Sampling, nSamples: number, order: (step: number) => number[]) => {
    const ids: number[][] = Array.from({ length: nSamples }, () => []);
    sampler.begin(sampling, [1, 2, 3], nSamples);
    for (let step = 0; step < 25; step++)
      for (const sample of order(step)) {
        const row = rowAfter(ids[sample]);
        const found = candidates(row, sampler.edits(sample), sampler.inverseTemperature, 32);
        const { id } = sampler.draw(sample, found, 0) ?? sampler.drawFromLogits(sample, row, found, 0);
        sampler.accept(sample, id);
        ids[sample].push(id);
      }
    return ids;
  };
  const n = 33;
  const forward = Array.from({ length: n }, (_, i) => i);
  const together = run(validateSampling(options, vocab), n, () => forward);
  const shuffled = run(validateSampling(options, vocab), n, (step) =>
    [...forward.slice(step), ...forward.slice(0, step)].reverse(),
  );
  assert.equal(together, shuffled);
  for (const i of forward) {
    const alone = run(validateSampling({ ...options, seed: choiceSeed(text, -99, i) }, vocab), 1, () => [0]);
    assert.equal(alone[0], together[i], `choice ${i}`);
  }
  assert.is(new Set(together.map(String)).size, n, "choices differ");
});

test("the likeliest tokens come from candidates, or from all logits where the row was edited", () => {
  const vocab = 777;
  const random = newRandom(6);
  const sampler = createSampler(text, vocab);
  for (let round = 0; round < 50; round++) {
    const logits = randomLogits(random, vocab);
    const lse = logSumExp(logits, 1);
    const edits = round % 2 ? editList([[random.below(vocab), 50, 1, 0]]) : NO_EDITS;
    const found = candidates(logits, edits, 1, 64);
    const want = inOrder(logits).slice(0, 10);
    const short = sampler.top(10, edits, found, 0);
    assert.is(short === undefined, round % 2 === 1);
    for (const list of [short ?? [], sampler.topFromLogits(10, logits)]) {
      if (list.length === 0) continue;
      assert.equal(
        list.map(({ id }) => id),
        want,
      );
      for (const { id, logprob } of list)
        assert.ok(
          logprob === logits[id] - lse || Math.abs(logprob - (logits[id] - lse)) < 1e-11 * (1 + Math.abs(logits[id])),
        );
    }
    assert.is(sampler.top(65, NO_EDITS, found, 0), undefined);
    assert.equal(sampler.topFromLogits(0, logits), []);
    assert.is(sampler.topFromLogits(1000, logits).length, vocab);
  }
});

// --- Sizes and speed -----------------------------------------------------------------------------------------------------------

test("many calls with many samples reuse the same memory", () => {
  const vocab = 262_144;
  const sampler = createSampler(text, vocab);
  const random = newRandom(7);
  const logits = Float32Array.from({ length: vocab }, () => random.normal());
  const call = () => {
    const prompt = Array.from({ length: 500 }, () => random.below(vocab));
    sampler.begin(
      validateSampling({ seed: 1, repetitionPenalty: 1.1, logitBias: { 7: 1, 262143: 2 } }, vocab),
      prompt,
      2000,
    );
    for (let sample = 0; sample < 2000; sample++) {
      for (let i = 0; i < 40; i++) sampler.accept(sample, (sample * 31 + i * 7919) % vocab);
      if (sample % 500 === 0)
        assert.is(
          sampler.edits(sample).length / 4,
          new Set([...Uint32Array.from(sampler.edits(sample)).filter((_, i) => i % 4 === 0)]).size,
        );
      if (sample % 3 === 0) sampler.end(sample);
    }
    sampler.drawFromLogits(1, logits);
  };
  call();
  const used = text.used();
  for (let i = 0; i < 5; i++) call();
  assert.is(text.used(), used);

  // Without bias and penalties nothing is kept of the tokens.
  sampler.begin(validateSampling({ seed: 1 }, vocab), [1, 2], 2);
  sampler.accept(0, 5);
  assert.is(sampler.edits(0).length, 0);
});

test("a draw from all logits is fast, whatever their order", () => {
  const vocab = 262_144;
  const sampler = createSampler(text, vocab);
  const random = newRandom(8);
  const rows: [string, Float32Array][] = [
    ["normal", Float32Array.from({ length: vocab }, () => random.normal() * 3)],
    ["equal", new Float32Array(vocab)],
    ["rising", new Float32Array(vocab).map((_, id) => id * 1e-6)],
  ];
  for (const [name, row] of rows) {
    const found = candidates(row, NO_EDITS, 1, 64);
    const time = (options: object) => {
      sampler.begin(validateSampling({ seed: 1, ...options }, vocab), [], 1);
      return fastest(() => sampler.drawFromLogits(0, row, found, 0), 5);
    };
    const [plain, nucleus] = [time({}), time({ topP: 0.999 })];
    console.log(
      `measured: draw from all 262,144 logits, ${name}: ${plain.toFixed(1)} ms, top-p 0.999 ${nucleus.toFixed(1)} ms`,
    );
    assert.ok(plain < 200 && nucleus < 200);
  }
  const found = candidates(rows[0][1], NO_EDITS, 1, 64);
  sampler.begin(validateSampling({ seed: 1 }, vocab), [], 5000);
  const began = performance.now();
  for (let sample = 0; sample < 5000; sample++) sampler.draw(sample, found, 0);
  console.log(`measured: draw from 64 candidates: ${(((performance.now() - began) * 1000) / 5000).toFixed(1)} µs`);
});

// --- Options ---------------------------------------------------------------------------------------------------------------------

test("options are checked and completed", () => {
  const plain = validateSampling({ seed: 5 }, 100);
  assert.equal(plain, {
    temperature: 1,
    topK: 0,
    topP: 1,
    minP: 0,
    repetitionPenalty: 1,
    presencePenalty: 0,
    frequencyPenalty: 0,
    logitBias: [],
    seed: 5,
    logprobs: 0,
  });
  const drawn = new Set(Array.from({ length: 20 }, () => validateSampling({}, 100).seed));
  assert.is(drawn.size, 20);
  for (const seed of drawn) assert.ok(Number.isSafeInteger(seed) && seed >= 0);
  assert.ok(Object.is(validateSampling({ seed: -0 }, 100).seed, 0));
  assert.equal(validateSampling({ logitBias: { 99: 1, 3: -2, 4: 0 } }, 100).logitBias, [
    [3, -2],
    [99, 1],
  ]);

  const wrong: [object, RegExp][] = [
    [{ temperature: -1 }, /temperature is -1, expected/],
    [{ temperature: Number.NaN }, /temperature is NaN/],
    [{ temperature: 1e-7 }, /temperature/],
    [{ temperature: Number.POSITIVE_INFINITY }, /temperature is Infinity/],
    [{ temperature: "1" }, /temperature/],
    [{ topK: 1.5 }, /topK is 1.5, expected a whole number/],
    [{ topK: -1 }, /topK/],
    [{ topP: 0 }, /topP is 0/],
    [{ topP: 1.1 }, /topP/],
    [{ minP: 2 }, /minP/],
    [{ repetitionPenalty: 0 }, /repetitionPenalty/],
    [{ presencePenalty: Number.NaN }, /presencePenalty/],
    [{ frequencyPenalty: 1e9 }, /frequencyPenalty/],
    [{ logitBias: { 100: 1 } }, /logitBias .*"100".*from 0 to 99/],
    [{ logitBias: { "-1": 1 } }, /logitBias/],
    [{ logitBias: { a: 1 } }, /logitBias/],
    [{ logitBias: { 5: Number.POSITIVE_INFINITY } }, /logitBias\[5\]/],
    [{ logitBias: null }, /logitBias is null/],
    [{ seed: 0.5 }, /seed/],
    [{ seed: 2 ** 53 }, /seed/],
    [{ logprobs: 101 }, /logprobs/],
    [{ seed: 5n }, /seed is 5n/],
  ];
  for (const [options, message] of wrong) throws(() => validateSampling(options, 100), "option", message);
});

test.run();

// --- The naive sampler -------------------------------------------------------------------------------------------------------------

function naiveEdits(logits: ArrayLike<number>, s: Sampling, prompt: number[], own: number[]): number[] {
  const biases = new Map(s.logitBias);
  return Array.from(logits, (logit, id) => {
    const x = Math.fround(logit + Math.fround(biases.get(id) ?? 0));
    const penalty = Math.fround(prompt.includes(id) || own.includes(id) ? s.repetitionPenalty : 1);
    const penalised = Math.fround(x > 0 ? x / penalty : x * penalty);
    const times = own.filter((other) => other === id).length;
    const less = times > 0 ? Math.fround(Math.fround(s.presencePenalty) + Math.fround(s.frequencyPenalty) * times) : 0;
    return Math.fround(penalised - less);
  });
}

/** Ids from the largest value to the smallest, equal ones by id. */
function inOrder(values: ArrayLike<number>): number[] {
  return Array.from(values, (_, id) => id).sort((a, b) =>
    values[a] === values[b] ? a - b : values[b] > values[a] ? 1 : -1,
  );
}

/** How many of the ids in order are kept, the probabilities before anything is cut off, and how near the cuts were. */
function naiveCut(adjusted: number[], s: Sampling) {
  const order = inOrder(adjusted);
  const slope = Math.fround(1 / s.temperature);
  const lse = logSumExp(adjusted, slope);
  const p = order.map((id) => Math.exp(adjusted[id] * slope - lse));
  let kept = s.topK > 0 ? Math.min(s.topK, p.length) : p.length;
  let margin = 1;
  if (s.topP < 1) {
    const total = sumOf(p.slice(0, kept));
    let sum = 0;
    for (let rank = 0; rank < kept; rank++) {
      sum += p[rank] / total;
      margin = Math.min(margin, Math.abs(sum - s.topP));
      if (sum >= s.topP) kept = rank + 1;
    }
  }
  if (s.minP > 0) {
    const within = p.slice(0, kept);
    const above = within.filter((q) => q >= s.minP * p[0]).length;
    // Equal to the bound by construction (min-p 1) is no matter of rounding.
    for (const q of within) if (q !== p[0]) margin = Math.min(margin, Math.abs(q / p[0] - s.minP));
    kept = above;
  }
  return { order, p: p.slice(0, kept), margin };
}

function naiveDraw(adjusted: number[], s: Sampling, u: number): { id: number; margin: number } {
  if (s.temperature === 0) return { id: inOrder(adjusted)[0], margin: 1 };
  const { order, p, margin: cutMargin } = naiveCut(adjusted, s);
  const total = sumOf(p);
  let margin = cutMargin;
  let sum = 0;
  let drawn = -1;
  p.forEach((q, rank) => {
    sum += q / total;
    margin = Math.min(margin, Math.abs(sum - u));
    if (drawn < 0 && sum > u) drawn = order[rank];
  });
  return { id: drawn, margin };
}

function naiveDistribution(adjusted: number[], s: Sampling): number[] {
  const { order, p } = naiveCut(adjusted, s);
  const total = sumOf(p);
  const distribution = new Array(adjusted.length).fill(0);
  p.forEach((q, rank) => {
    distribution[order[rank]] = q / total;
  });
  return distribution;
}

/** Natural log-sum-exp, by a compensated sum. */
function logSumExp(values: ArrayLike<number>, slope: number): number {
  let top = Number.NEGATIVE_INFINITY;
  for (let i = 0; i < values.length; i++) top = Math.max(top, values[i]);
  return top * slope + Math.log(sumOf(Array.from(values, (x) => Math.exp((x - top) * slope))));
}

function sumOf(values: number[]): number {
  let [sum, lost] = [0, 0];
  for (const value of values) {
    const next = sum + (value - lost);
    lost = next - sum - (value - lost);
    sum = next;
  }
  return sum;
}

/** Pearson's statistic against its bound at significance 1e-5 (Wilson and Hilferty); cells of fewer than 10 are put together. */
function chiSquare(counts: number[], expected: number[]) {
  let [value, cells, restCount, rest] = [0, 0, 0, 0];
  expected.forEach((e, i) => {
    if (e < 10) {
      rest += e;
      restCount += counts[i];
    } else {
      value += (counts[i] - e) ** 2 / e;
      cells++;
    }
  });
  if (rest > 0) {
    value += (restCount - rest) ** 2 / rest;
    cells++;
  } else if (restCount > 0) value = Number.POSITIVE_INFINITY; // impossible tokens came
  const freedom = cells - 1;
  const bound = freedom * (1 - 2 / (9 * freedom) + 4.265 * Math.sqrt(2 / (9 * freedom))) ** 3;
  return { value, freedom, bound, passes: value <= bound };
}

function philox(counter: number[], key: number[]): number[] {
  let [a, b, c, d] = counter.map(BigInt);
  let [k0, k1] = key.map(BigInt);
  const low = (x: bigint) => x & 0xffff_ffffn;
  for (let round = 0; round < 10; round++) {
    const [p, q] = [a * 0xd2511f53n, c * 0xcd9e8d57n];
    [a, b, c, d] = [(q >> 32n) ^ b ^ k0, low(q), (p >> 32n) ^ d ^ k1, low(p)];
    [k0, k1] = [low(k0 + 0x9e3779b9n), low(k1 + 0xbb67ae85n)];
  }
  return [a, b, c, d].map(Number);
}

/** A whole number in two's complement: its two low words. */
function words(seed: number): number[] {
  const bits = BigInt.asUintN(64, BigInt(seed));
  return [Number(bits & 0xffff_ffffn), Number(bits >> 32n)];
}

function uniform(seed: number, position: number): number {
  const [x0, x1] = philox([position, 0, 0, 0], words(seed));
  return ((x0 >>> 5) * 2 ** 26 + (x1 >>> 6)) / 2 ** 53;
}

// --- Random cases, and the modules called directly ---------------------------------------------------------------------------------

function randomSeed(random: Random): number {
  return random.pick([0, 1, -1, 2 ** 53 - 1, 1 - 2 ** 53, random.below(2 ** 32), -random.below(2 ** 32) * 2 ** 20]);
}

function randomLogits(random: Random, length: number): Float32Array {
  const kind = random.below(7);
  const row = Float32Array.from({ length }, (_, i) => {
    if (kind === 0) return random.normal() * 3;
    if (kind === 1) return Math.round(random.normal() * 3); // ties
    if (kind === 2) return random.normal() * 12;
    if (kind === 3) return (random.next() - 0.5) * 2e4;
    if (kind === 4) return i * 0.01;
    if (kind === 5) return random.below(3) ? Number.NEGATIVE_INFINITY : random.normal();
    return 2.5;
  });
  if (!row.some((x) => x > Number.NEGATIVE_INFINITY)) row[random.below(length)] = -1;
  return row;
}

function editList(list: [id: number, bias: number, scale: number, less: number][]): Edits {
  const edits = new Uint32Array(list.length * 4);
  const floats = new Float32Array(edits.buffer);
  list.forEach(([id, ...rest], i) => {
    edits[4 * i] = id;
    floats.set(rest, 4 * i + 1);
  });
  return edits;
}

function randomEdits(random: Random, vocab: number): Edits {
  const ids = new Set(Array.from({ length: 1 + random.below(30) }, () => random.below(vocab)));
  return editList(
    [...ids]
      .sort((a, b) => a - b)
      .map((id) => [
        id,
        random.below(2) ? random.normal() * 5 : 0,
        random.pick([1, 1.1, 0.5, 2]),
        random.pick([0, 0, 1.5]),
      ]),
  );
}

/** A row after its edits, each operation rounded to f32. */
function edit(logits: ArrayLike<number>, edits: Edits): number[] {
  const row = Array.from(logits);
  const floats = new Float32Array(edits.buffer, edits.byteOffset, edits.length);
  for (let i = 0; i < edits.length; i += 4) {
    const x = Math.fround(row[edits[i]] + floats[i + 1]);
    row[edits[i]] = Math.fround(Math.fround(x > 0 ? x / floats[i + 2] : x * floats[i + 2]) - floats[i + 3]);
  }
  return row;
}

function randomSampling(random: Random, vocab: number): Sampling {
  const off = <T>(value: T, otherwise: T) => (random.below(2) ? value : otherwise);
  return validateSampling(
    {
      seed: randomSeed(random),
      temperature: random.pick([0, 1, 1, 0.7, 1.8, 0.05, random.next() * 3 + 0.01]),
      topK: off(1 + random.below(100), 0),
      topP: off(random.pick([0.1, 0.5, 0.9, 0.999, random.next() || 1]), 1),
      minP: off(random.pick([0.01, 0.1, 1, random.next()]), 0),
      repetitionPenalty: off(random.pick([1.1, 2, 0.7]), 1),
      presencePenalty: off(random.pick([0.5, 2, -1]), 0),
      frequencyPenalty: off(random.pick([0.1, 1.3, -0.2]), 0),
      logitBias: off({ [random.below(vocab)]: random.normal() * 4, [random.below(vocab)]: -100 }, {}),
    },
    vocab,
  );
}

/** cpu.topK on a row: the function and where its results lie, in scratch that the next call may reuse. */
function callTopK<T>(
  logits: Float32Array,
  edits: Edits,
  k: number,
  use: (run: (slope: number) => number, at: number) => T,
): T {
  const mark = cpu.mark();
  try {
    const row = cpu.alloc(logits.byteLength);
    f32(cpu, row, logits.length).set(logits);
    const list = cpu.alloc(edits.byteLength);
    u32(cpu, list, edits.length).set(edits);
    const at = cpu.alloc(12 * k);
    const lses = cpu.alloc(16);
    const run = (slope: number) =>
      cpu.topK(row, logits.length, list, edits.length / 4, slope, k, at, at + 4 * k, at + 8 * k, lses);
    return use((slope) => {
      const status = run(slope);
      logits.set(f32(cpu, row, logits.length));
      LSES.set(f64(cpu, lses, 2));
      return status;
    }, at);
  } finally {
    cpu.release(mark);
  }
}
const LSES = new Float64Array(2);

function candidates(logits: Float32Array, edits: Edits, inverseTemperature: number, k: number): Candidates {
  return callTopK(logits, edits, k, (run, at) => {
    const found = run(inverseTemperature);
    assert.ok(found > 0, `top-k: ${found}`);
    return {
      k: found,
      stride: found,
      ids: u32(cpu, at, found).slice(),
      adjusted: f32(cpu, at + 4 * k, found).slice(),
      raw: f32(cpu, at + 8 * k, found).slice(),
      rawLse: LSES.slice(0, 1),
      adjustedLse: LSES.slice(1),
      target: new Float32Array(1),
    };
  });
}

const status = (logits: Float32Array, edits: Edits) => callTopK(logits, edits, 64, (run) => run(1));

function topKOf(logits: Float32Array, edits: Edits, k: number): (slope: number) => number {
  const row = cpu.alloc(logits.byteLength);
  f32(cpu, row, logits.length).set(logits);
  const at = cpu.alloc(12 * k + 16);
  return (slope) =>
    cpu.topK(row, logits.length, 0, edits.length / 4, slope, k, at, at + 4 * k, at + 8 * k, at + 12 * k);
}

function philoxOfModule(counter: number[], key: number[]): number[] {
  const mark = text.mark();
  const at = text.alloc(40);
  u32(text, at, 10).set([...counter, ...key]);
  text.philox(at, at + 16, at + 24);
  const result = [...u32(text, at + 24, 4)];
  text.release(mark);
  return result;
}

/** Milliseconds of the fastest of `runs` runs. */
function fastest(work: () => unknown, runs: number): number {
  let best = Number.POSITIVE_INFINITY;
  for (let i = 0; i < runs + 5; i++) {
    const began = performance.now();
    work();
    best = Math.min(best, performance.now() - began);
  }
  return best;
}

function throws(work: () => unknown, code: string, message: RegExp): void {
  try {
    work();
  } catch (error) {
    assert.ok(error instanceof FurcateError, String(error));
    assert.is(error.code, code);
    assert.match(error.message, message);
    return;
  }
  assert.unreachable(`expected an error like ${message}`);
}
