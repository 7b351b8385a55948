"""Progress of long work: a bar on a terminal, a plain line in the log now and then elsewhere."""

import logging
import sys
import time
from collections.abc import Iterable
from typing import TypeVar

log = logging.getLogger("cathodeflow")
T = TypeVar("T")


def progress(items: Iterable[T], label: str, *, total: int | None = None) -> Iterable[T]:
    """Pass items on, showing a bar on a terminal and a plain line in the log now and then elsewhere."""
    from tqdm import tqdm

    if sys.stderr.isatty():
        yield from tqdm(items, desc=label, total=total, leave=False, dynamic_ncols=True)
        return
    last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > 30:
            last = time.monotonic()
            log.info("%s: %d%s", label, count, f" of {total}" if total else "")
