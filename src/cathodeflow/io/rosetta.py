"""Micrographs in formats that the optional package rosettasciio reads (extra `sem-formats`; it is under the GPL)."""

import importlib
import importlib.util
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.instrument_settings import parse_time

_NM = {"nm": 1.0, "um": 1e3, "µm": 1e3, "μm": 1e3, "mm": 1e6, "m": 1e9}


def require(path: str) -> None:
    """Require rosettasciio.

    Raises
    ------
    InputError
        It is not installed.
    """
    if importlib.util.find_spec("rsciio") is None:
        expected = "JPEG, PNG, TIFF or BMP, or the extra for further formats: pip install 'cathodeflow[sem-formats]'"
        raise InputError(path, f"a file of format {os.path.splitext(path)[1]}", expected)


def header(path: str) -> tuple[int, int, int, int]:
    """Read rows, columns, bits and channels of the one image in a file.

    Raises
    ------
    InputError
        It holds none or several.
    """
    data = _image(path)["data"]
    return int(data.shape[0]), int(data.shape[1]), 8 * int(data.dtype.itemsize), 1


def read(path: str) -> NDArray[Any]:
    """Read the (row, col) image of a file, of any number type."""
    return np.asarray(_image(path)["data"])


def settings(path: str) -> dict[str, Any]:
    """Read those settings of `cathodeflow.io.instrument_settings.SETTINGS` that the file tells."""
    found = _image(path)
    general = found["metadata"].get("General", {})
    instrument = found["metadata"].get("Acquisition_instrument", {}).get("SEM", {})
    axis = found["axes"][-1]
    factor = _NM.get(str(axis.get("units")))
    known = {
        "time": parse_time(str(general.get("date", "")), str(general.get("time", ""))),
        "magnification": instrument.get("magnification"),
        "voltage_kv": instrument.get("beam_energy"),
        "pixel_nm": float(axis["scale"]) * factor if factor else None,
        "focus": instrument.get("working_distance"),
        "maker": instrument.get("microscope"),
    }
    return {key: value for key, value in known.items() if value is not None}


def _image(path: str) -> dict[str, Any]:
    suffix = os.path.splitext(path)[1][1:].lower()
    plugins = importlib.import_module("rsciio").IO_PLUGINS
    plugin = next(plugin for plugin in plugins if suffix in plugin["file_extensions"])
    # Lazily, so that the shape is known before memory is taken.
    signals = importlib.import_module(plugin["api"]).file_reader(path, lazy=True)
    images = [signal for signal in signals if signal["data"].ndim == 2 and signal["data"].dtype.kind in "buif"]
    if len(images) != 1:
        raise InputError(path, f"{len(images)} grey images", "one in a file")
    return images[0]
