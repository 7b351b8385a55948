"""Series of scans of one particle: d spacing, strain, volume and shape against the truth of simulated scans."""

import numpy as np
import pytest

from cathodeflow import bcdi
from cathodeflow.bcdi.charge_states import in_state
from cathodeflow.bcdi.comparison import on_voxels
from cathodeflow.bcdi.geometry import q_vector, reciprocal_basis
from cathodeflow.bcdi.options import Section, Strain
from cathodeflow.bcdi.preparation import prepare_scan
from cathodeflow.bcdi.preparation_options import Prepare
from cathodeflow.bcdi.rocking import GEOMETRY, rocking_scan
from cathodeflow.bcdi.scans import Scan
from cathodeflow.bcdi.series_alignment import aligned_particles
from cathodeflow.bcdi.series_options import ChargeSeries, Series
from cathodeflow.bcdi.series_plots import series_figure
from cathodeflow.bcdi.series_scans import scan_series
from cathodeflow.bcdi.series_values import QUANTITIES, principal_lengths, scan_values
from cathodeflow.bcdi.simulation_options import SimulateScan
from cathodeflow.bcdi.strain_fields import Field, Particle
from cathodeflow.errors import InputError
from cathodeflow.io.aligned_series import read_aligned_series
from cathodeflow.io.phasing import Pattern, Starts, write_pattern, write_starts
from cathodeflow.io.reconstructions import Reconstruction, write_cxi
from cathodeflow.io.tables import read_csv

CHARGES = (0.0, 0.4, 0.9)
SIZE = (32, 32, 32)
OPTIONS = SimulateScan(
    frames=40,
    rows=48,
    cols=48,
    size_nm=300,
    habit="winterbottom",
    hot_fraction=0,
    offset=(1.3, -2.4, 1.7),
    charge=ChargeSeries(lattice_change=0.001, phase_ranges=(0.5, 2.5)),
    seed=2,
)


def twin(volume):
    """conj(o(-r)) about index n // 2 of even sides."""
    return np.roll(np.conj(volume[::-1, ::-1, ::-1]), (1, 1, 1), (0, 1, 2))


