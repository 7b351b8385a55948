"""Coherent diffraction: the demo's network, trained as the demo trains it, is worth its training."""

from pathlib import Path

import pandas as pd
import pytest

from ..conftest import ROOT, Project

MODEL = "results/bcdi/model"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the network of config/bcdi.yaml, some minutes on two cores."""
    folder = tmp_path_factory.mktemp("bcdi")
    (folder / "config").symlink_to(ROOT / "config")
    (folder / "config.yaml").write_text((ROOT / "config" / "bcdi.yaml").read_text())
    Project(folder, ROOT).snakemake(f"{MODEL}/success.csv")
    return folder / MODEL


def test_a_network_and_a_few_iterations_beat_as_many_from_a_random_start(trained: Path) -> None:
    trials = pd.read_parquet(trained / "trials.parquet")
    seen = pd.read_parquet(trained / "train/crystals.parquet")["number"]
    assert trials["crystal"].nunique() >= 64 and not trials["crystal"].isin(seen).any()
    rates = pd.read_csv(trained / "success.csv")
    whole = rates[rates["regime"] == "all"].pivot(index="iterations", columns="start", values="share")
    for iterations in (20, 50):
        assert whole["network"][iterations] > whole["random"][iterations] + 0.15, whole
    # Nowhere does it stand in the way.
    assert (whole["network"] > whole["random"] - 0.05).loc[100:].all(), whole


def test_success_is_told_by_regime_with_intervals(trained: Path) -> None:
    rates = pd.read_csv(trained / "success.csv")
    assert list(rates["regime"].drop_duplicates()) == ["weak", "medium", "strong", "extreme", "all"]
    assert (rates["low"] <= rates["share"]).all() and (rates["share"] <= rates["high"]).all()
    assert (rates["high"] - rates["low"]).min() > 0
    assert (trained / "success.png").stat().st_size > 10_000
