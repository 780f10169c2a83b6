// Reads the header of a GGUF file: metadata and where each tensor lies. Versions 2 and 3, little-endian.
// Every count, length and offset is held against the source's size before anything is allocated from it.
// Knows ggml's tensor types by name and size; knows nothing of what a model makes of keys and tensors.
// Facts: the GGUF specification in ggml's documentation, and the block sizes of ggml's structures.

import { FurcateError, fail } from "../errors.ts";
import type { ByteSource } from "../source.ts";

export interface Gguf {
  readonly version: number;
  readonly metadata: Metadata;
  /** By name, in the order of the file's list. */
  readonly tensors: ReadonlyMap<string, TensorInfo>;
  /** Byte of the file where tensor data begins. */
  readonly dataOffset: number;
}

export interface TensorInfo {
  readonly name: string;
  readonly type: GgmlType;
  /** Elements, outermost dimension first: (rows, cols) of a matrix, whose cols lie together. ggml lists them the other way round. */
  readonly shape: readonly number[];
  /** Byte of the file where the data begins. */
  readonly offset: number;
  readonly byteLength: number;
}

export type Metadata = ReadonlyMap<string, MetadataValue>;
/** Whole numbers of 64 bits are a number where it is exact, else a bigint. */
export type MetadataValue = number | bigint | boolean | string | MetadataArray;
/** Arrays of 64-bit whole numbers are a Float64Array where that is exact for all, else a BigInt64Array or BigUint64Array. */
export type MetadataArray = NumberArray | readonly string[] | readonly boolean[] | readonly MetadataArray[];
export type NumberArray =
  | Uint8Array
  | Int8Array
  | Uint16Array
  | Int16Array
  | Uint32Array
  | Int32Array
  | Float32Array
  | Float64Array
  | BigUint64Array
  | BigInt64Array;

export type GgmlType = keyof typeof GGML_TYPES;

/** All of ggml's tensor types: number in the file, elements a block, bytes a block. */
export const GGML_TYPES = {
  F32: { id: 0, blockElements: 1, blockBytes: 4 },
  F16: { id: 1, blockElements: 1, blockBytes: 2 },
  Q4_0: { id: 2, blockElements: 32, blockBytes: 18 },
  Q4_1: { id: 3, blockElements: 32, blockBytes: 20 },
  Q5_0: { id: 6, blockElements: 32, blockBytes: 22 },
  Q5_1: { id: 7, blockElements: 32, blockBytes: 24 },
  Q8_0: { id: 8, blockElements: 32, blockBytes: 34 },
  Q8_1: { id: 9, blockElements: 32, blockBytes: 36 },
  Q2_K: { id: 10, blockElements: 256, blockBytes: 84 },
  Q3_K: { id: 11, blockElements: 256, blockBytes: 110 },
  Q4_K: { id: 12, blockElements: 256, blockBytes: 144 },
  Q5_K: { id: 13, blockElements: 256, blockBytes: 176 },
  Q6_K: { id: 14, blockElements: 256, blockBytes: 210 },
  Q8_K: { id: 15, blockElements: 256, blockBytes: 292 },
  IQ2_XXS: { id: 16, blockElements: 256, blockBytes: 66 },
  IQ2_XS: { id: 17, blockElements: 256, blockBytes: 74 },
  IQ3_XXS: { id: 18, blockElements: 256, blockBytes: 98 },
  IQ1_S: { id: 19, blockElements: 256, blockBytes: 50 },
  IQ4_NL: { id: 20, blockElements: 32, blockBytes: 18 },
  IQ3_S: { id: 21, blockElements: 256, blockBytes: 110 },
  IQ2_S: { id: 22, blockElements: 256, blockBytes: 82 },
  IQ4_XS: { id: 23, blockElements: 256, blockBytes: 136 },
  I8: { id: 24, blockElements: 1, blockBytes: 1 },
  I16: { id: 25, blockElements: 1, blockBytes: 2 },
  I32: { id: 26, blockElements: 1, blockBytes: 4 },
  I64: { id: 27, blockElements: 1, blockBytes: 8 },
  F64: { id: 28, blockElements: 1, blockBytes: 8 },
  IQ1_M: { id: 29, blockElements: 256, blockBytes: 56 },
  BF16: { id: 30, blockElements: 1, blockBytes: 2 },
  TQ1_0: { id: 34, blockElements: 256, blockBytes: 54 },
  TQ2_0: { id: 35, blockElements: 256, blockBytes: 66 },
  MXFP4: { id: 39, blockElements: 32, blockBytes: 17 },
  NVFP4: { id: 40, blockElements: 64, blockBytes: 36 },
  Q1_0: { id: 41, blockElements: 128, blockBytes: 18 },
  Q2_0: { id: 42, blockElements: 64, blockBytes: 18 },
} as const;

