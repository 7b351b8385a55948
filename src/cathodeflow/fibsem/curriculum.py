"""The fine-grained curriculum (HCL-USI): pixels of low entropy first, in a pool that grows."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.fibsem.network_options import Curriculum


def pool_size(index: int, n_epochs: int, n: int, options: Curriculum) -> int:
    """Return the number of pixels, those of the lowest entropy, that may be drawn in an epoch.

    Parameters
    ----------
    index : int
        Index of the epoch, from 0.
    n_epochs : int
    n : int
        Number of training pixels.
    options : Curriculum
        With t the epoch over the one at which the pool is full, and s the start, the pacing is linear,
        s + (1 - s) t; root, sqrt(s^2 + (1 - s^2) t) (Platanios et al., NAACL 2019); or the linear one in steps.
        "none" is the whole pool from the start, the ablation without this curriculum; so it is for "strict", which
        orders the pixels themselves.

    Examples
    --------
    >>> def sizes(pacing):
    ...     options = Curriculum(pacing=pacing, start_fraction=0.2)
    ...     return [pool_size(index, 8, 1000, options) for index in range(5)]
    >>> sizes("linear"), sizes("root"), sizes("step")
    ([200, 400, 600, 800, 1000], [200, 529, 721, 872, 1000], [200, 200, 600, 600, 1000])
    """
    start, stages = options.start_fraction, options.stages
    done = min(index / (options.full_at * n_epochs), 1.0)
    if options.pacing in ("none", "strict") or done == 1:
        return n
    if options.pacing == "root":
        fraction = (start**2 + (1 - start**2) * done) ** 0.5
    else:
        if options.pacing == "step":
            done = int(done * (stages - 1)) / (stages - 1)
        fraction = start + (1 - start) * done
    return min(max(round(fraction * n), 1), n)


def sampled_entropy(entropy: NDArray[Any], *, count: int = 2000) -> NDArray[Any]:
    """Return evenly spaced order statistics of entropies (n,) [nat]: all of them if there are at most `count`.

    Examples
    --------
    >>> sampled_entropy(np.array([0.3, 0.1, 0.2])), sampled_entropy(np.arange(1000.0), count=4)
    (array([0.1, 0.2, 0.3]), array([125., 375., 625., 875.]))
    """
    ordered = np.sort(entropy)
    if len(ordered) <= count:
        return ordered
    return ordered[((np.arange(count) + 0.5) * len(ordered) / count).astype(int)]
