// Debian's Chromium under playwright-core: where it is, and pages from a local server. Knows nothing of what pages test.

import { existsSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";

const PLACES = [
  process.env.FURCATE_CHROMIUM,
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
];

/** The browser's path; undefined where there is none. */
export const chromium: string | undefined = PLACES.find((place) => place !== undefined && existsSync(place));

/** What a path answers: its type and body. */
export type Site = ReadonlyMap<string, readonly [type: string, body: string | Uint8Array]>;

/** Serves a site on this machine, with headers besides. Resolves to its address and what ends it. */
export async function serve(
  site: Site,
  headers: Record<string, string> = {},
): Promise<{ origin: string; close(): void }> {
  const server: Server = createServer((request, response) => {
    const found = site.get(new URL(request.url ?? "/", "http://localhost").pathname);
    response.writeHead(found ? 200 : 404, { "Content-Type": found?.[0] ?? "text/plain", ...headers });
    response.end(found?.[1] ?? "not found");
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  return {
    origin: `http://127.0.0.1:${port}`,
    close() {
      server.closeAllConnections();
      server.close();
    },
  };
}
