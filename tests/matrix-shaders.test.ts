// Shaders of subgroup matrices on devices that have none: with plain numbers in the place of matrices, and f32 in that of f16, every
// way in which they are put together is valid WGSL. What they compute only a device with matrices shows (kernels.test.ts).

import { test } from "uvu";
import * as assert from "uvu/assert";
import { shaders } from "../build/shaders.js";
import type { GgmlType } from "../src/formats/gguf.ts";
import { assemble } from "../src/webgpu/kernels.ts";
import { layoutOf } from "../src/webgpu/layout.ts";
import { gpuFor, missing } from "./support/gpu.ts";

const TYPES: GgmlType[] = ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q5_K", "Q6_K"];
const SIDES = [undefined, "matrix_8"];
/** Heads for what products read and what they end with. */
const PRODUCTS = [[], ["scaled"], ["scaled", "rotated"], [undefined, "rotated"], [undefined, "added_normed"]];

/** The arguments of a call that begins behind its opening bracket, and where it ends. */
function argumentsOf(text: string, from: number): { args: string[]; end: number } {
  const args: string[] = [];
  let [depth, start, at] = [1, from, from];
  for (; depth > 0; at++) {
    if ("([".includes(text[at])) depth++;
    else if (")]".includes(text[at])) depth--;
    if (depth > 0 && !(depth === 1 && text[at] === ",")) continue;
    args.push(text.slice(start, at).trim());
    start = at + 1;
  }
  return { args, end: at };
}

const CALLS: Record<string, (args: string[]) => string> = {
  Load: ([from, at]) => `f32(${from.slice(1)}[${at}])`,
  Store: ([to, at, matrix]) => `${to.slice(1)}[${at}] = ${matrix}`,
  MultiplyAccumulate: (args) => `fma(${args.join(", ")})`,
};

/** A shader without matrices and 16-bit floats. */
function plain(text: string): string {
  let rest = text
    .replace(/enable (f16|chromium\w+);|diagnostic\(off, chromium[^;]*;/g, "")
    .replace(/bitcast<vec2<f16>>/g, "unpack2x16float")
    .replace(/subgroup_matrix_\w+<[^>]*>/g, "f32")
    .replace(/\bf16\b/g, "f32")
    .replace(/\b([\d.]+)h\b/g, "$1");
  for (;;) {
    const call = /subgroupMatrix(\w+?)(?:<[^>]*>)?\(/.exec(rest);
    if (!call) return rest;
    const { args, end } = argumentsOf(rest, call.index + call[0].length);
    rest = rest.slice(0, call.index) + CALLS[call[1]](args) + rest.slice(end);
  }
}

const opened = await gpuFor("shaders of subgroup matrices");
if (opened && !opened.abilities.subgroups) missing("shaders of subgroup matrices", `${opened.name} has no subgroups`);

/** Fails where the device says that a shader is wrong. */
async function check(device: GPUDevice, name: string, heads: (string | undefined)[]): Promise<void> {
  const code = plain(assemble(shaders, name, heads));
  device.pushErrorScope("validation");
  const { messages } = await device.createShaderModule({ code }).getCompilationInfo();
  await device.popErrorScope();
  const errors = messages.filter(({ type }) => type === "error");
  assert.equal(
    errors.map(({ lineNum, message }) => `${message}: ${code.split("\n")[lineNum - 1]}`),
    [],
    [name, ...heads].join(" "),
  );
}

if (opened?.abilities.subgroups) {
  const { device } = opened;
  for (const type of TYPES)
    test(`products of ${type}`, async () => {
      const { head, halves } = layoutOf(type)!;
      for (const side of SIDES)
        for (const ends of PRODUCTS)
          await check(device, "linear_matrix", [side, head && "left_unpacked", head, halves, ...ends]);
    });
  test("attention", async () => {
    for (const side of SIDES) await check(device, "attend_matrix", [side]);
  });
  test("what is wrong is noticed", async () => {
    let failed = false;
    await check(device, "linear_matrix", [undefined, undefined, undefined, undefined, "scaled", "scaled"]).catch(() => {
      failed = true;
    });
    assert.ok(failed);
  });
}

test.run();
