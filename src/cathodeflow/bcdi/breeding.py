"""New initial objects from several reconstructions of one pattern, as in guided phase retrieval.

Each reconstruction is combined with the best one: voxel by voxel, the geometric mean of their amplitudes, and the mean
of their phases [1]_. What both have remains, and what only one has becomes weaker, so that the iterations that follow
leave a minimum in which only one of them is.

References
----------
.. [1] C.-C. Chen, J. Miao, C. W. Wang, T. K. Lee, Phys. Rev. B 76, 064113 (2007): guided hybrid input-output
"""

import torch
from torch import Tensor

from cathodeflow.bcdi.ambiguities import align


def bred(best: Tensor, partners: Tensor) -> Tensor:
    """Combine reconstructions with the best one.

    Parameters
    ----------
    best : (z, y, x) complex64
    partners : (n, z, y, x) complex64
        Shift, global phase and twin are resolved here.

    Returns
    -------
    (n, z, y, x) complex64
        At the position of the best one; a partner that equals it gives it back.

    Examples
    --------
    >>> best = torch.zeros(4, 4, 4, dtype=torch.complex64)
    >>> best[1:3, 1:3, 2] = 4.0
    >>> bool(torch.allclose(bred(best, 4j * best[None])[0], 2 * best, atol=1e-4))
    True
    """
    aligned = align(partners, best)[0]
    amplitude = (best.abs() * aligned.abs()).sqrt()
    return torch.polar(amplitude, best.angle() + (aligned * best.conj()).angle() / 2)
