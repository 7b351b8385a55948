"""Pixels excluded from phasing, which test a reconstruction on data that it was not fitted to."""

import math

import torch
from torch import Tensor

from cathodeflow.checkpoints import generator
from cathodeflow.errors import InputError

#: Radius of the islands [px]: larger than the distance from which an oversampled pixel can be interpolated.
ISLAND_RADIUS = 3

#: Radius around the peak's centre without excluded pixels, as a fraction of each axis: few pixels hold most photons.
CENTRE_SHARE = 0.05


def free_pixels(shape: tuple[int, int, int], fraction: float, *, seed: int) -> Tensor:
    """Choose pixels in small islands, away from the centre of the peak.

    After V. Favre-Nicolin, S. Leake, Y. Chushkin, "Free log-likelihood as an unbiased metric for coherent diffraction
    imaging", Sci. Rep. 10, 2664 (2020).

    Parameters
    ----------
    shape : (z, y, x)
        Shape of the diffraction volume, zero frequency at n // 2.
    fraction : float
        Mean fraction of the pixels, 0 to 0.5.
    seed : int

    Returns
    -------
    (z, y, x) bool
        True for the free pixels.

    Raises
    ------
    InputError
        The fraction is out of range.
    """
    if not 0 <= fraction <= 0.5:
        raise InputError("free_fraction", str(fraction), "0 to 0.5")
    free = torch.zeros(shape, dtype=torch.bool)
    if fraction == 0:
        return free
    # On a short axis, islands are smaller than the axis.
    radii = [min(ISLAND_RADIUS, side // 8) for side in shape]
    offsets = torch.cartesian_prod(*(torch.arange(-radius, radius + 1) for radius in radii))
    island = offsets[(offsets / torch.tensor(radii).clamp_min(1)).square().sum(1) <= 1]
    # Islands overlap: with a total volume of p times the window they cover the fraction 1 - exp(-p).
    count = max(round(-math.log1p(-fraction) * free.numel() / len(island)), 1)
    sides = torch.tensor(shape)
    centres = (torch.rand(count, 3, generator=generator(seed)) * sides).long()
    places = ((centres[:, None] + island) % sides).flatten(0, 1)
    free[places[:, 0], places[:, 1], places[:, 2]] = True
    axes = [(torch.arange(side) - side // 2) / max(CENTRE_SHARE * side, 1) for side in shape]
    distance = sum(axis.square().reshape(-1, *(1,) * (2 - number)) for number, axis in enumerate(axes))
    return free & (torch.as_tensor(distance) > 1)
