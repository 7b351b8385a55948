"""Outlines of the particles in a micrograph: classical watershed of the distance to gaps and dark lines.

Particles are brighter than the gaps between them. A watershed of the distance transform divides those that touch; two
basins stay one particle if the neck between them is wide compared with the narrower basin.
Halves of a cracked particle, which a dark line divides, are joined where the whole is rounder than either half.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cathodeflow.errors import InputError
from cathodeflow.sem.particle_options import Particles

Floats = NDArray[np.float32]
Labels = NDArray[np.int32]
Mask = NDArray[np.bool_]

# In typical diameters: width of the Gaussian of uneven brightness, of local contrast, and of the closing of dark lines.
_SHADE, _LOCAL, _LINE = 1.5, 1.0, 0.25
# Halves of a particle are longer than this, and their union is at least this solid.
_HALF_ASPECT, _WHOLE_SOLIDITY = 1.3, 0.93
# Range of the diameters that are searched: from the first [px] to a fraction of the image, in so many steps; weight of
# coarse scales, an exponent, and factor of the estimate.
_SMALLEST, _LARGEST, _SCALES = 8.0, 0.3, 60
_COARSE, _TEXTURE = 0.6, 1.3


class Outlined(NamedTuple):
    """Particles of an image.

    Attributes
    ----------
    labels : (row, col) int32
        Number of the particle from 1 on; 0 elsewhere.
    flat : (row, col) bool
        Areas that were left out since they show no particles, such as bare foil.
    covered : float
        Fraction of the image that is bright, as particles are.
    rejected : int
        Number of regions of the right size that are no single particles by their solidity.
    """

    labels: Labels
    flat: Mask
    covered: float
    rejected: int


def typical_diameter(image: NDArray[np.uint8]) -> float:
    """Estimate the diameter of most particles: the scale at which the Laplacian of Gaussians varies most.

    A disc of diameter d has its strongest normalised response at a Gaussian of variance d^2 / 8 [1]_. The variance of
    the response over the image follows from its power spectrum (Parseval). Texture and noise, which are finer, would
    move the maximum; the weight and the factor against that are calibrated on simulated cathodes of four appearances
    (`rendering`), of which the estimate finds the diameters to 15 %.

    Parameters
    ----------
    image : (row, col) uint8

    Returns
    -------
    float
        Diameter [px].

    Raises
    ------
    InputError
        The image is too small, or of one intensity.

    References
    ----------
    .. [1] T. Lindeberg, Int. J. Comput. Vis. 30, 79 (1998)
    """
    largest = _LARGEST * min(image.shape)
    if largest < 2 * _SMALLEST or image.min() == image.max():
        found = f"{image.shape[0]} x {image.shape[1]} px, intensities {image.min()} to {image.max()}"
        side = round(2 * _SMALLEST / _LARGEST)
        raise InputError("image", found, f"particles, and at least {side} x {side} px")
    rows, cols = image.shape
    window = np.hanning(rows)[:, None] * np.hanning(cols)
    power = np.abs(np.fft.rfft2((image - image.mean()) * window)) ** 2
    squared = (2 * np.pi * np.fft.fftfreq(rows)[:, None]) ** 2 + (2 * np.pi * np.fft.rfftfreq(cols)) ** 2
    diameters = np.geomspace(_SMALLEST, largest, _SCALES)
    response = np.array(
        [np.sum(power * (scale * squared) ** 2 * np.exp(-scale * squared)) for scale in diameters**2 / 8]
    )
    response *= diameters**_COARSE
    # Uneven brightness rises towards the largest scale, without a maximum.
    inner = 1 + np.flatnonzero((response[1:-1] > response[:-2]) & (response[1:-1] >= response[2:]))
    best = inner[np.argmax(response[inner])] if len(inner) else int(np.argmax(response))
    return float(_TEXTURE * diameters[best])


def outline_particles(image: NDArray[np.uint8], diameter: float, options: Particles) -> Outlined:
    """Outline the particles.

    Parameters
    ----------
    image : (row, col) uint8
        The part beside the information bar.
    diameter : float
        Typical diameter [px].
    options : Particles

    Returns
    -------
    Outlined
        Particles that the edge of the image cuts are among them.
    """
    from skimage.filters import threshold_otsu
    from skimage.morphology import disk
    from skimage.segmentation import relabel_sequential

    values = image.astype(np.float32)
    values -= ndimage.gaussian_filter(values, _SHADE * diameter)
    smooth = ndimage.gaussian_filter(values, options.smoothing * diameter)
    contrast = _local_contrast(smooth, _LOCAL * diameter)
    flat = _flat(contrast, diameter, options.flat)
    if flat.all() or np.ptp(smooth[~flat]) == 0:
        return Outlined(np.zeros(image.shape, np.int32), flat, 0.0, 0)
    bright = (smooth > threshold_otsu(smooth[~flat])) & ~flat
    bright = _without_small(bright, diameter)
    side = 2 * round(_LINE * diameter / 2) + 1
    lines = ndimage.grey_closing(smooth, size=(side, side)) - smooth > options.valley * contrast
    core = bright & ~lines
    distance = ndimage.distance_transform_edt(core).astype(np.float32)
    labels = _watershed(distance, bright, options.neck)
    labels = _joined_halves(labels)
    radius = max(round(0.05 * diameter), 1)
    kept, rejected = _accepted(labels, disk(radius, dtype=bool), diameter, options)
    return Outlined(relabel_sequential(kept)[0].astype(np.int32), flat, float(bright.mean()), rejected)


def _local_contrast(values: Floats, sigma: float) -> Floats:
    """Return the standard deviation within a Gaussian window."""
    mean = ndimage.gaussian_filter(values, sigma)
    contrast: Floats = np.sqrt(np.maximum(ndimage.gaussian_filter((values - mean) ** 2, sigma), 0))
    return contrast


def _flat(contrast: Floats, diameter: float, fraction: float) -> Mask:
    """Areas of little contrast that are larger than several particles."""
    from skimage.morphology import remove_small_objects

    low = contrast < fraction * np.median(contrast)
    low = remove_small_objects(low, max_size=int(4 * diameter**2))
    # The window of the contrast reaches over the edge of the area by two standard deviations.
    flat: Mask = ndimage.distance_transform_edt(~low) < 2 * _LOCAL * diameter if low.any() else low
    return flat


def _without_small(bright: Mask, diameter: float) -> Mask:
    """Without specks, and with pits of the surface filled."""
    from skimage.morphology import remove_small_holes, remove_small_objects

    small = int(0.1 * diameter**2)
    result: Mask = remove_small_objects(remove_small_holes(bright, max_size=small), max_size=small)
    return result


def _watershed(distance: Floats, bright: Mask, neck: float) -> Labels:
    """Divide the bright area into basins of the distance, and join those with a wide neck between them."""
    from skimage.feature import peak_local_max
    from skimage.segmentation import watershed

    smoothed = ndimage.gaussian_filter(distance, 0.7)
    peaks = peak_local_max(smoothed, min_distance=1, threshold_abs=1.0, exclude_border=False)
    seeds = np.zeros(distance.shape, np.int32)
    seeds[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    labels: Labels = watershed(-smoothed, seeds, mask=bright).astype(np.int32)
    heights = np.zeros(len(peaks) + 1, np.float32)
    heights[1:] = smoothed[tuple(peaks.T)]
    pairs, necks = _necks(labels, smoothed)
    root = np.arange(len(heights))

    def find(number: int) -> int:
        while root[number] != number:
            root[number] = root[root[number]]
            number = int(root[number])
        return number

    # From the widest neck on, so that a basin joins the one to which it belongs most.
    for index in np.argsort(-necks, kind="stable"):
        first, second = find(int(pairs[index, 0])), find(int(pairs[index, 1]))
        low, high = sorted((first, second), key=lambda number: (heights[number], -number))
        if low != high and necks[index] >= neck * heights[low]:
            root[low] = high
    return np.array([find(number) for number in range(len(root))], np.int32)[labels]


def _necks(labels: Labels, distance: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Pairs (p, 2) of regions that touch, and the largest distance along the line between them (p,)."""
    found, values = [], []
    for ahead, behind in (
        ((slice(1, None), slice(None)), (slice(None, -1), slice(None))),
        ((slice(None), slice(1, None)), (slice(None), slice(None, -1))),
    ):
        one, other = labels[ahead], labels[behind]
        touch = (one != other) & (one > 0) & (other > 0)
        found.append(np.sort(np.column_stack([one[touch], other[touch]]), axis=1).astype(np.int64))
        values.append(np.minimum(distance[ahead][touch], distance[behind][touch]))
    pairs, index = np.unique(np.concatenate(found), axis=0, return_inverse=True)
    necks = np.zeros(len(pairs), np.float32)
    np.maximum.at(necks, index.ravel(), np.concatenate(values))
    return pairs, necks


