"""Random changes of the intensity of training images: brightness, contrast, noise and blur."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cathodeflow.fibsem.appearance_options import ImageChanges, WindowChanges

# Reach of the blur, in standard deviations, and the least that is computed [px].
_REACH, _LEAST = 3.0, 0.05


def changed_grey(x: Tensor, options: WindowChanges, deviation: float, random: torch.Generator) -> Tensor:
    """Change brightness and contrast of images; with `ImageChanges` also blur them and add noise.

    Every image is changed otherwise; neighbouring slices that enter together are changed alike, except for the noise.

    Parameters
    ----------
    x : (n, context, row, col) float
    options : WindowChanges or ImageChanges
        Largest changes; all are uniformly distributed.
    deviation : float
        Standard deviation of the intensity of all training images, in the unit of `x`.
    random : torch.Generator
        On the CPU.

    Returns
    -------
    (n, context, row, col) float
        The same tensor if nothing is to be changed.
    """

    def drawn() -> Tensor:
        return torch.rand(len(x), 1, 1, 1, generator=random)

    if isinstance(options, ImageChanges) and options.blur > 0:
        x = _blurred(x, options.blur * drawn().flatten())
    if options.contrast > 0:
        mean = x.mean((1, 2, 3), keepdim=True)
        x = mean + (x - mean) * (1 + options.contrast * (2 * drawn() - 1)).to(x.device)
    if options.brightness > 0:
        x = x + (options.brightness * deviation * (2 * drawn() - 1)).to(x.device)
    if isinstance(options, ImageChanges) and options.noise > 0:
        # On the device of the images, where they are many.
        seed = int(torch.randint(2**62, (), generator=random))
        own = torch.Generator(x.device).manual_seed(seed)
        noise = torch.randn(x.shape, device=x.device, generator=own)
        x = x + noise * (options.noise * deviation * drawn()).to(x.device)
    return x


def _blurred(x: Tensor, sigma: Tensor) -> Tensor:
    """Blur each image (n, context, row, col) with a Gaussian of its own standard deviation (n,) [px]."""
    n, context = x.shape[:2]
    reach = max(1, round(_REACH * float(sigma.max())))
    if min(x.shape[2:]) <= reach:
        return x
    offsets = torch.arange(-reach, reach + 1)
    taps = torch.exp(-0.5 * (offsets / sigma.clamp_min(_LEAST)[:, None]) ** 2)
    taps = (taps / taps.sum(1, keepdim=True)).repeat_interleave(context, 0).to(x.device)
    flat = F.pad(x.reshape(1, n * context, *x.shape[2:]), (reach, reach, reach, reach), mode="reflect")
    flat = F.conv2d(flat, taps[:, None, :, None], groups=n * context)
    return F.conv2d(flat, taps[:, None, None], groups=n * context).reshape(x.shape)