/** Reads the header and nothing behind it. Errors: format, unsupported, and those of the source. */
export async function readGguf(source: ByteSource, options: { signal?: AbortSignal } = {}): Promise<Gguf> {
  const header = new Header(source);
  // The first window holds most headers; larger ones (vocabularies of 128 k tokens and more) grow it fourfold.
  for (let length = FIRST_WINDOW; ; ) {
    const window = await source.read(0, Math.min(length, source.size), options.signal);
    const needed = header.parse(window);
    if (needed === 0) return header;
    length = Math.min(Math.max(needed, 4 * length), MAX_HEADER);
  }
}

// ---------------------------------------------------------------------------------------------- metadata by type

/** A whole number from 0 up. Without `otherwise` the key must be there. */
export function getCount<T = never>(metadata: Metadata, key: string, ...otherwise: [T?]): number | T {
  return typed(
    metadata,
    key,
    "a whole number from 0 up",
    otherwise,
    (value): value is number => typeof value === "number" && Number.isSafeInteger(value) && value >= 0,
  );
}

export function getString<T = never>(metadata: Metadata, key: string, ...otherwise: [T?]): string | T {
  return typed(metadata, key, "a string", otherwise, (value) => typeof value === "string");
}

function typed<V extends MetadataValue, T>(
  metadata: Metadata,
  key: string,
  expected: string,
  otherwise: [T?],
  is: (value: MetadataValue) => value is V,
): V | T {
  const value = metadata.get(key);
  if (value === undefined) {
    if (otherwise.length > 0) return otherwise[0] as T;
    fail("format", `GGUF: metadata "${key}" is missing; expected ${expected}`);
  }
  if (!is(value)) fail("format", `GGUF: metadata "${key}" is ${describe(value)}; expected ${expected}`);
  return value;
}

function describe(value: MetadataValue): string {
  if (typeof value === "string") return `the string ${JSON.stringify(value.slice(0, 60))}`;
  if (typeof value !== "object") return `${value}`;
  const of = ArrayBuffer.isView(value) ? "numbers" : value.length === 0 ? "nothing" : `${typeof value[0]}s`;
  return `an array of ${value.length.toLocaleString("en")} ${of}`;
}

// ---------------------------------------------------------------------------------------------- the parser

/** Bytes of the header that are asked for first. */
const FIRST_WINDOW = 2 << 20;
// Far above what models have (a header of 280 k merges has 10 MB), far below what would hurt.
const MAX_HEADER = 256 << 20;
const MAX_KEY_BYTES = 0xffff;
const MAX_TENSOR_NAME_BYTES = 1024;
const MAX_DEPTH = 4;
const MAX_DIMS = 4;
// What one entry takes at least, bytes: of the key list, of the tensor list.
const MIN_KEY_BYTES = 8 + 4 + 1;
const MIN_TENSOR_BYTES = 8 + 4 + 4 + 8;

const enum Value {
  U8,
  I8,
  U16,
  I16,
  U32,
  I32,
  F32,
  Bool,
  String,
  Array,
  U64,
  I64,
  F64,
}

