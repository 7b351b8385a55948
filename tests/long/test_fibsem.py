"""FIB-SEM on a simulated electrode: what the methods gain, new slices in one command, reruns."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from cathodeflow.fibsem.bundle import load_bundle
from cathodeflow.io.volumes import read_volume, read_volume_info

from ..conftest import ROOT, Project, run_stage

METHODS = [
    "unet",
    "ugsm",
    "ugsm_prior",
    "ugsm_mlp",
    "matphase",
    "forest",
    "context",
    "context_mlp",
    "matphase_context",
]  # fmt: skip
CLASSES = ["pore", "active", "binder"]


def results(project: Project) -> Path:
    return project.folder / "results" / "fibsem"


@pytest.fixture(scope="module")
def electrode(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A run of config/fibsem.yaml, some minutes on two cores."""
    folder = tmp_path_factory.mktemp("electrode")
    (folder / "config").symlink_to(ROOT / "config")
    (folder / "config.yaml").write_text((ROOT / "config" / "fibsem.yaml").read_text())
    project = Project(folder, ROOT)
    project.snakemake()
    return project


@pytest.fixture(scope="module")
def copied(electrode: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished run, copied so that it may be changed."""
    folder = tmp_path_factory.mktemp("fibsem") / "run"
    shutil.copytree(electrode.folder, folder, symlinks=True)
    return Project(folder, electrode.checkout)


def test_methods_gain_on_what_they_are_built_on(electrode: Project) -> None:
    table = pd.read_csv(results(electrode) / "electrode/metrics.csv")
    assert table["seed"].nunique() == 3 and (table["split"] == "grouped").all()
    assert table["model"].drop_duplicates().tolist() == METHODS
    miu = table.pivot(index="seed", columns="model", values="miu")
    assert miu["matphase"].mean() >= miu["ugsm"].mean() + 0.02
    # What `fibsem predict` answers with: the method that is best in validation.
    best = {
        seed: load_bundle(results(electrode) / f"electrode/grouped/seed{seed}/model.pt")[1]["best"] for seed in range(3)
    }
    chosen = [miu.loc[seed, name] for seed, name in best.items()]
    assert np.mean(chosen) >= miu["unet"].mean() + 0.02, best
    for name in ("miu", "fiu", "accuracy"):
        assert ((table[f"{name}_low"] <= table[name]) & (table[name] <= table[f"{name}_high"])).all()
    shares = table[[f"true_fraction_{name}" for name in CLASSES]]
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-4)


def test_no_slice_is_both_learnt_from_and_tested_on(electrode: Project) -> None:
    pairs = pd.read_parquet(results(electrode) / "electrode/pairs.parquet")
    assert pairs.groupby("slice")["role_grouped"].nunique().max() == 1
    role = pairs.drop_duplicates("slice").set_index("slice")["role_grouped"]
    trained, tested = (role.index[role == name].to_numpy() for name in ("train", "test"))
    # What shines through a pore lies three slices below.
    assert np.abs(trained[:, None] - tested).min() > 3
    slices = pd.read_csv(results(electrode) / "electrode/metrics_slices.csv")
    assert set(slices["slice"]) == set(tested)


def test_phases_of_the_whole_are_those_of_its_parts(electrode: Project) -> None:
    """Where the network knows, MatPhase has its answer; elsewhere and here, labels are the likeliest classes."""
    run = results(electrode) / "electrode/grouped/seed0"
    info = read_volume_info(run / "test_labels.zarr")
    assert info.attributes["methods"] == METHODS and info.attributes["classes"] == CLASSES
    labels = read_volume(run / "test_labels.zarr", verify=True).compute()
    likely = read_volume(run / "test_probabilities.zarr", verify=True).compute().astype(np.float32)
    np.testing.assert_allclose(likely.sum(axis=2), 1, atol=5e-3)
    chosen = np.take_along_axis(likely, labels[:, :, None].astype(int), axis=2)[:, :, 0]
    assert (chosen >= likely.max(axis=2) - 1e-3).all()
    record = json.loads((run / "test.json").read_text())["metrics"]
    differ = (labels[METHODS.index("matphase")] != labels[METHODS.index("ugsm")]).mean()
    assert 0 < differ <= record["idk_share_matphase"] < 0.7
    assert record["idk_precision_matphase"] > 0.2 and record["idk_recall_matphase"] > 0.4


def test_new_slices_are_segmented(electrode: Project) -> None:
    folder = results(electrode) / "new"
    phases = read_volume(folder / "phases.zarr", verify=True).compute()
    truth = np.stack(
        [tifffile.imread(path) for path in sorted((electrode.folder / "results/raw/fibsem/new/labels").glob("*.tif"))]
    )
    assert phases.shape == truth.shape and phases.dtype == np.uint8
    # Another electrode than the one that was learnt from.
    assert (phases == truth).mean() > 0.75
    likely, doubt = (read_volume(folder / f"{name}.zarr").compute() for name in ("probabilities", "uncertainty"))
    assert likely.shape == (3, *phases.shape) and (likely.argmax(0) == phases).mean() > 0.995
    assert doubt.min() >= 0 and doubt.max() <= np.log(3) + 1e-3
    assert doubt[phases != truth].mean() > 1.3 * doubt[phases == truth].mean()
    assert read_volume_info(folder / "probabilities.zarr").axes == ("c", "z", "y", "x")


def test_slices_of_other_kinds_are_segmented_in_one_command(electrode: Project, tmp_path: Path) -> None:
    """Deeper, coloured, larger slices, and a store: the same phases, by the published method as well."""
    files = sorted((electrode.folder / "results/raw/fibsem/new/slices").glob("*.tif"))[:4]
    grey = np.stack([tifffile.imread(path) for path in files])
    (tmp_path / "rgb").mkdir()
    for number, one in enumerate(grey):
        tifffile.imwrite(tmp_path / f"rgb/{number}.tif", np.dstack([one] * 3), photometric="rgb")
    # Four slices would be taken for the four channels of an image otherwise.
    tifffile.imwrite(tmp_path / "same.tif", grey, photometric="minisblack")
    tifffile.imwrite(tmp_path / "deep.tif", grey.astype(np.uint16) * 150 + 2000, photometric="minisblack")
    tifffile.imwrite(tmp_path / "real.tif", grey.astype(np.float32) / 255, photometric="minisblack")
    model = str(results(electrode) / "electrode/grouped/seed0/model")
    found = {}
    for name in ("rgb", "same.tif", "deep.tif", "real.tif"):
        run = run_stage(
            tmp_path, "fibsem", "predict", name, "--model", model, "--out", f"{name}.zarr", "--method", "matphase"
        )
        assert run.returncode == 0, run.stderr
        found[name] = read_volume(tmp_path / f"{name}.zarr").compute()
    assert all(phases.shape == grey.shape for phases in found.values())
    assert (found["rgb"] == found["same.tif"]).all()
    for name in ("deep.tif", "real.tif"):
        # Matched to the grey of the training, not to that of the first four slices: nearly the same.
        assert (found[name] == found["same.tif"]).mean() > 0.85
    wide = np.tile(grey[:1], (1, 1, 3))
    tifffile.imwrite(tmp_path / "wide.tif", wide)
    run = run_stage(
        tmp_path, "fibsem", "predict", "wide.tif", "--model", model, "--out", "wide.zarr", "--tile", "96", "--overlap", "32",
        "--match-intensity", "never", "--pixel-nm", "20", "--slice-nm", "200",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert read_volume(tmp_path / "wide.zarr").shape == wide.shape
    info = read_volume_info(tmp_path / "wide.zarr")
    assert info.scale == (200, 20, 20) and info.unit == "nanometer"
    wrong = run_stage(
        tmp_path, "fibsem", "predict", "same.tif", "--model", model, "--out", "no.zarr", "--method", "magic"
    )
    assert wrong.returncode == 1 and "matphase_context" in wrong.stderr and not (tmp_path / "no.zarr").exists()


def test_every_column_is_explained(electrode: Project) -> None:
    text = (ROOT / "docs" / "fibsem.md").read_text()
    names = set(pd.read_parquet(results(electrode) / "electrode/pairs.parquet"))
    for table in ("metrics.csv", "metrics_slices.csv", "differences.csv"):
        names |= set(pd.read_csv(results(electrode) / "electrode" / table))
    for name in sorted(names):
        plain = name.removesuffix("_low").removesuffix("_high").removesuffix("_deviation")
        for one in CLASSES:
            plain = plain.removesuffix(f"_{one}") + ("_<class>" if plain.endswith(f"_{one}") else "")
        assert f"`{plain.replace('_grouped', '_<split>')}`" in text, name


def test_only_what_became_invalid_runs_again(copied: Project) -> None:
    assert copied.planned() == {}
    config = copied.folder / "config.yaml"
    text = config.read_text()
    assert text.count("\nfibsem:\n") == 1
    # Pacing concerns the local models alone: two methods, three seeds.
    config.write_text(text.replace("  train_local:\n", "  train_local:\n    curriculum: {pacing: root}\n"))
    after = {"fibsem_test": 3, "fibsem_metrics": 1, "fibsem_predict": 1, "mlflow": 1}
    drawn = {"fibsem_training_figures": 3, "fibsem_figures": 1, "fibsem_predict_figures": 1}
    assert copied.planned() == {"fibsem_train_local": 6, **after, **drawn}
    config.write_text(text.replace("\nfibsem:\n", "\nfibsem:\n  metrics:\n    tolerance_px: 3.0\n"))
    assert copied.planned() == {"fibsem_metrics": 1, "fibsem_figures": 1, "mlflow": 1}
    # Another figure trains nothing.
    config.write_text(text.replace("\nfibsem:\n", "\nfibsem:\n  figures:\n    zoom_px: 40\n"))
    assert copied.planned() == {**drawn, "mlflow": 1}
    config.write_text(text)
    (results(copied) / "electrode/grouped/seed1/matphase_idk.pt").unlink()
    assert copied.planned() == {
        "fibsem_train_idk": 1, "fibsem_train_local": 1, "fibsem_test": 1, "fibsem_metrics": 1, "mlflow": 1,
        "fibsem_training_figures": 1, "fibsem_figures": 1,
    }  # fmt: skip
