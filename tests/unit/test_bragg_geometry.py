"""Geometry of the detector in files of others, and the angles and spacings that follow from it."""

import json
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

from cathodeflow import bragg
from cathodeflow.bragg.scattering import positions, scattering
from cathodeflow.errors import InputError
from cathodeflow.io.detector_geometry import DetectorGeometry
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.io.geometry_files import read_detector_geometry
from cathodeflow.io.peaks import write_peaks
from cathodeflow.io.raw_format import FrameConditions

# pyFAI 2026.9.0, by AzimuthalIntegrator(dist, poni1, poni2, rot1, rot2, rot3, Detector(75e-6, 100e-6,
# max_shape=(1000, 1200), orientation=...), wavelength=0.3e-10): its tth, chi [deg] and qFunction [1/nm] at D1, D2.
D1, D2 = np.array([0.0, 10.25, 900.0]), np.array([0.0, 1100.5, 3.0])
PYFAI = {
    1: (
        [7.289049843433571, 10.283201692839107, 2.25782685568023],
        [33.73946048953436, 97.76977625599761, -11.610027288442158],
        [26.626494617112762, 37.53887832044077, 8.252746691150238],
    ),
    2: (
        [10.963912224854887, 7.031541543169746, 8.449844135521204],
        [100.522221316426, 40.417983376559484, 132.46130485521957],
        [40.01646467774703, 25.687033661207387, 30.859652765877474],
    ),
    3: (
        [8.405394537860323, 1.250773366054091, 10.540535320290926],
        [136.79699809880267, -16.519112615802413, 103.13685657526948],
        [30.697610526415527, 4.571997481343247, 38.47565757577948],
    ),
    4: (
        [2.0536407420813214, 7.571856287139264, 6.654646342111453],
        [-27.97760073271101, 135.9649446349854, 32.401010259802966],
        [7.5064950949678915, 27.658095042155864, 24.311783981166155],
    ),
}


def poni(folder: Path, **config: object) -> Path:
    settings = {"pixel1": 7.5e-05, "pixel2": 0.0001, "max_shape": [1000, 1200], **config}
    path = folder / "a.poni"
    path.write_text(
        "# Nota: C-Order, 1 refers to the Y axis, 2 to the X axis\nponi_version: 2.1\nDetector: Detector\n"
        f"Detector_config: {json.dumps(settings)}\nDistance: 0.65\nPoni1: 0.08\nPoni2: 0.11\n"
        "Rot1: 0.02\nRot2: -0.13\nRot3: 0.7\nWavelength: 3e-11\n"
    )
    return path


@pytest.mark.parametrize("orientation", [1, 2, 3, 4])
def test_a_poni_file_gives_the_angles_of_pyfai(tmp_path: Path, orientation: int) -> None:
    geometry = read_detector_geometry(poni(tmp_path, orientation=orientation), shape=(1000, 1200))
    found = scattering(geometry, D1, D2)
    two_theta, azimuth, q_nm = PYFAI[orientation]
    np.testing.assert_allclose(found.two_theta, two_theta, rtol=1e-10)
    np.testing.assert_allclose(found.azimuth, azimuth, rtol=1e-10)
    np.testing.assert_allclose(10 * found.q, q_nm, rtol=1e-8)
    np.testing.assert_allclose(found.d, 2 * np.pi / found.q)


