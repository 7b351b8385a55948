"""Partial coherence: Gaussian blur of the coherent intensity on the detector.

A Gaussian mutual coherence function multiplies the autocorrelation of the object, so the measured intensity is the
coherent intensity convolved with its transform (J. N. Clark et al., Nat. Commun. 3, 993 (2012), equation 2). Volumes
here are (start, x, y, z), the order of `iterations`, with the zero frequency at index 0.
"""

import math

import torch
from torch import Tensor

from cathodeflow.bcdi.operators import VOLUME
from cathodeflow.bcdi.operators import amplitude as coherent_amplitude

#: Maximum width of a fitted blur [px]: speckles are at least this wide if the pattern is sampled well enough for
#: phasing.
WIDEST = 2.0


class Blur:
    """Gaussian blurs, one for each start.

    Parameters
    ----------
    shape : (start, x, y, z)
    widths : (start, 3) float32
        Standard deviations along (z, y, x) [px].
    """

    def __init__(self, shape: tuple[int, ...], widths: Tensor) -> None:
        self.sides = shape[1:]
        width, height, depth = self.sides
        device = widths.device
        # Along z, y, x, as the widths are.
        self.squares = [
            torch.fft.rfftfreq(depth, device=device).square(),
            torch.fft.fftfreq(height, device=device).square()[:, None],
            torch.fft.fftfreq(width, device=device).square()[:, None, None],
        ]
        self.widths = widths

    @property
    def widths(self) -> Tensor:
        """Standard deviations (start, 3) float32 [px]."""
        return self._widths

    @widths.setter
    def widths(self, widths: Tensor) -> None:
        self._widths = widths
        variances = widths.square().unbind(1)
        exponent: Tensor = sum(v[:, None, None, None] * f for v, f in zip(variances, self.squares, strict=True))
        self.transfer = (-2 * math.pi**2 * exponent).exp_()

    def __call__(self, intensity: Tensor) -> Tensor:
        """Blur intensities (start, x, y, z) float32; the results are not negative."""
        return self._back(torch.fft.rfftn(intensity, dim=VOLUME).mul_(self.transfer)).clamp_min_(0)

    def _back(self, spectrum: Tensor) -> Tensor:
        return torch.fft.irfftn(spectrum, self.sides, VOLUME)

    def fit(self, intensity: Tensor, amplitude: Tensor, weight: Tensor) -> None:
        """Update the widths to improve the agreement with the measured intensities.

        One Gauss-Newton step on the squared difference of the amplitudes, in the three variances.

        Parameters
        ----------
        intensity : (start, x, y, z) float32
            Intensity of the coherent wave.
        amplitude, weight : (x, y, z) float32
            Measured amplitude, and 1 where it was measured, else 0.
        """
        spectrum = torch.fft.rfftn(intensity, dim=VOLUME).mul_(self.transfer)
        modulus = self._back(spectrum).clamp_min_(0).sqrt_()
        # The derivative of the root is unbounded where the calculated intensity is near 0.
        inverse = weight / (2 * modulus.clamp_min(1e-3 * modulus.amax(VOLUME, keepdim=True)))
        slopes = torch.stack([self._back(spectrum * (-2 * math.pi**2 * f)) * inverse for f in self.squares])
        residual = weight * (amplitude - modulus)
        normal = torch.einsum("isxyz,jsxyz->sij", slopes, slopes).double()
        gradient = torch.einsum("isxyz,sxyz->si", slopes, residual).double()
        # An axis along which the pattern does not change would make the system singular.
        normal += 1e-6 * normal.diagonal(dim1=1, dim2=2).amax(1)[:, None, None] * torch.eye(3, device=normal.device)
        step = torch.linalg.solve(normal, gradient).float()
        self.widths = (self.widths.square() + step).clamp_(0, WIDEST**2).sqrt_()


def detected_amplitude(objects: Tensor, widths: Tensor) -> Tensor:
    """Calculate the amplitude of objects on the detector, blurred where the coherence is partial.

    Parameters
    ----------
    objects : (start, z, y, x) complex64
    widths : (start, 3) float32
        Standard deviations of the blur along (z, y, x) [px]; 0 for full coherence.

    Returns
    -------
    (start, z, y, x) float32
        Zero frequency at index n // 2.
    """
    calculated = coherent_amplitude(objects)
    if not bool(widths.any()):
        return calculated
    # The blur is periodic, so the position of the zero frequency does not matter.
    intensity = calculated.square().permute(0, 3, 2, 1)
    return Blur(tuple(intensity.shape), widths)(intensity).permute(0, 3, 2, 1).sqrt()
