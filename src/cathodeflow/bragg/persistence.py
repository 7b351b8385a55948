"""Persistent homology of the bright pixels of one frame, compiled.

The frame is not sorted, and no array of its size is allocated: the pixels above the threshold are gathered into lists
in raster order, each is assigned by steepest ascent to a local maximum, and only the edges between the basins of
different maxima are sorted and merged (Kruskal's algorithm with the elder rule; H. Edelsbrunner and J. Harer,
"Computational Topology", 2010, chapter VII). This gives the pairs of the filtration by pixels, because a pixel at level
t is joined to the top of its basin by pixels of at least t.

Pixels are ordered by (value, position in the list), so of two equal pixels the later one in raster order is higher.
Arrays are grown and filled in different functions: a loop that may replace its array is ten times slower in numba.
"""

import math

import numpy as np
from numba import njit

_BLOCK = 32  # [px] searched at once: long enough for vector instructions, short enough to be skipped often


@njit(cache=True, nogil=True)
def _gather_row(line, threshold, first, places, values, n):
    for start in range(0, line.size, _BLOCK):
        block = line[start : start + _BLOCK]
        bright = False
        for i in range(block.size):
            bright |= block[i] > threshold
        if not bright:
            continue
        for i in range(block.size):
            value = block[i]
            if value > threshold and value < math.inf:
                places[n], values[n] = first + start + i, value
                n += 1
    return n


@njit(cache=True, nogil=True)
def gather(image, threshold):
    """List the finite pixels above a threshold in raster order.

    Parameters
    ----------
    image : (row, col) float32 or float64, contiguous
    threshold : float

    Returns
    -------
    places : (n,) int64
        row * (cols + 1) + col; the extra column separates the end of a row from the start of the next.
    values : (n,) float64
    """
    height, width = image.shape
    places, values = np.empty(4096, np.int64), np.empty(4096, np.float64)
    n = 0
    for row in range(height):
        if n + width > places.size:
            longer_places, longer_values = np.empty(2 * n + width, np.int64), np.empty(2 * n + width, np.float64)
            longer_places[:n], longer_values[:n] = places[:n], values[:n]
            places, values = longer_places, longer_values
        n = _gather_row(image[row], threshold, row * (width + 1), places, values, n)
    return places[:n].copy(), values[:n].copy()


@njit(cache=True, nogil=True)
def basins(places, values, stride):
    """Assign every pixel to the local maximum at the end of its steepest ascent.

    Parameters
    ----------
    places : (n,) int64
        Pixels in raster order, row * stride + col.
    values : (n,) float64
    stride : int
        At least the number of columns + 1.

    Returns
    -------
    top : (n,) int32
        Position in the list of each pixel's local maximum.
    above : (n,) int32
        Position of the first pixel that is no further back in raster order than each pixel's upper left neighbour.
    """
    n = places.size
    top, above = np.empty(n, np.int32), np.empty(n, np.int32)
    p = 0
    for k in range(n):
        here, value = places[k], values[k]
        while places[p] < here - stride - 1:
            p += 1
        above[k] = p
        best, highest = k, value
        # Only earlier neighbours: of each pair, the lower pixel may have found a higher neighbour.
        j = p
        while places[j] <= here - stride + 1:
            if values[j] <= value:
                if values[top[j]] <= value:
                    top[j] = k
            elif values[j] >= highest:
                best, highest = j, values[j]
            j += 1
        if k > 0 and places[k - 1] == here - 1:
            if values[k - 1] <= value:
                if values[top[k - 1]] <= value:
                    top[k - 1] = k
            elif values[k - 1] >= highest:
                best = k - 1
        top[k] = best
    for k in range(n):
        summit = top[k]
        while top[summit] != summit:
            summit = top[summit]
        step = k
        while top[step] != summit:
            following = top[step]
            top[step] = summit
            step = following
    return top, above


