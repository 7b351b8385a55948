import numpy as np
import pytest
from scipy.ndimage import label

from cathodeflow.bcdi import diffraction, simulation
from cathodeflow.bcdi.crystals import truncated_octahedron
from cathodeflow.bcdi.displacement import (
    REGIMES,
    dislocation,
    draw_waves,
    fault,
    regime_of,
    relaxation,
    share_for_range,
    smooth,
    twin,
)
from cathodeflow.bcdi.fields import DISLOCATIONS, KINDS
from cathodeflow.bcdi.polyhedra import amplitude, bounds, grid, positions, transformed
from cathodeflow.bcdi.simulation import block
from cathodeflow.bcdi.simulation_options import Simulate
from cathodeflow.errors import InputError

HABIT_KINDS = [(kind, "extreme" if kind in DISLOCATIONS else "strong") for kind in KINDS]


def crystal(rng, **options):
    usual = {"habit": "polyhedron", "kind": "smooth", "regime": "medium", "oversampling": 3.0, "aspect": 1.5}
    return simulation.crystal(rng, **usual | {"rounding": 0.2, "correlation": 0.4} | options)


def expected_intensity(shape, phase, **options):
    return diffraction.expected_intensity(shape, phase, **{"coherence": 0.0, "background": 0.0} | options)


def measure(intensity, **options):
    return diffraction.measure(intensity, **{"hot_fraction": 0.0} | options)


def detector_mask(shape, **options):
    return diffraction.detector_mask(shape, **{"stop_radius": 0.0} | options)


def generator(seed=0):
    return np.random.default_rng(seed)


def loop(radius, centre=(0.0, 0.0, 0.0), steps=400):
    """Closed circle around the z axis, its first point at the end too; right-handed about +z."""
    turn = np.linspace(0, 2 * np.pi, steps + 1) + 0.3
    return np.column_stack([radius * np.cos(turn), radius * np.sin(turn), np.zeros(steps + 1)]) + centre


def circuit(phase):
    """Phase gathered along a path, steps between neighbours taken without turns of 2 pi."""
    return np.angle(np.exp(1j * np.diff(phase))).sum()


# Displacement


@pytest.mark.parametrize("burgers", [(0.0, 0, 0.2), (0.2, 0, 0), (0.1, -0.15, 0.1)])
def test_a_burgers_circuit_gathers_the_phase_of_the_burgers_vector(burgers):
    burgers = np.array(burgers)
    for turns in (1, -2):
        q = burgers * 2 * np.pi * turns / (burgers @ burgers) + np.cross(burgers, [1.0, 2.0, 0.5]) * 30
        kwargs = {"burgers": burgers, "line": (0, 0, 3), "through": (0.5, 0.2, 7.0), "q": q}
        around, beside = loop(5.0), loop(2.0, (6.0, 4.0, 0.0))
        assert circuit(dislocation(around, **kwargs)) == pytest.approx(2 * np.pi * turns, abs=1e-6)
        assert circuit(dislocation(beside, **kwargs)) == pytest.approx(0, abs=1e-6)


def test_a_dislocation_is_in_elastic_equilibrium():
    poisson, h = 0.27, 1e-3
    kwargs = {"burgers": (0.3, 0.2, 0.15), "line": (0, 0, 1), "through": (0, 0, 0), "poisson": poisson}

    def u(places):
        return np.stack([dislocation(places, q=axis, **kwargs) for axis in np.eye(3)], axis=-1)

    # Away from the cut, which is where -b points to.
    places = np.array([[3.0, 1.0, 0.0], [-1.0, 4.0, 2.0], [2.0, -3.0, 1.0]])
    steps = h * np.eye(3)
    second = np.empty((len(places), 3, 3, 3))
    for i, a in enumerate(steps):
        for j, b in enumerate(steps):
            second[:, i, j] = (u(places + a + b) - u(places + a - b) - u(places - a + b) + u(places - a - b)) / (
                4 * h**2
            )
    laplacian = np.einsum("niij->nj", second)
    grad_div = np.einsum("njii->nj", second)
    assert np.abs(laplacian).max() > 1e-4
    np.testing.assert_allclose((1 - 2 * poisson) * laplacian + grad_div, 0, atol=2e-7)


