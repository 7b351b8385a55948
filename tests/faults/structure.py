"""Damage that leaves a file well-formed: other values in JSON, other datasets and attributes in HDF5."""

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np

JSON_VALUES = (None, True, 0, -1, 3, 24_000_000, 1e300, float("nan"), "", "x", [], [0], [[]], {}, {"a": None})
HDF5_VALUES: tuple[Any, ...] = (
    0, 3.5, -1, float("nan"), 10**18, "x", b"\xff\xfe", True, 1j, np.zeros(0), np.zeros(2), np.zeros((2, 2, 2, 2)),
    np.full(3, np.nan), np.array([b"a", b"b"]), np.array([2**63], np.uint64), h5py.Empty("f4"), None,
)  # fmt: skip


def other_json(path: Path, where: int, what: int) -> None:
    """Replace one value, of any depth, or remove it."""
    try:
        content = json.loads(path.read_bytes())
    except ValueError:
        return
    holders = list(_holders([content]))
    holder, key = holders[where % len(holders)]
    if what % (len(JSON_VALUES) + 1) == len(JSON_VALUES) and isinstance(holder, dict):
        del holder[key]
    else:
        holder[key] = JSON_VALUES[what % len(JSON_VALUES)]
    if holders[0][0][0] is not None:
        path.write_text(json.dumps(holders[0][0][0]))


def _holders(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        yield value, key
        yield from _holders(value[key])


def other_hdf5(path: Path, where: int, what: int) -> None:
    """Replace one dataset, group or attribute, or remove it."""
    value = HDF5_VALUES[what % len(HDF5_VALUES)]
    with (
        suppress(OSError, RuntimeError, KeyError, ValueError, TypeError, ZeroDivisionError),
        h5py.File(path, "r+") as file,
    ):
        names: list[str] = []
        file.visit(names.append)
        items = [(name, None) for name in names]
        items += [(name, attribute) for name in ["/", *names] for attribute in file[name].attrs]
        name, attribute = items[where % len(items)]
        # Damaged so much that it has nothing: ZeroDivisionError.
        holder, key = (file, name) if attribute is None else (file[name].attrs, attribute)
        del holder[key]
        if value is not None:
            holder[key] = value
