// Breaks a sound GGUF in seeded, reproducible ways, aimed at what a reader trusts: counts, lengths, types, offsets, text.
// Knows where these lie in the file; imports nothing from src.

import type { Random } from "./random.ts";

export interface Mutant {
  bytes: Uint8Array;
  /** What was done, for a test's message. */
  what: string;
}

/** Where something that a reader trusts lies: `size` bytes at `at`. */
export interface Field {
  kind: "count" | "length" | "type" | "value" | "dimension" | "offset" | "text";
  at: number;
  size: number;
}

/** A broken copy of `file`, whose fields `fieldsOf` has found. The same random state gives the same mutant. */
export function mutate(file: Uint8Array, fields: readonly Field[], random: Random): Mutant {
  const rounds = random.next() < 0.8 ? 1 : 1 + random.below(4);
  let bytes = file;
  const done: string[] = [];
  for (let i = 0; i < rounds; i++) {
    const mutant = random.pick(MUTATIONS)(bytes, fields, random);
    bytes = mutant.bytes;
    done.push(mutant.what);
  }
  return { bytes, what: done.join(", then ") };
}

type Mutation = (file: Uint8Array, fields: readonly Field[], random: Random) => Mutant;

/** A place: mostly where fields are, now and then anywhere. */
function somewhere(file: Uint8Array, fields: readonly Field[], random: Random): number {
  const last = fields.at(-1)!;
  const end = random.next() < 0.9 ? Math.min(last.at + last.size, file.length) : file.length;
  return random.below(Math.max(end, 1));
}

const flipBits: Mutation = (file, fields, random) => {
  const bytes = file.slice();
  const places = Array.from({ length: 1 + random.below(8) }, () => somewhere(file, fields, random));
  for (const at of places) bytes[at] ^= 1 << random.below(8);
  return { bytes, what: `bits flipped in bytes ${places.join(" ")}` };
};

const truncate: Mutation = (file, fields, random) => {
  const at = somewhere(file, fields, random);
  return { bytes: file.slice(0, at), what: `cut at ${at}` };
};

const insert: Mutation = (file, fields, random) => {
  const at = somewhere(file, fields, random);
  const added = Uint8Array.from({ length: 1 + random.below(40) }, () => random.below(256));
  return { bytes: splice(file, at, 0, added), what: `${added.length} bytes inserted at ${at}` };
};

const remove: Mutation = (file, fields, random) => {
  const at = somewhere(file, fields, random);
  const count = 1 + random.below(40);
  return { bytes: splice(file, at, count, new Uint8Array(0)), what: `${count} bytes removed at ${at}` };
};

const repeat: Mutation = (file, fields, random) => {
  const at = somewhere(file, fields, random);
  const copied = file.slice(at, at + 1 + random.below(200));
  const to = somewhere(file, fields, random);
  return { bytes: splice(file, to, 0, copied), what: `${copied.length} bytes of ${at} repeated at ${to}` };
};

const EXTREMES = [0n, 1n, 2n, 0x7fn, 0xffn, 0xffffn, 0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn];
const EXTREMES64 = [1n << 32n, 1n << 40n, (1n << 53n) - 1n, 1n << 53n, (1n << 63n) - 1n, 1n << 63n, (1n << 64n) - 1n];

/** Counts, lengths, dimensions and offsets at the edges of what fits, or just beside the truth. */
const extreme: Mutation = (file, fields, random) => {
  const field = random.pick(fields.filter(({ kind }) => ["count", "length", "dimension", "offset"].includes(kind)));
  const bytes = file.slice();
  if (field.at + field.size > bytes.length) return { bytes, what: "nothing" };
  const view = new DataView(bytes.buffer);
  const before = field.size === 8 ? view.getBigUint64(field.at, true) : BigInt(view.getUint32(field.at, true));
  const near = [before + 1n, before - 1n, before * 2n, BigInt(file.length), BigInt(file.length - field.at)];
  const value = random.pick([...EXTREMES, ...(field.size === 8 ? EXTREMES64 : []), ...near]);
  if (field.size === 8) view.setBigUint64(field.at, BigInt.asUintN(64, value), true);
  else view.setUint32(field.at, Number(BigInt.asUintN(32, value)), true);
  return { bytes, what: `${field.kind} at ${field.at} from ${before} to ${value}` };
};

