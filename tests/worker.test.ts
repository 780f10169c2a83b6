// The edge worker's example in real workerd: the maze's 16 paths streamed, streams cancelled, requests that are over before their
// work is, and memory, whose limit of 128 MB on the edge the local runtime does not enforce. Answers are in servers.test.ts.

import { execFileSync } from "node:child_process";
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import OpenAI from "openai";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { generateMaze, mazePrompt } from "../models/maze/maze.ts";
import { load } from "../src/index.ts";
import { freePort, hasWorkerd, root, type ServerProcess, startWorkerd } from "./support/servers.ts";

const MOST_BYTES = 128e6;
const NAME = "furcate maze solver";
const config = join(root, "examples/worker/worker.capnp");

const clientOf = ({ origin }: ServerProcess) => new OpenAI({ baseURL: `${origin}/v1`, apiKey: "none", maxRetries: 0 });

async function served(config: string, run: (server: ServerProcess, inspector: number) => Promise<void>): Promise<void> {
  const inspector = await freePort();
  const server = await startWorkerd(config, inspector);
  try {
    await run(server, inspector);
    assert.not.match(server.output(), /hung|uncaught|different request/i);
  } finally {
    await server.close();
  }
}

/** The example with other things in place of its own, in a folder beside links to what it embeds. */
async function changed(worker: string, flags: string, run: (server: ServerProcess) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "furcate-worker-"));
  try {
    mkdirSync(join(folder, "examples/worker"), { recursive: true });
    for (const name of ["dist", "models"]) symlinkSync(join(root, name), join(folder, name));
    copyFileSync(join(root, worker), join(folder, "examples/worker/worker.js"));
    const own = readFileSync(config, "utf8");
    const other = own.replace(/(compatibilityDate = ".*?")/, `$1, compatibilityFlags = [${flags}]`);
    assert.is.not(other, own);
    writeFileSync(join(folder, "examples/worker/worker.capnp"), other);
    await served(join(folder, "examples/worker/worker.capnp"), run);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

if (!hasWorkerd) {
  console.log("skipped: workerd: the npm package has no program for this machine");
  test("nothing to test", () => {});
} else {
  test("16 paths through a maze, streamed as they grow, in less memory than an edge worker has", () =>
    served(config, async (server, inspector) => {
      const model = await load(join(root, "models/maze.gguf"), { backend: "wasm" });
      const client = clientOf(server);
      for (let seed = 0; seed < 5; seed++) {
        const prompt = mazePrompt(generateMaze(seed));
        const asked = { model: NAME, prompt, n: 16, seed, max_tokens: 120 };
        const { choices } = await model.generate(prompt, { n: 16, seed, maxTokens: 120 });
        const texts = choices.map(() => "");
        const times: number[] = [];
        for await (const event of await client.completions.create({ ...asked, stream: true })) {
          times.push(performance.now());
          for (const { index, text } of event.choices) texts[index] += text;
        }
        assert.equal(
          texts,
          choices.map(({ text }) => text),
          "as the model answers in Node, bit for bit",
        );
        assert.ok(new Set(times.map((time) => Math.round(time / 5))).size > 5, "events come as the paths grow");
      }
      // As many prompts besides as fill the K/V that the example allows.
      const prompts = Array.from({ length: 16 }, (_, i) => mazePrompt(generateMaze(100 + i)));
      await client.completions.create({ model: NAME, prompt: prompts, max_tokens: 1 });
      const helper = join(root, "tests/support/worker-memory.mjs");
      const args = ["--experimental-websocket", "--no-warnings", helper, String(inspector)];
      const { heap, used, buffers, memories } = JSON.parse(
        execFileSync(process.execPath, args, { encoding: "utf8", timeout: 20_000 }),
      );
      assert.is(memories.length, 2, "text.wasm's and cpu.wasm's");
      const wasm = memories.reduce((sum: number, bytes: number) => sum + bytes, 0);
      const total = heap + buffers + wasm;
      const mb = (bytes: number) => `${(bytes / 1e6).toFixed(1)} MB`;
      console.log(
        `measured: an edge worker after 21 mazes: ${mb(total)} of ${mb(MOST_BYTES)}: WebAssembly ${mb(wasm)}, ` +
          `buffers ${mb(buffers)}, heap ${mb(heap)} (used ${mb(used)}); the process ${mb(residentBytes(server.child.pid))}`,
      );
      assert.ok(wasm > 5e6 && buffers > 2.8e6 && heap > 1e6, "all of them were found");
      assert.ok(total < MOST_BYTES, mb(total));
    }));

  test("the first of three requests finishes first; a stream that is cancelled ends its work", () =>
    served(config, async (server) => {
      const client = clientOf(server);
      const prompt = mazePrompt(generateMaze(3));
      const short = { model: NAME, prompt, n: 2, max_tokens: 5, seed: 1 };
      const three = [5, 30, 10].map((max_tokens) => client.completions.create({ ...short, max_tokens }));
      for (const answer of three) assert.is((await answer).choices.length, 2);

      const endless = { ...short, n: 16, max_tokens: 200, logit_bias: { [await endToken()]: -100 } };
      const whole = await timed(() => client.completions.create(endless));
      assert.is(whole.value.usage?.completion_tokens, 16 * 200);
      for (let round = 0; round < 3; round++) {
        const left = await client.completions.create({ ...endless, stream: true });
        const waiting = round === 1 ? client.completions.create(short) : undefined;
        let events = 0;
        for await (const _ of left) if (++events === 20) break;
        const after = await timed(() => waiting ?? client.completions.create(short));
        assert.is(after.value.choices.length, 2);
        assert.ok(after.ms < whole.ms / 2, `${after.ms} ms after a cancelled stream of ${whole.ms} ms`);
      }
    }));

  // With the flag, as before it was turned, promises run on where they are settled, whose request that may be.
  for (const flags of ["", '"no_handle_cross_request_promise_resolution"']) {
    test(`work whose request is over holds nobody up; flags: ${flags || "none"}`, () =>
      changed("tests/support/orphaning-worker.js", flags, async (server) => {
        const client = clientOf(server);
        const ask = () => client.completions.create({ model: NAME, prompt: "aa", n: 2, max_tokens: 4, seed: 5 });
        const want = (await ask()).choices.map(({ text }) => text);
        for (let round = 0; round < 3; round++) {
          for (let i = 0; i <= round; i++) assert.is(await (await fetch(`${server.origin}/orphan`)).text(), "begun");
          const answers = await Promise.all([ask(), ask(), ask()]);
          for (const { choices } of answers)
            assert.equal(
              choices.map(({ text }) => text),
              want,
            );
        }
      }));
  }
}

async function endToken(): Promise<number> {
  const model = await load(join(root, "models/maze.gguf"), { backend: "wasm" });
  return model.tokenizer.encode("<|endoftext|>", { special: true })[0];
}

async function timed<T>(run: () => Promise<T>): Promise<{ value: T; ms: number }> {
  const began = performance.now();
  return { value: await run(), ms: Math.round(performance.now() - began) };
}

/** What the whole process holds, workerd and V8 included; 0 where the system does not say. */
function residentBytes(pid: number | undefined): number {
  try {
    return 1024 * Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1]);
  } catch {
    return 0;
  }
}

test.run();
