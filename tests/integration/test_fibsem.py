"""FIB-SEM in the demo: what the methods gain, new slices in one command, reruns, and bad input in one clear line each."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from cathodeflow.io.volumes import read_volume, read_volume_info

from ..conftest import ROOT, Project

METHODS = [
    "unet",
    "ugsm",
    "ugsm_prior",
    "ugsm_mlp",
    "matphase",
    "context",
    "context_mlp",
    "matphase_context",
]  # fmt: skip
CLASSES = ["pore", "active", "binder"]


def fibsem(folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cathodeflow", "--log", "log.txt", "--threads", "2", "fibsem", *line]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)


def results(project: Project) -> Path:
    return project.folder / "results" / "fibsem"


@pytest.fixture(scope="module")
def copied(demo: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished demo, copied so that it may be changed."""
    folder = tmp_path_factory.mktemp("fibsem") / "demo"
    shutil.copytree(demo.folder, folder, symlinks=True)
    return Project(folder, demo.checkout)


def test_methods_gain_on_what_they_are_built_on(demo: Project) -> None:
    table = pd.read_csv(results(demo) / "electrode/metrics.csv")
    assert table["seed"].nunique() == 3 and (table["split"] == "grouped").all()
    assert table["model"].drop_duplicates().tolist() == METHODS
    miu = table.groupby("model")["miu"].mean()
    assert miu["matphase"] >= miu["ugsm"] + 0.02
    assert miu["matphase_context"] >= miu["unet"] + 0.02
    for name in ("miu", "fiu", "accuracy"):
        assert ((table[f"{name}_low"] <= table[name]) & (table[name] <= table[f"{name}_high"])).all()
    shares = table[[f"true_fraction_{name}" for name in CLASSES]]
    np.testing.assert_allclose(shares.sum(axis=1), 1, atol=1e-4)


def test_no_slice_is_both_learnt_from_and_tested_on(demo: Project) -> None:
    pairs = pd.read_parquet(results(demo) / "electrode/pairs.parquet")
    assert pairs.groupby("slice")["role_grouped"].nunique().max() == 1
    role = pairs.drop_duplicates("slice").set_index("slice")["role_grouped"]
    trained, tested = (role.index[role == name].to_numpy() for name in ("train", "test"))
    # What shines through a pore lies three slices below.
    assert np.abs(trained[:, None] - tested).min() > 3
    slices = pd.read_csv(results(demo) / "electrode/metrics_slices.csv")
    assert set(slices["slice"]) == set(tested)


def test_phases_of_the_whole_are_those_of_its_parts(demo: Project) -> None:
    """Where the network knows, MatPhase has its answer; elsewhere and here, labels are the likeliest classes."""
    run = results(demo) / "electrode/grouped/seed0"
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


def test_new_slices_are_segmented(demo: Project) -> None:
    folder = results(demo) / "new"
    phases = read_volume(folder / "phases.zarr", verify=True).compute()
    truth = np.stack(
        [tifffile.imread(path) for path in sorted((demo.folder / "results/raw/fibsem/new/labels").glob("*.tif"))]
    )
    assert phases.shape == truth.shape and phases.dtype == np.uint8
    # Another electrode than the one that was learnt from.
    assert (phases == truth).mean() > 0.75
    likely, doubt = (read_volume(folder / f"{name}.zarr").compute() for name in ("probabilities", "uncertainty"))
    assert likely.shape == (3, *phases.shape) and (likely.argmax(0) == phases).mean() > 0.995
    assert doubt.min() >= 0 and doubt.max() <= np.log(3) + 1e-3
    assert doubt[phases != truth].mean() > 1.3 * doubt[phases == truth].mean()
    assert read_volume_info(folder / "probabilities.zarr").axes == ("c", "z", "y", "x")


