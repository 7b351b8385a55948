"""Twins: the same micrograph saved twice, in another format or bit depth or cut otherwise, told by fingerprints.

A fingerprint is made of the signs of the slow waves of an image (discrete cosine transform), as in perceptual hashing
[1]_. Compression, bit depth, brightness, contrast and size hardly change it. Fingerprints of different images agree in
half of their bits, with a standard deviation of 3 %.

References
----------
.. [1] C. Zauner, Implementation and benchmarking of perceptual image hash functions, thesis, Hagenberg (2010)
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from scipy import fft

#: Minimum fraction of equal bits of twins: eight standard deviations from that of different images.
MIN_LIKENESS = 0.75
#: Maximum fraction of bits that differ between twins of one shape. Two exposures of one place, between which the stage
#: moved by .4 % of the image, differ in 6 %: they are images of their own (`overlap.shared_area` tells them).
_CHANGED = 0.04
#: Further bits of images of few rows, which compression changes more: this number divided by the rows.
_SMALL = 10.0
#: Further bits per relative difference of the shapes, where an image is cut by some rows.
_CUT = 8.0
#: Waves along each axis, by half periods in the image; constant ones are shading and drift.
_WAVES = slice(1, 17)
_SIDE = 64
# Minimum standard deviation of the image, relative to its maximum, below which there is nothing to tell it by.
_FLAT = 1e-3


def fingerprint(image: NDArray[Any]) -> str | None:
    """Return the fingerprint of an image, 256 bits as hexadecimal text.

    Parameters
    ----------
    image : (row, col)
        Without its information bar.

    Returns
    -------
    str or None
        None for an image that is uniform.

    Examples
    --------
    >>> image = np.random.default_rng(0).normal(100, 9, (90, 120))
    >>> fingerprint(image) == fingerprint(3 * image + 40)
    True
    """
    small = np.asarray(
        Image.fromarray(np.asarray(image, np.float32)).resize((_SIDE, _SIDE), Image.Resampling.BOX), np.float64
    )
    if small.std() <= _FLAT * np.abs(small).max():
        return None
    waves = fft.dctn(small, norm="ortho")[_WAVES, _WAVES]
    return np.packbits(waves > 0).tobytes().hex()


def likeness(fingerprints: ArrayLike) -> NDArray[np.float32]:
    """Return the fraction of equal bits of all pairs of fingerprints.

    Parameters
    ----------
    fingerprints : (n,) str

    Returns
    -------
    (n, n) float32
    """
    texts = [bytes.fromhex(text) for text in np.asarray(fingerprints, dtype=object)]
    bits = np.unpackbits(np.array([np.frombuffer(text, np.uint8) for text in texts], np.uint8), axis=1)
    signs = 2 * bits.astype(np.float32) - 1
    equal: NDArray[np.float32] = (1 + signs @ signs.T / np.float32(bits.shape[1])) / np.float32(2)
    return equal


def needed_likeness(shape: NDArray[np.floating], others: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the minimum fraction of equal bits for an image to be the twin of others.

    Parameters
    ----------
    shape : (2,)
        Rows and columns of the image without its bar.
    others : (n, 2)

    Returns
    -------
    (n,) float64
        From `MIN_LIKENESS` to .96.
    """
    shapes = np.maximum(np.asarray(others, np.float64), 1)
    cut = np.abs(np.log(shapes[:, 0] / shapes[:, 1]) - np.log(shape[0] / shape[1]))
    changed = np.maximum(_CHANGED, _SMALL / np.minimum(shapes[:, 0], shape[0])) + _CUT * cut
    return np.maximum(MIN_LIKENESS, 1 - changed)


def mark_twins(table: pd.DataFrame) -> None:
    """Mark images that show the same as an earlier one of their class as its duplicates, in place.

    A twin of a twin counts as one too, so that a group of them keeps its first image alone.

    Parameters
    ----------
    table : DataFrame
        Columns name, label, fingerprint, those of `UsableArea`, duplicate_of, likeness and split, in the order in which
        images are kept.
    """
    used = table[table["duplicate_of"].isna() & table["fingerprint"].notna()]
    for _, same in used.groupby("label", sort=False):
        alike = likeness(same["fingerprint"].to_numpy())
        shapes = (same[["row1", "col1"]].to_numpy() - same[["row0", "col0"]].to_numpy()).astype(np.float64)
        first = np.arange(len(same))
        for row in range(1, len(same)):
            above = alike[row, :row] - needed_likeness(shapes[row], shapes[:row])
            best = int(np.argmax(above))
            if above[best] >= 0:
                first[row] = first[best]
                where = same.index[row]
                table.loc[where, "duplicate_of"] = str(same["name"].iat[first[row]])
                table.loc[where, "split"] = "left out"
                table.loc[where, "likeness"] = float(alike[row, best])
