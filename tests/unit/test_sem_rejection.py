"""Predictions that are likely to be wrong are withheld."""

import numpy as np
import pytest

from cathodeflow.sem.ood import FeatureStatistics
from cathodeflow.sem.rejection import (
    Rejection,
    fit_rejection,
    relative_scores,
    unknown_scores,
    withheld_curve,
    without_class,
)
from cathodeflow.sem.texture import COUNT, OCTAVES, RINGS, texture_statistics
from cathodeflow.sem.texture_classifier import fit_texture


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


def test_what_network_and_texture_agree_on_is_accepted():
    rng = np.random.default_rng(1)
    right = rng.random(600) < 0.6
    confidence = 1 / (1 + np.exp(-rng.normal(3 + 0.5 * right, 1.0)))
    agreement = 1 / (1 + np.exp(-rng.normal(np.where(right, 2, -2), 1.0)))
    score, kinds = np.full(600, 0.7), np.zeros(600, np.int64)
    rule = fit_rejection(confidence, score, right, kinds, agreement=agreement)
    assert rule.weights[3] > 0
    accepted = rule.accepted(confidence, score, agreement)
    assert (~accepted[~right]).mean() > 0.9 > 0.85 < accepted[right].mean()
    alone = fit_rejection(confidence, score, right, kinds)
    assert len(alone.weights) == 3 and (~alone.accepted(confidence, score)[~right]).mean() < 0.5


def test_rules_of_earlier_versions_know_no_texture():
    weights, single = np.array([0, 1, -1], np.float32), np.ones(1, np.float32)
    rule = Rejection(weights, 0.5 * single, 2 * single)
    assert rule.accepted([0.9, 0.3, 0.9], [1, 1, 3]).tolist() == [True, False, False]


def grains(rng, count, *, size, brightness=128, contrast=40):
    """Images of random grains of a size [px]."""
    noise = rng.normal(size=(count, 96, 96))
    frequency = np.hypot(np.fft.fftfreq(96)[:, None], np.fft.fftfreq(96))
    smooth = np.fft.ifft2(np.fft.fft2(noise) * np.exp(-((frequency * size) ** 2))).real
    return (brightness + contrast * smooth / smooth.std((1, 2), keepdims=True)).clip(0, 255).astype(np.uint8)


def test_the_texture_is_told_apart_whatever_brightness_and_contrast_are():
    rng = np.random.default_rng(2)
    fine, coarse = (grains(rng, 24, size=size) for size in (3, 8))
    labels = np.repeat([0, 1], 24)
    rule = fit_texture(texture_statistics(np.r_[fine, coarse]), labels, texture_statistics(np.r_[fine, coarse]), labels)
    dark = np.r_[grains(rng, 8, size=3, brightness=70, contrast=15), grains(rng, 8, size=8, brightness=70, contrast=15)]
    found = rule.of_crops(dark)
    assert (found.argmax(1) == np.repeat([0, 1], 8)).all() and found.sum(1) == pytest.approx(1)
    three = fit_texture(*2 * (texture_statistics(np.r_[fine, coarse, 255 - coarse]), np.repeat([0, 1, 2], 24)))
    assert three.of_crops(dark).shape == (16, 3)


def test_statistics_of_the_texture_are_what_they_say():
    rng = np.random.default_rng(3)
    cols = np.arange(96)
    # A grating of 12 periods: all of its power is in the ring of this frequency, 12 / 96.
    grating = np.broadcast_to(128 + 100 * np.sin(2 * np.pi * 12 * cols / 96), (1, 96, 96)).astype(np.uint8)
    ring = np.searchsorted(np.geomspace(2 / 96, 0.5, RINGS + 1), 12 / 96) - 1
    rows = texture_statistics(grating)[0]
    assert rows[:RINGS].argmax() == ring
    # Noise has no skewness and the kurtosis of a normal distribution, 3.
    noise = texture_statistics(grains(rng, 8, size=0))
    octaves = noise[:, -(3 * OCTAVES - 1) :].mean(0)
    assert octaves[:3] == pytest.approx([0] * 3, abs=0.1)
    assert octaves[OCTAVES : OCTAVES + 3] == pytest.approx([np.log(3)] * 3, abs=0.1)
    image = grains(rng, 1, size=6) // 2
    assert texture_statistics(2 * image + 1) == pytest.approx(texture_statistics(image), abs=1e-3)
    odd = [np.full((1, 40, 40), 7, np.uint8), np.zeros((0, 40, 40), np.uint8), grains(rng, 1, size=4)[:, :9, :9]]
    assert all(np.isfinite(found).all() and found.shape[1] == COUNT for found in map(texture_statistics, odd))


def test_a_class_becomes_unknown_in_probabilities_and_distances():
    statistics = FeatureStatistics(
        np.array([[0.0, 0], [4, 0], [0, 3]], np.float32), np.eye(2, dtype=np.float32), np.ones(1, np.float32)
    )
    p = np.array([[0.8, 0.15, 0.05], [0.1, 0.6, 0.3]])
    own = np.array([0, 1])
    assert without_class(p, own).max(1) == pytest.approx([0.75, 0.75])
    assert unknown_scores(np.array([[0.0, 0], [4, 0]]), own, statistics) == pytest.approx([3, 4])


def test_scores_are_relative_to_the_validation_images_also_if_these_do_not_differ():
    ten = np.linspace(0, 10, 101, dtype=np.float32)
    statistics = FeatureStatistics(np.zeros((2, 1), np.float32), np.eye(1, dtype=np.float32), ten)
    assert relative_scores([0, 9.9, 19.8], statistics) == pytest.approx([0, 1, 2])
    same = relative_scores([0.0, 1.0], statistics._replace(reference=np.zeros(3, np.float32)))
    assert same[0] == 0 and same[1] > 1e30
