// SmolLM2 in other weight types, for tests that compare a type with its own values in F32: what the files are called in the folder
// FURCATE_TESTMODELS, and a GGUF's copy in F32. Imports nothing from src.

import { TENSOR_TYPES } from "./gguf-writer.ts";
import { dequantise } from "./reference.ts";

/** Files in the folder FURCATE_TESTMODELS. F32 holds the very values of the Q4_1 file. */
export const REQUANTISED = {
  F32: "smol-F32.gguf",
  F16: "smol-F16.gguf",
  Q8_0: "smol-Q8_0.gguf",
  Q4_0: "smol-Q4_0.gguf",
  Q5_0: "smol-Q5_0.gguf",
};

/** The same model with every tensor in F32; metadata as they are. Trusts the file. */
export function asF32(file: Uint8Array): Uint8Array {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  let at = 8;
  const u64 = () => {
    at += 8;
    return Number(view.getBigUint64(at - 8, true));
  };
  const u32 = () => {
    at += 4;
    return view.getUint32(at - 4, true);
  };
  const skip = (type: number): void => {
    if (type === STRING) {
      const length = u64();
      at += length;
    } else if (type === ARRAY) {
      const of = u32();
      const count = u64();
      for (let i = 0; i < count; i++) skip(of);
    } else at += VALUE_BYTES[type];
  };
  const nTensors = u64();
  const nKeys = u64();
  for (let i = 0; i < nKeys; i++) {
    skip(STRING);
    skip(u32());
  }
  const infosAt = at;

  const tensors = Array.from({ length: nTensors }, () => {
    const begins = at;
    skip(STRING);
    const sizes = Array.from({ length: u32() }, u64);
    const typeAt = at;
    const type = typeName(u32());
    return { begins, typeAt, count: sizes.reduce((a, b) => a * b), type, offset: u64(), ends: at };
  });
  const dataAt = roundUp(at);
  const out = new Uint8Array(dataAt + tensors.reduce((sum, { count }) => sum + roundUp(4 * count), 0));
  out.set(file.subarray(0, infosAt));
  const info = new DataView(out.buffer);
  let offset = 0;
  for (const { begins, typeAt, count, type, offset: from, ends } of tensors) {
    out.set(file.subarray(begins, ends), begins);
    info.setUint32(typeAt, 0, true);
    info.setBigUint64(typeAt + 4, BigInt(offset), true);
    const values = new Float32Array(out.buffer, dataAt + offset, count);
    const { blockElements, blockBytes } = TENSOR_TYPES[type];
    // In pieces: as float64 the largest tensor would take hundreds of megabytes.
    const step = 4096 * blockElements;
    for (let first = 0; first < count; first += step) {
      const begin = dataAt + from + (first / blockElements) * blockBytes;
      values.set(dequantise(type, file.subarray(begin), Math.min(step, count - first)), first);
    }
    offset += roundUp(4 * count);
  }
  return out;
}

const STRING = 8;
const ARRAY = 9;
const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];

const roundUp = (bytes: number) => Math.ceil(bytes / 32) * 32;
const typeName = (id: number) => Object.keys(TENSOR_TYPES).find((name) => TENSOR_TYPES[name].id === id)!;
