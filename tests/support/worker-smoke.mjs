// The same calls on a model in this thread and on one in a worker, as every runtime runs it: the bundle's URL and a model's bytes
// -> what differs, as a list of texts. Plain JavaScript without imports, so that Deno and pages load this very file.

export async function compare(bundle, bytes, options = {}) {
  const { load, FurcateError } = await import(bundle);
  const differences = [];
  const here = await load(bytes, { backend: "wasm" });
  const progress = [];
  const there = await load(bytes, { backend: "wasm", worker: true, onProgress: (p) => progress.push(p), ...options });

  /** Has both do the same, and notes where they differ. */
  async function both(name, work) {
    const outcomes = [];
    for (const model of [here, there]) {
      try {
        outcomes.push(plain(await work(model)));
      } catch (error) {
        outcomes.push(
          `${error.constructor === FurcateError ? "FurcateError" : error.name} ${error.code ?? ""} ${error.message}`,
        );
      }
    }
    const [want, got] = outcomes.map((outcome) => JSON.stringify(outcome));
    if (want !== got) differences.push(`${name}: here ${want}, in the worker ${got}`);
    return outcomes[1];
  }
  const expect = (name, isTrue, got) => isTrue || differences.push(`${name}: ${JSON.stringify(got)}`);

  const given = { n: 5, maxTokens: 12, temperature: 0.9, seed: 11, ignoreEos: true };
  await both("info", ({ info, backend, tokenizer }) => [info, backend, tokenizer.vocabSize]);
  await both("tokenizer", ({ tokenizer }) => tokenizer.decode(tokenizer.encode("smoke and mirrors")));
  await both("chat", (model) => model.applyChatTemplate([{ role: "user", content: "hi" }]));
  await both("generate", (model) => model.generate("smoke and mirrors", { ...given, logprobs: 2 }));
  await both("messages", (model) => model.generate([{ role: "user", content: "hi" }], given));
  await both("functions", (model) =>
    model.generate("a", { ...given, rank: (choice) => choice.text.length, stop: ["e"], logitBias: { 5: 1 } }),
  );
  await both("vote", (model) => model.generate("a", { ...given, rank: "vote", answer: (text) => text.slice(0, 1) }));
  await both("score", (model) => model.score("smoke and mirrors", { logprobs: 3 }));
  await both("stream", async (model) => {
    const stream = model.stream("smoke", given);
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    // The order within a step is that of the samples in both.
    return [chunks, await stream.result];
  });
  await both("prefix", async (model) => {
    const prefix = await model.prefill("smoke and");
    const answers = await prefix.generate(" mirrors", given);
    const longer = await prefix.fork(" more");
    prefix.dispose();
    const more = await longer.generate("!", given);
    longer.dispose();
    const error = await longer.generate("!", given).catch((error) => error);
    return [prefix.tokenIds, answers, longer.tokenIds, more, error.code];
  });
  await both("wrong option", (model) => model.generate("a", { n: 0 }));
  await both("too long", (model) => model.generate(new Uint32Array(100_000)));
  await both("thrown by a ranking", (model) =>
    model.generate("a", {
      rank: () => {
        throw new RangeError("mine");
      },
    }),
  );
  const [usage, stats] = await (async () => {
    const result = await there.generate("a", given);
    return [result.usage, result.stats];
  })();
  expect("usage", usage.promptTokens === there.tokenizer.encode("a", { bos: true }).length, usage);
  expect("stays out of this thread", stats.workerFallback === undefined, stats.workerFallback);
  expect("progress", progress.length > 0 && progress.at(-1).loaded === progress.at(-1).total, progress);

  // One choice stopped, the others go on.
  const stream = there.stream("a", { ...given, maxTokens: 200 });
  for await (const { index } of stream) if (index === 2) stream.stop(2);
  const reasons = (await stream.result).choices.map((choice) => choice.finishReason).join();
  expect("stop", reasons === "length,length,abort,length,length", reasons);

  // An abort, with a reason that no message could carry.
  const reason = { toString: () => "mine" };
  const leave = new AbortController();
  const cut = there.stream("a", { ...given, maxTokens: 500, signal: leave.signal });
  let thrown;
  try {
    for await (const _ of cut) leave.abort(reason);
  } catch (error) {
    thrown = error;
  }
  expect("abort", thrown === reason, String(thrown));
  expect("aborted before", (await there.generate("a", { signal: leave.signal }).catch((e) => e)) === reason);
  await both("after an abort", (model) => model.generate("smoke and mirrors", given));

  const broken = await load(new Uint8Array(100), { worker: true, ...options }).catch((error) => error);
  expect("a broken file", broken instanceof FurcateError && broken.code === "format", String(broken));
  const away = new AbortController();
  const loading = load(bytes, { worker: true, ...options, signal: away.signal }).catch((error) => error);
  away.abort(reason);
  expect("a load that is aborted", (await loading) === reason);
  const mine = new RangeError("mine");
  const heard = await load(bytes, {
    worker: true,
    ...options,
    onProgress: () => {
      throw mine;
    },
  }).catch((error) => error);
  expect("what onProgress throws", heard === mine, String(heard));
  expect("bytes stay the caller's", bytes.length > 1000 && new Uint8Array(bytes.buffer).length > 1000);

  // Disposed of while it runs.
  const running = there.generate("a", { ...given, maxTokens: 500 }).catch((error) => error);
  await new Promise((done) => setTimeout(done, 30));
  there.dispose();
  expect("disposed", (await running).code === "disposed", String(await running));
  expect("after dispose", (await there.generate("a").catch((error) => error)).code === "disposed");
  here.dispose();

  const cannot = await load(bytes, { worker: true, workerUrl: "data:text/javascript,throw new Error('mine')" });
  const { stats: why } = await cannot.generate("a", given);
  expect("a worker that does not start", typeof why.workerFallback === "string", why);
  cannot.dispose();
  return { differences, reason: why.workerFallback };
}

/** A result without what depends on time. */
function plain(value) {
  if (ArrayBuffer.isView(value)) return [...value];
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(
    Object.entries(value)
      .filter(([key]) => key !== "stats")
      .map(([key, item]) => [key, plain(item)]),
  );
}
