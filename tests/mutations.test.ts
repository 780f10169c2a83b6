// The kernels' suite notices broken kernels: each mutation of a shader (support/mutations.ts) makes a test fail that passes without it.
// On a software GPU one of each shader; all where the argument is `all` (npm run test:mutations).

import { test } from "uvu";
import * as assert from "uvu/assert";
import { shaders } from "../build/shaders.js";
import { wasmBackend, webGpuBackend } from "./support/backends.ts";
import { gpuFor, thorough } from "./support/gpu.ts";
import { type KernelTest, listKernelTests } from "./support/kernel-tests.ts";
import { MUTATIONS, type Mutation } from "./support/mutations.ts";

test("every mutation applies: what it replaces is in its shader exactly once", () => {
  const wrong = MUTATIONS.filter((mutation) => mutated(mutation) === undefined);
  assert.is(wrong.map(({ shader, find }) => `\n${shader}: ${find}`).join(""), "");
  assert.equal(
    Object.keys(shaders).filter((name) => !MUTATIONS.some(({ shader }) => shader === name)),
    [],
    "shaders without a mutation",
  );
  assert.is(
    new Set(MUTATIONS.map(({ shader, find, replace }) => [shader, find, replace].join())).size,
    MUTATIONS.length,
  );
});

test("every mutation names tests that there are", () => {
  const names = listKernelTests(wasmBackend).tests.map(({ name }) => name.replace("wasm: ", ""));
  const wrong = MUTATIONS.filter(({ tests }) => !names.some((name) => tests.test(name)));
  assert.is(wrong.map(({ shader, what, tests }) => `\n${shader}, ${what}: ${tests}`).join(""), "");
});

/** The shaders with the mutation in one of them; nothing where it does not apply. */
function mutated({ shader, find, replace }: Mutation): Record<string, string> | undefined {
  const parts = shaders[shader]?.split(find);
  return parts?.length === 2 ? { ...shaders, [shader]: parts.join(replace) } : undefined;
}

const gpu = await gpuFor("mutations of shaders");
if (gpu) {
  const backends = {
    portable: webGpuBackend({ ...gpu, abilities: { f16: false } }),
    halves: webGpuBackend({ ...gpu, abilities: { ...gpu.abilities, matrix: undefined } }),
    able: webGpuBackend(gpu),
  };
  const passed = new Set<string>();
  const all = !gpu.isSoftware || thorough || process.argv[2] === "all";

  const side = gpu.abilities.matrix?.side;
  const here = MUTATIONS.filter(({ matrix, subgroups, half }) =>
    half
      ? gpu.abilities.f16
      : subgroups
        ? gpu.abilities.subgroups
        : !matrix || (side && (matrix === true || matrix === side)),
  );
  const isFirst = ({ shader }: Mutation, i: number) => here.findIndex((other) => other.shader === shader) === i;
  for (const mutation of here.filter((mutation, i) => all || isFirst(mutation, i)))
    test(`${mutation.shader}: ${mutation.what}`, async () => {
      const place = mutation.half ? "halves" : mutation.matrix || mutation.subgroups ? "able" : "portable";
      const backend = backends[place];
      const texts = mutated(mutation);
      if (!texts) throw new Error("the mutation does not apply");
      const broken = listKernelTests({
        ...backend,
        create: (shape, memoryLimit) => backend.create(shape, memoryLimit, { texts }),
      });
      const tried = broken.tests.filter(({ name }) => mutation.tests.test(name.replace("webgpu: ", "")));
      const failure = await firstFailure(tried);
      if (!failure) return assert.unreachable(`none of ${tried.length} tests noticed`);
      assert.not.match(failure.error, /was refused/, "the mutation compiles");
      const again = listKernelTests(backend).tests.find(({ name }) => name === failure.name);
      const key = `${failure.name} ${place}`;
      if (!passed.has(key)) await again?.run();
      passed.add(key);
    });
}

async function firstFailure(tests: readonly KernelTest[]): Promise<{ name: string; error: string } | undefined> {
  for (const { name, run } of tests) {
    const error = await run().then(
      () => undefined,
      (error) => String(error),
    );
    if (error !== undefined) return { name, error };
  }
  return undefined;
}

test.run();
