"""Search of the Bragg peaks of a frame by persistent homology, and filters of the candidates.

If a landscape is flooded and the level falls, the peaks of a frame are islands: each is born at its maximum and dies at
the level at which it joins a higher one; persistence = birth - death is its prominence (superlevel sets, 0-dimensional,
8-connected; H. Edelsbrunner and J. Harer, "Computational Topology", 2010, chapter VII).

Conventions
-----------
- A pixel is used if it is finite and above `threshold`. All others form a floor at the threshold: an island that
  meets no other above it dies there, so persistence never exceeds the height above the threshold, and the pairs are
  those of the frame clipped below at the threshold. They are stable: changing pixels by at most d changes births and
  deaths by at most d.
- Of two equal pixels, the later one in raster order counts as higher, and survives. A plateau is one island; no pair
  has persistence zero. `candidates` moves a plateau's position from its last pixel to the one nearest its centre.

Differences to the package findpeaks (2.7.5, method 'topology')
---------------------------------------------------------------
- One `limit` is used twice: pixels >= limit are used, and pairs with score > limit are kept.
- The island of the global maximum has the death 0, independent of the floor. An island that meets no other above the
  limit is not listed at all. Without a limit all pixels are used, so that islands on a background set to 0 die at 0.
- Equal pixels are distinguished by adding index * 2.2e-16, to pixels that are not 0; equal ones that remain are
  ordered by (row, col). In both cases the later pixel wins, but the levels are off by this amount and parts of a
  plateau appear as pairs with persistence of about 1e-13 or 0. (In images of one or two columns repeated values are
  lowered instead, and the earlier pixel wins.)
- Values below 0 are set to 0. With `scale` (its default) the frame is stretched to 0..255 and cut to integers.
- Making a `findpeaks` object sets the level of the root logger, or its handler.
"""

import logging
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import label

from cathodeflow.bragg import persistence
from cathodeflow.bragg.peak_options import FindPeaks

PEAK = np.dtype([("row", "i4"), ("col", "i4"), ("birth", "f8"), ("death", "f8"), ("persistence", "f8")])
CANDIDATE = np.dtype([*PEAK.descr, ("area", "i4"), ("component", "i4"), ("npeaks", "u2"), ("central", "?")])
NO_MASK = np.zeros((0, 0), np.bool_)


class Pixels(NamedTuple):
    """The pixels that are used, in raster order."""

    places: NDArray[np.int64]
    """(n,) row * stride + col."""
    values: NDArray[np.float64]
    """(n,)"""
    stride: int
    """Number of columns of the frame + 1."""


def persistence_peaks(image: ArrayLike, *, threshold: float, min_persistence: float) -> NDArray[np.void]:
    """Find the peaks of an image by union-find.

    Parameters
    ----------
    image : (row, col) real
        Pixels that are not finite are ignored.
    threshold : float
        Pixels at or below it are ignored; it is the death of peaks that meet no higher peak above it.
    min_persistence : float
        Peaks at or below this persistence are left out.

    Returns
    -------
    (n,) structured
        `row`, `col` (int32), `birth`, `death`, `persistence` (float64), sorted by persistence, highest first, equal
        ones in raster order.

    Raises
    ------
    ValueError
        The image does not have two axes or real numbers, or the threshold is NaN.

    Examples
    --------
    >>> persistence_peaks([[0, 9, 4, 7, 0]], threshold=1, min_persistence=0).tolist()
    [(0, 1, 9.0, 1.0, 8.0), (0, 3, 7.0, 4.0, 3.0)]
    """
    pixels = _bright(_contiguous(image), _level(threshold))
    return _by_persistence(_union_find(pixels, threshold)[0], min_persistence)


def findpeaks_peaks(image: ArrayLike, *, threshold: float, min_persistence: float) -> NDArray[np.void]:
    """Find the same peaks through the package findpeaks, hundreds of times slower.

    The input of the package is the ranks of the pixel values instead of the values, and a floor of zeros for all pixels
    that are not used, so that none of its differences (see the module) affects the result.

    Parameters, returned columns and errors are those of `persistence_peaks`.
    """
    pixels = _bright(_contiguous(image), _level(threshold))
    return _by_persistence(_findpeaks(pixels, threshold), min_persistence)


