import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from cathodeflow.errors import InputError
from cathodeflow.sem.calibration import (
    apply_mean_temperature,
    apply_temperature,
    expected_calibration_error,
    fit_mean_temperature,
    fit_temperature,
    reliability,
)


def drawn(temperature, n=20000, k=5, seed=0):
    """Logits, and labels drawn from their softmax at `temperature`."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (n, k))
    cumulative = softmax(logits / temperature, axis=1).cumsum(axis=1)
    return logits, np.minimum((rng.random((n, 1)) > cumulative).sum(axis=1), k - 1)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.5])
def test_the_temperature_of_which_the_labels_were_drawn_is_found_and_calibrates(temperature):
    logits, labels = drawn(temperature)
    found = fit_temperature(logits, labels)
    assert found == pytest.approx(temperature, rel=0.03)
    after = expected_calibration_error(apply_temperature(logits, found), labels, bins=15)
    before = expected_calibration_error(softmax(logits, axis=1), labels, bins=15)
    assert after < 0.012 and (temperature == 1.0 or before > 0.05)


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 40), st.integers(2, 6), st.integers(0, 10**6))
def test_it_is_the_minimum_that_a_search_finds(n, k, seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(0, 2, (n, k)), rng.integers(0, k, n)
    logits[np.arange(n), labels] += 1
    others = logits.copy()
    others[np.arange(n), labels] = -np.inf
    share = 1 / (n + 2)

    def loss(log_temperature):
        value = np.log(softmax(logits / np.exp(log_temperature), axis=1))
        return -np.mean((1 - share) * value[np.arange(n), labels] + share * value[np.arange(n), others.argmax(1)])

    search = minimize_scalar(loss, bounds=np.log([0.01, 100]), method="bounded", options={"xatol": 1e-9})
    assert loss(np.log(fit_temperature(logits, labels))) <= search.fun + 1e-9


def test_where_every_answer_is_right_the_confidence_is_what_that_many_answers_can_show():
    for n in (10, 100):
        logits = np.tile([5.0, 0.0, -200.0], (n, 1))
        probabilities = apply_temperature(logits, fit_temperature(logits, np.zeros(n, int)))
        assert probabilities[0, 0] == pytest.approx((n + 1) / (n + 2), abs=1e-6)


def test_a_network_that_knows_nothing_gets_no_confidence_and_equal_logits_none_either():
    logits = np.tile([3.0, 0.0], (50, 1))
    assert fit_temperature(logits, np.ones(50, int)) == 100
    assert fit_temperature(np.zeros((4, 3)), [0, 1, 2, 0]) == 1


def test_means_of_crops_are_too_cautious_and_the_second_temperature_mends_it():
    rng = np.random.default_rng(0)
    n, k, crops = 1500, 4, 12
    labels = rng.integers(0, k, n)
    logits = rng.normal(0, 2, (n, crops, k)) + 1.5 * rng.normal(0, 1, (n, 1, k))
    logits[np.arange(n), :, labels] += 3.0
    per_crop = fit_temperature(logits.reshape(-1, k), np.repeat(labels, crops))
    mean = apply_temperature(logits, per_crop).mean(axis=1)
    temperature = fit_mean_temperature(mean, labels)
    assert temperature < 0.8
    before = expected_calibration_error(mean, labels, bins=15)
    after = expected_calibration_error(apply_mean_temperature(mean, temperature), labels, bins=15)
    assert before > 0.08 and after < 0.04
    assert (apply_mean_temperature(mean, temperature).argmax(1) == mean.argmax(1)).all()


def test_probabilities_of_zero_do_no_harm():
    probabilities = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    temperature = fit_mean_temperature(probabilities, [0, 0, 1, 1])
    found = apply_mean_temperature(probabilities, temperature)
    assert np.isfinite(temperature) and np.isfinite(found).all() and 0.6 < found[0, 0] < 0.85


def test_bins_by_hand():
    probabilities = [[0.55, 0.45], [0.6, 0.4], [0.95, 0.05], [1.0, 0.0], [0.08, 0.92]]
    table = reliability(probabilities, [0, 1, 0, 0, 0], bins=10)
    # An edge belongs to the bin below it.
    assert table["count"].tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 3]
    assert table["accuracy"][5] == 0.5 and table["confidence"][5] == pytest.approx(0.575)
    assert table["accuracy"][9] == pytest.approx(2 / 3) and table["confidence"][9] == pytest.approx(2.87 / 3)
    assert table["accuracy"].isna().sum() == 8
    error = expected_calibration_error(probabilities, [0, 1, 0, 0, 0], bins=10)
    assert error == pytest.approx((2 * 0.075 + 3 * (2.87 - 2) / 3) / 5)


@pytest.mark.parametrize(
    ("values", "labels"),
    [(np.zeros((0, 3)), []), (np.zeros((2, 3)), [0]), ([[0.0, 1.0]], [2]), ([[np.nan, 1.0]], [0]), ([[1.0]], [0])],
)
def test_what_cannot_be_fitted_is_refused(values, labels):
    with pytest.raises(InputError, match="calibration: found"):
        fit_temperature(values, np.asarray(labels, int))