def test_smooth_fields_have_their_correlation_and_place():
    on, length = grid((12, 12, 12)), 3.0
    fields = np.stack([smooth(on, draw_waves(generator(seed), length=length)) for seed in range(300)])
    assert fields.var() == pytest.approx(1, rel=0.1)
    for distance in (2, 5):
        products = fields[:, :-distance] * fields[:, distance:]
        assert products.mean() == pytest.approx(np.exp(-(distance**2) / (2 * length**2)), abs=0.06)
    waves = draw_waves(generator(), length=length)
    skewed = grid((5, 6, 7), axes=[[1, 0.2, 0], [0, 0.7, 0.3], [0.4, 0, 1]])._replace(origin=np.array([1.0, 2, 3]))
    direct = np.cos(positions(skewed) @ waves.vectors.T + waves.phases).sum(axis=-1) * np.sqrt(2 / 64)
    np.testing.assert_allclose(smooth(skewed, waves), direct, atol=1e-4)


def test_a_surface_moves_along_its_normal_and_less_below():
    cube = transformed(truncated_octahedron(ratio=0.6), 20 * np.eye(3))
    facet = np.flatnonzero(cube.normals[:, 0] == 1)[0]
    moves = np.zeros(len(cube.normals))
    moves[facet] = 0.3
    below = np.array([[cube.distances[facet] - depth, 1.0, 2.0] for depth in (0.0, 2.0, 4.0)], dtype=np.float32)
    phase = relaxation(below, polyhedron=cube, depth=2.0, moves=moves, q=np.array([5.0, 1.0, 0.0]))
    np.testing.assert_allclose(phase, 1.5 * np.exp([0, -1, -2]), rtol=1e-5)


def test_planes_of_twins_and_faults():
    places = np.array([[0, 0, 3.0], [1, 5, 2.0], [0, 0, -1.0]], dtype=np.float32)
    np.testing.assert_allclose(twin(places, normal=(0, 0, 2), through=(9, 9, 1)), [2, 1, 2])
    np.testing.assert_allclose(fault(places, normal=(0, 0, 2), through=(9, 9, 1)), [1, 1, 0])


def test_the_share_of_a_field_gives_the_range():
    rng = generator()
    field, base = (rng.normal(size=(6, 6, 6)).astype(np.float32) for _ in range(2))
    inside = rng.random((6, 6, 6)) < 0.7
    for start in (None, base, -3 * field):
        for wanted in (20.0, 60.0):
            share = share_for_range(field, wanted, inside=inside, base=start)
            total = share * field + (0 if start is None else start)
            assert share > 0
            assert np.ptp(total[inside]) == pytest.approx(wanted, rel=1e-5)
    with pytest.raises(InputError, match="at least the defect's"):
        share_for_range(field, 1.0, inside=inside, base=base)
    with pytest.raises(InputError, match="same value in the whole crystal"):
        share_for_range(np.ones_like(field), 1.0, inside=inside)


def test_regimes_are_those_of_their_ranges():
    for regime, (low, high) in REGIMES.items():
        assert regime_of(np.nextafter(low, 9)) == regime_of(high) == regime


# Diffraction


def test_the_photons_are_those_asked_for():
    one = crystal(generator(), size=24)
    for coherence in (0.0, 0.7):
        intensity = expected_intensity(one.amplitude, one.phase, photons=1e6, coherence=coherence)
        assert intensity.sum(dtype=np.float64) == pytest.approx(1e6, rel=1e-5)
    with_background = expected_intensity(one.amplitude, one.phase, photons=1e6, coherence=0.7, background=2.0)
    np.testing.assert_allclose(with_background, intensity + 2, rtol=1e-5)


def test_the_far_field_is_the_centred_transform_with_numpys_sign():
    shape = amplitude(transformed(truncated_octahedron(), 4 * np.eye(3)), grid((24, 24, 24)))
    # A displacement that grows along x by -Q . u = 2 pi 3 x / 24 moves the peak by three.
    phase = np.broadcast_to(2 * np.pi * 3 * (np.arange(24) - 12) / 24, shape.shape).astype(np.float32)
    intensity = expected_intensity(shape, phase, photons=1.0)
    assert np.unravel_index(intensity.argmax(), shape.shape) == (12, 12, 15)
    field = np.fft.fftshift(np.fft.fftn(np.fft.ifftshift(shape * np.exp(1j * phase)), norm="ortho"))
    np.testing.assert_allclose(intensity, np.abs(field) ** 2 / (shape**2).sum(), atol=1e-6)


