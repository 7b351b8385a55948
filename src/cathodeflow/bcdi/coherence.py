"""Partial coherence: the intensity of a coherent wave, blurred on the detector by a Gaussian.

A Gaussian mutual coherence function multiplies the autocorrelation of the object, so the measured intensity is the
coherent one convolved with its transform (J. N. Clark et al., Nat. Commun. 3, 993 (2012), equation 2). Volumes here are
(start, x, y, z), the order of `iterations`, with the zero frequency at index 0.
"""

import math

import torch
from torch import Tensor

from cathodeflow.bcdi.operators import VOLUME
from cathodeflow.bcdi.operators import amplitude as coherent_amplitude

#: Widest blur that is estimated [px]: the speckles of a pattern sampled well enough to be phased are not narrower.
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
        """Blur intensities (start, x, y, z) float32; none comes out negative."""
        return self._back(torch.fft.rfftn(intensity, dim=VOLUME).mul_(self.transfer)).clamp_min_(0)

    def _back(self, spectrum: Tensor) -> Tensor:
        return torch.fft.irfftn(spectrum, self.sides, VOLUME)

    def fit(self, intensity: Tensor, amplitude: Tensor, weight: Tensor) -> None:
        """Improve the widths, so that the intensities agree better with the measured ones.

        One step of Gauss and Newton on the squared difference of amplitudes, in the three variances.

        Parameters
        ----------
        intensity : (start, x, y, z) float32
            Of the coherent wave.
        amplitude, weight : (x, y, z) float32
            Measured amplitude, and 1 where there is one, else 0.
        """
        spectrum = torch.fft.rfftn(intensity, dim=VOLUME).mul_(self.transfer)
        modulus = self._back(spectrum).clamp_min_(0).sqrt_()
        # Where next to nothing is calculated the derivative of the root has no bound.
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
    # The blur is periodic: the position of the zero frequency does not matter to it.
    intensity = calculated.square().permute(0, 3, 2, 1)
    return Blur(tuple(intensity.shape), widths)(intensity).permute(0, 3, 2, 1).sqrt()
