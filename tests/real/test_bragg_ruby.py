"""The Bragg chain, through Snakemake, on measured frames: a ruby rotated in the beam, with reference spots.

The reference spots are connected components above 25 counts with their centres of mass.
"""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.peaks import read_peaks

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")) / "bragg_ruby"
START, STOP = 390, 490
CONFIG = f"""\
seed: 1
device: cpu
bragg:
  samples: scans.tsv
  frames: {{start: {START}, stop: {STOP}}}
  find_peaks: {{min_value: 25, min_persistence: 10, min_area: 2}}
  fit: {{threshold: 150}}
  patches: {{min_value: 25}}
  train: {{epochs: 3}}
"""

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}: set CATHODEFLOW_DATA")


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the results of a run on 100 frames."""
    folder = tmp_path_factory.mktemp("ruby")
    (folder / "config.yaml").write_text(CONFIG)
    cache = next(DATA.glob("*-cachefile.npz")).resolve()
    (folder / "scans.tsv").write_text(f"sample\trole\tframes\nruby\ttrain\t{cache}\n")
    subprocess.run(
        [
            sys.executable,
            "-m",
            "snakemake",
            "--snakefile",
            ROOT / "Snakefile",
            "--configfile",
            "config.yaml",
            "--cores",
            "2",
        ],
        cwd=folder,
        check=True,
        env={**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"},
    )
    return folder / "results" / "bragg" / "ruby"


@pytest.fixture(scope="module")
def reference(results: Path) -> pd.DataFrame:
    """Reference spots of at least 6 px on these frames: frame, row, col."""
    rows: list[dict[str, Any]] = []
    with h5py.File(DATA / "spots_ff1.h5") as spots, read_frames_file(results / "frames.h5") as file:
        for index, number in enumerate(file.frame_number):
            image = file.frames[index]
            for row, col, _, top, left, bottom, right, *_ in spots[f"ff1/{number}"]:
                box = image[int(top) : int(bottom), int(left) : int(right)] > 25
                sizes = np.bincount(ndimage.label(box, np.ones((3, 3)))[0].ravel())[1:]
                if sizes.size and sizes.max() >= 6:
                    rows.append({"frame": index, "row": row, "col": col})
    table = pd.DataFrame(rows)
    assert len(table) > 100
    return table


def nearest(found: pd.DataFrame, reference: pd.DataFrame) -> tuple[np.ndarray, np.ndarray]:
    """Distance [px] from each reference spot to the nearest found one of its frame, and which that is."""
    # Frames are set far apart along a third axis.
    points = [np.column_stack([table["frame"] * 1e5, table["row"], table["col"]]) for table in (found, reference)]
    return cKDTree(points[0]).query(points[1])


def test_reference_spots_are_found(results: Path, reference: pd.DataFrame) -> None:
    distance, _ = nearest(pd.read_parquet(results / "candidates.parquet"), reference)
    assert np.mean(distance <= 1.5) >= 0.95


def test_fit_agrees_with_the_centres_of_mass(results: Path, reference: pd.DataFrame) -> None:
    peaks = read_peaks(results / "peaks.h5", ["converged", "pixels", "row_err", "too_few_pixels"])
    fitted = pd.DataFrame({"frame": peaks["peak_fidx"], "row": peaks["peak_row"], "col": peaks["peak_col"]})
    distance, which = nearest(fitted, reference)
    converged, enough = peaks["converged"].astype(bool), peaks["pixels"] > 7
    assert converged[which][enough[which]].mean() > 0.98
    # Components of two pixels, which most candidates are here, say less than a profile has parameters.
    assert not converged[~enough].any() and peaks["too_few_pixels"].astype(bool)[~enough].all()
    assert np.isfinite(peaks["row_err"][converged]).all()
    assert np.median(distance[distance <= 3]) < 0.25
    assert np.mean(distance <= 3) > 0.95


def test_network_locates_the_same_spots(results: Path, reference: pd.DataFrame) -> None:
    located = pd.read_parquet(results / "located.parquet")
    assert np.isfinite(located[["row", "col"]]).all(axis=None)
    # Trained for three epochs on a few dozen peaks it is no match for the fit, but it looks at the right places.
    distance, _ = nearest(located, reference)
    assert np.mean(distance <= 3) > 0.9