def test_only_strain_breaks_friedels_symmetry():
    one = crystal(generator(1), size=32, regime="strong")
    for phase, symmetric in ((np.zeros_like(one.phase), True), (one.phase, False)):
        intensity = expected_intensity(one.amplitude, phase, photons=1e6, coherence=0.3)[1:, 1:, 1:]
        apart = np.abs(intensity - intensity[::-1, ::-1, ::-1]).sum() / intensity.sum()
        assert (apart < 1e-4) if symmetric else (apart > 0.05)


def test_partial_coherence_lowers_the_contrast_of_fringes():
    shape = amplitude(transformed(truncated_octahedron(), 6 * np.eye(3)), grid((32, 32, 32)))
    sharp, dim = (expected_intensity(shape, 0 * shape, photons=1e6, coherence=c)[16, 16] for c in (0.0, 0.6))
    minimum = 16 + np.argmax(np.diff(sharp[16:]) > 0)
    assert dim[minimum] > 3 * sharp[minimum]
    assert dim[16] < sharp[16]
    # Folding the intensity multiplies the autocorrelation of the object by a Gauss function.
    one, folded = (np.fft.ifftn(expected_intensity(shape, 0 * shape, photons=1e6, coherence=c)) for c in (0.0, 0.6))
    assert np.abs(folded[4, 3, 0] / one[4, 3, 0]) == pytest.approx(
        np.exp(-25 * (2 * np.pi * 0.6 / 32) ** 2 / 2), rel=1e-2
    )


def test_noise_is_that_of_counted_photons():
    intensity = np.repeat(np.array([0.05, 2.0, 30.0, 1e4], dtype=np.float32), 20_000).reshape(4, 100, 200)
    counts = measure(intensity, rng=generator()).counts.reshape(4, -1)
    mean = np.array([0.05, 2.0, 30.0, 1e4])
    np.testing.assert_allclose(counts.mean(axis=1), mean, atol=5 * np.sqrt(mean / 20_000).max(), rtol=0.05)
    np.testing.assert_allclose(counts.var(axis=1), mean, rtol=0.07)
    assert counts.dtype == np.int32


def test_the_detector_is_blind_behind_the_stop_and_in_gaps():
    good = detector_mask((20, 24), stop_radius=2.0, row_gaps=[(3, 5)], col_gaps=[(0, 1), (20, 22)])
    assert not good[3:5].any() and not good[:, 0].any() and not good[:, 20:22].any()
    assert not good[10, 10:15].any() and not good[8:13, 12].any() and good[10, 15] and good[13, 12]
    assert (~good).sum() == 2 * 24 + 3 * 18 + 13
    pattern = measure(np.full((3, 20, 24), 50, np.float32), rng=generator(), good=good)
    assert not pattern.counts[:, ~good].any() and pattern.counts[:, good].all()
    np.testing.assert_array_equal(pattern.good, good)


def test_hot_pixels_are_hot_in_all_frames_and_known():
    intensity = np.full((8, 32, 32), 0.01, np.float32)
    intensity[4, 16, 16] = 1000
    counts, good = measure(intensity, rng=generator(), hot_fraction=0.02)
    assert (~good).sum() == round(0.02 * 32 * 32)
    assert (counts[:, ~good].mean(axis=0) > 5).all()
    assert counts[:, good].mean() < 0.2


@pytest.mark.parametrize(
    ("wrong", "match"),
    [({"photons": -1}, "photons"), ({"coherence": np.nan}, "coherence"), ({"background": -1}, "background")],
)
def test_impossible_exposures_are_told(wrong, match):
    one = np.ones((4, 4, 4), np.float32)
    with pytest.raises(InputError, match=match):
        expected_intensity(one, one, **({"photons": 1.0} | wrong))


def test_impossible_measurements_are_told():
    intensity = np.ones((4, 6, 6), np.float32)
    for wrong in (-intensity, intensity * np.nan, intensity * 1e12):
        with pytest.raises(InputError, match="intensity"):
            measure(wrong, rng=generator())
    with pytest.raises(InputError, match="good"):
        measure(intensity, rng=generator(), good=np.ones((4, 6), bool))
    with pytest.raises(InputError, match="hot_fraction"):
        measure(intensity, rng=generator(), hot_fraction=2)
    with pytest.raises(InputError, match="gaps"):
        detector_mask((6, 6), row_gaps=[(4, 9)])
    with pytest.raises(InputError, match="stop_radius"):
        detector_mask((6, 6), stop_radius=-1)
    with pytest.raises(InputError, match="amplitude"):
        expected_intensity(0 * intensity, intensity, photons=1)