/** By Value: bytes an element takes at least. */
const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, 8, 12, 8, 8, 8];
const ARRAYS = {
  [Value.U8]: Uint8Array,
  [Value.I8]: Int8Array,
  [Value.U16]: Uint16Array,
  [Value.I16]: Int16Array,
  [Value.U32]: Uint32Array,
  [Value.I32]: Int32Array,
  [Value.F32]: Float32Array,
  [Value.F64]: Float64Array,
  [Value.U64]: BigUint64Array,
  [Value.I64]: BigInt64Array,
};

const typeOfId = new Map<number, GgmlType>(
  (Object.keys(GGML_TYPES) as GgmlType[]).map((name) => [GGML_TYPES[name].id, name]),
);
const REMOVED_TYPES = [4, 5, 31, 32, 33, 36, 37, 38];

/** Thrown where the window ends too early: the header reaches at least to this byte. */
class WindowEnds {
  readonly needed: number;
  constructor(needed: number) {
    this.needed = needed;
  }
}

/** A header being read. It goes on at the last whole entry when it is given a longer window. */
class Header implements Gguf {
  version = 0;
  readonly metadata = new Map<string, MetadataValue>();
  readonly tensors = new Map<string, TensorInfo>();
  dataOffset = 0;

  private readonly source: ByteSource;
  private window: Uint8Array = new Uint8Array(0);
  private view: DataView = new DataView(this.window.buffer);
  /** The next byte to read. */
  private at = 0;
  private begun = false;
  private nTensors = 0;
  private nKeys = 0;
  private batch: Uint8Array | undefined;

  constructor(source: ByteSource) {
    this.source = source;
  }

  /** Reads on in the file's first `window.length` bytes. 0: done; otherwise how long the window must be at least. */
  parse(window: Uint8Array): number {
    this.window = window;
    this.view = new DataView(window.buffer, window.byteOffset, window.byteLength);
    let entry = this.at;
    try {
      if (!this.begun) this.readStart();
      for (entry = this.at; this.metadata.size < this.nKeys; entry = this.at) this.readKey();
      for (; this.tensors.size < this.nTensors; entry = this.at) this.readTensor();
    } catch (error) {
      if (!(error instanceof WindowEnds)) throw error;
      this.at = this.begun ? entry : 0;
      return error.needed;
    }
    this.placeTensors();
    return 0;
  }

  private readStart(): void {
    const size = this.source.size;
    const { window } = this;
    if (size < 4 || window.length < 4 || this.view.getUint32(0, true) !== 0x46554747) this.refuseStart();
    this.need(24, "the header");
    const version = this.view.getUint32(4, true);
    if (version === 1 || version > 3) {
      if ((version & 0xffff) === 0)
        fail("unsupported", "GGUF: the file is big-endian; expected little-endian: convert it");
      fail("unsupported", `GGUF: got version ${version}; expected 2 or 3: convert the model again`);
    }
    if (version === 0) fail("format", "GGUF: got version 0; expected 2 or 3");
    this.version = version;
    this.nTensors = this.count(8, "tensors", MIN_TENSOR_BYTES);
    this.nKeys = this.count(16, "metadata keys", MIN_KEY_BYTES);
    this.at = 24;
    this.begun = true;
  }

  private refuseStart(): never {
    const { name, size } = this.source;
    const start = new TextDecoder().decode(this.window.slice(0, 64));
    if (size === 0) fail("format", `GGUF: ${name} is empty`);
    if (start.startsWith("version https://git-lfs"))
      fail("format", `GGUF: ${name} is a pointer of Git LFS, not the file itself; download the file it points to`);
    if (/^\s*<(!doctype|html|\?xml)/i.test(start))
      fail("format", `GGUF: ${name} is a web page, not a model; expected the address of the file itself`);
    const got = JSON.stringify(start.slice(0, 4));
    fail("format", `GGUF: ${name} begins with ${got}; expected "GGUF": it is no GGUF file`);
  }