def test_slices_of_other_kinds_are_segmented_in_one_command(demo: Project, tmp_path: Path) -> None:
    """Deeper, coloured, larger slices, and a store: the same phases, by the published method as well."""
    files = sorted((demo.folder / "results/raw/fibsem/new/slices").glob("*.tif"))[:4]
    grey = np.stack([tifffile.imread(path) for path in files])
    (tmp_path / "rgb").mkdir()
    for number, one in enumerate(grey):
        tifffile.imwrite(tmp_path / f"rgb/{number}.tif", np.dstack([one] * 3), photometric="rgb")
    tifffile.imwrite(tmp_path / "same.tif", grey)
    tifffile.imwrite(tmp_path / "deep.tif", grey.astype(np.uint16) * 150 + 2000)
    tifffile.imwrite(tmp_path / "real.tif", grey.astype(np.float32) / 255)
    model = str(results(demo) / "electrode/grouped/seed0/model")
    found = {}
    for name in ("rgb", "same.tif", "deep.tif", "real.tif"):
        run = fibsem(tmp_path, "predict", name, "--model", model, "--out", f"{name}.zarr", "--method", "matphase")
        assert run.returncode == 0, run.stderr
        found[name] = read_volume(tmp_path / f"{name}.zarr").compute()
    assert (found["rgb"] == found["same.tif"]).all()
    for name in ("deep.tif", "real.tif"):
        # Matched to the grey of the training, not to that of the first four slices: nearly the same.
        assert (found[name] == found["same.tif"]).mean() > 0.85
    wide = np.tile(grey[:1], (1, 1, 3))
    tifffile.imwrite(tmp_path / "wide.tif", wide)
    run = fibsem(
        tmp_path, "predict", "wide.tif", "--model", model, "--out", "wide.zarr", "--tile", "96", "--overlap", "32",
        "--grey", "own", "--pixel-nm", "20", "--slice-nm", "200",
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert read_volume(tmp_path / "wide.zarr").shape == wide.shape
    info = read_volume_info(tmp_path / "wide.zarr")
    assert info.scale == (200, 20, 20) and info.unit == "nanometer"
    wrong = fibsem(tmp_path, "predict", "same.tif", "--model", model, "--out", "no.zarr", "--method", "magic")
    assert wrong.returncode == 1 and "matphase_context" in wrong.stderr and not (tmp_path / "no.zarr").exists()


def test_every_column_is_explained(demo: Project) -> None:
    text = (ROOT / "docs" / "fibsem.md").read_text()
    names = set(pd.read_parquet(results(demo) / "electrode/pairs.parquet"))
    for table in ("metrics.csv", "metrics_slices.csv", "differences.csv"):
        names |= set(pd.read_csv(results(demo) / "electrode" / table))
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
    config.write_text(text.replace("  train_local:\n", "  train_local:\n    pacing: root\n"))
    after = {"fibsem_test": 3, "fibsem_metrics": 1, "fibsem_predict": 1, "mlflow": 1}
    assert copied.planned() == {"fibsem_train_local": 6, **after}
    config.write_text(text.replace("\nfibsem:\n", "\nfibsem:\n  metrics:\n    tolerance_px: 3.0\n"))
    assert copied.planned() == {"fibsem_metrics": 1, "mlflow": 1}
    config.write_text(text)
    (results(copied) / "electrode/grouped/seed1/matphase_idk.pt").unlink()
    assert copied.planned() == {
        "fibsem_train_idk": 1, "fibsem_train_local": 1, "fibsem_test": 1, "fibsem_metrics": 1, "mlflow": 1
    }  # fmt: skip


def stack(folder: Path, n: int = 12, shape: tuple[int, int] = (32, 40)) -> None:
    rng = np.random.default_rng(0)
    for part, values in (("slices", rng.integers(60, 200, (n, *shape), np.uint8)), ("labels", None)):
        (folder / part).mkdir(parents=True)
        made = rng.integers(0, 3, (n, *shape), np.uint8) if values is None else values
        for number, one in enumerate(made):
            tifffile.imwrite(folder / f"{part}/s{number:02d}.tif", one)


def other_size(folder: Path) -> None:
    tifffile.imwrite(folder / "slices/s05.tif", np.zeros((32, 41), np.uint8))


def unknown_label(folder: Path) -> None:
    labels = tifffile.imread(folder / "labels/s03.tif")
    labels[0, 0] = 7
    tifffile.imwrite(folder / "labels/s03.tif", labels)


def constant_image(folder: Path) -> None:
    tifffile.imwrite(folder / "slices/s04.tif", np.full((32, 40), 90, np.uint8))


def labels_of_nothing(folder: Path) -> None:
    (folder / "labels/s02.tif").rename(folder / "labels/extra.tif")
    (folder / "labels/s11.tif").unlink()


def truncated(folder: Path) -> None:
    path = folder / "slices/s06.tif"
    path.write_bytes(path.read_bytes()[:200])


def labels_of_other_size(folder: Path) -> None:
    for path in (folder / "labels").glob("*.tif"):
        tifffile.imwrite(path, np.zeros((30, 40), np.uint8))


@pytest.mark.parametrize(
    ("spoil", "where", "found"),
    [
        (other_size, "s05.tif", "(32, 41)"),
        (unknown_label, "s03", "7"),
        (constant_image, "s04", "90 everywhere"),
        (labels_of_nothing, "labels", "'extra'"),
        (truncated, "s06.tif", ""),
        (labels_of_other_size, "labels", "32 x 40"),
    ],
)
def test_bad_slices_are_one_line(tmp_path: Path, spoil: Callable[[Path], None], where: str, found: str) -> None:
    stack(tmp_path)
    spoil(tmp_path)
    outputs = ("--out", "out/s.zarr", "--labels-out", "out/l.zarr", "--record", "out/r.json")
    run = fibsem(tmp_path, "volume", "slices", "--labels", "labels", "--sample", "s", *outputs)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1 and where in lines[0] and found in lines[0], run.stderr
    assert not list((tmp_path / "out").glob("*")), run.stderr


def volume(folder: Path) -> subprocess.CompletedProcess[str]:
    outputs = ("--out", "s.zarr", "--labels-out", "l.zarr", "--record", "r.json")
    return fibsem(folder, "volume", "slices", "--labels", "labels", "--sample", "s", *outputs)


def augment(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    outputs = ("--out", "i.zarr", "--labels-out", "t.zarr", "--pairs", "p.parquet", "--record", "a.json")
    return fibsem(folder, "augment", "s.zarr", "l.zarr", "--sample", "s", *outputs, "--copies", "2", *more)


def test_slices_without_labels_are_not_learnt_from(tmp_path: Path) -> None:
    stack(tmp_path)
    for number in (0, 5):
        (tmp_path / f"labels/s{number:02d}.tif").unlink()
    assert (run := volume(tmp_path)).returncode == 0, run.stderr
    assert (run := augment(tmp_path, "--gap", "0")).returncode == 0, run.stderr
    pairs = pd.read_parquet(tmp_path / "p.parquet")
    assert sorted(set(pairs["slice"])) == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    images, right = read_volume(tmp_path / "i.zarr").compute(), read_volume(tmp_path / "t.zarr").compute()
    assert len(images) == len(pairs) and right.max() == 2
    for row in pairs[pairs["copy"] == 0].index:
        number = pairs.loc[row, "slice"]
        assert (images[row] == tifffile.imread(tmp_path / f"slices/s{number:02d}.tif")).all()
        assert (right[row] == tifffile.imread(tmp_path / f"labels/s{number:02d}.tif")).all()


def test_a_class_absent_from_the_training_is_one_line(tmp_path: Path) -> None:
    stack(tmp_path)
    # The last slices are tested on: only they show the binder.
    for number in range(9):
        path = tmp_path / f"labels/s{number:02d}.tif"
        tifffile.imwrite(path, np.minimum(tifffile.imread(path), 1))
    assert volume(tmp_path).returncode == 0
    run = augment(tmp_path, "--gap", "0")
    assert run.returncode == 1 and len(run.stderr.strip().splitlines()) == 1
    assert "binder" in run.stderr and "grouped" in run.stderr and not (tmp_path / "i.zarr").exists()


@pytest.mark.parametrize("kind", ["uint16", "float32", "rgb"])
def test_slices_of_any_kind_become_a_volume(tmp_path: Path, kind: str) -> None:
    stack(tmp_path)
    for path in (tmp_path / "slices").glob("*.tif"):
        grey = tifffile.imread(path)
        changed = {"uint16": grey.astype(np.uint16) * 100, "float32": grey.astype(np.float32) / 3}
        image = np.dstack([grey] * 3) if kind == "rgb" else changed[kind]
        tifffile.imwrite(path, image, photometric="rgb" if kind == "rgb" else "minisblack")
    assert (run := volume(tmp_path)).returncode == 0, run.stderr
    store = read_volume(tmp_path / "s.zarr", verify=True)
    assert store.shape == (12, 32, 40) and store.dtype == ("uint8" if kind == "rgb" else kind)