def test_an_old_poni_file_and_one_that_names_its_detector(tmp_path: Path) -> None:
    rest = "Distance: 0.5\nPoni1: 0.0086\nPoni2: 0.0172\nRot1: 0\nRot2: 0\nRot3: 0\nWavelength: 1e-10\n"
    old, named = tmp_path / "old.poni", tmp_path / "named.poni"
    old.write_text("PixelSize1: 0.000172\nPixelSize2: 0.000172\n" + rest)
    named.write_text("poni_version: 2\nDetector: Pilatus1M\nDetector_config: {}\n" + rest)
    for path in (old, named):
        # The point of normal incidence is 50 and 100 pixels from the outer corner, so half a pixel less from a centre.
        found = scattering(read_detector_geometry(path), [49.5, 149.5], [99.5, 99.5])
        np.testing.assert_allclose(found.two_theta, [0, np.rad2deg(np.arctan(100 * 172e-6 / 0.5))], atol=1e-9)
        assert found.azimuth[1] == pytest.approx(90)
    named.write_text("poni_version: 2\nDetector: Pilatus4 1M\nDetector_config: {}\n" + rest)
    assert np.linalg.norm(read_detector_geometry(named).row_step) == pytest.approx(150e-6)
    named.write_text("poni_version: 2\nDetector: Fridge\nDetector_config: {}\n" + rest)
    with pytest.raises(InputError, match=r"found detector Fridge without a pixel size"):
        read_detector_geometry(named)


def instrument(tilt: list[float], translation: list[float], **panel: object) -> dict:
    pixels = {"rows": 100, "columns": 200, "size": [0.1, 0.2]}
    detector = {"pixels": pixels, "transform": {"tilt": tilt, "translation": translation}, **panel}
    beam = {"energy": 12.398419843320026, "vector": {"azimuth": 90.0, "polar_angle": 90.0}}
    return {"beam": beam, "detectors": {"ff1": detector}}


def test_a_panel_of_hexrd_stands_where_its_documentation_says(tmp_path: Path) -> None:
    path = tmp_path / "instrument.yml"
    path.write_text(yaml.safe_dump(instrument([0.0, 0.0, 0.0], [5.0, 2.0, -1000.0])))
    geometry = read_detector_geometry(path, shape=(100, 200))
    # The middle of 100 x 200 pixels; hexrd's x is to the right and y up, and rows count downwards.
    right, up, along = positions(geometry, [49.5], [99.5])[0] * [-1, 1, 1]
    assert (right, up, along) == pytest.approx((5e-3, 2e-3, 1.0))
    found = scattering(geometry, [49.5 - 30], [99.5])
    assert found.two_theta[0] == pytest.approx(np.rad2deg(np.arctan(np.hypot(5.0, 5.0) / 1000)))
    assert found.azimuth[0] == pytest.approx(45)  # eta of hexrd: up by 30 rows of 0.1 mm and 2, right by 5
    assert found.d[0] == pytest.approx(1 / (2 * np.sin(np.deg2rad(found.two_theta[0]) / 2)))


def test_a_tilted_panel_of_hexrd_turns_about_its_middle_right_handed(tmp_path: Path) -> None:
    path = tmp_path / "instrument.yml"
    path.write_text(yaml.safe_dump(instrument([0.0, 0.1, 0.0], [0.0, 0.0, -1000.0])))
    # About y (up) by 0.1 rad, right-handed: the right half of the panel moves along the beam.
    middle, right = positions(read_detector_geometry(path), [49.5, 49.5], [99.5, 149.5])
    np.testing.assert_allclose(right - middle, [-10e-3 * np.cos(0.1), 0, 10e-3 * np.sin(0.1)], atol=1e-12)


def store(group: h5py.Group, values: dict) -> None:
    for name, value in values.items():
        if isinstance(value, dict):
            store(group.create_group(name), value)
        else:
            group[name] = value


def test_an_instrument_of_hexrd_in_hdf5_is_the_same_as_in_yaml(tmp_path: Path) -> None:
    values = instrument([0.01, -0.02, 0.03], [5.0, 2.0, -1000.0], detector_type="planar", buffer=np.zeros((100, 200)))
    with h5py.File(tmp_path / "a.hexrd", "w") as file:
        store(file.create_group("instrument"), values)
    del values["detectors"]["ff1"]["buffer"]
    (tmp_path / "a.yml").write_text(yaml.safe_dump(values))
    one, other = (read_detector_geometry(tmp_path / name) for name in ("a.hexrd", "a.yml"))
    for first, second in zip(one[1:], other[1:], strict=True):
        np.testing.assert_array_equal(first, second)
    with h5py.File(tmp_path / "b.h5", "w") as file:
        file["instrument/detectors/ff1/detector_type"] = "cylindrical"
    with pytest.raises(InputError, match="a cylindrical detector"):
        read_detector_geometry(tmp_path / "b.h5")


