// The GGUF reader: every value and tensor type, every refusal with its words, windows that grow, and another reader's verdict.

import { existsSync, readFileSync } from "node:fs";
import { GGMLQuantizationType, GGUF_QUANT_DESCRIPTIONS, gguf as otherReader } from "@huggingface/gguf";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { FurcateError } from "../src/errors.ts";
import { GGML_TYPES, type GgmlType, type Gguf, getCount, getString, readGguf } from "../src/formats/gguf.ts";
import { type ByteSource, openSource } from "../src/source.ts";
import { type FileToWrite, type TensorToWrite, type Value, writeGguf } from "./support/gguf-writer.ts";
import { CHAT_TEMPLATE, randomModel } from "./support/random-model.ts";

const read = async (bytes: Uint8Array) => readGguf(await openSource(bytes));
const write = (metadata: FileToWrite["metadata"], tensors: TensorToWrite[] = [], more: Partial<FileToWrite> = {}) =>
  writeGguf({ metadata, tensors, ...more });
const f32 = (name: string, shape: number[], fill = 0): TensorToWrite => ({
  name,
  type: "F32",
  shape,
  data: new Uint8Array(shape.reduce((a, b) => a * b, 4)).fill(fill),
});

/** The error of reading these bytes: its code must be `code`, its message must match. */
async function refused(bytes: Uint8Array, code: string, message: RegExp | string): Promise<void> {
  const error = await read(bytes).then(
    () => undefined,
    (error: unknown) => error,
  );
  assert.instance(error, FurcateError, `not refused; expected ${message}`);
  assert.is((error as FurcateError).code, code, (error as FurcateError).message);
  if (typeof message === "string") assert.is((error as FurcateError).message, message);
  else assert.match((error as FurcateError).message, message);
}

/** A copy with a field of 4 or 8 bytes overwritten. */
function patch(bytes: Uint8Array, at: number, value: number | bigint): Uint8Array {
  const copy = bytes.slice();
  const view = new DataView(copy.buffer);
  if (typeof value === "bigint") view.setBigUint64(at, value, true);
  else view.setUint32(at, value, true);
  return copy;
}

// ---------------------------------------------------------------------------------------------- what is read

test("every metadata type, alone and in arrays, in versions 2 and 3", async () => {
  const values: Record<string, [Value, unknown]> = {
    u8: [["u8", 200], 200],
    i8: [["i8", -100], -100],
    u16: [["u16", 65000], 65000],
    i16: [["i16", -30000], -30000],
    u32: [["u32", 4294967295], 4294967295],
    i32: [["i32", -2147483648], -2147483648],
    f32: [["f32", 0.5], 0.5],
    f64: [["f64", Math.PI], Math.PI],
    yes: [["bool", true], true],
    no: [["bool", false], false],
    text: [["string", "ünïcode \u{1f600} \ufeff"], "ünïcode \u{1f600} \ufeff"],
    empty: [["string", ""], ""],
    u64: [["u64", 2 ** 53 - 1], 2 ** 53 - 1],
    "u64 large": [["u64", 2n ** 64n - 1n], 2n ** 64n - 1n],
    i64: [["i64", -5], -5],
    "i64 large": [["i64", -(2n ** 63n)], -(2n ** 63n)],
    u8s: [["u8[]", [1, 255]], Uint8Array.of(1, 255)],
    i8s: [["i8[]", [-1, 127]], Int8Array.of(-1, 127)],
    u16s: [["u16[]", [1, 65535]], Uint16Array.of(1, 65535)],
    i16s: [["i16[]", [-1]], Int16Array.of(-1)],
    u32s: [["u32[]", [7, 4294967295, 1]], Uint32Array.of(7, 4294967295, 1)],
    i32s: [["i32[]", []], new Int32Array(0)],
    f32s: [["f32[]", [0.25, -1]], Float32Array.of(0.25, -1)],
    f64s: [["f64[]", [1e300]], Float64Array.of(1e300)],
    u64s: [["u64[]", [1, 2 ** 53 - 1]], Float64Array.of(1, 2 ** 53 - 1)],
    "u64s large": [["u64[]", [1n, 2n ** 60n]], BigUint64Array.of(1n, 2n ** 60n)],
    "i64s large": [["i64[]", [-1n, -(2n ** 60n)]], BigInt64Array.of(-1n, -(2n ** 60n))],
    bools: [
      ["bool[]", [true, false]],
      [true, false],
    ],
    strings: [
      ["string[]", ["a", "", "é\u{1f600}", "\ufeffb"]],
      ["a", "", "é\u{1f600}", "\ufeffb"],
    ],
    nested: [
      [
        "array[]",
        [
          ["u16[]", [1, 2]],
          ["string[]", ["x"]],
          ["array[]", [["u8[]", []]]],
        ],
      ],
      [Uint16Array.of(1, 2), ["x"], [new Uint8Array(0)]],
    ],
    none: [["array[]", []], []],
  };
  const entries = Object.entries(values).map(([key, [value]]) => [key, value] as const);
  for (const version of [2, 3]) {
    const { metadata, version: got, tensors } = await read(write(entries, [], { version }));
    assert.is(got, version);
    assert.is(tensors.size, 0);
    assert.equal([...metadata.keys()], Object.keys(values));
    for (const [key, [, want]] of Object.entries(values)) assert.equal(metadata.get(key), want, key);
  }
});

