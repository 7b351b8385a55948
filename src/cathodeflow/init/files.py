"""Raw files of a folder in groups of the same kind, from their names and headers."""

import glob
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from natsort import natsorted

from cathodeflow.errors import InputError
from cathodeflow.io.frames import read_header
from cathodeflow.io.image_lists import is_image, sidecar_file
from cathodeflow.io.micrographs import instrument_settings
from cathodeflow.io.raw_format import VoxelSize
from cathodeflow.io.slices import open_stack
from cathodeflow.io.sources import folder_files, is_store

#: Words in the names of files and folders that say what they are.
WORDS = {
    "dark": ("dark", "darks", "darkfield", "bkg", "background"),
    "flat": ("flat", "flats", "flatfield", "whitefield", "white", "wf"),
    "mask": ("mask", "masks", "badpixels"),
    "labels": ("label", "labels", "seg", "segmentation", "segmented", "groundtruth", "gt", "annotation", "annotations"),
}
#: Suffixes of files that hold no images, and of files without a header, whose size options must give.
TEXTS = (".txt", ".hdr", ".csv", ".tsv", ".xlsx", ".md", ".json", ".log", ".pdf", ".py", ".out", ".html", ".cif")
GEOMETRIES = (".poni", ".yml", ".yaml", ".hexrd")
MODELS = (".pth", ".pt", ".onnx", ".safetensors")
HEADERLESS = (".raw", ".vol", ".bin", ".dat", ".img")
_HDF5 = (".h5", ".hdf5", ".hdf", ".nxs")
_DEPTH = 4
# Headers that are read of files with the same name except for numbers.
_HEADERS = 3


class Group(NamedTuple):
    """Files of a folder with images of the same size and type.

    Attributes
    ----------
    folder : str
    files : tuple of str
        In natural order.
    source : str
        The files as a sample sheet names them: a folder, a pattern or a file.
    word : str
        What their names say: a key of `WORDS`, or "".
    n : int
        Number of images: frames, slices or micrographs.
    shape : (int, int)
        Rows and columns [px].
    dtype, format : str
    coloured : bool
    voxel : VoxelSize, optional
        As stated in the files.
    settings : dict
        Settings of an electron microscope that the first file or its sidecar states.
    """

    folder: str
    files: tuple[str, ...]
    source: str
    word: str
    n: int
    shape: tuple[int, int]
    dtype: str
    format: str
    coloured: bool
    voxel: VoxelSize | None
    settings: dict[str, Any]

    def text(self) -> str:
        """Describe the group in one line."""
        number = f"{self.n} image{'s' * (self.n != 1)} in {len(self.files)} file{'s' * (len(self.files) != 1)}"
        colours = ", with colours" * self.coloured
        return f"{number}, {self.shape[0]} x {self.shape[1]} px, {self.dtype}{colours}, {self.format}"


class Contents(NamedTuple):
    """What a folder and its subfolders hold.

    Attributes
    ----------
    groups : list of Group
    spec : list of str
        SPEC files.
    geometries : list of str
        Files that may describe a detector.
    unused : list of (str, str)
        Files that are not used, and why.
    """

    groups: list[Group]
    spec: list[str]
    geometries: list[str]
    unused: list[tuple[str, str]]


def look(folder: str) -> Contents:
    """Read the names and headers of the files of a folder and its subfolders; no image is decoded.

    Raises
    ------
    InputError
        There is no such folder.
    """
    if not os.path.isdir(folder):
        found = "a file" if os.path.exists(folder) else "no such folder"
        raise InputError(folder, found, "a folder of raw data")
    contents = Contents([], [], [], [])
    for here, files in _folders(os.path.normpath(folder), 0):
        images = []
        for path in files:
            suffix = os.path.splitext(path)[1].lower()
            if suffix in (".spec", ".spc"):
                contents.spec.append(path)
            elif suffix in GEOMETRIES:
                contents.geometries.append(path)
            elif suffix in MODELS:
                contents.unused.append((path, "a model or weights; to use it, name it in the option `model`"))
            elif suffix in HEADERLESS and not is_store(path):
                reason = "a file without a header: give its size and type in the options `raw` of its technique"
                contents.unused.append((path, reason))
            elif suffix not in TEXTS:
                images.append(path)
        groups, unused = _groups(here, images, alone=len(images) == len(files) or _only_sidecars(images, files))
        contents.groups.extend(groups)
        contents.unused.extend(unused)
    return contents


