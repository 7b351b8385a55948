"""Positions of detector pixels in the laboratory, and the pixels that rays meet.

A detector is one plane or several modules (`cathodeflow.io.detector_geometry`), each perhaps with a distortion.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cathodeflow.bragg.distortion import derivatives, ideal, measured
from cathodeflow.io.detector_geometry import DetectorGeometry, Module

Floats = NDArray[np.float64]


def positions_and_steps(geometry: DetectorGeometry, row: ArrayLike, col: ArrayLike) -> tuple[Floats, Floats, Floats]:
    """Return where pixels are, and how their position changes by a row and by a column.

    Parameters
    ----------
    geometry : DetectorGeometry
    row, col : (n,) floating
        Positions in the frame [px].

    Returns
    -------
    position, row_step, col_step : (n, 3) float64
        In the laboratory [m]; corrected for distortion. NaN at pixels of no module.
    """
    rows, cols = np.asarray(row, np.float64), np.asarray(col, np.float64)
    if not geometry.modules:
        vector = geometry.origin + rows[:, None] * geometry.row_step + cols[:, None] * geometry.col_step
        return (
            vector,
            np.broadcast_to(geometry.row_step, vector.shape),
            np.broadcast_to(geometry.col_step, vector.shape),
        )
    found = (np.full((len(rows), 3), np.nan), np.full((len(rows), 3), np.nan), np.full((len(rows), 3), np.nan))
    for module in geometry.modules:
        own_row, own_col = rows - module.first[0], cols - module.first[1]
        inside = _inside(module, own_row, own_col)
        for whole, part in zip(found, _on_module(module, own_row[inside], own_col[inside]), strict=True):
            whole[inside] = part
    return found


def detector_pixels(geometry: DetectorGeometry, start: Floats, direction: Floats) -> tuple[Floats, Floats]:
    """Return the pixels where rays are measured: the way back from `positions_and_steps`.

    Parameters
    ----------
    geometry : DetectorGeometry
    start : (n, 3) float64
        Where the rays begin [m].
    direction : (n, 3) float64
        Of any length.

    Returns
    -------
    row, col : (n,) float64
        Position in the frame, distorted as the peaks of the frames are [px]; NaN where a ray goes away from the
        detector, or meets none of its modules. Of modules behind each other, the ray meets the nearest.
    """
    if not geometry.modules:
        row, col, _ = _on_plane(geometry, start, direction)
        return row, col
    row, col = np.full(len(start), np.nan), np.full(len(start), np.nan)
    nearest = np.full(len(start), np.inf)
    for module in geometry.modules:
        own_row, own_col, way = _on_plane(module, start, direction)
        if module.distortion is not None:
            size, middle = _millimetres(module)
            x, y = measured(module.distortion, (own_col - middle[1]) * size[1], (middle[0] - own_row) * size[0])
            own_row, own_col = middle[0] - y / size[0], middle[1] + x / size[1]
        inside = _inside(module, own_row, own_col) & (way < nearest)
        row[inside], col[inside] = own_row[inside] + module.first[0], own_col[inside] + module.first[1]
        nearest[inside] = way[inside]
    return row, col


def flat_pixels(geometry: DetectorGeometry, row: ArrayLike, col: ArrayLike) -> tuple[Floats, Floats]:
    """Return where beams from the origin, measured at pixels of the frame, meet the plane of the geometry.

    Parameters
    ----------
    geometry : DetectorGeometry
    row, col : (n,) floating
        Positions in the frame [px].

    Returns
    -------
    row, col : (n,) float64
        In pixels of one flat detector without distortion, at `origin` with `row_step` and `col_step`; NaN between
        modules.
    """
    if not geometry.modules:
        return np.asarray(row, np.float64), np.asarray(col, np.float64)
    place, _, _ = positions_and_steps(geometry, row, col)
    found_row, found_col, _ = _on_plane(geometry, np.zeros_like(place), place)
    return found_row, found_col


def frame_pixels(geometry: DetectorGeometry, row: Floats, col: Floats) -> tuple[Floats, Floats]:
    """Return the pixels of the frame of beams from the origin: the way back from `flat_pixels`, of any shape."""
    if not geometry.modules:
        return row, col
    place = geometry.origin + row.reshape(-1, 1) * geometry.row_step + col.reshape(-1, 1) * geometry.col_step
    found_row, found_col = detector_pixels(geometry, np.zeros_like(place), place)
    return found_row.reshape(row.shape), found_col.reshape(col.shape)


def _on_module(module: Module, row: Floats, col: Floats) -> tuple[Floats, Floats, Floats]:
    """As `positions_and_steps`, with pixels that count from the first of the module."""
    steps = np.stack([module.row_step, module.col_step])
    if module.distortion is None:
        by_pixel = np.broadcast_to(np.eye(2), (len(row), 2, 2))
    else:
        size, middle = _millimetres(module)
        x, y = (col - middle[1]) * size[1], (middle[0] - row) * size[0]
        slopes = derivatives(module.distortion, x, y)
        x, y = ideal(module.distortion, x, y)
        row, col = middle[0] - y / size[0], middle[1] + x / size[1]
        # From (x, y) [mm] to (row, col) [px], on both sides.
        to_pixels = np.array([[0.0, -1 / size[0]], [1 / size[1], 0.0]])
        by_pixel = to_pixels @ slopes @ np.linalg.inv(to_pixels)
    moved = by_pixel.transpose(0, 2, 1) @ steps
    return module.origin + np.column_stack([row, col]) @ steps, moved[:, 0], moved[:, 1]


def _on_plane(plane: DetectorGeometry | Module, start: Floats, direction: Floats) -> tuple[Floats, Floats, Floats]:
    """Return row and column [px] where rays meet a plane, and the way there in lengths of `direction`."""
    steps = np.stack([plane.row_step, plane.col_step])
    normal = np.cross(*steps)
    with np.errstate(invalid="ignore", divide="ignore"):
        way = ((plane.origin - start) @ normal) / (direction @ normal)
        way = np.where((way > 0) & np.isfinite(way), way, np.nan)
    found = (start + way[:, None] * direction - plane.origin) @ np.linalg.pinv(steps)
    return found[:, 0], found[:, 1], way


def _inside(module: Module, row: Floats, col: Floats) -> NDArray[np.bool_]:
    """Whether positions are on pixels of a module, with those on its outer edge."""
    rows, cols = module.shape
    return np.asarray((row >= -0.5) & (row <= rows - 0.5) & (col >= -0.5) & (col <= cols - 0.5))


def _millimetres(module: Module) -> tuple[Floats, Floats]:
    """Return the sides of a pixel [mm] and the middle of the module [px], as (row, col)."""
    sides = 1e3 * np.linalg.norm([module.row_step, module.col_step], axis=1)
    return sides, (np.asarray(module.shape, np.float64) - 1) / 2
