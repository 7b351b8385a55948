import warnings

import numpy as np
import pytest
from scipy import stats

from cathodeflow.statistics import confidence_bins, resampled_limits, wilson


def test_wilson_interval_against_published_values():
    # Newcombe, Statistics in Medicine 17, 857 (1998), table I.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    assert np.isnan(wilson(0, 0)).all()


def test_bins_of_confidence_are_those_of_a_cumulative_histogram():
    values = np.random.default_rng(0).random(1000)
    found = np.bincount(confidence_bins(values, 15), minlength=15)
    expected, _ = np.histogram(values, 15, (0, 1))
    np.testing.assert_array_equal(found, expected)
    assert confidence_bins([-1e-9, 1 + 1e-9], 7).tolist() == [0, 6]
    # An edge belongs to the bin below it.
    assert confidence_bins([0, 0.25, 0.5, 0.75, 1], 4).tolist() == [0, 0, 1, 2, 3]


@pytest.mark.parametrize("samples", [1, 700, 4000])
def test_limits_are_those_of_students_mean_for_any_number_of_samples(samples):
    # A mean of n units drawn n - 1 at a time has the unbiased variance of the mean.
    values = np.random.default_rng(1).normal(3, 2, 40)
    limits = resampled_limits(
        lambda weights: (weights @ values / weights.sum(1))[:, None],
        np.zeros(40, np.int64),
        samples=samples,
        confidence=0.9,
        rng=np.random.default_rng(2),
    )
    assert limits.shape == (1, 2)
    if samples > 100:
        expected = values.mean() + np.array([-1, 1]) * stats.norm.ppf(0.95) * values.std(ddof=1) / np.sqrt(40)
        np.testing.assert_allclose(limits[0], expected, atol=0.08)


@pytest.mark.parametrize("n", [2, 3, 5])
def test_few_units_scatter_as_their_unbiased_variance_says(n):
    # Rao and Wu: a total of n units has the variance n s^2, with s^2 over n - 1, so that each weight has the variance 1.
    seen = []

    def figures(weights):
        seen.append(weights)
        return weights[:, :1]

    resampled_limits(figures, np.zeros(n, np.int64), samples=20_000, confidence=0.9, rng=np.random.default_rng(3))
    weights, values = np.concatenate(seen), np.arange(n) ** 2.0
    np.testing.assert_allclose(weights.sum(1), n)
    assert weights.var(axis=0) == pytest.approx(1, rel=0.05)
    assert (weights @ values / n).var() == pytest.approx(values.var(ddof=1) / n, rel=0.05)


def test_strata_keep_their_weight_and_single_units_stay():
    strata = np.array([0, 0, 0, 1, 1, 2])

    def figures(weights):
        np.testing.assert_allclose(weights[:, :3].sum(1), 3)
        np.testing.assert_allclose(weights[:, 3:5].sum(1), 2)
        return np.column_stack([weights[:, 5], weights[:, 3]])

    limits = resampled_limits(figures, strata, samples=500, confidence=0.95, rng=np.random.default_rng(0))
    np.testing.assert_allclose(limits, [[1, 1], [0, 2]])


def test_figures_that_some_or_all_samples_lack():
    def figures(weights):
        some = np.where(weights[:, 0] > 0, 5.0, np.nan)
        return np.column_stack([some, np.full(len(weights), np.nan)])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        limits = resampled_limits(
            figures, np.zeros(4, np.int64), samples=99, confidence=0.9, rng=np.random.default_rng(0)
        )
    np.testing.assert_array_equal(limits, [[5, 5], [np.nan, np.nan]])