def starts_of(objects):
    count = len(objects)
    return Starts(np.asarray(objects, np.complex64), np.abs(objects) > 0.1, np.zeros((count, 1), np.float32),
                  np.zeros(count, np.float32), np.zeros((count, 3), np.float32), (1, 1, 1))  # fmt: skip


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Three states of charge; the true objects stand for phased ones, the second as a shifted twin."""
    folder, truths = tmp_path_factory.mktemp("series"), []
    rng = np.random.default_rng(0)
    for number, charge in enumerate(CHARGES):
        options, phase_range = in_state(OPTIONS, charge, GEOMETRY)
        made = rocking_scan(options, phase_range=phase_range, exposure=number)
        truths.append(made.truth)
        prepared = prepare_scan(made.frames, Prepare(size=SIZE, oversampling=9), whitefield=made.whitefield)
        write_pattern(
            folder / f"p{number}.h5", Pattern(prepared.amplitude, prepared.mask, (1, 1, 1)), steps=prepared.steps
        )
        # The peak that was prepared is centred to a voxel: the rest of its offset is a ramp of the object.
        by_name = {step["step"]: step for step in prepared.steps}
        middle = np.array(by_name["size"]["starts"]) + 16
        left = made.centre - middle
        index = np.stack(np.meshgrid(*(np.arange(32) - 16,) * 3, indexing="ij"), axis=-1)
        best = on_voxels(made.truth.object, SIZE, (1, 1, 1)) * np.exp(2j * np.pi / 32 * (index @ left))
        best = np.roll(twin(best), (2, -1, 1), (0, 1, 2)) if number == 1 else best
        near = [best * np.exp(1j * 0.02 * rng.normal(size=SIZE)) for _ in range(3)]
        wrong = np.abs(rng.normal(size=SIZE)) + 0j
        write_starts(folder / f"o{number}.h5", starts_of([best, *near, wrong]))
        inside = np.zeros(SIZE, bool)
        inside[16, 16, 16] = True
        process = {"options": Strain().model_dump(mode="json")}
        write_cxi(folder / f"r{number}.cxi", Reconstruction(
            inside.astype(np.complex64), inside, geometry=made.geometry._asdict(), process=process))  # fmt: skip
    numbers = range(len(CHARGES))
    merits = bcdi.series(
        [folder / f"o{number}.h5" for number in numbers],
        prepared=[folder / f"p{number}.h5" for number in numbers],
        reconstruction=[folder / f"r{number}.cxi" for number in numbers],
        scan=["first", "middle", "last"],
        state_of_charge=CHARGES,
        voltage=[3.6, 3.8, 4.2],
        out=folder / "series.csv",
        aligned=folder / "aligned.h5",
    )
    return folder, truths, merits, read_csv(folder / "series.csv")


def test_lattice_spacing_is_the_true_one_with_the_mean_strain_of_the_crystal(series):
    _, truths, _, table = series
    basis = reciprocal_basis(GEOMETRY._replace(rocking_step_deg=OPTIONS.rocking_step_deg))
    spacing = 20 * np.pi / np.linalg.norm(q_vector(GEOMETRY) + np.array(OPTIONS.offset) @ basis)
    for row, charge, truth in zip(table.to_dict("records"), CHARGES, truths, strict=True):
        inside = truth.amplitude >= 0.5
        expected = spacing * (1 + 0.001 * charge) * (1 + truth.strain[inside].mean(dtype=np.float64))
        assert row["d_spacing"] == pytest.approx(expected, rel=1e-5)
    change = table["d_spacing"] / table["d_spacing"][0] - 1
    assert np.allclose(table["mean_strain"], change, atol=1e-8) and table["mean_strain"][2] > 8e-4


def test_strain_volume_and_shape_are_the_true_ones(series):
    _, truths, _, table = series
    for row, truth in zip(table.to_dict("records"), truths, strict=True):
        volume = truth.amplitude.sum(dtype=np.float64) * truth.voxel_nm**3
        assert row["volume_nm3"] == pytest.approx(volume, rel=0.05)
        inside = truth.amplitude >= 0.5
        deviation = truth.strain[inside].std(dtype=np.float64)
        assert row["strain_deviation"] == pytest.approx(deviation, rel=0.35)
        lengths = principal_lengths(np.argwhere(inside) * truth.voxel_nm)
        found = [row[f"length_{number}_nm"] for number in (1, 2, 3)]
        assert found == pytest.approx(lengths.tolist(), rel=0.05)
    assert np.ptp(table["volume_nm3"]) < 0.05 * table["volume_nm3"].max()
    assert table["strain_deviation"].idxmax() == 1


def test_objects_are_aligned_and_a_twin_is_turned_back(series):
    folder, _, merits, table = series
    assert table["twin"].tolist() == [False, True, False] and table["margin"].min() > 0.05
    assert merits["lowest_overlap"] > 0.9 and table["overlap"][0] == 1
    found = read_aligned_series(folder / "aligned.h5")
    assert found.scans == ["first", "middle", "last"] and found.against == "state_of_charge"
    assert found.values.tolist() == list(CHARGES)
    # The displacement has the same form in all states: strain maps are proportional where both are known.
    for number in (1, 2):
        both = np.isfinite(found.strain[0]) & np.isfinite(found.strain[number])
        assert np.corrcoef(found.strain[0][both], found.strain[number][both])[0, 1] > 0.9
        assert both.sum() > 0.8 * np.isfinite(found.strain[0]).sum()


def test_errors_are_the_spread_over_the_starts_that_agree(series):
    table = series[-1]
    assert table["starts"].tolist() == [5, 5, 5] and table["starts_used"].tolist() == [4, 4, 4]
    assert all((table[f"{name}_err"] > 0).all() for name in ("d_spacing", "strain_deviation"))
    assert (table["strain_deviation_err"] < 0.2 * table["strain_deviation"]).all()
    assert table["mean_strain_err"][0] == 0


def test_one_start_has_no_error_and_spread_is_counted_as_it_is():
    box = np.zeros((1, 24, 24, 24), np.complex64)
    box[:, 8:17, 7:18, 9:16] = 1
    one = scan_values(box, GEOMETRY, Strain(), binning=(1, 1, 1), offset=np.zeros(3), min_correlation=0.9)
    assert one.used == 1 and all(np.isnan(one.errors[name]) for name in QUANTITIES)
    larger = box.copy()
    larger[:, 7:18, 7:18, 9:16] = 1
    two = scan_values(np.concatenate([box, larger]), GEOMETRY, Strain(), binning=(1, 1, 1), offset=np.zeros(3),
                      min_correlation=0.9)  # fmt: skip
    assert two.errors["volume_nm3"] == pytest.approx(one.best["volume_nm3"] * (11 / 9 - 1) / np.sqrt(2), rel=1e-4)
    assert two.best == one.best


def test_offset_of_the_peak_moves_the_lattice_spacing_along_q():
    box = np.zeros((1, 24, 24, 24), np.complex64)
    box[:, 8:17, 7:18, 9:16] = 1
    along = 0.002 * q_vector(GEOMETRY) @ np.linalg.inv(reciprocal_basis(GEOMETRY))
    found = [scan_values(box, GEOMETRY, Strain(), binning=(1, 1, 1), offset=offset, min_correlation=0.9).best["d_spacing"]
             for offset in (np.zeros(3), along)]  # fmt: skip
    assert found[0] / found[1] == pytest.approx(1.002, abs=1e-7)


def test_a_shift_of_half_a_voxel_and_a_twin_are_found():
    index = np.stack(np.meshgrid(*(np.arange(25) - 12,) * 3, indexing="ij"), axis=-1).astype(float)

    def ellipsoid(centre):
        inside = (((index - centre) / (7, 5, 6)) ** 2).sum(-1) + 0.03 * (index - centre)[..., 0] < 1
        strain = np.where(inside, (index - centre)[..., 2] * 1e-4, np.nan).astype(np.float32)
        phase = 0.1 * (index - centre)[..., 1] ** 2 * 0.3
        volume = np.where(inside, np.exp(1j * phase), 0).astype(np.complex64)
        return Particle(volume, inside, Field("d", "nm", strain), Field("s", "1", strain), 5.0)

    first, second = aligned_particles([ellipsoid(np.zeros(3)), ellipsoid(np.array([0.5, -1.5, 2.0]))])
    assert not second.twin and second.overlap > 0.93
    both = np.isfinite(first.strain) & np.isfinite(second.strain)
    assert np.abs(first.strain[both] - second.strain[both]).max() < 6e-5
    # The twin has the conjugate values, and the same strain, at the inverted positions.
    flip = (slice(None, None, -1),) * 3
    one = ellipsoid(np.zeros(3))
    other = one._replace(
        volume=np.conj(one.volume[flip]),
        support=one.support[flip],
        strain=one.strain._replace(values=one.strain.values[flip]),
    )
    first, third = aligned_particles([one, other])
    assert third.twin and third.correlation > 0.99
    both = np.isfinite(first.strain) & np.isfinite(third.strain)
    assert both.sum() > 0.9 * np.isfinite(first.strain).sum()
    assert np.abs(first.strain[both] - third.strain[both]).max() < 1e-5


def scan(name, **columns):
    return Scan(sample=name, frames="simulated", **columns)


def test_series_are_made_of_the_scans_that_have_the_condition():
    samples = {
        "a": scan("a", role="phase", state_of_charge=0.5, series="one", temperature=30),
        "b": scan("b", role="phase", state_of_charge=0.1, series="one", temperature=25),
        "c": scan("c", role="measure", series="one"),
        "d": scan("d", role="predict", voltage=4.0, series="two"),
        "e": scan("e", role="measure", voltage=3.9, series="two"),
        "f": scan("f", role="phase", voltage=3.8, series="three"),
    }
    phased = scan_series(samples, None, "phase")
    assert list(phased) == ["one"] and phased["one"].scans == ["b", "a"] and phased["one"].against == "state_of_charge"
    assert phased["one"].conditions == {"state_of_charge": [0.1, 0.5], "temperature": [25, 30]}
    assert {name: found.scans for name, found in scan_series(samples, None, "refine").items()} == {"two": ["e", "d"]}
    assert scan_series(samples, "time", "phase") == {}
    with pytest.raises(InputError, match="that of the series"):
        Section(samples=__file__).check({"series": scan("series", role="phase")})
    with pytest.raises(InputError, match=r"bcdi\.series\.reference"):
        Section(samples=__file__, series=Series(reference="g")).check(samples)


def test_what_does_not_fit_together_is_one_line(series, tmp_path):
    folder = series[0]
    files = {"prepared": [folder / "p0.h5"], "reconstruction": [folder / "r0.cxi"], "scan": ["first"]}
    outputs = {"out": tmp_path / "s.csv", "aligned": tmp_path / "a.h5"}

    def run(options=None, **changes):
        given = {**files, "state_of_charge": [0.0], **changes}
        bcdi.series([folder / "o0.h5"], **given, **outputs, options=options or Series())

    with pytest.raises(InputError, match="--scan: found 2 values"):
        run(scan=["a", "b"])
    with pytest.raises(InputError, match="--state-of-charge: found nothing"):
        run(state_of_charge=[])
    with pytest.raises(InputError, match="--temperature: found nothing"):
        run(Series(against="temperature"))
    with pytest.raises(InputError, match="--reference: found other"):
        run(Series(reference="other"))
    inside = np.ones((4, 4, 4), bool)
    write_cxi(tmp_path / "n.cxi", Reconstruction(inside.astype(np.complex64), inside, frame="scan"))
    with pytest.raises(InputError, match="no geometry"):
        run(reconstruction=[tmp_path / "n.cxi"])
    assert not list(tmp_path.glob("s.csv"))


def test_the_figure_is_drawn_with_one_scale(series, tmp_path):
    folder = series[0]
    bcdi.series_figures(folder / "series.csv", folder / "aligned.h5", out=tmp_path / "s.png")
    assert (tmp_path / "s.png").stat().st_size > 30_000
    found = read_aligned_series(folder / "aligned.h5")
    figure = series_figure(series[-1], found.strain, found.support, against="voltage", voxel_nm=found.voxel_nm,
                           columns=2, strain_limit=3e-4)  # fmt: skip
    maps = [image for axes in figure.subfigs[1].axes for image in axes.images if image.norm.vmax == pytest.approx(3)]
    assert len(maps) == 3 and all(image.norm.vmin == pytest.approx(-3) for image in maps)
    assert "Voltage" in figure.subfigs[0].axes[0].get_xlabel()
