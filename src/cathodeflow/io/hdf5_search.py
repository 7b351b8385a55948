"""Where an HDF5 or NeXus file of others has its frames: the datasets, which may lie in other files, in their order.

A path always leads from the file itself, through its links, so that it can be opened again. What NeXus and the
detectors of Dectris store beside the frames - pixel mask, flat field, corrections - is never taken for frames.
"""

import os
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import h5py
import numpy as np

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import find_node, follow

# Names of images that are no frames (NeXus: NXdetector; Dectris: detectorSpecific; CXI).
_NO_FRAMES = re.compile(
    r".*mask(_\w*)?|.*(flat|white|dark)_?(field|frame|image|current)?s?(_\w*)?|.*pedestals?|.*bad_?pixels?|.*trim_?bits?"
    r"|.*_table|.*correction\w*|.*_?errors?|.*uncertaint\w*|.*variances?|.*_offset\w*|.*(efficiency|gain)(_?map)?"
    r"|invalid_pixels|polar_angle|azimuthal_angle",
    re.IGNORECASE,
)
# Parts of a detector file, which are never all that it has.
_NEXUS_PART = re.compile(r"pixel_mask|flat_?field|/instrument|detector", re.IGNORECASE)
_MASKS = re.compile(r".*mask|.*bad_?pixels?", re.IGNORECASE)
_IMAGES = re.compile(r".*(flat|white|dark)_?(field|frame|image|current)?s?", re.IGNORECASE)
# Dectris writes data_000001, data_000002, ..., each of many frames.
_NUMBERED = re.compile(r"data_?(\d+)")
_MAX_NODES = 100_000
_MAX_NAMED = 8


class Found(NamedTuple):
    """Datasets of frames.

    Attributes
    ----------
    name : str
        Path of the dataset, or of the group whose numbered datasets follow each other.
    paths : tuple of str
        Paths of the datasets, in the order of their frames.
    """

    name: str
    paths: tuple[str, ...]


class Node(NamedTuple):
    """A dataset: its path from the file that was opened, and the dataset itself."""

    path: str
    dataset: h5py.Dataset


def find_frames(file: h5py.File, name: str | None) -> Found:
    """Find the frames: those that are named, else the NeXus default, else the only ones that there are.

    Numbered datasets in one group, as Dectris writes them (data_000001, ...), are one series. It is named by its group;
    one of its datasets can be named alone.

    Raises
    ------
    InputError
        They are missing, ambiguous, or no frames, or a link that may lead to them cannot be followed.
    """
    where = f"{file.filename}::{name}" if name else file.filename
    with guarded(where, "a readable HDF5 file"):
        return _named(file, name, where) if name else _unnamed(file)


def numbered_datasets(file: h5py.File, name: str | None) -> tuple[str, ...]:
    """List the numbered datasets of a group that can be reached, up to the first one that is missing.

    Parameters
    ----------
    file : h5py.File
    name : str, optional
        The group. Default: the only group of the file itself that has numbered datasets or links to them.

    Returns
    -------
    tuple of str
        Their paths; none where there is no such group, or several.
    """
    groups: list[str] = []

    def visit(path: str, node: h5py.Group | h5py.Dataset) -> None:
        if isinstance(node, h5py.Group) and any(map(_NUMBERED.fullmatch, node)):
            groups.append(f"/{path}")

    with guarded(file.filename, "a readable HDF5 file"):
        file.visititems(visit)
        if name is not None:
            groups = [group for group in groups if group.strip("/") == name.strip("/")]
        if len(groups) != 1:
            return ()
        names = sorted((int(match[1]), each) for each in file[groups[0]] if (match := _NUMBERED.fullmatch(each)))
        found: list[str] = []
        for _, each in names:
            path = f"{groups[0]}/{each}"
            try:
                node = find_node(file, path)
            except InputError:
                break
            if not isinstance(node, h5py.Dataset):
                break
            found.append(path)
        return tuple(found)


def find_correction(file: h5py.File, *, mask: bool) -> str | None:
    """Find the one mask, or dark or flat image, of a file by the names of its datasets; None if there is no such one.

    A file with one image only needs no name for it.
    """
    with guarded(file.filename, "a readable HDF5 file"):
        nodes, _ = walk(file, "", images_only=True)
        called = _MASKS if mask else _IMAGES
        matching = [node for node in nodes if called.fullmatch(_last(node.path))]
        found = matching if len(nodes) > 1 else nodes
        return found[0].path if len(found) == 1 else None


