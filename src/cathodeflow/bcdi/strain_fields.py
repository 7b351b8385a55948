"""Displacement and strain along the scattering vector from the phase of an object, and their statistics by depth.

Atoms displaced by u scatter exp(-i Q . (r + u)). With the transform's kernel exp(-i q . r), the sign of numpy's fftn,
the object's phase is -Q . u, so that the displacement along Q is -phase / |Q| and the strain its derivative along Q,
-(Q . grad phase) / |Q|^2 [1]_. Positive strain is a larger lattice spacing, which moves intensity to smaller |Q|; this
holds for the object and for its twin, which has the same strain at the inverted position. A retrieved phase has an
arbitrary mean and ramp, so displacement and strain are relative to the particle's average.

References
----------
.. [1] I. Robinson, R. Harder, Nature Mater. 8, 291 (2009)
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, distance_transform_edt

from cathodeflow.bcdi.ambiguities import unwrapped
from cathodeflow.bcdi.geometry import Geometry, ScanVectors, q_vector, real_basis, reciprocal_basis, to_laboratory
from cathodeflow.bcdi.options import Strain
from cathodeflow.errors import InputError

Floats = NDArray[np.float64]

#: Quantiles of the statistics.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class Field(NamedTuple):
    """A quantity on voxels, NaN where it is unknown."""

    name: str
    unit: str
    values: NDArray[np.float32]


class Particle(NamedTuple):
    """A particle on cubic voxels (z, y, x) along the axes of the laboratory.

    Attributes
    ----------
    volume : (z, y, x) complex64
        0 outside the support.
    support : (z, y, x) bool
    displacement, strain : Field
    voxel_nm : float
    """

    volume: NDArray[np.complex64]
    support: NDArray[np.bool_]
    displacement: Field
    strain: Field
    voxel_nm: float


def particle(
    volume: NDArray[np.complexfloating[Any]],
    support: NDArray[np.bool_],
    geometry: Geometry | ScanVectors,
    options: Strain,
    *,
    binning: tuple[int, int, int] = (1, 1, 1),
) -> Particle:
    """Interpolate an object to the laboratory frame, with displacement and strain.

    Both are computed in the frame of the scan, before the interpolation, which would distort derivatives at the
    surface.

    Parameters
    ----------
    volume : (rocking, row, col) complex
        Object as large as the transform, without shift and ramp (`cathodeflow.bcdi.ambiguities.centred`).
    support : (rocking, row, col) bool
    geometry : Geometry or ScanVectors
    options : Strain
    binning : (int, int, int)
        Binning of frames, rows and columns.

    Raises
    ------
    InputError
        The geometry cannot be used, or nothing is left of the support.
    """
    q, basis = q_vector(geometry), real_basis(reciprocal_basis(geometry, binning=binning), volume.shape)
    tensile = strain(volume, support, basis, q, erosion=options.erosion)
    moved = displacement(unwrapped(np.angle(volume), support), support, q)

    shown, voxel = to_laboratory(
        np.where(support, volume, 0).astype(np.complex64),
        geometry,
        binning=binning,
        voxel_nm=options.voxel_nm,
        within=support,
    )

    def cubic_field(field: Field) -> Field:
        return field._replace(values=on_cubes(field.values, support, geometry, options, binning=binning))

    filled = to_laboratory(
        support.astype(np.float32), geometry, binning=binning, voxel_nm=options.voxel_nm, within=support
    )[0]
    inside = filled >= 0.5
    return Particle(np.where(inside, shown, 0), inside, cubic_field(moved), cubic_field(tensile), voxel)


def on_cubes(
    values: NDArray[np.floating[Any]],
    support: NDArray[np.bool_],
    geometry: Geometry | ScanVectors,
    options: Strain,
    *,
    binning: tuple[int, int, int] = (1, 1, 1),
    order: int = 3,
) -> NDArray[np.float32]:
    """Interpolate a quantity (rocking, row, col), NaN where it is unknown, to the voxels of `particle`.

    Parameters
    ----------
    values : (rocking, row, col) float32
    support, geometry, options, binning
        As in `particle`.
    order : int
        Order of the splines; 1 keeps values that are not negative above 0.

    Returns
    -------
    (z, y, x) float32
        NaN where less than half of what surrounds a voxel is known.
    """

    def cubic(array: NDArray[Any], order: int) -> NDArray[Any]:
        voxel = options.voxel_nm
        return to_laboratory(array, geometry, binning=binning, voxel_nm=voxel, within=support, order=order)[0]

    # Known values are continued beyond their edge, so that those at the edge are not mixed with zeros.
    known = np.isfinite(values)
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    inside = cubic(known.astype(np.float32), 1) >= 0.5
    return np.where(inside, cubic(values[tuple(nearest)], order), np.float32(np.nan))


def displacement(phase: NDArray[np.floating[Any]], support: NDArray[np.bool_], q: Floats) -> Field:
    """Displacement of the lattice along the scattering vector, with mean 0 in the support.

    Parameters
    ----------
    phase : (z, y, x) float
        Unwrapped (`cathodeflow.bcdi.ambiguities.unwrapped`) [rad].
    support : (z, y, x) bool
    q : (3,)
        Scattering vector of `cathodeflow.bcdi.geometry.q_vector` [1/nm].

    Returns
    -------
    Field
        [nm], NaN outside the support.

    Raises
    ------
    InputError
        The support is empty.
    """
    _require_voxels(support, "a support with voxels")
    values = np.full(phase.shape, np.nan, np.float32)
    values[support] = -(phase[support] - phase[support].mean()) / np.linalg.norm(q)
    return Field("displacement along Q", "nm", values)


def strain(
    volume: NDArray[np.complexfloating[Any]],
    support: NDArray[np.bool_],
    basis: Floats,
    q: Floats,
    *,
    erosion: int,
) -> Field:
    """Strain of the lattice along the scattering vector.

    The phase gradient is computed from products of neighbours, so that phase wraps do not matter as long as
    neighbours differ by less than pi.

    Parameters
    ----------
    volume : (z, y, x) complex
        Object, in any frame.
    support : (z, y, x) bool
    basis : (3, 3)
        Voxel vectors along the three axes, of `cathodeflow.bcdi.geometry.real_basis` for the frame of a scan;
        ((0, 0, voxel), (0, voxel, 0), (voxel, 0, 0)) for that of the laboratory [nm].
    q : (3,)
        Scattering vector [1/nm].
    erosion : int
        Voxel layers removed from the surface, at least 1: the derivative needs neighbours on both sides.

    Returns
    -------
    Field
        [1], NaN outside the eroded support.

    Raises
    ------
    InputError
        Nothing is left of the support.
    """
    inner = binary_erosion(support, iterations=max(erosion, 1))
    _require_voxels(inner, f"a support of more than {2 * max(erosion, 1)} voxels along each axis")
    # The derivative along Q / |Q| is that along the axes times the components of Q / |Q|^2 in their basis.
    along = np.linalg.solve(np.asarray(basis).T, q) / (q @ q)
    slope = np.zeros(volume.shape)
    for axis, weight in enumerate(along):
        step = np.angle(np.roll(volume, -1, axis) * np.conj(volume))
        # Voxels of the eroded support are never at the edges, where rolling wraps around.
        slope += weight * 0.5 * (step + np.roll(step, 1, axis))
    values = np.full(volume.shape, np.nan, np.float32)
    values[inner] = -slope[inner]
    return Field("strain along Q", "1", values)


def depth(support: NDArray[np.bool_], voxel_nm: float) -> NDArray[np.float32]:
    """Depth of each voxel's centre below the surface of the support [nm], 0 outside; cubic voxels.

    Examples
    --------
    >>> depth(np.array([[[False, True, True, True, False]]]), 4.0)
    array([[[0., 2., 6., 2., 0.]]], dtype=float32)
    """
    distance = distance_transform_edt(support)
    return np.where(support, (distance - 0.5) * voxel_nm, 0).astype(np.float32)


def depth_statistics(
    fields: Sequence[Field],
    support: NDArray[np.bool_],
    voxel_nm: float,
    *,
    shells: Sequence[float],
) -> list[dict[str, Any]]:
    """Mean, standard deviation and quantiles of fields in the whole particle and in shells below its surface.

    Parameters
    ----------
    fields : sequence of Field
        (z, y, x) each, on cubic voxels; NaN voxels are ignored.
    support : (z, y, x) bool
    voxel_nm : float
    shells : sequence of float
        Ascending depths at which one shell ends and the next begins [nm]; the last one is the core.

    Returns
    -------
    list of dict
        A row for each field and region: `quantity`, `unit`, `region`, the depths `from_nm` and `to_nm`, `voxels`, and
        `mean`, `deviation` and the quantiles `q05` to `q95` in the field's unit, NaN where no voxel is known.

    """
    depths = depth(support, voxel_nm)
    deepest = float(depths.max())
    edges = [edge for edge in shells if edge < deepest]
    regions = {"whole": (0.0, deepest)}
    for low, high in zip((0.0, *edges), (*edges, deepest), strict=True):
        name = "surface" if low == 0 else "core" if high == deepest else "shell"
        regions[f"{name}, {low:g} to {high:g} nm"] = (low, high)
    rows = []
    for field in fields:
        known = support & np.isfinite(field.values)
        for region, (low, high) in regions.items():
            values = field.values[known & (depths > low) & (depths <= high)]
            row = {"quantity": field.name, "unit": field.unit, "region": region, "from_nm": low, "to_nm": high}
            rows.append({**row, "voxels": len(values), **_summary(values)})
    return rows


def particle_metrics(particle: Particle, table: pd.DataFrame) -> dict[str, float]:
    """Figures of merit of a particle: extent, voxels, and the spread of strain and displacement.

    Parameters
    ----------
    particle : Particle
    table : DataFrame
        Rows of `depth_statistics`.
    """
    extent = np.ptp(np.argwhere(particle.support), axis=0) + 1
    metrics = {f"extent_{axis}_nm": float(n * particle.voxel_nm) for axis, n in zip("zyx", extent, strict=True)}
    metrics |= {"voxel_nm": particle.voxel_nm, "voxels": int(particle.support.sum())}
    whole = table[table["region"] == "whole"].set_index("quantity")
    metrics |= {f"strain_{name}": whole[name][particle.strain.name] for name in ("deviation", "q05", "q95")}
    return metrics | {"displacement_deviation_nm": whole["deviation"][particle.displacement.name]}


def _summary(values: NDArray[np.float32]) -> Mapping[str, float]:
    names = ["mean", "deviation", *(f"q{round(100 * level):02d}" for level in QUANTILES)]
    if not len(values):
        return dict.fromkeys(names, float("nan"))
    exact = values.astype(np.float64)
    return dict(zip(names, map(float, [exact.mean(), exact.std(), *np.quantile(exact, QUANTILES)]), strict=True))


def _require_voxels(support: NDArray[np.bool_], expected: str) -> None:
    if not support.any():
        raise InputError("support", "no voxel", expected)
