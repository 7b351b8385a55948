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

from cathodeflow.bragg.scattering import scattering
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.geometry_files import read_detector_geometry
from cathodeflow.io.peaks import read_peaks

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")) / "bragg_ruby"
START, STOP = 390, 490
# Strong reflections of corundum.
LINES = ((0, 1, 2), (1, 0, 4), (1, 1, 0), (1, 1, 3), (0, 2, 4), (1, 1, 6), (2, 1, 4), (3, 0, 0))
CONFIG = f"""\
seed: 1
device: cpu
bragg:
  samples: scans.tsv
  frames: {{start: {START}, stop: {STOP}}}
  find_peaks: {{min_value: 25, min_persistence: 10, min_area: 2}}
  fit: {{threshold: 150}}
  geometry: {{detector: ff1}}
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
    place = DATA.resolve() / "dexelas_id3a_20200130.yml"
    (folder / "scans.tsv").write_text(f"sample\trole\tframes\tgeometry\nruby\ttrain\t{cache}\t{place}\n")
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


def spacing(h: int, k: int, i: int) -> float:
    """Lattice spacing of corundum, R-3c, a = 4.759 and c = 12.993 Angstrom."""
    return float(1 / np.sqrt(4 / 3 * (h * h + h * k + k * k) / 4.759**2 + (i / 12.993) ** 2))


def test_the_angle_of_every_frame_is_that_of_the_cache(results: Path) -> None:
    with read_frames_file(results / "frames.h5") as file, np.load(next(DATA.glob("*.npz"))) as cache:
        np.testing.assert_allclose(file.omega, cache["omega"][START:STOP].mean(axis=1))
        assert file.energy_kev is None


def test_the_workflow_gives_the_scattering_angles_of_ruby(results: Path) -> None:
    table = pd.read_parquet(results / "angles.parquet")
    indices = [(h, k, i) for h in range(9) for k in range(-h, h + 1) for i in range(-30, 31) if (k + i - h) % 3 == 0]
    allowed = [hkl for hkl in indices if hkl[2] % 2 == 0 or hkl[0] * hkl[1] * (hkl[0] + hkl[1])]
    d = np.array([spacing(*hkl) for hkl in allowed if hkl != (0, 0, 0)])
    lines = np.rad2deg(2 * np.arcsin(12.398419843 / 41.9906 / (2 * d[d > 0.6])))
    for method in ("fit", "network"):
        found = table[(table["method"] == method) & (table["persistence"] > 1000)]
        # Below are peaks that are not of ruby, above the lines are dense: in between they are some .2 degrees apart.
        angles = found["two_theta"][found["two_theta"].between(12, 18)].to_numpy()
        # The grains are up to .5 mm from the centre, .043 degrees at 671 mm.
        assert len(angles) > 20 and np.abs(angles[:, None] - lines).min(axis=1).max() < 0.045
    assert (table["energy_kev"] == 41.9906).all() and (table["d_err"].dropna() > 0).all()


def test_the_instrument_of_hexrd_gives_the_lattice_spacings_of_ruby() -> None:
    geometry = read_detector_geometry(DATA / "dexelas_id3a_20200130.yml", detector="ff1", shape=(3888, 3072))
    with h5py.File(DATA / "spots_ff1.h5") as file:
        spots = np.concatenate([spots[()] for spots in file["ff1"].values() if spots.ndim == 2])
    strong = spots[spots[:, 8] > 20_000]
    d = scattering(geometry, strong[:, 0], strong[:, 1]).d
    # The grains are up to .5 mm from the centre, of 671 mm.
    for hkl in LINES:
        near = np.abs(d / spacing(*hkl) - 1) < 3e-3
        assert near.sum() > 10 and np.median(d[near]) == pytest.approx(spacing(*hkl), rel=6e-4), hkl
