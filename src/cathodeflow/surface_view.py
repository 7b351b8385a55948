"""Surfaces of voxels in 3D: isosurfaces, and a single HTML page that works offline."""

import base64
import json
import re
from collections.abc import Mapping
from html import escape
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.text import package_text


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


def scene_page(scene: Mapping[str, Any], title: str) -> str:
    """Make the page of a scene, to be rotated, zoomed and coloured.

    Parameters
    ----------
    scene : mapping
        `radius` and its `unit`; `places` (int16, 32767 at the radius, x, y, z of each vertex) and `faces` (uint32), as
        `encoded`; `quantities`: a list with the `name`, the 256 `colours` and the `levels` of the vertices (uint8, as
        `encoded`), three texts `ends` below the bar of colours, and `part`, if not all faces are shown: the first
        index of a vertex in `faces` and their number.
    title : str

    Returns
    -------
    str
        Self-contained HTML, drawn by WebGL; about 25 bytes per vertex.
    """
    # Names may hold what ends a script, or what is put in here.
    text = json.dumps(scene, sort_keys=True).replace("<", "\\u003c")
    page, script = (package_text(Path(__file__).with_name(name)) for name in ("surface.html", "surface.js"))
    parts = {"$SCRIPT": script, "$TITLE": escape(title), "$SCENE": text}
    return re.sub(r"\$(SCRIPT|TITLE|SCENE)", lambda found: parts[found[0]], page)


def encoded(values: NDArray[Any], kind: str) -> str:
    """Return values of a data type, such as `<i2`, in base 64."""
    return base64.b64encode(np.ascontiguousarray(values, dtype=kind).tobytes()).decode("ascii")


def _pairs(values: NDArray[Any], axis: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the voxels, and their next neighbours along an axis."""
    n = values.shape[axis]
    return values.take(range(n - 1), axis), values.take(range(1, n), axis)
