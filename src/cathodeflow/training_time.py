"""How long trainings will take on this machine, from a few measured steps of the real networks."""

import importlib
import importlib.util
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

from cathodeflow.errors import InputError
from cathodeflow.progress import SHARED_TERMINAL


class Estimate(NamedTuple):
    """Time of the trainings of a technique.

    Attributes
    ----------
    what : str
        What is trained, such as "20 epochs of 640 crops".
    seconds : float
        Of all epochs, without early stopping [s].
    """

    what: str
    seconds: float


class _EnoughError(Exception):
    """Ends a training whose time was measured."""


def epoch_time(train: Callable[[Callable[[Any], None]], Any], *, threads: int | None) -> float:
    """Measure the second epoch of a training, as the first one loads libraries and allocates memory; then end it.

    Parameters
    ----------
    train : callable
        Trains for two or more epochs, and calls its argument at the end of each.
    threads : int, optional
        Threads of torch, which its stage sets. Default: as they are.

    Returns
    -------
    float
        [s]
    """
    import torch

    ends: list[float] = []

    def note(record: Any) -> None:
        ends.append(time.perf_counter())
        if len(ends) > 1:
            raise _EnoughError

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        with _silent():
            train(note)
    except _EnoughError:
        pass
    finally:
        torch.set_num_threads(before)
    return ends[1] - ends[0]


@contextmanager
def _silent() -> Iterator[None]:
    """Without lines in the log and bars of trainings that are only measured."""
    shared = os.environ.get(SHARED_TERMINAL)
    disabled = logging.root.manager.disable
    os.environ[SHARED_TERMINAL] = "1"
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        if shared is None:
            del os.environ[SHARED_TERMINAL]
        else:
            os.environ[SHARED_TERMINAL] = shared


def duration(seconds: float) -> str:
    """Write a time with the unit that suits it.

    Examples
    --------
    >>> duration(42.1), duration(90), duration(5400)
    ('42 s', '1.5 min', '1.5 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def training_lines(config: Any, sheets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each technique that trains a network: `estimate` of its module `training_estimate`, if any.

    Parameters
    ----------
    config : Settings
        The whole configuration.
    sheets : mapping of str to (mapping of str to Sample)
        Samples by technique and name.
    """
    lines = []
    for technique, sheet in sheets.items():
        name = f"cathodeflow.{technique}.training_estimate"
        if importlib.util.find_spec(name) is None:
            continue
        try:
            estimate = importlib.import_module(name).estimate
            found: Estimate | None = estimate(getattr(config, technique), sheet, config.device)
        except InputError:
            continue  # told by the check of the headers, or by the stage itself
        if found is not None:
            lines.append(
                f"{technique}: training: at most about {duration(found.seconds)} for {found.what}, "
                "from a few steps measured on this machine"
            )
    return lines
