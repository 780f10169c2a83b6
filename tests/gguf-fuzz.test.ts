// Broken GGUFs, 2,500 by default, FURCATE_FUZZ=10000 for more: each is read, or refused by a typed error; none hangs or
// leaves memory behind, and none makes the reader take memory that the file could not fill.

import { test } from "uvu";
import * as assert from "uvu/assert";
import { FurcateError } from "../src/errors.ts";
import { type Gguf, readGguf } from "../src/formats/gguf.ts";
import { type ByteSource, openSource } from "../src/source.ts";
import { held } from "./support/memory.ts";
import { fieldsOf, type Mutant, mutate } from "./support/mutate.ts";
import { newRandom } from "./support/random.ts";
import { CHAT_TEMPLATE, randomModel } from "./support/random-model.ts";

const CASES = Number(process.env.FURCATE_FUZZ ?? 2500);
/** Most a case may take; the slowest takes some milliseconds, the rest is room for a busy machine. */
const CASE_MS = 1000;
const MIB = 1 << 20;

const file = randomModel({ dim: 32, hiddenDim: 32, nLayers: 2, nHeads: 2, type: "Q8_0", chatTemplate: CHAT_TEMPLATE });
const fields = fieldsOf(file);

test(`${CASES.toLocaleString("en")} mutants: sound, or a typed error, in bounded time and memory`, async () => {
  const outcomes = new Map<string, number>();
  let slowest = 0;
  let before = 0;
  let largest = 0;
  for (let i = 0; i < CASES; i++) {
    // The first fifth warms caches and compiled code up.
    if (i === Math.floor(CASES / 5)) before = await held();
    const mutant = mutate(file, fields, newRandom(i));
    const began = performance.now();
    const outcome = await read(mutant, i);
    slowest = Math.max(slowest, performance.now() - began);
    assert.ok(performance.now() - began < CASE_MS, `case ${i} took too long: ${mutant.what}`);
    outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
    if (i % 64 === 0) largest = Math.max(largest, process.memoryUsage().arrayBuffers);
  }
  const grown = (await held()) - before;
  assert.ok(grown < 4 * MIB, `memory grew by ${grown} bytes`);
  assert.ok(largest < 256 * MIB, `buffers took ${largest} bytes`);
  // A mutator that breaks nothing, or all, would test nothing.
  assert.ok((outcomes.get("read") ?? 0) > CASES / 50 && (outcomes.get("format") ?? 0) > CASES / 4);
  const list = [...outcomes].map(([outcome, count]) => `${count} ${outcome}`).join(", ");
  console.log(
    `\nmeasured: ${CASES} broken GGUFs: ${list}; slowest ${slowest.toFixed(1)} ms, memory grew by ${(grown / MIB).toFixed(2)} MiB`,
  );
});

/** Reads a mutant, every third through a source that does not tell its size; the error's code, or "read". */
async function read({ bytes, what }: Mutant, i: number): Promise<string> {
  const source = await openSource(bytes);
  try {
    check(await readGguf(i % 3 === 0 ? sizeless(source) : source), bytes);
    return "read";
  } catch (error) {
    if (error instanceof FurcateError) {
      assert.ok(error.message.length < 1000, error.message);
      return error.code;
    }
    throw new Error(`case ${i} (${what}) ended in something else than a FurcateError`, { cause: error });
  }
}

/** What a caller may rely on. */
function check(gguf: Gguf, bytes: Uint8Array): void {
  let end = gguf.dataOffset;
  for (const tensor of [...gguf.tensors.values()].sort((a, b) => a.offset - b.offset)) {
    assert.ok(tensor.offset >= end, `${tensor.name} overlaps`);
    end = tensor.offset + tensor.byteLength;
    assert.ok(tensor.shape.length <= 4 && tensor.shape.every((length) => Number.isSafeInteger(length) && length > 0));
    assert.ok(Number.isSafeInteger(end) && (end <= bytes.length || bytes.length === 0), `${tensor.name} ends outside`);
  }
}

/** The same bytes from a server that has not said how many there are. It knows once it has given the last. */
function sizeless(source: ByteSource): ByteSource {
  let size = Infinity;
  return {
    ...source,
    get size() {
      return size;
    },
    async read(offset, length, signal) {
      if (offset + length >= source.size) size = source.size;
      return source.read(offset, Math.min(length, source.size - offset), signal);
    },
  };
}

test.run();
