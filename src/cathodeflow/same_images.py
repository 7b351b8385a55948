"""Samples, and files of a sample, that hold the same images under two names."""

import hashlib
import itertools
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from cathodeflow.io.sources import split_source
from cathodeflow.io.text import read_piece
from cathodeflow.samples import Sample

# Columns that name the images of a sample.
IMAGE_COLUMNS = ("frames", "images")
# Bytes at the beginning and in the middle that stand for a file, and those that are compared if they are equal.
_PIECE, _COMPARED = 2**15, 2**22
# Files of a sample that are compared, and those of them that are compared in full.
_FILES, _CONFIRMED = 500, 3
# What file managers add to the name of a copy.
_WORD = r"(?<![a-z])(copy|kopie|copie|copia)(?![a-z])"
_COPY = re.compile(rf"[ _-]*(\(({_WORD}|\d+)\)|{_WORD}( (of|von|de))?)([ _]\(\d+\))?[ _-]*", re.IGNORECASE)


def same_warnings(sheet: Mapping[str, Sample], files: Mapping[str, list[str]]) -> Iterator[str]:
    """Find samples with the same images: the same files, links to them, or files of equal content.

    Equal content is that of at least half of the files, whatever their names and order.

    Parameters
    ----------
    sheet : mapping of str to Sample
        Rows of the sample sheet.
    files : mapping of str to list of str
        Files with the images of each sample.
    """
    places = {name: {_place(file): file for file in own} for name, own in files.items()}
    pieces = {name: _pieces(own, _sizes(files, name)) for name, own in files.items()}
    for first, second in itertools.combinations(files, 2):
        if _apart(sheet[first], sheet[second]):
            continue
        both = [file for place, file in places[first].items() if place in places[second]]
        if both:
            yield f"samples '{first}' and '{second}' have the same images: {both[0]}{_more(both)}"
            continue
        one, other = pieces[first], pieces[second]
        alike = [(file, other[piece]) for piece, file in one.items() if piece in other]
        if 2 * len(alike) >= min(len(one), len(other)) > 0 and all(_equal(*pair) for pair in alike[:_CONFIRMED]):
            names = f"{alike[0][0]} and {alike[0][1]}{_more(alike)}"
            yield f"samples '{first}' and '{second}' may have the same images: {names} are equal where compared"


def copy_warnings(files: Mapping[str, list[str]]) -> Iterator[str]:
    """Find files of a sample that are links to another, or copies by name and content, such as `a (1).tif`."""
    for name, own in files.items():
        by_place, by_name = defaultdict(list), defaultdict(list)
        for file in own:
            by_place[_place(file)].append(file)
            by_name[_COPY.sub("", os.path.basename(file)).casefold()].append(file)
        same = [group[:2] for group in by_place.values() if len(group) > 1]
        for group in by_name.values():
            pairs = itertools.combinations(group[:_FILES], 2) if len(group) > 1 else ()
            copies = ([one, two] for one, two in pairs if _place(one) != _place(two) and _equal(one, two))
            same += itertools.islice(copies, 1)
        if same:
            pair = " and ".join(same[0])
            yield f"sample '{name}' has the same images twice: {pair}{_more(same)}"


def _more(found: list[Any]) -> str:
    return f" and {len(found) - 1} more" * (len(found) > 1)


def _place(file: str) -> Any:
    """Return what a file and all links to it have in common."""
    try:
        status = os.stat(file)
    except OSError:
        return os.path.realpath(file)
    return status.st_dev, status.st_ino


def _size(file: str) -> int:
    return os.path.getsize(file) if os.path.isfile(file) else 0


def _sizes(files: Mapping[str, list[str]], name: str) -> set[int]:
    """Return the sizes of the files of all other samples."""
    return {_size(file) for other, own in files.items() if other != name for file in own}


def _pieces(files: list[str], sizes: set[int]) -> dict[bytes, str]:
    """Return a digest of the size, beginning and middle of each file with one of these sizes."""
    found: dict[bytes, str] = {}
    for file in files[:_FILES]:
        size = _size(file)
        if size and size in sizes:
            digest = hashlib.blake2b(str(size).encode())
            for start in (0, size // 2):
                digest.update(read_piece(file, start, _PIECE))
            found.setdefault(digest.digest(), file)
    return found


def _equal(first: str, second: str) -> bool:
    """Whether two files have equal size and beginning."""
    start = read_piece(first, 0, _COMPARED) if 0 < _size(first) == _size(second) else b""
    return bool(start) and start == read_piece(second, 0, _COMPARED)


def _apart(first: Any, second: Any) -> bool:
    """Whether two samples read other datasets of a file, or other frames of it."""
    rows = (first, second)
    sources = [next(getattr(row, column) for column in IMAGE_COLUMNS if hasattr(row, column)) for row in rows]
    if split_source(sources[0])[1] != split_source(sources[1])[1]:
        return True
    spans = [(getattr(row, "start", None) or 0, getattr(row, "stop", None)) for row in rows]
    (start, stop), (other, end) = spans
    return (stop is not None and stop <= other) or (end is not None and end <= start)
