"""Which raw files a scan depends on."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from cathodeflow.bragg.options import Scan, Simulate
from cathodeflow.bragg.raw_data import correction_files, raw_files, source


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
    assert correction_files(scan) == ["results/raw/bragg/a/dark.tif", "results/raw/bragg/a/mask.tif"]
