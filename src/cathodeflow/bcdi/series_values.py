"""Lattice spacing, strain, volume and shape of one scan of a series, with their spread over the starts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from cathodeflow.bcdi.ambiguities import align, centred
from cathodeflow.bcdi.figures_of_merit import support_of
from cathodeflow.bcdi.geometry import Geometry, ScanVectors, q_of_peak, q_vector, real_basis, reciprocal_basis
from cathodeflow.bcdi.options import Strain
from cathodeflow.bcdi.strain_fields import QUANTILES, strain
from cathodeflow.errors import InputError

Floats = NDArray[np.float64]
Triple = tuple[int, int, int]

#: Quantities of a scan, each with its error in a column `<name>_err`.
QUANTITIES = (
    "d_spacing", "strain_deviation", *(f"strain_q{round(100 * level):02d}" for level in QUANTILES), "volume_nm3",
    "length_1_nm", "length_2_nm", "length_3_nm",
)  # fmt: skip

# Level of the surface for volume and lengths, as a fraction of the median amplitude in the particle.
_SURFACE = 0.5


class ScanValues(NamedTuple):
    """Quantities of a scan.

    Attributes
    ----------
    best : dict of str to float
        Of the best start, by the names in `QUANTITIES`.
    errors : dict of str to float
        Standard deviation over the starts that agree with the best; NaN if no other start does.
    starts, used : int
        Number of starts, and of those that agree.
    """

    best: dict[str, float]
    errors: dict[str, float]
    starts: int
    used: int


def scan_values(
    objects: NDArray[np.complex64],
    geometry: Geometry | ScanVectors,
    options: Strain,
    *,
    binning: Triple,
    offset: Floats,
    min_correlation: float,
) -> ScanValues:
    """Compute the quantities of the best start, and their spread over the starts.

    Parameters
    ----------
    objects : (start, z, y, x) complex64
        The best first.
    geometry : Geometry or ScanVectors
    options : Strain
        Isosurface level and erosion.
    binning : (int, int, int)
        Binning of frames, rows and columns.
    offset : (3,) float64
        Position of zero frequency from the middle of the measured frames, as in `peak_offset`.
    min_correlation : float
        Minimum correlation of a start with the best.

    Raises
    ------
    InputError
        Nothing is left of the best object after the erosion.
    """
    starts = torch.from_numpy(objects)
    alike = align(starts, starts[0])[1].numpy() >= min_correlation
    # The best agrees with itself except for rounding.
    alike[0] = True
    found = []
    for index in np.flatnonzero(alike):
        try:
            found.append(_values(starts[index], geometry, options, binning=binning, offset=offset))
        except InputError:
            if index == 0:
                raise
    errors = {
        name: float(np.std([values[name] for values in found], ddof=1)) if len(found) > 1 else float("nan")
        for name in QUANTITIES
    }
    return ScanValues(found[0], errors, len(objects), len(found))


def _values(
    start: torch.Tensor, geometry: Geometry | ScanVectors, options: Strain, *, binning: Triple, offset: Floats
) -> dict[str, float]:
    shape = (start.shape[0], start.shape[1], start.shape[2])
    reciprocal = reciprocal_basis(geometry, binning=binning)
    basis = real_basis(reciprocal, shape)
    flat = centred(start)
    volume, support = flat.numpy(), support_of(flat, threshold=options.threshold).numpy()
    q = q_of_peak(geometry, offset) + _ramp(start) @ reciprocal
    tensile = strain(volume, support, basis, q_vector(geometry), erosion=options.erosion).values
    known = tensile[np.isfinite(tensile)].astype(np.float64)
    quantiles = {f"strain_q{round(100 * level):02d}": float(np.quantile(known, level)) for level in QUANTILES}
    size = np.abs(volume)
    # At half the plateau a blurred edge is where the sharp one is; the isosurface of the strain lies further outside.
    solid = size > _SURFACE * np.median(size[support])
    lengths = principal_lengths(np.argwhere(solid) @ basis)
    return {
        # Angstrom, as in the tables of the Bragg peaks.
        "d_spacing": float(20 * np.pi / np.linalg.norm(q)),
        "strain_deviation": float(known.std()),
        **quantiles,
        "volume_nm3": float(solid.sum() * abs(np.linalg.det(basis))),
        **{f"length_{number}_nm": float(length) for number, length in enumerate(lengths, start=1)},
    }


def principal_lengths(points: Floats) -> Floats:
    """Lengths (3,) of the axes of the ellipsoid that has the second moments of a set of points (n, 3), longest first.

    Examples
    --------
    >>> index = np.stack(np.meshgrid(*[np.arange(-30, 31)] * 3), axis=-1).reshape(-1, 3)
    >>> ball = index[np.linalg.norm(index, axis=1) <= 25]
    >>> principal_lengths(ball * [1.0, 2.0, 1.0]).round()
    array([100.,  50.,  50.])
    """
    moments = np.linalg.eigvalsh(np.cov(points.T, bias=True))
    return np.asarray(2 * np.sqrt(5 * np.maximum(moments[::-1], 0)))


def peak_offset(steps: Sequence[Mapping[str, Any]], shape: Triple, binning: Triple) -> Floats | None:
    """Position of zero frequency of a prepared volume from the middle of the raw frames: frames, rows, columns.

    Parameters
    ----------
    steps : sequence of mapping
        Figures of the preparation (`cathodeflow.bcdi.preparation`).
    shape, binning : (int, int, int)
        Of the prepared volume.

    Returns
    -------
    (3,) float64, optional
        None if the steps do not say where the volume was cut out, as in a volume prepared by another program.
    """
    by_name = {str(step["step"]): step for step in steps}
    if not {"raw", "window", "size"} <= set(by_name):
        return None
    raw, window, size = by_name["raw"]["shape"], by_name["window"], by_name["size"]["starts"]
    first = window.get("starts", [0, 0, 0] if window["shape"] == raw else None)
    if first is None:
        return None
    # The middle of the binned voxel n // 2.
    middle = [
        start + at + n // 2 * b + (b - 1) / 2 for start, at, n, b in zip(first, size, shape, binning, strict=True)
    ]
    return np.asarray(middle) - np.asarray(raw) // 2


def _ramp(start: torch.Tensor) -> Floats:
    """Centre of mass (3,) of |F|^2 of an object from zero frequency [voxel of the pattern], from its phase steps."""
    volume = start.numpy().astype(np.complex128)
    steps = [np.angle((volume.conj() * np.roll(volume, -1, axis)).sum()) for axis in range(3)]
    return np.asarray(steps) / (2 * np.pi) * volume.shape
