"""Drift between slices by phase correlation, and alignment of slices.

Kuglin and Hines, The phase correlation image alignment method, Proc. IEEE Int. Conf. Cybernetics and Society (1975).
"""

from collections import deque
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage
from scipy.linalg import solveh_banded
from scipy.signal.windows import tukey

from cathodeflow.errors import InputError

Floats = NDArray[np.float64]

# Fraction of the image that is tapered at its edges, so that the edges do not correlate.
_FADE = 0.25
# Iterations of the robust least squares, and the residual [px] above which a pair of slices loses weight.
_ROUNDS, _TOLERANCE = 30, 0.3
# Weight of zero drift between neighbours: matters only for a slice without content.
_STAY = 1e-6


class Offsets(NamedTuple):
    """Positions of slices, and the quality of their measurement."""

    #: (n, 2) displacement of the content of each slice from the first slice, down and to the right [px].
    drift: Floats
    #: (n,) height of the correlation peak with the previous slice, 1 for equal content; 1 for the first slice.
    quality: Floats


def offsets(
    slices: Iterable[NDArray[Any]], *, max_drift: float, reach: int = 3, smooth: float = 1.5, subpixel: bool = True
) -> Offsets:
    """Measure the drift of slices by phase correlation with the slices before them.

    Every slice is compared with the `reach` slices before it. The offsets are fitted to all comparisons with a robust
    norm, so that one bad slice or comparison does not shift the slices after it.

    Structure that moves from slice to slice, such as inclined boundaries, appears as drift if a slice shows too few
    particles for it to average out: about 0.1 px from slice to slice for fifty particles.

    Parameters
    ----------
    slices : iterable of (row, col) real
        One after the other; `reach` of them are kept.
    max_drift : float
        Maximum drift between two slices that are compared [px].
    reach : int
        Number of previous slices that each slice is compared with.
    smooth : float
        Standard deviation of the Gaussian shape of the correlation peak [px]; noise in finer detail is suppressed.
    subpixel : bool
        False rounds the drift to whole pixels.

    Returns
    -------
    Offsets
        `drift` is 0 for the first slice.

    Raises
    ------
    InputError
        The size of a slice differs from that of the first.
    """
    kept: deque[NDArray[np.complex64]] = deque(maxlen=reach)
    shape: tuple[int, ...] | None = None
    pairs: list[tuple[int, int]] = []
    found: list[tuple[float, float, float]] = []
    number = -1
    for number, image in enumerate(slices):
        if shape is None:
            shape, window = image.shape, _window(*image.shape)
        if image.shape != shape:
            raise InputError(f"slice {number}", " x ".join(map(str, image.shape)), f"{' x '.join(map(str, shape))} px")
        spectrum = _spectrum(image, window)
        for distance, earlier in enumerate(reversed(kept), start=1):
            pairs.append((number - distance, number))
            found.append(_drift(earlier, spectrum, shape, max_drift, smooth, subpixel))
        kept.append(spectrum)
    measured = np.array(found).reshape(-1, 3)
    quality = np.ones(number + 1)
    next_to = [at for at, (first, second) in enumerate(pairs) if second - first == 1]
    quality[1:] = measured[next_to, 2]
    drift = _positions(number + 1, np.array(pairs, dtype=np.intp).reshape(-1, 2), measured)
    return Offsets(drift if subpixel else np.rint(drift), quality)


def shift(image: NDArray[Any], drift: tuple[float, float] | Floats, *, order: int = 1) -> NDArray[Any]:
    """Shift a slice back by its drift, so that it is aligned with the first slice.

    Parameters
    ----------
    image : (row, col)
        Slice or labels.
    drift : (float, float)
        Row and column of `Offsets.drift` [px].
    order : {0, 1, 3}
        Order of the interpolation: 0 for labels, 1 linear, 3 cubic.

    Returns
    -------
    (row, col) of the same type
        Pixels from outside repeat the edge; `common` returns the region without them.

    Examples
    --------
    >>> shift(np.array([[1, 2, 3, 4]]), (0, 1), order=0)
    array([[2, 3, 4, 4]])
    """
    exact = image.dtype if order == 0 else np.float64
    moved = ndimage.shift(image.astype(exact), -np.asarray(drift, dtype=np.float64), order=order, mode="nearest")
    if np.issubdtype(image.dtype, np.integer) and order:
        limits = np.iinfo(image.dtype)
        moved = np.rint(np.clip(moved, limits.min, limits.max))
    return moved.astype(image.dtype)


