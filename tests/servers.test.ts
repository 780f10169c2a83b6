// The endpoint as users serve it: by `furcate serve` in Node, by the example in Deno, by the example in real workerd; asked by
// the real openai client, and compared with direct calls of the same model. What only one of them does is tested apart.

import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import OpenAI from "openai";
import { test } from "uvu";
import * as assert from "uvu/assert";
import { type GenerateOptions, load } from "../src/index.ts";
import { CHAT_TEMPLATE, randomModel } from "./support/random-model.ts";
import { hasWorkerd, root, type ServerProcess, startDeno, startNode, startWorkerd } from "./support/servers.ts";

const bytes = randomModel({ seed: 21, type: "Q8_0", chatTemplate: CHAT_TEMPLATE });
const model = await load(bytes, { backend: "wasm" });
const NAME = "random 21";

/** A package's folder whose maze.gguf is this test's model: the example of an edge worker serves whatever lies there. */
const folder = mkdtempSync(join(tmpdir(), "furcate-servers-"));
const file = join(folder, "models/maze.gguf");
for (const name of ["examples", "models"]) mkdirSync(join(folder, name));
for (const name of ["dist", "examples/worker"]) symlinkSync(join(root, name), join(folder, name));
writeFileSync(file, bytes);
test.after(() => rmSync(folder, { recursive: true }));

const RUNTIMES: Record<string, () => Promise<ServerProcess>> = {
  "Node, furcate serve": () => startNode(["--model", file, "--backend", "wasm"]),
  "Deno, examples/deno/serve.ts": () => startDeno(file),
};
if (hasWorkerd) RUNTIMES["workerd, examples/worker"] = () => startWorkerd(join(folder, "examples/worker/worker.capnp"));
else console.log("skipped: the endpoint in workerd: the npm package workerd has no program for this machine");

const messages = [{ role: "user" as const, content: "Name a river." }];
const direct: GenerateOptions = { n: 8, maxTokens: 24, temperature: 0.8, topP: 0.9, seed: 3 };
const asked = { model: NAME, n: 8, max_tokens: 24, temperature: 0.8, top_p: 0.9, seed: 3 };

for (const [name, start] of Object.entries(RUNTIMES)) {
  test(name, async () => {
    const server = await start();
    try {
      const client = new OpenAI({ baseURL: `${server.origin}/v1`, apiKey: "none", maxRetries: 0 });
      assert.equal(
        (await client.models.list()).data.map(({ id }) => id),
        [NAME],
      );

      const want = (await model.generate(messages, direct)).choices.map(({ text }) => text);
      assert.is(new Set(want).size, 8);
      const whole = await client.chat.completions.create({ ...asked, messages });
      assert.equal(
        whole.choices.map(({ message }) => message.content),
        want,
      );
      const runner = client.chat.completions.stream({ ...asked, messages, stream_options: { include_usage: true } });
      const final = await runner.finalChatCompletion();
      assert.equal(
        final.choices.map(({ message }) => message.content),
        want,
      );
      assert.equal(final.usage?.completion_tokens, whole.usage?.completion_tokens);

      const { choices } = await model.generate("The sea", { ...direct, logprobs: 2 });
      const completion = await client.completions.create({ ...asked, prompt: "The sea", logprobs: 2 });
      assert.equal(
        completion.choices.map(({ text, logprobs }) => [text, logprobs?.token_logprobs]),
        choices.map(({ text, logprobs }) => [text, logprobs?.map(({ logprob }) => logprob)]),
      );
      const streamed = choices.map(() => "");
      for await (const event of await client.completions.create({ ...asked, prompt: "The sea", stream: true }))
        for (const { index, text } of event.choices) streamed[index] += text;
      assert.equal(
        streamed,
        choices.map(({ text }) => text),
      );

      const refused = await client.chat.completions.create({ ...asked, messages, n: 1000 }).catch((error) => error);
      assert.instance(refused, OpenAI.BadRequestError);
      assert.is(refused.param, "n");

      // Left in the middle, with others waiting: these get what they would have got alone.
      const long = {
        ...asked,
        prompt: "Once",
        n: 64,
        max_tokens: 400,
        logit_bias: { 297: -100 },
        stream: true as const,
      };
      const left = await client.completions.create(long);
      const waiting = [1, 2, 3].map((seed) =>
        client.completions.create({ model: NAME, prompt: "Once", n: 2, max_tokens: 6, seed }),
      );
      let events = 0;
      for await (const _ of left) if (++events === 40) break;
      for (const [i, answer] of waiting.entries()) {
        const { choices } = await model.generate("Once", { n: 2, maxTokens: 6, seed: i + 1 });
        assert.equal(
          (await answer).choices.map(({ text }) => text),
          choices.map(({ text }) => text),
        );
      }
    } finally {
      await server.close();
    }
  });
}

