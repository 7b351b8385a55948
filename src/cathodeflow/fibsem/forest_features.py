"""Features of pixels for the random forest: Gaussian derivatives at several scales, as in ilastik and Weka."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

#: Features of a pixel at each scale.
PER_SCALE = ("smoothed", "gradient", "laplacian", "hessian_low", "hessian_high", "deviation")
# Half width of the filters, in standard deviations.
_TRUNCATED = 3.0


def n_features(channels: int, scales: Sequence[float]) -> int:
    """Count the features of `gaussian_features`."""
    return channels * (1 + len(PER_SCALE) * len(scales))


def gaussian_features(x: Tensor, scales: Sequence[float]) -> Tensor:
    """Compute features that do not change when a slice is turned by 90 degrees or reflected.

    Parameters
    ----------
    x : (n, channel, row, col) float
    scales : sequence of float
        Standard deviations s of the Gaussian filters [px].

    Returns
    -------
    (n, n_features, row, col) float32
        The intensity itself; then for each scale the smoothed intensity, s |gradient|, s^2 Laplacian, the lower and the
        higher eigenvalue of s^2 Hessian (Lindeberg, Int. J. Comput. Vis. 30, 79, 1998), and the standard deviation in
        the Gaussian window. Beyond its edge, a slice continues with the values at the edge.
    """
    n, channels, rows, cols = x.shape
    single = x.float().reshape(n * channels, 1, rows, cols)
    found = [single]
    # Far from zero, mean squares would lose their digits.
    centred = single - single.mean((2, 3), keepdim=True)
    for scale in scales:
        kernels = _kernels(scale, x.device)
        smoothed, down, across, down2, mixed, across2 = _derivatives(single, kernels).split(1, 1)
        mean, square = (_derivatives(part, kernels[:1]) for part in (centred, centred.square()))
        half, spread = (down2 + across2) / 2, torch.hypot((down2 - across2) / 2, mixed)
        found += [smoothed, torch.hypot(down, across), 2 * half, half - spread, half + spread,
                  (square - mean.square()).clamp_min(0).sqrt()]  # fmt: skip
    return torch.cat(found, 1).reshape(n, -1, rows, cols)


def _kernels(scale: float, device: torch.device) -> Tensor:
    """Gaussian and its first and second derivative times scale and scale^2: (3, width)."""
    reach = max(int(_TRUNCATED * scale + 0.5), 1)
    u = torch.arange(-reach, reach + 1, dtype=torch.float64) / scale
    gauss = torch.exp(-0.5 * u**2)
    gauss /= gauss.sum()
    return torch.stack([gauss, u * gauss, (u**2 - 1) * gauss]).float().to(device)


def _derivatives(x: Tensor, kernels: Tensor) -> Tensor:
    """Filter (n, 1, row, col) images: orders (down, across) 00, 10, 01, 20, 11, 02; with one kernel the first alone."""
    reach = kernels.shape[1] // 2
    order = kernels.shape[0]
    down = F.conv2d(F.pad(x, (0, 0, reach, reach), mode="replicate"), kernels[:, None, :, None])
    wide = F.pad(down, (reach, reach, 0, 0), mode="replicate")
    if order == 1:
        return F.conv2d(wide, kernels[:, None, None, :])
    zero = F.conv2d(wide[:, :1], kernels[:, None, None, :])
    first = F.conv2d(wide[:, 1:2], kernels[:2, None, None, :])
    second = F.conv2d(wide[:, 2:], kernels[:1, None, None, :])
    return torch.cat([zero[:, :1], first[:, :1], zero[:, 1:2], second, first[:, 1:], zero[:, 2:]], 1)
