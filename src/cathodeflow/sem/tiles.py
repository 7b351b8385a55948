"""Tiles that cover a whole micrograph, of the size of the crops that a network was trained on."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.sem.resample import shrink, to_uint8
from cathodeflow.sem.usable_area import UsableArea
from cathodeflow.sem.usable_blocks import usable_blocks

Grey = NDArray[np.uint8] | NDArray[np.uint16]


class TileGrid(NamedTuple):
    """Where the tiles of an image are.

    usable : UsableArea, part beside the information bar, without the margin.
    places : (n, 2) int, first pixel (row, col) of each tile in it, row by row.
    extent : rows and columns of the image that each tile covers [px].
    """

    usable: UsableArea
    places: NDArray[np.int64]
    extent: tuple[int, int]


class Tiles(NamedTuple):
    """Crops that cover an image.

    crops : (n, side, side) uint8, as the network takes them.
    places : (n, 2) int, first pixel (row, col) of each crop in the usable area of the image.
    extent : rows and columns of the image that each crop covers [px].
    """

    crops: NDArray[np.uint8]
    places: NDArray[np.int64]
    extent: tuple[int, int]


def tile_places(rows: int, cols: int, *, extent: tuple[int, int], overlap: float) -> NDArray[np.int64]:
    """Return the first pixels of the smallest number of tiles that cover an area from edge to edge in equal steps.

    Parameters
    ----------
    rows, cols : int
        Size of the area, at least that of a tile [px].
    extent : (int, int)
        Rows and columns of a tile [px].
    overlap : float
        Minimum overlap of neighbouring tiles, as a fraction of their side, from 0 to below 1.

    Returns
    -------
    (n, 2) int
        Row and column, row by row.

    Examples
    --------
    >>> tile_places(6, 10, extent=(6, 4), overlap=0.25).tolist()
    [[0, 0], [0, 3], [0, 6]]
    """
    starts = []
    for length, side in zip((rows, cols), extent, strict=True):
        steps = math.ceil((length - side) / max(side * (1 - overlap), 1) - 1e-9)
        starts.append(np.rint(np.linspace(0, length - side, steps + 1)).astype(np.int64))
    return np.stack(np.meshgrid(*starts, indexing="ij"), axis=-1).reshape(-1, 2)


def tile_grid(
    shape: tuple[int, ...],
    *,
    pixels: int | None,
    overlap: float,
    margin: int,
    area: UsableArea,
    pixel_nm: float | None = None,
    own_pixel_nm: float | None = None,
) -> TileGrid:
    """Place tiles of the size of the crops that a network was trained on, so that they cover an image.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns of the image.
    pixels, margin, pixel_nm
        Options of the crops (`options.Crops`).
    overlap : float
        Minimum overlap of neighbouring tiles (`tile_places`).
    area : UsableArea
        Part beside the information bar, which loses `margin` where it meets the bar.
    own_pixel_nm : float, optional
        Pixel size of the image [nm], needed if `pixel_nm` is given.

    Raises
    ------
    InputError
        The image is smaller than a tile, or its pixel size is needed and unknown.
    """
    usable = area.inset(margin, shape)
    extent = tile_extent(shape, pixels=pixels, pixel_nm=pixel_nm, own_pixel_nm=own_pixel_nm)
    require_room(usable, extent, area, shape)
    return TileGrid(usable, tile_places(usable.rows, usable.cols, extent=extent, overlap=overlap), extent)


def cut_tiles(image: Grey, *, side: int, area: UsableArea, least: float | None = None, **placed: Any) -> Tiles:
    """Cover an image beside its information bar with tiles of the size of the crops that a network was trained on.

    Parameters
    ----------
    image : (row, col) uint8 or uint16
        As stored.
    side : int
        Option of the crops (`options.Crops`).
    area : UsableArea
        Part beside the information bar.
    least : float, optional
        `min_usable` of the crops: minimum fraction of a tile that shows particles (`usable_blocks`); others are left
        out, unless all are below.
    **placed
        Other parameters of `tile_grid`.

    Raises
    ------
    InputError
        Of `tile_grid`.
    """
    usable, places, extent = tile_grid(image.shape, area=area, **placed)
    grey = usable.of(to_uint8(image, area=area))
    if least:
        places = places[enough(usable_blocks(usable.of(image)).fractions(places, extent), least)]
    crops = [shrink(grey[row : row + extent[0], col : col + extent[1]], side=side) for row, col in places]
    return Tiles(np.stack(crops), places, extent)


def enough(fractions: NDArray[np.float64], least: float) -> NDArray[np.bool_]:
    """Say which of the fractions are at least `least`, or equal to the highest one if that is less.

    Examples
    --------
    >>> enough(np.array([0.2, 0.6, 1.0]), 0.5), enough(np.array([0.1, 0.3]), 0.5)
    (array([False,  True,  True]), array([False,  True]))
    """
    # The addend compensates rounding.
    chosen: NDArray[np.bool_] = fractions >= min(least, fractions.max(initial=0)) - 1e-9
    return chosen


def tile_extent(
    shape: tuple[int, ...], *, pixels: int | None, pixel_nm: float | None, own_pixel_nm: float | None
) -> tuple[int, int]:
    """Return the rows and columns of an image of this shape that a tile covers; parameters are those of `tile_grid`.

    Raises
    ------
    InputError
        The pixel size of the image is needed and unknown.
    """
    if pixels is None:
        return shape[0] // 2, shape[1] // 2
    if pixel_nm is not None and not own_pixel_nm:
        raise InputError("image", "no pixel size", f"one, as the network takes pixels of {pixel_nm:g} nm")
    return (round(pixels * pixel_nm / own_pixel_nm) if pixel_nm and own_pixel_nm else pixels,) * 2


def require_room(usable: UsableArea, extent: tuple[int, int], area: UsableArea, shape: tuple[int, ...]) -> None:
    """Refuse images whose usable area, `area` without its margin, has no room for a tile.

    Raises
    ------
    InputError
        The usable area is smaller than a tile.
    """
    if 0 < extent[0] <= usable.rows and 0 < extent[1] <= usable.cols:
        return
    rows, cols = shape[:2]
    size = f"{max(usable.rows, 0)} x {max(usable.cols, 0)} px"
    if area.row1 < rows:
        size += f" above a bar of {rows - area.row1} rows"
    elif area != (0, rows, 0, cols):
        size += " beside the bar"
    raise InputError("image", size, f"at least {extent[0]} x {extent[1]} px, the input of the network")
