"""What of the images, and of the evidence of a network, is not particle: bare areas, gaps, edges."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.sem.usable_area import UsableArea
from cathodeflow.sem.usable_blocks import UsableBlocks

#: Fractions of an image that are not particles in focus.
KINDS = ("bare", "blurred", "saturated")
#: A class has something of its kind alone if its mean fraction is at least this, and this many times that of any other.
MIN_FRACTION, ALONE = 0.01, 5.0


def image_blocks(table: pd.DataFrame) -> list[UsableBlocks]:
    """Return the blocks of each image of a table of images, from its column blocks."""
    columns = ["blocks", *UsableArea._fields]
    return [
        UsableBlocks.of_text(text, (area.rows, area.cols))
        for text, *edges in table[columns].itertuples(index=False, name=None)
        for area in [UsableArea(*edges)]
    ]


def off_features(table: pd.DataFrame) -> NDArray[np.float64]:
    """Return features (n, 5) of what is not particle: fractions of `KINDS`, their edges, and where they lie.

    The last feature is the distance of the unusable blocks' centre from that of the image, as a fraction of its size.
    """
    rows = []
    for blocks, kinds in zip(image_blocks(table), table[list(KINDS)].to_numpy(np.float64), strict=True):
        places = np.argwhere(~blocks.usable)
        size = np.array(blocks.usable.shape)
        away = float(np.linalg.norm((places.mean(0) + 0.5) / size - 0.5)) if len(places) else 0.0
        rows.append([*kinds, blocks.edges, away])
    return np.array(rows)


def alone(means: pd.DataFrame) -> dict[str, str]:
    """Find classes that have something alone, by which they could be told without their particles.

    Parameters
    ----------
    means : DataFrame
        Mean fractions of `KINDS`, by class.

    Returns
    -------
    dict of str
        What each of these classes has, such as "12.3 % bare, other classes at most 0.0 %".
    """
    found: dict[str, list[str]] = {}
    for kind in KINDS:
        for label, value in means[kind].items():
            most = float(means[kind].drop(label).max()) if len(means) > 1 else 0.0
            if value >= MIN_FRACTION and value >= ALONE * most:
                text = f"{100 * value:.1f} % {kind}, other classes at most {100 * most:.1f} %"
                found.setdefault(str(label), []).append(text)
    return {label: "; ".join(texts) for label, texts in found.items()}


def off_crop(
    crop: NDArray[np.uint8], blocks: UsableBlocks, place: Sequence[int], extent: Sequence[int]
) -> NDArray[np.bool_]:
    """Return the pixels of a crop that are not particle: gaps darker than Otsu's threshold, and unusable blocks.

    Parameters
    ----------
    crop : (side, side) uint8
    blocks : UsableBlocks
        Of its image.
    place : (int, int)
        First pixel of the crop in the area of the blocks.
    extent : (int, int)
        Rows and columns of the image that the crop covers [px].
    """
    from scipy.ndimage import gaussian_filter
    from skimage.filters import threshold_otsu

    smooth = gaussian_filter(crop.astype(np.float32), 1.0)
    dark = smooth <= threshold_otsu(smooth) if np.ptp(smooth) > 0 else np.ones(crop.shape, bool)
    numbers = []
    for edges, first, length, side in zip((blocks.row_edges, blocks.col_edges), place, extent, crop.shape, strict=True):
        centres = first + (np.arange(side) + 0.5) * length / side
        numbers.append(np.clip(np.searchsorted(edges, centres, side="right") - 1, 0, len(edges) - 2))
    off: NDArray[np.bool_] = dark | ~blocks.usable[np.ix_(*numbers)]
    return off
