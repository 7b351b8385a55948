"""The surface of a particle in 3D, coloured by strain or phase: a single HTML page that works offline."""

import base64
import json
import re
from collections.abc import Sequence
from html import escape
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib import colormaps
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import binary_dilation, distance_transform_edt, map_coordinates

from cathodeflow.bcdi.plots import CYCLIC, DIVERGING
from cathodeflow.errors import InputError
from cathodeflow.io.text import package_text

# Fraction of the vertices whose values are within the limits of a colour scale.
_SHOWN = 0.98


class Mesh(NamedTuple):
    """Triangles of a surface.

    vertices : (m, 3) float64
        Positions along z, y, x [voxel]; 0 is the centre of the first voxel.
    faces : (k, 3) int64
        Vertices of each triangle, counter-clockwise seen from outside in right-handed axes x, y, z.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]


def isosurface(amplitude: NDArray[np.floating], level: float) -> Mesh:
    """Find the isosurface of the amplitude at a level, closed at the edges of the volume.

    A vertex in each cell of eight voxels on both sides of the level, at the mean of the crossings of the cell edges,
    and a quadrangle, cut into two triangles, for each pair of neighbouring voxels on different sides [1]_.

    Parameters
    ----------
    amplitude : (z, y, x)
    level : float
        Isosurface level, in units of the amplitude.

    Raises
    ------
    InputError
        No voxel is above the level.

    References
    ----------
    .. [1] S. F. F. Gibson, Constrained elastic surface nets, MICCAI 1998, LNCS 1496, 888
    """
    height = np.pad(np.asarray(amplitude, np.float64) - level, 1, constant_values=-abs(level) or -1.0)
    inside = height > 0
    if not inside.any():
        raise InputError("amplitude", f"{np.max(amplitude, initial=0):g} at most", f"voxels above the level {level:g}")
    cells = tuple(n - 1 for n in height.shape)
    total, count = np.zeros((*cells, 3)), np.zeros(cells)
    for axis in range(3):
        start, end = _pairs(height, axis)
        crossed = _pairs(inside, axis)[0] != _pairs(inside, axis)[1]
        share = np.where(crossed, start / np.where(crossed, start - end, 1), 0)
        # Each cell has four edges along the axis, at the corners of its face.
        for corner in product((0, 1), repeat=2):
            corners = np.insert(corner, axis, 0)
            part = tuple(slice(low, low + n) for low, n in zip(corners, cells, strict=True))
            count += crossed[part]
            total += crossed[part][..., None] * corners
            total[..., axis] += share[part]
    active = count > 0
    number = np.cumsum(active.ravel()).reshape(cells) - 1
    # Minus one, for the padding.
    vertices = np.argwhere(active) + total[active] / count[active][:, None] - 1.0
    faces = []
    for axis in range(3):
        first, second = (other for other in range(3) if other != axis)
        start, end = _pairs(inside, axis)
        places = np.argwhere(start != end)
        rising = end[tuple(places.T)]
        steps = np.zeros((4, 3), np.int64)
        steps[1:3, first] = steps[2:4, second] = -1
        around = np.stack([number[tuple((places + step).T)] for step in steps], axis=1)
        # The other two axes of y have the opposite order to those of z and x.
        turned = rising == (axis == 1)
        around[turned] = around[turned][:, ::-1]
        faces += [around[:, [0, 1, 2]], around[:, [0, 2, 3]]]
    return Mesh(vertices, np.concatenate(faces))


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
        "places": _base64(np.round(places / radius * 32767), "<i2"),
        "faces": _base64(mesh.faces, "<u4"),
        "quantities": quantities,
    }
    # Names may hold what ends a script, or what is put in here.
    text = json.dumps(scene, sort_keys=True).replace("<", "\\u003c")
    page, script = (package_text(Path(__file__).with_name(name)) for name in ("surface.html", "surface.js"))
    parts = {"$SCRIPT": script, "$TITLE": escape(title), "$SCENE": text}
    return re.sub(r"\$(SCRIPT|TITLE|SCENE)", lambda found: parts[found[0]], page)


def _pairs(values: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the voxels, and their next neighbours along an axis."""
    n = values.shape[axis]
    return values.take(range(n - 1), axis), values.take(range(1, n), axis)


def _coloured(name: str, values: NDArray[np.float64], *, cyclic: bool) -> dict[str, Any]:
    limit = np.pi if cyclic else float(np.quantile(np.abs(values), _SHOWN)) or 1e-12
    colours = np.round(255 * colormaps[CYCLIC if cyclic else DIVERGING](np.linspace(0, 1, 256))[:, :3])
    ends = ["−π", "0", "π"] if cyclic else [f"−{limit:.2g}", "0", f"{limit:.2g}"]
    levels = np.clip(np.round(127.5 + 127.5 * values / limit), 0, 255)
    return {"name": name, "ends": ends, "colours": _base64(colours, "u1"), "levels": _base64(levels, "u1")}


def _base64(values: NDArray[Any], kind: str) -> str:
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode("ascii")
