"""Sizes and shapes of outlined particles, and weights that correct for those that the image's edge cuts."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

Floats = NDArray[np.float64]
Labels = NDArray[np.int32]

#: Columns of `measure_particles`.
COLUMNS = (
    "particle", "row", "col", "height_px", "width_px", "cut", "weight", "diameter_px", "aspect", "roundness",
    "roughness", "crack_fraction", "brightness",
)  # fmt: skip
# Width of the widest crack and length of the shortest, in diameters of the particle; its depth, in standard deviations
# of the texture of the particle; and the margin at the outline, in which no cracks are looked for.
_CRACK_WIDTH, _CRACK_LENGTH, _CRACK_DEPTH, _MARGIN = 0.15, 0.4, 3.0, 0.08


def edge_weights(heights: ArrayLike, widths: ArrayLike, shape: tuple[int, int]) -> Floats:
    """Weights of particles that the edge of an image does not cut, so that they stand for those that it does.

    Large particles are cut more often. A particle whose bounding box has h x w px lies wholly within an image of H x W
    px, without touching its edge, at (H - h - 1) (W - w - 1) of its H W positions; the weight is the inverse of this
    fraction (Miles-Lantuejoul [1]_).

    Parameters
    ----------
    heights, widths : (n,)
        Rows and columns of the bounding boxes [px].
    shape : (int, int)
        Rows and columns of the image.

    Returns
    -------
    (n,) float64
        At least 1; infinite for particles that would always be cut.

    References
    ----------
    .. [1] C. Lantuejoul, 5th Int. Congress for Stereology, Mikroskopie 37 (Suppl.), 266 (1980)

    Examples
    --------
    >>> edge_weights([9, 49], [9, 49], (100, 100)).round(2)
    array([1.23, 4.  ])
    """
    rows, cols = shape
    places = np.maximum(rows - np.asarray(heights) - 1.0, 0) * np.maximum(cols - np.asarray(widths) - 1.0, 0)
    with np.errstate(divide="ignore"):
        weights: Floats = rows * cols / places
    return weights


def measure_particles(image: NDArray[np.uint8], labels: Labels) -> pd.DataFrame:
    """Measure every particle.

    Parameters
    ----------
    image : (row, col) uint8
    labels : (row, col) int32
        Of `particle_outlines.outline_particles`.

    Returns
    -------
    DataFrame
        Columns `COLUMNS`: number of the particle; centre `row`, `col` and size of its bounding box [px]; `cut` by the
        edge, and `weight` (`edge_weights`), 0 of those that are cut; `diameter_px` of the circle of equal area [px];
        `aspect`, ratio of the axes of the ellipse of equal second moments; `roundness`, 4 area / (pi major axis^2);
        `roughness`, standard deviation of the distances of the outline to the centre, each divided by that of the
        ellipse; `crack_fraction`, area of long dark lines within it; and `brightness`, mean intensity in 0..1.
    """
    from skimage.measure import regionprops

    rows, cols = labels.shape
    records: list[tuple[Any, ...]] = []
    for region in regionprops(labels, intensity_image=image):
        top, left, bottom, right = region.bbox
        height, width = bottom - top, right - left
        cut = top == 0 or left == 0 or bottom == rows or right == cols
        weight = 0.0 if cut else float(edge_weights(height, width, (rows, cols)))
        major, minor = float(region.axis_major_length), float(region.axis_minor_length)
        area, diameter = float(region.area), float(np.sqrt(4 * region.area / np.pi))
        records.append(
            (
                region.label, *region.centroid, height, width, cut, weight if np.isfinite(weight) else 0.0, diameter,
                major / max(minor, 1.0), 4 * area / (np.pi * max(major, 1.0) ** 2), _roughness(region.image, region),
                _crack_fraction(region.image_intensity, region.image, diameter), float(region.intensity_mean) / 255,
            )
        )  # fmt: skip
    table = pd.DataFrame(records, columns=list(COLUMNS))
    return table.astype({"particle": np.int64, "height_px": np.int64, "width_px": np.int64, "cut": bool})


def outline_points(labels: Labels) -> pd.DataFrame:
    """Outlines of all particles as closed polygons.

    Returns
    -------
    DataFrame
        `particle`, and `row`, `col` of each corner [px], in order along the outline; half a pixel outside of the
        centres of the outermost pixels.
    """
    from skimage.measure import find_contours, regionprops

    parts = []
    for region in regionprops(labels):
        contour = max(find_contours(np.pad(region.image, 1).astype(np.float32), 0.5), key=len)
        places = contour + np.array(region.bbox[:2]) - 1
        parts.append(pd.DataFrame({"particle": region.label, "row": places[:, 0], "col": places[:, 1]}))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["particle", "row", "col"])


def _roughness(mask: NDArray[np.bool_], region: Any) -> float:
    """Return the relative standard deviation of the outline's distance to the centre, in units of the ellipse."""
    outline = np.argwhere(mask & ~ndimage.binary_erosion(mask))
    offsets = outline - np.array(region.centroid_local)
    covariance = np.cov(np.argwhere(mask).T)
    if len(outline) < 5 or np.linalg.det(covariance) <= 0:
        return float("nan")
    # Along the outline of an ellipse this is 2, whatever its axes and direction.
    reach = np.sqrt(np.einsum("ni,ij,nj->n", offsets, np.linalg.inv(covariance), offsets))
    return float(reach.std() / reach.mean())


def _crack_fraction(values: NDArray[np.uint8], mask: NDArray[np.bool_], diameter: float) -> float:
    """Fraction of a particle's area in dark lines that are long compared with it."""
    from skimage.measure import regionprops

    margin = max(_MARGIN * diameter, 1.0)
    inner = ndimage.distance_transform_edt(np.pad(mask, 1))[1:-1, 1:-1] > margin
    if inner.sum() < 20:
        return 0.0
    # What lies beside the particle is as bright as its mean, so that gaps are no cracks.
    filled = np.where(mask, values, values[mask].mean()).astype(np.float32)
    smooth = ndimage.gaussian_filter(filled, 0.02 * diameter)
    side = 2 * round(_CRACK_WIDTH * diameter) + 1
    depth = ndimage.grey_closing(smooth, size=(side, side)) - smooth
    # Of the texture without the cracks, which are a small part of the particle: 1.48 median absolute deviations.
    within = smooth[inner]
    texture = 1.48 * float(np.median(np.abs(within - np.median(within))))
    dark = inner & (depth > _CRACK_DEPTH * texture)
    lines, _ = ndimage.label(dark, structure=np.ones((3, 3)))
    long = [line.area for line in regionprops(lines) if line.axis_major_length >= _CRACK_LENGTH * diameter]
    return float(sum(long) / mask.sum())
