"""Sample angle and photon energy per frame, from raw files and from files beside them, kept in frames.h5."""

import time
from pathlib import Path

import fabio
import h5py
import numpy as np
import pandas as pd
import pytest
import tifffile

from cathodeflow import bragg
from cathodeflow.errors import InputError
from cathodeflow.io.conditions import hdf5_conditions
from cathodeflow.io.frames import open_series
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.series_conditions import read_conditions, series_conditions

FRAME = np.arange(64 * 64, dtype=np.int32).reshape(64, 64) % 50
KEV = 12.398419843320026


def conditions(source: Path | str, name: str | None = None) -> tuple[list[float], list[float]]:
    found = series_conditions(open_series(str(source)), name)
    return found.omega.tolist(), found.energy_kev.tolist()


def test_headers_of_pilatus_in_cbf_and_tiff(tmp_path: Path) -> None:
    for index in range(3):
        header = (
            f"# Detector: PILATUS 1M\n# Wavelength 0.5000 A\n# Start_angle {10 + 0.5 * index:.4f} deg.\n"
            "# Angle_increment 0.5000 deg.\n# Omega 7.0000 deg.\n# Energy_range (0, 0) eV\n"
        )
        image = fabio.cbfimage.CbfImage(data=FRAME, header={"_array_data.header_contents": header})
        image.write(str(tmp_path / f"{index}.cbf"))
        tifffile.imwrite(tmp_path / f"{index}.tif", FRAME, description=header, metadata=None)
    for suffix in ("cbf", "tif"):
        omega, energy = conditions(tmp_path / f"*.{suffix}")
        assert omega == pytest.approx([10.25, 10.75, 11.25]) and energy == pytest.approx([2 * KEV] * 3)
        assert conditions(tmp_path / f"*.{suffix}", "Omega")[0] == [7.0] * 3
        with pytest.raises(InputError, match="no angle kappa in the files"):
            conditions(tmp_path / f"*.{suffix}", "kappa")


def test_attributes_of_areadetector_in_tiff(tmp_path: Path) -> None:
    tags = [(65010, "s", 0, "Omega:12.5", True), (65011, "s", 0, "Energy:8979", True)]
    tifffile.imwrite(tmp_path / "a.tif", FRAME, extratags=tags)
    omega, energy = conditions(tmp_path / "a.tif")
    assert omega == [12.5] and energy == pytest.approx([8.979])
    tifffile.imwrite(tmp_path / "b.tif", FRAME, description='{"omega": 3, "photon_energy": 12}', extratags=tags)
    omega, energy = conditions(tmp_path / "b.tif", "omega")
    assert omega == [12.5] and energy == [12.0]


def test_motors_of_edf_in_every_frame(tmp_path: Path) -> None:
    image = fabio.edfimage.EdfImage(
        data=FRAME, header={"motor_mne": "sam om", "motor_pos": "1 -3.5", "WaveLength": "1e-10"}
    )
    image.append_frame(data=FRAME, header={"motor_mne": "sam om", "motor_pos": "1 -3.25", "WaveLength": "1e-10"})
    image.write(str(tmp_path / "a.edf"))
    omega, energy = conditions(tmp_path / "a.edf", "om")
    assert omega == [-3.5, -3.25] and energy == pytest.approx([KEV, KEV])
    assert np.isnan(conditions(tmp_path / "a.edf")[0]).all()


def test_frame_cache_of_hexrd(tmp_path: Path) -> None:
    empty = {f"{i}_{part}": np.array([1], int) for i in range(2) for part in ("row", "col", "data")}
    limits = np.array([[0.0, 0.25], [0.25, 0.5]])
    np.savez(tmp_path / "a.npz", shape=FRAME.shape, nframes=2, dtype="uint16", omega=limits, **empty)
    assert conditions(tmp_path / "a.npz")[0] == [0.125, 0.375]


def write_nexus(path: Path, **datasets: object) -> Path:
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = np.stack([FRAME] * 3)
        beam = file.create_group("entry/instrument/beam")
        beam.attrs["NX_class"] = "NXbeam"
        beam["incident_energy"] = np.array([80.0, 81.0, 82.0])
        beam["incident_energy"].attrs["units"] = "keV"
        for name, values in datasets.items():
            file[name.replace("__", "/")] = values
    return path


def test_nexus_angles_at_the_middle_of_the_exposure(tmp_path: Path) -> None:
    start = np.array([0.0, 1.0, 2.0])
    path = write_nexus(tmp_path / "a.h5", entry__sample__omega=start, entry__sample__omega_end=start + 1)
    assert conditions(path) == ([0.5, 1.5, 2.5], [80.0, 81.0, 82.0])
    with h5py.File(path, "r+") as file:
        file["entry/sample/rot"] = np.deg2rad(start)
        file["entry/sample/rot"].attrs["units"] = "rad"
    assert conditions(path, "rot")[0] == pytest.approx([0, 1, 2])
    assert conditions(path, "/entry/sample/omega_end")[0] == [1, 2, 3]


def test_limits_in_an_hdf5_frame_cache_of_hexrd(tmp_path: Path) -> None:
    limits = np.array([[0.0, 0.25], [0.25, 0.5], [0.5, 0.75]])
    path = write_nexus(tmp_path / "a.h5", metadata__omega=limits)
    with h5py.File(path) as file:
        assert hdf5_conditions(file, 3, None).omega.tolist() == [0.125, 0.375, 0.625]


