"""Predictions that are likely to be wrong are withheld."""

import numpy as np
import pytest

from cathodeflow.sem.ood import FeatureStatistics
from cathodeflow.sem.rejection import as_unknown, fit_rejection, relative_scores, withheld_curve


def images(rng, count, *, confidence, score):
    """Confidence of many images, which is calibrated, and OOD score around a value."""
    sure = 1 / (1 + np.exp(-rng.normal(confidence, 1.0, count)))
    return sure, score * np.exp(rng.normal(0, 0.15, count)), rng.random(count) < sure


def test_wrong_predictions_are_withheld_and_few_right_ones_are_lost():
    rng = np.random.default_rng(0)
    known, moved = images(rng, 400, confidence=4, score=0.7), images(rng, 400, confidence=1.5, score=1.0)
    # Of an unknown class predictions are confident, and always wrong.
    unknown = (*images(rng, 200, confidence=3, score=1.6)[:2], np.zeros(200, bool))
    parts = [np.concatenate(columns) for columns in zip(known, moved, unknown, strict=True)]
    rule = fit_rejection(*parts, np.repeat([0, 1, 2], [400, 400, 200]), lost=0.05)
    assert rule.weights[1] > 0 > rule.weights[2]
    right = parts[2]
    accepted = rule.accepted(parts[0], parts[1])
    assert 0.045 < (~accepted[right]).mean() < 0.08
    fresh = (*images(rng, 300, confidence=3, score=1.6)[:2],)
    assert (~rule.accepted(*fresh)).mean() > 0.9
    assert rule.accepted(*images(rng, 300, confidence=4, score=0.7)[:2]).mean() > 0.9
    lost, withheld = withheld_curve(rule.probability(parts[0], parts[1]), right)
    assert np.interp(0.1, lost, withheld) > 0.5 and lost[-1] == withheld[-1] == 1


def test_without_wrong_predictions_confidence_and_distance_decide():
    rule = fit_rejection([0.9, 0.99, 0.95], [0.5, 0.6, 0.8], [True] * 3, [0, 0, 0])
    assert rule.accepted([0.99, 0.5, 0.99], [0.5, 0.5, 30.0]).tolist() == [True, False, False]


def test_a_class_becomes_unknown_in_probabilities_and_distances():
    statistics = FeatureStatistics(
        np.array([[0.0, 0], [4, 0], [0, 3]], np.float32), np.eye(2, dtype=np.float32), np.ones(1, np.float32)
    )
    p = np.array([[0.8, 0.15, 0.05], [0.1, 0.6, 0.3]])
    confidence, score = as_unknown(p, np.array([0, 1]), np.array([[0.0, 0], [4, 0]]), statistics)
    assert confidence == pytest.approx([0.75, 0.75]) and score == pytest.approx([3, 4])


def test_scores_are_relative_to_the_validation_images_also_if_these_do_not_differ():
    ten = np.linspace(0, 10, 101, dtype=np.float32)
    statistics = FeatureStatistics(np.zeros((2, 1), np.float32), np.eye(1, dtype=np.float32), ten)
    assert relative_scores([0, 9.9, 19.8], statistics) == pytest.approx([0, 1, 2])
    same = relative_scores([0.0, 1.0], statistics._replace(reference=np.zeros(3, np.float32)))
    assert same[0] == 0 and same[1] > 1e30