test("tensors: shapes outermost first, absolute offsets, file order, any alignment", async () => {
  const tensors = [f32("z", [3, 5], 1), f32("a", [7], 2), f32("cube", [2, 3, 4, 5], 3), f32("scalar", [], 4)];
  for (const alignment of [1, 8, 32, 64, 4096]) {
    const bytes = write({ "general.name": ["string", "x"] }, tensors, { alignment });
    const gguf = await read(bytes);
    assert.equal([...gguf.tensors.keys()], ["z", "a", "cube", "scalar"]);
    assert.is(gguf.dataOffset % alignment, 0);
    for (const { name, shape, data } of tensors) {
      const info = gguf.tensors.get(name)!;
      assert.equal(info.shape, shape);
      assert.is(info.type, "F32");
      assert.is(info.byteLength, data.length);
      assert.equal(bytes.slice(info.offset, info.offset + info.byteLength), data);
    }
  }
});

test("every tensor type is recognised with the block size that another reader gives it", async () => {
  for (const [name, { id, blockElements, blockBytes }] of Object.entries(GGML_TYPES)) {
    assert.is(GGMLQuantizationType[id], name);
    const gguf = await read(
      write({}, [{ name: "t", type: id, shape: [2, 3 * blockElements], data: new Uint8Array(6 * blockBytes) }]),
    );
    assert.equal(gguf.tensors.get("t"), {
      name: "t",
      type: name as GgmlType,
      shape: [2, 3 * blockElements],
      offset: gguf.dataOffset,
      byteLength: 6 * blockBytes,
    });
    if (blockElements > 1)
      await refused(
        write({}, [{ name: "t", type: id, shape: [2, blockElements + 1], data: new Uint8Array(6 * blockBytes) }]),
        "format",
        `GGUF: tensor "t" has rows of ${blockElements + 1} elements; expected a multiple of ${blockElements} for ${name}`,
      );
  }
  // All that the other reader knows, so that a type it gains is noticed here.
  for (const id of Object.keys(GGUF_QUANT_DESCRIPTIONS))
    assert.ok(
      Object.values(GGML_TYPES).some((type) => type.id === Number(id)),
      `type ${id}`,
    );
});

test("a header longer than the window is read on where it was cut, in few reads", async () => {
  // Strings of 0 to 3 letters of one to four bytes, one longer than a batch, over 6 MB in all.
  const letters = ["a", "é", "€", "\u{1f600}"];
  const strings = Array.from({ length: 500_000 }, (_, i) => letters[i & 3].repeat((i >> 2) & 3));
  strings[1234] = "Ġ".repeat(400_000);
  const numbers = Array.from({ length: 200_000 }, (_, i) => i * 7);
  const bytes = write(
    { "a.strings": ["string[]", strings], "a.numbers": ["u32[]", numbers], "a.last": ["string", "end"] },
    [f32("t", [4])],
  );
  const source = await openSource(bytes);
  const reads: number[] = [];
  const counting: ByteSource = {
    ...source,
    size: bytes.length,
    read: (offset, length, signal) => {
      assert.is(offset, 0);
      reads.push(length);
      return source.read(offset, length, signal);
    },
  };
  const gguf = await readGguf(counting);
  assert.equal(reads, [2 << 20, bytes.length]);
  const got = gguf.metadata.get("a.strings") as string[];
  assert.is(got.length, strings.length);
  assert.ok(got.every((text, i) => text === strings[i]));
  assert.ok(Array.from(gguf.metadata.get("a.numbers") as ArrayLike<number>).every((value, i) => value === numbers[i]));
  assert.is(getString(gguf.metadata, "a.last"), "end");
  assert.is(gguf.tensors.size, 1);
});

