// Instantiates text.wasm and cpu.wasm, from the inlined bytes or from given modules; fresh typed views over their memories.
// The only file that uses WebAssembly. Knows nothing of what the modules compute.

import { instantiate as instantiateCpu } from "../build/cpu.js";
import { cpu, text } from "../build/modules.js";
import { instantiate as instantiateText } from "../build/text.js";
import { fail, show } from "./errors.ts";

export type TextModule = Awaited<ReturnType<typeof instantiateText>>;
export type CpuModule = Awaited<ReturnType<typeof instantiateCpu>>;

/** WebAssembly.Module, where the user's types know it. */
type WasmModule = typeof globalThis extends { WebAssembly: { Module: { prototype: infer Module } } } ? Module : object;
/** Compiled modules, for runtimes that refuse to compile bytes (edge workers). */
export interface CompiledModules {
  text: WasmModule;
  cpu: WasmModule;
}

/** Refuses what are no compiled modules. Errors: `option`. */
export function checkModules(compiled: CompiledModules): void {
  for (const name of ["text", "cpu"] as const) {
    const module = compiled?.[name];
    if (Object.prototype.toString.call(module) !== "[object WebAssembly.Module]")
      fail("option", `wasm.${name} is ${show(module)}, expected a WebAssembly.Module`);
  }
}

/** A new instance of text.wasm with a memory of its own. Errors: `unsupported` where bytes may not be compiled. */
export async function newTextModule(compiled?: CompiledModules): Promise<TextModule> {
  return instantiateText(compiled?.text ?? (await compile("text")), {});
}

/** A new instance of cpu.wasm with a memory of its own. Errors: as above. */
export async function newCpuModule(compiled?: CompiledModules): Promise<CpuModule> {
  return instantiateCpu(compiled?.cpu ?? (await compile("cpu")), {});
}

const compiling = new Map<keyof CompiledModules, Promise<WebAssembly.Module>>();

/** Compiles an inlined module, once for all instances. */
function compile(name: keyof CompiledModules): Promise<WebAssembly.Module> {
  let module = compiling.get(name);
  if (!module) {
    module = unpack({ text, cpu }[name])
      .then((bytes) => WebAssembly.compile(bytes))
      .catch((cause: Error) =>
        fail(
          "unsupported",
          `WebAssembly is not compiled here (${cause.message}): a page's Content-Security-Policy needs 'wasm-unsafe-eval'; ` +
            "where only modules compiled beforehand may run (edge workers), give them as the option wasm",
          { cause },
        ),
      );
    module.catch(() => compiling.delete(name));
    compiling.set(name, module);
  }
  return module;
}

async function unpack(base64: string): Promise<ArrayBuffer> {
  const deflated = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  return new Response(new Blob([deflated]).stream().pipeThrough(new DecompressionStream("deflate"))).arrayBuffer();
}

/** What both modules have: a memory and its arena. */
interface Arena {
  readonly memory: WebAssembly.Memory;
  alloc(bytes: number): number;
  mark(): number;
  release(at: number): void;
}

/** `bytes` bytes of the module's memory for good; a typed error where the memory cannot grow that far. */
export function allocate(module: Arena, bytes: number, what: string): number {
  const at = bytes <= 0xffff_ffff ? module.alloc(bytes) : 0;
  if (at === 0)
    fail("memory", `${what}: ${bytes.toLocaleString("en")} bytes do not fit in WebAssembly memory (4 GiB in all)`);
  return at;
}

// Views are made at use and never kept: growing the memory detaches them.
export const u8 = (module: Arena, at: number, length: number) => new Uint8Array(module.memory.buffer, at, length);
export const u32 = (module: Arena, at: number, length: number) => new Uint32Array(module.memory.buffer, at, length);
export const f32 = (module: Arena, at: number, length: number) => new Float32Array(module.memory.buffer, at, length);
export const f64 = (module: Arena, at: number, length: number) => new Float64Array(module.memory.buffer, at, length);
