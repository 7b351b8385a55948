"""Progress of long loops: a bar on a terminal, otherwise occasional lines in the log."""

import logging
import os
import sys
import time
from collections.abc import Iterable
from typing import TypeVar

#: Environment variable that the workflow sets: jobs share its terminal, on which it says itself what they write to
#: their logs. None of them draws a bar there.
SHARED_TERMINAL = "CATHODEFLOW_SHARED_TERMINAL"

log = logging.getLogger("cathodeflow")
T = TypeVar("T")


def draws_bars() -> bool:
    """Whether bars are drawn: on a terminal that no other job uses."""
    return sys.stderr.isatty() and not os.environ.get(SHARED_TERMINAL)


def progress(items: Iterable[T], label: str, *, total: int | None = None) -> Iterable[T]:
    """Pass items on and show the progress: a bar on a terminal, otherwise occasional lines in the log."""
    from tqdm import tqdm

    if draws_bars():
        yield from tqdm(items, desc=label, total=total, leave=False, dynamic_ncols=True)
        return
    last = time.monotonic()
    for count, item in enumerate(items, start=1):
        yield item
        if time.monotonic() - last > 30:
            last = time.monotonic()
            log.info("%s: %d%s", label, count, f" of {total}" if total else "")