@njit(cache=True, nogil=True)
def _fill_contacts(places, values, stride, top, above, low, high):
    # If `low` is empty, the contacts are only counted.
    m = 0
    for k in range(places.size):
        here, summit = places[k], top[k]
        j = np.int64(above[k])
        while places[j] <= here - stride + 1:
            if top[j] != summit:
                if low.size > 0:
                    low[m], high[m] = (j, k) if values[j] <= values[k] else (k, j)
                m += 1
            j += 1
        j = k - 1
        if k > 0 and places[j] == here - 1 and top[j] != summit:
            if low.size > 0:
                low[m], high[m] = (j, k) if values[j] <= values[k] else (k, j)
            m += 1
    return m


@njit(cache=True, nogil=True)
def contacts(places, values, stride, top, above):
    """List the pairs of neighbours (of eight) that belong to the basins of different maxima.

    Parameters are those of `basins` and its results.

    Returns
    -------
    low, high : (m,) int32
        Positions of the lower and of the higher pixel of each pair.
    """
    none = np.empty(0, np.int32)
    m = _fill_contacts(places, values, stride, top, above, none, none)
    low, high = np.empty(m, np.int32), np.empty(m, np.int32)
    if m > 0:
        _fill_contacts(places, values, stride, top, above, low, high)
    return low, high


@njit(cache=True, nogil=True)
def _root(parent, k):
    while parent[k] != k:
        parent[k] = parent[parent[k]]
        k = parent[k]
    return k


@njit(cache=True, nogil=True)
def merge(values, top, low, high, order, threshold):
    """Merge the basins from the highest contact to the lowest; the lower maximum dies.

    Parameters
    ----------
    values : (n,) float64
    top : (n,) int32
        Local maximum of each pixel, as `basins` returns it. Replaced by the highest pixel of its connected component.
    low, high : (m,) int32
    order : (m,) int
        Contacts sorted by the value of their lower pixel, descending.
    threshold : float
        Death of the maxima that survive.

    Returns
    -------
    maxima : (p,) int32
        Positions of the local maxima, ascending.
    death : (p,) float64
    """
    n, peaks = values.size, 0
    for k in range(n):
        peaks += top[k] == k
    maxima, death = np.empty(peaks, np.int32), np.full(peaks, threshold, np.float64)
    p = 0
    for k in range(n):
        if top[k] == k:
            maxima[p] = k
            p += 1
    for e in order:
        old, young = _root(top, low[e]), _root(top, high[e])
        if old == young:
            continue
        if values[old] < values[young] or (values[old] == values[young] and old < young):
            old, young = young, old
        top[young] = old
        death[np.searchsorted(maxima, young)] = values[low[e]]
    for k in range(n):
        top[k] = _root(top, k)
    return maxima, death


@njit(cache=True, nogil=True)
def central(image, mask, rows, cols, half, tolerance):
    """Return for which peaks the maximum of the patch around them is near its centre.

    Parameters
    ----------
    image : (row, col) float32 or float64, contiguous
    mask : (row, col) bool, or (0, 0) for none
        Pixels that are ignored.
    rows, cols : (p,) int32
    half, tolerance : int
        Half the side of the patch, and of its central part [px], without the centre.

    Returns
    -------
    (p,) bool
    """
    keep = np.empty(rows.size, np.bool_)
    for p in range(rows.size):
        inner = outer = -math.inf
        for r in range(max(rows[p] - half, 0), min(rows[p] + half + 1, image.shape[0])):
            for c in range(max(cols[p] - half, 0), min(cols[p] + half + 1, image.shape[1])):
                value = image[r, c]
                if value == math.inf or (mask.size > 0 and mask[r, c]):
                    continue
                if abs(r - rows[p]) <= tolerance and abs(c - cols[p]) <= tolerance:
                    inner = max(inner, value) if value == value else inner
                elif value > outer:
                    outer = value
        keep[p] = inner >= outer
    return keep


@njit(cache=True, nogil=True)
def extremes(image, mask):
    """Return the lowest and highest finite value of the unmasked pixels; (inf, -inf) without any."""
    lowest, highest = math.inf, -math.inf
    for r in range(image.shape[0]):
        for c in range(image.shape[1]):
            value = image[r, c]
            if mask.size > 0 and mask[r, c]:
                continue
            if -math.inf < value < lowest:
                lowest = value
            if highest < value < math.inf:
                highest = value
    return lowest, highest