test("text that is not UTF-8: refused in names and lists, replaced in single values", async () => {
  const stray = Uint8Array.of(0x61, 0xff, 0x62);
  const gguf = await read(write({ "general.name": ["string", stray] }));
  assert.is(gguf.metadata.get("general.name"), "a\ufffdb");
  await refused(write({ k: ["string[]", ["x", stray]] }), "format", /metadata "k".* not valid UTF-8/);
  // The halves of a letter are no text, though joined they would be.
  const halves = [Uint8Array.of(0x78, 0xc3), Uint8Array.of(0xa9)];
  await refused(write({ k: ["string[]", halves] }), "format", /metadata "k", string 2, is not valid UTF-8/);
  await refused(write({ k: ["string[]", [halves[0], "x"]] }), "format", /metadata "k".* not valid UTF-8/);
  const key = write({ abc: ["u8", 1] });
  key[24 + 8] = 0xff;
  await refused(key, "format", /the name of metadata key 1 is not valid UTF-8/);
});

// ---------------------------------------------------------------------------------------------- what is refused

test("a file cut anywhere is refused, and the message says where", async () => {
  const bytes = write({ "general.name": ["string", "x"], "a.list": ["string[]", ["p", "q"]] }, [
    f32("first", [8]),
    f32("blk.3.ffn_up.weight", [2, 8]),
  ]);
  const { tensors } = await read(bytes);
  const last = tensors.get("blk.3.ffn_up.weight")!;
  const end = last.offset + last.byteLength;
  for (let length = 0; length < end; length++) await refused(bytes.slice(0, length), "format", /^GGUF: /);
  await read(bytes.slice(0, end));
  await refused(
    bytes.slice(0, end - 1),
    "format",
    `GGUF: tensor "blk.3.ffn_up.weight" ends at byte ${end}, but the file has ${end - 1}: it is cut off; download it again.`,
  );
  await refused(bytes.slice(0, 110), "format", /ends at byte .*, but the file has 110: it is cut off/);
});

test("what is no GGUF, or of another kind, is named", async () => {
  const text = (words: string) => new TextEncoder().encode(words);
  await refused(new Uint8Array(0), "format", /is empty/);
  await refused(text("PK\u0003\u0004 and so on"), "format", /begins with "PK.*"; expected "GGUF"/);
  await refused(text("<!DOCTYPE html><title>404"), "format", /is a web page/);
  await refused(text("version https://git-lfs.github.com/spec/v1\noid"), "format", /is a pointer of Git LFS/);
  const sound = write({ k: ["u8", 1] });
  await refused(patch(sound, 4, 1), "unsupported", "GGUF: got version 1; expected 2 or 3: convert the model again");
  await refused(patch(sound, 4, 4), "unsupported", /got version 4/);
  await refused(patch(sound, 4, 0x03000000), "unsupported", /big-endian/);
  await refused(patch(sound, 4, 0), "format", /got version 0/);
});