const retype: Mutation = (file, fields, random) => {
  const field = random.pick(fields.filter(({ kind }) => kind === "type"));
  const bytes = file.slice();
  const type = random.next() < 0.8 ? random.below(45) : random.pick([255, 0xffff, 0x7fffffff, 0xffffffff]);
  if (field.at + 4 <= bytes.length) new DataView(bytes.buffer).setUint32(field.at, type, true);
  return { bytes, what: `type at ${field.at} to ${type}` };
};

/** A metadata value: all zeros, all ones, or random. */
const revalue: Mutation = (file, fields, random) => {
  const field = random.pick(fields.filter(({ kind }) => kind === "value"));
  const fill = random.pick([() => 0, () => 0xff, () => 0x7f, () => random.below(256)]);
  const bytes = file.slice();
  for (let i = field.at; i < Math.min(field.at + field.size, bytes.length); i++) bytes[i] = fill();
  return { bytes, what: `value at ${field.at} overwritten` };
};

const rewrite: Mutation = (file, fields, random) => {
  const field = random.pick(fields.filter(({ kind, size }) => kind === "text" && size > 0));
  const bytes = file.slice();
  const letters = random.pick([
    [0x80],
    [0xff],
    [0xc3],
    [0xed, 0xa0, 0x80],
    [0xf4, 0x90, 0x80, 0x80],
    [0],
    [0x22, 0x0a],
  ]);
  for (let i = 0; i < Math.min(letters.length, field.size); i++) bytes[field.at + i] = letters[i];
  return { bytes: bytes.slice(0, file.length), what: `text at ${field.at} begins with ${letters.join(" ")}` };
};

/** Two texts change places, each with its length. */
const swap: Mutation = (file, fields, random) => {
  const texts = fields.filter(({ kind, at, size }) => kind === "text" && at + size <= file.length);
  if (texts.length < 2) return { bytes: file, what: "nothing" };
  const [a, b] = [random.pick(texts), random.pick(texts)].sort((x, y) => x.at - y.at);
  if (a === b) return { bytes: file, what: "nothing" };
  const of = (text: Field) => file.slice(text.at - 8, text.at + text.size);
  const bytes = splice(splice(file, b.at - 8, b.size + 8, of(a)), a.at - 8, a.size + 8, of(b));
  return { bytes, what: `texts at ${a.at} and ${b.at} swapped` };
};

const MUTATIONS = [flipBits, truncate, insert, remove, repeat, extreme, extreme, retype, revalue, rewrite, swap];

function splice(file: Uint8Array, at: number, removed: number, added: Uint8Array): Uint8Array {
  const rest = file.subarray(Math.min(at + removed, file.length));
  const out = new Uint8Array(at + added.length + rest.length);
  out.set(file.subarray(0, at));
  out.set(added, at);
  out.set(rest, at + added.length);
  return out;
}

/** All that a reader trusts in a sound file, in order; of long arrays of strings every tenth string. */
export function fieldsOf(file: Uint8Array): Field[] {
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const fields: Field[] = [];
  let at = 8;
  const take = (kind: Field["kind"], size: number, keep = true) => {
    if (keep) fields.push({ kind, at, size });
    at += size;
    return size === 8 ? Number(view.getBigUint64(at - 8, true)) : size === 4 ? view.getUint32(at - 4, true) : 0;
  };
  const text = (keep = true) => take("text", take("length", 8, keep), keep);
  const value = (type: number, keep = true): void => {
    if (type === 8) text(keep);
    else if (type === 9) {
      const of = take("type", 4);
      const count = take("count", 8);
      for (let i = 0; i < count; i++) value(of, count < 20 || i % 10 === 0);
    } else take("value", VALUE_BYTES[type], keep);
  };
  fields.push({ kind: "count", at: 4, size: 4 }); // the version
  const nTensors = take("count", 8);
  const nKeys = take("count", 8);
  for (let i = 0; i < nKeys; i++) {
    text();
    value(take("type", 4));
  }
  for (let i = 0; i < nTensors; i++) {
    text();
    const nDims = take("count", 4);
    for (let d = 0; d < nDims; d++) take("dimension", 8);
    take("type", 4);
    take("offset", 8);
  }
  return fields;
}

const VALUE_BYTES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
