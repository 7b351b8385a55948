"""A headless Chromium, where the machine has one: what a page logs, asks for and shows."""

import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome-headless-shell")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-zygote", "--hide-scrollbars",
    "--disable-background-networking", "--disable-component-update", "--no-first-run", "--remote-debugging-pipe",
)  # fmt: skip


def find() -> str | None:
    """Return the browser of the machine, or that of the variable CHROME_BIN."""
    return os.environ.get("CHROME_BIN") or next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """The DevTools protocol over a pair of pipes."""

    def __init__(self, writer: int, reader: int) -> None:
        self._writer, self._reader = writer, reader
        self._numbers, self._rest = itertools.count(1), b""
        self.events: list[dict[str, Any]] = []
        self._session: str | None = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """Call a method and wait for its result; events before it are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": arguments}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._writer, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def open(self, page: Path, *, width: int, scheme: str) -> None:
        """Open a file at a width [px], in the colour scheme `light` or `dark`, and wait until it is loaded."""
        self.events.clear()
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=width < 500
        )
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.call("Page.navigate", url=page.as_uri())
        deadline = time.monotonic() + 60
        while self.evaluate("document.readyState") != "complete" or self.evaluate("location.href") == "about:blank":
            assert time.monotonic() < deadline, "the page is not loaded after a minute"
            time.sleep(0.05)

    def evaluate(self, expression: str) -> Any:
        """Return the value of an expression on the page."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        return found["result"].get("value")

    def problems(self) -> list[str]:
        """Return script errors, and what was written to the console or the browser's log."""
        names = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded", "Network.loadingFailed")
        return [json.dumps(event)[:300] for event in self.events if event.get("method") in names]

    def requests(self) -> list[str]:
        """Return the addresses that were asked for, without those inside the page."""
        sent = [event for event in self.events if event.get("method") == "Network.requestWillBeSent"]
        addresses = [event["params"]["request"]["url"] for event in sent]
        return [address for address in addresses if not address.startswith("data:")]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            part = os.read(self._reader, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        return json.loads(text)


@contextmanager
def started(program: str, folder: Path) -> Iterator[Browser]:
    """Start a browser with its profile in a folder; it ends with the block."""
    there_read, here_write = os.pipe()
    here_read, there_write = os.pipe()
    command = [program, *FLAGS, f"--user-data-dir={folder}"]
    # The protocol needs the descriptors 3 and 4.
    script = f'exec "$@" 3<&{there_read} 4>&{there_write}'
    with open(folder / "browser.log", "w") as log:
        process = subprocess.Popen(
            ["bash", "-c", script, "bash", *command], pass_fds=(there_read, there_write), stdout=log, stderr=log
        )
    os.close(there_read)
    os.close(there_write)
    try:
        yield Browser(here_write, here_read)
    finally:
        process.terminate()
        process.wait(30)
        os.close(here_write)
        os.close(here_read)
