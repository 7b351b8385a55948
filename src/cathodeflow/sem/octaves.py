"""Normalization of crops by their histogram or by octaves of spatial frequency, and random changes of octaves."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# The coarsest band has at least this many pixels along its shorter side.
_COARSEST = 4
# Grey levels of a crop, and the standard deviation of the logistic distribution.
_LEVELS, _LOGISTIC = 256, math.pi / math.sqrt(3)
# A band without contrast stays zero, instead of rounding being amplified.
_FLOOR = 1e-3
_CONTRAST = 0.1


def split_octaves(x: Tensor) -> list[Tensor]:
    """Divide crops into bands of one octave each [1]_; `join_octaves` gives the crops again.

    Parameters
    ----------
    x : (n, 1, h, w)

    Returns
    -------
    list of (n, 1, h / 2**i, w / 2**i)
        The finest band first; the last is what is left, a crop of at least 4 pixels.

    References
    ----------
    .. [1] P. J. Burt, E. H. Adelson, IEEE Trans. Commun. 31, 532 (1983)
    """
    bands = []
    while min(x.shape[2:]) >= 2 * _COARSEST:
        coarse = F.avg_pool2d(x, 2, ceil_mode=True)
        bands.append(x - _enlarged(coarse, x))
        x = coarse
    return [*bands, x]


def join_octaves(bands: list[Tensor]) -> Tensor:
    """Join the bands of `split_octaves` to crops."""
    x = bands[-1]
    for band in reversed(bands[:-1]):
        x = band + _enlarged(x, band)
    return x


def equal_octaves(x: Tensor) -> Tensor:
    """Give all octaves of a crop the same standard deviation, and the crop the mean 0 and standard deviation 1.

    So focus, noise and contrast, which change the standard deviations of the octaves, are removed as far as they do
    nothing else; what is left is how each octave is distributed in the crop, and how octaves depend on each other.

    Parameters
    ----------
    x : (n, 1, h, w)
    """
    *bands, rest = split_octaves(x)
    bands = [band / _deviation(band) for band in bands]
    rest = (rest - rest.mean((2, 3), keepdim=True)) / _deviation(rest - rest.mean((2, 3), keepdim=True))
    joined = join_octaves([*bands, rest])
    joined = joined - torch.mean(joined, (1, 2, 3), keepdim=True)
    # Octaves with contrast have a standard deviation of about 1; less is rounding, which is not amplified again.
    return joined / _deviation(joined, least=_CONTRAST)


def equal_histogram(x: Tensor) -> Tensor:
    """Give all crops the same histogram, that of a logistic distribution of mean 0 and standard deviation 1.

    Only the order of the grey levels is kept, so brightness, contrast, gamma and clipping of the detector are removed.
    Pixels of equal level stay equal.

    Parameters
    ----------
    x : (n, 1, h, w)
        In 0..1; compared at 256 levels.
    """
    levels = (x.flatten(1) * (_LEVELS - 1)).round().clamp(0, _LEVELS - 1).to(torch.int64)
    counts = torch.zeros(x.shape[0], _LEVELS, dtype=x.dtype, device=x.device)
    counts = counts.scatter_add(1, levels, torch.ones_like(x.flatten(1)))
    # The rank of a level is the middle of those of its pixels.
    rank = (counts.cumsum(1) - counts / 2) / levels.shape[1]
    least = 0.5 / levels.shape[1]
    rank = rank.clamp(least, 1 - least)
    quantile = (torch.log(rank) - torch.log(1 - rank)) / _LOGISTIC
    return quantile.gather(1, levels).reshape(x.shape)


def standardized(x: Tensor) -> Tensor:
    """Give each crop (n, 1, h, w) the mean 0 and the standard deviation 1; a crop without contrast is 0."""
    centred = x - x.mean((1, 2, 3), keepdim=True)
    return centred / _deviation(centred)


def _deviation(x: Tensor, least: float = _FLOOR) -> Tensor:
    return x.square().mean((1, 2, 3), keepdim=True).sqrt().clamp_min(least)


def _enlarged(x: Tensor, like: Tensor) -> Tensor:
    size = (int(like.shape[2]), int(like.shape[3]))
    return F.interpolate(x, size=size, mode="bilinear", align_corners=False)


def scaled_octaves(x: Tensor, factors: Tensor) -> Tensor:
    """Multiply each octave of each crop by a factor; the mean of the crop stays.

    Parameters
    ----------
    x : (n, 1, h, w)
    factors : (n, m)
        By octave, the finest first; as many as are used. Coarser ones keep their contrast.
    """
    *bands, rest = split_octaves(x)
    used = min(len(bands), factors.shape[1])
    shaped = factors[:, :, None, None, None].to(x)
    changed = [band * shaped[:, number] for number, band in enumerate(bands[:used])]
    joined: Tensor = join_octaves([*changed, *bands[used:], rest])
    return joined + (x.mean((1, 2, 3), keepdim=True) - torch.mean(joined, (1, 2, 3), keepdim=True))