  /** A count of entries of which each takes at least `bytes`. */
  private count(at: number, what: string, bytes: number): number {
    const n = this.view.getUint32(at, true) + this.view.getUint32(at + 4, true) * 0x1_0000_0000;
    const most = Math.floor((Math.min(this.source.size, MAX_HEADER) - 24) / bytes);
    if (n > most)
      fail(
        "format",
        `GGUF: got ${n.toLocaleString("en")} ${what}; a file of this size can hold ${most.toLocaleString("en")}: it is cut off or broken; download it again`,
      );
    return n;
  }

  private readKey(): void {
    const key = this.readName(MAX_KEY_BYTES, () => `the name of metadata key ${this.metadata.size + 1}`);
    if (this.metadata.has(key)) fail("format", `GGUF: metadata "${key}" appears twice`);
    const value = this.readValue(this.readU32(key), key, 0);
    if (key === "general.alignment" && !(isCount(value) && value > 0 && Number.isInteger(Math.log2(value))))
      fail("format", `GGUF: metadata "general.alignment" is ${describe(value)}; expected a power of two`);
    this.metadata.set(key, value);
  }

  private readValue(type: number, key: string, depth: number): MetadataValue {
    if (type > Value.F64) fail("format", `GGUF: metadata "${key}" has value type ${type}; expected 0 to 12`);
    const what = `metadata "${key}"`;
    const at = this.at;
    if (type === Value.String) return decodeLenient(this.readBytes(what, MAX_HEADER));
    if (type === Value.Array) return this.readArray(key, depth);
    this.need(VALUE_BYTES[type], what);
    this.at += VALUE_BYTES[type];
    const { view } = this;
    switch (type as Value) {
      case Value.U8:
        return view.getUint8(at);
      case Value.I8:
        return view.getInt8(at);
      case Value.U16:
        return view.getUint16(at, true);
      case Value.I16:
        return view.getInt16(at, true);
      case Value.U32:
        return view.getUint32(at, true);
      case Value.I32:
        return view.getInt32(at, true);
      case Value.F32:
        return view.getFloat32(at, true);
      case Value.F64:
        return view.getFloat64(at, true);
      case Value.U64:
        return exactNumber(view.getBigUint64(at, true));
      case Value.I64:
        return exactNumber(view.getBigInt64(at, true));
      default:
        return this.toBoolean(at, key);
    }
  }

  private readArray(key: string, depth: number): MetadataArray {
    const what = `metadata "${key}"`;
    if (depth >= MAX_DEPTH) fail("format", `GGUF: ${what} nests arrays deeper than ${MAX_DEPTH}`);
    const type = this.readU32(key);
    if (type > Value.F64) fail("format", `GGUF: ${what} is an array of value type ${type}; expected 0 to 12`);
    const count = this.readU64(what);
    // Also for what is not there yet: the count must fit the file before anything is made of that size.
    this.fits(count * VALUE_BYTES[type], what);
    if (type === Value.String) return this.readStrings(count, what);
    if (type === Value.Array) {
      const arrays: MetadataArray[] = [];
      for (let i = 0; i < count; i++) arrays.push(this.readArray(key, depth + 1));
      return arrays;
    }
    const bytes = count * VALUE_BYTES[type];
    this.need(bytes, what);
    const from = this.at;
    this.at += bytes;
    if (type === Value.Bool) return Array.from({ length: count }, (_, i) => this.toBoolean(from + i, key));
    // A copy: the window is let go, and its elements need not be aligned.
    const copy = new ArrayBuffer(bytes);
    new Uint8Array(copy).set(this.window.subarray(from, from + bytes));
    const array = new ARRAYS[type as keyof typeof ARRAYS](copy);
    return array instanceof BigInt64Array || array instanceof BigUint64Array ? exactNumbers(array) : array;
  }