def _named(file: h5py.File, name: str, where: str) -> Found:
    node = find_node(file, name)
    if node is None:
        nodes, _ = walk(file, "", images_only=True)
        listed = ", ".join(node.path for node in nodes[:_MAX_NAMED])
        raise InputError(where, "no such dataset", f"one of {listed}" if listed else "a dataset")
    if isinstance(node, h5py.Dataset):
        return Found(name, (name,))
    series = _series(file, name.rstrip("/") or "/", where)
    if series is None:
        raise InputError(where, "a group", "a dataset")
    return series


def _unnamed(file: h5py.File) -> Found:
    above, signal = _nexus_default(file)
    if signal is not None:
        group = _parent(signal) or "/"
        series = _series(file, group, file.filename) if _NUMBERED.fullmatch(_last(signal)) else None
        return series or Found(signal, (signal,))
    for start in dict.fromkeys((above, "")):
        nodes, broken = walk(file, start, images_only=True)
        frames = [node for node in nodes if not _NO_FRAMES.fullmatch(_last(node.path))]
        broken = [(path, error) for path, error in broken if not _NO_FRAMES.fullmatch(_last(path))]
        if frames or broken:
            break
    if broken:
        # Behind a link that leads nowhere may be the frames, or part of them.
        error = broken[0][1]
        expected = "all files that it links to, or the name of the frames as FILE::/PATH"
        raise InputError(f"{file.filename}::{broken[0][0]}", error.found, expected)
    if not frames and len(nodes) == 1 and not _NEXUS_PART.search(nodes[0].path):
        # A file of its own, such as one of labels that are called `mask`.
        frames = nodes
    groups = {_parent(node.path) for node in frames}
    choices: list[Found] = []
    for group in sorted(groups):
        here = [node for node in frames if _parent(node.path) == group]
        single = [node for node in here if not _NUMBERED.fullmatch(_last(node.path))]
        series = _series(file, group or "/", file.filename) if len(single) < len(here) else None
        if series and len(single) == 1 and _is_whole(single[0].dataset, file, series):
            series = None
        choices += [Found(node.path, (node.path,)) for node in single] + ([series] if series else [])
    likely = _likely(file, choices)
    if len(likely) == 1:
        return likely[0]
    expected = "one 2-D or 3-D dataset of numbers, or its name as FILE::/PATH"
    if choices:
        names = ", ".join(choice.name for choice in choices[:_MAX_NAMED])
        raise InputError(file.filename, f"{len(choices)} datasets that could be frames ({names})", expected)
    others = ", ".join(node.path for node in nodes[:_MAX_NAMED])
    raise InputError(file.filename, f"no frames, but {others}" if others else "none", expected)


def _nexus_default(file: h5py.File) -> tuple[str, str | None]:
    """Follow the attributes `default` down to a group, then `signal` to its dataset (NeXus manual, NXdata).

    Returns the path of the last group, and that of the dataset; None if there is none that can hold frames.
    """
    node: Any = file["/"]
    path = ""
    for _ in range(8):
        name = _text(node.attrs.get("signal")) or _text(node.attrs.get("default"))
        if not name:
            break
        below = follow(node, name, f"{file.filename}::{path}/{name}")
        if below is None:
            break
        path = f"/{name.strip('/')}" if name.startswith("/") else f"{path}/{name.strip('/')}"
        if isinstance(below, h5py.Dataset):
            # Of a scan that is plotted as a curve, the frames are another dataset.
            return _parent(path), path if _is_image(below) else None
        node = below
    return path, None


