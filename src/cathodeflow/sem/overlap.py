"""Micrographs that show the same particles: the shift between two images, and the leakage of a split.

The stage often moves by less than the field of view, so that neighbouring images overlap. If one of them is in the
training set and the other in the test set, the network is tested on particles that it was trained on.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import fft, ndimage

from cathodeflow.errors import InputError

Image = NDArray[Any]
Float32 = NDArray[np.float32]

#: Minimum correlation of a true overlap: images of different particles reach 0.3, of the same ones 0.7 and more.
MIN_SCORE = 0.5
#: Minimum overlap that is searched for, as a fraction of the smaller image; less cannot be distinguished from chance.
MIN_FRACTION = 0.05
#: Longest side [px] at which images are compared.
SIDE = 320
# Band [px] of the detail that is compared, as standard deviations of Gaussian filters: finer is noise, coarser shading.
_FINE, _COARSE = 1.0, 4.0
# Pixels are clipped at this many standard deviations from the mean, so that a few charged ones do not dominate.
_CLIP = 4.0


class Overlap(NamedTuple):
    """Position of `image_b` on `image_a`: its pixel (row, col) is (row + shift_row, col + shift_col) of `image_a`.

    The shift is in pixels of the given images; score is the correlation of the overlapping parts, -1..1.
    """

    shift_row: float
    shift_col: float
    score: float


class _Prepared:
    """Detail of an image: its spectrum, and its energy in the overlap at every shift."""

    def __init__(self, image: Image, shape: tuple[int, int]) -> None:
        grey = np.asarray(image, np.float32)
        fine, coarse = (ndimage.gaussian_filter(grey, width, mode="nearest") for width in (_FINE, _COARSE))
        detail = fine - coarse
        deviation = detail.std()
        # In a uniform image only rounding is left, which must not be amplified to detail.
        flat = deviation <= 1e-5 * max(1.0, float(np.abs(grey).max()))
        detail = np.zeros_like(grey) if flat else np.clip(detail / deviation, -_CLIP, _CLIP)
        self.rows, self.cols = grey.shape
        self.shape = shape
        self.spectrum = fft.rfft2(detail, shape)
        self._squared = fft.rfft2(detail**2, shape)
        self._energies: dict[tuple[int, int, bool], Float32] = {}

    def energy(self, rows: int, cols: int, *, moved: bool) -> Float32:
        """Sum of squares in the overlap with (rows, cols), at every shift of that, or of this image if `moved`."""
        key = (rows, cols, moved)
        if key not in self._energies:
            mask = fft.rfft2(np.ones((rows, cols), np.float32), self.shape)
            product = mask * self._squared.conj() if moved else self._squared * mask.conj()
            self._energies[key] = fft.irfft2(product, self.shape)
        return self._energies[key]


def shrink_factor(rows: int, cols: int, *, longest: int = SIDE) -> int:
    """Return the integer by which an image must be shrunk so that no side is longer than `longest` [px].

    Examples
    --------
    >>> shrink_factor(896, 1280)
    4
    """
    return max(1, -(-max(rows, cols) // longest))


def shrink(image: Image, factor: int) -> Float32:
    """Shrink by an integer factor, each pixel the mean of factor x factor; the remainder at the edges is dropped.

    Parameters
    ----------
    image : (rows, cols)
    factor : int
        At most the shorter side.

    Returns
    -------
    (rows // factor, cols // factor) float32
    """
    rows, cols = image.shape[0] // factor, image.shape[1] // factor
    blocks = image[: rows * factor, : cols * factor].reshape(rows, factor, cols, factor)
    return blocks.mean(axis=(1, 3), dtype=np.float32)


def find_overlap(image_a: Image, image_b: Image, *, longest: int = SIDE, min_fraction: float = MIN_FRACTION) -> Overlap:
    """Find the shift between two images of the same magnification by normalised cross-correlation of their detail.

    The correlation at every shift is that of the overlapping parts [1]_; the shift chosen is the one least likely by
    chance: the maximum of the correlation times the root of the overlapping area. Brightness, contrast, shading and
    noise do not matter. Crop information bars first.

    Parameters
    ----------
    image_a, image_b : (rows, cols)
        They may differ in size.
    longest : int
        Maximum side at which they are compared [px].
    min_fraction : float
        Minimum overlap that is searched for, as a fraction of the smaller image.

    Returns
    -------
    Overlap
        Accurate to about a pixel of the shrunk images. Any two images have one; it is real if its score is at least
        `MIN_SCORE`.

    References
    ----------
    .. [1] D. Padfield, IEEE Trans. Image Process. 21, 2706 (2012)
    """
    factor = max(shrink_factor(*image.shape, longest=longest) for image in (image_a, image_b))
    images = [shrink(image, factor) for image in (image_a, image_b)]
    shape = _padded(images)
    a, b = (_Prepared(image, shape) for image in images)
    found = _correlate(a, b, min_fraction)
    return Overlap(found.shift_row * factor, found.shift_col * factor, found.score)


def shared_area(
    images: Sequence[Image],
    table: pd.DataFrame,
    *,
    min_score: float = MIN_SCORE,
    min_fraction: float = MIN_FRACTION,
) -> pd.DataFrame:
    """Compute how much of every test image is visible in training images of its class; all pairs are compared.

    Parameters
    ----------
    images : sequence of (rows, cols)
        Without information bars, all shrunk by the same factor (`shrink`), in the order of the table.
    table : DataFrame
        Columns name, label, split; only rows with split train and test are used.
    min_score, min_fraction : float
        Minimum correlation, and minimum fraction of the smaller image, of an overlap.

    Returns
    -------
    DataFrame
        A row per test image in the order of the table: name, label, shared (the largest fraction of its area that one
        training image shows, 0..1), shared_with (the name of that image, or None), score (its correlation, or NaN),
        seen (the fraction that all training images show together).

    Raises
    ------
    InputError
        The number of images is not that of the rows.
    """
    if len(images) != len(table):
        raise InputError("images", f"{len(images)}", f"{len(table)}, one for each row of the table")
    rows = []
    names, labels, splits = (table[column].to_numpy() for column in ("name", "label", "split"))
    for label in pd.unique(labels[splits == "test"]):
        tests, trains = (np.flatnonzero((labels == label) & (splits == split)).tolist() for split in ("test", "train"))
        shape = _padded([images[i] for i in (*tests, *trains)])
        prepared = {i: _Prepared(images[i], shape) for i in tests}
        best = {i: (0.0, None, np.nan) for i in tests}
        seen = {i: np.zeros(images[i].shape, np.bool_) for i in tests}
        for j in trains:
            other = _Prepared(images[j], shape)
            for i in tests:
                found = _correlate(prepared[i], other, min_fraction)
                if found.score < min_score:
                    continue
                part = _overlapping(found, images[i].shape, images[j].shape)
                seen[i][part] = True
                shared = seen[i][part].size / seen[i].size
                if shared > best[i][0]:
                    best[i] = (shared, names[j], found.score)
        rows += [(i, names[i], label, *best[i], seen[i].mean()) for i in tests]
    columns = ["row", "name", "label", "shared", "shared_with", "score", "seen"]
    return pd.DataFrame(rows, columns=columns).sort_values("row").drop(columns="row").reset_index(drop=True)


def _padded(images: Sequence[Image]) -> tuple[int, int]:
    """Shape at which any two of the images can be shifted against each other without wrapping around."""
    rows, cols = (2 * max(image.shape[axis] for image in images) - 1 for axis in (0, 1))
    return fft.next_fast_len(rows, real=True), fft.next_fast_len(cols, real=True)


def _correlate(a: _Prepared, b: _Prepared, min_fraction: float) -> Overlap:
    shape = a.shape
    product = fft.irfft2(a.spectrum * b.spectrum.conj(), shape)
    energy = a.energy(b.rows, b.cols, moved=False) * b.energy(a.rows, a.cols, moved=True)
    area = np.multiply.outer(_lengths(a.rows, b.rows, shape[0]), _lengths(a.cols, b.cols, shape[1]))
    smaller = min(a.rows * a.cols, b.rows * b.cols)
    # Where the overlapping part of an image is uniform, the energy is only rounding.
    sound = (area >= max(1.0, min_fraction * smaller)) & (energy > (1e-3 * area) ** 2)
    score = np.divide(product, np.sqrt(energy, where=sound, out=np.ones_like(energy)), where=sound, out=0 * product)
    row, col = np.unravel_index(np.argmax(score * np.sqrt(area)), shape)
    shift = [
        int(at) - size * (at >= length) for at, size, length in zip((row, col), shape, (a.rows, a.cols), strict=True)
    ]
    return Overlap(float(shift[0]), float(shift[1]), float(np.clip(score[row, col], -1, 1)))


def _lengths(a: int, b: int, size: int) -> NDArray[np.float32]:
    """Overlap [px] of lengths a and b at every shift, in the order of a Fourier transform of `size`."""
    shift = np.arange(size)
    shift[a:] -= size
    return np.clip(np.minimum(a, shift + b) - np.maximum(0, shift), 0, None).astype(np.float32)


def _overlapping(found: Overlap, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[slice, slice]:
    """Rows and columns of image a, of shape `a`, that image b shows."""
    starts = (int(found.shift_row), int(found.shift_col))
    rows, cols = (slice(max(0, start), min(a[k], start + b[k])) for k, start in enumerate(starts))
    return rows, cols
