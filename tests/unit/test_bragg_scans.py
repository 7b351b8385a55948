"""Which raw files a scan depends on."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from cathodeflow.bragg.options import Scan, Section
from cathodeflow.bragg.peak_options import Frames, Simulate
from cathodeflow.bragg.raw_data import (
    correction_files,
    correction_flags,
    corrections,
    energy_flag,
    frames_options,
    geometry_source,
    given_files,
    raw_files,
    source,
)
from cathodeflow.errors import InputError


@pytest.fixture
def master(tmp_path: Path) -> Path:
    """A master file whose data lies in others, by a link and as a virtual dataset."""
    (tmp_path / "data").mkdir()
    for name in ("one", "two"):
        with h5py.File(tmp_path / f"data/{name}.h5", "w") as file:
            file["frames"] = np.zeros((2, 4, 5), np.uint16)
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["entry/linked"] = h5py.ExternalLink("data/one.h5", "/frames")
        layout = h5py.VirtualLayout((2, 4, 5), np.uint16)
        layout[:] = h5py.VirtualSource("data/two.h5", "frames", (2, 4, 5))
        file.create_virtual_dataset("entry/virtual", layout)
        file["entry/own"] = np.zeros((2, 4, 5), np.uint16)
    return tmp_path / "master.h5"


@pytest.mark.parametrize(
    ("dataset", "linked"), [("linked", ["one"]), ("virtual", ["two"]), ("own", []), (None, ["one", "two"])]
)
def test_files_behind_a_master_file_count(master: Path, dataset: str | None, linked: list[str]) -> None:
    frames = f"{master}::/entry/{dataset}" if dataset else str(master)
    expected = [str(master), *(str(master.parent / f"data/{name}.h5") for name in linked)]
    assert raw_files(Scan(sample="a", frames=frames), Simulate()) == expected
    assert correction_files(Scan(sample="a", frames="x", dark=frames)) == expected


@pytest.mark.parametrize("kind", ["tiff", "hdf5"])
def test_simulated_scan_reads_what_it_writes(kind: str) -> None:
    simulate, scan = Simulate(format=kind, n_frames=3), Scan(sample="a", frames="simulated")
    files = raw_files(scan, simulate)
    assert len(files) == (3 if kind == "tiff" else 1) and all(file.startswith("results/raw/bragg/a/") for file in files)
    assert source(scan, simulate).startswith("results/raw/bragg/a/frame")
    folder = "results/raw/bragg/a"
    assert correction_files(scan) == [f"{folder}/{file}" for file in ("dark.tif", "mask.tif", "omega.csv")]
    assert geometry_source(scan) == f"{folder}/geometry.poni"
    # The table and the geometry that the sheet names come first.
    own = scan.model_copy(update={"omega": "own.csv", "geometry": "own.poni"})
    assert corrections(own)["omega"] == "own.csv" and geometry_source(own) == "own.poni"
    assert given_files(scan) == {} and given_files(own) == {"omega": "own.csv"}


def test_files_and_range_of_a_row_reach_the_stage(tmp_path: Path) -> None:
    for name in ("flat.tif", "omega.csv", "raw.tif"):
        (tmp_path / name).touch()
    given = {"flat": f"{tmp_path}/flat.tif", "omega": f"{tmp_path}/omega.csv", "energy_kev": 41.99}
    scan = Scan(sample="a", frames=f"{tmp_path}/raw.tif", start=5, step=2, **given)
    assert correction_flags(scan) == f"--flat {tmp_path}/flat.tif --omega {tmp_path}/omega.csv"
    assert energy_flag(scan) == "--energy-kev 41.99" and energy_flag(Scan(sample="a", frames="b")) == ""
    assert correction_files(scan) == [given["flat"], given["omega"]]
    options = frames_options(scan, Frames(start=1, stop=9, binning=2))
    assert (options.start, options.stop, options.step, options.binning) == (5, 9, 2, 2)


def problems(tmp_path: Path, *rows: dict, **section: object) -> str:
    samples = {str(i): Scan(**{"sample": str(i), "frames": f"{tmp_path}/raw.npy", **row}) for i, row in enumerate(rows)}
    np.save(tmp_path / "raw.npy", np.zeros((3, 8, 9), np.uint16))
    try:
        checked = Section(samples="scans.tsv", **section)
        checked.check(samples)
        checked.read_headers(samples)
    except InputError as error:
        return str(error)
    return ""


def test_a_mask_of_the_other_sense_gets_a_word_before_the_night(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    mask = np.ones((8, 9), np.uint8)
    mask[2:4] = 0
    np.save(tmp_path / "mask.npy", mask)
    row = {"role": "fit", "mask": f"{tmp_path}/mask.npy"}
    assert problems(tmp_path, row, frames={"invert_mask": True}) == "" and not caplog.messages
    assert problems(tmp_path, row) == ""
    assert caplog.messages[0].endswith(
        "mask.npy are excluded; change bragg.frames.invert_mask if 0 marks its bad pixels"
    )
    assert "scan '0': 75.0 % of the pixels" in caplog.messages[0]


def test_no_training_scan_is_needed_where_all_are_only_fitted(tmp_path: Path) -> None:
    assert problems(tmp_path, {"role": "fit"}, {"role": "fit"}) == ""
    assert "no scan to train the network on" in problems(tmp_path, {"role": "fit"}, {"role": "measure"})
    assert problems(tmp_path, {"role": "fit"}, {"role": "train"}) == ""


def test_what_does_not_fit_the_frames_is_said_before_any_job(tmp_path: Path) -> None:
    fitted = {"role": "fit"}
    assert "stop: found 4, expected more than the start, 6" in problems(
        tmp_path, {**fitted, "stop": 4}, frames={"start": 6}
    )
    assert "start: found 3, expected less than the 3 frames" in problems(tmp_path, {**fitted, "start": 3})
    (tmp_path / "omega.csv").write_text("omega\n0\n1\n")
    assert "2 rows, expected 3" in problems(tmp_path, {**fitted, "omega": f"{tmp_path}/omega.csv"})
    (tmp_path / "a.poni").write_text(
        'Detector_config: {"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [9, 9]}\nDistance: 1\nPoni1: 0\nPoni2: 0\n'
    )
    found = problems(tmp_path, {**fitted, "geometry": f"{tmp_path}/a.poni"})
    assert "a detector of (9, 9) pixels, expected (8, 9), as the raw frames" in found
    assert "nowhere.poni" in problems(tmp_path, {**fitted, "geometry": f"{tmp_path}/nowhere.poni"})
    np.save(tmp_path / "flat.npy", np.ones((9, 9)))
    assert "flat.npy" in problems(tmp_path, {**fitted, "flat": f"{tmp_path}/flat.npy"})