def _text(value: Any) -> str:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.item()
    return value.decode(errors="replace") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def _series(file: h5py.File, group: str, where: str) -> Found | None:
    """Return the numbered datasets of a group in their order; None if it has none.

    Raises
    ------
    InputError
        One of them is missing, cannot be reached, or differs from the first in the shape or type of its frames.
    """
    node = find_node(file, group)
    if not isinstance(node, h5py.Group):
        return None
    numbered = sorted((int(match[1]), name) for name in node if (match := _NUMBERED.fullmatch(name)))
    prefix = group.rstrip("/")
    linked = [(number, f"{prefix}/{name}", follow(node, name, f"{where}::{name}")) for number, name in numbered]
    members = [(*place, node) for *place, node in linked if isinstance(node, h5py.Dataset) and _is_image(node)]
    if not members:
        return None
    (first, _, model), *_ = members
    whole = "all numbers, or the name of one dataset as FILE::/PATH"
    for expected, (number, path, dataset) in enumerate(members, first):
        if number != expected:
            raise InputError(f"{file.filename}::{path}", f"no dataset of number {expected} before it", whole)
        if dataset.shape[-2:] != model.shape[-2:] or dataset.dtype != model.dtype:
            found = f"{dataset.dtype} of {dataset.shape[-2:]} pixels"
            raise InputError(f"{file.filename}::{path}", found, f"{model.dtype} of {model.shape[-2:]}, as in the first")
    paths = tuple(path for _, path, _ in members)
    return Found(paths[0] if len(paths) == 1 else group, paths)


def _likely(file: h5py.File, choices: list[Found]) -> list[Found]:
    """Prefer what NeXus files of older versions mark by `signal` = 1, and a series of frames to single images."""
    if len(choices) < 2:
        return choices
    first = [(choice, find_node(file, choice.paths[0])) for choice in choices]
    known = [(choice, node) for choice, node in first if isinstance(node, h5py.Dataset)]
    marked = [choice for choice, node in known if np.array_equal(node.attrs.get("signal", 0), 1)]
    series = [choice for choice, node in known if node.ndim > 2]
    return marked if len(marked) == 1 else series if len(series) == 1 else choices


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _last(path: str) -> str:
    return path.rpartition("/")[2]


def _is_whole(dataset: h5py.Dataset, file: h5py.File, series: Found) -> bool:
    """Whether a virtual dataset puts a series together."""
    parts = [find_node(file, path) for path in series.paths]
    return bool(dataset.is_virtual and dataset.shape[0] == sum(len(part) for part in parts if part is not None))


def _is_image(dataset: h5py.Dataset) -> bool:
    """Whether a dataset can hold frames: axes of length 1 before the rows and columns do not count."""
    return dataset.ndim >= 2 and dataset.dtype.kind in "biuf" and sum(length != 1 for length in dataset.shape[:-2]) <= 1


def walk(file: h5py.File, start: str, *, images_only: bool) -> tuple[list[Node], list[tuple[str, InputError]]]:
    """List the datasets of a file below a path, through its links, each once.

    Returns
    -------
    nodes : list of Node
        In the order of their paths; with `images_only` those that can hold frames.
    broken : list of (str, InputError)
        Paths of links that cannot be followed, and why.
    """
    nodes: list[Node] = []
    broken: list[tuple[str, InputError]] = []
    seen: set[tuple[str, int]] = set()

    def visit(group: h5py.Group, path: str) -> Iterator[tuple[h5py.Group, str]]:
        for name in group:
            below = f"{path}/{name}"
            try:
                node = follow(group, name, f"{file.filename}::{below}")
                if node is None:
                    raise InputError(f"{file.filename}::{below}", "a link whose target is missing", "a dataset")
            except InputError as error:
                broken.append((below, error))
                continue
            identity = node_identity(node)
            if identity in seen:
                continue
            seen.add(identity)
            if isinstance(node, h5py.Group):
                yield node, below
            elif isinstance(node, h5py.Dataset) and (_is_image(node) or not images_only):
                nodes.append(Node(below, node))
        if len(seen) > _MAX_NODES:
            raise InputError(file.filename, f"more than {_MAX_NODES} groups and datasets", "the name of the dataset")

    first = find_node(file, start or "/")
    waiting = [(first, start)] if isinstance(first, h5py.Group) else []
    while waiting:
        group, path = waiting.pop()
        waiting += visit(group, path)
    return sorted(nodes, key=lambda node: node.path), broken


def node_identity(node: h5py.Group | h5py.Dataset) -> tuple[str, int]:
    """Give the file and address of a group or dataset: equal for the same one reached by two paths."""
    return os.path.realpath(node.file.filename), h5py.h5o.get_info(node.id).addr
