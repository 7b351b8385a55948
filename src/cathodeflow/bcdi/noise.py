"""Counting noise of a measured amplitude, and the relaxation of phase retrieval that suits it."""

import torch
from torch import Tensor

# Minimum relaxation, below which RAAR hardly differs from error reduction.
_LEAST_RELAXATION = 0.5
# Minimum counts of the brightest pixel of a pattern that can be phased.
_BRIGHTEST = 10.0


def counting_noise(amplitude: Tensor, *, valid: Tensor | None = None) -> float:
    """Estimate the distance of an amplitude from the true one due to counting noise, relative to its norm.

    The variance of the root of n counts is 1/4 for large n. If few counts are expected, it is about the expected count,
    whose sum over the pixels is estimated by the number of pixels with one count. On
    simulated crystals of 1e5 to 1e8 photons the estimate is within a few percent of the true distance.
    If low counts were removed as background, it is too low by a factor of about two.

    Parameters
    ----------
    amplitude : (z, y, x) float32
        Square roots of counts; on another scale the estimate is wrong.
    valid : (z, y, x) bool, optional
        True where a pixel was measured; the values of the others are ignored. Default: all.

    Returns
    -------
    float
        0 if no pixel has at least ten counts, since such amplitudes are not square roots of counts.

    Examples
    --------
    >>> counting_noise(torch.full((4, 4, 4), 10.0))
    0.05
    """
    counts = amplitude.double().square()
    counts = counts if valid is None else torch.where(valid.bool(), counts, 0)
    if not counts.max() >= _BRIGHTEST:
        return 0.0
    lit, single = counts >= 0.5, (counts >= 0.5) & (counts < 1.5)
    return float(((0.25 * lit.sum() + single.sum()) / counts.sum()).sqrt())


def relaxation(amplitude: Tensor, *, valid: Tensor | None = None) -> float:
    """Choose the relaxation of RAAR by the noise: 1 minus `counting_noise`, at least 0.5.

    No object satisfies both a noisy amplitude and a support. With a relaxation near 1 the iterations then diverge, even
    from the truth; the lower it is, the closer they stay to the measured amplitude (D. R. Luke, Inverse Problems
    21, 37 (2005)), but the more often they stay in wrong minima. That the noise itself is a good choice was found in
    trials on simulated crystals of 1e5 to 1e8 photons.

    Examples
    --------
    >>> relaxation(torch.full((4, 4, 4), 10.0))
    0.95
    """
    return max(1 - counting_noise(amplitude, valid=valid), _LEAST_RELAXATION)
