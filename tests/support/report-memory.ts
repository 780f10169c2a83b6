// Preloaded into a server under test: on SIGUSR2 it collects garbage and writes what the process holds, as a line, to stderr.

import { held } from "./memory.ts";

process.on("SIGUSR2", async () => console.error(`holds ${await held()}`));
