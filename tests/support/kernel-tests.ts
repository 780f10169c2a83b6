// The kernels' suite (kernel-suite.ts) as a list: to run all of it or a share, in Node under uvu or, as one bundled module, in any
// runtime that has navigator.gpu. Knows tests by their names; nothing of what they test.

import { type OpenedDevice, openDevice } from "../../src/webgpu/device.ts";
import { type BackendUnderTest, webGpuBackend } from "./backends.ts";
import { kernelTests, type Register } from "./kernel-suite.ts";

export interface KernelTest {
  readonly name: string;
  /** Disposes of its backends at the end. */
  run(): Promise<void>;
}

/** The suite's tests of one backend, and what it prints after them. */
export function listKernelTests(backend: BackendUnderTest): { tests: KernelTest[]; after: () => void } {
  const tests: KernelTest[] = [];
  const afters: (() => void)[] = [];
  let made: { dispose(): void }[] = [];
  const test: Register = Object.assign(
    (name: string, run: () => Promise<void>) => {
      tests.push({
        name,
        async run() {
          try {
            await run();
          } finally {
            for (const backend of made) backend.dispose();
            made = [];
          }
        },
      });
    },
    { after: (run: () => void) => void afters.push(run) },
  );
  kernelTests(test, {
    ...backend,
    async create(...options) {
      const created = await backend.create(...options);
      made.push(created);
      return created;
    },
  });
  const after = () => {
    for (const run of afters) run();
  };
  return { tests, after };
}

/**
 * One of `parts` shares of the tests, which together are all: of each kind (what a name says before its first comma) the
 * `part`-th and every `parts`-th after it, and at least one.
 */
export function shareOf(tests: readonly KernelTest[], part: number, parts: number): KernelTest[] {
  const kinds = new Map<string, KernelTest[]>();
  for (const test of tests) {
    const kind = test.name.split(",")[0];
    kinds.set(kind, [...(kinds.get(kind) ?? []), test]);
  }
  return [...kinds.values()].flatMap((tests) =>
    tests.filter((_, i) => i % parts === part % Math.min(parts, tests.length)),
  );
}

export interface SuiteResult {
  readonly device: string;
  readonly abilities: OpenedDevice["abilities"];
  readonly ran: number;
  readonly of: number;
  /** Name and error of each test that failed. */
  readonly failures: readonly (readonly [name: string, error: string])[];
}

/** Runs a share of the suite on this runtime's own GPU, a software one too. Throws why where there is none. */
export async function runOnOwnGpu(part: number, parts: number): Promise<SuiteResult> {
  const opened = await openDevice(true);
  if ("reason" in opened) throw new Error(opened.reason);
  const { tests, after } = listKernelTests(webGpuBackend(opened));
  const share = shareOf(tests, part, parts);
  const failures: [string, string][] = [];
  for (const { name, run } of share)
    await run().catch((error: Error) => failures.push([name, error.stack ?? String(error)]));
  after();
  const { name: device, abilities } = opened;
  return { device, abilities, ran: share.length, of: tests.length, failures };
}
