"""Distortion of detectors, and detectors of several modules: where their peaks are, and which pixels rays meet."""

import logging
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import yaml

from cathodeflow import bragg
from cathodeflow.bragg.detector_positions import detector_pixels, flat_pixels, frame_pixels
from cathodeflow.bragg.distortion import ideal, measured
from cathodeflow.bragg.grain_refinement import SeenRegion
from cathodeflow.bragg.scattering import positions, scattering
from cathodeflow.errors import InputError
from cathodeflow.io.detector_geometry import Distortion
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.io.geometry_files import read_detector_geometry
from cathodeflow.io.peaks import write_peaks

PARAMETERS = {
    "GE_41RT": [1.2e-3, -4e-4, 7.5e-4, 2.0, 2.5, 3.0],
    "Dexela_2923": [0.11, -0.07, 0.02, 0.3, -0.25, 0.041, 0.007, -0.0123],
    "Dexela_2923_quad": [0.05, 1.0008, -3e-4, -0.11, 2e-4, 0.9991],
}
XY = np.array([[12.5, -80.25], [-150.1, 33.3], [-0.4, -99.0], [101.0, 120.0], [0.0, 0.0], [0.0, -7.0]])
# What `apply` of these classes of hexrd computes at XY [mm].
HEXRD = {
    "GE_41RT": [
        [12.497933859560156, -80.2367353783762],
        [-150.22078968417347, 33.32679744492323],
        [-0.3998957346856752, -98.97419433470459],
        [101.04142209693626, 120.04921437259753],
        [0.0, 0.0],
        [0.0, -6.99998979157287],
    ],
    "Dexela_2923": [
        [12.507, -80.2623], [-150.08, 33.6], [-0.65, -98.959], [101.11, 119.93], [0.11, -0.07], [0.007, -7.0123],
    ],
    "Dexela_2923_quad": [
        [12.416002794828946, -80.21467640924708],
        [-150.0199430073132, 33.47012710296066],
        [-0.4793102473689916, -98.97898522455364],
        [100.90533513093342, 120.19799713027086],
        [-0.049927025654352516, 0.11010908358024299],
        [-0.052027237061628567, -6.8961961710996809],
    ],
}  # fmt: skip


def panel(middle: list[float], tilt: tuple[float, float, float] = (0.0, 0.0, 0.0), **more: object) -> dict:
    """A panel of 300 x 200 pixels of 0.3 x 0.2 mm, 500 mm away."""
    pixels = {"rows": 300, "columns": 200, "size": [0.3, 0.2]}
    if "roi" in more:
        pixels["roi"] = more.pop("roi")
    return {"pixels": pixels, "transform": {"tilt": list(tilt), "translation": [*middle, -500.0]}, **more}


def hexrd(folder: Path, **panels: dict) -> Path:
    beam = {"energy": 60.0, "vector": {"azimuth": 90.0, "polar_angle": 90.0}}
    path = folder / "instrument.yml"
    path.write_text(yaml.safe_dump({"beam": beam, "detectors": panels}))
    return path


def distorted(folder: Path, function: str) -> Path:
    described = {"function_name": function, "parameters": PARAMETERS[function]}
    return hexrd(folder, ff1=panel([5.0, 2.0], (0.05, -0.1, 0.02), distortion=described))


@pytest.mark.parametrize("function", PARAMETERS)
def test_distortions_are_those_of_hexrd(function: str) -> None:
    distortion = Distortion(function, np.array(PARAMETERS[function]))
    np.testing.assert_allclose(np.column_stack(ideal(distortion, *XY.T)), HEXRD[function], rtol=0, atol=1e-9)
    back = np.column_stack(measured(distortion, *np.array(HEXRD[function]).T))
    # At the middle, the quarters of this Dexela overlap.
    clear = slice(None) if function != "Dexela_2923" else [0, 1, 2, 3, 5]
    np.testing.assert_allclose(back[clear], XY[clear], rtol=0, atol=1e-9)


