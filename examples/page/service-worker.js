// Opens the page without a network: what the server last gave of the page's own files is kept, and used where it is out of reach.
// Models are none of its business: furcate asks for them in parts, and keeps them itself.

const NAME = "furcate-page";
const FILES = [
  "./",
  "page.css",
  "icon.svg",
  "page.js",
  "model.js",
  "cards.js",
  "drawing.js",
  "figures.js",
  "furcate.js",
  "maze.js",
].map((name) => new URL(name, self.location).href);

self.addEventListener("install", (event) => {
  self.skipWaiting();
  event.waitUntil(caches.open(NAME).then((cache) => cache.addAll(FILES)));
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { method, url } = event.request;
  if (method === "GET" && FILES.includes(url.replace(/[?#].*/, ""))) event.respondWith(freshest(event.request));
});

async function freshest(request) {
  const cache = await caches.open(NAME);
  try {
    const response = await fetch(request);
    if (response.ok) await cache.put(request, response.clone());
    return response;
  } catch {
    return (await cache.match(request, { ignoreSearch: true })) ?? Response.error();
  }
}
