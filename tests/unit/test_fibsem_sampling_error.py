"""Errors of properties: two-point statistics, blocks, scales of the intervals, bias of a segmentation."""

import numpy as np
import pytest
from scipy.ndimage import binary_erosion, gaussian_filter
from scipy.stats import t

from cathodeflow.fibsem.intervals import ScaledError, interval
from cathodeflow.fibsem.microstructure.property_table import Property
from cathodeflow.fibsem.property_errors import SAMPLING_ONLY, combined
from cathodeflow.fibsem.sampling_error import blocks, sampling_errors, with_errors
from cathodeflow.fibsem.sampling_options import SamplingError
from cathodeflow.fibsem.segmentation_error import as_json, calibrate, correct, from_json, pass_ratio, pass_spread
from cathodeflow.fibsem.two_point import covariance, integral_range, mean_variance

CLASSES = ("pore", "active")


def material(shape, seed, size=2.0):
    """A random material with features of a size [px], half of it the second class, cut from a larger volume."""
    whole = tuple(side + int(8 * size) for side in shape)
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(whole), size)
    return (noise[tuple(slice(0, side) for side in shape)] > 0).astype(np.uint8)


def simple(labels):
    """Fractions, and the surface between the classes as the fraction of faces with both."""
    faces = [np.diff(labels.astype(int), axis=axis) != 0 for axis in range(labels.ndim) if labels.shape[axis] > 1]
    surface = float(np.mean([face.mean() for face in faces]))
    found = [
        Property("volume_fraction", name, None, float((labels == k).mean()), "1") for k, name in enumerate(CLASSES)
    ]
    return [*found, Property("contact_area", "pore-active", None, surface, "1/voxel")]


def errors(labels, **options):
    return sampling_errors(labels, simple(labels), simple, classes=CLASSES, options=SamplingError(**options))


@pytest.mark.parametrize("shape", [(1, 64, 64), (24, 24, 24)])
def test_two_points_of_one_volume_predict_the_spread_of_many(shape):
    volumes = [material(shape, seed) for seed in range(40)]
    true = np.std([volume.mean() for volume in volumes])
    predicted = [np.sqrt(mean_variance(covariance(volume == 1), shape)) for volume in volumes]
    assert np.median(predicted) == pytest.approx(true, rel=0.25)
    # Independent voxels would have a tenth of it.
    assert true > 4 * 0.5 / np.sqrt(np.prod(shape))


def test_the_integral_range_is_the_volume_of_a_feature():
    checked = np.repeat(np.repeat(np.random.default_rng(0).random((40, 40)) < 0.5, 3, 0), 3, 1)
    # Independent squares of 9 pixels at fixed places: var = C(0) 9 / V.
    assert integral_range(covariance(checked)) == pytest.approx(9, rel=0.35)


def test_intervals_hold_the_truth_as_often_as_they_state():
    """The same test as benchmarks/fibsem_coverage.py, with a property that is quick to compute."""
    volumes = [material((1, 72, 72), seed) for seed in range(80)]
    rows = [with_errors(simple(volume), errors(volume)) for volume in volumes]
    truths = np.mean([[one.value for one in row] for row in rows], axis=0)
    for number, truth in enumerate(truths):
        ends = np.array(
            [[row[number].low_68, row[number].high_68, row[number].low_95, row[number].high_95] for row in rows]
        )
        held = ((ends[:, ::2] <= truth) & (truth <= ends[:, 1::2])).mean(axis=0)
        assert 0.58 <= held[0] <= 0.84, rows[0][number].property
        assert held[1] >= 0.90, rows[0][number].property


def test_small_volumes_have_the_error_of_their_fractions_only():
    found = errors(material((1, 20, 20), 0))
    assert {key[0] for key in found} == {"volume_fraction"}
    assert len(blocks((1, 40, 20), SamplingError())) == 2


def test_more_volume_means_less_error():
    key = ("volume_fraction", "pore", None)
    small, large = (
        np.mean([errors(material((1, side, side), seed))[key].error for seed in range(6)]) for side in (48, 144)
    )
    assert large == pytest.approx(small / 3, rel=0.4)


def test_intervals_are_those_of_students_t_on_the_scale_of_the_property():
    found = interval("tortuosity_factor", 3.0, ScaledError(0.1, 4.0))
    assert found["standard_error"] == pytest.approx(0.3)
    assert np.log(found["high_95"] / 3) == pytest.approx(0.1 * t.ppf(0.975, 4))
    assert found["low_95"] * found["high_95"] == pytest.approx(9)
    narrow = interval("volume_fraction", 0.01, ScaledError(2.0, 4.0))
    assert 0 < narrow["low_95"] < narrow["low_68"] < 0.01 < narrow["high_68"] < narrow["high_95"] < 1
    assert np.isnan(interval("tortuosity_factor", np.inf, ScaledError(0.1, 4.0))["low_68"])
    # No tortuosity factor is below 1.
    wide = interval("tortuosity_factor", 1.2, ScaledError(0.3, 4.0))
    assert wide["low_95"] == wide["low_68"] == 1 < 1.5 < wide["high_68"] < wide["high_95"]
    assert ScaledError(0.3, 5.0).plus(ScaledError(1e-9, 50.0)) == pytest.approx((0.3, 5.0))