def test_no_pixel_sees_the_gap_between_the_quarters_of_a_dexela() -> None:
    # The quarters are 0.2 mm apart along x, and overlap by 0.1 mm along y.
    distortion = Distortion("Dexela_2923", np.array([0.1, -0.05, -0.1, -0.05, -0.1, 0.05, 0.1, 0.05]))
    x, y = measured(distortion, np.array([0.05, -0.09, 5.0, 5.0]), np.array([9.0, -9.0, 0.02, -0.02]))
    np.testing.assert_allclose(x, [np.nan, np.nan, 4.9, 4.9])
    np.testing.assert_allclose(y[2:], [0.07, -0.07])  # both quarters see the overlap; each the half that is its own


@pytest.mark.parametrize("function", PARAMETERS)
def test_a_distorted_panel_moves_peaks_and_their_errors(tmp_path: Path, function: str) -> None:
    path = distorted(tmp_path, function)
    geometry = read_detector_geometry(path, shape=(300, 200))
    row, col = np.array([10.0, 280.3, 40.5, 177.0]), np.array([3.0, 20.2, 180.0, 190.7])
    found = positions(geometry, row, col)
    # hexrd: middle + rotation @ (ideal x, y, 0), turned by half a turn about y into the laboratory.
    x, y = (col - 99.5) * 0.2, (149.5 - row) * 0.3
    x, y = ideal(Distortion(function, np.array(PARAMETERS[function])), x, y)
    plain = hexrd(tmp_path, ff1=panel([5.0, 2.0], (0.05, -0.1, 0.02)))
    flat = read_detector_geometry(plain)
    np.testing.assert_allclose(found, positions(flat, 149.5 - y / 0.3, 99.5 + x / 0.2), rtol=0, atol=1e-12)
    assert np.abs(found - positions(flat, row, col)).max() > 1e-6
    again = detector_pixels(geometry, np.zeros_like(found), 3 * found)
    np.testing.assert_allclose(again, [row, col], rtol=0, atol=1e-7)
    # Errors, by differences; none of the steps crosses a border between quarters.
    step = 1e-3
    one = scattering(geometry, row, col, row_err=np.full(4, 0.3), col_err=np.full(4, 0.1))
    by_row, by_col = (
        [scattering(geometry, row + sign * along, col + sign * across) for sign in (1, -1)]
        for along, across in ((step, 0), (0, step))
    )
    for name in ("two_theta", "azimuth", "d"):
        slopes = [(getattr(a, name) - getattr(b, name)) / (2 * step) for a, b in (by_row, by_col)]
        expected = np.hypot(0.3 * slopes[0], 0.1 * slopes[1])
        np.testing.assert_allclose(getattr(one, f"{name}_err"), expected, rtol=1e-5, err_msg=name)


def test_a_distortion_of_zeros_changes_nothing(tmp_path: Path) -> None:
    for function, parameters in (("ge_41rt", [0, 0, 0, 2, 2, 2]), ("Dexela_2923", [0] * 8), ("Identity", [])):
        described = {"function_name": function, "parameters": parameters}
        geometry = read_detector_geometry(hexrd(tmp_path, ff1=panel([5.0, 2.0], distortion=described)))
        assert geometry.modules == ()


