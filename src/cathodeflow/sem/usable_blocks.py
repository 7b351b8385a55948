"""Which parts of a micrograph show particles in focus: bare, blurred and saturated blocks are found.

A current collector beyond the edge of the coating, a gap, or a charged area has little contrast, whatever its grey
level. So each block is compared with the rest of its own image, after the contribution of the noise has been removed;
brightness, contrast and gain of the microscope cancel. No grey level is a threshold.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Floats = NDArray[np.float64]

#: A block is bare below this fraction of the contrast, and blurred below this fraction of the fine detail, that the
#: best blocks of its image have; particles of the measured NCM micrographs have .3 to .8 of it, foil .1.
BARE, BLURRED = 0.25, 0.25
#: A block is saturated if more of its pixels than this are at the darkest or brightest value that can be stored.
SATURATED = 0.5
# Blocks along the shorter side, at most and at least, and their minimum size [px]; the quantile of the blocks that
# stands for the best ones.
_BLOCKS, _FEWEST, _SMALLEST, _BEST = 12, 6, 16, 0.9
# Fine detail is compared if its variance is this many times that of the noise in it: blocks of 20 px then differ by
# less than the threshold.
_VISIBLE = 8
# Standard deviations [px] of the Gaussians between which fine detail lies.
_FINE, _COARSE = 1.0, 4.0
# Variance of white noise that is left by the difference of these Gaussians.
_LEFT = 1 / (4 * np.pi * _FINE**2) + 1 / (4 * np.pi * _COARSE**2) - 1 / (np.pi * (_FINE**2 + _COARSE**2))
_LAPLACIAN = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)


class UsableBlocks(NamedTuple):
    """Blocks of an image, beside its information bar, that show particles in focus.

    bare, blurred, saturated : (r, c) bool, what is wrong with each block; at most one of them.
    row_edges, col_edges : (r + 1,), (c + 1,) int, first pixels of the blocks, and the end.
    """

    bare: NDArray[np.bool_]
    blurred: NDArray[np.bool_]
    saturated: NDArray[np.bool_]
    row_edges: NDArray[np.int64]
    col_edges: NDArray[np.int64]

    @property
    def usable(self) -> NDArray[np.bool_]:
        """Blocks (r, c) of which crops are taken."""
        return ~(self.bare | self.blurred | self.saturated)

    @property
    def edges(self) -> float:
        """Boundary between usable and other blocks, as a fraction of all boundaries between blocks."""
        usable = self.usable
        borders = [usable[1:] != usable[:-1], usable[:, 1:] != usable[:, :-1]]
        count = sum(border.size for border in borders)
        return sum(float(border.sum()) for border in borders) / max(count, 1)

    def fractions(self, places: ArrayLike, extent: Sequence[int]) -> Floats:
        """Return the fraction of each of n rectangles that is usable.

        Parameters
        ----------
        places : (n, 2) int
            First pixels (row, col) of the rectangles.
        extent : (int, int)
            Their rows and columns [px].

        Returns
        -------
        (n,) float64
        """
        first = np.asarray(places, np.int64).reshape(-1, 2)
        shared = [
            np.clip(
                np.minimum(first[:, axis, None] + extent[axis], edges[1:])
                - np.maximum(first[:, axis, None], edges[:-1]),
                0,
                None,
            )
            for axis, edges in enumerate((self.row_edges, self.col_edges))
        ]
        area = np.einsum("nr,rc,nc->n", shared[0], self.usable.astype(np.float64), shared[1])
        found: Floats = area / (extent[0] * extent[1])
        return found

    def as_text(self) -> str:
        """Return the blocks as text for a table: rows of `.` (usable), `b` (bare), `f` (out of focus), `s` (saturated).

        Examples
        --------
        >>> UsableBlocks.of_text("..b/.fs", (20, 60)).as_text()
        '..b/.fs'
        """
        letters = np.full(self.bare.shape, ".")
        for letter, blocks in zip("bfs", (self.bare, self.blurred, self.saturated), strict=True):
            letters[blocks] = letter
        return "/".join("".join(row) for row in letters)

    @classmethod
    def of_text(cls, text: str, shape: tuple[int, int]) -> Self:
        """Make the blocks of an area of `shape` [px] from their text."""
        letters = np.array([list(row) for row in text.split("/")])
        rows, cols = (_edges(size, count) for size, count in zip(shape, letters.shape, strict=True))
        return cls(letters == "b", letters == "f", letters == "s", rows, cols)


def usable_blocks(image: NDArray[Any]) -> UsableBlocks:
    """Find the blocks of an image that show particles in focus.

    The contrast of a block is its standard deviation, after brightness that changes slowly across blocks and the
    variance of the noise [1]_ are removed; its fine detail is that of the difference of two Gaussians. Both are
    compared with the 0.9 quantile of the blocks of the same image, so at least a tenth of it must show particles. An
    image that shows none at all has no contrast to be compared with, and counts as usable. Fine detail is not compared
    where the noise hides it in the whole image.

    Parameters
    ----------
    image : (row, col) uint8 or uint16
        The part beside the information bar. Blocks are a twelfth of the shorter side, and should be larger than the
        particles; images below 96 px are one block.

    Returns
    -------
    UsableBlocks

    References
    ----------
    .. [1] J. Immerkaer, Comput. Vis. Image Underst. 64, 300 (1996)
    """
    # Few blocks say little about what the rest of an image looks like.
    side = max(min(image.shape) / _BLOCKS, _SMALLEST) if min(image.shape) >= _FEWEST * _SMALLEST else max(image.shape)
    rows, cols = (_edges(size, max(int(size / side), 1)) for size in image.shape)
    grey = image.astype(np.float32)
    noise = (np.sqrt(np.pi / 2) / 6 * _means(np.abs(ndimage.convolve(grey, _LAPLACIAN)), rows, cols)) ** 2
    # Without the brightness that changes slowly, such as the shade of an edge.
    level = grey - ndimage.uniform_filter(grey, round(3 * side))
    contrast = np.sqrt(np.maximum(_means(level**2, rows, cols) - _means(level, rows, cols) ** 2 - noise, 0))
    detail = ndimage.gaussian_filter(grey, _FINE) - ndimage.gaussian_filter(grey, _COARSE)
    fine = np.sqrt(np.maximum(_means(detail**2, rows, cols) - _LEFT * noise, 0))
    limits = (0, np.iinfo(image.dtype).max) if np.issubdtype(image.dtype, np.integer) else (np.nan, np.nan)
    saturated = _means(np.isin(image, limits).astype(np.float32), rows, cols) > SATURATED
    if saturated.all():
        return UsableBlocks(saturated & False, saturated & False, saturated, rows, cols)
    best, finest = (float(np.quantile(values[~saturated], _BEST)) for values in (contrast, fine))
    bare = (contrast < BARE * best) & ~saturated
    visible = finest**2 > _VISIBLE * _LEFT * float(np.median(noise))
    blurred = (fine < BLURRED * finest) & ~bare & ~saturated & visible
    return UsableBlocks(bare, blurred, saturated, rows, cols)


def _edges(size: int, count: int) -> NDArray[np.int64]:
    edges: NDArray[np.int64] = np.rint(np.linspace(0, size, count + 1)).astype(np.int64)
    return edges


def _means(values: NDArray[np.float32], rows: NDArray[np.int64], cols: NDArray[np.int64]) -> Floats:
    """Means (r, c) of the pixels of each block."""
    sums = np.add.reduceat(np.add.reduceat(values, rows[:-1], axis=0, dtype=np.float64), cols[:-1], axis=1)
    means: Floats = sums / np.multiply.outer(np.diff(rows), np.diff(cols))
    return means