  /** Decodes many strings at a time: one call of TextDecoder each would take most of the time of a load. */
  private readStrings(count: number, what: string): string[] {
    const strings: string[] = [];
    const lengths: number[] = []; // UTF-16 units of the strings that wait in the batch
    this.batch ??= new Uint8Array(STRING_BATCH);
    let batch = this.batch;
    let filled = 0;
    const flush = () => {
      const text = decodeStrict(
        batch.subarray(0, filled),
        () => `${what}, between strings ${strings.length + 1} and ${strings.length + lengths.length},`,
      );
      let from = 0;
      for (const length of lengths) {
        strings.push(text.slice(from, from + length));
        from += length;
      }
      lengths.length = 0;
      filled = 0;
    };
    const { window, view } = this;
    const end = window.length;
    let at = this.at;
    for (let i = 0; i < count; i++) {
      if (at + 8 > end) this.need(at + 8 - this.at, what);
      const length = view.getUint32(at, true) + view.getUint32(at + 4, true) * 0x1_0000_0000;
      at += 8;
      if (at + length > end) this.need(at + length - this.at, what);
      if (filled + length > batch.length) {
        flush();
        if (length > batch.length) batch = new Uint8Array(length);
      }
      if (length > 0 && (window[at] & 0xc0) === 0x80)
        fail("format", `GGUF: ${what}, string ${i + 1}, is not valid UTF-8`);
      let units = 0;
      for (const stop = at + length; at < stop; at++) {
        const byte = window[at];
        batch[filled++] = byte;
        // Each character counts at its first byte; four bytes make two UTF-16 units.
        if ((byte & 0xc0) !== 0x80) units += byte >= 0xf0 ? 2 : 1;
      }
      lengths.push(units);
    }
    flush();
    this.at = at;
    return strings;
  }

  private toBoolean(at: number, key: string): boolean {
    const byte = this.window[at];
    if (byte > 1) fail("format", `GGUF: metadata "${key}" has a truth value of ${byte}; expected 0 or 1`);
    return byte === 1;
  }

  private readTensor(): void {
    const name = this.readName(MAX_TENSOR_NAME_BYTES, () => `the name of tensor ${this.tensors.size + 1}`);
    const what = `tensor "${name}"`;
    if (this.tensors.has(name)) fail("format", `GGUF: ${what} appears twice`);
    const nDims = this.readU32(what);
    if (nDims > MAX_DIMS)
      fail("format", `GGUF: ${what} has ${nDims.toLocaleString("en")} dimensions; expected at most ${MAX_DIMS}`);
    const shape: number[] = [];
    let elements = 1;
    for (let i = 0; i < nDims; i++) {
      const length = this.readU64(what);
      elements *= length;
      if (length === 0 || elements > Number.MAX_SAFE_INTEGER)
        fail(
          "format",
          `GGUF: ${what} has a dimension of ${length.toLocaleString("en")}; expected at least 1, and fewer than 2⁵³ elements in all`,
        );
      shape.unshift(length);
    }
    const id = this.readU32(what);
    const type = typeOfId.get(id);
    if (!type) {
      const why = REMOVED_TYPES.includes(id)
        ? "which ggml has given up: convert the model again"
        : "which is not known";
      fail("unsupported", `GGUF: ${what} has the type number ${id}, ${why}`);
    }
    const { blockElements, blockBytes } = GGML_TYPES[type];
    const cols = shape.at(-1) ?? 1;
    if (cols % blockElements !== 0)
      fail(
        "format",
        `GGUF: ${what} has rows of ${cols.toLocaleString("en")} elements; expected a multiple of ${blockElements} for ${type}`,
      );
    const offset = this.readU64(what);
    const byteLength = (elements / blockElements) * blockBytes;
    this.tensors.set(name, { name, type, shape, offset, byteLength });
  }

