"""The table of beamlines against a forward model of its own: where reciprocal lattice points meet the Ewald sphere."""

import numpy as np
import pytest
from scipy.optimize import brentq

from cathodeflow.bcdi.beamlines import TABLE, read_beamline
from cathodeflow.bcdi.geometry import Geometry, q_of_peak, q_vector, reciprocal_basis, restored
from cathodeflow.bcdi.scan_geometry import setting_of, vectors_of
from cathodeflow.bcdi.scan_vectors import Setting, scan_vectors
from cathodeflow.errors import InputError
from cathodeflow.io.text import read_yaml

BEAM = np.array([0.0, 0.0, 1.0])
HC = 1.23984198  # keV nm


def rx(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[1, 0, 0], [0, c, -s], [0, s, c]])


def ry(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, 0, s], [0, 1, 0], [-s, 0, c]])


def rz(degrees):
    c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])


# Sample, arm, horizontal sense of the columns; angles; motors that are scanned in turn. x outboard, y up, z beam.
BEAMLINES = {
    # F. Hofmann et al., J. Synchrotron Rad. 24, 1048 (2017).
    "34-ID-C": (
        lambda a: ry(a["theta"]) @ rz(-a["chi"]) @ ry(a["phi"]),
        lambda a: ry(a["delta"]) @ rx(-a["gamma"]),
        1,
        {"theta": 12.0, "chi": 80.0, "phi": -5.0, "delta": 30.0, "gamma": 11.0},
        ("theta", "phi"),
    ),
    # Psic with opposite senses of the vertical axes.
    "ID01": (
        lambda a: ry(-a["mu"]) @ rx(-a["eta"]) @ ry(-a["phi"]),
        lambda a: ry(-a["nu"]) @ rx(-a["delta"]),
        1,
        {"mu": 0.3, "eta": 17.0, "phi": 40.0, "nu": 6.0, "delta": 33.0},
        ("eta", "phi"),
    ),
    "P10": (
        lambda a: ry(a["mu"]) @ rx(-a["om"]) @ rz(a["chi"]) @ ry(-a["phi"]),
        lambda a: ry(a["gamma"]) @ rx(-a["delta"]),
        -1,
        {"mu": 0.5, "om": 18.0, "chi": 88.0, "phi": 20.0, "gamma": 4.0, "delta": 35.0},
        ("om", "phi"),
    ),
    "NanoMAX": (
        lambda a: rx(-a["gontheta"]) @ ry(-a["gonphi"]),
        lambda a: ry(-a["gamma"]) @ rx(-a["delta"]),
        -1,
        {"gontheta": 15.0, "gonphi": 30.0, "gamma": 9.0, "delta": 28.0},
        ("gontheta", "gonphi"),
    ),
    # The table beta carries both.
    "SIXS": (
        lambda a: rx(-a["beta"]) @ ry(a["mu"]) @ rx(-a["omega"]),
        lambda a: rx(-a["beta"]) @ ry(a["gamma"]) @ rx(-a["delta"]),
        1,
        {"beta": 0.4, "mu": 14.0, "omega": 3.0, "gamma": 29.0, "delta": 12.0},
        ("mu", "omega"),
    ),
    "CRISTAL": (
        lambda a: rx(-a["mgomega"]) @ ry(a["mgphi"]),
        lambda a: ry(a["gamma"]) @ rx(-a["delta"]),
        1,
        {"mgomega": 17.0, "mgphi": -10.0, "gamma": 7.0, "delta": 31.0},
        ("mgomega", "mgphi"),
    ),
    # H. You, J. Appl. Cryst. 32, 614 (1999).
    "I16": (
        lambda a: ry(a["mu"]) @ rx(-a["eta"]) @ rz(a["chi"]) @ rx(-a["phi"]),
        lambda a: ry(a["gamma"]) @ rx(-a["delta"]),
        1,
        {"mu": 1.0, "eta": 16.0, "chi": 60.0, "phi": 25.0, "gamma": 5.0, "delta": 32.0},
        ("eta", "phi"),
    ),
    "BM02": (
        lambda a: ry(a["mu"]) @ rx(-a["th"]) @ rz(a["chi"]) @ rx(-a["phi"]),
        lambda a: ry(a["nu"]) @ rx(-a["tth"]),
        1,
        {"mu": 0.0, "th": 18.0, "chi": 75.0, "phi": 10.0, "nu": 3.0, "tth": 36.0},
        ("th", "phi"),
    ),
    # Azimuth about the beam, and a slide; the detector stays across the beam.
    "1-ID": (
        lambda a: ry(-a["aero"]),
        lambda a: rz(a["vff_eta"]),
        1,
        {"aero": 33.0, "vff_eta": 52.0, "vff_r": 610.0},
        ("aero",),
    ),
}
DISTANCE, PIXEL, OFFSET = 1.1, 55.0, (140.0, -230.0)


