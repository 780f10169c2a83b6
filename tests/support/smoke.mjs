// One short call of the public API, as every runtime runs it: the bundle's URL and a model's bytes -> what came out.
// Plain JavaScript without imports, so that Node, Deno and pages load this very file.

export async function smoke(bundle, bytes) {
  const { load, FurcateError } = await import(bundle);
  const model = await load(bytes);
  const options = { n: 5, maxTokens: 12, temperature: 0.9, seed: 11, ignoreEos: true };
  const { choices, stats } = await model.generate("smoke and mirrors", options);
  const streamed = ["", "", "", "", ""];
  for await (const { index, text } of model.stream("smoke and mirrors", options)) streamed[index] += text;
  let refused;
  try {
    await load(new Uint8Array(100));
  } catch (error) {
    refused = error instanceof FurcateError ? error.code : String(error);
  }
  model.dispose();
  return {
    ids: choices.map((choice) => [...choice.tokenIds]),
    logprobs: choices.map((choice) => choice.meanLogprob),
    texts: choices.map((choice) => choice.text),
    streamed,
    backend: stats.backend,
    refused,
  };
}
