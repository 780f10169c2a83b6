// Samples of one call do not touch each other: every choice comes again alone from its seed, bit for bit, on every attention path
// and whatever the cache held before. And they share their prompt: K/V memory is that of one prompt and n tails.

import { existsSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { createCache } from "../src/cache.ts";
import { generate as stepsOf } from "../src/generate.ts";
import { type Choice, type GenerateOptions, load, type Model, type Prefix } from "../src/index.ts";
import { loadEngine } from "../src/load.ts";
import { resolveOptions } from "../src/options.ts";
import { createQueue } from "../src/queue.ts";
import { newRandom } from "./support/random.ts";
import { type RandomModelOptions, randomModel } from "./support/random-model.ts";

const generate = (...call: Parameters<typeof stepsOf>) => createQueue()(undefined, () => stepsOf(...call));

/** Of the random models' 300 tokens. */
const EOS = 297;
const END_SOON: GenerateOptions = { logitBias: { [EOS]: 3.5 } };

const MODELS: { name: string; options: RandomModelOptions }[] = [
  { name: "MHA, F32", options: {} },
  { name: "GQA, heads of 12, Q8_0", options: { dim: 96, nHeads: 8, nKvHeads: 2, headDim: 12, type: "Q8_0" } },
  {
    name: "MQA, heads of 6, Q4_1",
    options: { dim: 96, nHeads: 16, nKvHeads: 1, headDim: 6, type: "Q4_1", tied: true },
  },
  { name: "heads of 20, BF16", options: { dim: 60, nHeads: 3, nKvHeads: 3, type: "BF16" } },
  { name: "GQA, Q5_0", options: { nHeads: 4, nKvHeads: 2, type: "Q5_0", ropeScaling: { kind: "linear", factor: 2 } } },
  { name: "Q4_K and Q6_K", options: { dim: 256, hiddenDim: 256, nHeads: 4, nKvHeads: 1, nLayers: 1, type: mixed } },
];

const CALLS: { name: string; options: GenerateOptions }[] = [
  { name: "greedy", options: { temperature: 0 } },
  { name: "temperature 1", options: END_SOON },
  {
    name: "all of sampling",
    options: {
      ...END_SOON,
      temperature: 0.8,
      topK: 40,
      topP: 0.95,
      minP: 0.01,
      repetitionPenalty: 1.2,
      presencePenalty: 0.3,
      frequencyPenalty: 0.2,
    },
  },
  { name: "hot: draws beyond the candidates", options: { ...END_SOON, temperature: 3 } },
];

let compared = 0;
let different = 0;
const lengths = new Set<number>();

for (const [m, { name, options }] of MODELS.entries())
  test(`every choice again from its seed: ${name}`, async () => {
    const file = randomModel({ ...options, seed: 20 + m });
    const random = newRandom(m);
    const model = await load(file);
    for (const [c, call] of CALLS.entries()) {
      // A prompt of its own for each call; some end within a block of the cache, one at its end.
      const prompt = Array.from({ length: [41, 32, 70, 9][c] }, () => random.below(256));
      for (const n of [3, 16, 33]) {
        const same: GenerateOptions = { ...call.options, maxTokens: 26, logprobs: 2 };
        const { choices, stats } = await model.generate(prompt, { ...same, n, seed: 1000 * m + n });
        assert.is(choices.length, n);
        assert.is(choices[0].seed, 1000 * m + n);
        if (stats.attention === "one-part") assert.unreachable("the call took the one-part path");
        for (const choice of choices) lengths.add(choice.tokenIds.length);
        const byOnePart = await model.generate(prompt, { ...same, n, seed: 1000 * m + n, attention: "one-part" });
        assert.is(byOnePart.stats.attention, "one-part");
        for (const [i, choice] of choices.entries())
          compare(byOnePart.choices[i], choice, `${call.name}, n = ${n}, one-part`);
        for (const choice of n === 33 ? choices.filter((_, i) => i % 4 === 0) : choices) {
          const attention = choice.index % 2 === 0 ? ("two-part" as const) : ("auto" as const);
          const alone = await model.generate(prompt, { ...same, n: 1, seed: choice.seed, attention });
          assert.is(alone.choices.length, 1);
          compare(alone.choices[0], choice, `${call.name}, choice ${choice.index} of ${n} alone`);
        }
      }
    }
    model.dispose();
  });

test("every choice again from its seed, whatever the cache holds", async () => {
  for (const [m, { name, options }] of MODELS.entries()) {
    const file = randomModel({ ...options, seed: 40 + m });
    const random = newRandom(100 + m);
    const prompt = Array.from({ length: 75 }, () => random.below(256));
    const same: GenerateOptions = { ...END_SOON, maxTokens: 20, logprobs: 1 };
    const model = await load(file);
    const first = await model.generate(prompt, { ...same, n: 16, seed: 5 });
    assert.is(first.usage.cachedTokens, 0);

    const again = await model.generate(prompt, { ...same, n: 16, seed: 5 });
    assert.is(again.usage.cachedTokens, 74, "all but the token whose logits are wanted");
    for (const [i, choice] of again.choices.entries()) compare(choice, first.choices[i], `${name}: cached prompt`);

    // Another prompt that parts from the first within a block.
    const other = [...prompt.slice(0, 45), 7, 8, 9];
    const beside = await model.generate(other, { ...same, n: 3, seed: 6 });
    assert.is(beside.usage.cachedTokens, 45);

    const fresh = await load(file);
    const otherFresh = await fresh.generate(other, { ...same, n: 3, seed: 6 });
    for (const [i, choice] of otherFresh.choices.entries())
      compare(choice, beside.choices[i], `${name}: shared beginning`);

    // The same tokens as prefixes and their continuations, cut anywhere.
    for (const [a, b] of [
      [1, 2],
      [31, 33],
      [32, 64],
      [50, 74],
    ]) {
      const grown = await load(file);
      const prefix: Prefix = await grown.prefill(prompt.slice(0, a));
      const fork = await prefix.fork(prompt.slice(a, b));
      const { choices } = await fork.generate(prompt.slice(b), { ...same, n: 16, seed: 5 });
      for (const [i, choice] of choices.entries())
        compare(choice, first.choices[i], `${name}: prefix of ${a}, fork of ${b}`);
      prefix.dispose();
      const afterwards = await fork.generate(prompt.slice(b), { ...same, seed: first.choices[9].seed });
      compare(afterwards.choices[0], { ...first.choices[9], index: 0 }, `${name}: the fork outlives its prefix`);
      grown.dispose();
    }
    fresh.dispose();
    model.dispose();
  }
});

test("every choice again from its seed, with more samples than rows", async () => {
  const model = await load(randomModel({ seed: 60, nKvHeads: 2 }));
  const same: GenerateOptions = { ...END_SOON, maxTokens: 12, logprobs: 0 };
  const { choices } = await model.generate("the and of", { ...same, n: 150, seed: 3 });
  assert.is(choices.length, 150);
  assert.is(new Set(choices.map(({ seed }) => seed)).size, 150);
  for (const choice of choices) {
    const alone = await model.generate("the and of", { ...same, seed: choice.seed });
    compare(alone.choices[0], choice, `choice ${choice.index} of 150`);
  }
  model.dispose();
});

test("choices are the same when memory lets only few run at a time", async () => {
  // 60 samples of up to 2 blocks each beside a prompt of 2, where about 20 blocks fit.
  const file = randomModel({ seed: 61 });
  const ids = Array.from({ length: 50 }, (_, i) => (i * 37) % 256);
  const options: GenerateOptions = { ...END_SOON, n: 60, maxTokens: 40, seed: 8, logprobs: 0 };
  const large = await load(file);
  const want = await large.generate(ids, options);
  const { engine } = await loadEngine(file);
  const memoryLimit = engine.backend.usedBytes + 20 * engine.backend.blockBytes;
  const small = await load(file, { memoryLimit });
  const got = await small.generate(ids, options);
  assert.ok(got.stats.steps > 1.5 * want.stats.steps, "samples waited for places");
  for (const [i, choice] of got.choices.entries()) compare(choice, want.choices[i], `choice ${i}`);
  assert.ok(got.stats.kvBytes <= 20 * engine.backend.blockBytes);
});

// ---------------------------------------------------------------------------------------------- shared rows

test("samples that have drawn the same so far are one row, and no more", async () => {
  const { engine } = await loadEngine(randomModel({ seed: 62, nKvHeads: 2 }));
  const ids = Uint32Array.from({ length: 45 }, (_, i) => (i * 29) % 256);
  let shared = 0;
  for (const temperature of [0, 0.15, 0.25, 1]) {
    const steps: string[][] = [];
    const decode: typeof engine.forward.decode = (rows, context, tails, attention) => {
      steps.push(rows.map(({ id, position }) => `${id} at ${position}`));
      return engine.forward.decode(rows, context, tails, attention);
    };
    const options: GenerateOptions = { maxTokens: 45, temperature, logitBias: { [EOS]: 1.5 } };
    const call = resolveOptions({ ...options, n: 40, seed: 4 }, engine.config.vocab);
    const { choices, stats } = await generate({ ...engine, forward: { ...engine.forward, decode } }, ids, call);
    let samples = 0;
    for (const [step, rows] of steps.entries()) {
      // Fed are the tokens of those that have not ended: an end token has not come, nor the last token allowed.
      const fed = choices.filter(
        ({ tokenIds, finishReason }) => tokenIds.length > step + Number(finishReason === "length"),
      );
      const distinct = new Map(fed.map(({ tokenIds }) => [tokenIds.subarray(0, step + 1).join(), tokenIds[step]]));
      assert.equal([...rows].sort(), [...distinct.values()].map((id) => `${id} at ${45 + step}`).sort());
      samples += fed.length;
    }
    const rows = steps.reduce((sum, step) => sum + step.length, 0);
    console.log(`measured: temperature ${temperature}: ${rows} rows for ${samples} tokens of 40 samples`);
    if (temperature === 0) assert.is(rows, steps.length);
    if (rows < 0.8 * samples && rows > 2 * steps.length) shared++;
    assert.is(engine.cache.counts().referenced, 0);
    for (const choice of choices.filter((_, i) => i % 7 === 0)) {
      const same = resolveOptions({ ...options, seed: choice.seed }, engine.config.vocab);
      compare((await generate(engine, ids, same)).choices[0], choice, `choice ${choice.index} alone`);
    }
    assert.ok(stats.kvBytes < stats.kvBytesAsCopies);
  }
  assert.ok(shared >= 1, "some calls shared rows for a while and then parted");
});

test("samples that part late all end in the memory that one of them needs", async () => {
  const { engine } = await loadEngine(randomModel({ seed: 63 }));
  const { blockTokens, blockBytes } = engine.backend;
  const ids = Uint32Array.from({ length: 40 }, (_, i) => (i * 37) % 256);
  const options: GenerateOptions = { n: 50, maxTokens: 75, temperature: 0.2, seed: 9, logitBias: { [EOS]: 1.5 } };
  const call = resolveOptions(options, engine.config.vocab);
  const want = await generate(engine, ids, call);
  assert.ok(want.stats.kvBytes > 12 * blockBytes);
  // 2 blocks of the prompt, and 3 of the 74 tokens that a sample feeds back.
  for (const maxBlocks of [5, 6, 9]) {
    const cache = createCache(engine.text, { blockTokens, maxBlocks });
    const { choices, stats } = await generate({ ...engine, cache }, ids, call);
    for (const [i, choice] of choices.entries()) compare(choice, want.choices[i], `${maxBlocks} blocks, choice ${i}`);
    assert.is(stats.kvBytes, maxBlocks * blockBytes);
    assert.is(cache.counts().referenced, 0);
  }
});

// ---------------------------------------------------------------------------------------------- shared memory

test("K/V memory is that of one prompt and n tails, measured at the allocator", async () => {
  for (const { nKvHeads, headDim, nLayers } of [
    { nKvHeads: 4, headDim: 16, nLayers: 2 },
    { nKvHeads: 1, headDim: 12, nLayers: 3 },
  ]) {
    const file = randomModel({ seed: 70, nHeads: 4, nKvHeads, headDim, nLayers, contextLength: 2048 });
    const { engine } = await loadEngine(file);
    const { backend, cache } = engine;
    const { blockTokens } = backend;
    assert.is(backend.blockBytes, blockTokens * nLayers * nKvHeads * headDim * 2 * 4, "K and V in f32");
    const blocksOf = (tokens: number) => Math.ceil(tokens / blockTokens);
    const before = backend.usedBytes;
    let prompts = 0;
    for (const [promptTokens, n, maxTokens] of [
      [1000, 16, 40],
      [33, 33, 70],
      [64, 3, 3],
      [5, 1, 100],
    ]) {
      const ids = Uint32Array.from({ length: promptTokens }, (_, i) => (i * 31 + promptTokens) % 256);
      const call = resolveOptions({ n, maxTokens, seed: 1, ignoreEos: true }, engine.config.vocab);
      let most = 0;
      const listener = {
        emit: () => {
          most = Math.max(most, cache.counts().referenced);
        },
        isStopped: () => false,
      };
      const { stats } = await generate(engine, ids, call, listener);
      // A sample's last token is never fed back.
      const want = blocksOf(promptTokens) + n * blocksOf(maxTokens - 1);
      assert.is(most, want, "blocks held at once");
      assert.is(stats.kvBytes, want * backend.blockBytes);
      assert.is(stats.kvBytesAsCopies, n * (blocksOf(promptTokens) + blocksOf(maxTokens - 1)) * backend.blockBytes);
      prompts += blocksOf(promptTokens);
      const { referenced, cached, tokens } = cache.counts();
      assert.is(referenced, 0, "blocks held afterwards");
      assert.is(cached, prompts, "blocks of cached prompts");
      assert.ok(tokens <= prompts * blockTokens);
    }
    const { made, mostInUse } = cache.counts();
    assert.is(made, mostInUse, "blocks are used again");
    // The allocator runs ahead by half at most, and for a batch's tables.
    const taken = backend.usedBytes - before;
    assert.ok(taken >= made * backend.blockBytes, `${taken} bytes for ${made} blocks`);
    assert.ok(taken <= 1.5 * made * backend.blockBytes + 200_000, `${taken} bytes for ${made} blocks`);
    backend.dispose();
  }
});

test("a call that is aborted or ends in an error returns its blocks, all but prompts that are whole", async () => {
  const { engine } = await loadEngine(randomModel({ seed: 71 }));
  const { cache } = engine;
  const ids = Uint32Array.from({ length: 200 }, (_, i) => i);
  for (const after of [1, 5, 30]) {
    const controller = new AbortController();
    let heard = 0;
    const listener = {
      emit: () => {
        if (++heard === after) controller.abort(new Error("enough"));
      },
      isStopped: () => false,
    };
    const call = resolveOptions(
      { n: 8, maxTokens: 50, ignoreEos: true, signal: controller.signal },
      engine.config.vocab,
    );
    try {
      await generate(engine, ids, call, listener);
      assert.unreachable("not aborted");
    } catch (error) {
      assert.is((error as Error).message, "enough");
    }
    assert.is(cache.counts().referenced, 0);
    assert.is(cache.counts().cached, Math.ceil(200 / engine.backend.blockTokens));
  }
});

// ---------------------------------------------------------------------------------------------- SmolLM2

const data = process.env.FURCATE_TESTDATA;
const smol = `${data}/models/SmolLM2-135M-Instruct.Q4_1.gguf`;
if (data === undefined || !existsSync(smol)) {
  console.log(
    "skipped: choices of SmolLM2: FURCATE_TESTDATA is not set or has no models/SmolLM2-135M-Instruct.Q4_1.gguf",
  );
} else {
  test("every choice again from its seed: SmolLM2", async () => {
    const model: Model = await load(smol);
    const prompt = [{ role: "user", content: "Name a colour, and say why you like it." }];
    for (const temperature of [0, 0.9]) {
      const same: GenerateOptions = { temperature, maxTokens: 10, logprobs: 1 };
      const { choices } = await model.generate(prompt, { ...same, n: 16, seed: 77 });
      const onePart = await model.generate(prompt, { ...same, n: 16, seed: 77, attention: "one-part" });
      for (const [i, choice] of onePart.choices.entries()) compare(choice, choices[i], `choice ${i}, one-part`);
      for (const choice of temperature === 0 ? choices.slice(0, 2) : choices) {
        const alone = await model.generate(prompt, { ...same, seed: choice.seed });
        compare(alone.choices[0], choice, `choice ${choice.index} alone`);
      }
    }
    model.dispose();
  });
}

test.after(() =>
  console.log(`\nmeasured: sampled ids that differ alone or by another path: ${different} of ${compared}`),
);
test("choices ended at different steps, and enough tokens were compared", () => {
  assert.ok(compared >= 10_000, `${compared} tokens`);
  assert.ok(lengths.size > 20, `${lengths.size} different lengths`);
});

/** Fails unless both choices are the same but for their index, bit for bit. Counts ids. */
function compare(got: Choice, want: Choice, what: string): void {
  const length = Math.max(got.tokenIds.length, want.tokenIds.length);
  for (let i = 0; i < length; i++) {
    compared++;
    if (got.tokenIds[i] !== want.tokenIds[i]) different++;
  }
  assert.equal([...got.tokenIds], [...want.tokenIds], `${what}: ids`);
  assert.is(got.seed, want.seed, `${what}: seed`);
  assert.is(got.text, want.text, `${what}: text`);
  assert.is(got.finishReason, want.finishReason, `${what}: finish reason`);
  assert.ok(Object.is(got.meanLogprob, want.meanLogprob), `${what}: ${got.meanLogprob} and ${want.meanLogprob}`);
  assert.equal(got.logprobs, want.logprobs, `${what}: log-probabilities`);
}

function mixed(tensor: string): string {
  return /attn_v|ffn_down|output/.test(tensor) ? "Q6_K" : "Q4_K";
}

test.run();
