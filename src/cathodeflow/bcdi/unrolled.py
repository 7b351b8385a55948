"""Network that predicts several candidate objects per pattern and corrects them by unrolled modulus projections."""

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cathodeflow.bcdi.operators import VOLUME, inverse_fourier

# The weight gradient of a bfloat16 convolution over 2 x 2 x 2 voxels is wrong on CPUs (torch 2.13).
_SMALLEST_BFLOAT16 = 8
# So small that it changes only zeros, but large enough for a finite gradient.
_TINY = 1e-12


class Candidates(nn.Module):  # type: ignore[misc]
    """Several candidate objects, predicted from the amplitude and the autocorrelation, which is known without phases.

    Differences to the published network:

    - The inverse Fourier transform of the intensity, the autocorrelation of the object, is an input besides the
      amplitude and its
      logarithm: it is in real space, as the object is. For a convex crystal with inversion symmetry its support is
      that of the crystal, twice as large, so it enters at half the resolution, where its voxels match those of the
      object.
    - No layer has the full resolution, where the published network spends most of its time.
    - Residual blocks, skip connections from encoder to decoder, and group normalisation, which is the same in
      training, in inference and in fine-tuning on a single volume.
    - The object is a learned soft support (sigmoid) times a complex number inside the unit circle, so its phase has no
      limits where it would jump. The gradient passes the threshold, so that a voxel set to 0 can recover.
    - Object and twin, and other ambiguities of the pattern, need not be averaged: only the best of several candidates
      is trained and kept (`losses.best`).

    Each correction stage replaces the amplitudes of the candidates by the measured ones (the modulus
    projection of phase retrieval), and corrects the candidates by small convolutions of both versions.

    Parameters
    ----------
    widths : sequence of int
        Channels from the highest to the lowest resolution.
    candidates : int
    stages : int
        Number of correction stages; may be 0.
    """

    def __init__(self, widths: Sequence[int], candidates: int, stages: int) -> None:
        super().__init__()
        # Four volumes, each as eight parts of half the resolution.
        self.stem = nn.Conv3d(32, widths[0], 3, padding=1)
        self.down = nn.ModuleList([_Residual(*pair) for pair in itertools.pairwise((widths[0], *widths))])
        self.up = nn.ModuleList([_Residual(low + high, high) for high, low in itertools.pairwise(widths)])
        self.head = nn.Conv3d(widths[0], 3 * candidates, 3, padding=1)
        with torch.no_grad():
            # Initially real and well above the threshold, so that no voxel depends on rounding.
            self.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0]).repeat(candidates))
        self.stages = nn.ModuleList([_Stage(max(widths[0] // 2, 1)) for _ in range(stages)])

    def forward(self, amplitude: Tensor, threshold: float) -> Tensor:
        """Turn amplitudes (n, z, y, x), 1 at most, into (n, candidates, z / 2, y / 2, x / 2) complex64."""
        x = computed(self.stem, channels_last(_halved(_views(amplitude))))
        skips: list[Tensor] = []
        for level, block in enumerate(self.down):
            x = computed(block, F.avg_pool3d(x, 2) if level else x)
            skips.append(x)
        for level in reversed(range(len(self.up))):
            x = F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=False)
            x = computed(self.up[level], torch.cat([x.to(skips[level].dtype), skips[level]], 1))
        with torch.autocast(x.device.type, enabled=False):
            parts = self.head(F.leaky_relu(x.float(), 0.01)).unflatten(1, (-1, 3))
        # Zero frequency first, as in the Fourier transform.
        measured = torch.fft.ifftshift(amplitude, VOLUME)[:, None]
        for stage in self.stages:
            parts = parts + stage(parts, measured)
        found = _object(parts)
        kept = torch.where(found.abs() < threshold, 0.0, found)
        return found + (kept - found).detach() if torch.is_grad_enabled() else kept


class _Residual(nn.Module):  # type: ignore[misc]
    """Residual block: two times normalisation, LeakyReLU and 3x3x3 convolution."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _normalisation(before), nn.LeakyReLU(0.01), nn.Conv3d(before, after, 3, padding=1),
            _normalisation(after), nn.LeakyReLU(0.01), nn.Conv3d(after, after, 3, padding=1),
        )  # fmt: skip
        self.shortcut = nn.Conv3d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.layers(x)


class _Stage(nn.Module):  # type: ignore[misc]
    """Correction of candidates by their modulus projections; initially zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(5, width, 3, padding=1)
        self.fine, self.coarse = _Residual(width, width), _Residual(width, width)
        self.last = nn.Conv3d(width, 3, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, parts: Tensor, measured: Tensor) -> Tensor:
        """Compute the corrections of (n, candidates, 3, z / 2, y / 2, x / 2) with amplitudes (n, 1, z, y, x)."""
        found = _object(parts)
        projection = _projected(found, measured)
        features = torch.stack(
            [torch.tanh(parts[:, :, 0]), found.real, found.imag, projection.real, projection.imag], 2
        )
        x = computed(self.fine, computed(self.first, channels_last(features.flatten(0, 1))))
        wide = computed(self.coarse, F.avg_pool3d(x, 2))
        x = x + F.interpolate(wide, scale_factor=2, mode="trilinear", align_corners=False).to(x.dtype)
        with torch.autocast(x.device.type, enabled=False):
            return self.last(F.leaky_relu(x.float(), 0.01)).unflatten(0, parts.shape[:2])


def computed(block: nn.Module, x: Tensor) -> Tensor:
    """Apply a block, in float32 if volumes are small."""
    if min(x.shape[-3:]) >= _SMALLEST_BFLOAT16:
        return block(x)
    with torch.autocast(x.device.type, enabled=False):
        return block(x.float())


def channels_last(x: Tensor) -> Tensor:
    """Put channels last in memory if that is faster on CPUs: by 12 % without gradients, not with gradients."""
    return x if torch.is_grad_enabled() else x.contiguous(memory_format=torch.channels_last_3d)


def _normalisation(channels: int) -> nn.Module:
    # Groups have several channels, as a single channel of 1 x 1 x 1 voxel would become 0.
    return nn.GroupNorm(math.gcd(channels, 8) if channels >= 32 else 1, channels)


def _views(amplitude: Tensor) -> Tensor:
    """Stack amplitudes, their logarithms, and their complex autocorrelations: (n, z, y, x) to (n, 4, z, y, x)."""
    logarithm = torch.log1p(1000 * amplitude) / math.log1p(1000)
    pairs = inverse_fourier(amplitude.square())
    pairs = pairs / pairs.abs().amax(VOLUME, keepdim=True).clamp_min(_TINY)
    # Similar to the square root, so that shifts with few overlapping voxels have an effect, too.
    pairs = pairs * (pairs.abs() + 1e-3).rsqrt()
    return torch.stack([amplitude, logarithm, pairs.real, pairs.imag], 1)


def _halved(x: Tensor) -> Tensor:
    """Put the eight voxels of each 2x2x2 block into channels: (n, c, z, y, x) to (n, 8 c, z / 2, y / 2, x / 2)."""
    parts = x.unflatten(-1, (-1, 2)).unflatten(-3, (-1, 2)).unflatten(-5, (-1, 2))
    return parts.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def _object(parts: Tensor) -> Tensor:
    """Multiply soft supports and numbers inside the unit circle: (n, candidates, 3, ...) to (n, candidates, ...)."""
    support, real, imaginary = parts.unbind(2)
    size = torch.sigmoid(support) * (1 + real.square() + imaginary.square()).rsqrt()
    return torch.complex(size * real, size * imaginary)


def _projected(objects: Tensor, measured: Tensor) -> Tensor:
    """Replace the amplitudes of objects by the measured one, scaled to their norm.

    Parameters
    ----------
    objects : (n, candidates, z / 2, y / 2, x / 2) complex64
        Surrounded by zeros. Their position in the volume does not affect their amplitude, so they are put at
        its beginning, and only lines that are not 0 or are needed are Fourier transformed.
    measured : (n, 1, z, y, x) float32
        Zero frequency first.

    Returns
    -------
    (n, candidates, z / 2, y / 2, x / 2) complex64
    """
    waves = objects
    for axis in reversed(VOLUME):
        waves = torch.fft.fft(waves, measured.shape[axis], axis, norm="ortho")
    norms = [torch.linalg.vector_norm(part, dim=VOLUME, keepdim=True) for part in (objects, measured)]
    wanted = measured * (norms[0] / norms[1].clamp_min(_TINY))
    # Without the second term the gradient would be infinite where the wave is 0; with it, it is at most 10.
    size = waves.real.square() + waves.imag.square() + (0.1 * wanted).square()
    waves = waves * (wanted * (size + _TINY).rsqrt())
    for axis in VOLUME:
        waves = torch.fft.ifft(waves, dim=axis, norm="ortho").narrow(axis, 0, objects.shape[axis])
    return waves
