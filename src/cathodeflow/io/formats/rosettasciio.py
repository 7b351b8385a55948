"""Micrographs in formats that the optional package rosettasciio reads (extra `sem-formats`; it is under the GPL)."""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import TYPE_CHECKING, Any

from cathodeflow.errors import InputError
from cathodeflow.io.instruments.values import NM, parse_time
from cathodeflow.io.raw_format import ImageHeader, ImageReader, RawFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray


def _image_header(path: str) -> ImageHeader:
    data = _image(path)["data"]
    return ImageHeader(int(data.shape[0]), int(data.shape[1]), 8 * int(data.dtype.itemsize), 1)


def _read_image(path: str) -> NDArray[Any]:
    import numpy as np

    return np.asarray(_image(path)["data"])


def _settings(path: str) -> dict[str, Any]:
    found = _image(path)
    general = found["metadata"].get("General", {})
    instrument = found["metadata"].get("Acquisition_instrument", {}).get("SEM", {})
    axis = found["axes"][-1]
    factor = NM.get(str(axis.get("units")))
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
    if importlib.util.find_spec("rsciio") is None:
        expected = "JPEG, PNG, TIFF or BMP, or the extra for further formats: pip install 'cathodeflow[sem-formats]'"
        raise InputError(path, f"a file of format .{suffix}", expected)
    plugins = importlib.import_module("rsciio").IO_PLUGINS
    plugin = next(plugin for plugin in plugins if suffix in plugin["file_extensions"])
    # Lazily, so that the shape is known before memory is taken.
    signals = importlib.import_module(plugin["api"]).file_reader(path, lazy=True)
    images = [signal for signal in signals if signal["data"].ndim == 2 and signal["data"].dtype.kind in "buif"]
    if len(images) != 1:
        raise InputError(path, f"{len(images)} grey images", "one grey image per file")
    return images[0]


FORMAT = RawFormat(
    name="rosettasciio",
    suffixes=(".dm3", ".dm4", ".emd", ".hspy", ".bcf"),
    by_suffix=True,
    micrograph=ImageReader(_image_header, _read_image, _settings),
)
