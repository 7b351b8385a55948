"""The fine-grained curriculum (HCL-USI): pixels of low entropy first, in a pool that grows."""

from collections.abc import Iterator
from typing import Literal

import torch
from torch import Tensor

from cathodeflow.errors import InputError

Pacing = Literal["linear", "root", "step", "none"]


def pool_size(
    step: int, n_steps: int, n: int, kind: Pacing, start_share: float, *, full_at: float = 0.5, stages: int = 3
) -> int:
    """How many pixels, those of the lowest entropy, may be drawn at a step.

    Parameters
    ----------
    step : int
        From 0; with `train_local` the number of the epoch.
    n_steps : int
    n : int
        Pixels in all.
    kind : {"linear", "root", "step", "none"}
        With t the step over the one at which the pool is full, and s the start: s + (1 - s) t, or
        sqrt(s^2 + (1 - s^2) t) (Platanios et al., NAACL 2019), or the linear one in jumps. "none" is the whole pool
        from the start, the ablation without this curriculum.
    start_share : float
        Share of the pixels in the pool at first, in (0, 1].
    full_at : float
        Share of the steps, in (0, 1], after which the pool is full.
    stages : int
        Sizes of the pool for "step", at least 2.

    Raises
    ------
    InputError
        When a parameter is out of range.

    Examples
    --------
    >>> [pool_size(step, 8, 1000, "linear", 0.2) for step in range(8)]
    [200, 400, 600, 800, 1000, 1000, 1000, 1000]
    >>> [pool_size(step, 8, 1000, "root", 0.2) for step in range(5)]
    [200, 529, 721, 872, 1000]
    >>> [pool_size(step, 8, 1000, "step", 0.2) for step in range(5)]
    [200, 200, 600, 600, 1000]
    """
    if not 0 < start_share <= 1:
        raise InputError("start_share", str(start_share), "above 0, at most 1")
    if not 0 < full_at <= 1:
        raise InputError("full_at", str(full_at), "above 0, at most 1")
    if stages < 2:
        raise InputError("stages", str(stages), "at least 2")
    done = min(step / (full_at * n_steps), 1.0)
    if kind == "none" or done == 1:
        return n
    if kind == "root":
        share = (start_share**2 + (1 - start_share**2) * done) ** 0.5
    else:
        if kind == "step":
            done = int(done * (stages - 1)) / (stages - 1)
        share = start_share + (1 - start_share) * done
    return min(max(round(share * n), 1), n)


def paced(order: Tensor, size: int, random: torch.Generator, *, batch_size: int, count: int) -> Iterator[Tensor]:
    """Draw batches from a pool, shuffled: strictly from easy to hard, the last batches would undo the first.

    Parameters
    ----------
    order : (n,) int64
        Numbers of pixels from low to high entropy: `torch.argsort(entropy, stable=True)`.
    size : int
        Of the pool: the first `size` of them.
    random : torch.Generator
    batch_size : int
    count : int
        Pixels to draw. A pool of fewer is gone through again, in another order; so an epoch has as many steps whatever
        the pacing.

    Yields
    ------
    (batch_size,) int64
        The last one may be smaller.
    """
    left = count
    kept = torch.empty(0, dtype=torch.int64)
    while left > 0:
        drawn = torch.randperm(size, generator=random)[: left - len(kept)]
        kept = torch.cat([kept, drawn])
        whole = len(kept) if len(kept) >= left else len(kept) - len(kept) % batch_size
        for part in kept[:whole].split(batch_size) if whole else ():
            yield order[part]
        left, kept = left - whole, kept[whole:]
