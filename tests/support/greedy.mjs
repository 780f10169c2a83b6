// Greedy calls of the public API on one backend, as every runtime runs them: the bundle's URL and a model's bytes -> what was chosen.
// Plain JavaScript without imports, so that Node, Deno and pages load this very file.

const PROMPTS = ["smoke and mirrors", "the other one", "1234, and of the"];
const ALONE = { maxTokens: 20 };
const TOGETHER = { n: 3, maxTokens: 10, attention: "two-part" };

/** Of each call and choice its ids, with the log-probabilities of the best two at each. */
export async function greedy(bundle, bytes, backend) {
  const { load } = await import(bundle);
  const model = await load(bytes, { backend });
  const choices = [];
  let device;
  for (const prompt of PROMPTS)
    for (const call of [ALONE, TOGETHER]) {
      const result = await model.generate(prompt, { ...call, temperature: 0, logprobs: 2, ignoreEos: true });
      if (result.stats.backend !== backend) throw new Error(`ran on ${result.stats.backend}, expected ${backend}`);
      device = result.stats.device;
      for (const { logprobs } of result.choices)
        choices.push(logprobs.map(({ tokenId, top }) => ({ id: tokenId, best: top.map(({ logprob }) => logprob) })));
    }
  model.dispose();
  return { device, choices };
}
