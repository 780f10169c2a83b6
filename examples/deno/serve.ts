// The OpenAI endpoint over a model of your own. Run: deno run --allow-read --allow-net=127.0.0.1 serve.ts model.gguf 8000

import { load, openAIHandler } from "../../dist/furcate.js";

const [source = "model.gguf", port = "8000"] = Deno.args;
const model = await load(source);
Deno.serve({ hostname: "127.0.0.1", port: Number(port) }, openAIHandler(model));