# Crystals


@pytest.mark.parametrize(("kind", "regime"), HABIT_KINDS)
def test_the_phase_has_its_range_and_mean(kind, regime):
    for seed in range(3):
        one = crystal(generator(seed), size=32, kind=kind, regime=regime)
        low, high = REGIMES[regime]
        inside = one.phase[one.support]
        assert low - 1e-3 <= one.phase_range <= high + 1e-3
        assert np.ptp(inside) == pytest.approx(one.phase_range, abs=1e-3)
        assert inside.mean() == pytest.approx(0, abs=1e-4)
        assert (one.regime, one.kind) == (regime, kind)
        assert not one.phase[one.amplitude == 0].any()
        np.testing.assert_array_equal(one.support, one.amplitude >= 0.5)
        exact = crystal(generator(seed), size=32, kind=kind, phase_range=9.1)
        assert np.ptp(exact.phase[exact.support]) == pytest.approx(9.1, abs=1e-3)
        assert exact.regime == "extreme"


@pytest.mark.parametrize("kind", DISLOCATIONS)
def test_the_phase_winds_once_around_a_dislocation(kind):
    one = crystal(generator(3), size=32, kind=kind, regime="extreme", oversampling=2.2)
    # Plaquettes of neighbouring voxels across each axis: their phase steps close, but where the line goes through.
    found = 0
    for a, b in ((0, 1), (0, 2), (1, 2)):
        whole = one.support & np.roll(one.support, -1, a) & np.roll(one.support, -1, b)
        whole &= np.roll(one.support, (-1, -1), (a, b))
        corners = [
            one.phase,
            np.roll(one.phase, -1, a),
            np.roll(one.phase, (-1, -1), (a, b)),
            np.roll(one.phase, -1, b),
        ]
        turn = sum(np.angle(np.exp(1j * (corners[k] - corners[k - 1]))) for k in range(4)) / (2 * np.pi)
        turn = np.rint(turn[whole])
        assert np.abs(turn).max() <= 1
        found += np.abs(turn).sum()
    # The line leaves every layer that it crosses once.
    assert 8 <= found <= 60


@pytest.mark.parametrize("wanted", [2.2, 3.5, 5.0])
def test_the_oversampling_is_that_asked_for(wanted):
    for seed in range(3):
        one = crystal(generator(seed), size=64, oversampling=wanted)
        extent = [np.ptp(np.flatnonzero(one.support.any(axis=o))) + 1 for o in ((1, 2), (0, 2), (0, 1))]
        assert one.oversampling.min() == pytest.approx(wanted)
        np.testing.assert_allclose(extent, 64 / one.oversampling, atol=1.6)
        # The intensity's transform, the autocorrelation, is twice as wide as the crystal.
        intensity = expected_intensity(one.amplitude, one.phase, photons=1.0).astype(np.float64)
        correlation = np.abs(np.fft.fftshift(np.fft.ifftn(intensity)))
        filled = correlation > 1e-6 * correlation.max()
        width = [np.ptp(np.flatnonzero(filled.any(axis=o))) + 1 for o in ((1, 2), (0, 2), (0, 1))]
        np.testing.assert_allclose(width, np.minimum(128 / one.oversampling, 64), atol=4)


def test_the_oversampling_of_each_axis_can_be_set():
    one = crystal(generator(2), size=48, oversampling=(2.5, 4.0, 3.0), rounding=0.3)
    np.testing.assert_allclose(one.oversampling, (2.5, 4.0, 3.0), rtol=1e-3)
    extent = [np.ptp(np.flatnonzero(one.support.any(axis=o))) + 1 for o in ((1, 2), (0, 2), (0, 1))]
    np.testing.assert_allclose(extent, 48 / one.oversampling, atol=1.6)


