"""Peaks and spots as other programs read them, read back: by ImageD11, silx and nexusformat where they are installed."""

from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from cathodeflow import bragg
from cathodeflow.bragg.scattering import scattering
from cathodeflow.errors import InputError
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.io.geometry_files import read_detector_geometry
from cathodeflow.io.peaks import read_peaks, write_peaks
from cathodeflow.io.raw_format import FrameConditions
from cathodeflow.io.tables import write_table

SHAPE = (30, 40)
FORMATS = ("imaged11", "imaged11-hdf5", "hexrd", "nexus")
PONI = """poni_version: 2.1
Detector: Detector
Detector_config: {"pixel1": 1e-4, "pixel2": 2e-4, "max_shape": [60, 80], "orientation": 3}
Distance: 0.1
Poni1: 0.002
Poni2: 0.003
Rot1: 0.01
Rot2: -0.02
Rot3: 0.03
Wavelength: 4e-11
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A scan of three frames, binned by 2: three good peaks and one with a flag; a spot of two frames."""
    path = tmp_path_factory.mktemp("export")
    angles = FrameConditions(np.array([10.0, 10.5, 11.0]), np.full(3, np.nan))
    frames = enumerate(np.ones((3, *SHAPE)))
    write_frames(path / "frames.h5", frames, shape=SHAPE, binning=2, raw_shape=(60, 80), conditions=angles)
    row, col = np.array([3.25, 3.5, 20, 9]), np.array([5.5, 5.75, 30, 9])
    columns = {"detector_row": 2 * row + 0.5, "detector_col": 2 * col + 0.5, "candidate": np.arange(4)}
    columns |= {"amplitude": np.array([100.0, 50, 80, 5]), "amplitude_err": np.array([10.0, 7, 9, 3])}
    columns |= {"background": np.full(4, 2.0), "mixing": np.zeros(4), "fwhm_row": np.array([2.0, 2, 2.5, 2])}
    columns |= {"fwhm_col": np.full(4, 3.0), "row_err": np.full(4, 0.01), "col_err": np.full(4, 0.02)}
    columns |= {
        "good": np.array([1, 1, 1, 0]),
        "converged": np.ones(4),
        "persistence": np.full(4, 50.0),
        "chi2": np.ones(4),
    }
    write_peaks(path / "peaks.h5", [0, 1, 2, 2], row, col, np.zeros(4), np.ones(4), columns=columns)
    spots = {"spot": [4, 9], "first_frame": [0, 2], "last_frame": [1, 2], "row": [7.1, 40.5], "col": [11.6, 60.5]}
    spots |= {"row_err": [0.02, 0.03], "col_err": [0.02, 0.03], "fwhm_row": [4.0, 5], "fwhm_col": [6.0, 6]}
    spots |= {"omega": [10.2, 11.0], "omega_err": [0.01, 0.3], "intensity": [900.0, 500], "intensity_err": [30.0, 25]}
    write_table(path / "spots.parquet", {**spots, "good": [True, False]})
    (path / "geometry.poni").write_text(PONI)
    return path


def exported(folder: Path, out: Path, formats: tuple[str, ...] = FORMATS, *, only_good: bool = True) -> dict[str, int]:
    given = {"frames": folder / "frames.h5", "geometry": folder / "geometry.poni"}
    options = bragg.Export(formats=formats, only_good=only_good)
    return bragg.export([folder / "peaks.h5", folder / "spots.parquet"], out=out, **given, options=options)


