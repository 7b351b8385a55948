"""The strain of the powder rings while a scan runs, from the peaks of the frames that were measured."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from cathodeflow.bragg.binning import to_detector
from cathodeflow.bragg.frame_peaks import from_records
from cathodeflow.bragg.peak_options import Watch
from cathodeflow.bragg.rings import Rings, find_rings, join_spots, ring_strain
from cathodeflow.bragg.scattering import scattering
from cathodeflow.io.detector_geometry import DetectorGeometry

Floats = NDArray[np.float64]


class Spots(NamedTuple):
    """Lattice spacings of reflections and their standard errors, (n,) float64 [Angstrom]."""

    d: Floats
    d_err: Floats


def spots_of(
    geometry: DetectorGeometry,
    frame: ArrayLike,
    row: ArrayLike,
    col: ArrayLike,
    row_err: ArrayLike,
    col_err: ArrayLike,
    *,
    energy_kev: float,
) -> Spots:
    """Return the lattice spacings of the reflections that peaks belong to.

    Parameters
    ----------
    geometry : DetectorGeometry
    frame : (n,) int
        Ascending.
    row, col, row_err, col_err : (n,) floating
        Positions and standard errors in detector pixels [px].
    energy_kev : float
        Photon energy.
    """
    found = scattering(geometry, row, col, row_err=row_err, col_err=col_err, energy_kev=energy_kev)
    usable = np.isfinite(found.d) & np.isfinite(found.d_err) & (found.d_err > 0)
    number = np.asarray(frame, np.int64)[usable]
    rows, cols = np.asarray(row, np.float64)[usable], np.asarray(col, np.float64)[usable]
    return Spots(*join_spots(number, rows, cols, found.d[usable], found.d_err[usable]))


class StrainSoFar:
    """Strain of the rings of a scan, relative to its first frames or to another scan.

    Parameters
    ----------
    geometry : DetectorGeometry
    energy_kev : float
    options : Watch
    reference : Spots, optional
        Of another scan.
    """

    def __init__(self, geometry: DetectorGeometry, energy_kev: float, options: Watch, reference: Spots | None) -> None:
        self._geometry, self._energy, self._options = geometry, energy_kev, options
        self._rings = None if reference is None else self._find(reference)

    @property
    def has_reference(self) -> bool:
        """Whether the strain refers to another scan."""
        return self._rings is not None

    def table(self, frames: Sequence[NDArray[np.void]]) -> pd.DataFrame | None:
        """Return the table of the rings.

        Parameters
        ----------
        frames : sequence of (n,) structured
            Peaks of the frames in their order, of the type `frame_peaks.RECORD`.

        Returns
        -------
        DataFrame or None
            Of `ring_strain`; None as long as there are too few frames for a reference.
        """
        first = 0
        rings = self._rings
        if rings is None:
            first = self._options.reference_frames
            if len(frames) <= first:
                return None
            rings = self._find(self._spots(frames[:first]))
        return ring_strain(rings, *self._spots(frames[first:]))

    def _find(self, spots: Spots) -> Rings:
        return find_rings(*spots, gap=self._options.ring_gap, min_spots=self._options.min_spots)

    def _spots(self, frames: Sequence[NDArray[np.void]]) -> Spots:
        good = [records[from_records(records).fitted.good] for records in frames]
        number = np.repeat(np.arange(len(good)), [len(records) for records in good])
        binning = self._options.frames.binning

        def joined(name: str) -> Floats:
            return np.concatenate([np.zeros(0), *(records[name] for records in good)])

        errors = [binning * joined(name) for name in ("row_err", "col_err")]
        places = [to_detector(joined(name), binning) for name in ("row", "col")]
        return spots_of(self._geometry, number, *places, *errors, energy_kev=self._energy)