test("counts and lengths that the file cannot hold are refused before anything is made of them", async () => {
  const sound = write({ "a.key": ["string[]", ["abc"]] }, [f32("t", [4])]);
  const began = performance.now();
  for (const huge of [2n ** 24n, 2n ** 32n, 2n ** 53n, 2n ** 63n, 2n ** 64n - 1n]) {
    await refused(patch(sound, 8, huge), "format", /got .* tensors; a file of this size can hold/);
    await refused(patch(sound, 16, huge), "format", /got .* metadata keys; a file of this size can hold/);
    await refused(patch(sound, 24, huge), "format", /metadata key 1/); // the key's length
    await refused(patch(sound, 24 + 8 + 5 + 4 + 4, huge), "format", /metadata "a.key" ends at byte/); // the array's
    await refused(patch(sound, 24 + 8 + 5 + 4 + 4 + 8, huge), "format", /metadata "a.key" ends at byte/); // the string's
  }
  assert.ok(performance.now() - began < 2000);
  const dims = 24 + 8 + 5 + 4 + 4 + 8 + 8 + 3 + 8 + 1;
  await refused(patch(sound, dims, 5), "format", `GGUF: tensor "t" has 5 dimensions; expected at most 4`);
  await refused(patch(sound, dims + 4, 0n), "format", /tensor "t" has a dimension of 0/);
  await refused(patch(sound, dims + 4, 2n ** 60n), "format", /tensor "t" has a dimension of/);
  await refused(patch(sound, dims + 4, 2n ** 50n), "format", /tensor "t" ends at byte .*: it is cut off/);
  await refused(patch(sound, dims + 12, 4), "unsupported", /tensor "t" has the type number 4, which ggml has given up/);
  await refused(patch(sound, dims + 12, 99), "unsupported", /tensor "t" has the type number 99, which is not known/);
  await refused(patch(sound, dims + 16, 8n), "format", /begins at byte 8 of the data; expected a multiple of 32/);
  const wide: TensorToWrite = { name: "t", type: "F32", shape: [2 ** 30, 2 ** 30], data: new Uint8Array(64) };
  await refused(write({}, [wide]), "format", /fewer than 2⁵³ elements/);
});

test("duplicates, overlaps, odd alignments, deep nesting, truth values, value types", async () => {
  const a: Value = ["u8", 1];
  await refused(
    write([
      ["k", a],
      ["k", a],
    ]),
    "format",
    `GGUF: metadata "k" appears twice`,
  );
  await refused(write({}, [f32("t", [8]), f32("t", [8])]), "format", `GGUF: tensor "t" appears twice`);
  const two = write({}, [f32("t", [16]), f32("u", [8])]);
  const offsetOfU = 24 + (8 + 1 + 4 + 8 + 4 + 8) + 8 + 1 + 4 + 8 + 4;
  await refused(patch(two, offsetOfU, 32n), "format", /tensor "u" begins at byte .*, within "t"/);
  for (const alignment of [0, 3, 33, 48])
    await refused(write({ "general.alignment": ["u32", alignment] }), "format", /expected a power of two/);
  await refused(write({ "general.alignment": ["string", "32"] }), "format", /expected a power of two/);
  let nested: Value = ["u8[]", [1]];
  for (let i = 0; i < 6; i++) nested = ["array[]", [nested]];
  await refused(write({ k: nested }), "format", `GGUF: metadata "k" nests arrays deeper than 4`);
  await refused(write({ k: ["bool", 2] }), "format", `GGUF: metadata "k" has a truth value of 2; expected 0 or 1`);
  await refused(write({ k: ["bool[]", [1, 9]] }), "format", /truth value of 9/);
  await refused(patch(write({ k: a }), 24 + 9, 13), "format", `GGUF: metadata "k" has value type 13; expected 0 to 12`);
  await refused(patch(write({ k: ["u8[]", [1]] }), 24 + 13, 77), "format", /an array of value type 77/);
});

test("metadata by type: the value, the default, or what it is instead", async () => {
  const { metadata } = await read(
    write({
      count: ["u32", 7],
      real: ["f32", 0.5],
      negative: ["i32", -1],
      large: ["u64", 2n ** 63n],
      text: ["string", "x"],
      flag: ["bool", true],
      strings: ["string[]", ["a"]],
      numbers: ["i32[]", [1, 2]],
    }),
  );
  assert.is(getCount(metadata, "count"), 7);
  assert.is(getString(metadata, "text"), "x");
  assert.is(getCount(metadata, "missing", 3), 3);
  assert.is(getString(metadata, "missing", undefined), undefined);
  const wrong: [() => unknown, string][] = [
    [() => getCount(metadata, "missing"), 'metadata "missing" is missing; expected a whole number from 0 up'],
    [() => getCount(metadata, "real", 3), 'metadata "real" is 0.5; expected a whole number from 0 up'],
    [() => getCount(metadata, "negative"), 'metadata "negative" is -1; expected a whole number from 0 up'],
    [() => getCount(metadata, "large"), 'metadata "large" is 9223372036854775808; expected a whole number from 0 up'],
    [() => getCount(metadata, "text"), 'metadata "text" is the string "x"; expected a whole number from 0 up'],
    [() => getString(metadata, "flag"), 'metadata "flag" is true; expected a string'],
    [() => getString(metadata, "strings"), 'metadata "strings" is an array of 1 strings; expected a string'],
    [() => getString(metadata, "numbers"), 'metadata "numbers" is an array of 2 numbers; expected a string'],
  ];
  for (const [get, message] of wrong)
    assert.throws(get, (error: FurcateError) => error.code === "format" && error.message === `GGUF: ${message}`);
});

