"""A page that is served on this machine while a command runs: one HTML file, its data as JSON, and images."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from cathodeflow.errors import InputError
from cathodeflow.io.guard import one_line
from cathodeflow.io.tables import plain

# Nothing may come from elsewhere, and nobody may send anything.
_POLICY = (
    "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "connect-src 'self'"
)


class LivePage:
    """What a page shows; set by the command, read by the server's threads.

    Parameters
    ----------
    page : str
        HTML, without anything that is fetched but `state.json` and the images.

    Attributes
    ----------
    address : str
        Of the page; empty until it is served.
    """

    def __init__(self, page: str) -> None:
        self._lock = threading.Lock()
        self._files = {"/": ("text/html; charset=utf-8", page.encode())}
        self.address = ""
        self.update({}, {})

    def update(self, state: Mapping[str, Any], images: Mapping[str, bytes]) -> None:
        """Replace the data; images are PNG files by their names, and stay if they are not given again."""
        text = json.dumps(plain(dict(state)), allow_nan=False).encode()
        files = {f"/{name}": ("image/png", content) for name, content in images.items()}
        with self._lock:
            self._files |= {"/state.json": ("application/json", text), **files}

    def file(self, path: str) -> tuple[str, bytes] | None:
        """Return type and content of what a path names."""
        with self._lock:
            return self._files.get(path.partition("?")[0])


@contextmanager
def served(page: LivePage, host: str, port: int) -> Iterator[None]:
    """Serve a page while a block runs; `page.address` says where.

    Parameters
    ----------
    page : LivePage
    host : str
        Address of this machine on which it listens.
    port : int
        0: any port that is free.

    Raises
    ------
    InputError
        The port is taken, or the host is not of this machine.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = page.file(self.path)
            if found is None:
                self.send_error(404)
                return
            kind, content = found
            self.send_response(200)
            headers = {"Content-Type": kind, "Content-Length": str(len(content)), "Cache-Control": "no-store"}
            headers |= {"Content-Security-Policy": _POLICY, "X-Content-Type-Options": "nosniff"}
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Keep requests out of the log."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except (OSError, OverflowError) as error:
        found = one_line(error)
        raise InputError(f"live page on {host}, port {port}", found, "a free port (--port), or --port none") from error
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, daemon=True)
    thread.start()
    shown = f"[{host}]" if ":" in host else host
    page.address = f"http://{shown}:{server.server_address[1]}/"
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
