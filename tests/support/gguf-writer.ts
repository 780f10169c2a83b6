// Writes GGUF files in memory: metadata and tensors from raw bytes, sound by default, broken where a test asks for it.
// Imports nothing from src, so that reader and writer can only agree by both being right.

/** A typed value: ["u32", 5], ["string", "x"], ["string[]", ["a", "b"]], ["f32[]", [1, 2]], ["array[]", [["u8[]", [1]], …]]. */
export type Value = readonly [type: string, value: unknown];

export interface TensorToWrite {
  name: string;
  /** Name in TENSOR_TYPES, or the number to write. */
  type: string | number;
  /** Outermost dimension first. */
  shape: readonly number[];
  data: Uint8Array;
}

export interface FileToWrite {
  metadata: Record<string, Value> | readonly (readonly [string, Value])[];
  tensors?: readonly TensorToWrite[];
  version?: number; // 3
  alignment?: number; // 32; written as general.alignment where it differs
}

/** ggml's tensor types that tests write: number, elements and bytes a block. */
export const TENSOR_TYPES: Record<string, { id: number; blockElements: number; blockBytes: number }> = {
  F32: { id: 0, blockElements: 1, blockBytes: 4 },
  F16: { id: 1, blockElements: 1, blockBytes: 2 },
  Q4_0: { id: 2, blockElements: 32, blockBytes: 18 },
  Q4_1: { id: 3, blockElements: 32, blockBytes: 20 },
  Q5_0: { id: 6, blockElements: 32, blockBytes: 22 },
  Q5_1: { id: 7, blockElements: 32, blockBytes: 24 },
  Q8_0: { id: 8, blockElements: 32, blockBytes: 34 },
  Q2_K: { id: 10, blockElements: 256, blockBytes: 84 },
  Q4_K: { id: 12, blockElements: 256, blockBytes: 144 },
  Q5_K: { id: 13, blockElements: 256, blockBytes: 176 },
  Q6_K: { id: 14, blockElements: 256, blockBytes: 210 },
  BF16: { id: 30, blockElements: 1, blockBytes: 2 },
};

const VALUE_TYPES = ["u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"];

/** The bytes of a whole file. */
export function writeGguf(file: FileToWrite): Uint8Array {
  const { version = 3, alignment = 32, tensors = [] } = file;
  const entries = [...(Array.isArray(file.metadata) ? file.metadata : Object.entries(file.metadata))];
  if (alignment !== 32) entries.push(["general.alignment", ["u32", alignment]]);
  const out = new Writer();
  out.bytes(new TextEncoder().encode("GGUF"));
  out.scalar("u32", version);
  out.scalar("u64", tensors.length);
  out.scalar("u64", entries.length);
  for (const [key, [type, value]] of entries) {
    out.string(key);
    out.value(type, value);
  }
  let offset = 0;
  for (const { name, type, shape, data } of tensors) {
    out.string(name);
    out.scalar("u32", shape.length);
    for (const length of [...shape].reverse()) out.scalar("u64", length);
    out.scalar("u32", typeof type === "number" ? type : TENSOR_TYPES[type].id);
    out.scalar("u64", offset);
    offset = roundUp(offset + data.length, alignment);
  }
  for (const { data } of tensors) {
    out.padTo(alignment);
    out.bytes(data);
  }
  out.padTo(alignment);
  return out.done();
}

class Writer {
  private buffer = new Uint8Array(1 << 16);
  private length = 0;

  bytes(bytes: Uint8Array): void {
    const end = this.length + bytes.length;
    if (end > this.buffer.length) {
      const grown = new Uint8Array(Math.max(end, 2 * this.buffer.length));
      grown.set(this.buffer.subarray(0, this.length));
      this.buffer = grown;
    }
    this.buffer.set(bytes, this.length);
    this.length = end;
  }

  scalar(type: string, value: unknown): void {
    const view = new DataView(new ArrayBuffer(8));
    const size = writeScalar(view, type, value);
    this.bytes(new Uint8Array(view.buffer, 0, size));
  }

  string(text: unknown): void {
    const bytes = text instanceof Uint8Array ? text : new TextEncoder().encode(String(text));
    this.scalar("u64", bytes.length);
    this.bytes(bytes);
  }

  value(type: string, value: unknown): void {
    const isArray = type.endsWith("[]");
    this.scalar("u32", VALUE_TYPES.indexOf(isArray ? "array" : type));
    if (isArray) this.array(type.slice(0, -2), value as ArrayLike<unknown>);
    else if (type === "string") this.string(value);
    else this.scalar(type, value);
  }

  private array(type: string, values: ArrayLike<unknown>): void {
    this.scalar("u32", VALUE_TYPES.indexOf(type));
    this.scalar("u64", values.length);
    for (const value of Array.from(values)) {
      if (type === "string") this.string(value);
      else if (type === "array") {
        const [inner, elements] = value as Value;
        this.array(inner.slice(0, -2), elements as ArrayLike<unknown>);
      } else this.scalar(type, value);
    }
  }

  padTo(alignment: number): void {
    this.bytes(new Uint8Array(roundUp(this.length, alignment) - this.length));
  }

  done(): Uint8Array {
    return this.buffer.slice(0, this.length);
  }
}

/** Bytes written at 0. */
function writeScalar(view: DataView, type: string, value: unknown): number {
  const number = Number(value);
  switch (type) {
    case "u8":
    case "i8":
      view.setUint8(0, number);
      return 1;
    case "bool":
      view.setUint8(0, value === true ? 1 : number);
      return 1;
    case "u16":
    case "i16":
      view.setUint16(0, number, true);
      return 2;
    case "u32":
    case "i32":
      view.setUint32(0, number, true);
      return 4;
    case "f32":
      view.setFloat32(0, number, true);
      return 4;
    case "u64":
    case "i64":
      view.setBigUint64(0, BigInt.asUintN(64, BigInt(value as number | bigint)), true);
      return 8;
    case "f64":
      view.setFloat64(0, number, true);
      return 8;
    default:
      throw new Error(`no value type "${type}"`);
  }
}

const roundUp = (at: number, step: number) => Math.ceil(at / step) * step;