test("furcate serve: files for the page, whole and in part; other names and ways out are refused", async () => {
  const server = await startNode(["--model", file]);
  try {
    const get = (path: string, headers: Record<string, string> = {}) => fetch(`${server.origin}${path}`, { headers });
    const bundle = await get("/furcate.js");
    assert.match(bundle.headers.get("content-type") ?? "", /^text\/javascript/);
    assert.match(bundle.headers.get("content-security-policy") ?? "", /script-src 'self' 'wasm-unsafe-eval'/);
    assert.is(await bundle.text(), readFileSync(join(root, "dist/furcate.js"), "utf8"));
    const maze = readFileSync(join(root, "models/maze.gguf"));
    assert.ok(maze.equals(Buffer.from(await (await get("/models/maze.gguf")).arrayBuffer())));
    const part = await get("/models/maze.gguf", { range: "bytes=100-199" });
    assert.equal([part.status, part.headers.get("content-range")], [206, `bytes 100-199/${maze.length}`]);
    assert.ok(maze.subarray(100, 200).equals(Buffer.from(await part.arrayBuffer())));
    const rest = await get("/models/maze.gguf", { range: `bytes=${maze.length - 5}-` });
    assert.is((await rest.arrayBuffer()).byteLength, 5);
    assert.is((await get("/models/maze.gguf", { range: `bytes=${maze.length}-` })).status, 416);
    for (const path of ["/package.json", "/cli.js", "/.env", "/%2e%2e/package.json", "/models/maze/README.md"])
      assert.is((await get(path)).status, 404, path);
    assert.is(await rawStatus(server.origin, "/../package.json", {}), 404);
    assert.is(await rawStatus(server.origin, "/v1/models", { host: "rebound.example" }), 403);
    assert.is(await rawStatus(server.origin, "/v1/models", { host: "localhost:1" }), 200);
    // Targets that name the host by themselves, which then counts.
    assert.is(await rawStatus(server.origin, `${server.origin}/v1/models`, { host: "rebound.example" }), 200);
    assert.is(await rawStatus(server.origin, "http://rebound.example/v1/models", { host: "localhost" }), 403);
    assert.is(await rawStatus(server.origin, "//rebound.example/v1/models", { host: "localhost" }), 404);
    assert.is((await fetch(`${server.origin}/furcate.js`, { method: "POST" })).status, 405);
    const large = await fetch(`${server.origin}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: new Blob([new Uint8Array(8 << 20).fill(32)]).stream(),
      duplex: "half",
    } as RequestInit).catch((error: Error) => error);
    // The answer may arrive, or the connection end under a client that is still sending.
    assert.ok(large instanceof Error || large.status === 413);
    assert.is((await get("/v1/models")).status, 200);
    assert.match(server.output(), new RegExp(`Model "${NAME}" at ${server.origin}/v1`));
    assert.is(await server.close("SIGINT"), 0);
  } finally {
    await server.close();
  }
});

/** The status of a request whose path and headers go out as they stand. */
function rawStatus(origin: string, path: string, headers: Record<string, string>): Promise<number | undefined> {
  return new Promise((resolve, reject) => {
    const asked = request(origin, { path, headers }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    asked.on("error", reject).end();
  });
}

test.run();
