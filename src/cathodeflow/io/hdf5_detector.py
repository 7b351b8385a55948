"""What HDF5 and NeXus files say of the detector beside its frames: bad pixels, and the range of valid counts.

NeXus: `pixel_mask`, `saturation_value` and `underload_value` of NXdetector (https://manual.nexusformat.org). Dectris
keeps `pixel_mask` and `countrate_correction_count_cutoff` in the group detectorSpecific. CXI has `mask` beside `data`.
"""

import itertools
import math
from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import require_plain
from cathodeflow.io.hdf5_frames import FrameStack
from cathodeflow.io.hdf5_search import Node, node_identity, walk
from cathodeflow.io.invalid_pixels import bad_values
from cathodeflow.io.raw_format import CountLimits

_HIGHEST = ("saturation_value", "overload_value", "overload", "countrate_correction_count_cutoff")
_LOWEST = ("underload_value", "underload")
_MARKS = ("undefined_value", "undefined", "_FillValue", "missing_value")
# Groups in a detector's group that hold more about the same detector.
_PARTS = ("detectorspecific", "detector_specific", "collection")


def find_mask(file: h5py.File, stack: FrameStack) -> Node | None:
    """Find the mask of bad pixels that belongs to the frames, in the file itself or where its frames lie.

    Returns
    -------
    Node
        (row, col), or (frame, row, col) with one mask or one for each frame. None if there is no mask.

    Raises
    ------
    InputError
        There are masks of several detectors, and nothing says which one took the frames.
    """
    with guarded(file.filename, "a readable HDF5 file"):
        for nodes in _surroundings(file, stack):
            if (mask := _mask_among(nodes, file.filename, stack)) is not None:
                require_plain(mask.dataset, f"{file.filename}::{mask.path}")
                return mask
    return None


def _mask_among(nodes: list[Node], where: str, stack: FrameStack) -> Node | None:
    shapes = [stack.shape, (1, *stack.shape), (stack.n_frames, *stack.shape)]
    masks = [node for node in nodes if node.dataset.shape in shapes and node.dataset.dtype.kind in "biu"]
    own = {node_identity(dataset) for dataset in stack.datasets}
    data = {_parent(node.path) for node in nodes if node_identity(node.dataset) in own}
    found = [node for node in masks if _last(node.path) == "pixel_mask"]
    found += [node for node in masks if _last(node.path) == "mask" and _parent(node.path) in data]
    every = {_detector(node.path) for node in found}
    # The modules of a detector have groups in its own.
    detectors = {path for path in every if not any(path.startswith(f"{other}/") for other in every)}
    if len(detectors) > 1:
        inside = {name for name in detectors if any(path == name or path.startswith(f"{name}/") for path in data)}
        detectors = inside or detectors
    if len(detectors) > 1:
        names = ", ".join(node.path for node in found)
        raise InputError(where, f"masks of several detectors ({names})", "one of them as mask, and stored_mask: false")
    return next((node for node in found if _detector(node.path) in detectors), None)


def bad_pixels(mask: h5py.Dataset, number: int) -> NDArray[np.bool_]:
    """Read the bad pixels of a frame from a mask.

    Returns
    -------
    (row, col) bool
    """
    values = mask[()] if mask.ndim == 2 else mask[min(number, len(mask) - 1)]
    return bad_values(values)


def read_limits(file: h5py.File, stack: FrameStack) -> CountLimits:
    """Read the range of valid counts and the values of pixels without a count, as far as the file says."""
    with guarded(file.filename, "a readable HDF5 file"):
        found: dict[str, list[float]] = {}
        for node in itertools.chain.from_iterable(_surroundings(file, stack)):
            if node.dataset.size == 1 and _last(node.path) in (*_HIGHEST, *_LOWEST, *_MARKS):
                found.setdefault(_last(node.path), []).append(_number(node.dataset[()]))
        for dataset in stack.datasets:
            for name in (*_HIGHEST, *_LOWEST, *_MARKS):
                if name in dataset.attrs:
                    found.setdefault(name, []).append(_number(dataset.attrs[name]))
    known = {name: [value for value in values if math.isfinite(value)] for name, values in found.items()}
    highest = [value for name in _HIGHEST for value in known.get(name, []) if value > 0]
    lowest = [value for name in _LOWEST for value in known.get(name, [])]
    marks = {value for name in _MARKS for value in known.get(name, []) if value != 0}
    return CountLimits(tuple(sorted(marks)), max(lowest, default=None), min(highest, default=None))


def _number(value: Any) -> float:
    array = np.asarray(value)
    return float(array.reshape(-1)[0]) if array.size == 1 and array.dtype.kind in "biuf" else math.nan


def _surroundings(file: h5py.File, stack: FrameStack) -> Iterator[list[Node]]:
    """Yield the datasets of the entry that the frames belong to, in the file itself and in that where they lie.

    Where frames lie at the top of a file, this is all of it.
    """
    first = stack.datasets[0]
    places = [(file, stack.paths[0])]
    if first.file.filename != file.filename:
        places.append((first.file, first.name))
    for place, path in places:
        entry = "/" + path.strip("/").split("/")[0]
        start = entry if isinstance(place.get(entry), h5py.Group) else ""
        yield walk(place, start, images_only=False)[0]


def _detector(path: str) -> str:
    parent = _parent(path)
    return _parent(parent) if _last(parent).lower() in _PARTS else parent


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


def _last(path: str) -> str:
    return path.rpartition("/")[2]