  /** Turns offsets within the data into offsets within the file, and holds them against its size and each other. */
  private placeTensors(): void {
    const alignment = getCount(this.metadata, "general.alignment", 32);
    const { size } = this.source;
    this.dataOffset = Math.ceil(this.at / alignment) * alignment;
    for (const tensor of this.tensors.values()) {
      const what = `GGUF: tensor "${tensor.name}"`;
      if (tensor.offset % alignment !== 0)
        fail(
          "format",
          `${what} begins at byte ${tensor.offset.toLocaleString("en")} of the data; expected a multiple of ${alignment}`,
        );
      const offset = this.dataOffset + tensor.offset;
      const end = offset + tensor.byteLength;
      if (end > size)
        fail(
          "format",
          `${what} ends at byte ${end.toLocaleString("en")}, but the file has ${size.toLocaleString("en")}: it is cut off; download it again.`,
        );
      if (end > Number.MAX_SAFE_INTEGER)
        fail("format", `${what} ends at byte ${end.toLocaleString("en")}; no file is that long`);
      this.tensors.set(tensor.name, { ...tensor, offset });
    }
    let before: TensorInfo | undefined;
    for (const tensor of [...this.tensors.values()].sort((a, b) => a.offset - b.offset)) {
      if (before && before.offset + before.byteLength > tensor.offset)
        fail(
          "format",
          `GGUF: tensor "${tensor.name}" begins at byte ${tensor.offset.toLocaleString("en")}, within "${before.name}"`,
        );
      before = tensor;
    }
  }

  private readU32(what: string): number {
    this.need(4, what);
    this.at += 4;
    return this.view.getUint32(this.at - 4, true);
  }

  /** A 64-bit count; inexact beyond 2⁵³, which no limit lets through. */
  private readU64(what: string): number {
    this.need(8, what);
    this.at += 8;
    return this.view.getUint32(this.at - 8, true) + this.view.getUint32(this.at - 4, true) * 0x1_0000_0000;
  }

  private readBytes(what: string, most: number): Uint8Array {
    const length = this.readU64(what);
    if (length > most)
      fail(
        "format",
        `GGUF: ${what} has ${length.toLocaleString("en")} bytes; expected at most ${most.toLocaleString("en")}`,
      );
    this.need(length, what);
    this.at += length;
    return this.window.slice(this.at - length, this.at);
  }

  private readName(most: number, what: () => string): string {
    return decodeStrict(this.readBytes(what(), most), what);
  }

  /** Makes sure of `bytes` more bytes in the window. */
  private need(bytes: number, what: string): void {
    if (this.at + bytes <= this.window.length) return;
    this.fits(bytes, what);
    throw new WindowEnds(this.at + bytes);
  }

  /** Makes sure that the file can have `bytes` more bytes. */
  private fits(bytes: number, what: string): void {
    const end = this.at + bytes;
    const { size } = this.source;
    if (end > size)
      fail(
        "format",
        `GGUF: ${what} ends at byte ${end.toLocaleString("en")}, but the file has ${size.toLocaleString("en")}: it is cut off or broken; download it again`,
      );
    if (end > MAX_HEADER)
      fail(
        "format",
        `GGUF: ${what} ends at byte ${end.toLocaleString("en")}; expected a header of at most ${MAX_HEADER.toLocaleString("en")} bytes`,
      );
  }
}

// ---------------------------------------------------------------------------------------------- text and numbers

/** Bytes of strings that are decoded in one go. */
const STRING_BATCH = 1 << 18;

// A leading U+FEFF is part of a string, not a mark to drop.
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const lenient = new TextDecoder("utf-8", { ignoreBOM: true });

/** Names and arrays (vocabularies, merges): a letter replaced in silence could make two entries one. */
function decodeStrict(bytes: Uint8Array, what: () => string): string {
  try {
    return strict.decode(bytes);
  } catch (cause) {
    throw new FurcateError("format", `GGUF: ${what()} is not valid UTF-8`, { cause });
  }
}

/** Single strings (descriptions, templates): a stray byte becomes U+FFFD and does not keep a model from running. */
const decodeLenient = (bytes: Uint8Array) => lenient.decode(bytes);

const isCount = (value: MetadataValue): value is number => typeof value === "number" && Number.isSafeInteger(value);

function exactNumber(value: bigint): number | bigint {
  const number = Number(value);
  return Number.isSafeInteger(number) ? number : value;
}

function exactNumbers(values: BigInt64Array | BigUint64Array): NumberArray {
  const numbers = new Float64Array(values.length);
  for (let i = 0; i < values.length; i++) {
    numbers[i] = Number(values[i]);
    if (!Number.isSafeInteger(numbers[i])) return values;
  }
  return numbers;
}
