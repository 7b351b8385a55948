"""Standard errors of the network's positions, calibrated on its validation patches.

The counting noise that `uncertainty` propagates leaves out the prediction error of the network, which neighbours of a
peak enlarge. On validation patches with known errors e, log sigma is fitted as a linear function of what a patch itself
shows. A fit that is efficient does not correlate with the difference between an unbiased estimate and itself, so the
network's error is that difference plus the error of the fit, drawn from its standard error.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from scipy.optimize import minimize

from cathodeflow.bragg.neighbours import draw_neighbours
from cathodeflow.bragg.training_patches import network_batch
from cathodeflow.errors import InputError
from cathodeflow.io.patch_table import TrainingPatches

Float32 = NDArray[np.float32]
Floats = NDArray[np.float64]
#: Terms of log sigma; `second` is the height of the highest other maximum of the patch over that of the peak.
TERMS = ("constant", "log_counting_error", "log_photons", "second", "second_squared", "per_pixel")
#: Validation peaks with fitted errors that a calibration needs, and patches that it draws from them.
FEWEST, DRAWN = 50, 4096
#: Fraction of the drawn patches with a neighbour.
CROWDED = 0.4
# Degrees of freedom of Student's t, whose tails are those of the errors beside unseen neighbours.
_TAILS = 4.0
_WITHIN_ONE = 0.6827


def terms(patches: Float32, counts: Float32, counting: Float32, *, gain: float) -> Floats:
    """Compute the terms of log sigma.

    Parameters
    ----------
    patches : (n, patch_size, patch_size) float32
        Prepared patches.
    counts : (n, 2) float32
        Intensities that 0 and 1 correspond to in each patch [counts].
    counting : (2, n) float32
        Standard errors due to counting noise, of row and column [px].
    gain : float
        Detector counts per photon.

    Returns
    -------
    (2, n, 6) float64
        NaN without counting errors.
    """
    shape = np.empty((len(patches), 2))
    _second_maximum(patches, shape)
    second, pixels = shape.T
    # Errors of a few 1e-3 px come from patches of a few pixels, where the derivatives nearly vanish.
    noise = np.log(np.clip(counting.astype(np.float64), 3e-3, 2.0))
    photons = np.log(np.maximum(counts[:, 1], 1e-3 * gain) / gain / 100)
    same = np.ones(len(patches)), photons, second, second**2, 4 / np.maximum(pixels, 1)
    return np.stack([np.stack([same[0], axis, *same[1:]], axis=1) for axis in noise])


def fit_errors(values: Floats, errors: Floats) -> list[float]:
    """Fit the coefficients of log sigma, so that 68.27 % of the errors lie within one sigma.

    Maximum likelihood of Student's t with a weak ridge, then a common factor.

    Parameters
    ----------
    values : (..., 6) float64
        `terms`.
    errors : (...) float64
        Errors of the position [px].

    Returns
    -------
    list of 6 float
        In the order of `TERMS`.
    """
    x, squared = values.reshape(-1, len(TERMS)), errors.ravel() ** 2

    def loss(at: Floats) -> tuple[float, Floats]:
        log_sigma = x @ at
        ratio = squared * np.exp(-2 * log_sigma) / _TAILS
        value = log_sigma + (_TAILS + 1) / 2 * np.log1p(ratio)
        slope = 1 - (_TAILS + 1) * ratio / (1 + ratio)
        ridge = 2e-3 * np.r_[0.0, at[1:]]
        return float(value.mean() + ridge @ at / 2), (slope[:, None] * x).mean(axis=0) + ridge

    start = np.zeros(len(TERMS))
    start[0] = 0.5 * math.log(float(np.median(squared)) + 1e-12)
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x
    found[0] += math.log(np.quantile(np.sqrt(squared) * np.exp(-(x @ found)), _WITHIN_ONE))
    return [float(value) for value in found]


def calibrated(
    coefficients: Sequence[float], patches: Float32, counts: Float32, counting: Float32, *, gain: float
) -> Float32:
    """Return the standard errors (2, n) [px] of row and column that the coefficients give; arguments as for `terms`."""
    values = terms(patches, counts, counting, gain=gain)
    return np.exp(np.minimum(values @ np.asarray(coefficients), 5.0)).astype(np.float32)


def calibrate(
    locate: Callable[[Float32, Float32], Any],
    table: TrainingPatches,
    rows: NDArray[np.integer],
    *,
    patch_size: int,
    gain: float,
    random: torch.Generator,
) -> list[float] | None:
    """Calibrate the errors of a network on validation patches, some of them with a second peak added.

    Parameters
    ----------
    locate : function
        Patches and counts -> `positions.Located` with counting errors.
    table : TrainingPatches
        With the standard errors of the fits.
    rows : (n,) int
        Validation patches.
    patch_size : int
    gain : float
        Detector counts per photon.
    random : torch.Generator

    Returns
    -------
    list of 6 float, or None
        `fit_errors`; None with fewer than 50 peaks whose fit has standard errors.
    """
    rows = rows[np.isfinite(table.error[rows]).all(axis=1)]
    if len(rows) < FEWEST:
        return None
    rows = rows[np.linspace(0, len(rows), DRAWN, endpoint=False).astype(np.int64)]
    margin = (table.patches.shape[1] - patch_size) // 2
    reach = min(margin, 1)
    shifts = torch.randint(-reach, reach + 1, (2, DRAWN), generator=random).numpy()
    turns = torch.randint(8, (DRAWN,), generator=random).numpy()
    neighbour, offset = draw_neighbours(rows, patch_size, CROWDED, random)
    counts = np.empty((DRAWN, 2), np.float32)
    patches, labels = network_batch(
        table, rows, shifts[0], shifts[1], turns,
        patch_size=patch_size, neighbour=neighbour, offset=offset, counts=counts,
    )  # fmt: skip
    found = locate(patches[:, 0], counts)
    counting = np.stack([found.row_std, found.col_std])
    of_fit = np.where((turns & 1)[:, None] == 1, table.error[rows, ::-1], table.error[rows]).T
    true = labels[:, ::-1].T * patch_size
    errors = np.stack([found.row, found.col]) - true
    errors = errors + of_fit * torch.randn(errors.shape, generator=random, dtype=torch.float64).numpy()
    known = np.isfinite(counting).all(axis=0)
    return fit_errors(terms(patches[known, 0], counts[known], counting[:, known], gain=gain), errors[:, known])


def stored_coefficients(metadata: Any, where: str) -> list[float] | None:
    """Return the coefficients in the metadata of a model; None if it has none, as published weights.

    Raises
    ------
    InputError
        They are not six numbers.
    """
    stored = metadata.get("errors")
    if stored is None:
        return None
    numbers = isinstance(stored, list) and all(isinstance(value, int | float) for value in stored)
    if not numbers or len(stored) != len(TERMS) or not np.isfinite(stored).all():
        raise InputError(where, f"calibration of the errors {stored}", f"{len(TERMS)} numbers")
    return [float(value) for value in stored]


@njit(cache=True, nogil=True)
def _second_maximum(patches, out):  # type: ignore[no-untyped-def]
    """Write the height of the highest local maximum at least 2 px from the highest pixel, and the number of pixels."""
    size = patches.shape[1]
    for n in range(patches.shape[0]):
        patch, top, pixels = patches[n], 0, 0
        for p in range(size * size):
            pixels += patch[p // size, p % size] > 0
            if patch[p // size, p % size] > patch[top // size, top % size]:
                top = p
        second = 0.0
        for r in range(size):
            for c in range(size):
                value = patch[r, c]
                if value <= second or (r - top // size) ** 2 + (c - top % size) ** 2 < 4:
                    continue
                highest = True
                for i in range(max(r - 1, 0), min(r + 2, size)):
                    for j in range(max(c - 1, 0), min(c + 2, size)):
                        highest = highest and patch[i, j] <= value
                if highest:
                    second = value
        out[n, 0], out[n, 1] = second, pixels
