"""Retrained on the demo's scans, BraggNN is more than twice as accurate as with its published weights."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cathodeflow.bragg.matching import match
from cathodeflow.bragg.model import from_weights
from cathodeflow.bragg.network_options import Locate
from cathodeflow.bragg.positions import build_locator
from cathodeflow.bragg.training_patches import prepare_patches
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.models import load_model

from ..conftest import ROOT, Project

DATA = Path(os.environ.get("CATHODEFLOW_DATA", ROOT.parent / "shared" / "data")) / "bragg_upstream"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason=f"no {DATA}: set CATHODEFLOW_DATA")


@pytest.mark.parametrize("scan", ["charge_055", "charge_070", "charge_090"])
@pytest.mark.parametrize("published", ["fc16_8_4_2-sz11.pth", "fc16_8_4_2-sz11-aug0.pth"])
def test_median_error_against_the_truth_is_below_half(demo: Project, scan: str, published: str) -> None:
    results = demo.folder / "results"
    candidates = pd.read_parquet(results / f"bragg/{scan}/candidates.parquet").query("central")
    truth = pd.read_parquet(results / f"raw/bragg/{scan}/truth.parquet")
    patches = []
    with read_frames_file(results / f"bragg/{scan}/frames.h5") as file:
        for number, rows in candidates.groupby("frame"):
            frame = file.frames[int(number)]
            patches.append(prepare_patches(frame, rows["row"], rows["col"], patch_size=11, min_value=20)[0])
    pixels = candidates[["row", "col"]].to_numpy()
    near = match(pixels, truth[["row", "col"]], max_distance=2, a_frame=candidates["frame"], b_frame=truth["frame"])
    assert len(near.a) > 1000

    def median_error(path: Path) -> float:
        locator = build_locator(
            from_weights(load_model(path)[0], patch_size=11, where=path.name), Locate(uncertainty=False)
        )
        found = locator(np.concatenate(patches))
        position = pixels - 5 + np.column_stack([found.row, found.col])
        return float(np.median(np.hypot(*(position[near.a] - truth[["row", "col"]].to_numpy()[near.b]).T)))

    ours, theirs = median_error(results / "bragg/model/braggnn.pt"), median_error(DATA / published)
    assert ours < 0.5 * theirs, (ours, theirs)