def test_panels_of_hexrd_make_one_frame(tmp_path: Path) -> None:
    left = panel([-25.0, 0.0], (0.02, 0.1, -0.03), roi=[4, 0], group="eiger")
    described = {"function_name": "GE_41RT", "parameters": PARAMETERS["GE_41RT"]}
    right = panel([30.0, 1.0], roi=[4, 212], group="eiger", distortion=described)
    path = hexrd(tmp_path, left=left, right=right)
    row, col = np.array([40.0, 7.5, 300.0, 40.0, 2.0, 40.0]), np.array([30.5, 199.4, 250.0, 205.0, 30.0, 412.0])
    for name in ("all", "eiger"):
        geometry = read_detector_geometry(path, detector=name, shape=(310, 412))
        found = scattering(geometry, row, col, row_err=np.ones(6), col_err=np.ones(6))
        alone = [
            scattering(read_detector_geometry(path, detector=side), row[part] - 4, col[part] - first)
            for side, part, first in (("left", slice(0, 2), 0), ("right", slice(2, 3), 212))
        ]
        expected = np.concatenate([one.two_theta for one in alone])
        np.testing.assert_allclose(found.two_theta, [*expected, np.nan, np.nan, np.nan], rtol=1e-12)
        assert np.isnan([found.d[3:], found.two_theta_err[3:]]).all() and np.isfinite(found.d_err[:3]).all()
    place = positions(geometry, row, col)
    np.testing.assert_allclose(detector_pixels(geometry, np.zeros((6, 3)), place)[1][:3], col[:3], atol=1e-7)
    # A ray against the beam meets nothing; a ray from beside the sample meets another pixel.
    assert np.isnan(detector_pixels(geometry, np.zeros((3, 3)), -place[:3])).all()
    start = np.tile([1e-3, -2e-3, 0.0], (3, 1))
    np.testing.assert_allclose(detector_pixels(geometry, start, place[:3] - start)[0], row[:3], atol=1e-7)


def test_panels_that_make_no_frame_are_refused(tmp_path: Path) -> None:
    def refused(shape: tuple[int, int] | None = None, **panels: dict) -> str:
        with pytest.raises(InputError) as caught:
            read_detector_geometry(hexrd(tmp_path, **panels), detector="all", shape=shape)
        return str(caught.value)

    one = panel([0.0, 0.0], roi=[0, 0])
    assert "detector b: found no roi" in refused(a=one, b=panel([50.0, 0.0]))
    assert "rows 0 to 299, columns 199 to 398, over another one" in refused(a=one, b=panel([50.0, 0.0], roi=[0, 199]))
    beyond = panel([50.0, 0.0], roi=[0, 200])
    assert "columns 200 to 399, expected a frame of (300, 399)" in refused((300, 399), a=one, b=beyond)
    assert "rows -1 to 298" in refused(a=panel([0.0, 0.0], roi=[-1, 0]))


@pytest.fixture
def two_modules(tmp_path: Path) -> Path:
    """Modules of 20 x 30 pixels of 0.1 mm in a frame of 20 x 64, 200 mm away; the second stands upright, 1 mm behind."""
    path = tmp_path / "two.nxs"
    with h5py.File(path, "w") as file:
        detector = file.create_group("entry/detector")
        detector.attrs["NX_class"] = "NXdetector"
        detector["data"] = np.zeros((1, 20, 64), np.uint8)
        kinds = [
            ([3.0, 1.0, 200.0], [-1, 0, 0], [0, -1, 0], 0),
            ([-3.0, -2.0, 201.0], [0, 1, 0], [-1, 0, 0], 34),
        ]
        for number, (offset, fast, slow, first) in enumerate(kinds):
            module = detector.create_group(f"module{number}")
            module.attrs["NX_class"] = "NXdetector_module"
            module["data_origin"], module["data_size"] = [0, first], [20, 30]
            above = {"depends_on": f"/entry/detector/module{number}/module_offset"}
            steps = {"fast_pixel_direction": (fast, 0.1, above), "slow_pixel_direction": (slow, 0.1, above)}
            move = {"offset": offset, "offset_units": "mm", "depends_on": "."}
            for name, (vector, value, more) in {"module_offset": ([0, 0, 1], 0.0, move), **steps}.items():
                module[name] = value
                known = {"transformation_type": "translation", "vector": vector, "units": "mm"}
                module[name].attrs.update(known | more)
    return path


def test_modules_of_a_nexus_file_stand_where_they_are(two_modules: Path) -> None:
    geometry = read_detector_geometry(two_modules, shape=(20, 64))
    place = 1e3 * positions(geometry, [9.5, 9.5, 4.0, 9.5, 4.0], [29.5, 34.0 + 19.5, 40.0, 31.0, -2.0])
    # From the outer corner of its first pixel: 10 rows down and 30 columns right; or 10 rows right, 20 columns up.
    expected = [[0.0, 0.0, 200.0], [-4.0, 0.0, 201.0], [-3.45, -1.35, 201.0], [np.nan] * 3, [np.nan] * 3]
    np.testing.assert_allclose(place, expected, atol=1e-10)
    row, col = detector_pixels(geometry, np.zeros((3, 3)), place[:3])
    np.testing.assert_allclose([row, col], [[9.5, 9.5, 4.0], [29.5, 53.5, 40.0]], atol=1e-9)


