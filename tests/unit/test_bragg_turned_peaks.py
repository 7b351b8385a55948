"""Elliptical peaks whose axes are not those of the detector."""

import numpy as np
import pytest
from numpy.typing import NDArray

from cathodeflow.bragg.flags import flag_peaks, is_good
from cathodeflow.bragg.joint_fits import fit_jointly
from cathodeflow.bragg.peak_fits import PeakFits, fit_frame
from cathodeflow.bragg.peak_options import Fit

CELL = 25


def cells(count: int, *, apart: float = 0.0) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """A row of Gaussians of sigma 1.7 and 0.9 px at any angle; with `apart`, two round ones so far from each other."""
    rng = np.random.default_rng(0)
    r, c = np.mgrid[:CELL, : CELL * count]
    expected = np.full(r.shape, 2.0)
    at = CELL // 2 + np.stack([np.zeros(count), CELL * np.arange(count)], axis=1)
    true = at + rng.uniform(-0.4, 0.4, (count, 2))
    for (row, col), angle in zip(true, rng.uniform(0.3, 1.2, count), strict=True):
        for number in range(2 if apart else 1):
            y, x = r - row - number * apart * np.sin(angle), c - col - number * apart * np.cos(angle)
            along, across = y * np.sin(angle) + x * np.cos(angle), x * np.sin(angle) - y * np.cos(angle)
            sigma = (1.2, 1.2) if apart else (1.7, 0.9)
            height = 0.7 if number else 1.0
            expected += 800 * height * np.exp(-0.5 * ((along / sigma[0]) ** 2 + (across / sigma[1]) ** 2))
    return rng.poisson(expected).astype(np.float64), np.rint(true).astype(np.int64), true


def fitted(frame: NDArray[np.float64], at: NDArray[np.int64], options: Fit) -> tuple[PeakFits, NDArray[np.bool_]]:
    fits = fit_frame(frame, at[:, 0], at[:, 1], options)
    flags = flag_peaks(fits, at[:, 0], at[:, 1], options, mask=np.zeros(frame.shape, bool))
    return fits, is_good(fits, flags)


@pytest.mark.parametrize("model", ["pseudo_voigt", "gaussian"])
def test_a_turned_peak_is_one_peak(model: str) -> None:
    frame, at, true = cells(40)
    taken_for_two, good = fitted(frame, at, Fit(model=model))
    assert np.isfinite(taken_for_two.partner_row).mean() > 0.8 and good.mean() < 0.2
    fits, good = fitted(frame, at, Fit(model=model, rotation="auto"))
    assert good.mean() > 0.95 and np.median(fits.chi2) < 1.2
    found = np.stack([fits.row, fits.col], axis=1) - true
    z = found / np.stack([fits.row_err, fits.col_err], axis=1)
    assert np.median(np.hypot(*found.T)) < 0.05 and 0.8 < np.sqrt(np.mean(z[good] ** 2)) < 1.2


def test_two_peaks_apart_stay_two() -> None:
    frame, at, true = cells(30, apart=3.0)
    fits, good = fitted(frame, at, Fit(rotation="auto"))
    assert np.isfinite(fits.partner_row).mean() > 0.9 and good.mean() < 0.1
    assert np.median(np.hypot(fits.row - true[:, 0], fits.col - true[:, 1])) < 0.1


def test_the_skew_of_a_turned_ellipse_is_that_of_its_covariance() -> None:
    rows, cols = np.mgrid[:15, :15] - 7.0
    inverse = np.linalg.inv(np.array([[2.0, 0.9], [0.9, 1.2]]))
    q = inverse[0, 0] * rows**2 + 2 * inverse[0, 1] * rows * cols + inverse[1, 1] * cols**2
    window = 5.0 + 400 * np.exp(-0.5 * q)
    starts = np.array([[[7.0, 7.0, 300.0, 3.0, 3.0, 0.0, 0.0]]])
    joint = fit_jointly(window[None], np.zeros((1, 15, 15)), starts, np.array([4.0]), gaussian=True)
    widths = np.sqrt(8 * np.log(2) / np.diag(inverse))
    skew = inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1])
    np.testing.assert_allclose(joint.peaks[0, 0], [7, 7, 400, *widths, 0, skew], atol=1e-3)
