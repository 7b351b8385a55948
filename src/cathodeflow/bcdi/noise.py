"""Counting noise of a measured amplitude, and the relaxation of phasing that suits it."""

import torch
from torch import Tensor

# Minimum relaxation; below it RAAR is hardly more than error reduction.
_LEAST_RELAXATION = 0.5
# Minimum counts of the brightest pixel of a pattern that can be phased.
_BRIGHTEST = 10.0


def counting_noise(amplitude: Tensor, *, valid: Tensor | None = None) -> float:
    """Estimate the distance between an amplitude and the true one by counting noise, relative to its norm.

    The root of n counts varies by 1/4 where n is large. Where few are expected it varies by as much as is expected: so
    do the pixels with one count, and as many photons again are expected in those around them that have none. On
    simulated crystals of 1e5 to 1e8 photons the estimate is within some percent of the distance to the true amplitude.
    Where small counts were removed as background it is too low, by a factor of about two.

    Parameters
    ----------
    amplitude : (z, y, x) float32
        Roots of counts. On another scale the estimate is wrong.
    valid : (z, y, x) bool, optional
        True where a pixel was measured; the values of the others are ignored. Default: all.

    Returns
    -------
    float
        0 where no pixel has as many as ten counts: such amplitudes are no roots of counts.

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
    """Choose the relaxation of RAAR by the noise: 1 minus that of `counting_noise`, at least 0.5.

    A noisy amplitude and a support have no object in common. Near 1 the iterations then wander off for good, even from
    the truth; the lower the relaxation, the nearer they stay to the measured amplitude (D. R. Luke, Inverse Problems
    21, 37 (2005)), and the less they leave wrong minima. That the noise itself is a good measure for it is what trials
    on simulated crystals of 1e5 to 1e8 photons gave.

    Examples
    --------
    >>> relaxation(torch.full((4, 4, 4), 10.0))
    0.95
    """
    return max(1 - counting_noise(amplitude, valid=valid), _LEAST_RELAXATION)