class Experiment:
    """A crystal that diffracts into a pixel off the middle of the detector, at frame 0."""

    def __init__(self, name, steps, energy=9.3):
        self.sample, self.arm, self.sense, self.angles, _ = BEAMLINES[name]
        self.steps, self.energy = steps, energy
        self.slide = np.array([0, self.angles.get("vff_r", 0.0) * 1e-3, 0])
        place = self.arm(self.angles) @ self.pixel(*OFFSET)
        self.lattice_vector = self.wave(0) * (place / np.linalg.norm(place) - BEAM)

    def wave(self, frame):
        return 2 * np.pi * (self.energy + frame * self.steps.get("energy_kev", 0.0)) / HC

    def at(self, frame):
        return {name: angle + frame * self.steps.get(name, 0.0) for name, angle in self.angles.items()}

    def pixel(self, row, col):
        return np.array([self.sense * col * PIXEL * 1e-6, -row * PIXEL * 1e-6, DISTANCE]) + self.slide

    def hits(self, offset):
        """Frame, row and column, from those of the peak, at which a reciprocal lattice point diffracts."""
        point = self.sample(self.angles).T @ (self.lattice_vector + offset)

        def beyond(frame):
            return np.linalg.norm(self.sample(self.at(frame)) @ point + self.wave(frame) * BEAM) - self.wave(frame)

        frame = brentq(beyond, -40, 40, xtol=1e-10)
        ray = self.arm(self.at(frame)).T @ (self.sample(self.at(frame)) @ point + self.wave(frame) * BEAM)
        place = ray * DISTANCE / ray[2] - self.slide
        return np.array([frame, -place[1] / PIXEL * 1e6 - OFFSET[0], self.sense * place[0] / PIXEL * 1e6 - OFFSET[1]])


def matches(name, steps):
    """Largest error of the sampling vectors over points of the crystal's fringes, relative to their distance."""
    experiment = Experiment(name, steps)
    found = scan_vectors(read_beamline(name), Setting(9.3, DISTANCE, PIXEL, experiment.angles, steps, OFFSET))
    np.testing.assert_allclose(q_vector(found), experiment.lattice_vector, rtol=0, atol=1e-6)
    basis = reciprocal_basis(found)
    errors = []
    for offset in 0.01 * np.random.default_rng(5).normal(size=(8, 3)):
        errors.append(np.linalg.norm(experiment.hits(offset) @ basis - offset) / np.linalg.norm(offset))
    return max(errors)


def test_every_entry_of_the_table_is_tested():
    assert set(read_yaml(str(TABLE))) == set(BEAMLINES)


@pytest.mark.parametrize(
    ("name", "motor", "step"),
    [(name, motor, step) for name, (*_, motors) in BEAMLINES.items() for motor in motors for step in (0.03, -0.03)],
)
def test_points_of_the_lattice_are_where_the_forward_model_measures_them(name, motor, step):
    assert matches(name, {motor: step}) < 0.01


@pytest.mark.parametrize(
    "steps",
    [{"energy_kev": 0.004}, {"om": 0.02, "delta": 0.04}, {"om": 0.02, "phi": -0.03}, {"gamma": 0.03, "om": 0.03}],
)
def test_scans_of_the_energy_and_of_two_motors(steps):
    assert matches("P10", steps) < 0.01


def test_a_wrong_sense_of_any_circle_would_be_found():
    """The forward model itself: turning one axis of the entry round makes errors beyond five times the bound."""
    entry = read_beamline("ID01")
    experiment = Experiment("ID01", {"eta": 0.03})
    for circles, name in (("sample", "eta"), ("arm", "nu"), ("arm", "delta")):
        changed = dict(getattr(entry, circles))
        changed[name] = changed[name][0] + ("+" if changed[name][1] == "-" else "-")
        setting = Setting(9.3, DISTANCE, PIXEL, experiment.angles, {"eta": 0.03}, OFFSET)
        wrong = scan_vectors(entry.model_copy(update={circles: changed}), setting)
        offset = np.array([0.008, -0.006, 0.01])
        error = np.linalg.norm(experiment.hits(offset) @ reciprocal_basis(wrong) - offset)
        assert error > 0.05 * np.linalg.norm(offset), name


