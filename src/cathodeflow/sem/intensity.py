"""Intensities and information bars of micrographs as features: histograms, histogram matching, thumbnails."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy import ndimage, stats

from cathodeflow.errors import InputError

_QUANTILES = 1025
# Standard deviations [px] of the local means that order pixels of equal intensity.
_SURROUNDINGS = (1.0, 4.0)


def intensity_histogram(image: NDArray[np.uint8], bins: int) -> NDArray[np.float64]:
    """Return the fraction of the pixels in each of `bins` equal bins of intensity.

    Parameters
    ----------
    image : (rows, cols) uint8
        Without its information bar.
    bins : int
        2..256.

    Returns
    -------
    (bins,) float64

    Raises
    ------
    InputError
        The image is not uint8.
    """
    if image.dtype != np.uint8:
        raise InputError("image", f"{image.dtype}", "uint8")
    counts = np.bincount(image.ravel(), minlength=256)
    return np.bincount(np.arange(256) * bins // 256, weights=counts, minlength=bins) / image.size


def bar_thumbnail(bar: NDArray[Any], side: int) -> NDArray[np.float32]:
    """Resize the information bar of an image to a square.

    Parameters
    ----------
    bar : (rows, cols) uint8
        Of `UsableArea.bar`; without a bar, which is empty, the square is 0.
    side : int
        Side of the square [px].

    Returns
    -------
    (side, side) float32
        Means of the pixels, 0..255.
    """
    if not bar.size:
        return np.zeros((side, side), np.float32)
    return np.asarray(Image.fromarray(bar.astype(np.float32)).resize((side, side), Image.Resampling.BOX))


def reference_quantiles(histograms: ArrayLike) -> NDArray[np.float64]:
    """Return the quantiles of the mean intensity distribution of images, for `match_histogram`.

    Parameters
    ----------
    histograms : (n, 256)
        `intensity_histogram` of each image.

    Returns
    -------
    (1025,) float64
        Intensities 0..255, ascending.
    """
    cumulative = np.cumsum(np.mean(np.asarray(histograms, np.float64), axis=0))
    fractions = np.linspace(0, 1, _QUANTILES)
    # The pixels of a grey level are spread from half a level below to half a level above it.
    levels = np.interp(fractions, np.concatenate([[0.0], cumulative / cumulative[-1]]), np.arange(257) - 0.5)
    return np.clip(levels, 0, 255)


def match_histogram(image: NDArray[Any], quantiles: ArrayLike) -> NDArray[np.uint8]:
    """Match the histogram of an image exactly; only the order of the pixels by intensity is kept.

    Pixels of equal intensity are ordered by the means of their surroundings [1]_: a mapping of grey levels alone would
    leave gaps that reveal the original distribution.

    Parameters
    ----------
    image : (rows, cols)
        Intensities of any bit depth, without the information bar.
    quantiles : (k,)
        Ascending intensities 0..255 at the fractions i / (k - 1).

    Returns
    -------
    (rows, cols) uint8

    References
    ----------
    .. [1] D. Coltuc, P. Bolon, J.-M. Chassery, IEEE Trans. Image Process. 15, 1143 (2006)
    """
    values = np.asarray(image, np.float64)
    means = [ndimage.gaussian_filter(values, width, mode="nearest") for width in _SURROUNDINGS]
    spread = float(np.ptp(values)) + 1
    order = values + sum((mean - values.min()) / spread for mean in means) / len(means)
    fraction = (stats.rankdata(order).reshape(values.shape) - 0.5) / values.size
    target = np.asarray(quantiles, np.float64)
    matched = np.interp(fraction, np.linspace(0, 1, target.size), target)
    return np.rint(matched).astype(np.uint8)
