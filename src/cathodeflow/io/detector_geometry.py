"""Position of a detector in the laboratory: one flat detector, or flat modules that share a frame.

Files of all kinds (`cathodeflow.io.geometry_files`) are brought into one laboratory frame, that of NeXus: the sample is
the origin, z points along the beam, y up, and x = y x z to the left as seen along the beam. Pixel positions are
(row, col) of the frames as they are stored, with pixel centres at integers.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

# Planck's constant times the speed of light (exact in the SI) [keV Angstrom].
HC_KEV_ANGSTROM = 12.398419843320026


class Distortion(NamedTuple):
    """Distortion of a flat panel; `cathodeflow.bragg.distortion` has the functions.

    Attributes
    ----------
    function : str
        `GE_41RT`, `Dexela_2923` or `Dexela_2923_quad`, as hexrd calls them.
    parameters : (6,) or (8,) float64
        As in hexrd; lengths in mm from the middle of the panel.
    """

    function: str
    parameters: Vector


class Module(NamedTuple):
    """A flat part of a frame.

    Attributes
    ----------
    first : (int, int)
        (row, col) of its first pixel in the frame.
    shape : (int, int)
        (rows, columns) of pixels.
    origin : (3,) float64
        Centre of its first pixel [m].
    row_step, col_step : (3,) float64
        From the centre of a pixel to that of the next row, and to that of the next column [m].
    distortion : Distortion, optional
    """

    first: tuple[int, int]
    shape: tuple[int, int]
    origin: Vector
    row_step: Vector
    col_step: Vector
    distortion: Distortion | None = None


class DetectorGeometry(NamedTuple):
    """A detector in the laboratory frame.

    Attributes
    ----------
    where : str
        File, and detector in it, for messages.
    origin : (3,) float64
        Centre of pixel (0, 0) [m].
    row_step, col_step : (3,) float64
        From the centre of a pixel to that of the next row, and to that of the next column [m].
    beam : (3,) float64
        Direction of the primary beam, of length 1.
    energy_kev : float, optional
        Photon energy.
    shape : (int, int), optional
        (row, col) of the detector [px].
    axis : (3,) float64, optional
        Direction of the axis about which the sample turns right-handed, of length 1, where the file has it.
    modules : tuple of Module
        Parts of the frame with a position of their own, or the whole with its distortion; pixels between them have no
        position. `origin`, `row_step` and `col_step` are then those of the plane of the first module, without
        distortion. Empty: the frame is one flat detector without distortion.
    """

    where: str
    origin: Vector
    row_step: Vector
    col_step: Vector
    beam: Vector
    energy_kev: float | None
    shape: tuple[int, int] | None
    axis: Vector | None = None
    modules: tuple[Module, ...] = ()


def of_modules(
    where: str,
    modules: list[Module],
    beam: Vector,
    energy_kev: float | None,
    shape: tuple[int, int] | None,
    axis: Vector | None = None,
) -> DetectorGeometry:
    """Return the geometry of a detector of modules, without them if one flat module is the whole frame."""
    row, col = modules[0].first
    origin = modules[0].origin - row * modules[0].row_step - col * modules[0].col_step
    whole = len(modules) == 1 and modules[0].shape == shape and modules[0].distortion is None
    parts = () if whole else tuple(modules)
    return DetectorGeometry(
        where, origin, modules[0].row_step, modules[0].col_step, beam, energy_kev, shape, axis, parts
    )
