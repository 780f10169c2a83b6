// What this process holds after a garbage collection. Knows nothing of what tests do in between.

import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

setFlagsFromString("--expose-gc");
/** Collects garbage now. */
export const collect = runInNewContext("gc") as () => void;

/** Bytes held after a collection: objects, buffers and WebAssembly memories. */
export async function held(): Promise<number> {
  // What await holds is free in the next task, what the first round frees lets go of buffers in the second.
  for (let round = 0; round < 3; round++) {
    await new Promise((done) => setTimeout(done, 20));
    collect();
  }
  const { heapUsed, external } = process.memoryUsage();
  return heapUsed + external;
}