def shrunk(labels):
    """A segmentation that takes the edge of the pores for solid."""
    return (1 - binary_erosion(labels == 0, np.ones((1, 3, 3)), border_value=1)).astype(np.uint8)


def calibration(seed=0):
    labels = material((1, 96, 96), seed, size=4.0)
    parts = blocks(labels.shape, SamplingError())
    pairs = [(simple(labels[part]), simple(shrunk(labels)[part])) for part in parts]
    return calibrate(
        simple(labels), simple(shrunk(labels)), pairs, shape=labels.shape, block_voxels=labels[parts[0]].size
    )  # fmt: skip


def test_the_bias_of_a_segmentation_is_removed_and_its_spread_covers_what_remains():
    found, held = calibration(), []
    for seed in range(1, 21):
        labels = material((1, 96, 96), seed, size=4.0)
        own = simple(shrunk(labels))
        rows = combined(own, {}, correct(own, found, voxels=labels.size, ratio=1.0))
        for one, true in zip(rows, simple(labels), strict=True):
            if one.row.property == "volume_fraction":
                assert abs(one.as_segmented - true.value) > 0.05
                held.append(one.row.low_95 <= true.value <= one.row.high_95)
        assert sum(one.row.value for one in rows[:2]) == pytest.approx(1)
    assert np.mean(held) >= 0.9


def test_blocks_that_hardly_percolate_do_not_rule_the_error_of_transport():
    def rows(diffusivities, fraction=0.4):
        return [
            [Property("volume_fraction", "pore", None, fraction, "1"),
             Property("effective_diffusivity", "pore", 0, value, "1"),
             Property("tortuosity_factor", "pore", 0, fraction / value if value else np.inf, "1")]
            for value in diffusivities
        ]  # fmt: skip

    # A tenth too little everywhere; the last two blocks have almost no path, and none after the segmentation of one.
    truth, found = rows([0.20, 0.22, 2e-3, 1e-3]), rows([0.181, 0.197, 7e-4, 0.0])
    whole = rows([0.11])[0], rows([0.1])[0]
    made = calibrate(*whole, list(zip(truth, found, strict=True)), shape=(20, 20, 20), block_voxels=1000)
    for name in ("effective_diffusivity", "tortuosity_factor"):
        own = made[name, "pore"]
        assert abs(own.bias) == pytest.approx(np.log(1.1), rel=0.15)
        assert 0 < own.spread < 0.03 and own.blocks == 4 and own.freedom == 3
    # Nothing is known where no block percolates.
    none = calibrate(*whole, list(zip(rows([0.0] * 4), rows([0.0] * 4), strict=True)), shape=(20, 20, 20),
                     block_voxels=1000)  # fmt: skip
    assert ("effective_diffusivity", "pore") not in none


def test_properties_without_calibration_have_the_sampling_error_and_say_so():
    labels = material((1, 64, 64), 0)
    rows = combined(simple(labels), errors(labels), {})
    assert all(one.row.note == SAMPLING_ONLY and np.isnan(one.segmentation_error) for one in rows)
    both = combined(simple(labels), errors(labels), correct(simple(labels), calibration(), voxels=4096, ratio=1.0))
    for one in both:
        assert one.row.standard_error == pytest.approx(np.hypot(one.sampling_error, one.segmentation_error))


def test_passes_that_scatter_more_widen_the_errors():
    def passes(noise):
        rng = np.random.default_rng(0)
        return [[Property("volume_fraction", "pore", None, 0.4 + noise * rng.normal(), "1")] for _ in range(5)]

    validation, new = pass_spread(passes(0.01), voxels=1000), pass_spread(passes(0.03), voxels=1000)
    assert pass_ratio(new, validation) == pytest.approx(3, rel=0.05)
    assert pass_ratio(validation, new) == 1
    # A quarter of the voxels has twice the spread.
    assert pass_ratio(pass_spread(passes(0.02), voxels=250), validation) == pytest.approx(1, rel=0.05)
    own, found = simple(material((1, 64, 64), 0)), from_json(as_json(calibration()))
    once, twice = (correct(own, found, voxels=4096, ratio=ratio) for ratio in (1.0, 2.0))
    assert all(twice[key].error.error == pytest.approx(2 * once[key].error.error) for key in once)
