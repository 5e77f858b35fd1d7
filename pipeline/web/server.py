"""A web server for this machine, to try a page with."""

import functools
import http.server
import re
from pathlib import Path

HEADERS = {
    "cross-origin-opener-policy": "same-origin",  # this one and the next: for threads
    "cross-origin-embedder-policy": "require-corp",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",  # a page that was exported again is seen at once
}
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

    def __init__(self, *given, policy: str, **options):
        self._policy = policy
        super().__init__(*given, **options)

    def end_headers(self) -> None:
        """Sends our headers with every answer."""
        for name, value in {**HEADERS, "content-security-policy": self._policy}.items():
            self.send_header(name, value)
        super().end_headers()

    def list_directory(self, path):
        """Shows no listing of a folder."""
        self.send_error(404)

    def log_message(self, format: str, *values: object) -> None:
        """Says nothing of what was asked for."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True  # a browser that keeps its connection does not keep the server

    def handle_error(self, request, client_address) -> None:
        """Says nothing of browsers that went away."""


def serve(folder: Path, host: str, port: int) -> http.server.ThreadingHTTPServer:
    """Returns a server of a folder, which listens already; `serve_forever` has it answer.

    Raises:
      OSError: the port is taken, or not allowed.
    """
    # The page's own policy, for its workers too.
    policy = _POLICY.search((folder / "index.html").read_text())
    answer = functools.partial(
        _Handler, directory=str(folder), policy=policy[1] if policy else "default-src 'self'"
    )
    return _Server((host, port), answer)
