"""Losses of a phase-retrieval network: distances between the diffraction of its objects and the measured one.

All losses except `overlap_loss` and `placed_loss` need no truth and do not distinguish an object from its shifted
copies or its twin. A loss is one number for each candidate of each pattern, at best 0; `best` combines those of a
pattern.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from cathodeflow.bcdi.network_options import Loss
from cathodeflow.bcdi.operators import VOLUME, fourier
from cathodeflow.bcdi.operators import amplitude as amplitude_of
from cathodeflow.errors import InputError

#: Background counts of a voxel: without it, a single photon where the object scatters none would dominate.
BACKGROUND = 0.01
# Below the norm of any object; the reciprocal of its square is finite in float32, for gradients where all values are 0.
_TINY = 1e-12


def diffraction_loss(objects: Tensor, measured: Tensor, loss: Loss, *, mask: Tensor | None = None) -> Tensor:
    """Compare the far-field amplitude of objects with the measured one.

    Parameters
    ----------
    objects : (n, candidates, z, y, x) complex64
        On any scale.
    measured : (n, z, y, x) float32
        Amplitude, zero frequency at index n // 2; for "poisson" and "mix" the square root of counts.
    loss : {"l1", "pearson", "poisson", "mix"}
        `l1`, `pearson`, `poisson`, or the mean of these three.
    mask : (n, z, y, x) or (z, y, x) bool, optional
        True where a pixel was measured. Default: all.

    Returns
    -------
    (n, candidates) float32

    Raises
    ------
    InputError
        The loss is unknown, or the shapes do not match.

    Examples
    --------
    >>> cube = torch.zeros(1, 1, 8, 8, 8, dtype=torch.complex64)
    >>> cube[..., 3:5, 3:5, 3:6] = 2j
    >>> diffraction_loss(cube, amplitude_of(cube)[:, 0], "pearson").abs().item() < 1e-6
    True
    """
    if loss not in LOSSES:
        raise InputError("loss", str(loss), "one of " + ", ".join(LOSSES))
    return LOSSES[loss](*_amplitudes(objects, measured, mask))


def l1(calculated: Tensor, measured: Tensor) -> Tensor:
    """Mean absolute difference of amplitudes, each divided by its maximum, relative to the mean of the measured one.

    The loss of Y. Yao et al., npj Comput. Mater. 8, 124 (2022), divided by the mean, so that strongly and weakly peaked
    patterns have the same weight; this is the R factor of these amplitudes.

    Parameters
    ----------
    calculated, measured : (..., z, y, x) float32

    Returns
    -------
    (...) float32
    """
    calculated, measured = (part / part.amax(VOLUME, keepdim=True).clamp_min(_TINY) for part in (calculated, measured))
    return (calculated - measured).abs().sum(VOLUME) / measured.sum(VOLUME).clamp_min(_TINY)


def pearson(calculated: Tensor, measured: Tensor) -> Tensor:
    """1 - Pearson's correlation of the amplitudes (..., z, y, x); ignores their scale and a constant background."""
    calculated, measured = (part - part.mean(VOLUME, keepdim=True) for part in (calculated, measured))
    norms = torch.linalg.vector_norm(calculated, dim=VOLUME) * torch.linalg.vector_norm(measured, dim=VOLUME)
    return 1 - (calculated * measured).sum(VOLUME) / norms.clamp_min(_TINY)


def poisson(calculated: Tensor, measured: Tensor) -> Tensor:
    """Negative Poisson log-likelihood of the counts, minus that of a perfect object, per photon [nat].

    The calculated intensity is scaled to the number of measured photons, and `BACKGROUND` is added to both. For equal
    sums it is the Kullback-Leibler divergence of the two intensities.

    Parameters
    ----------
    calculated : (..., z, y, x) float32
        Amplitude on any scale.
    measured : (..., z, y, x) float32
        Square root of the counts.

    Returns
    -------
    (...) float32
    """
    counts, expected = measured.square(), calculated.square()
    photons = counts.sum(VOLUME, keepdim=True).clamp_min(_TINY)
    expected = expected * (photons / expected.sum(VOLUME, keepdim=True).clamp_min(_TINY)) + BACKGROUND
    counts = counts + BACKGROUND
    return (expected - counts + counts * (counts / expected).log()).sum(VOLUME) / photons.flatten(-3)[..., 0]


