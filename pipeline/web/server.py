"""A web server for this machine, to try a page with."""

import functools
import http.server
import io
import re
import socket
from importlib import resources
from pathlib import Path

HEADERS = {
    "cross-origin-opener-policy": "same-origin",  # this one and the next: for threads
    "cross-origin-embedder-policy": "require-corp",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",  # another page at this address is seen at once
}
# What a page is given here instead of its service worker: it would keep this address for itself,
# whatever is served at it later. One that an earlier page has left is removed.
_NO_WORKER = b"""\
self.addEventListener("install", () => self.skipWaiting());
self.addEventListener("activate", (event) => {
  const remove = async () => {
    const kept = (await caches.keys()).filter((name) => name.startsWith("nst "));
    await Promise.all(kept.map((name) => caches.delete(name)));
    await self.registration.unregister();
    if (!kept.length) return;
    for (const client of await self.clients.matchAll()) client.navigate(client.url);
  };
  event.waitUntil(remove());
});
"""
_POLICY = re.compile(r'content="(default-src[^"]*)"')
_TYPES = {
    ".mjs": "text/javascript",
    ".js": "text/javascript",
    ".wasm": "application/wasm",
    ".onnx": "application/octet-stream",
    ".webmanifest": "application/manifest+json",
}


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Serves the files of one folder."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, **_TYPES}
    protocol_version = "HTTP/1.1"

    def send_head(self):
        """Sends what comes before a file, always the whole file's."""
        del self.headers["If-Modified-Since"]  # a folder with older files may have taken its place
        if self.path.partition("?")[0] != "/service_worker.js":
            return super().send_head()
        self.send_response(200)
        self.send_header("content-type", "text/javascript")
        self.send_header("content-length", str(len(_NO_WORKER)))
        self.end_headers()
        return io.BytesIO(_NO_WORKER)

    def end_headers(self) -> None:
        """Sends our headers with every answer."""
        for name, value in {**HEADERS, "content-security-policy": _policy()}.items():
            self.send_header(name, value)
        super().end_headers()

    def list_directory(self, path):
        """Shows no listing of a folder."""
        self.send_error(404)

    def log_message(self, format: str, *values: object) -> None:
        """Says nothing of what was asked for."""


@functools.cache
def _policy() -> str:
    """Returns the page's own content security policy, which its workers are to have too."""
    page = resources.files("pipeline.web").joinpath("page/index.html").read_text()
    return _POLICY.findall(page)[0]


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True  # a browser that keeps its connection does not keep the server

    def handle_error(self, request, client_address) -> None:
        """Says nothing of browsers that went away."""


class _ServerOfIPv6(_Server):
    address_family = socket.AF_INET6


def serve(folder: Path, host: str, port: int) -> http.server.ThreadingHTTPServer:
    """Returns a server of a folder, which listens already; `serve_forever` has it answer.

    Raises:
      OSError: the port is taken, or there is no such host.
      OverflowError: there is no such port.
    """
    server = _ServerOfIPv6 if ":" in host else _Server
    return server((host, port), functools.partial(_Handler, directory=str(folder)))
