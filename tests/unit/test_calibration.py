"""Calibrated standard errors of the network's positions."""

import numpy as np
import pytest
import torch

from cathodeflow.bragg.calibration import TERMS, calibrate, calibrated, fit_errors, stored_coefficients
from cathodeflow.bragg.positions import Located
from cathodeflow.bragg.training_patches import network_batch
from cathodeflow.errors import InputError
from cathodeflow.io.patch_table import TrainingPatches

NOISE = 0.02


def peaks(count=300, error=0.05):
    """Peaks without counting noise, whose labels are the truth but claim an error."""
    random = np.random.default_rng(0)
    row, col = 6 + random.uniform(-0.5, 0.5, (2, count))
    r, c = np.mgrid[:13, :13]
    height = random.uniform(100, 2000, count)[:, None, None]
    shape = np.exp(-((r - row[:, None, None]) ** 2 + (c - col[:, None, None]) ** 2) / 2)
    patches = (np.where(shape > 0.01, shape, 0) * height).astype(np.float32)
    number = np.arange(count)
    return TrainingPatches(
        patches, row.astype("f4"), col.astype("f4"), number, number, np.full((count, 2), error, np.float32)
    )


def centre_of_mass(patches, counts):
    """An estimate that repeats the labels of these peaks, and that neighbours pull."""
    weight, axis, noise = patches.sum((1, 2)), np.arange(11), np.full(len(patches), NOISE, np.float32)
    return Located(patches.sum(2) @ axis / weight, patches.sum(1) @ axis / weight, noise, noise)


def run(table, network=centre_of_mass):
    rows, random = np.arange(len(table.row)), torch.Generator().manual_seed(0)
    return calibrate(network, table, rows, patch_size=11, gain=1.0, random=random)


def errors_of(coefficients, table, neighbour=None, offset=None):
    """Stated and true errors (2, n) of the table's peaks, those with another maximum alone if neighbours are added."""
    still, counts = np.zeros(len(table.row), int), np.empty((len(table.row), 2), np.float32)
    patches, labels = network_batch(
        table, np.arange(len(still)), still, still, still,
        patch_size=11, neighbour=neighbour, offset=offset, counts=counts,
    )  # fmt: skip
    found = centre_of_mass(patches[:, 0], counts)
    noise = np.stack([found.row_std, found.col_std])
    away = np.stack([found.row, found.col]) - 11 * labels[:, ::-1].T
    return calibrated(coefficients, patches[:, 0], counts, noise, gain=1.0), away


@pytest.mark.parametrize("error", [0.05, 0.2])
def test_the_scatter_of_a_network_that_repeats_the_fit_is_that_of_the_fit(error):
    """A network that agrees with the labels to 0.001 px is as wrong as they are."""
    stated, away = errors_of(run(peaks(error=error)), peaks())
    assert np.median(np.abs(away)) < 0.01
    assert np.median(stated) == pytest.approx(error, rel=0.25)


def test_errors_beside_neighbours_are_larger_than_those_of_isolated_peaks():
    coefficients, table = run(peaks()), peaks()
    count, random = len(table.row), np.random.default_rng(1)
    alone, _ = errors_of(coefficients, table)
    beside, away = errors_of(coefficients, table, random.permutation(count), np.tile([[3, 3]], (count, 1)))
    wrong = np.abs(away).max(axis=0) > 0.3
    assert wrong.sum() > 100
    assert np.median(beside[:, wrong]) > 4 * np.median(alone)


def test_68_percent_of_the_errors_lie_within_one_sigma_whatever_the_terms():
    random, count = np.random.default_rng(0), 20_000
    noise, second = np.log(random.uniform(0.01, 0.3, count)), random.choice([0.0, 0.5], count)
    values = np.stack([np.ones(count), noise, random.normal(size=count), second, second**2, np.ones(count) / 5], 1)
    sigma = 0.5 * np.exp(0.7 * noise + 2 * second)
    errors = sigma * random.standard_normal(count)
    errors[:200] *= 20
    found = fit_errors(np.stack([values, values]), np.stack([errors, -errors]))
    ratio = np.abs(errors) / np.exp(values @ found)
    for chosen in (second == 0, second > 0, noise < -3, noise > -1.5):
        assert 0.65 < (ratio[chosen] < 1).mean() < 0.72


def test_labels_without_errors_and_too_few_of_them_are_not_calibrated_on():
    assert run(peaks(error=np.nan)) is None
    assert run(peaks(count=49)) is None and len(run(peaks(count=50))) == len(TERMS)


@pytest.mark.parametrize("stored", [[1.0, 2.0], "abc", [1, 2, 3, 4, 5, "6"], [0.0, 0.0, 0.0, 0.0, 0.0, float("nan")]])
def test_a_damaged_calibration_is_refused(stored):
    with pytest.raises(InputError, match=r"model\.pt: found calibration of the errors .*, expected 6 numbers"):
        stored_coefficients({"errors": stored}, "model.pt")
    assert stored_coefficients({}, "published.pth") is None
