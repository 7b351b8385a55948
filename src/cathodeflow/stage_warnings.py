"""Warnings of a stage: those of its log, kept for its record, and the one that it found nothing."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

log = logging.getLogger("cathodeflow")

# Figures of merit that count what a stage looks for.
_FOUND = ("peaks", "patches", "spots", "tracks", "grains", "facets", "crops", "images")


class _Collector(logging.Handler):
    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text of a warning, once."""
        text = record.getMessage()
        if text not in self._texts:
            self._texts.append(text)


@contextmanager
def logged_warnings() -> Iterator[list[str]]:
    """Collect the warnings of the package's log while a stage runs.

    Examples
    --------
    >>> with logged_warnings() as texts:
    ...     log.warning("%d peaks", 0)
    >>> texts
    ['0 peaks']
    """
    texts: list[str] = []
    collector = _Collector(texts)
    log.addHandler(collector)
    try:
        yield texts
    finally:
        log.removeHandler(collector)


def warn_if_empty(stage: str, metrics: Mapping[str, Any], warned: list[str]) -> None:
    """Log a warning if a stage found nothing and said nothing of it.

    Parameters
    ----------
    stage : str
        Such as `bragg.fit`.
    metrics : mapping
        Figures of merit of the stage.
    warned : list of str
        Warnings of the stage so far.
    """
    nothing = [name for name in _FOUND if name in metrics and metrics[name] == 0]
    if nothing and not any(f"no {name[:-1]}" in text for name in nothing for text in warned):
        log.warning("%s: no %s found: its output files are empty", stage, " and no ".join(nothing))