def test_what_is_no_flat_panel_of_hexrd_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "instrument.yml"

    def refused(values: dict, **arguments: object) -> str:
        path.write_text(yaml.safe_dump(values))
        with pytest.raises(InputError) as caught:
            read_detector_geometry(path, **arguments)
        return str(caught.value)

    whole = instrument([0.0, 0.0, 0.0], [0.0, 0.0, -1000.0])
    assert "a cylindrical detector" in refused(
        instrument([0.0] * 3, [0.0, 0.0, -1.0], detector_type="cylindrical", radius=50.0)
    )
    for function, parameters, message in (
        ("Barrel", [1e-4], "distortion: found function_name Barrel, expected one of GE_41RT"),
        ("GE_41RT", [1e-4, 0, 0, 2, 2], "parameters = [0.0001, 0.0, 0.0, 2.0, 2.0], expected 6 finite numbers"),
        ("GE_41RT", [1e-4, 0, 0, 2, -2, 2], "powers of the radius [2.0, -2.0, 2.0]"),
        ("Dexela_2923_quad", [0, 1, 1, 0, 1, 1], "which map the panel to a line"),
    ):
        bent = {"function_name": function, "parameters": parameters}
        assert message in refused(instrument([0.0] * 3, [0.0, 0.0, -1.0], distortion=bent))
    assert "no detector ff2" in refused(whole, detector="ff2")
    assert "expected (300, 200), as the raw frames" in refused(whole, shape=(300, 200))
    assert "whose plane contains the sample" in refused(instrument([0.0] * 3, [0.0] * 3))
    assert "translation = [0.0, 0.0]" in refused(instrument([0.0] * 3, [0.0, 0.0]))


def add_axis(group: h5py.Group, name: str, value: float, kind: str, vector: list[float], units: str, **more: object):
    axis = group.create_dataset(name, data=[value])
    axis.attrs.update({"transformation_type": kind, "vector": vector, "units": units, **more})


@pytest.fixture
def nexus(tmp_path: Path) -> Path:
    """A detector of pixels of 0.1 x 0.2 mm, 400 mm away on an arm that is turned to the left by 30 degrees."""
    path = tmp_path / "a.nxs"
    with h5py.File(path, "w") as file:
        beam = file.create_group("entry/instrument/beam")
        beam.attrs["NX_class"] = "NXbeam"
        beam["incident_wavelength"] = 1.0
        beam["incident_wavelength"].attrs["units"] = "angstrom"
        detector = file.create_group("entry/instrument/detector")
        detector.attrs["NX_class"] = "NXdetector"
        axes = detector.create_group("transformations")
        add_axis(axes, "arm", 30.0, "rotation", [0, 1, 0], "deg", depends_on=".")
        add_axis(axes, "distance", 400.0, "translation", [0, 0, 1], "mm", depends_on="arm")
        module = detector.create_group("module")
        module.attrs["NX_class"] = "NXdetector_module"
        above = "/entry/instrument/detector/transformations/distance"
        # 50 rows and 80 columns to the normal from the sample, from the outer corner of pixel (0, 0).
        add_axis(
            module, "module_offset", 0.0, "translation", [1, 0, 0], "mm",
            offset=[16.0, 5.0, 0.0], offset_units="mm", depends_on=above,
        )  # fmt: skip
        offset = "/entry/instrument/detector/module/module_offset"
        add_axis(module, "fast_pixel_direction", 0.2, "translation", [-1, 0, 0], "mm", depends_on=offset)
        add_axis(module, "slow_pixel_direction", 0.1, "translation", [0, -1, 0], "mm", depends_on=offset)
    return path


