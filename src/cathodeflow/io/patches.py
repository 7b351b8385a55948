"""patches.h5: the training patches of one scan."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import h5py
import hdf5plugin
import numpy as np

from cathodeflow.bragg.patches import TrainingPatches
from cathodeflow.errors import InputError
from cathodeflow.io.atomic import atomic_path

_TYPES = {"row": "f4", "col": "f4", "fidx": "i8", "peak": "i8"}
_CHUNK = 512


def write_patches(
    path: str | os.PathLike[str], parts: Iterable[TrainingPatches], *, patch_size: int, max_shift: int, min_value: float
) -> int:
    """Write training patches as they come, so that memory holds one part at a time.

    Parameters
    ----------
    path : path
        HDF5 file: `patches` (n, size, size) float32, `row`, `col` float32, `fidx`, `peak` int64, and the keyword
        arguments as attributes; size is patch_size + 2 max_shift.
    parts : iterable of TrainingPatches
        `cathodeflow.bragg.patches.cut_training_patches`.
    patch_size, max_shift, min_value
        What the patches were cut with.

    Returns
    -------
    int
        Number of patches.
    """
    size, count = patch_size + 2 * max_shift, 0
    with atomic_path(path) as temporary, h5py.File(temporary, "w") as file:
        file.attrs.update(patch_size=patch_size, max_shift=max_shift, min_value=min_value)
        compression: Mapping[str, Any] = hdf5plugin.Bitshuffle(cname="lz4")
        file.create_dataset(
            "patches", (0, size, size), "f4", maxshape=(None, size, size), chunks=(_CHUNK, size, size), **compression
        )
        for name, kind in _TYPES.items():
            file.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(8192,))
        for part in parts:
            stop = count + len(part.patches)
            for name, values in part._asdict().items():
                file[name].resize(stop, axis=0)
                file[name][count:stop] = values
            count = stop
    return count


def read_patches(path: str | os.PathLike[str]) -> tuple[TrainingPatches, dict[str, float]]:
    """Read the training patches of a scan and what they were cut with.

    Returns
    -------
    patches : TrainingPatches
    settings : dict
        patch_size, max_shift, min_value.

    Raises
    ------
    InputError
        When the file is missing or is no such table.
    """
    expected = "training patches (patches.h5)"
    try:
        with h5py.File(path, "r") as file:
            table = TrainingPatches(*(np.asarray(file[name][:]) for name in TrainingPatches._fields))
            settings = {name: file.attrs[name].item() for name in ("patch_size", "max_shift", "min_value")}
    except (OSError, KeyError, AttributeError, TypeError) as error:
        found = "no file" if not os.path.exists(path) else f"something else ({str(error).splitlines()[0][:100]})"
        raise InputError(path, found, expected) from None
    return table, settings