def common(drift: Floats, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Return the rows and columns that all slices show after `shift`.

    Parameters
    ----------
    drift : (n, 2)
        Of all slices [px].
    shape : (int, int)
        Of a slice.

    Raises
    ------
    InputError
        There are none, as the drift is larger than the slices.

    Examples
    --------
    >>> common(np.array([[0, 0], [2.5, -1]]), (10, 20))
    (slice(0, 7, None), slice(1, 20, None))
    """
    window = []
    for low, high, size, name in zip(drift.min(axis=0), drift.max(axis=0), shape, ("rows", "columns"), strict=True):
        start, stop = max(0, int(np.ceil(-low))), min(size, int(np.floor(size - high)))
        if start >= stop:
            raise InputError("alignment", f"a drift from {low:.0f} to {high:.0f} px", f"less than the {size} {name}")
        window.append(slice(start, stop))
    return window[0], window[1]


def _window(rows: int, cols: int) -> NDArray[np.float32]:
    return np.outer(tukey(rows, 2 * _FADE), tukey(cols, 2 * _FADE)).astype(np.float32)


def _spectrum(image: NDArray[Any], window: NDArray[np.float32]) -> NDArray[np.complex64]:
    values = image.astype(np.float32)
    return fft.rfft2((values - values.mean()) * window)


def _drift(
    first: NDArray[np.complex64],
    second: NDArray[np.complex64],
    shape: tuple[int, ...],
    max_drift: float,
    smooth: float,
    subpixel: bool,
) -> tuple[float, float, float]:
    """Row and column by which the second lies farther than the first, and the height of the peak, 0 for no content."""
    rows, cols = shape
    cross = second * np.conj(first)
    size = np.abs(cross)
    # Frequencies without power have no phase.
    cross /= np.maximum(size, 1e-6 * size.max() + np.finfo(np.float32).tiny)
    falloff = -2 * (np.pi * smooth) ** 2
    weight = np.exp(falloff * fft.fftfreq(rows)[:, None] ** 2) * np.exp(falloff * fft.rfftfreq(cols)[None] ** 2)
    # Height of the peak for identical content.
    full = fft.irfft2(weight, s=shape)[0, 0]
    peaks = fft.irfft2(cross * weight, s=shape) / full
    down, across = (min(int(max_drift), (n - 1) // 2) for n in (rows, cols))
    near = np.roll(peaks, (down, across), axis=(0, 1))[: 2 * down + 1, : 2 * across + 1]
    row, col = (int(at) for at in np.unravel_index(np.argmax(near), near.shape))
    height = float(near[row, col])
    if not subpixel:
        return row - down, col - across, max(height, 0.0)
    return row - down + _vertex(near[:, col], row), col - across + _vertex(near[row], col), max(height, 0.0)


def _vertex(values: NDArray[np.floating[Any]], at: int) -> float:
    """Return the distance of the peak of a Gaussian from its highest sample, by a parabola of its logarithm [px]."""
    if not 0 < at < len(values) - 1 or values[at - 1 : at + 2].min() <= 0:
        return 0.0
    before, here, after = np.log(values[at - 1 : at + 2])
    bend = before - 2 * here + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def _positions(count: int, pairs: NDArray[np.intp], measured: Floats) -> Floats:
    """Fit positions to the differences of pairs by iteratively reweighted least squares."""
    drift = np.zeros((count, 2))
    if not len(pairs):
        return drift
    first, second = pairs.T
    reach = int((second - first).max())
    weight = measured[:, 2] ** 2
    scale = weight.copy()
    for _ in range(_ROUNDS):
        # Normal equations of a chain: as many bands as slices are compared. The constant is pinned at the first slice.
        bands = np.zeros((reach + 1, count))
        bands[-1] = np.bincount(first, scale, count) + np.bincount(second, scale, count)
        bands[reach - (second - first), second] = -scale
        bands[-1, 1:] += _STAY
        bands[-1, :-1] += _STAY
        bands[-2, 1:] -= _STAY
        bands[-1, 0] += 1
        moment = scale[:, None] * measured[:, :2]
        right = [np.bincount(second, part, count) - np.bincount(first, part, count) for part in moment.T]
        before, drift = drift, solveh_banded(bands, np.stack(right, axis=1))
        if np.abs(drift - before).max() < 1e-3:
            break
        residual = np.linalg.norm(drift[second] - drift[first] - measured[:, :2], axis=1)
        scale = weight / np.maximum(residual / _TOLERANCE, 1)
    return drift - drift[0]
