"""What is known of a reconstruction without the truth: how it fits, agrees with other starts, and looks."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion, label
from torch import Tensor

from cathodeflow.bcdi.ambiguities import align
from cathodeflow.bcdi.coherence import detected_amplitude
from cathodeflow.bcdi.figures_of_merit import chi_square, log_likelihood, support_of
from cathodeflow.bcdi.noise import counting_noise
from cathodeflow.bcdi.operators import fourier, inverse_fourier

#: Isosurface level of the supports that are described, as a fraction of the maximum amplitude.
LEVEL = 0.3
#: Correlation above which two starts are counted as the same object.
SAME = 0.95
# Error relative to that of the first start up to which another one is as good.
_WORSE = 1.03
#: Columns of `evidence`.
FEATURES = (
    "error_over_noise",
    "log_chi_square",
    "free_excess",
    "unevenness",
    "surface",
    "largest_part",
    "median_agreement",
    "highest_agreement",
    "same_fraction",
    "error_excess",
    "twin_likeness",
    "counting_noise",
)


class Outline(NamedTuple):
    """Shape of a support, and how even the amplitude is in it.

    unevenness : float
        Standard deviation of the amplitude over its mean, one voxel below the surface.
    surface : float
        Number of outer faces of voxels, relative to that of a cube of the same volume.
    largest_part : float
        Fraction of the voxels in the largest connected part.
    """

    unevenness: float
    surface: float
    largest_part: float


def evidence(
    objects: Tensor,
    errors: Tensor,
    free_log_likelihood: Tensor,
    coherence: Tensor,
    amplitude: Tensor,
    *,
    mask: Tensor,
) -> pd.DataFrame:
    """Describe every start by numbers that do not need the truth.

    Parameters
    ----------
    objects : (start, z, y, x) complex64
    errors : (start,) float32
        At the last iteration.
    free_log_likelihood : (start,) float32
        NaN where no pixel was excluded.
    coherence : (start, 3) float32
        Widths of the blur [px].
    amplitude : (z, y, x) float32
        Square root of counts.
    mask : (z, y, x) bool
        True where a pixel was measured.

    Returns
    -------
    DataFrame
        One row per start, with the columns `FEATURES`: logarithm of the error over the counting noise (0 if the
        amplitudes are not roots of counts); logarithm of chi-square; free log-likelihood of the best start minus that
        of this one [nat per pixel] (of all pixels, if none was excluded); the three of `Outline`; median and highest
        correlation with the other starts (0 for a single start), fraction of the other starts with a correlation above
        `SAME`; logarithm of the error over the lowest error; correlation with its own twin, which is high in a mixture
        of both, and in a symmetric object; and the counting noise.
    """
    noise = counting_noise(amplitude, valid=mask)
    calculated = detected_amplitude(objects, coherence)
    fit = log_likelihood(calculated, amplitude, valid=mask)
    judged = torch.where(free_log_likelihood.isnan(), fit, free_log_likelihood)
    others = agreement(objects)
    relative = (errors / noise).log() if noise else torch.zeros_like(errors)
    outlines = pd.DataFrame([outline(one)._asdict() for one in objects])
    table = pd.DataFrame(
        {
            "error_over_noise": relative.numpy(),
            "log_chi_square": chi_square(calculated, amplitude, valid=mask).clamp_min(1e-6).log().numpy(),
            "free_excess": (judged.max() - judged).numpy(),
            **outlines,
            "median_agreement": [float(np.median(row)) if len(row) else 0.0 for row in others],
            "highest_agreement": [float(np.max(row)) if len(row) else 0.0 for row in others],
            "same_fraction": [float(np.mean(row > SAME)) if len(row) else 0.0 for row in others],
            "error_excess": (errors / errors.min()).log().numpy(),
            "twin_likeness": [twin_likeness(one) for one in objects],
            "counting_noise": noise,
        }
    )
    return table[list(FEATURES)].astype(float)


def alike(objects: Tensor, errors: Tensor) -> list[int]:
    """Find the starts that are the first one within the noise: a correlation above `SAME`, and hardly a larger error.

    A start of a larger error that stopped beside the first one does not say how accurate that is.
    """
    similar = np.concatenate([[True], agreement(objects)[0] > SAME])
    return [int(index) for index in np.flatnonzero(similar & (errors <= _WORSE * errors[0]).numpy())]


def agreement(objects: Tensor) -> list[NDArray[np.float64]]:
    """Correlation of each object (start, z, y, x) with every other one, shift, phase and twin resolved."""
    count = len(objects)
    table = np.ones((count, count))
    for index in range(count - 1):
        table[index, index + 1 :] = table[index + 1 :, index] = align(objects[index + 1 :], objects[index])[1].numpy()
    return [np.delete(row, index) for index, row in enumerate(table)]


def twin_likeness(volume: Tensor) -> float:
    """Correlation of an object (z, y, x) with its own twin, shift and phase resolved."""
    return float(align(inverse_fourier(fourier(volume).conj())[None], volume, twin=False)[1][0])


def outline(volume: Tensor) -> Outline:
    """Describe the support of an object (z, y, x) complex64; an object that is 0 has a surface and parts of 0."""
    inside = support_of(volume, threshold=LEVEL).numpy()
    count = int(inside.sum())
    if not count:
        return Outline(1.0, 0.0, 0.0)
    # An object may lie across the edges of the volume.
    faces = sum(int((inside != np.roll(inside, 1, axis)).sum()) for axis in range(3))
    deep = binary_erosion(_within(inside))
    within = _within(volume.abs().numpy(), inside)
    values = within[deep] if deep.sum() > 1 else within[_within(inside)]
    parts = label(_within(inside))[0]
    return Outline(
        float(values.std() / values.mean()),
        faces / (6 * count ** (2 / 3)),
        float(np.bincount(parts[parts > 0]).max() / count),
    )


def _within(values: NDArray[Any], inside: NDArray[np.bool_] | None = None) -> NDArray[Any]:
    """Roll values so that the support does not lie across the edges, if it does not fill an axis."""
    inside = values if inside is None else inside
    for axis in range(3):
        profile: NDArray[np.bool_] = np.any(inside, axis=tuple(other for other in range(3) if other != axis))
        if not profile.all():
            values = np.roll(values, -_gap_end(profile), axis)
    return values


def _gap_end(profile: NDArray[np.bool_]) -> int:
    """Index after the longest run of False on a circle."""
    twice = np.flatnonzero(np.concatenate([profile, profile]))
    longest = int(np.argmax(np.diff(twice)))
    return int(twice[longest + 1]) % len(profile)
