"""Position of a flat detector in the laboratory.

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


class DetectorGeometry(NamedTuple):
    """A flat detector in the laboratory frame.

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
    """

    where: str
    origin: Vector
    row_step: Vector
    col_step: Vector
    beam: Vector
    energy_kev: float | None
    shape: tuple[int, int] | None
    axis: Vector | None = None