def word_of(name: str) -> str:
    """Return what a name says of a file or folder: a key of `WORDS`, or "".

    Examples
    --------
    >>> word_of("dark_003"), word_of("Pixel-Mask"), word_of("darkblue_electrode"), word_of("labels")
    ('dark', 'mask', '', 'labels')
    """
    parts = re.split(r"[^a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    return next((key for key, words in WORDS.items() if any(part in words for part in parts)), "")


def _folders(folder: str, depth: int) -> Iterator[tuple[str, list[str]]]:
    """Yield folders and their files; a Zarr store counts as a file."""
    with os.scandir(folder) as entries:
        below = natsorted(entry.path for entry in entries if entry.is_dir() and not entry.name.startswith("."))
    stores = [path for path in below if is_store(path)]
    yield folder, natsorted([*folder_files(folder), *stores])
    for path in below if depth < _DEPTH else []:
        if path not in stores:
            yield from _folders(path, depth + 1)


def _only_sidecars(images: list[str], files: list[str]) -> bool:
    """Whether all other files of a folder are texts of its images, which are no files of a series of micrographs."""
    sidecars = {sidecar_file(path) for path in images}
    return all(is_image(path) for path in images) and set(files) - set(images) <= sidecars


def _groups(folder: str, files: list[str], *, alone: bool) -> tuple[list[Group], list[tuple[str, str]]]:
    """Group the files of a folder by what their names say, suffix, size and type."""
    alike: dict[tuple[str, str, str], list[str]] = {}
    for path in files:
        stem, suffix = os.path.splitext(os.path.basename(path))
        word = word_of(stem) or word_of(os.path.basename(folder))
        alike.setdefault((word, suffix.lower(), re.sub(r"\d+", "0", stem)), []).append(path)
    found: dict[tuple[Any, ...], list[tuple[str, Any]]] = {}
    unused: list[tuple[str, str]] = []
    linked: set[str] = set()
    for (word, suffix, _), paths in alike.items():
        # A file of many frames is a scan for itself, so each is read; of numbered images some are enough.
        header = None
        some = {*paths[: _HEADERS - 1], paths[-1]}
        for path in paths:
            if path in some or suffix in _HDF5 or (header is not None and header.n_slices > 1):
                try:
                    header = open_stack(path)
                    if suffix in _HDF5:
                        linked |= set(map(os.path.realpath, read_header(path).linked))
                except InputError as error:
                    unused.append((path, f"found {error.found}, expected {error.expected}"))
                    continue
            if header is not None:
                kind = (word, suffix, header.shape, str(header.files[0].dtype), header.files[0].coloured)
                apart = (path,) if header.n_slices > 1 else ()
                found.setdefault((*kind, *apart), []).append((path, header))
    made = []
    kept = {key: [one for one in pairs if os.path.realpath(one[0]) not in linked] for key, pairs in found.items()}
    kept = {key: pairs for key, pairs in kept.items() if pairs}
    for (word, *_), pairs in kept.items():
        paths, first = natsorted(path for path, _ in pairs), pairs[0][1]
        source = folder if alone and len(kept) == 1 and len(paths) == len(files) > 1 else as_source(folder, paths)
        n = sum(header.n_slices for _, header in pairs)
        one = first.files[0]
        made.append(
            Group(folder, tuple(paths), source, word, n, one.shape, str(one.dtype), one.format, one.coloured,
                  first.voxel, _settings(paths[0]))
        )  # fmt: skip
    return made, unused


def as_source(folder: str, paths: Sequence[str]) -> str:
    """Return a file, or a pattern that matches just these files of a folder; the folder if there is none."""
    if len(paths) == 1:
        return paths[0]
    names = [os.path.basename(path) for path in paths]
    start, suffix = _beginning(names), os.path.splitext(names[0])[1]
    end = _beginning([name[::-1] for name in names])[::-1]
    for pattern in (f"{start.rstrip('0123456789')}*{suffix}", f"{start}*{suffix}", f"{start}*{end}"):
        source = os.path.join(glob.escape(folder), re.sub(r"([\[?])", r"[\1]", pattern))
        if set(glob.glob(source)) == set(paths):
            return source
    return folder


def _beginning(names: Sequence[str]) -> str:
    """Return the letters that all names begin with."""
    first, last = min(names), max(names)
    return first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]


def _settings(path: str) -> dict[str, Any]:
    try:
        return instrument_settings(path) if is_image(path) else {}
    except InputError:
        return {}