@pytest.fixture(scope="module")
def files(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("files")
    assert exported(folder, out) == {"peaks": 3, "spots": 1}
    return out


def columnfile(path: Path) -> pd.DataFrame:
    names = path.read_text().splitlines()[0].removeprefix("#").split()
    return pd.DataFrame(np.loadtxt(path, ndmin=2), columns=names)


def expected_peaks() -> dict[str, list[float]]:
    """Columns of ImageD11 by hand: s is the row, f the column, both in detector pixels with centres at integers."""
    # A Gaussian of one half of its height at half the width: A pi w h / (4 ln 2), 15/16 of it within one full width.
    gauss = np.pi / (4 * np.log(2)) * (1 - 2.0**-4)
    return {
        "sc": [7.0, 7.5, 40.5], "fc": [11.5, 12.0, 60.5], "omega": [10.0, 10.5, 11.0],
        "sum_intensity": [gauss * 600, gauss * 300, gauss * 600], "sigs": [4 / 2.354820, 4 / 2.354820, 5 / 2.354820],
        "Number_of_pixels": [75, 75, 94], "onfirst": [1, 0, 0], "onlast": [0, 0, 1], "spot3d_id": [0, 1, 2],
    }  # fmt: skip


def test_a_columnfile_has_the_columns_of_imaged11_in_detector_pixels(files: Path) -> None:
    table = columnfile(files / "peaks.flt")
    for name, values in expected_peaks().items():
        np.testing.assert_allclose(table[name], values, rtol=1e-5, err_msg=name)
    assert table["s_raw"].equals(table["sc"]) and table["f_raw"].equals(table["fc"])
    np.testing.assert_allclose(table["avg_intensity"] * table["Number_of_pixels"], table["sum_intensity"], rtol=1e-5)
    spots = columnfile(files / "spots.flt")
    assert spots[["sc", "fc", "omega", "sum_intensity", "spot3d_id"]].to_numpy().tolist() == [[7.1, 11.6, 10.2, 900, 4]]
    assert spots["Number_of_pixels"][0] == 2 * round(np.pi * 24) and spots["onfirst"][0] == 1


def test_imaged11_reads_both_columnfiles(files: Path) -> None:
    columns = pytest.importorskip("ImageD11.columnfile")
    for name in ("peaks.flt", "peaks.flt.h5"):
        read = columns.columnfile(str(files / name))
        assert read.nrows == 3
        for title, values in expected_peaks().items():
            np.testing.assert_allclose(read.getcolumn(title), values, rtol=1e-5, err_msg=f"{name} {title}")
    assert list(read.titles[:4]) == ["sc", "fc", "omega", "Number_of_pixels"]


def test_imaged11_computes_the_scattering_angles_of_our_geometry(folder: Path, files: Path) -> None:
    columns = pytest.importorskip("ImageD11.columnfile")
    parameters = pytest.importorskip("ImageD11.parameters")
    read = columns.columnfile(str(files / "spots.flt"))
    # The PONI file in the terms of ImageD11 without tilts: poni 1 and 2 are the beam centre.
    flat = folder / "flat.poni"
    flat.write_text(PONI.replace("Rot1: 0.01", "Rot1: 0").replace("Rot2: -0.02", "Rot2: 0").replace("0.03", "0"))
    ours = scattering(read_detector_geometry(flat), read.sc, read.fc)
    given = {"distance": 1e5, "z_center": 20.0 - 0.5, "y_center": 15.0 - 0.5, "z_size": 100.0, "y_size": 200.0}
    given |= {"tilt_x": 0, "tilt_y": 0, "tilt_z": 0, "o11": 1, "o12": 0, "o21": 0, "o22": -1, "wavelength": 0.4}
    given |= {"wedge": 0, "chi": 0, "t_x": 0, "t_y": 0, "t_z": 0, "omegasign": 1}
    read.updateGeometry(parameters.parameters(**given))
    np.testing.assert_allclose(read.tth, ours.two_theta, rtol=1e-6)
    np.testing.assert_allclose(read.ds, 1 / ours.d, rtol=1e-6)


def test_hexrd_reads_radians_and_millimetres_on_the_panel(folder: Path, files: Path) -> None:
    header = (files / "peaks.hexrd.out").read_text().splitlines()[0]
    assert header.split()[:5] == ["#", "ID", "PID", "H", "K"] and "meas tth" in header
    # hexrd reads its tables in this way, and takes the columns by their numbers.
    table = np.loadtxt(files / "peaks.hexrd.out")
    assert table.shape == (3, 17) and np.isnan(table[:, 2:5]).all() and np.isnan(table[:, 7:10]).all()
    peaks = read_peaks(folder / "peaks.h5", None)
    place = read_detector_geometry(folder / "geometry.poni")
    row, col = peaks["detector_row"][:3], peaks["detector_col"][:3]
    found = scattering(place, row, col)
    np.testing.assert_allclose(np.rad2deg(table[:, 10]), found.two_theta, rtol=1e-6)
    np.testing.assert_allclose(np.rad2deg(table[:, 11]), found.azimuth, rtol=1e-6)
    np.testing.assert_allclose(np.rad2deg(table[:, 12]), [10.0, 10.5, 11.0], rtol=1e-7)
    # x to the right and y up from the centre of a panel of 60 x 80 pixels of 0.1 and 0.2 mm.
    np.testing.assert_allclose(table[:, 15], 0.2 * (col - 39.5), rtol=1e-6)
    np.testing.assert_allclose(table[:, 16], 0.1 * (29.5 - row), rtol=1e-6)
    assert table[:, 6].tolist() == [100, 50, 80]


def test_nexus_has_a_signal_with_errors_axes_and_units(files: Path) -> None:
    with h5py.File(files / "spots.nxs") as file:
        group = file[file.attrs["default"]]
        group = group[group.attrs["default"]]
        assert group.attrs["NX_class"] == "NXdata" and list(group.attrs["axes"]) == ["peak"]
        signal = group[group.attrs["signal"]]
        assert signal[()].tolist() == [900.0] and signal.attrs["units"] == "counts"
        assert group["intensity_errors"][()].tolist() == [30.0]
        assert group["row"][()].tolist() == [7.1] and group["omega"].attrs["units"] == "degree"
        assert group["d"].attrs["units"] == "angstrom" and group["d"][0] > 0 and "height" not in group
        assert {group.attrs[f"{name}_indices"] for name in ("peak", "row", "col", "omega", "two_theta")} == {0}


def test_silx_and_nexusformat_accept_the_nexus_file(files: Path) -> None:
    nxdata = pytest.importorskip("silx.io.nxdata")
    tree = pytest.importorskip("nexusformat.nexus")
    with h5py.File(files / "peaks.nxs") as file:
        found = nxdata.get_default(file)
        assert (
            found is not None
            and found.is_valid
            and found.signal_dataset_name == "intensity"
            and found.errors is not None
        )
    root = tree.nxload(str(files / "peaks.nxs"))
    data = root.get_default()
    assert data.nxsignal.nxname == "intensity" and data.nxaxes[0].nxname == "peak"
    np.testing.assert_allclose(data.nxerrors.nxdata, h5py.File(files / "peaks.nxs")["entry/peaks/intensity_errors"][()])


def test_flagged_peaks_are_left_out_unless_they_are_wanted(folder: Path, tmp_path: Path) -> None:
    assert exported(folder, tmp_path, ("imaged11",), only_good=False) == {"peaks": 4, "spots": 2}
    assert columnfile(tmp_path / "peaks.flt")["sc"].tolist() == [7.0, 7.5, 40.5, 18.5]


def test_equal_peaks_give_equal_bytes(folder: Path, files: Path, tmp_path: Path) -> None:
    exported(folder, tmp_path)
    written = sorted(path.name for path in files.iterdir())
    assert len(written) == 8
    assert all((tmp_path / name).read_bytes() == (files / name).read_bytes() for name in written)


def test_peaks_alone_are_exported_with_unknown_angles(folder: Path, tmp_path: Path) -> None:
    bragg.export([folder / "peaks.h5"], out=tmp_path, options=bragg.Export(formats=("imaged11", "nexus")))
    table = columnfile(tmp_path / "peaks.flt")
    assert table["omega"].isna().all() and "onfirst" not in table
    np.testing.assert_allclose(table["sigs"], expected_peaks()["sigs"], rtol=1e-5)
    with h5py.File(tmp_path / "peaks.nxs") as file:
        assert "omega" not in file["entry/peaks"] and "two_theta" not in file["entry/peaks"]


@pytest.mark.parametrize(
    ("given", "formats", "line"),
    [
        ({}, (), "--formats: found nothing, expected at least one of imaged11"),
        ({}, ("hexrd",), "--geometry: found nothing"),
    ],
)
def test_what_is_missing_is_named(
    folder: Path, tmp_path: Path, given: dict[str, object], formats: tuple[str, ...], line: str
) -> None:
    with pytest.raises(InputError, match=line):
        bragg.export([folder / "peaks.h5"], out=tmp_path, **given, options=bragg.Export(formats=formats))
