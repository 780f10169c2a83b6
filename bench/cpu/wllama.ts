// wllama, llama.cpp compiled to WebAssembly, on one thread in a headless Chromium; page, code and model come from 127.0.0.1.

import { createReadStream, existsSync, readFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { chromium } from "playwright-core";
import { type Engine, findPackage, type One, summarise } from "./engine.ts";

const BROWSERS = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** Path of a Chromium: $CHROMIUM, or where distributions put it. */
export function findChromium(): string | undefined {
  return [process.env.CHROMIUM, ...BROWSERS].find((path) => path && existsSync(path));
}

export async function createWllama(): Promise<Engine> {
  const { folder } = findPackage("@wllama/wllama")!;
  let model = "";
  const files: Record<string, () => [type: string, path: string]> = {
    "/page.js": () => ["text/javascript", join(import.meta.dirname, "wllama-page.js")],
    "/wllama.js": () => ["text/javascript", join(folder, "esm/index.js")],
    "/wllama.wasm": () => ["application/wasm", join(folder, "esm/wasm/wllama.wasm")],
    "/model.gguf": () => ["application/octet-stream", model],
  };
  const server = createServer((request, response) => {
    const file = files[request.url ?? ""]?.();
    response.setHeader("content-type", file ? file[0] : "text/html");
    if (file) createReadStream(file[1]).pipe(response);
    else response.end('<!doctype html><script type="module" src="/page.js"></script>');
  });
  await new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening));

  const browser = await chromium.launch({ executablePath: findChromium(), args: ["--no-sandbox"] });
  const page = await browser.newPage();
  page.on("pageerror", (error) => console.error(`wllama's page: ${error.message}`));
  await page.goto(`http://127.0.0.1:${(server.address() as AddressInfo).port}/`);
  await page.waitForFunction("globalThis.bench");
  const call = <T>(name: string, ...values: unknown[]) =>
    page.evaluate<T>(`bench.${name}(${values.map((value) => JSON.stringify(value)).join()})`);

  return {
    async load(file, { context, sequences }) {
      model = file;
      await call("load", context, sequences);
    },
    one: (prompt, count) => call<One>("one", prompt, count),
    async many(prompt, n, count) {
      const { times, wholeMs } = await call<{ times: number[][]; wholeMs: number }>("many", prompt, n, count);
      return summarise(times, wholeMs);
    },
    async close() {
      const session = await browser.newBrowserCDPSession();
      const { processInfo } = await session.send("SystemInfo.getProcessInfo");
      const peaks = processInfo.filter(({ type }) => type === "renderer").map(({ id }) => peakResident(id));
      await browser.close();
      server.close();
      return { peakBytes: Math.max(...peaks) || undefined };
    },
  };
}

/** Most resident bytes of a process, as Linux keeps them; 0 elsewhere. */
function peakResident(id: number): number {
  const status = `/proc/${id}/status`;
  const kilobytes = existsSync(status) && /VmHWM:\s+(\d+)/.exec(readFileSync(status, "utf8"))?.[1];
  return Number(kilobytes || 0) * 1024;
}