def _joined_halves(labels: Labels) -> Labels:
    """Join two regions that are long beside each other, but whose union is solid and rounder than either."""
    from skimage.measure import regionprops

    regions = {region.label: region for region in regionprops(labels)}
    aspects = {number: _aspect(region) for number, region in regions.items()}
    joined = labels.copy()
    used: set[int] = set()
    for first, second in _necks(labels, np.zeros(labels.shape, np.float32))[0].tolist():
        shorter = min(aspects[first], aspects[second])
        if shorter < _HALF_ASPECT or first in used or second in used:
            continue
        boxes = np.array([regions[number].bbox for number in (first, second)])
        window = (slice(boxes[:, 0].min(), boxes[:, 2].max()), slice(boxes[:, 1].min(), boxes[:, 3].max()))
        whole = regionprops(np.isin(labels[window], (first, second)).astype(np.uint8))[0]
        if _aspect(whole) < shorter - 0.2 and whole.solidity >= _WHOLE_SOLIDITY:
            joined[window][labels[window] == second] = first
            used |= {first, second}
    return joined


def _aspect(region: object) -> float:
    """Ratio of the axes of the ellipse with the same second moments."""
    major, minor = (float(getattr(region, f"axis_{name}_length")) for name in ("major", "minor"))
    return major / minor if minor > 0 else np.inf


def _accepted(labels: Labels, footprint: Mask, diameter: float, options: Particles) -> tuple[Labels, int]:
    """Regions that are particles by size and solidity, with smooth outlines; and the number rejected by solidity."""
    from skimage.measure import regionprops

    kept, rejected = np.zeros_like(labels), 0
    margin = len(footprint)
    for region in regionprops(labels):
        mask = np.pad(region.image_filled, margin)
        mask = ndimage.binary_opening(ndimage.binary_closing(mask, footprint), footprint)[
            margin:-margin, margin:-margin
        ]
        parts, count = ndimage.label(mask)
        if not count:
            continue
        # Specks that the opening cuts off are no part of the particle.
        sizes = np.bincount(parts.ravel())[1:]
        mask = parts == 1 + int(sizes.argmax())
        equivalent = np.sqrt(4 * sizes.max() / np.pi) / diameter
        if not options.min_size <= equivalent <= options.max_size:
            continue
        if regionprops(mask.astype(np.uint8))[0].solidity < options.min_solidity:
            rejected += 1
            continue
        part = kept[region.slice]
        part[mask & (part == 0)] = region.label
    return kept, rejected