def test_a_nexus_chain_turns_the_detector(nexus: Path) -> None:
    geometry = read_detector_geometry(nexus)
    found = scattering(geometry, [49.5, 49.5, -0.5], [79.5, 129.5, 79.5])
    # To the left is azimuth 180; 50 columns to the right are 10 mm at 400 mm.
    np.testing.assert_allclose(found.two_theta[:2], [30, 30 - np.rad2deg(np.arctan(10 / 400))])
    assert abs(found.azimuth[0]) == pytest.approx(180)
    up = np.array([400 * np.sin(np.pi / 6), 5.0, 400 * np.cos(np.pi / 6)])
    assert found.two_theta[2] == pytest.approx(np.rad2deg(np.arccos(up[2] / np.linalg.norm(up))))
    assert found.azimuth[2] == pytest.approx(np.rad2deg(np.arctan2(5.0, -up[0])))
    assert found.d[0] == pytest.approx(1 / (2 * np.sin(np.pi / 12)))


def test_a_nexus_detector_with_its_beam_centre_and_distance(tmp_path: Path) -> None:
    path = tmp_path / "a.nxs"
    with h5py.File(path, "w") as file:
        for name in ("left", "right"):
            detector = file.create_group(f"entry/instrument/{name}")
            detector.attrs["NX_class"] = "NXdetector"
            values = {"x_pixel_size": (75, "um"), "y_pixel_size": (75e-6, "m"), "distance": (0.3, "m")}
            values |= {"beam_center_x": (100.0, "pixel"), "beam_center_y": (3.75, "mm")}
            for key, (value, unit) in values.items():
                detector[key] = value
                detector[key].attrs["units"] = unit
        del file["entry/instrument/right/distance"].attrs["units"]
    with pytest.raises(InputError, match="found /entry/instrument/left, /entry/instrument/right"):
        read_detector_geometry(path)
    with pytest.raises(InputError, match="units missing"):
        read_detector_geometry(path, detector="right")
    geometry = read_detector_geometry(path, detector="left")
    found = scattering(geometry, [49.5, 49.5], [99.5, 139.5])
    np.testing.assert_allclose(found.two_theta, [0, np.rad2deg(np.arctan(0.01))], atol=1e-9)
    assert found.azimuth[1] == pytest.approx(0, abs=1e-9)
    assert geometry.energy_kev is None and np.isnan(found.d).all()
    assert scattering(geometry, [0], [0], energy_kev=10.0).d[0] > 0


def test_errors_are_those_of_repeated_measurements(tmp_path: Path) -> None:
    geometry = read_detector_geometry(poni(tmp_path))
    rng = np.random.default_rng(0)
    row, col, row_err, col_err = 640.0, 210.0, 0.3, 0.05
    many = scattering(geometry, row + row_err * rng.normal(size=40_000), col + col_err * rng.normal(size=40_000))
    stated = scattering(geometry, [row], [col], row_err=[row_err], col_err=[col_err])
    for name in ("two_theta", "azimuth", "q", "d"):
        assert getattr(stated, f"{name}_err")[0] == pytest.approx(np.std(getattr(many, name)), rel=0.02), name
    assert np.isnan(scattering(geometry, [row], [col]).d_err).all()


