"""Resolution: phase retrieval transfer function and Fourier shell correlation, by spatial frequency."""

import math
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cathodeflow.bcdi.ambiguities import align
from cathodeflow.bcdi.figures_of_merit import support_fraction
from cathodeflow.bcdi.operators import fourier
from cathodeflow.errors import InputError

Float64 = NDArray[np.float64]


class Curve(NamedTuple):
    """A figure of merit by shell of spatial frequency.

    frequency : (m,) float64
        [1/nm]
    value, threshold : (m,) float64
        The figure of merit, and the threshold below which the object is not resolved.
    """

    frequency: Float64
    value: Float64
    threshold: Float64

    @property
    def resolution_nm(self) -> float:
        """Full period [nm] at which the value first falls to the threshold, interpolated linearly between shells.

        The period of the last shell if it never does, as the data end there. Infinite if the value of the
        first shell is already below.
        """
        over = self.value - self.threshold
        if len(over) == 0 or not over[0] > 0:
            return math.inf
        below = np.flatnonzero(~(over > 0))
        if not len(below):
            return float(1 / self.frequency[-1])
        last = below[0] - 1
        share = over[last] / (over[last] - over[last + 1])
        return float(1 / (self.frequency[last] + share * (self.frequency[last + 1] - self.frequency[last])))


def prtf(objects: Tensor, measured: Tensor, *, voxel_nm: ArrayLike, valid: Tensor | None = None) -> Curve:
    """Phase retrieval transfer function [1]_: agreement of the phases of the starts, by spatial frequency.

    In each shell, the sum of |mean of F(o) over the starts| divided by the sum of the measured amplitude: the mean of
    their ratio weighted by the measured amplitude, as the ratio is undefined without counts. The threshold is 1/e.

    Parameters
    ----------
    objects : (n, z, y, x) complex64
        Objects of at least two starts. They are aligned to the first, which should be the best.
    measured : (z, y, x) float32
        Amplitude.
    voxel_nm : (3,)
        Size of a voxel of the objects along z, y, x [nm].
    valid : (z, y, x) bool, optional

    Raises
    ------
    InputError
        Fewer than two objects, or shapes that do not match.

    References
    ----------
    .. [1] H. N. Chapman et al., J. Opt. Soc. Am. A 23, 1179 (2006)
    """
    if objects.ndim != 4 or len(objects) < 2 or objects.shape[1:] != measured.shape:
        expected = f"(n, {', '.join(map(str, measured.shape))}) with n at least 2"
        raise InputError("objects", f"shape {tuple(objects.shape)}", expected)
    mean = fourier(align(objects, objects[0])[0].mean(0)).abs()
    weight = torch.ones_like(measured) if valid is None else valid.to(measured.dtype)
    number, frequency = _shells(measured.shape, voxel_nm, measured.device)
    phased, all_of_it = (_by_shell(weight * values, number, len(frequency)) for values in (mean, measured))
    value = np.divide(phased, all_of_it, out=np.zeros_like(phased), where=all_of_it > 0)
    return Curve(frequency, value, np.full(len(frequency), 1 / math.e))


def fsc(first: Tensor, second: Tensor, *, voxel_nm: ArrayLike, threshold: float) -> Curve:
    """Fourier shell correlation of two objects, with the half-bit threshold [1]_.

    Between two scans of a particle it measures the resolution; between two starts on one scan it only measures how
    reproducible the phasing is, which overestimates the resolution.

    Parameters
    ----------
    first, second : (z, y, x) complex64
        The second is aligned to the first.
    voxel_nm : (3,)
        Size of a voxel along z, y, x [nm].
    threshold : float
        Isosurface level of the support of the first object, as a fraction of the maximum amplitude. If the object fills
        a fraction p of the volume, N p^(2/3) of N voxels in a shell are independent: speckles are p^(-1/3) voxels wide,
        along the two directions within the shell.

    Raises
    ------
    InputError
        Shapes do not match.

    References
    ----------
    .. [1] M. van Heel, M. Schatz, J. Struct. Biol. 151, 250 (2005), equation 17
    """
    aligned, _ = align(second[None], first)
    wave, other = fourier(first), fourier(aligned[0])
    number, frequency = _shells(first.shape, voxel_nm, first.device)
    common, power_one, power_two, voxels = (
        _by_shell(each, number, len(frequency))
        for each in ((wave * other.conj()).real, wave.abs() ** 2, other.abs() ** 2, torch.ones_like(wave.real))
    )
    norm = np.sqrt(power_one * power_two)
    value = np.divide(common, norm, out=np.zeros_like(common), where=norm > 0)
    filled = float(support_fraction(first, threshold=threshold))
    return Curve(frequency, value, half_bit(voxels * filled ** (2 / 3)))


def half_bit(independent: ArrayLike) -> Float64:
    """Return the half-bit threshold of shells by their number of independent voxels.

    Examples
    --------
    >>> half_bit([1e12, 100.0]).round(4)  # without fluctuations, and for a shell of few voxels
    array([0.1716, 0.3067])
    """
    root = np.sqrt(np.maximum(np.asarray(independent, np.float64), 1e-12))
    return (0.2071 + 1.9102 / root) / (1.2071 + 0.9102 / root)


def _shells(shape: tuple[int, ...], voxel_nm: ArrayLike, device: torch.device) -> tuple[Tensor, Float64]:
    """Return the index of the shell of each voxel, and the frequency of each shell [1/nm].

    Shells are as thick as the largest frequency step of the three axes. Zero frequency and voxels beyond the nearest
    edge are in no shell; their index is -1.
    """
    voxel = np.asarray(voxel_nm, np.float64)
    if voxel.shape != (3,) or not (voxel > 0).all():
        raise InputError("voxel_nm", str(voxel_nm), "three sizes above 0")
    pairs = zip(shape, voxel.tolist(), strict=True)
    axes = [(torch.arange(n, device=device) - n // 2) / (n * size) for n, size in pairs]
    radius = (axes[0][:, None, None] ** 2 + axes[1][:, None] ** 2 + axes[2] ** 2).sqrt()
    step = float((1 / (np.asarray(shape) * voxel)).max())
    count = int(float((0.5 / voxel).min()) / step + 1e-6)
    number = (radius / step).round().long() - 1
    return torch.where(number < count, number, -1), step * np.arange(1.0, count + 1)


def _by_shell(values: Tensor, number: Tensor, count: int) -> Float64:
    inside = number >= 0
    return torch.bincount(number[inside], values[inside].double(), minlength=count).cpu().numpy()
