"""How long it takes to read the raw images of a sample, from a few of them."""

import os
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from cathodeflow.errors import InputError
from cathodeflow.io.frames import open_series, read_frames
from cathodeflow.io.image_lists import image_files
from cathodeflow.io.micrographs import read_micrograph
from cathodeflow.io.slices import open_stack, read_stack
from cathodeflow.io.sources import is_remote

# Images that are read of a sample, and the time after which no more are [s].
_IMAGES, _SECONDS = 4, 2.0


class Sampled(NamedTuple):
    """Images of a sample.

    Attributes
    ----------
    n_images : int
    seconds : float
        Time to read and decode one of them [s].
    """

    n_images: int
    seconds: float


def reading_time(row: Any) -> Sampled | None:
    """Read some images of a sample; None if they are simulated or remote, or cannot be read.

    Parameters
    ----------
    row : Sample
        Row of a sample sheet with the column `frames` or `images`.
    """
    source = getattr(row, "frames", None) or getattr(row, "images", None)
    if source is None or is_remote(source) or getattr(row, "simulated", False):
        return None
    try:
        n_images, read = _opened(source, scan=hasattr(row, "frames"))
        return Sampled(n_images, mean_time(read, n_images))
    except InputError:
        return None  # told by the check of the headers


def _opened(source: str, *, scan: bool) -> tuple[int, Callable[[int], Any]]:
    """Return the number of images, and how to read one of them."""
    if scan:
        series = open_series(source)
        return series.n_frames, lambda number: list(read_frames(series, number, number + 1))
    in_folders = os.path.isdir(source) and not any(entry.is_file() for entry in os.scandir(source))
    if in_folders or source.endswith((".csv", ".tsv")):
        files = image_files(source)
        return len(files), lambda number: read_micrograph(files[number])
    stack = open_stack(source)
    return stack.n_slices, lambda number: list(read_stack(stack, number, number + 1, require_finite=False))


def mean_time(read: Callable[[int], Any], n_images: int) -> float:
    """Return the mean time to read an image [s], from some that are spread over all.

    The first one is read twice, and counts the second time only: libraries are loaded with it.
    """
    read(0)
    begun = time.perf_counter()
    done = 0
    for number in dict.fromkeys(index * (n_images - 1) // max(1, _IMAGES - 1) for index in range(_IMAGES)):
        read(number)
        done += 1
        if time.perf_counter() - begun > _SECONDS:
            break
    return (time.perf_counter() - begun) / done


def reading_line(sampled: Iterable[Sampled]) -> str | None:
    """Say how long reading takes; None without an image.

    Examples
    --------
    >>> reading_line([Sampled(1440, 0.05), Sampled(360, 0.1)])
    '1800 raw images, about 1.8 min to read them once on one core; training and phasing take longer'
    """
    found = list(sampled)
    if not found:
        return None
    seconds = sum(one.n_images * one.seconds for one in found)
    text = (
        "less than a second"
        if seconds < 1
        else f"about {seconds:.0f} s"
        if seconds < 60
        else f"about {seconds / 60:.1f} min"
        if seconds < 3600
        else f"about {seconds / 3600:.1f} h"
    )
    count = sum(one.n_images for one in found)
    return f"{count} raw images, {text} to read them once on one core; training and phasing take longer"


def time_lines(sheets: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a line for each technique with raw images, whose samples are given by name."""
    lines = []
    for technique, sheet in sheets.items():
        line = reading_line(one for row in sheet.values() if (one := reading_time(row)))
        lines += [f"{technique}: {line}"] if line else []
    return lines