def test_the_direct_beam_and_the_pixel_of_the_peak_give_the_true_spacing():
    experiment = Experiment("34-ID-C", {"theta": 0.005})
    options = {f"{name}_deg": angle for name, angle in experiment.angles.items()}
    options |= {"energy_kev": 9.3, "distance_m": DISTANCE, "pixel_um": PIXEL, "rocking_axis": "theta",
                "rocking_step_deg": 0.005}  # fmt: skip
    beam = {"direct_beam": (300.0, 410.0)}
    true = 2 * np.pi / np.linalg.norm(experiment.lattice_vector)

    def spacing(options, **more):
        setting, missing = setting_of(options, **more)
        assert not missing
        return 2 * np.pi / np.linalg.norm(q_vector(vectors_of(read_beamline("34-ID-C"), "", setting, options)))

    assert abs(spacing(options) / true - 1) > 0.005
    assert spacing(options | beam, peak=(31.0, 300 + OFFSET[0], 410 + OFFSET[1])) == pytest.approx(true, rel=1e-7)
    given = {"peak_pixel": (300 + OFFSET[0], 410 + OFFSET[1])}
    assert spacing(options | beam | given, peak=(31.0, 5.0, 5.0)) == pytest.approx(true, rel=1e-7)
    with pytest.raises(InputError, match="direct_beam: found no pixel of the peak"):
        setting_of(options | beam)


def test_a_peak_off_the_middle_counts_once():
    angles = {"om": 15.0, "delta": 30.0}
    middle = scan_vectors(read_beamline("p10"), Setting(9.3, 1.8, 75.0, angles, {"om": 0.01}))
    offset = np.array([3.0, -20.0, 14.0])
    there = Setting(9.3, 1.8, 75.0, angles | {"om": 15.03}, {"om": 0.01}, (-20.0, 14.0), (1.0, 1.0, 1.0))
    exact = scan_vectors(read_beamline("p10"), there)
    np.testing.assert_array_equal(q_of_peak(exact, offset), q_vector(exact))
    # Seen from the sample at the middle of the scan, which turns by three frames.
    spacing = np.linalg.norm(q_of_peak(middle, offset))
    assert spacing == pytest.approx(np.linalg.norm(q_vector(exact)), rel=1e-5)
    assert abs(np.linalg.norm(q_vector(middle)) - spacing) > 1e-4 * spacing


def test_the_general_geometry_is_that_of_34_id_c():
    geometry = Geometry(9.0, 0.5, 55.0, 32.174, 12.6346, 20.0, 74.0, -5.0, "phi", 0.005)
    angles = {"delta": 32.174, "gamma": 12.6346, "theta": 20.0, "chi": 74.0, "phi": -5.0}
    found = scan_vectors(read_beamline("34idc"), Setting(9.0, 0.5, 55.0, angles, {"phi": 0.005}), name="34-ID-C")
    np.testing.assert_allclose(q_vector(found), q_vector(geometry), rtol=1e-12)
    np.testing.assert_allclose(reciprocal_basis(found), reciprocal_basis(geometry), rtol=1e-7, atol=1e-12)
    kept = {name: np.array(value) if isinstance(value, tuple) else value for name, value in found._asdict().items()}
    assert restored(kept) == found and restored(geometry._asdict()) == geometry


def test_a_beamline_of_ones_own_has_the_same_words(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("sample: {om: x-}\narm: {tth: x-}\nrows: y-\ncols: x+\nenergy: {names: [en], unit: eV}\n")
    own = read_beamline(str(path))
    assert own.motors == ["om", "tth"] and own.energy.factor == 1e-3
    path.write_text("sample: {om: up}\n")
    with pytest.raises(InputError, match=r"mine\.yaml: sample\.om: found 'up', expected 'x\+'"):
        read_beamline(str(path))
    with pytest.raises(InputError, match="beamline: found P11, expected one of 34-ID-C, ID01, P10"):
        read_beamline("P11")


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"energy_kev": 9000.0}, "energy_kev: found 9000 keV, expected 1 to 200 keV: an energy in eV"),
        ({"distance_m": 600.0}, "distance_m: found 600 m, expected 0.05 to 100 m"),
        ({"pixel_um": 5.5e-5}, "pixel_um: found 5.5e-05 um, expected 1 to 1000 um"),
        ({"angles": {"om": 4000.0, "delta": 30.0}}, "om: found 4000 degrees, expected -360 to 360 degrees"),
        ({"angles": {}}, "found the peak in the direct beam"),
        ({"angles": {"eta": 1.0}}, "found a circle eta, expected circles of the beamline: mu, om"),
        ({"steps": {"om": 5.0}}, "found a step of 5 degrees of om, expected at most 2 degrees"),
        ({"steps": {}}, "found no motor that moves"),
        ({"steps": {"mu": 0.01}, "angles": {"gamma": 0.0, "delta": 30.0}}, "does not move the peak out of"),
    ],
)
def test_what_cannot_be_is_one_line_with_its_unit(change, line):
    usual = Setting(9.3, 1.8, 75.0, {"om": 15.0, "delta": 30.0}, {"om": 0.01})
    with pytest.raises(InputError) as caught:
        scan_vectors(read_beamline("p10"), usual._replace(**change))
    assert line in str(caught.value) and "\n" not in str(caught.value)