def test_crystals_of_the_default_stream_fit_a_network_and_are_whole():
    found = block(range(24), Simulate(seed=5, size=32))
    outside = found.amplitude.copy()
    outside[:, 8:24, 8:24, 8:24] = 0
    assert not outside.any()
    assert all(label(one >= 0.5, np.ones((3, 3, 3)))[1] == 1 for one in found.amplitude)
    assert found.oversampling.min() >= 2.2 and (found.oversampling.min(axis=1) <= 5).all()
    assert [list(REGIMES)[k] for k in found.regime] == [regime_of(value) for value in found.phase_range]
    assert {KINDS[k] for k, r in zip(found.kind, found.regime, strict=True) if r < 3}.isdisjoint(DISLOCATIONS)
    assert len(set(found.regime)) == 4 and len(set(found.habit)) == 3
    total = found.counts.sum(axis=(1, 2, 3))
    background = 0.02 * 32**3
    assert (np.abs(total - found.photons - background / 2) < background / 2 + 6 * np.sqrt(found.photons)).all()


def test_a_stream_does_not_depend_on_its_blocks():
    plain = Simulate(seed=9, size=16, oversampling=(2.2, 4.0))
    spoilt = plain.model_copy(update={"hot_fraction": 0.01, "stop_radius": 1.0, "gap": 2})
    whole = block(range(6), spoilt)
    parts = [block(numbers, spoilt) for numbers in ([0], [1, 2, 3], np.array([4, 5]))]
    for name, values in whole._asdict().items():
        np.testing.assert_array_equal(values, np.concatenate([getattr(part, name) for part in parts]), err_msg=name)
    assert len({one.tobytes() for one in whole.counts}) == 6
    # Another measurement is of the same crystals.
    np.testing.assert_array_equal(block([3], plain).phase[0], whole.phase[3])
    assert np.abs(block([3], plain.model_copy(update={"seed": 10})).phase[0] - whole.phase[3]).max() > 0.01


def test_gaps_leave_the_peak():
    good = block(range(12), Simulate(seed=1, size=32, gap=3)).good
    assert good[:, 14:18, 14:18].all()
    np.testing.assert_array_equal((~good).sum(axis=(1, 2)), 2 * 3 * 32 - 9)


def test_a_population_can_be_narrowed():
    narrow = {
        "habits": ("truncated_octahedron",),
        "kinds": ("surface",),
        "regimes": ("medium",),
        "oversampling": (3, 3),
    }
    found = block(range(3), Simulate(seed=0, size=24, **narrow))
    assert (found.kind == KINDS.index("surface")).all() and (found.regime == 1).all() and (found.habit == 1).all()
    np.testing.assert_allclose(found.oversampling.min(axis=1), 3, rtol=1e-6)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"regime": "mad"}, "regime: found mad, expected one of weak"),
        ({"kind": "none"}, "kind: found none"),
        ({"habit": "ball"}, "habit: found ball"),
        ({"oversampling": 1.5}, "oversampling: found 1.5"),
        ({"oversampling": 12}, "expected 2 to 8 at 32 voxels"),
        ({"oversampling": (3, 3)}, "oversampling"),
        ({"phase_range": 0.0}, "phase_range"),
        ({"phase_range": np.inf}, "phase_range"),
        ({"kind": "screw", "regime": "medium"}, "regime: found medium"),
        ({"kind": "edge", "phase_range": 3.0}, "at least the defect's"),
        ({"correlation": 0.0}, "correlation"),
        ({"rounding": -1}, "rounding"),
    ],
)
def test_impossible_crystals_are_told_in_a_line(wrong, match):
    with pytest.raises(InputError, match=match) as told:
        crystal(generator(), **({"size": 32} | wrong))
    assert "\n" not in str(told.value)


def test_impossible_streams_are_told():
    with pytest.raises(InputError, match="numbers"):
        block([], Simulate())
    for match, wrong in (
        ("kinds for the regime weak", {"kinds": ("edge",), "regimes": ("weak",)}),
        ("oversampling", {"oversampling": (3, 9)}),
        ("oversampling", {"oversampling": (5, 3)}),
        ("rounding", {"rounding": (0.5, 0.1)}),
        ("gap", {"gap": 18}),
        ("photons", {"photons": (0, 10)}),
        ("coherence", {"coherence": (0.4, 0.2)}),
    ):
        with pytest.raises(InputError, match=match):
            block([0], Simulate(seed=0, size=32, **wrong))


def test_bounds_of_a_crystal_are_around_the_middle():
    one = crystal(generator(8), size=32, habit="winterbottom")
    places = np.argwhere(one.amplitude > 0) - 16
    np.testing.assert_allclose(places.min(axis=0) + places.max(axis=0), 0, atol=1)
    assert bounds(truncated_octahedron()).shape == (2, 3)
