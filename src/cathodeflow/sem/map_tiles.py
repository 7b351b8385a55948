"""Tiles of maps that are larger than the memory: a row of tiles at a time is read and cut."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.sem.info_bar import Bar
from cathodeflow.sem.resample import BLACK, WHITE, scaled_uint8, shrink
from cathodeflow.sem.tiles import tile_grid
from cathodeflow.sem.usable_area import UsableArea

# Pixels that are read at a time to measure the intensities.
_BAND = 2**24


class Parts(Protocol):
    """An image of which parts are read: `cathodeflow.io.large_images.LargeImage`."""

    shape: tuple[int, int]
    dtype: np.dtype[Any]

    def region(self, row0: int, row1: int, col0: int, col1: int) -> NDArray[Any]:
        """Read a part."""


class MapTiles(NamedTuple):
    """Tiles of a map.

    places : (n, 2) int, first pixel (row, col) of each tile in the usable area, row by row.
    extent : rows and columns of the map that each tile covers [px].
    batches : iterator over (m, side, side) uint8, the tiles of one row each.
    """

    places: NDArray[np.int64]
    extent: tuple[int, int]
    batches: Iterator[NDArray[np.uint8]]


def bar_of_map(shape: tuple[int, int], settings: Mapping[str, Any], given: int | None, side: str) -> Bar:
    """Return the information bar of a map that the user or the instrument says; it is not looked for in the image.

    Parameters are those of `info_bar.bar_of`.

    Raises
    ------
    InputError
        A bar as thick as the map.
    """
    place = "bottom" if side == "auto" else side
    rows, source = (given, "option") if given is not None else (settings.get("bar_rows"), "instrument")
    if side == "none" or not rows or (source == "instrument" and place != "bottom"):
        return Bar(0, "none", "option" if side == "none" or given == 0 else "image")
    UsableArea.beside_bar(shape, int(rows), place)
    return Bar(int(rows), place, source)


def cut_map(image: Parts, *, side: int, area: UsableArea, **placed: Any) -> MapTiles:
    """Cover a map with tiles as `tiles.cut_tiles` does, of which it gives the same ones; parameters are those.

    Tiles without particles are kept, since contrast is compared within a whole image.

    Raises
    ------
    InputError
        The map is smaller than a tile, or its pixel size is needed and unknown; while the batches are read: pixels that
        cannot be decoded.
    """
    grid = tile_grid(image.shape, area=area, **placed)
    return MapTiles(grid.places, grid.extent, _batches(image, grid.places, grid.extent, grid.usable, area, side))


def _batches(
    image: Parts,
    places: NDArray[np.int64],
    extent: tuple[int, int],
    usable: UsableArea,
    area: UsableArea,
    side: int,
) -> Iterator[NDArray[np.uint8]]:
    limits = _limits(image, area) if image.dtype != np.uint8 else None
    for row in np.unique(places[:, 0]).tolist():
        crops = []
        for col in places[places[:, 0] == row, 1].tolist():
            top, left = usable.row0 + row, usable.col0 + col
            part = image.region(top, top + extent[0], left, left + extent[1])
            grey = part.astype(np.uint8) if limits is None else scaled_uint8(part, *limits)
            crops.append(shrink(grey, side=side))
        yield np.stack(crops)


def _limits(image: Parts, area: UsableArea) -> tuple[float, float]:
    """Intensities of black and white, as `resample.to_uint8` takes them of the whole area, from its histogram."""
    counts = np.zeros(int(np.iinfo(image.dtype).max) + 1, dtype=np.int64)
    step = max(_BAND // max(area.cols, 1), 1)
    for row in range(area.row0, area.row1, step):
        band = image.region(row, min(row + step, area.row1), area.col0, area.col1)
        counts += np.bincount(band.ravel(), minlength=len(counts))
    total = np.cumsum(counts)
    if not total[-1]:
        raise InputError("image", "no pixels beside the bar", "some")
    limits = []
    for fraction in (BLACK, WHITE):
        place = fraction * (total[-1] - 1)
        below, above = np.searchsorted(total, [np.floor(place), np.ceil(place)], side="right")
        limits.append(float(below + (above - below) * (place - np.floor(place))))
    return limits[0], limits[1]
