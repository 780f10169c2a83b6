// Choices on a GPU come again alone from their seeds: bit for bit where the attention path and the kernels for few or many rows are
// fixed, and nearly always where they are chosen by the number of samples. exact.test.ts promises more of WebAssembly.

import { readFileSync } from "node:fs";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { generateMaze, mazePrompt } from "../models/maze/maze.ts";
import { type Candidates, DRAWN } from "../src/backend.ts";
import type { Engine } from "../src/engine.ts";
import { generate as stepsOf } from "../src/generate.ts";
import { type Choice, type GenerateOptions, load } from "../src/index.ts";
import { resolveOptions } from "../src/options.ts";
import { createQueue } from "../src/queue.ts";
import type { Trials } from "../src/webgpu/kernels.ts";
import { webGpuBackend } from "./support/backends.ts";
import { engineOn } from "./support/engine.ts";
import { gpuFor, thorough } from "./support/gpu.ts";
import { newRandom } from "./support/random.ts";
import { type RandomModelOptions, randomModel } from "./support/random-model.ts";

/** Of the random models' 300 tokens: ends come at different steps. */
const EOS = 297;
const END_SOON: GenerateOptions = { logitBias: { [EOS]: 4.5 } };

const SMALL = { dim: 32, hiddenDim: 64, nLayers: 1, nHeads: 2 };
const MODELS: { name: string; options: RandomModelOptions }[] = [
  { name: "GQA, Q8_0", options: { ...SMALL, nKvHeads: 1, type: "Q8_0" } },
  { name: "MHA, Q4_1", options: { ...SMALL, nLayers: 2, type: "Q4_1", tied: true } },
];

const CALLS: { name: string; options: GenerateOptions }[] = [
  { name: "greedy", options: { temperature: 0 } },
  {
    name: "all of sampling",
    options: { ...END_SOON, temperature: 0.8, topK: 40, topP: 0.95, minP: 0.01, repetitionPenalty: 1.2 },
  },
];

