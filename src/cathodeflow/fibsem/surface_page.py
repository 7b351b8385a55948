"""The surface of each phase in 3D: a single HTML page that works offline."""

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
from matplotlib.colors import to_rgb
from numpy.typing import NDArray

from cathodeflow.surface_view import Mesh, encoded, isosurface, scene_page

# Side of the largest volume that is shown as it is; larger ones are averaged over cubes of voxels.
_SIDE = 72
#: Colours of the phases: pore, active, binder and others.
PHASE_COLOURS = ("#56B4E9", "#4D4D4D", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#0072B2")


def phases_page(labels: da.Array, classes: Sequence[str], size: Sequence[float], *, unit: str, title: str) -> str:
    """Make the page of the surfaces of all phases.

    Volumes of more than 72 voxels along an axis are averaged over cubes of voxels first, so that the page stays small.

    Parameters
    ----------
    labels : (z, y, x) dask array of uint8
    classes : sequence of str
    size : (3,)
        Size of a voxel [unit].
    unit : str
        `voxel` or `um`.
    title : str

    Returns
    -------
    str
        HTML, drawn by WebGL. The first view shows all phases but the first one, usually the pores.
    """
    step = max(1, -(-max(labels.shape) // _SIDE))
    steps = tuple(min(step, n) for n in labels.shape)
    fractions = [_averaged(labels, index, steps) for index in range(len(classes))]
    meshes = {index: isosurface(field, 0.5) for index, field in enumerate(fractions) if (field > 0.5).any()}
    # The pores last, so that all solid phases follow each other.
    order = [index for index in meshes if index > 0] + [index for index in meshes if index == 0]
    if not order:
        meshes, order = {0: Mesh(np.zeros((0, 3)), np.zeros((0, 3), np.int64))}, [0]
    vertices = np.concatenate([meshes[index].vertices for index in order]) * np.multiply(size, steps)
    centre = (vertices.min(0) + vertices.max(0)) / 2 if len(vertices) else np.zeros(3)
    # From here on in the order x, y, z.
    places = (vertices - centre)[:, ::-1]
    radius = float(np.linalg.norm(places, axis=1).max(initial=0)) or 1.0
    faces: list[NDArray[np.int64]] = []
    levels: list[NDArray[np.int64]] = []
    parts, first = {}, 0
    for index in order:
        parts[index] = (3 * sum(len(part) for part in faces), 3 * len(meshes[index].faces))
        faces.append(meshes[index].faces + first)
        levels.append(np.full(len(meshes[index].vertices), index))
        first += len(meshes[index].vertices)
    colours = np.zeros((256, 3))
    shown = [to_rgb(PHASE_COLOURS[index % len(PHASE_COLOURS)]) for index in range(len(classes))]
    colours[: len(shown)] = np.round(255 * np.array(shown))
    solid = [index for index in order if index > 0]
    views = [([index], classes[index]) for index in order]
    if len(solid) > 1:
        views.insert(0, (solid, " and ".join(classes[index] for index in solid)))
    common = {"colours": encoded(colours, "u1"), "levels": encoded(np.concatenate(levels), "u1")}
    quantities: list[dict[str, Any]] = []
    for indices, name in views:
        start = parts[indices[0]][0]
        count = sum(parts[index][1] for index in indices)
        quantities.append({"name": name, "ends": ["", "", ""], "part": [start, count], **common})
    scene = {
        "radius": radius,
        "unit": "voxels" if unit == "voxel" else unit,
        "places": encoded(np.round(places / radius * 32767), "<i2"),
        "faces": encoded(np.concatenate(faces), "<u4"),
        "quantities": quantities,
        "legend": [[classes[index], PHASE_COLOURS[index % len(PHASE_COLOURS)]] for index in sorted(order)],
    }
    return scene_page(scene, title)


def _averaged(labels: da.Array, index: int, steps: Sequence[int]) -> NDArray[np.float64]:
    """Fraction of a phase in blocks of so many voxels along each axis; the rest at the ends is left out."""
    if max(steps) == 1:
        return np.asarray(labels == index).astype(np.float64)
    mean = da.coarsen(np.mean, (labels == index).astype(np.float32), dict(enumerate(steps)), trim_excess=True)
    return np.asarray(mean, np.float64)
