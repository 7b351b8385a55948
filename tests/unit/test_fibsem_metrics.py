"""The stage `metrics` on segmentations written by hand."""

from pathlib import Path

import numpy as np
import pandas as pd

from cathodeflow import fibsem
from cathodeflow.io.tables import write_table
from cathodeflow.io.volumes import write_volume


def test_one_network_alone_has_scores_and_no_differences(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 2, (2, 16, 16)).astype(np.uint8)
    likely = np.eye(2, dtype=np.float32)[truth].transpose(0, 3, 1, 2)
    names = {"classes": ["pore", "active"], "methods": ["forest"], "networks": ["forest"]}
    write_volume(tmp_path / "truth.zarr", truth, axes=("image", "y", "x"))
    write_volume(tmp_path / "test_labels.zarr", truth[None], axes=("method", "image", "y", "x"), attributes=names)
    write_volume(
        tmp_path / "test_probabilities.zarr", likely[None], axes=("method", "image", "c", "y", "x"), attributes=names
    )
    write_table(
        tmp_path / "test.parquet", pd.DataFrame({"image": [0, 1], "slice": [0, 1], "seed": 0, "split": "grouped"})
    )
    tables = {name: tmp_path / f"{name}.csv" for name in ("out", "per_slice", "differences")}
    found = fibsem.metrics(
        [tmp_path], truth=tmp_path / "truth.zarr", options=fibsem.Metrics(bootstrap_samples=100), **tables
    )
    assert found["miu_forest_grouped"] == 1
    differences = pd.read_csv(tables["differences"])
    assert differences.empty and {"figure", "difference", "low", "high"} <= set(differences)
