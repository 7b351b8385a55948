"""A measured rocking scan of one particle, from raw frames to strain by one command, coarse and with few iterations."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.ndimage import label

from cathodeflow.bcdi.geometry import q_vector, restored
from cathodeflow.io.phasing import read_starts
from cathodeflow.io.reconstructions import Reconstruction, read_cxi

from ..conftest import run_stage

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")).resolve() / "bcdi"

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}: set CATHODEFLOW_DATA")

# The middle of the peak alone: voxels twice as large on two axes, an eighth of the time.
CONFIG = """
bcdi:
  samples: none
  prepare: {threshold: 2, bins: [3, 1, 1], size: [64, 64, 64]}
  phase: {recipe: 20*ER+80*HIO+20*ER, starts: 3, shrink_every: 10, seed: 54, threads: 1}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of the scan."""
    here = tmp_path_factory.mktemp("scan")
    (here / "c.yaml").write_text(CONFIG)
    raw = ["--dark", str(DATA / "dark.tif"), "--whitefield", str(DATA / "whitefield.tif")]
    raw += ["--spec", str(DATA / "example.spec"), "--scan", "54"]
    run = run_stage(
        here, "bcdi", "reconstruct", str(DATA / "aps34idc_S0054"), *raw, "--out", "out", "--config", "c.yaml"
    )
    assert run.returncode == 0, run.stderr
    return here / "out"


@pytest.fixture(scope="module")
def particle(folder: Path) -> Reconstruction:
    """The best object in the laboratory."""
    return read_cxi(folder / "reconstruction.cxi")


def figures(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())["metrics"]
    return found


def test_frames_are_joined_as_the_options_say_and_the_estimate_is_on_the_safe_side(folder: Path) -> None:
    found = figures(folder / "prepare.json")
    axes = ("frames", "rows", "cols")
    assert [found[f"oversampling_binning_{axis}"] for axis in axes] == [3, 1, 1]
    # The crystal has 7 to 10, 3.3 to 4.8 and about 4 along these axes (extents of the reconstruction).
    estimated = [found[f"oversampling_estimated_{axis}"] for axis in axes]
    assert 3 < estimated[0] < 10 and 3 < estimated[1] < 5.5 and 2.8 < estimated[2] < 4.5
    # The whole detector's dark and white field were cut to the frames' region; the peak lies in the window.
    assert found["dark_bad_pixels"] > 0 and found["whitefield_bad_pixels"] > 0 and found["negative_voxels"] == 0
    assert found["edge_share_lost"] < 0.001 and found["size_share_lost"] < 0.03


def test_it_is_one_compact_crystal(particle: Reconstruction) -> None:
    parts, count = label(particle.support)
    assert np.bincount(parts.ravel())[1:].max() > 0.98 * particle.support.sum(), count
    extent = (np.ptp(np.argwhere(particle.support), axis=0) + 1) * particle.voxel_nm[0]
    assert (extent > 200).all() and (extent < 500).all()
    # A box around a convex body is about half full, one around ghosts is not.
    assert particle.support.sum() * particle.voxel_nm[0] ** 3 > 0.4 * extent.prod()


def test_starts_agree_on_it(folder: Path) -> None:
    table = pd.read_csv(folder / "metrics.csv")
    assert len(table) == 3 and (table["correlation_with_best"] > 0.88).all()
    assert (table["support_fraction"] < 0.03).all() and (table["error"] < 0.15).all()
    curves = pd.read_csv(folder / "curves.csv")
    prtf = curves[curves["curve"] == "PRTF"]
    assert (prtf["value"] > prtf["threshold"]).mean() > 0.9
    errors = read_starts(folder / "objects.h5").errors
    assert errors.shape == (3, 120) and (errors[:, -1] < 0.5 * errors[:, 0]).all()


def test_strain_is_that_of_a_metal_not_of_noise(folder: Path, particle: Reconstruction) -> None:
    # Gold 111, 0.23545 nm; the middle of the detector is not exactly on the peak.
    q = np.linalg.norm(q_vector(restored(particle.geometry)))
    assert 2 * np.pi / q == pytest.approx(0.2354, rel=0.015)
    name, unit, values = particle.fields[0]
    known = values[np.isfinite(values)]
    assert (name, unit) == ("strain along Q", "1") and len(known) > 0.5 * particle.support.sum()
    assert np.abs(np.quantile(known, [0.05, 0.95])).max() < 2e-3 and 5e-5 < known.std() < 1e-3
    assert {"slices.png", "diffraction.png", "particle.html", "reconstruction.vti"} <= {
        p.name for p in folder.iterdir()
    }
