"""patches.h5: the training patches of one scan."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import hdf5plugin

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import new_dataset, new_hdf5, open_hdf5, read_array
from cathodeflow.io.patch_table import TrainingPatches

_TYPES = {"row": "f4", "col": "f4", "fidx": "i8", "peak": "i8", "error": "f4"}
_CHUNK = 512


def write_patches(
    path: str | os.PathLike[str], parts: Iterable[TrainingPatches], *, patch_size: int, max_shift: int, min_value: float
) -> int:
    """Write training patches part by part, with only one part in memory.

    Parameters
    ----------
    path : path
        HDF5 file: `patches` (n, size, size) float32, `row`, `col` float32, `fidx`, `peak` int64, `error` (n, 2)
        float32, and the keyword arguments as attributes; size is patch_size + 2 max_shift.
    parts : iterable of TrainingPatches
        `cathodeflow.bragg.training_patches.cut_training_patches`.
    patch_size, max_shift, min_value
        Options with which the patches were cut.

    Returns
    -------
    int
        Number of patches.
    """
    size, count = patch_size + 2 * max_shift, 0
    with new_hdf5(path) as file:
        file.attrs.update(patch_size=patch_size, max_shift=max_shift, min_value=min_value)
        compression: Mapping[str, Any] = hdf5plugin.Bitshuffle(cname="lz4")
        layout: dict[str, Any] = {
            "shape": (0, size, size),
            "maxshape": (None, size, size),
            "chunks": (_CHUNK, size, size),
        }
        new_dataset(file, "patches", dtype="f4", **layout, **compression)
        for name, kind in _TYPES.items():
            more = (2,) if name == "error" else ()
            new_dataset(file, name, shape=(0, *more), dtype=kind, maxshape=(None, *more), chunks=(8192, *more))
        for part in parts:
            stop = count + len(part.patches)
            for name, values in part._asdict().items():
                file[name].resize(stop, axis=0)
                file[name][count:stop] = values
            count = stop
            file.require_room()
    return count


def read_patches(path: str | os.PathLike[str]) -> tuple[TrainingPatches, dict[str, float]]:
    """Read the training patches of a scan and the options with which they were cut.

    Returns
    -------
    patches : TrainingPatches
    settings : dict
        patch_size, max_shift, min_value.

    Raises
    ------
    InputError
        The file is missing or has other content.
    """
    expected = "training patches (patches.h5)"
    with open_hdf5(path) as file, guarded(path, expected):
        table = TrainingPatches(*(read_array(file, name) for name in TrainingPatches._fields))
        missing = sorted({"patch_size", "max_shift", "min_value"} - set(file.attrs))
        if missing:
            raise InputError(path, f"no attribute {', '.join(missing)}", expected)
        settings = {name: file.attrs[name].item() for name in ("patch_size", "max_shift", "min_value")}
        size = int(settings["patch_size"]) + 2 * int(settings["max_shift"])
    n, shapes = table.patches.shape[:1], [column.shape for column in table]
    if shapes[0] != (*n, size, size) or any(shape != n for shape in shapes[1:-1]) or shapes[-1] != (*n, 2):
        raise InputError(
            path,
            f"datasets of shapes {shapes}",
            f"n patches of {size} x {size} pixels, (n, 2) of error and n of the rest",
        )
    return table, settings