def _mix(calculated: Tensor, measured: Tensor) -> Tensor:
    return (l1(calculated, measured) + pearson(calculated, measured) + poisson(calculated, measured)) / 3


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": l1, "pearson": pearson, "poisson": poisson, "mix": _mix,
}  # fmt: skip


def overlap_loss(objects: Tensor, truth: Tensor) -> Tensor:
    """1 - correlation with the truth, at the best shift, global phase and twin.

    The maximum modulus of the cross-correlation with the truth or its twin over all shifts by whole voxels; the modulus
    ignores the global phase. One Fourier transform gives all shifts, and the gradient is that of the best one.

    Parameters
    ----------
    objects : (n, candidates, z, y, x) complex64
    truth : (n, z, y, x) complex64

    Returns
    -------
    (n, candidates) float32
    """
    waves, true = fourier(objects), fourier(truth)[:, None]
    # The twin of an object has the conjugate Fourier transform.
    products = torch.stack([waves * true.conj(), waves * true])
    # The position of the zero frequency affects neither the modulus nor the maximum over all shifts.
    correlations = torch.fft.fftn(products, dim=VOLUME).flatten(-3).abs().amax(-1).amax(0)
    norms = torch.linalg.vector_norm(waves, dim=VOLUME) * torch.linalg.vector_norm(true, dim=VOLUME)
    return 1 - correlations / norms.clamp_min(_TINY)


def placed_loss(objects: Tensor, truth: Tensor) -> Tensor:
    """1 - correlation with the truth or its twin, whichever is higher, without a search for shifts.

    Training converges faster if all true objects are centred and an object elsewhere counts as wrong. It is also cheap,
    without the Fourier transforms of `overlap_loss`.

    Parameters
    ----------
    objects : (n, candidates, z, y, x) complex64
    truth : (n, z, y, x) complex64
        Centred at index n // 2, about which the twin is inverted.

    Returns
    -------
    (n, candidates) float32
    """
    # Flipping an array moves index n // 2 to n // 2 - 1.
    twin = truth.flip(VOLUME).roll((1, 1, 1), VOLUME).conj()
    overlaps = [torch.einsum("nczyx,nzyx->nc", objects, true.conj()).abs() for true in (truth, twin)]
    norms = torch.linalg.vector_norm(objects, dim=VOLUME) * torch.linalg.vector_norm(truth, dim=VOLUME)[:, None]
    return 1 - torch.maximum(*overlaps) / norms.clamp_min(_TINY)


def residuals(objects: Tensor, measured: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Norm of the amplitude difference relative to that of the measured amplitude, for objects scaled to its norm.

    Parameters
    ----------
    objects, measured, mask
        As in `diffraction_loss`.

    Returns
    -------
    (n, candidates) float32
        As `retrieval.Retrieval.errors`.
    """
    calculated, measured = _amplitudes(objects, measured, mask)
    norms = [torch.linalg.vector_norm(part, dim=VOLUME, keepdim=True) for part in (calculated, measured)]
    scaled = calculated / norms[0].clamp_min(_TINY) - measured / norms[1].clamp_min(_TINY)
    return torch.linalg.vector_norm(scaled, dim=VOLUME)


def best(losses: Tensor, *, mean_fraction: float) -> Tensor:
    """Loss of the best candidate, with a weight for the mean of all candidates, so that the others are trained, too.

    Parameters
    ----------
    losses : (n, candidates) float32
    mean_fraction : float
        Weight of the mean over the candidates, in [0, 1].

    Returns
    -------
    (n,) float32

    Examples
    --------
    >>> best(torch.tensor([[1.0, 3.0]]), mean_fraction=0.5).tolist()
    [1.5]
    """
    return (1 - mean_fraction) * losses.amin(1) + mean_fraction * losses.mean(1)


def _amplitudes(objects: Tensor, measured: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """Amplitudes, calculated (n, candidates, z, y, x) and measured (n, 1, z, y, x), 0 where nothing was measured."""
    if objects.ndim != 5 or measured.shape != (objects.shape[0], *objects.shape[2:]):
        found = f"{tuple(objects.shape)} with amplitudes {tuple(measured.shape)}"
        raise InputError("objects", found, "(n, candidates, z, y, x) with amplitudes (n, z, y, x)")
    calculated, measured = amplitude_of(objects), measured[:, None]
    if mask is None:
        return calculated, measured
    valid = mask[:, None] if mask.ndim == 4 else mask
    return calculated * valid, measured * valid
