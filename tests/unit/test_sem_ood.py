import numpy as np
import pytest
from scipy.spatial.distance import mahalanobis

from cathodeflow.errors import InputError
from cathodeflow.sem.ood import feature_statistics, group_means, ood_score, with_reference


def known(count=4000, seed=0):
    """Two classes with one covariance, in which the second axis spreads 10 times as far as the first."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    features = random.normal(size=(count, 3)) * [1, 10, 2] + np.array([[0, 0, 0], [30, 0, 0]])[labels]
    return features, labels, np.arange(count) // 4


def test_distance_is_counted_in_deviations_to_the_nearest_class():
    features, labels, groups = known()
    statistics = feature_statistics(features, labels, groups)
    points = [[0, 0, 0], [30, 0, 0], [5, 0, 0], [25, 0, 0], [0, 50, 0], [0, 0, 10]]
    # Shrinkage takes some length from short axes; with as many samples that is little.
    assert ood_score(points, statistics) == pytest.approx([0, 0, 5, 5, 5, 5], abs=0.5)
    inside = features - np.stack([features[labels == label].mean(0) for label in (0, 1)])[labels]
    inverse = np.linalg.inv(inside.T @ inside / len(inside))
    expected = min(mahalanobis([12.0, 7.0, -4.0], mean, inverse) for mean in statistics.means)
    assert ood_score([[12, 7, -4]], statistics)[0] == pytest.approx(expected, rel=0.05)


def test_few_samples_in_many_dimensions_do_not_make_all_else_infinitely_far():
    random = np.random.default_rng(1)
    spread = np.geomspace(0.1, 3, 64)
    labels, groups = np.arange(40) % 2, np.arange(40) // 4
    statistics = feature_statistics(random.normal(size=(40, 64)) * spread, labels, groups)
    fresh = ood_score(random.normal(size=(200, 64)) * spread, statistics)
    assert np.median(fresh) < 3 * np.sqrt(64)
    # Features that never vary, as of units that are dead.
    features = np.concatenate([random.normal(size=(40, 8)), np.zeros((40, 8))], 1)
    statistics = feature_statistics(features, labels, groups)
    assert np.isfinite(ood_score(np.ones((1, 16)), statistics)).all()
    assert np.isfinite(ood_score(np.ones((1, 4)), feature_statistics(np.zeros((8, 4)), labels[:8], groups[:8]))).all()


def test_a_feature_that_never_varies_beside_one_of_two_values_is_not_infinitely_far():
    # Samples that are all equally far from the mean leave no doubt about the covariance, and so no shrinkage but the least.
    features = np.stack([np.resize([1.0, -1.0], 40), np.zeros(40)], 1)
    statistics = feature_statistics(features, np.zeros(40, int), np.arange(40))
    far = ood_score([[0.0, 0.1], [0.0, 1.0]], statistics)
    assert np.isfinite(far).all() and far[1] == pytest.approx(10 * far[0], rel=1e-3) and far[0] > 1


def test_originals_are_judged_by_their_mean_and_the_limit_is_a_quantile_of_them():
    features, labels, groups = known()
    others, _, their_groups = known(seed=5)
    statistics = with_reference(feature_statistics(features, labels, groups), others, their_groups)
    expected = ood_score([others[their_groups == group].mean(0) for group in range(1000)], statistics)
    assert statistics.reference == pytest.approx(np.sort(expected))
    assert (expected > statistics.threshold(0.9)).mean() == pytest.approx(0.1, abs=0.002)
    names = np.array(["b", "a", "b", "c"])
    assert group_means([[1, 0], [5, 5], [3, 2], [0, 1]], names).tolist() == [[5, 5], [2, 1], [0, 1]]


def test_classes_without_crops_and_values_that_are_not_finite_are_errors():
    features, labels, groups = known(40)
    with pytest.raises(InputError, match="crops of 2 classes, expected crops of all 3"):
        feature_statistics(features, labels * 2, groups)
    features[3, 1] = np.nan
    with pytest.raises(InputError, match="not finite"):
        feature_statistics(features, labels, groups)
