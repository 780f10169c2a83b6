// A worker whose requests to /orphan are over before their call is: its timers end with them, in the midst of the work.
// Served in place of examples/worker/worker.js; all else is as there.

import { load, openAIHandler } from "furcate";
import cpu from "furcate/cpu.wasm";
import maze from "furcate/maze.gguf";
import text from "furcate/text.wasm";

const model = await load(maze, { wasm: { cpu, text }, memoryLimit: 64e6 });
const handle = openAIHandler(model);

export default {
  async fetch(request) {
    if (new URL(request.url).pathname !== "/orphan") return handle(request);
    model.generate("aa", { n: 16, maxTokens: 1000, ignoreEos: true }).catch(() => {});
    return new Response("begun");
  },
};
