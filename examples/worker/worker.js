// The maze solver behind the OpenAI endpoint, on an edge worker.
// Wrangler bundles it with the rule { "type": "Data", "globs": ["**/*.gguf"] }; worker.capnp serves it by workerd itself.

import { load, openAIHandler } from "furcate";
import cpu from "furcate/cpu.wasm";
import maze from "furcate/maze.gguf";
import text from "furcate/text.wasm";

const model = await load(maze, { wasm: { cpu, text }, memoryLimit: 64e6 });

export default { fetch: openAIHandler(model) };
