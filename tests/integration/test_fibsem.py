"""FIB-SEM: slices of any kind become a volume, and bad input is one clear line each."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from cathodeflow.io.volumes import read_volume

from ..conftest import ROOT, Project, run_stage


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


def slices_marked_as_colours(folder: Path) -> None:
    for path in (folder / "slices").glob("*.tif"):
        path.unlink()
    # So tifffile writes three or four slices unless it is told that they are grey.
    tifffile.imwrite(
        folder / "slices/s00.tif", np.zeros((4, 32, 40), np.uint8), photometric="rgb", planarconfig="separate"
    )


@pytest.mark.parametrize(
    ("spoil", "where", "found"),
    [
        (other_size, "s05.tif", "(32, 41)"),
        (unknown_label, "s03", "7"),
        (constant_image, "s04", "the same value in every pixel"),
        (labels_of_nothing, "labels", "'extra'"),
        (truncated, "s06.tif", ""),
        (labels_of_other_size, "labels", "32 x 40"),
        (slices_marked_as_colours, "s00.tif", "4 planes"),
    ],
)
def test_bad_slices_are_one_line(tmp_path: Path, spoil: Callable[[Path], None], where: str, found: str) -> None:
    stack(tmp_path)
    spoil(tmp_path)
    outputs = ("--out", "out/s.zarr", "--labels-out", "out/l.zarr", "--record", "out/r.json")
    run = run_stage(tmp_path, "fibsem", "volume", "slices", "--labels", "labels", "--sample", "s", *outputs)
    assert run.returncode == 1 and "Traceback" not in run.stderr
    lines = run.stderr.strip().splitlines()
    assert len(lines) == 1 and where in lines[0] and found in lines[0], run.stderr
    assert not list((tmp_path / "out").glob("*")), run.stderr


def volume(folder: Path) -> subprocess.CompletedProcess[str]:
    outputs = ("--out", "s.zarr", "--labels-out", "l.zarr", "--record", "r.json")
    return run_stage(folder, "fibsem", "volume", "slices", "--labels", "labels", "--sample", "s", *outputs)


def augment(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    outputs = ("--out", "i.zarr", "--labels-out", "t.zarr", "--pairs", "p.parquet", "--record", "a.json")
    return run_stage(folder, "fibsem", "augment", "s.zarr", "l.zarr", "--sample", "s", *outputs, "--copies", "2", *more)


def test_slices_without_labels_are_not_learnt_from(tmp_path: Path) -> None:
    stack(tmp_path)
    for number in (0, 5):
        (tmp_path / f"labels/s{number:02d}.tif").unlink()
    assert (run := volume(tmp_path)).returncode == 0, run.stderr
    assert (run := augment(tmp_path, "--gap", "0")).returncode == 0, run.stderr
    pairs = pd.read_parquet(tmp_path / "p.parquet")
    labelled = pairs["role_grouped"] != "neighbour"
    assert sorted(set(pairs["slice"][labelled])) == [1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    images, right = read_volume(tmp_path / "i.zarr").compute(), read_volume(tmp_path / "t.zarr").compute()
    assert len(images) == len(pairs) and right[labelled].max() == 2 and (right[~labelled] == 255).all()
    for row in pairs[labelled & (pairs["copy"] == 0)].index:
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


def test_pooled_volumes_without_a_local_method_have_complete_commands(tmp_path: Path) -> None:
    for name in "ab":
        stack(tmp_path / name)
    rows = "".join(f"{name}\ttrain\t{name}/slices\t{name}/labels\n" for name in "ab")
    (tmp_path / "s.tsv").write_text("sample\trole\timages\tlabels\n" + rows)
    (tmp_path / "config.yaml").write_text("fibsem: {samples: s.tsv, pooled: true, methods: {}}\n")
    planned = Project(tmp_path, ROOT).snakemake("-n", "-p").stdout
    (augmented,) = re.findall(r"cathodeflow .* fibsem augment .*", planned)
    stores = [f"results/fibsem/{name}/{part}.zarr" for name in "ab" for part in ("slices", "labels")]
    assert " ".join(stores[:2]) in augmented
    assert f"--more-slices {stores[2]} --more-labels {stores[3]}" in augmented and "results/fibsem/pooled/" in augmented
    (tested,) = re.findall(r"cathodeflow .* fibsem test .*", planned)
    # An empty flag would take the next one for its value, after hours of training.
    assert "--methods" not in tested and "--split grouped" in tested
    assert "train-local" not in planned and "train-idk" not in planned
