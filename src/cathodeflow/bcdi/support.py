"""Supports of the object: where to begin, and shrink-wrap."""

import math

import torch
from torch import Tensor

from cathodeflow.bcdi.operators import VOLUME
from cathodeflow.errors import InputError


def box_support(shape: tuple[int, int, int], share: float) -> Tensor:
    """Make a centred box.

    Parameters
    ----------
    shape : (z, y, x)
        Of the volume.
    share : float
        Of each axis, above 0, at most 1.

    Returns
    -------
    (z, y, x) bool

    Raises
    ------
    InputError
        When the share is out of range.

    Examples
    --------
    >>> int(box_support((8, 8, 4), 0.5).sum())
    32
    """
    if not 0 < share <= 1:
        raise InputError("support", str(share), "a share of each axis, above 0, at most 1")
    sides = [max(round(share * side), 1) for side in shape]
    starts = [side // 2 - inner // 2 for side, inner in zip(shape, sides, strict=True)]
    support = torch.zeros(shape, dtype=torch.bool)
    support[tuple(slice(start, start + inner) for start, inner in zip(starts, sides, strict=True))] = True
    return support


def autocorrelation_support(measured: Tensor, *, threshold: float = 0.04) -> Tensor:
    """Estimate a support from the autocorrelation of the object, which the inverse transform of the intensity is.

    It is larger than the object, up to twice along each axis, and holds every translation of it that has one end in the
    centre (S. Marchesini et al., Phys. Rev. B 68, 140101 (2003), who begin with a threshold of 4 %).

    Parameters
    ----------
    measured : (..., z, y, x) float32
        Amplitude, zero frequency at the centre.
    threshold : float
        Share of the autocorrelation's maximum.

    Returns
    -------
    (..., z, y, x) bool
    """
    _check_threshold(threshold)
    pairs = torch.fft.fftn(torch.fft.ifftshift(measured.square(), VOLUME), dim=VOLUME).abs()
    return torch.fft.fftshift(pairs, VOLUME) >= threshold * pairs.amax(VOLUME, keepdim=True)


def smooth(values: Tensor, sigma: float) -> Tensor:
    """Convolve with a Gauss function in Fourier space; the edges are periodic.

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


def shrink_wrap(objects: Tensor, *, sigma: float = 1.0, threshold: float = 0.1) -> Tensor:
    """Estimate supports from objects: smoothed modulus above a share of its maximum (Marchesini et al., 2003).

    Parameters
    ----------
    objects : (..., z, y, x) complex or float
        Projected on the present support: an iterate of HIO that is not carries its feedback outside, and its support
        grows instead of shrinking.
    sigma : float
        Of the Gauss function, at least 0 [voxel].
    threshold : float
        Share of the maximum, above 0 and below 1.

    Returns
    -------
    (..., z, y, x) bool
        Never empty.

    Raises
    ------
    InputError
        When sigma or the threshold is out of range.
    """
    _check_threshold(threshold)
    if not 0 <= sigma < math.inf:
        raise InputError("sigma", f"{sigma} voxel", "at least 0")
    smoothed = smooth(objects.abs(), sigma)
    return smoothed >= threshold * smoothed.amax(VOLUME, keepdim=True)


def sigma_at(sigma: tuple[float, float], progress: float) -> float:
    """Interpolate between the first and the last sigma; `progress` runs from 0 to 1.

    Examples
    --------
    >>> [sigma_at((2.0, 1.0), progress) for progress in (0, 0.5, 1)]
    [2.0, 1.5, 1.0]
    """
    return sigma[0] + (sigma[1] - sigma[0]) * progress


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold < 1:
        raise InputError("threshold", str(threshold), "a share of the maximum, above 0 and below 1")