def candidates(frame: ArrayLike, options: FindPeaks, *, mask: ArrayLike | None = None) -> NDArray[np.void]:
    """Find the candidate peaks of a frame.

    Parameters
    ----------
    frame : (row, col) real
        Intensity [counts]. Pixels that are not finite are ignored.
    options : FindPeaks
        With `scale="uint8"` thresholds, births and deaths are on the scale 0 to 255: as in the package findpeaks,
        negative values are set to 0, the range is stretched to 0..255, and fractions are cut off.
    mask : (row, col) int or bool, optional
        Pixels that are not 0 are ignored.

    Returns
    -------
    (n,) structured
        In raster order: `row`, `col` (int32), `birth`, `death`, `persistence` (float64) of the peak; `area` [px] and
        `component` (int32), size and number of its 8-connected component above `min_value` (numbered from 0 in the
        order of their first pixels, those without peaks too); `npeaks` (uint16), number of peaks in that component
        that are persistent enough; `central` (bool): the brightest pixel of the patch around the peak is near its
        centre. Other peaks, next to a brighter one, are not passed to the network, which is trained on patches of a
        single peak, but stay in the table: the fits of their neighbours need them.

    Raises
    ------
    ValueError
        The frame does not have two axes or real numbers, or the mask has another shape.
    """
    image = _contiguous(frame)
    bad = NO_MASK if mask is None else np.ascontiguousarray(mask, dtype=bool)
    if mask is not None and bad.shape != image.shape:
        raise ValueError(f"mask: found shape {bad.shape}, expected {image.shape}")
    select = _bright if options.scale == "none" else _bright_uint8
    pixels = select(image, _level(options.min_value), bad)
    peaks, component = _union_find(pixels, options.min_value)
    if options.engine == "findpeaks":
        peaks = _findpeaks(pixels, options.min_value)

    _, first, labels, areas = np.unique(component, return_index=True, return_inverse=True, return_counts=True)
    number = np.empty(first.size, np.int32)
    number[np.argsort(first)] = np.arange(first.size)
    peaks = np.sort(peaks[peaks["persistence"] > options.min_persistence], order=("row", "col"))
    label = labels[np.searchsorted(pixels.places, peaks["row"].astype(np.int64) * pixels.stride + peaks["col"])]
    large = areas[label] >= options.min_area
    peaks, label = peaks[large], label[large]

    found = np.empty(peaks.size, CANDIDATE)
    for name in PEAK.names or ():
        found[name] = peaks[name]
    found["area"], found["component"] = areas[label], number[label]
    npeaks = np.bincount(label, minlength=first.size)[label]
    found["npeaks"] = np.minimum(npeaks, np.iinfo(np.uint16).max)
    _centre_plateaus(found, _dense(pixels, image.shape) if options.scale == "uint8" else image, bad)
    found.sort(order=("row", "col"))
    at = found["row"].copy(), found["col"].copy()
    found["central"] = persistence.central(image, bad, *at, options.patch_size // 2, options.centre_tolerance)
    return found


def _dense(pixels: Pixels, shape: tuple[int, ...]) -> NDArray[np.float64]:
    values = np.full(shape, -np.inf)
    values[np.divmod(pixels.places, pixels.stride)] = pixels.values
    return values


def _centre_plateaus(found: NDArray[np.void], image: NDArray[Any], bad: NDArray[np.bool_]) -> None:
    """Move peaks with equal neighbours to the pixel of their plateau that is nearest its centre."""
    rows, cols = found["row"].astype(np.intp), found["col"].astype(np.intp)
    top = image[rows, cols]
    flat = np.zeros(found.size, bool)
    for down, right in ((-1, -1), (-1, 0), (-1, 1), (0, -1)):
        r, c = rows + down, cols + right
        inside = (r >= 0) & (c >= 0) & (c < image.shape[1])
        flat |= inside & (image[np.maximum(r, 0), np.clip(c, 0, image.shape[1] - 1)] == top)
    # The peak is the last pixel of its plateau, so only earlier neighbours can be equal.
    for peak in np.flatnonzero(flat):
        row, col = rows[peak], cols[peak]
        half = 8
        while True:
            first, start = max(row - half, 0), max(col - half, 0)
            window = image[first : row + half + 1, start : col + half + 1]
            equal = window == top[peak]
            if bad.size:
                equal &= ~bad[first : row + half + 1, start : col + half + 1]
            labels = label(equal, np.ones((3, 3)))[0]
            r, c = np.nonzero(labels == labels[row - first, col - start])
            r, c = r + first, c + start
            cut = (r.min() == first > 0) or (c.min() == start > 0)
            cut |= (r.max() == row + half < image.shape[0] - 1) or (c.max() == col + half < image.shape[1] - 1)
            if not cut:
                break
            half *= 2
        away = np.hypot(r - r.mean(), c - c.mean())
        # Of two equally near, the later one, as in the whole search.
        nearest = len(away) - 1 - int(np.argmin(np.round(away[::-1], 9)))
        found["row"][peak], found["col"][peak] = r[nearest], c[nearest]


def _contiguous(image: ArrayLike) -> NDArray[Any]:
    # Two element types only, so that few variants are compiled; float32 holds the integers of up to 16 bits exactly.
    array = np.asarray(image)
    if array.ndim != 2:
        raise ValueError(f"image: found {array.ndim} axes, expected 2 (row, col)")
    if array.dtype.kind not in "biuf":
        raise ValueError(f"image: found elements of type {array.dtype}, expected real numbers")
    return np.ascontiguousarray(array, np.float32 if np.can_cast(array.dtype, np.float32) else np.float64)


def _level(threshold: float) -> float:
    if np.isnan(threshold):
        raise ValueError("threshold: found nan, expected a number")
    return float(threshold)


def _bright(image: NDArray[Any], threshold: float, bad: NDArray[np.bool_] = NO_MASK) -> Pixels:
    places, values = persistence.gather(image, threshold)
    pixels = Pixels(places, values, image.shape[1] + 1)
    return _select(pixels, ~bad[np.divmod(places, pixels.stride)]) if bad.size else pixels


def _bright_uint8(image: NDArray[Any], threshold: float, bad: NDArray[np.bool_]) -> Pixels:
    """Gather on the scale of findpeaks, scaling only the pixels that may exceed the threshold."""
    least, greatest = (max(extreme, 0.0) for extreme in persistence.extremes(image, bad))
    span = max(greatest - least, 0.0)
    # Level k begins at least + span * k / 255; half a level less covers the rounding. Below level 0 all pixels are
    # used.
    lowest = least + span * (np.floor(threshold) + 0.5) / 255 if threshold >= 0 else -np.inf
    pixels = _bright(image, lowest, bad)
    values = np.maximum(pixels.values, 0) - least
    # A frame of one value becomes 0 everywhere, as in findpeaks.
    values = np.floor(values / span * 255) if span > 0 else np.zeros_like(values)
    return _select(pixels._replace(values=values), values > threshold)


def _select(pixels: Pixels, keep: NDArray[np.bool_]) -> Pixels:
    return pixels._replace(places=pixels.places[keep], values=pixels.values[keep])


def _table(pixels: Pixels, found: NDArray[np.integer], death: NDArray[np.float64]) -> NDArray[np.void]:
    peaks = np.empty(found.size, PEAK)
    peaks["row"], peaks["col"] = np.divmod(pixels.places[found], pixels.stride)
    peaks["birth"], peaks["death"] = pixels.values[found], death
    peaks["persistence"] = peaks["birth"] - death
    return peaks


def _by_persistence(peaks: NDArray[np.void], min_persistence: float) -> NDArray[np.void]:
    peaks = peaks[peaks["persistence"] > max(min_persistence, 0)]
    return peaks[np.lexsort((peaks["col"], peaks["row"], -peaks["persistence"]))]


def _union_find(pixels: Pixels, threshold: float) -> tuple[NDArray[np.void], NDArray[np.int32]]:
    """Peaks in raster order, including those with persistence 0, and the component of each pixel."""
    places, values, stride = pixels
    top, above = persistence.basins(places, values, stride)
    low, high = persistence.contacts(places, values, stride, top, above)
    maxima, death = persistence.merge(values, top, low, high, np.argsort(-values[low]), float(threshold))
    return _table(pixels, maxima, death), top


def _findpeaks(pixels: Pixels, threshold: float) -> NDArray[np.void]:
    rows, cols = np.divmod(pixels.places, pixels.stride)
    values = pixels.values
    if not values.size:
        return np.empty(0, PEAK)
    # findpeaks is imported here because it takes seconds. A handler of its own keeps it from configuring the root
    # logger, and the function is called instead of the class, which sets the root logger's level. Importing sets its
    # own level.
    package = logging.getLogger("findpeaks")
    if not package.handlers:
        package.addHandler(logging.NullHandler())
    from findpeaks import stats

    package.setLevel(logging.CRITICAL)

    # Rows and columns without bright pixels are left out except one after each with bright pixels: distances do not
    # matter, and findpeaks takes as long for the floor as for the peaks. With the third floor column, the image has at
    # least the three columns that are needed to treat ties in the usual way.
    row_kept, row_place = _closed_up(rows, 1)
    col_kept, col_place = _closed_up(cols, 2)
    levels, rank = np.unique(values, return_inverse=True)
    ranks = np.zeros((row_kept, col_kept))
    index_of = np.full(ranks.shape, -1)
    ranks[row_place, col_place] = rank + 1
    index_of[row_place, col_place] = np.arange(values.size)
    levels = np.concatenate([[threshold], levels])

    groups = stats.topology(ranks, limit=None)["groups0"]
    births = np.array([group[0] for group in groups], int).reshape(-1, 2)
    # The global maximum does not die.
    deaths = [0.0 if group[3] is None else ranks[group[3]] for group in groups]
    death = np.array(deaths, int)
    alive = ranks[births[:, 0], births[:, 1]] > death
    births, death = births[alive], death[alive]
    return _table(pixels, index_of[births[:, 0], births[:, 1]], levels[death])


def _closed_up(coordinates: NDArray[np.int32], margin: int) -> tuple[int, NDArray[np.integer]]:
    """Renumber coordinates so that all gaps are one wide; also return the new size with a margin at the end."""
    used, inverse = np.unique(coordinates, return_inverse=True)
    moved = np.concatenate([[0], np.cumsum(np.minimum(np.diff(used), 2))])
    return int(moved[-1]) + 1 + margin, moved[inverse]