def test_pixels_of_modules_and_of_one_flat_detector_are_on_the_same_rays(two_modules: Path) -> None:
    geometry = read_detector_geometry(two_modules, shape=(20, 64))
    row, col = flat_pixels(geometry, [9.5, 4.0, 9.5], [29.5, 40.0, 31.0])
    # The first module lies in the plane; a beam to the second, 1 mm behind, meets the plane at 200 / 201 of its way.
    x, y = -3.45 * 200 / 201, -1.35 * 200 / 201
    np.testing.assert_allclose(row, [9.5, (1.0 - y) / 0.1 - 0.5, np.nan], atol=1e-9)
    np.testing.assert_allclose(col, [29.5, (3.0 - x) / 0.1 - 0.5, np.nan], atol=1e-9)
    back = frame_pixels(geometry, row.reshape(1, 3), col.reshape(1, 3))
    np.testing.assert_allclose(back, [[[9.5, 4.0, np.nan]], [[29.5, 40.0, np.nan]]], atol=1e-9)
    seen = SeenRegion((20, 64), np.array([0.5]), 1.0, geometry)
    assert seen.contains(
        np.array([row[0], row[1], 9.5]), np.array([col[0], col[1], 32.0]), np.full(3, 0.5)
    ).tolist() == [
        True,
        True,
        False,
    ]


def test_a_single_module_may_begin_inside_the_frame(two_modules: Path) -> None:
    with h5py.File(two_modules, "a") as file:
        del file["entry/detector/module0"]
    place = positions(read_detector_geometry(two_modules, shape=(20, 64)), [9.5, 9.5], [53.5, 10.0])
    np.testing.assert_allclose(1e3 * place, [[-4.0, 0.0, 201.0], [np.nan] * 3], atol=1e-10)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("data_origin", None, "found no data_origin, expected two whole numbers for each module"),
        ("data_origin", [1, 0, 0], r"data_origin of /entry/detector/module1: \[1, 0, 0\], expected two whole numbers"),
        ("data_size", [20, 31], r"rows 0 to 19, columns 34 to 64, expected a frame of \(20, 64\) pixels"),
        ("data_origin", [19, 29], "over another one"),
    ],
)
def test_modules_without_their_place_in_the_frame_are_refused(
    two_modules: Path, name: str, value: list[int] | None, message: str
) -> None:
    with h5py.File(two_modules, "a") as file:
        del file["entry/detector/module1"][name]
        if value is not None:
            file["entry/detector/module1"][name] = value
        if name == "data_origin" and value == [19, 29]:
            del file["entry/detector/data"]
    with pytest.raises(InputError, match=message):
        read_detector_geometry(two_modules, shape=None if value == [19, 29] else (20, 64))


def test_the_stage_counts_peaks_between_modules(
    two_modules: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_frames(tmp_path / "frames.h5", [(0, np.zeros((20, 64)))], shape=(20, 64))
    write_peaks(tmp_path / "peaks.h5", [0, 0, 0], [9.5, 9.5, 4.0], [29.5, 32.0, 50.0], [0.0] * 3, [1] * 3)
    files = {"out": tmp_path / "a.parquet", "fitted": tmp_path / "peaks.h5"}
    with caplog.at_level(logging.WARNING):
        metrics = bragg.geometry(tmp_path / "frames.h5", two_modules, **files)
    assert "1 of 3 peaks lie on no module of the detector: their angles are empty" in caplog.text
    table = pd.read_parquet(files["out"])
    assert table["two_theta"].isna().tolist() == [False, True, False] and metrics["peaks"] == 3
    assert metrics["max_two_theta"] == pytest.approx(table["two_theta"].max())
