// What reaches the device is what was recorded, in order, whatever of it came before or was encoded ahead: random rounds on a
// device that only notes, against a plain list. That a forward's work is the same where it is taken to be is works.test.ts's.

import { test } from "uvu";
import * as assert from "uvu/assert";
import type { Kernel } from "../src/webgpu/kernels.ts";
import { createRecorder, type Recorder } from "../src/webgpu/recorder.ts";
import { type NotedBuffer, notingDevice } from "./support/noting-device.ts";
import { newRandom, type Random } from "./support/random.ts";

type Dispatch = readonly [kernel: number, from: number, to: number, sizes: number, x: number];

/** Random rounds: steps as calls make them, now and then cut short, mixed up, or with a buffer that goes. */
function trial(random: Random, breaks: boolean) {
  const { device, log, counts } = notingDevice();
  let made = 0;
  const newBuffer = () => device.createBuffer({ label: `b${made++}`, size: 16, usage: 0 }) as unknown as NotedBuffer;
  const recorder: Recorder = createRecorder(device, () => newBuffer() as unknown as GPUBuffer);
  const kernels = Array.from({ length: 4 }, (_, i) => {
    const kernel = { pipeline: `k${i}`, layout: {}, bindings: [1, 2], groups: { next: new WeakMap() } };
    return kernel as unknown as Kernel;
  });
  const buffers = Array.from({ length: 4 }, newBuffer);
  const results = Array.from({ length: 2 }, newBuffer);
  const gpu = (buffer: NotedBuffer) => buffer as unknown as GPUBuffer;
  const expected: string[] = [];
  let skipped = 0;

  const below = (n: number) => random.below(n);
  const dispatches: Dispatch[] = Array.from({ length: 70 }, () => [below(4), below(4), below(4), below(3), below(5)]);
  const lengths = [3, 20, 70];
  const works = lengths.map((_, i) => ({ i }));
  /** Of a work and form: they begin alike and part somewhere. */
  const listOf = (work: number, form: number): Dispatch[] =>
    dispatches
      .slice(0, lengths[work] - form)
      .map((of, i) => (i === 2 * form ? [of[0], of[1], of[2], 7 + form, 1] : of));
  const expect = ([kernel, from, to, sizes, x]: Dispatch) => {
    if (x > 0) expected.push(`k${kernel} ${buffers[from].label},${buffers[to].label} ${sizes} ${x},1,1`);
  };
  const dispatch = (of: Dispatch) => {
    const [kernel, from, to, sizes, x] = of;
    expect(of);
    recorder.run(kernels[kernel], [gpu(buffers[from]), gpu(buffers[to])], [sizes], x);
  };
  const write = () => {
    if (!recorder.allSent) recorder.flush();
    log.push(`write ${expected.length}`);
    expected.push(`write ${expected.length}`);
  };
  const forward = (work: number, form: number) => {
    const list = listOf(work, form);
    const breaksAt = breaks && below(10) === 0 ? below(list.length) : -1;
    let ran = false;
    try {
      recorder.repeat([works[work], form], () => {
        ran = true;
        for (const [i, of] of list.entries()) {
          if (i === breaksAt) throw new Error("broken");
          // What is submitted on the way is no part of the work.
          if (breaks && below(200) === 0) recorder.flush();
          dispatch(of);
        }
      });
    } catch (error) {
      if ((error as Error).message !== "broken") throw error;
    }
    if (ran) return;
    skipped++;
    for (const of of list) expect(of);
  };
  const foresee = () => {
    counts.ahead = true;
    recorder.foresee();
    counts.ahead = false;
  };
  const candidates = (count: number) => {
    for (const of of dispatches.slice(10, 10 + count)) dispatch(of);
  };
  const read = () => {
    const [from, to] = [buffers[below(8) === 0 ? 1 : 0], results[below(6) === 0 ? 1 : 0]];
    expected.push(`copy ${from.label} 0 ${to.label} 0 16`);
    recorder.copy(gpu(from), 0, gpu(to), 0, 16);
    recorder.flush();
    foresee();
  };
  const copy = () => {
    const [from, to] = [buffers[below(4)], buffers[below(4)]];
    expected.push(`copy ${from.label} 4 ${to.label} 8 4`);
    recorder.copy(gpu(from), 4, gpu(to), 8, 4);
  };
  const replace = () => {
    const i = below(4);
    recorder.forget();
    buffers[i].destroyed = true;
    buffers[i] = newBuffer();
  };

  let [work, form] = [0, 0];
  const step = () => {
    if (below(4) === 0) [work, form] = [below(3), below(3)];
    if (below(6) === 0) copy();
    write();
    forward(work, form);
    if (below(10) === 0) copy();
    if (below(10) === 0) replace();
    candidates(below(8) === 0 ? 3 : 2);
    read();
  };
  const others = [
    () => forward(below(3), below(3)),
    write,
    copy,
    () => candidates(below(6)),
    read,
    () => recorder.flush(),
    foresee,
    replace,
    () => {
      write();
      for (const of of listOf(work, form)) dispatch(of);
      read();
    },
  ];
  for (let i = 0; i < 60; i++) (below(2) === 0 ? step : random.pick(others))();
  recorder.flush();
  assert.equal(log, expected);
  return { skipped, ...counts };
}

for (const breaks of [false, true])
  test(`random rounds reach the device in order${breaks ? ", whatever fails or ends within" : ""}`, () => {
    let [skipped, encodedAhead, submits] = [0, 0, 0];
    for (let seed = 0; seed < 400; seed++) {
      const counts = trial(newRandom(seed), breaks);
      skipped += counts.skipped;
      encodedAhead += counts.encodedAhead;
      submits += counts.submits;
    }
    const found = `${skipped} forwards not recorded again, ${encodedAhead} of ${submits} submits encoded ahead`;
    assert.ok(skipped > 6000 && encodedAhead > 8000, found);
  });

test.run();
