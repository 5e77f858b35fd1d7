// Keeps the page for times without a network, and gives it the headers that threads need, for
// servers that do not send them.

importScripts("files.js"); // PAGE = {version, files}, written by `nst export`

const NAME = `nst ${self.registration.scope} ${PAGE.version}`;
const OURS = `nst ${self.registration.scope} `;

self.addEventListener("install", (event) => {
  const keep = async () => {
    const cache = await caches.open(NAME);
    // Not from the browser's own cache, which may hold files of another version.
    await cache.addAll(PAGE.files.map((file) => new Request(file, { cache: "reload" })));
    // A new version waits until the old one's pages are closed, so that no page has files of both.
  };
  event.waitUntil(keep());
});

self.addEventListener("activate", (event) => {
  const tidy = async () => {
    const known = await caches.keys();
    const old = known.filter((name) => name.startsWith(OURS) && name !== NAME);
    await Promise.all(old.map((name) => caches.delete(name)));
    await self.clients.claim();
  };
  event.waitUntil(tidy());
});

self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET") event.respondWith(answer(event.request));
});

async function answer(request) {
  const cache = await caches.open(NAME);
  const found = (await cache.match(request, { ignoreSearch: true })) ?? (await fetch(request));
  if (found.type === "opaque" || found.type === "error") return found;
  const headers = new Headers(found.headers);
  headers.set("cross-origin-opener-policy", "same-origin");
  headers.set("cross-origin-embedder-policy", "require-corp");
  headers.set("cross-origin-resource-policy", "same-origin");
  const { status, statusText } = found;
  return new Response(found.body, { status, statusText, headers });
}
