"""Grey levels and information bars of micrographs as features: histograms, images brought to one, thumbnails."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy import ndimage, stats

from cathodeflow.errors import InputError

_QUANTILES = 1025
# Deviations [px] of the means of the surroundings that put pixels of one grey in order.
_SURROUNDINGS = (1.0, 4.0)


def grey_histogram(image: NDArray[np.uint8], bins: int) -> NDArray[np.float64]:
    """Return the share of the pixels in each of `bins` equal bins of grey.

    Parameters
    ----------
    image : (rows, cols) uint8
        Without its bar.
    bins : int
        2..256.

    Returns
    -------
    (bins,) float64

    Raises
    ------
    InputError
        When the image is not of 8 bit.
    """
    if image.dtype != np.uint8:
        raise InputError("image", f"{image.dtype}", "uint8")
    counts = np.bincount(image.ravel(), minlength=256)
    return np.bincount(np.arange(256) * bins // 256, weights=counts, minlength=bins) / image.size


def bar_thumbnail(image: NDArray[Any], bar_rows: int, side: int) -> NDArray[np.float32]:
    """Shrink the information bar at the bottom of an image to a square.

    Parameters
    ----------
    image : (rows, cols) uint8
        With its bar.
    bar_rows : int
        Rows of the bar [px]; without one the square is 0.
    side : int
        Of the square [px].

    Returns
    -------
    (side, side) float32
        Means of the pixels, 0..255.
    """
    if not bar_rows:
        return np.zeros((side, side), np.float32)
    bar = Image.fromarray(image[-bar_rows:].astype(np.float32))
    return np.asarray(bar.resize((side, side), Image.Resampling.BOX))


def reference_quantiles(histograms: ArrayLike) -> NDArray[np.float64]:
    """Return the quantiles of the mean grey distribution of images, as `match_histogram` takes them.

    Parameters
    ----------
    histograms : (n, 256)
        `grey_histogram` of each image.

    Returns
    -------
    (1025,) float64
        Grey 0..255, ascending.
    """
    cumulative = np.cumsum(np.mean(np.asarray(histograms, np.float64), axis=0))
    shares = np.linspace(0, 1, _QUANTILES)
    # A level's pixels are spread over the grey from half a level below to half a level above it.
    grey = np.interp(shares, np.concatenate([[0.0], cumulative / cumulative[-1]]), np.arange(257) - 0.5)
    return np.clip(grey, 0, 255)


def match_histogram(image: NDArray[Any], quantiles: ArrayLike) -> NDArray[np.uint8]:
    """Give an image a grey distribution, so that only the order of its pixels by brightness is left of its own.

    Pixels of one grey are put in order by the means of their surroundings [1]_: a map from grey to grey alone would
    leave gaps that tell the distribution it came from.

    Parameters
    ----------
    image : (rows, cols)
        Grey of any depth, without its bar.
    quantiles : (k,)
        Ascending grey 0..255 at the shares i / (k - 1).

    Returns
    -------
    (rows, cols) uint8

    References
    ----------
    .. [1] D. Coltuc, P. Bolon, J.-M. Chassery, IEEE Trans. Image Process. 15, 1143 (2006)
    """
    grey = np.asarray(image, np.float64)
    means = [ndimage.gaussian_filter(grey, width, mode="nearest") for width in _SURROUNDINGS]
    spread = float(np.ptp(grey)) + 1
    order = grey + sum((mean - grey.min()) / spread for mean in means) / len(means)
    share = (stats.rankdata(order).reshape(grey.shape) - 0.5) / grey.size
    target = np.asarray(quantiles, np.float64)
    matched = np.interp(share, np.linspace(0, 1, target.size), target)
    return np.rint(matched).astype(np.uint8)
