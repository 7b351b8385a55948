"""Nickel fraction: ordered regression, which knows that compositions lie between each other."""

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit

from cathodeflow.errors import InputError
from cathodeflow.sem.nickel import fit_nickel, left_out_errors, nickel_fraction, ordered_regression

FRACTIONS = {"333": 1 / 3, "523": 0.5, "622": 0.6, "811": 0.8}


def images(each=30, features=40, noise=0.3, seed=0):
    """Features of which three grow with the nickel fraction, and the rest are noise; names with a state."""
    rng = np.random.default_rng(seed)
    labels = [f"{name}{state}" for name in FRACTIONS for state in ("", "_cycled") for _ in range(each // 2)]
    truth = np.array([nickel_fraction(label) for label in labels])
    values = rng.normal(size=(len(labels), features))
    values[:, :3] = 4 * truth[:, None] + noise * values[:, :3]
    return 5 + values, labels, truth


def test_names_say_the_nickel_fraction_or_nothing():
    assert nickel_fraction("NCM523_cycled") == 0.5 and nickel_fraction("333_formation") == pytest.approx(1 / 3)
    assert all(nickel_fraction(name) is None for name in ("graphite", "5234", "033", "622b", "LFP_cycled"))


def test_a_composition_that_was_left_out_lies_between_its_neighbours():
    features, labels, truth = images()
    errors = left_out_errors(features, truth, 1e-2)
    for name in ("523", "622"):
        mine = np.array([label.startswith(name) for label in labels])
        regression = ordered_regression(features[~mine], truth[~mine], 1e-2)
        predicted = regression.predict(features[mine])
        assert predicted.mean() == pytest.approx(FRACTIONS[name], abs=0.06)
        assert np.abs(predicted - FRACTIONS[name]) == pytest.approx(errors[mine])


def test_new_images_of_known_compositions_are_predicted_within_the_interval():
    features, labels, _ = images()
    regression = fit_nickel(features, labels)
    fresh, _, truth = images(seed=1)
    predicted = regression.predict(fresh)
    # The middle of all compositions would be wrong by 0.14.
    assert np.abs(predicted - truth).mean() < 0.08
    assert (predicted >= 1 / 3).all() and (predicted <= 0.8).all()
    assert (np.abs(predicted - truth) <= regression.half_width(0.9)).mean() > 0.9
    # Nine tenths of the errors of compositions left out lie within; it is one of them.
    inside = (regression.errors <= regression.half_width(0.9)).mean()
    assert 0.9 <= inside < 0.92 and regression.half_width(0.5) < regression.half_width(0.9)


def test_the_fit_is_that_of_the_loss_in_all_features():
    """By a general minimizer, without the change of coordinates."""
    features, _, truth = images(each=6, features=8)
    found = ordered_regression(features, truth, 1e-2)
    z = (features - features.mean(0)) / features.std(0) / np.sqrt(8)
    values, number = np.unique(truth, return_inverse=True)
    above = number[:, None] > np.arange(3)

    def loss(p):
        q = expit((z @ p[:8])[:, None] - p[8:])
        return -np.log(np.where(above, q, 1 - q)).sum(1).mean() + 0.005 * p[:8] @ p[:8]

    best = minimize(loss, np.zeros(11), method="BFGS")
    mine = np.concatenate([found.weights, found.thresholds])
    assert mine == pytest.approx(best.x, abs=2e-2) and loss(mine) <= best.fun + 1e-5
    assert found.values == pytest.approx(values)


def test_without_an_order_there_is_no_regression():
    features, labels, truth = images(each=4)
    assert fit_nickel(features, ["graphite", *labels[1:]]) is None
    two = [number for number, label in enumerate(labels) if label[:3] in ("333", "811")]
    assert fit_nickel(features[two], [labels[number] for number in two]) is None
    with pytest.raises(InputError, match="not finite"):
        ordered_regression(np.where(features > 6, np.nan, features), truth, 1e-2)
