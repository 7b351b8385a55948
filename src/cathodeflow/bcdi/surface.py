"""The surface of a particle in 3D, coloured by strain or phase: a single HTML page that works offline."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt, map_coordinates

from cathodeflow.bcdi.plots import CYCLIC, DIVERGING
from cathodeflow.errors import InputError
from cathodeflow.surface_view import Mesh, encoded, isosurface, scene_page

# Fraction of the vertices whose values are within the limits of a colour scale.
_SHOWN = 0.98


def at_vertices(mesh: Mesh, values: NDArray[np.floating], *, cyclic: bool = False) -> NDArray[np.float64]:
    """Interpolate a quantity (z, y, x) at vertices: (m,); voxels that are NaN take the value of the nearest known one.

    Parameters
    ----------
    mesh : Mesh
    values : (z, y, x)
    cyclic : bool
        Whether the values are angles [rad].

    Raises
    ------
    InputError
        No value is known.
    """
    known = np.isfinite(values)
    if not known.any():
        raise InputError("values", "NaN in all voxels", "known values")
    nearest = distance_transform_edt(~known, return_distances=False, return_indices=True)
    filled = np.asarray(values, np.float64)[tuple(nearest)]
    places = mesh.vertices.T
    if not cyclic:
        return map_coordinates(filled, places, order=1, mode="nearest")
    parts = [map_coordinates(part, places, order=1, mode="nearest") for part in (np.sin(filled), np.cos(filled))]
    return np.arctan2(*parts)


def surface_page(
    volume: NDArray[np.complexfloating],
    support: NDArray[np.bool_],
    fields: Sequence[tuple[str, str, NDArray[np.floating]]] = (),
    *,
    voxel_nm: ArrayLike | None = None,
    level: float,
    title: str = "Particle",
) -> str:
    """Make the page of an object's surface, to be rotated, zoomed and coloured by any of its fields or its phase.

    Parameters
    ----------
    volume : (z, y, x) complex
    support : (z, y, x) bool
        Voxels further away than its neighbours are ignored, and so is the phase of these neighbours.
    fields : sequence of (name, unit, values)
        Such as the strain, on the same voxels, NaN where unknown; the first is shown first. Scales are centred on 0.
    voxel_nm : (3,), optional
        Size of a voxel along z, y, x, which are orthogonal [nm].
    level : float
        Isosurface level, as a fraction of the maximum amplitude.
    title : str

    Returns
    -------
    str
        Self-contained HTML, drawn by WebGL; about 25 bytes per vertex.

    Raises
    ------
    InputError
        No voxel is above the level.
    """
    # Including one voxel around the support, without which the surface would have the steps of the support.
    amplitude = np.where(binary_dilation(support), np.abs(volume), 0)
    mesh = isosurface(amplitude / (amplitude.max() or 1), level)
    size = np.ones(3) if voxel_nm is None else np.asarray(voxel_nm, np.float64)
    # From here on in the order x, y, z.
    places = ((mesh.vertices - (mesh.vertices.min(0) + mesh.vertices.max(0)) / 2) * size)[:, ::-1]
    radius = float(np.linalg.norm(places, axis=1).max())
    quantities = [
        _coloured(f"{name} [{unit}]" if unit != "1" else name, at_vertices(mesh, values), cyclic=False)
        for name, unit, values in fields
        if np.isfinite(values).any()
    ]
    phase = np.where(support, np.angle(volume), np.nan)
    quantities.append(_coloured("phase [rad]", at_vertices(mesh, phase, cyclic=True), cyclic=True))
    scene = {
        "radius": radius,
        "unit": "voxels" if voxel_nm is None else "nm",
        "places": encoded(np.round(places / radius * 32767), "<i2"),
        "faces": encoded(mesh.faces, "<u4"),
        "quantities": quantities,
    }
    return scene_page(scene, title)


def _coloured(name: str, values: NDArray[np.float64], *, cyclic: bool) -> dict[str, Any]:
    limit = np.pi if cyclic else float(np.quantile(np.abs(values), _SHOWN)) or 1e-12
    colours = np.round(255 * colormaps[CYCLIC if cyclic else DIVERGING](np.linspace(0, 1, 256))[:, :3])
    ends = ["−π", "0", "π"] if cyclic else [f"−{limit:.2g}", "0", f"{limit:.2g}"]
    levels = np.clip(np.round(127.5 + 127.5 * values / limit), 0, 255)
    return {"name": name, "ends": ends, "colours": encoded(colours, "u1"), "levels": encoded(levels, "u1")}
