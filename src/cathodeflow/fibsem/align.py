"""Drift between slices measured by phase correlation, and slices brought to register.

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

# Share of the image over which it fades at its edges, so that these correlate with nothing.
_FADE = 0.25
# Rounds of the robust least squares, and the residual [px] from which on a pair of slices loses weight.
_ROUNDS, _TOLERANCE = 30, 0.3
# Weight of slices staying where their neighbour is: decides only where a slice shows nothing.
_STAY = 1e-6


class Offsets(NamedTuple):
    """Where slices lie, and how sure that is."""

    #: (n, 2) row and column [px] by which the content of each slice lies lower and more to the right than in the first.
    drift: Floats
    #: (n,) height of the correlation peak with the slice before, 1 for the same content; 1 for the first.
    quality: Floats


def offsets(
    slices: Iterable[NDArray[Any]], *, reach: int = 3, largest: float = 16.0, smooth: float = 1.5, subpixel: bool = True
) -> Offsets:
    """Measure the drift of slices by phase correlation with the ones before.

    Every slice is compared with the `reach` slices before it, and the offsets are those that fit all comparisons best
    in the sense of a robust norm: one bad slice or comparison does not shift what follows.

    Structure that itself moves from slice to slice, such as inclined boundaries, is taken for drift where a slice shows
    too few particles for that to average out: about 0.1 px from slice to slice where it shows fifty.

    Parameters
    ----------
    slices : iterable of (row, col) real
        One after the other; `reach` of them are kept.
    reach : int
        Slices before each that it is compared with.
    largest : float
        Largest drift looked for between two slices that are compared [px].
    smooth : float
        Deviation of the Gauss curve that the correlation peak is made to be [px]: the noise in finer detail is ignored.
    subpixel : bool
        False: whole pixels.

    Returns
    -------
    Offsets
        `drift` is 0 for the first slice.

    Raises
    ------
    InputError
        A slice is of another size than the first.
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
            found.append(_drift(earlier, spectrum, shape, largest, smooth, subpixel))
        kept.append(spectrum)
    measured = np.array(found).reshape(-1, 3)
    quality = np.ones(number + 1)
    next_to = [at for at, (first, second) in enumerate(pairs) if second - first == 1]
    quality[1:] = measured[next_to, 2]
    drift = _positions(number + 1, np.array(pairs, dtype=np.intp).reshape(-1, 2), measured)
    return Offsets(drift if subpixel else np.rint(drift), quality)


def shift(image: NDArray[Any], drift: tuple[float, float] | Floats, *, order: int = 1) -> NDArray[Any]:
    """Move the content of a slice back by its drift, so that it lies as in the first slice.

    Parameters
    ----------
    image : (row, col)
        Grey slice or labels.
    drift : (float, float)
        Row and column of `Offsets.drift` [px].
    order : {0, 1, 3}
        Of the interpolation: 0 for labels, 1 linear, 3 cubic.

    Returns
    -------
    (row, col) of the same type
        What comes in from outside repeats the edge; `common` tells where nothing does.

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
    """Return rows and columns that every slice has after `shift`.

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
    largest: float,
    smooth: float,
    subpixel: bool,
) -> tuple[float, float, float]:
    """Row and column by which the second lies farther than the first, and the height of the peak, 0 for no content."""
    rows, cols = shape
    cross = second * np.conj(first)
    size = np.abs(cross)
    # Detail of no strength has no phase.
    cross /= np.maximum(size, 1e-6 * size.max() + np.finfo(np.float32).tiny)
    falloff = -2 * (np.pi * smooth) ** 2
    weight = np.exp(falloff * fft.fftfreq(rows)[:, None] ** 2) * np.exp(falloff * fft.rfftfreq(cols)[None] ** 2)
    # Height of the peak if the content were the same.
    full = fft.irfft2(weight, s=shape)[0, 0]
    peaks = fft.irfft2(cross * weight, s=shape) / full
    down, across = (min(int(largest), (n - 1) // 2) for n in (rows, cols))
    near = np.roll(peaks, (down, across), axis=(0, 1))[: 2 * down + 1, : 2 * across + 1]
    row, col = (int(at) for at in np.unravel_index(np.argmax(near), near.shape))
    height = float(near[row, col])
    if not subpixel:
        return row - down, col - across, max(height, 0.0)
    return row - down + _vertex(near[:, col], row), col - across + _vertex(near[row], col), max(height, 0.0)


def _vertex(values: NDArray[np.floating[Any]], at: int) -> float:
    """Return how far the peak of a Gauss curve lies from its highest sample, from its logarithm's parabola [px]."""
    if not 0 < at < len(values) - 1 or values[at - 1 : at + 2].min() <= 0:
        return 0.0
    before, here, after = np.log(values[at - 1 : at + 2])
    bend = before - 2 * here + after
    return float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5)) if bend < 0 else 0.0


def _positions(count: int, pairs: NDArray[np.intp], measured: Floats) -> Floats:
    """Fit positions to the differences of pairs by least squares, reweighted so that outliers count little."""
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
