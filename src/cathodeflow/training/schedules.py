"""Learning-rate schedules: factors on the peak learning rate for each epoch, from 0."""

import math
from collections.abc import Callable

from cathodeflow.training.base_options import ScheduleName

Schedule = Callable[[int], float]


def build_schedule(name: ScheduleName, epochs: int, *, warm_up: int = 0, final: float = 0.01) -> Schedule:
    """Make a schedule by name.

    Parameters
    ----------
    name : {"cosine", "constant", "cyclic"}
        `warm_up_cosine`; constant after a linear rise; or `cyclic`, which has no warm-up.
    epochs, warm_up, final
        As in `warm_up_cosine`.

    Examples
    --------
    >>> constant = build_schedule("constant", 9, warm_up=1)
    >>> [constant(epoch) for epoch in range(3)]
    [0.5, 1.0, 1.0]
    """
    if name == "cosine":
        return warm_up_cosine(epochs, warm_up=warm_up, final=final)
    return cyclic() if name == "cyclic" else lambda epoch: min((epoch + 1) / (warm_up + 1), 1.0)


def warm_up_cosine(epochs: int, *, warm_up: int = 0, final: float = 0.01) -> Schedule:
    """Make a schedule with a linear rise followed by half a cosine (Loshchilov and Hutter, ICLR 2017).

    Parameters
    ----------
    epochs : int
        Number of epochs, at which the cosine ends.
    warm_up : int
        Epochs of the linear rise.
    final : float
        Factor at the end.

    Examples
    --------
    >>> factor = warm_up_cosine(12, warm_up=2, final=0.0)
    >>> [round(factor(epoch), 3) for epoch in (0, 1, 2, 7)]
    [0.333, 0.667, 1.0, 0.5]
    """

    def factor(epoch: int) -> float:
        if epoch < warm_up:
            return (epoch + 1) / (warm_up + 1)
        done = min((epoch - warm_up) / max(epochs - warm_up, 1), 1.0)
        return final + (1 - final) * (1 + math.cos(math.pi * done)) / 2

    return factor


def cyclic(*, half_period: int = 6, lowest: float = 0.1) -> Schedule:
    """Make a schedule that rises and falls linearly, half as high each time (L. N. Smith, WACV 2017).

    Parameters
    ----------
    half_period : int
        Epochs of each rise and fall.
    lowest : float
        Factor between cycles.

    Examples
    --------
    >>> factor = cyclic(half_period=2, lowest=0.0)
    >>> [factor(epoch) for epoch in range(7)]
    [0.0, 0.5, 1.0, 0.5, 0.0, 0.25, 0.5]
    """

    def factor(epoch: int) -> float:
        cycle, phase = divmod(epoch, 2 * half_period)
        return lowest + (1 - lowest) * (1 - abs(phase / half_period - 1)) / 2**cycle

    return factor
