// Kernels: the text of a shader with its head and constants -> a compiled pipeline, each once.
// Knows how shaders declare their bindings; nothing of what they compute or of buffers.

import { shaders } from "../../build/shaders.js";
import { fail } from "../errors.ts";

/** A shader's constants: the values of its overrides. */
export type Constants = Readonly<Record<string, number>>;

export interface KernelOptions {
  readonly constants?: Constants;
  /** Files of shaders/heads/ that take the place of the shader's own heads, in order; undefined leaves one as it is. */
  readonly heads?: readonly (string | undefined)[];
}

/** What tests fix: kernels for few or for many rows whatever their number; those of large models whatever its sizes; other shaders. */
export interface Trials {
  readonly kernelClass?: "few" | "many";
  readonly asLarge?: boolean;
  readonly texts?: Readonly<Record<string, string>>;
}

export interface Kernel {
  readonly name: string;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
  /** Its storage buffers' numbers, rising. */
  readonly bindings: readonly number[];
  /** Bind groups made so far, by their buffers one after another. */
  readonly groups: GroupsByBuffer;
}

export interface GroupsByBuffer {
  group?: GPUBindGroup;
  readonly next: WeakMap<GPUBuffer, GroupsByBuffer>;
}

export interface Kernels {
  /** Errors: `internal` where the device does not compile it. */
  get(name: string, options?: KernelOptions): Promise<Kernel>;
  /** Nothing where the device does not compile it: for variants. */
  tryGet(name: string, options?: KernelOptions): Promise<Kernel | undefined>;
  /** Compiled while what uses it waits on the device; if it is refused, so is that. */
  now(name: string, options?: KernelOptions): Kernel;
}

/** Bytes of the uniform `sizes` of a dispatch, at most. */
export const SIZES_BYTES = 256;
const COMPUTE = 4; // GPUShaderStage.COMPUTE; Node has no such global

/** texts: the shaders, by name; tests give broken ones. */
export function createKernels(device: GPUDevice, texts: Readonly<Record<string, string>> = shaders): Kernels {
  const compiled = compiledOn(device);
  /** Of each shader and heads: which of the device's codes they make. */
  const codes = new Map<string, number>();

  function describe(name: string, { constants = {}, heads }: KernelOptions) {
    const code = assemble(texts, name, heads);
    const module = device.createShaderModule({ code, label: name });
    const entries = entriesOf(code);
    const layout = device.createBindGroupLayout({ label: name, entries });
    const pipelineLayout = device.createPipelineLayout({ bindGroupLayouts: [layout] });
    const bindings = entries.slice(1).map(({ binding }) => binding);
    return {
      layout,
      bindings: bindings.sort((a, b) => a - b),
      label: [name, ...(heads ?? [])].filter(Boolean).join(" "),
      pipelineLayout,
      compute: { module, entryPoint: "main", constants },
    };
  }

  async function compile(name: string, options: KernelOptions): Promise<Kernel> {
    device.pushErrorScope("validation");
    const { layout, bindings, label, pipelineLayout, compute } = describe(name, options);
    const invalid = device.popErrorScope();
    const pipeline = device.createComputePipelineAsync({ label, layout: pipelineLayout, compute });
    pipeline.catch(() => {}); // heard below, after the scope's own error
    const error = await invalid;
    if (error) throw new Error(error.message);
    return { name, pipeline: await pipeline, layout, bindings, groups: { next: new WeakMap() } };
  }

  function keyOf(name: string, { heads, constants }: KernelOptions): string {
    const shader = JSON.stringify([name, heads]);
    const code = codes.get(shader) ?? numberOf(compiled.codes, assemble(texts, name, heads));
    codes.set(shader, code);
    return JSON.stringify([code, constants]);
  }

  function get(name: string, options: KernelOptions = {}): Promise<Kernel> {
    const key = keyOf(name, options);
    let kernel = compiled.promised.get(key);
    if (!kernel) {
      kernel = compile(name, options).catch((error) => {
        const swapped = options.heads?.filter(Boolean).join(", ");
        const what = swapped ? `${name} with head ${swapped}` : name;
        return fail("internal", `shader ${what} was refused: ${error.message}`, { cause: error });
      });
      compiled.promised.set(key, kernel);
    }
    return kernel;
  }
  function now(name: string, options: KernelOptions = {}): Kernel {
    const key = keyOf(name, options);
    let kernel = compiled.made.get(key);
    if (!kernel) {
      const { layout, bindings, label, pipelineLayout, compute } = describe(name, options);
      const pipeline = device.createComputePipeline({ label, layout: pipelineLayout, compute });
      kernel = { name, pipeline, layout, bindings, groups: { next: new WeakMap() } };
      compiled.made.set(key, kernel);
    }
    return kernel;
  }
  return { get, tryGet: (name, options) => get(name, options).catch(() => undefined), now };
}

/** Kernels of a device, by their code and constants: what shares a device compiles nothing twice, whatever texts it has. */
interface Compiled {
  /** Numbers of codes. */
  readonly codes: Map<string, number>;
  readonly promised: Map<string, Promise<Kernel>>;
  readonly made: Map<string, Kernel>;
}

/** Compiling takes longer than most models of a test. */
const devices = new WeakMap<GPUDevice, Compiled>();

function compiledOn(device: GPUDevice): Compiled {
  const compiled = devices.get(device) ?? { codes: new Map(), promised: new Map(), made: new Map() };
  devices.set(device, compiled);
  return compiled;
}

function numberOf(codes: Map<string, number>, code: string): number {
  const number = codes.get(code) ?? codes.size;
  codes.set(code, number);
  return number;
}

/** A shader's own head: the name of one of shaders/heads/, or what stands between two lines. */
const HEAD = /\/\/ head (\w+)\n|\/\/ head\n[\s\S]*?\/\/ end of head\n/g;

/** A shader's text with its heads, or others in their place. */
export function assemble(
  texts: Readonly<Record<string, string>>,
  name: string,
  heads: readonly (string | undefined)[] = [],
): string {
  const text = texts[name] ?? fail("internal", `there is no shader ${name}`);
  let place = 0;
  const replaced = text.replace(HEAD, (own, named?: string) => {
    const head = heads[place++] ?? named;
    return head === undefined ? own : `${texts[`heads/${head}`] ?? fail("internal", `there is no head ${head}`)}\n`;
  });
  if (place < heads.length)
    fail("internal", `shader ${name} has ${place} heads, but ${heads.length} are to be replaced`);
  // Directives come first in WGSL, wherever the head stands.
  const directives = replaced.match(DIRECTIVES) ?? [];
  return [...directives, replaced.replace(DIRECTIVES, "")].join("\n");
}
const DIRECTIVES = /^(enable|diagnostic\(|requires) ?.*;$/gm;

/** Binding 0 is the uniform of sizes; the others are storage buffers, as the text declares them. */
function entriesOf(code: string): GPUBindGroupLayoutEntry[] {
  const storage = [...code.matchAll(/@binding\((\d+)\)\s*var<storage(?:,\s*(read_write|read))?>/g)];
  return [
    {
      binding: 0,
      visibility: COMPUTE,
      buffer: { type: "uniform", hasDynamicOffset: true, minBindingSize: 0 },
    },
    ...storage.map(
      ([, binding, access]): GPUBindGroupLayoutEntry => ({
        binding: Number(binding),
        visibility: COMPUTE,
        buffer: { type: access === "read_write" ? "storage" : "read-only-storage" },
      }),
    ),
  ];
}
