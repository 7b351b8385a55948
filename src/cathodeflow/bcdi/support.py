"""Supports of the object: first support, and shrink-wrap."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cathodeflow.bcdi.operators import VOLUME
from cathodeflow.errors import InputError


def box_support(shape: tuple[int, int, int], fraction: float) -> Tensor:
    """Make a centred box.

    Parameters
    ----------
    shape : (z, y, x)
        Shape of the volume.
    fraction : float
        Fraction of each axis, above 0, at most 1.

    Returns
    -------
    (z, y, x) bool

    Raises
    ------
    InputError
        The fraction is out of range.

    Examples
    --------
    >>> int(box_support((8, 8, 4), 0.5).sum())
    32
    """
    if not 0 < fraction <= 1:
        raise InputError("support", str(fraction), "a fraction of each axis, above 0, at most 1")
    sides = [max(round(fraction * side), 1) for side in shape]
    starts = [side // 2 - inner // 2 for side, inner in zip(shape, sides, strict=True)]
    support = torch.zeros(shape, dtype=torch.bool)
    support[tuple(slice(start, start + inner) for start, inner in zip(starts, sides, strict=True))] = True
    return support


def smooth(values: Tensor, sigma: float) -> Tensor:
    """Convolve with a Gaussian in Fourier space; the edges are periodic.

    Parameters
    ----------
    values : (..., z, y, x) float
    sigma : float
        Standard deviation [voxel].

    Returns
    -------
    (..., z, y, x) float
    """
    shape = values.shape[-3:]
    exponent = torch.zeros((), device=values.device, dtype=values.dtype)
    for axis, side in zip(VOLUME, shape, strict=True):
        frequencies = (torch.fft.rfftfreq if axis == -1 else torch.fft.fftfreq)(side, device=values.device)
        exponent = exponent - (2 * (math.pi * sigma * frequencies) ** 2).reshape(-1, *(1,) * (-1 - axis))
    spectrum = torch.fft.rfftn(values, dim=VOLUME).mul_(exponent.exp())
    return torch.fft.irfftn(spectrum, shape, VOLUME)


def shrink_wrap(objects: Tensor, *, sigma: float, threshold: float) -> Tensor:
    """Estimate supports from objects: smoothed modulus above a fraction of its maximum (Marchesini et al., 2003).

    Parameters
    ----------
    objects : (..., z, y, x) complex or float
        Projected on the present support: an unprojected HIO iterate has the feedback outside, and its support
        would grow instead of shrink.
    sigma : float
        Standard deviation of the Gaussian, at least 0 [voxel].
    threshold : float
        Fraction of the maximum, above 0 and below 1.

    Returns
    -------
    (..., z, y, x) bool
        Never empty.

    Raises
    ------
    InputError
        Sigma or the threshold is out of range.
    """
    if not 0 < threshold < 1:
        raise InputError("threshold", str(threshold), "a fraction of the maximum, above 0 and below 1")
    if not 0 <= sigma < math.inf:
        raise InputError("sigma", f"{sigma} voxel", "at least 0")
    smoothed = smooth(objects.abs(), sigma)
    return smoothed >= threshold * smoothed.amax(VOLUME, keepdim=True)


def sigma_at(sigma: Sequence[float], progress: float) -> float:
    """Interpolate between the first and the last sigma; `progress` runs from 0 to 1.

    Examples
    --------
    >>> [sigma_at((2.0, 1.0), progress) for progress in (0, 0.5, 1)]
    [2.0, 1.5, 1.0]
    """
    return sigma[0] + (sigma[1] - sigma[0]) * progress


def usual_sigma(shape: Sequence[int]) -> tuple[float, float]:
    """Choose the first and last sigma of shrink-wrap by the size (z, y, x) of a volume [voxel].

    In a larger volume a part of a strained crystal that is still dim is many voxels wide: with a first sigma of 1 it
    leaves the support within a few updates, for good. In a smaller one a sigma of 2 joins what is outside.

    Examples
    --------
    >>> usual_sigma((32, 32, 32)), usual_sigma((64, 128, 128))
    ((1.0, 0.5), (2.0, 0.5))
    """
    side = math.prod(shape) ** (1 / len(shape))
    return min(max(side / 32, 1.0), 2.0), 0.5