def test_a_beam_along_another_direction_changes_the_angles() -> None:
    tilted = np.array([np.sin(0.01), 0.0, np.cos(0.01)])
    place = dict(where="x", row_step=np.array([0, -1e-4, 0]), col_step=np.array([-1e-4, 0, 0]), energy_kev=10.0)
    geometry = DetectorGeometry(origin=np.array([0, 0, 1.0]), beam=tilted, shape=None, **place)
    found = scattering(geometry, [0.0], [0.0])
    # Seen along a beam that goes to the left, the pixel straight ahead lies to the right.
    assert found.two_theta[0] == pytest.approx(np.rad2deg(0.01)) and found.azimuth[0] == pytest.approx(0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.poni", "Distance: far\n", "Distance far"),
        ("a.poni", "poni_version: 2\nDetector_config: {nothing\n", "Detector_config {nothing"),
        ("a.poni", 'Detector_config: {"splineFile": "halccd.spline"}\n', "a detector described by halccd.spline"),
        ("a.yml", "beam: {}\n", "no detectors"),
        ("a.txt", "x\n", "suffix .txt"),
        ("a.nxs", "\x89HDF\r\n", "suffix .nxs"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content, encoding="latin-1")
    with pytest.raises(InputError) as caught:
        read_detector_geometry(path)
    assert message in str(caught.value) and str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_the_stage_gives_angles_of_both_methods_in_detector_pixels(tmp_path: Path) -> None:
    shape, binning = (500, 600), 2
    known = FrameConditions(np.array([0.0, 0.25, 0.5]), np.array([np.nan, np.nan, 50.0]))
    frames = ((number, np.zeros(shape)) for number in (0, 2))
    write_frames(tmp_path / "frames.h5", frames, shape=shape, binning=binning, conditions=known)
    row, col, frame = [10.25, 300.0], [30.5, 20.0], [0, 1]
    for name, error, more in (("peaks.h5", "err", {"converged": np.array([1, 0])}), ("located.h5", "std", {})):
        columns = {f"row_{error}": np.array([0.1, 0.2]), f"col_{error}": np.array([0.1, 0.1]), **more}
        write_peaks(tmp_path / name, frame, row, col, [0.0, 0.0], [1, 1], columns=columns)
    out, files = tmp_path / "angles.parquet", {"fitted": tmp_path / "peaks.h5", "located": tmp_path / "located.h5"}
    metrics = bragg.geometry(tmp_path / "frames.h5", poni(tmp_path), out=out, **files)
    table = pd.read_parquet(out)
    assert table["method"].tolist() == ["fit", "fit", "network", "network"]
    assert table["omega"].tolist() == [0, 0.5] * 2 and table["converged"].tolist()[:2] == [1, 0]
    # Pixels of 2 x 2: the centre of the first lies half a pixel from that of the first detector pixel.
    rows, cols = 2 * np.array(row) + 0.5, 2 * np.array(col) + 0.5
    geometry = read_detector_geometry(tmp_path / "a.poni")
    energy = [geometry.energy_kev, 50.0]  # the frame's own energy, where it has one
    expected = scattering(geometry, rows, cols, row_err=[0.2, 0.4], col_err=[0.2, 0.2], energy_kev=energy)
    for part in (table[:2], table[2:]):
        for name, values in expected._asdict().items():
            np.testing.assert_allclose(part[name], values, rtol=1e-6, err_msg=name)
    assert metrics["peaks"] == 4 and metrics["max_two_theta"] == pytest.approx(expected.two_theta.max())


def test_the_stage_refuses_another_detector_and_no_peaks(tmp_path: Path) -> None:
    write_frames(tmp_path / "frames.h5", [(0, np.zeros((9, 11)))], shape=(9, 11))
    with pytest.raises(InputError, match="at least one file of peaks"):
        bragg.geometry(tmp_path / "frames.h5", poni(tmp_path), out=tmp_path / "a.parquet")
    write_peaks(tmp_path / "peaks.h5", [0], [1.0], [1.0], [0.0], [1])
    with pytest.raises(InputError, match=r"a detector of \(1000, 1200\) pixels, expected \(9, 11\)"):
        bragg.geometry(tmp_path / "frames.h5", poni(tmp_path), out=tmp_path / "a.parquet", fitted=tmp_path / "peaks.h5")
