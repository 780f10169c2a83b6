// Kernels: the text of a shader with its head and constants -> a compiled pipeline, each once.
// Knows how shaders declare their bindings; nothing of what they compute or of buffers.

import { shaders } from "../../build/shaders.js";
import { fail } from "../errors.ts";

/** A shader's constants: the values of its overrides. */
export type Constants = Readonly<Record<string, number>>;

export interface KernelOptions {
  readonly constants?: Constants;
  /** The file of shaders/heads/ that takes the place of the shader's own head. */
  readonly head?: string;
}

export interface Kernel {
  readonly name: string;
  readonly pipeline: GPUComputePipeline;
  readonly layout: GPUBindGroupLayout;
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
}

/** Bytes of the uniform `sizes` of a dispatch, at most. */
export const SIZES_BYTES = 256;
const COMPUTE = 4; // GPUShaderStage.COMPUTE; Node has no such global

/** texts: the shaders, by name; tests give broken ones. */
export function createKernels(device: GPUDevice, texts: Readonly<Record<string, string>> = shaders): Kernels {
  const compiled = compiledOn(device, texts);

  async function compile(name: string, { constants = {}, head }: KernelOptions): Promise<Kernel> {
    const code = assemble(texts, name, head);
    device.pushErrorScope("validation");
    const module = device.createShaderModule({ code, label: name });
    const layout = device.createBindGroupLayout({ label: name, entries: entriesOf(code) });
    const pipelineLayout = device.createPipelineLayout({ bindGroupLayouts: [layout] });
    const invalid = device.popErrorScope();
    const pipeline = device.createComputePipelineAsync({
      label: name,
      layout: pipelineLayout,
      compute: { module, entryPoint: "main", constants },
    });
    pipeline.catch(() => {}); // heard below, after the scope's own error
    const error = await invalid;
    if (error) throw new Error(error.message);
    return { name, pipeline: await pipeline, layout, groups: { next: new WeakMap() } };
  }

  function get(name: string, options: KernelOptions = {}): Promise<Kernel> {
    const key = JSON.stringify([name, options.head, options.constants]);
    let kernel = compiled.get(key);
    if (!kernel) {
      kernel = compile(name, options).catch((error) => {
        const what = options.head ? `${name} with head ${options.head}` : name;
        return fail("internal", `shader ${what} was refused: ${error.message}`, { cause: error });
      });
      compiled.set(key, kernel);
    }
    return kernel;
  }
  return { get, tryGet: (name, options) => get(name, options).catch(() => undefined) };
}

/** Kernels of each device and texts: compiling takes longer than most models of a test. */
const devices = new WeakMap<GPUDevice, Map<Readonly<Record<string, string>>, Map<string, Promise<Kernel>>>>();

function compiledOn(device: GPUDevice, texts: Readonly<Record<string, string>>): Map<string, Promise<Kernel>> {
  const byTexts = devices.get(device) ?? new Map<Readonly<Record<string, string>>, Map<string, Promise<Kernel>>>();
  devices.set(device, byTexts);
  const compiled = byTexts.get(texts) ?? new Map<string, Promise<Kernel>>();
  byTexts.set(texts, compiled);
  return compiled;
}

const HEAD = /\/\/ head\n[\s\S]*?\/\/ end of head\n/;

/** A shader's text with another head in the place of its own. */
export function assemble(texts: Readonly<Record<string, string>>, name: string, head?: string): string {
  const text = texts[name] ?? fail("internal", `there is no shader ${name}`);
  if (head === undefined) return text;
  const other = texts[`heads/${head}`] ?? fail("internal", `there is no head ${head}`);
  if (!HEAD.test(text)) fail("internal", `shader ${name} has no head to replace`);
  const replaced = text.replace(HEAD, () => `${other}\n`);
  // Directives come first in WGSL, wherever the head stands.
  const enables = replaced.match(/^enable .*;$/gm) ?? [];
  return [...enables, replaced.replace(/^enable .*;$/gm, "")].join("\n");
}

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