// ---------------------------------------------------------------------------------------------- another reader

/** Metadata and tensors as another reader has them must be ours. */
async function agree(bytes: Uint8Array, ours: Gguf): Promise<void> {
  const theirs = await otherReader("https://model.test/model.gguf", {
    fetch: async (_url: unknown, init?: RequestInit) => {
      const [, from, to] = /bytes=(\d+)-(\d+)/.exec(new Headers(init?.headers).get("range") ?? "")!;
      return new Response(bytes.slice(Number(from), Number(to) + 1), { status: 206 });
    },
  });
  const plain = (value: unknown): unknown => {
    if (typeof value === "bigint") return Number(value);
    if (Array.isArray(value) || ArrayBuffer.isView(value)) return Array.from(value as unknown as unknown[], plain);
    return value;
  };
  const { version, tensor_count, kv_count, ...metadata } = theirs.metadata as Record<string, unknown>;
  assert.is(ours.version, version);
  assert.is(ours.tensors.size, Number(tensor_count));
  assert.is(ours.metadata.size, Number(kv_count));
  assert.equal([...ours.metadata.keys()], Object.keys(metadata));
  for (const [key, value] of ours.metadata) assert.equal(plain(value), plain(metadata[key]), key);
  assert.is(ours.dataOffset, Number(theirs.tensorDataOffset));
  assert.equal(
    [...ours.tensors.values()].map(({ name, type, shape, offset }) => [name, GGML_TYPES[type].id, shape, offset]),
    theirs.tensorInfos.map(({ name, dtype, shape, offset }) => [
      name,
      dtype,
      shape.map(Number).reverse(),
      Number(offset) + ours.dataOffset,
    ]),
  );
}

test("another reader agrees on random models", async () => {
  for (const options of [{ type: "Q8_0" }, { tied: true, chatTemplate: CHAT_TEMPLATE, bias: true }]) {
    const bytes = randomModel(options);
    await agree(bytes, await read(bytes));
  }
});

const data = process.env.FURCATE_TESTDATA;
if (data === undefined || !existsSync(`${data}/golden/tiny`)) {
  console.log("skipped: GGUFs of other converters: FURCATE_TESTDATA is not set or has no golden/tiny");
} else {
  const files = ["llama-mha", "llama-gqa", "llama-mqa", "llama-rope-llama3", "qwen2", "qwen3", "gemma3", "phi3"].map(
    (model) => `${data}/golden/tiny/${model}/model-f32.gguf`,
  );
  files.push(`${data}/golden/tiny/llama-mha/model-f16.gguf`, `${data}/golden/tiny/llama-gqa/model-q8_0.gguf`);
  test(`another reader agrees on ${files.length} files of llama.cpp's converter`, async () => {
    for (const file of files) {
      const bytes = new Uint8Array(readFileSync(file));
      await agree(bytes, await read(bytes));
    }
  });
}

const large = `${data}/models/SmolLM2-135M-Instruct.Q4_1.gguf`;
if (data === undefined || !existsSync(large)) {
  console.log("skipped: the header of SmolLM2: FURCATE_TESTDATA is not set or has no models");
} else {
  test("the header of SmolLM2 is read at once, and another reader agrees", async () => {
    const source = await openSource(large);
    const began = performance.now();
    const gguf = await readGguf(source);
    const took = performance.now() - began;
    assert.is(gguf.tensors.size, 272);
    assert.is((gguf.metadata.get("tokenizer.ggml.tokens") as string[]).length, 49152);
    await agree(await source.read(0, 4 << 20), gguf);
    source.close();
    console.log(`\nmeasured: header of SmolLM2 (49,152 tokens, 48,900 merges) in ${took.toFixed(0)} ms`);
    assert.ok(took < 500);
  });
}

test.run();
