"""PONI files of pyFAI: the point of normal incidence, the distance to it and three rotations of the detector.

pyFAI counts axis 1 up, 2 to the right as seen along the beam, 3 along the beam. The rotations about 1 and 2 are
left-handed, that about 3 is right-handed, and they are applied in the order 1, 2, 3 (Kieffer et al., J. Synchrotron
Rad. 27, 558, 2020; pyFAI manual, "Default geometry in pyFAI").
"""

import json
import os
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.atomic import atomic_path
from cathodeflow.io.detector_geometry import HC_KEV_ANGSTROM, DetectorGeometry
from cathodeflow.io.text import read_lines

_EXPECTED = "a PONI file of pyFAI"
# Sides of the pixels of detectors that a PONI file may only name [m], by the first letters of the name.
_PIXELS = {"pilatus4": 150e-6, "pilatus": 172e-6, "eiger": 75e-6, "dexela": 75e-6, "lambda": 55e-6}
# Rows of pyFAI's axes in the laboratory frame: x is -2, y is 1, z is 3.
_TO_LAB = np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])


def read_poni(path: str, *, shape: tuple[int, int] | None = None) -> DetectorGeometry:
    """Read a PONI file, of any version.

    Parameters
    ----------
    path : str
    shape : (int, int), optional
        (row, col) of the raw frames [px]; needed for orientations other than 3 if the file has none.

    Raises
    ------
    InputError
        A value is missing or wrong, the pixel size of the detector is not known, or it has distortion.
    """
    fields: dict[str, str] = {}
    for _, line in read_lines(path, _EXPECTED):
        name, colon, value = line.partition(":")
        if colon:
            # pyFAI appends to a file: the last value counts.
            fields[name.strip().lower()] = value.strip()
    config = _config(path, fields.get("detector_config", "{}"))
    described = [config.get("splineFile"), config.get("filename"), fields.get("splinefile")]
    if by := next((name for name in described if name not in (None, "", "None")), None):
        raise InputError(path, f"a detector described by {by}", "a flat detector of equal pixels")
    distance, poni1, poni2 = (_number(path, fields, name) for name in ("distance", "poni1", "poni2"))
    rotations = [_number(path, fields, f"rot{axis}", 0.0) for axis in (1, 2, 3)]
    size1, size2 = _pixel_sizes(path, fields, config)
    try:
        stored = config.get("max_shape") or shape
        size = (int(stored[0]), int(stored[1])) if stored else None
        # Row 0 of a file of orientation 3, the default, is the lowest; the others are reversed (EXIF's numbers).
        orientation = int(config.get("orientation") or 3)
    except (TypeError, ValueError, IndexError, KeyError):
        raise InputError(
            path, f"Detector_config {config}"[:200], "max_shape [rows, columns], orientation 1-4"
        ) from None
    if orientation not in (1, 2, 3, 4):
        raise InputError(path, f"orientation {orientation}", "1, 2, 3 or 4")
    reversed_rows, reversed_cols = orientation in (1, 2), orientation in (1, 4)
    if (reversed_rows or reversed_cols) and size is None:
        raise InputError(path, f"orientation {orientation} and no max_shape", "max_shape in Detector_config")
    first = np.array([0.5 * size1 - poni1, 0.5 * size2 - poni2, distance])
    row_step, col_step = np.array([size1, 0.0, 0.0]), np.array([0.0, size2, 0.0])
    if size is not None and reversed_rows:
        first, row_step = first + (size[0] - 1) * row_step, -row_step
    if size is not None and reversed_cols:
        first, col_step = first + (size[1] - 1) * col_step, -col_step
    to_lab = _TO_LAB @ _rotation(*rotations)
    wavelength = _number(path, fields, "wavelength", 0.0)
    energy = HC_KEV_ANGSTROM / (wavelength * 1e10) if wavelength else None
    beam = np.array([0.0, 0.0, 1.0])
    return DetectorGeometry(path, to_lab @ first, to_lab @ row_step, to_lab @ col_step, beam, energy, size)


def write_poni(
    path: str | os.PathLike[str],
    *,
    distance: float,
    beam: tuple[float, float],
    pixel_size: float,
    wavelength: float,
    shape: tuple[int, int],
) -> None:
    """Write a PONI file (version 2.1) of a detector at right angles to the beam.

    Parameters
    ----------
    path : path
    distance : float
        From the sample to the detector [m].
    beam : (float, float)
        (row, col) at which the primary beam meets the plane of the detector [px].
    pixel_size : float
        Side of a pixel [m].
    wavelength : float
        [Angstrom].
    shape : (int, int)
        (row, col) of the frames [px].
    """
    detector = {"pixel1": pixel_size, "pixel2": pixel_size, "max_shape": list(shape), "orientation": 3}
    fields = {
        "poni_version": 2.1,
        "Detector": "Detector",
        "Detector_config": json.dumps(detector),
        "Distance": distance,
        "Poni1": (beam[0] + 0.5) * pixel_size,
        "Poni2": (beam[1] + 0.5) * pixel_size,
        "Rot1": 0.0,
        "Rot2": 0.0,
        "Rot3": 0.0,
        "Wavelength": wavelength * 1e-10,
    }
    with atomic_path(path) as temporary:
        temporary.write_text("".join(f"{name}: {value}\n" for name, value in fields.items()), encoding="utf-8")


def _rotation(rot1: float, rot2: float, rot3: float) -> NDArray[np.float64]:
    (c1, c2, c3), (s1, s2, s3) = np.cos([rot1, rot2, rot3]), np.sin([rot1, rot2, rot3])
    about_1 = np.array([[1, 0, 0], [0, c1, s1], [0, -s1, c1]])
    about_2 = np.array([[c2, 0, -s2], [0, 1, 0], [s2, 0, c2]])
    about_3 = np.array([[c3, -s3, 0], [s3, c3, 0], [0, 0, 1]])
    turned: NDArray[np.float64] = about_3 @ about_2 @ about_1
    return turned


def _config(path: str, text: str) -> dict[str, Any]:
    try:
        config = json.loads(text or "{}")
    except ValueError:
        raise InputError(path, f"Detector_config {text[:80]}", "JSON") from None
    if not isinstance(config, dict):
        raise InputError(path, f"Detector_config {text[:80]}", "names and values")
    return config


def _number(path: str, fields: dict[str, str], name: str, default: float | None = None) -> float:
    text = fields.get(name)
    if text in (None, "", "None") and default is not None:
        return default
    try:
        return float(text or "")
    except ValueError:
        raise InputError(path, f"{name.capitalize()} {text or 'missing'}", "a number") from None


def _pixel_sizes(path: str, fields: dict[str, str], config: dict[str, Any]) -> tuple[float, float]:
    given = [config.get(f"pixel{axis}") or fields.get(f"pixelsize{axis}") for axis in (1, 2)]
    if all(given):
        try:
            return float(given[0] or 0), float(given[1] or 0)
        except (TypeError, ValueError):
            raise InputError(path, f"pixel sizes {given}", "numbers") from None
    name = re.sub(r"[\W_]", "", fields.get("detector", "")).lower()
    size = next((size for start, size in _PIXELS.items() if name.startswith(start)), None)
    if size is None:
        found = f"detector {fields.get('detector', 'missing')} without a pixel size"
        raise InputError(path, found, 'Detector_config: {"pixel1": ..., "pixel2": ...} [m]')
    return size, size
