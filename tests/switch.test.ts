// The switch between attention in one part and in two, on costs that are given; that real ones hold is measured (bench/gpu).

import { test } from "uvu";
import * as assert from "uvu/assert";
import { type Costs, choosePath } from "../src/webgpu/switch.ts";

test("without costs, several samples take two parts", () => {
  assert.is(choosePath(undefined, 1, 4096).path, "one-part");
  assert.is(choosePath(undefined, 2, 64).path, "two-part");
});

/** One part: 0.01 ms and 1 ns a token of each sample. Two parts: 0.02 ms and 1 ns a token of all, as it happens. */
const costs: Costs = {
  samples: [1, 2, 4, 16],
  contexts: [64, 512, 4096],
  ms: {
    "one-part": [1, 2, 4, 16].map((n) => [64, 512, 4096].map((tokens) => 0.01 + 1e-6 * n * tokens)),
    "two-part": [1, 2, 4, 16].map(() => [64, 512, 4096].map((tokens) => 0.02 + 1e-6 * tokens)),
  },
};

test("the cheaper path is taken: on the grid, between its points and beyond them", () => {
  for (const n of [1, 2, 3, 4, 9, 16, 100])
    for (const tokens of [0, 1, 64, 100, 512, 3000, 4096, 5000, 11_000, 50_000]) {
      const [one, two] = [0.01 + 1e-6 * n * tokens, 0.02 + 1e-6 * tokens];
      if (Math.abs(one - two) < 0.03 * one) continue; // as good as equal
      assert.is(
        choosePath(costs, n, tokens).path,
        two < one ? "two-part" : "one-part",
        `${n} samples, ${tokens} tokens`,
      );
    }
});

test("one sample takes two parts where they are cheaper, and several where they cost the same", () => {
  const scaled = (factor: number): Costs => ({
    ...costs,
    ms: { ...costs.ms, "two-part": costs.ms["one-part"].map((row) => row.map((ms) => factor * ms)) },
  });
  assert.is(choosePath(scaled(0.9), 1, 1000).path, "two-part");
  assert.is(choosePath(scaled(1.01), 1, 1000).path, "one-part");
  assert.is(choosePath(scaled(1.01), 8, 1000).path, "two-part");
  assert.is(choosePath(scaled(1.05), 8, 1000).path, "one-part");
});

test("the reason has both figures", () => {
  const { reason } = choosePath(costs, 16, 4096);
  assert.is(reason, "attention of a layer takes 24 µs in two parts and 76 µs in one, as measured here");
});

test.run();
