// Eight answers to one question, best first. Run: deno run --allow-read answers.ts model.gguf "question"

import { load } from "../../dist/furcate.js";

const [source = "model.gguf", question = "Name a river."] = Deno.args;
const model = await load(source);
const { choices } = await model.generate(question, { n: 8, maxTokens: 24, temperature: 0.8, rank: "mean-logprob" });
for (const { text, meanLogprob } of choices) console.log(meanLogprob.toFixed(2), JSON.stringify(text));
