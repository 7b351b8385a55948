import numpy as np
import pytest

from cathodeflow.bcdi.fields import KINDS
from cathodeflow.bcdi.geometry import q_vector, reciprocal_basis
from cathodeflow.bcdi.rocking import GEOMETRY, rocking_scan
from cathodeflow.bcdi.simulation_options import SimulateScan
from cathodeflow.errors import InputError
from cathodeflow.options import from_config

SHAPE = (24, 48, 48)
# Coarser steps than the default, so that the small region holds the peak.
COARSE = GEOMETRY._replace(rocking_step_deg=0.03, pixel_um=110.0)


#: All values but those of a small region are those that the tests were made for.
USUAL = {"seed": 1, "size_nm": 200.0, "offset": (2.3, -9.4, 6.7), "rocking_step_deg": COARSE.rocking_step_deg}


def scan(shape=SHAPE, **given):
    keywords = {name: given.pop(name) for name in ("voxel_nm", "phase_range") if name in given}
    frames, rows, cols = shape
    options = SimulateScan(frames=frames, rows=rows, cols=cols, **USUAL | given)
    return rocking_scan(options, geometry=COARSE, **keywords)


def laboratory(truth):
    """Places (z, y, x, 3) of the voxels [nm], as vectors (x, y, z)."""
    z, y, x = np.meshgrid(*((np.arange(n) - n // 2) * truth.voxel_nm for n in truth.amplitude.shape), indexing="ij")
    return np.stack([x, y, z], axis=-1)


@pytest.mark.parametrize(("kind", "regime"), [("smooth", "strong"), ("screw", "extreme")])
def test_the_frames_show_what_the_crystal_in_the_laboratory_scatters(kind, regime):
    found = scan(kind=kind, regime=regime, coherence=0.0, photons=1e9, unevenness=0.0, hot_fraction=0.0, voxel_nm=5.0)
    truth, q = found.truth, q_vector(COARSE)
    # Without transform and skewed grid: the sum over atoms that lie at r + u and scatter exp(-i (Q + q) . (r + u)).
    scattered = truth.amplitude * np.exp(-1j * np.linalg.norm(q) * truth.displacement.astype(np.float64))
    places = laboratory(truth)
    strongest = np.argsort(found.frames, axis=None)[: -400 * 20 : -400]
    voxels = np.column_stack(np.unravel_index(strongest, SHAPE))
    steps = (voxels - found.centre) @ reciprocal_basis(COARSE)
    sums = np.array([np.abs(np.sum(scattered * np.exp(-1j * (places @ step)))) ** 2 for step in steps])
    counts = found.frames[tuple(voxels.T)]
    np.testing.assert_allclose(counts / counts[0], sums / sums[0], atol=0.01)


def test_the_strain_is_the_slope_of_the_displacement_along_q():
    truth = scan(voxel_nm=4.0, correlation=0.5).truth
    towards = q_vector(COARSE) / np.linalg.norm(q_vector(COARSE))
    slopes = np.gradient(truth.displacement.astype(np.float64), truth.voxel_nm)
    along = sum(slope * part for slope, part in zip(slopes, towards[::-1], strict=True))
    whole = truth.amplitude == 1
    deep = np.all([np.roll(whole, by, axis) for axis in range(3) for by in (-2, -1, 0, 1, 2)], axis=0)
    assert deep.sum() > 500
    np.testing.assert_allclose(truth.strain[deep], along[deep], atol=0.03 * np.abs(along[deep]).max())


def test_the_phase_range_is_that_of_the_displacement():
    for seed, regime in ((1, "weak"), (2, "strong")):
        truth = scan(seed=seed, regime=regime).truth
        moves = truth.displacement[truth.amplitude >= 0.5]
        assert np.ptp(moves) * np.linalg.norm(q_vector(COARSE)) == pytest.approx(truth.phase_range, abs=1e-3)
        assert moves.mean() == pytest.approx(0, abs=1e-5)
        assert truth.regime == regime
    assert scan(phase_range=2.5).truth.phase_range == pytest.approx(2.5, abs=1e-3)


def test_a_wider_lattice_scatters_to_smaller_q():
    found = scan(seed=4, regime="weak", photons=1e8, hot_fraction=0.0, offset=(0, 0, 0))
    truth, q = found.truth, q_vector(COARSE)
    mean_strain = np.average(truth.strain, weights=truth.amplitude)
    # The intensity's centre of mass lies at the mean of -grad(Q . u), which is what Q . strain is along Q.
    counts = found.frames.astype(np.float64) * (found.frames > 3)
    centre = [
        np.average(np.arange(n), weights=counts.sum(axis=o))
        for n, o in zip(SHAPE, ((1, 2), (0, 2), (0, 1)), strict=True)
    ]
    moved = (np.array(centre) - found.centre) @ reciprocal_basis(COARSE)
    along = moved @ q / np.linalg.norm(q)
    assert abs(mean_strain) > 2e-6
    assert along == pytest.approx(-mean_strain * np.linalg.norm(q), rel=0.25)


def test_the_detector_is_as_its_images_say():
    found = scan(hot_fraction=0.01, dark=0.3, photons=1e6)
    frames, dark, white, good = found.frames, found.dark, found.whitefield, found.good
    assert frames.dtype == np.int32 and frames.shape == SHAPE and dark.shape == white.shape == good.shape == SHAPE[1:]
    blind = white == 0
    assert blind.sum() == round(0.01 * 48 * 48) and not frames[:, blind].any()
    hot = dark > 0
    assert good.sum() == 48 * 48 - 2 * round(0.01 * 48 * 48) and not good[blind | hot].any()
    empty = scan(hot_fraction=0.01, dark=0.3, photons=1e-9)
    assert empty.frames[:, good].mean() == pytest.approx(0.3 + 0.005, rel=0.02)
    np.testing.assert_allclose(empty.frames[:, hot].mean(axis=0), dark[hot], atol=1, rtol=0.4)
    assert 0.04 < white[~blind].std() / white[~blind].mean() < 0.06
    assert frames.sum() == pytest.approx(1e6, rel=0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_scan(kind):
    regime = "extreme" if kind in ("edge", "screw") else "medium"
    one, again, other = (
        scan(seed=seed, kind=kind, regime=regime, shape=(16, 32, 32), size_nm=120.0) for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one.frames, again.frames)
    assert np.isfinite(one.truth.strain).all()
    assert np.mean(one.frames != other.frames) > 0.05


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"size_nm": 3000.0}, "oversampling"),
        ({"voxel_nm": 100.0}, "voxels of 100.0 nm"),
        ({"offset": (30.0, 0.0, 0.0)}, "offset"),
    ],
)
def test_impossible_scans_are_told(wrong, match):
    with pytest.raises(InputError, match=match):
        scan(**wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"size_nm": 0.0},
        {"dark": -1.0},
        {"hot_fraction": 0.9},
        {"regime": "mad"},
        {"rocking_step_deg": 0},
        {"photons": -1.0},
    ],
)
def test_options_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match=f"bcdi.simulate_scan: {next(iter(wrong))}"):
        from_config(SimulateScan, wrong, "bcdi.simulate_scan")