def test_a_long_text_is_no_header(tmp_path: Path) -> None:
    text = "<OME " + "word " * 400_000 + ">"
    tifffile.imwrite(tmp_path / "a.tif", FRAME, description=text, metadata=None)
    start = time.process_time()
    assert np.isnan(conditions(tmp_path / "a.tif")).all()
    assert time.process_time() - start < 5


def test_two_different_angles_of_one_name_are_not_guessed(tmp_path: Path) -> None:
    path = write_nexus(tmp_path / "a.h5", entry__sample__omega=np.arange(3.0), entry__stage__omega=np.ones(3))
    with pytest.raises(InputError, match="other angles than /entry/stage/omega"):
        conditions(path)
    assert conditions(path, "entry/stage/omega")[0] == [1, 1, 1]


SPEC = """#F scans
#O0 om  energy  phi

#S 4  ascan  om 0 2 2 1
#P0 0 11.5 33
#L om  det
0 5
1 6
2 7
"""


def test_angles_from_a_table_a_dataset_and_a_spec_scan(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("omega,energy_kev\n0,20\n1,20.5\n2,21\n")
    pd.DataFrame({"rot": [3.0, 4.0, 5.0]}).to_parquet(tmp_path / "a.parquet")
    (tmp_path / "a.spec").write_text(SPEC)
    write_nexus(tmp_path / "a.h5", angles=np.array([[0.0, 1.0], [1, 2], [2, 3]]))
    found = read_conditions(str(tmp_path / "a.csv"), 3)
    assert found.omega.tolist() == [0, 1, 2] and found.energy_kev.tolist() == [20, 20.5, 21]
    assert read_conditions(str(tmp_path / "a.parquet"), 3, "rot").omega.tolist() == [3, 4, 5]
    assert read_conditions(f"{tmp_path}/a.h5::/angles", 3).omega.tolist() == [0.5, 1.5, 2.5]
    found = read_conditions(f"{tmp_path}/a.spec::4", 3)
    assert found.omega.tolist() == [0, 1, 2] and found.energy_kev.tolist() == [11.5] * 3
    assert read_conditions(f"{tmp_path}/a.spec::4", 3, "phi").omega.tolist() == [33] * 3


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "omega\n1\n", "1 rows, expected 3"),
        ("a.csv", "theta\n1\n2\n3\n", "columns theta, expected a column omega"),
        ("a.csv", "omega\n1\nx\n3\n", "row 2: found omega = x"),
        ("a.xyz", "omega\n", "suffix .xyz"),
        ("a.spec::4", SPEC.replace("2 7\n", ""), "2 points, expected 3"),
        ("a.spec::5", SPEC, "no scan 5"),
    ],
)
def test_angles_that_do_not_fit_are_one_line(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name.partition("::")[0]).write_text(text)
    with pytest.raises(InputError) as caught:
        read_conditions(f"{tmp_path}/{name}", 3)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_frames_keep_the_angle_and_energy_of_the_frames_that_are_used(tmp_path: Path) -> None:
    raw = write_nexus(tmp_path / "a.h5", entry__sample__omega=np.array([0.0, 1.0, 2.0]))
    out = tmp_path / "frames.h5"
    source = f"{raw}::/entry/data/data"
    bragg.frames(source, out=out, options=bragg.Frames(start=1))
    with read_frames_file(out) as file:
        assert file.omega.tolist() == [1, 2] and file.energy_kev.tolist() == [81, 82]
    with h5py.File(out) as file:
        assert (file["omega"].attrs["units"], file["energy"].attrs["units"]) == ("deg", "keV")
    # A table comes before the raw file, a given energy before both.
    (tmp_path / "t.tsv").write_text("omega\n5\n6\n7\n")
    bragg.frames(source, out=out, omega=tmp_path / "t.tsv", energy_kev=90.0, options=bragg.Frames(step=2))
    with read_frames_file(out) as file:
        assert file.omega.tolist() == [5, 7] and file.energy_kev.tolist() == [90, 90]
    bragg.frames(source, out=out, omega=tmp_path / "t.tsv")
    with read_frames_file(out) as file:
        assert file.omega.tolist() == [5, 6, 7] and file.energy_kev.tolist() == [80, 81, 82]


def test_frames_without_angles_have_no_such_datasets(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", FRAME)
    bragg.frames(tmp_path / "a.tif", out=tmp_path / "frames.h5")
    with read_frames_file(tmp_path / "frames.h5") as file:
        assert file.omega is None and file.energy_kev is None


def test_an_angle_that_is_not_clear_is_no_reason_to_stop_unless_it_is_asked_for(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw = write_nexus(tmp_path / "a.h5", entry__sample__omega=np.arange(3.0), entry__stage__omega=np.ones(3))
    source, out = f"{raw}::/entry/data/data", tmp_path / "frames.h5"
    bragg.frames(source, out=out)
    assert "are not kept" in caplog.text
    with read_frames_file(out) as file:
        assert file.omega is None
    with pytest.raises(InputError, match="other angles than"):
        bragg.frames(source, out=out, options=bragg.Frames(omega_name="omega"))
