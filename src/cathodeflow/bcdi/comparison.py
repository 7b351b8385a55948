"""Comparison of objects with the truth of a simulated scan, on the voxels of the phased volume."""

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import fft
from torch import Tensor

from cathodeflow.bcdi.ambiguities import align, centred
from cathodeflow.bcdi.figures_of_merit import support_of
from cathodeflow.bcdi.geometry import Geometry, ScanVectors, q_vector, real_basis, reciprocal_basis
from cathodeflow.bcdi.operators import VOLUME
from cathodeflow.bcdi.sampling import Triple, window_of
from cathodeflow.bcdi.strain_fields import strain


class Agreement(NamedTuple):
    """Agreement of objects with the truth.

    correlation : (n,) float32
        |<truth, object>| / (|truth| |object|).
    phase_error : (n,) float32
        Root mean square in the common support [rad]; NaN where there is none.
    aligned : (n, z, y, x) complex64
        Objects aligned to the truth.
    """

    correlation: Tensor
    phase_error: Tensor
    aligned: Tensor


def against_truth(objects: Tensor, truth: Tensor, *, threshold: float) -> Agreement:
    """Compare objects with the truth after resolving shift, global phase and twin.

    Parameters
    ----------
    objects : (n, z, y, x) complex64
    truth : (z, y, x) complex64
    threshold : float
        Isosurface level of the two supports, as a fraction of the maximum amplitude; the phase error is computed in
        their common part, after subtracting its mean there.
    """
    aligned, correlation = align(objects, truth)
    common = support_of(aligned, threshold=threshold) & support_of(truth, threshold=threshold)
    turned = torch.polar(common.to(truth.real.dtype), (aligned * truth.conj()).angle())
    mean = turned.sum(VOLUME, keepdim=True)
    squares = common * (turned * mean.conj()).angle() ** 2
    return Agreement(correlation, (squares.sum(VOLUME) / common.sum(VOLUME)).sqrt(), aligned)


def on_voxels(truth: NDArray[np.complexfloating[Any]], shape: Triple, binning: Triple) -> NDArray[np.complex64]:
    """Transfer an object from the voxels of the raw frames to those of a cropped and binned volume.

    Cropping the peak makes the voxels larger; binning makes the field of view around the object smaller.

    Parameters
    ----------
    truth : (rocking, row, col) complex
        Its centred Fourier transform has the sampling of the frames.
    shape : (int, int, int)
        Shape of the volume.
    binning : (int, int, int)
        Binning of frames, rows and columns.

    Examples
    --------
    >>> flat = np.zeros((8, 8, 8), complex)
    >>> flat[3:5, 3:5, 3:5] = 1
    >>> bool(np.abs(on_voxels(flat, (4, 8, 8), (2, 1, 1)) - flat[2:6]).max() < 1e-6)
    True
    """
    spectrum = fft.fftshift(fft.fftn(fft.ifftshift(truth), norm="ortho"))
    lengths = [side * binned for side, binned in zip(shape, binning, strict=True)]
    starts = [whole // 2 - length // 2 for whole, length in zip(truth.shape, lengths, strict=True)]
    volume = fft.fftshift(fft.ifftn(fft.ifftshift(window_of(spectrum, starts, lengths)), norm="ortho"))
    starts = [length // 2 - side // 2 for side, length in zip(shape, lengths, strict=True)]
    return window_of(volume, starts, shape).astype(np.complex64)


def errors_against_truth(
    starts: Tensor,
    truth: NDArray[np.complexfloating[Any]],
    *,
    binning: Triple,
    geometry: Geometry | ScanVectors | None,
    threshold: float,
) -> dict[str, Tensor]:
    """Compare every start with the true object of a simulated scan.

    Parameters
    ----------
    starts : (start, z, y, x) complex64
    truth : (rocking, row, col) complex
        Object on the voxels of the raw frames.
    binning : (int, int, int)
        Binning of frames, rows and columns.
    geometry : Geometry or ScanVectors, optional
        Needed for the errors of the strain.
    threshold : float
        Isosurface level of the compared supports, as a fraction of the maximum amplitude.

    Returns
    -------
    dict of (start,) Tensor
        `true_correlation`, `phase_error` [rad], and with a geometry `strain_error`, the root mean square difference,
        NaN where no voxel has both strains, and `true_strain_deviation`, the standard deviation of the true strain.
    """
    shape = (starts.shape[1], starts.shape[2], starts.shape[3])
    true = centred(torch.from_numpy(on_voxels(truth, shape, binning)))
    # Without phase ramps: an off-centre peak does not mean strain.
    agreement = against_truth(centred(starts), true, threshold=threshold)
    columns = {"true_correlation": agreement.correlation, "phase_error": agreement.phase_error}
    if geometry is None:
        return columns
    basis, q = real_basis(reciprocal_basis(geometry, binning=binning), shape), q_vector(geometry)

    def strains(volume: Tensor) -> NDArray[np.float32]:
        return strain(volume.numpy(), support_of(volume, threshold=threshold).numpy(), basis, q, erosion=1).values

    expected = strains(true)
    differences = [strains(volume) - expected for volume in agreement.aligned]
    errors = [float(np.sqrt(np.nanmean(d**2))) if np.isfinite(d).any() else np.nan for d in differences]
    columns["strain_error"] = torch.tensor(errors)
    columns["true_strain_deviation"] = torch.full((len(errors),), float(np.nanstd(expected)))
    return columns
