// The suite of all kernels (support/kernel-suite.ts) in Node: on WebAssembly, and on whatever GPU there is.
// Deno and Chromium run it too (gpu-runtimes.test.ts).

import { test } from "uvu";
import { wasmBackend, webGpuBackend } from "./support/backends.ts";
import { gpuFor } from "./support/gpu.ts";
import { listKernelTests } from "./support/kernel-tests.ts";

const gpu = await gpuFor("kernels on WebGPU");
for (const backend of gpu ? [wasmBackend, webGpuBackend(gpu)] : [wasmBackend]) {
  const { tests, after } = listKernelTests(backend);
  for (const { name, run } of tests) test(name, run);
  test.after(after);
}

test.run();
