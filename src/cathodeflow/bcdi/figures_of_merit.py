"""Figures of merit of objects against the measurement, and how often phasing succeeds.

Amplitudes have zero frequency at index n // 2 and may carry leading axes for several objects; `valid` marks the
pixels that are used: all measured ones, or the free ones that were excluded from phasing.
"""

import pandas as pd
import torch
from torch import Tensor

from cathodeflow.bcdi.network_options import Evaluate
from cathodeflow.bcdi.operators import VOLUME
from cathodeflow.errors import InputError
from cathodeflow.statistics import wilson

# Minimum calculated intensity in a likelihood [counts]: about the lowest background of a detector.
_LEAST_COUNTS = 1e-3


def chi_square(calculated: Tensor, measured: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Mean of (I_calculated - I_measured)^2 / variance, with the variance of the counts, at least 1.

    Parameters
    ----------
    calculated : (..., z, y, x) float32
        Amplitude.
    measured : (z, y, x) float32
        Amplitude, whose square is in photons.
    valid : (z, y, x) bool, optional

    Returns
    -------
    (...) float32
        About 1 for a model that agrees within the counting noise.

    Examples
    --------
    >>> chi_square(torch.tensor([[[3.0, 2.0]]]), torch.tensor([[[2.0, 2.0]]])).item()
    3.125
    """
    counts, model, weight = _counts(calculated, measured, valid)
    return (weight * (model - counts) ** 2 / counts.clamp_min(1)).sum(VOLUME).div(weight.sum()).float()


def r_factor(calculated: Tensor, measured: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Sum of |A_calculated - A_measured| over the sum of A_measured; parameters as in `chi_square`.

    Examples
    --------
    >>> r_factor(torch.tensor([[[3.0, 2.0]]]), torch.tensor([[[2.0, 2.0]]])).item()
    0.25
    """
    _, _, weight = _counts(calculated, measured, valid)
    difference = (calculated.double() - measured.double()).abs()
    return ((weight * difference).sum(VOLUME) / (weight * measured).sum()).float()


def log_likelihood(calculated: Tensor, measured: Tensor, *, valid: Tensor | None = None) -> Tensor:
    """Poisson log-likelihood of the measured counts per pixel: the mean of N ln I - I - ln N!; higher is better.

    Calculated intensities are at least 0.001 counts, so that one dark pixel does not dominate. Further
    parameters as in `chi_square`; with `valid` the free pixels this is the free log-likelihood.

    Returns
    -------
    (...) float32
        [nat]

    Examples
    --------
    >>> round(log_likelihood(torch.tensor([[[2.0]]]), torch.tensor([[[1.0]]])).item(), 4)  # ln(4) - 4
    -2.6137
    """
    counts, model, weight = _counts(calculated, measured, valid)
    model = model.clamp_min(_LEAST_COUNTS)
    each = counts * model.log() - model - torch.lgamma(counts + 1)
    return ((weight * each).sum(VOLUME) / weight.sum()).float()


def support_fraction(objects: Tensor, *, threshold: float) -> Tensor:
    """Return the fraction (...) float32 of voxels above `threshold` times the maximum amplitude of their object.

    A low residual with an oversized support is not a success, so report both.

    Examples
    --------
    >>> support_fraction(torch.tensor([[[1.0, 0.05, 0.5j, 0.0]]]), threshold=0.1).item()
    0.5
    """
    return support_of(objects, threshold=threshold).float().mean(VOLUME)


def support_of(objects: Tensor, *, threshold: float) -> Tensor:
    """Return the mask (..., z, y, x) bool of amplitudes above `threshold` times the maximum of their object."""
    amplitude = objects.abs()
    return amplitude > threshold * amplitude.amax(VOLUME, keepdim=True)


def success_rates(trials: pd.DataFrame, options: Evaluate) -> pd.DataFrame:
    """Compute success rates of phasing with Wilson intervals.

    Parameters
    ----------
    trials : DataFrame
        A row for each crystal: `start`, `regime` (of strain), `iterations` and `correlation` with the truth.
    options : Evaluate
        `success`, the correlation above which a trial is a success, and `confidence`.

    Returns
    -------
    DataFrame
        start, regime, iterations, successes, count, share, low, high; in the order of the trials.
    """
    rows = []
    for key, group in trials.groupby(["start", "regime", "iterations"], sort=False):
        right, count = int((group["correlation"] > options.success).sum()), len(group)
        low, high = wilson(right, count, confidence=options.confidence)
        rows.append((*key, right, count, right / count, low, high))
    names = ["start", "regime", "iterations", "successes", "count", "share", "low", "high"]
    return pd.DataFrame(rows, columns=names)


def _counts(calculated: Tensor, measured: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Measured counts, calculated intensity, and weights (1 where they are compared), in double precision."""
    if calculated.shape[-3:] != measured.shape:
        raise InputError("calculated", f"shape {tuple(calculated.shape)}", f"(..., {str(tuple(measured.shape))[1:]}")
    if valid is not None and (valid.shape != measured.shape or not valid.any()):
        found = "no pixel" if valid.shape == measured.shape else f"shape {tuple(valid.shape)}"
        raise InputError("valid", found, f"some of {tuple(measured.shape)} pixels")
    weight = torch.ones_like(measured) if valid is None else valid
    return measured.double() ** 2, calculated.double() ** 2, weight.double()
