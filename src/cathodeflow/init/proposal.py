"""A proposed section of the configuration, and what several techniques need to write one."""

import os
import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from cathodeflow.init.files import Group, word_of

# Names of folders that say nothing of their contents.
_GENERAL = ("data", "frames", "image", "images", "img", "imgs", "raw", "slices", "tif", "tiff", "tiffs")


class Proposal(NamedTuple):
    """The section and sample sheet of a technique.

    Attributes
    ----------
    technique : str
    why : str
        What speaks for this technique.
    columns : tuple of str
        Columns of the sample sheet.
    rows : list of dict
        Cells by column.
    options : list of str
        Lines of the section below `samples`, without indentation; comments begin with `#`.
    found : list of str
        What was found, one line each.
    unknown : list of str
        What the files do not state, and where to write it.
    """

    technique: str
    why: str
    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    options: list[str]
    found: list[str]
    unknown: list[str]


class Names:
    """Names of samples, each given once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def give(self, group: Group, *, by_file: bool) -> str:
        """Name a sample by its file, or by its folder; a number is added to a name that is taken."""
        folder = group.folder
        while os.path.basename(folder).casefold() in _GENERAL:
            folder = os.path.dirname(folder)
        base = os.path.basename(group.files[0]).split(".")[0] if by_file else os.path.basename(folder)
        name = re.sub(r"[^A-Za-z0-9_.-]+", "_", base).lstrip("_.-")[:90] or "sample"
        number, free = 2, name
        while free.casefold() in self._taken:
            free, number = f"{name}_{number}", number + 1
        self._taken.add(free.casefold())
        return free


def quoted(text: str) -> str:
    """Quote a text for YAML.

    Examples
    --------
    >>> quoted("user's data")
    "'user''s data'"
    """
    return "'" + text.replace("'", "''") + "'"


def nearest(files: Iterable[str], folder: str) -> str | None:
    """Return the first file in a folder or in the nearest of those above it; None if there is none."""
    known = sorted(files)
    above = os.path.normpath(folder)
    while True:
        if here := [path for path in known if os.path.normpath(os.path.dirname(path)) == above]:
            return here[0]
        if above in (os.path.dirname(above), ""):
            return None
        above = os.path.dirname(above)


def correction(groups: Sequence[Group], word: str, group: Group) -> str | None:
    """Return the source of a dark image, flat field or mask that lies beside the files of a group, or above them."""
    sources = {one.files[0]: one.source for one in groups if one.word == word}
    # A folder `dark` beside the folder of the frames counts as if its files lay beside it.
    places = {os.path.join(_place(path, word), os.path.basename(path)): source for path, source in sources.items()}
    found = nearest(places, group.folder)
    return places[found] if found else None


def _place(path: str, word: str) -> str:
    folder = os.path.dirname(path)
    return os.path.dirname(folder) if word_of(os.path.basename(folder)) == word else folder