const gpu = await gpuFor("choices again from their seeds on a GPU");
if (gpu) {
  /** A program of a GPU takes 30 ms for a token of these models: it computes a share. */
  const share = gpu.isSoftware && !thorough;
  const backend = webGpuBackend(gpu);
  const engineFor = (file: Uint8Array, trials?: Trials) =>
    engineOn(file, (shape) => backend.create(shape, undefined, trials));
  const run = async (engine: Engine, ids: Uint32Array, options: GenerateOptions) =>
    (
      await createQueue()(undefined, () =>
        stepsOf(engine, ids, resolveOptions({ logprobs: 0, ...options }, engine.config.vocab)),
      )
    ).choices;
  const promptOf = (length: number, seed: number) => {
    const random = newRandom(seed);
    return Uint32Array.from({ length }, () => random.below(256));
  };

  const FIXED = [
    { attention: "two-part", kernelClass: "few" },
    { attention: "one-part", kernelClass: "many" },
    { attention: "two-part", kernelClass: "many" },
    { attention: "one-part", kernelClass: "few" },
  ] as const;
  const lengths = new Set<number>();
  for (const [m, { name, options }] of MODELS.slice(0, share ? 1 : undefined).entries())
    for (const { attention, kernelClass } of FIXED.slice(0, share ? 2 : undefined))
      test(`every choice again from its seed, bit for bit: ${name}, ${attention}, kernels for ${kernelClass} rows`, async () => {
        const engine = await engineFor(randomModel({ ...options, seed: 20 + m }), { kernelClass });
        let tokens = 0;
        for (const [c, call] of CALLS.entries()) {
          const prompt = promptOf([41, 32][c], c);
          for (const n of [2, 5, 32]) {
            const same = { ...call.options, attention, maxTokens: share ? 8 : 24 };
            const choices = await run(engine, prompt, { ...same, n, seed: 100 * m + n });
            for (const { tokenIds } of choices) lengths.add(tokenIds.length);
            for (const choice of choices.filter(({ index }) => index % (share ? n / 2 : 1) < 1)) {
              const [alone] = await run(engine, prompt, { ...same, n: 1, seed: choice.seed });
              sameChoice(alone, choice, `${call.name}, choice ${choice.index} of ${n}`);
              tokens += choice.tokenIds.length;
            }
          }
        }
        console.log(
          `\nmeasured: ${name}, ${attention}, kernels for ${kernelClass} rows: ${tokens} tokens again alone, all bits the same`,
        );
        engine.backend.dispose();
      });
  test("choices ended at different steps", () => assert.ok(lengths.size > 4, `${lengths.size} different lengths`));

  test("steps that begin before their tokens are read change no choice, also where the backend drew others", async () => {
    const engine = await engineFor(randomModel({ ...MODELS[0].options, seed: 31 }), { kernelClass: "few" });
    const { backend: real, forward } = engine;
    let ahead = 0;
    let steps = 0;
    const watched: Engine["forward"] = {
      ...forward,
      decode(rows, ...rest) {
        steps++;
        if (rows.some(({ id }) => id >= DRAWN)) ahead++;
        return forward.decode(rows, ...rest);
      },
    };
    /** The engine, whose candidates come back changed. */
    const changed = (drawsAhead: boolean, change: (found: Candidates) => Partial<Candidates>): Engine => ({
      ...engine,
      forward: watched,
      backend: Object.create(real, {
        drawsAhead: { value: drawsAhead },
        candidates: {
          value: async (...args: Parameters<typeof real.candidates>) => {
            const found = await real.candidates(...args);
            return { ...found, ...change(found) };
          },
        },
      }),
    });
    const asTheyAre = () => ({});
    const others = ({ drawn }: Candidates) => ({ drawn: drawn?.map((id) => id + 1) });
    const undecided = () => ({ beyond: undefined });
    const calls: GenerateOptions[] = [
      { temperature: 0, n: 2 },
      { temperature: 1, n: share ? 3 : 20 },
      // These end at different steps.
      { temperature: 3, n: share ? 4 : 20, stop: ["e", "a"] },
      { ...END_SOON, n: share ? 4 : 20, ignoreEos: false },
    ];
    for (const [c, call] of calls.entries()) {
      const attention = "two-part";
      const same = { ignoreEos: true, ...call, attention, seed: c, maxTokens: share ? 10 : 40 } as const;
      const compare = async (of: Engine, want: Choice[], what: string) => {
        [ahead, steps] = [0, 0];
        const got = await run(of, promptOf(70, c), same);
        for (const [i, choice] of got.entries()) sameChoice(choice, want[i], `call ${c}, choice ${i}, ${what}`);
      };
      const want = await run(changed(false, asTheyAre), promptOf(70, c), same);
      await compare(changed(true, asTheyAre), want, "ahead");
      // Greedy samples are one row. The others part at once.
      assert.ok(c === 0 ? ahead === 0 : ahead > steps / 2, `call ${c}: ${ahead} of ${steps} steps begun ahead`);
      await compare(changed(true, others), want, "others drawn");
      if (c > 0) assert.ok(ahead > 0 && steps > 1.5 * ahead, `call ${c}: ${steps} steps, ${ahead} of them in vain`);
      const whole = await run(changed(false, undecided), promptOf(70, c), same);
      await compare(changed(true, undecided), whole, "from all logits");
    }
    const [alone] = await run(changed(false, asTheyAre), promptOf(9, 9), {
      temperature: 0,
      maxTokens: 9,
      ignoreEos: true,
    });
    ahead = 0;
    const greedy = { temperature: 0, maxTokens: 9, ignoreEos: true };
    sameChoice((await run(changed(true, asTheyAre), promptOf(9, 9), greedy))[0], alone, "one greedy sample");
    assert.is(ahead, 7); // of eight steps all but the first
    real.dispose();
  });

  test("ids that another path or number of samples changes", async () => {
    const wanted = share ? 500 : 10_000;
    const engine = await engineFor(randomModel({ ...MODELS[0].options, seed: 31 }));
    const prompt = promptOf(100, 7);
    let tokens = 0;
    let parted = 0;
    for (let seed = 0; tokens < wanted; seed++) {
      const call = { n: share ? 20 : 64, maxTokens: share ? 25 : 170, seed, ignoreEos: true };
      const auto = await run(engine, prompt, call);
      const onePart = await run(engine, prompt, { ...call, attention: "one-part" });
      for (const [i, { tokenIds }] of auto.entries()) {
        // Once an id is another, all that follow have another past.
        const at = tokenIds.findIndex((id, step) => id !== onePart[i].tokenIds[step]);
        tokens += at < 0 ? tokenIds.length : at + 1;
        if (at >= 0) parted++;
      }
      for (const i of share ? [7] : [7, 17, 40]) {
        const [alone] = await run(engine, prompt, { ...call, n: 1, seed: auto[i].seed });
        const at = alone.tokenIds.findIndex((id, step) => id !== auto[i].tokenIds[step]);
        tokens += at < 0 ? alone.tokenIds.length : at + 1;
        if (at >= 0) parted++;
      }
    }
    console.log(`\nmeasured: sampled ids that differ by another path or alone: ${parted} of ${tokens}`);
    // A draw walks down the tokens in order, and of a random model's flat row 16-bit activations change the order here and there.
    const rare = gpu.abilities.f16 ? 20 : 1000;
    assert.ok(parted <= 1 + tokens / rare, `${parted} of ${tokens}`);
    engine.backend.dispose();
  });

  // With f16 products of many rows round activations to 16 bits, and sums without subgroup matrices: how often that changes an id of
  // a trained model.
  if (gpu.abilities.f16)
    test("sampled ids that 16-bit activations change", async () => {
      const maze = readFileSync(new URL("../models/maze.gguf", import.meta.url));
      const plain = webGpuBackend({ ...gpu, abilities: { f16: false } });
      const engines = [await engineFor(maze), await engineOn(maze, (shape) => plain.create(shape))];
      let [tokens, parted, sum, scored] = [0, 0, 0, 0];
      for (let seed = 0; tokens < 10_000; seed++) {
        const prompt = engines[0].tokenizer.encode(mazePrompt(generateMaze(seed)));
        const [halves, floats] = await Promise.all(
          engines.map((engine) => run(engine, prompt, { n: 32, seed, maxTokens: 128 })),
        );
        for (const [i, { tokenIds, logprobs }] of floats.entries()) {
          const at = tokenIds.findIndex((id, step) => id !== halves[i].tokenIds[step]);
          const same = at < 0 ? tokenIds.length : at;
          for (let step = 0; step < same; step++)
            sum += Math.abs(logprobs![step].logprob - halves[i].logprobs![step].logprob);
          scored += same;
          tokens += at < 0 ? tokenIds.length : at + 1;
          if (at >= 0) parted++;
        }
      }
      const mean = sum / scored;
      console.log(
        `\nmeasured: 16-bit activations change ${parted} of ${tokens} sampled ids; mean |Δ log-probability| ${mean.toExponential(1)}`,
      );
      assert.ok(parted <= tokens / 100, `${parted} of ${tokens}`);
      assert.ok(mean <= 4e-3, `mean ${mean}`);
      for (const { backend } of engines) backend.dispose();
    });

  test("greedy ids are those of WebAssembly up to the first near-tie", async () => {
    /** Of the best two log-probabilities: K and V in 16 bits, and on the CPU activations, move them by less; with f16 sums too. */
    const near = gpu.abilities.f16 ? 0.06 : 0.02;
    let compared = 0;
    for (const [m, { options }] of MODELS.slice(0, share ? 1 : undefined).entries()) {
      const file = randomModel({ ...options, seed: 50 + m });
      const cpu = await load(file, { backend: "wasm" });
      const model = await load(file, { device: gpu.device });
      for (let seed = 0; seed < (share ? 3 : 20); seed++) {
        const prompt = promptOf(10 + 13 * seed, seed);
        const call: GenerateOptions = { temperature: 0, maxTokens: 24, ignoreEos: true };
        const [want] = (await cpu.generate(prompt, { ...call, logprobs: 2 })).choices;
        const clear = want.logprobs!.findIndex(({ top: [first, second] }) => first.logprob - second.logprob < near);
        const same = clear < 0 ? want.tokenIds.length : clear;
        for (const n of [1, 5]) {
          const { choices } = await model.generate(prompt, { ...call, n });
          for (const { tokenIds } of choices)
            assert.equal([...tokenIds.subarray(0, same)], [...want.tokenIds.subarray(0, same)]);
        }
        compared += same;
      }
      cpu.dispose();
      model.dispose();
    }
    console.log(`\nmeasured: ${compared} greedy ids on the GPU as on WebAssembly`);
    assert.ok(compared > (share ? 50 : 400) / (gpu.abilities.f16 ? 2.5 : 1), `${compared} ids compared`);
  });
}

function sameChoice(got: Choice, want: Choice, what: string): void {
  assert.equal([...got.tokenIds], [...want.tokenIds], `${what}: ids`);
  assert.is(got.finishReason, want.finishReason, what);
  assert.equal(got.logprobs, want.logprobs, `${what}: log-probabilities`);
}

test.run();
