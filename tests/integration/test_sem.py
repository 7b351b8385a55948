"""SEM in the demo: classes recognised by particles, honest splits, reruns, and bad input in one clear line each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from PIL import Image

from ..conftest import Project, run_stage

CLASSES = sorted(f"{c}{s}" for c in ("333", "523", "622", "811") for s in ("", "_cycled", "_formation"))


def results(project: Project) -> Path:
    return project.folder / "results" / "sem"


@pytest.fixture(scope="module")
def copied(demo: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The finished demo, copied so that it may be changed."""
    folder = tmp_path_factory.mktemp("sem") / "demo"
    shutil.copytree(demo.folder, folder, symlinks=True)
    return Project(folder, demo.checkout)


def test_the_network_classifies_most_images_of_a_later_time(demo: Project) -> None:
    test = json.loads((results(demo) / "model/test.json").read_text())["metrics"]
    # Of twelve classes.
    assert test["image_accuracy"] > 0.6 and test["crop_accuracy"] > 0.5
    assert test["image_accuracy_low"] <= test["image_accuracy"] <= test["image_accuracy_high"]
    images = pd.read_csv(results(demo) / "model/predictions.csv", dtype={"label": str, "prediction": str})
    crops = pd.read_csv(results(demo) / "model/predictions_crops.csv", dtype={"label": str, "prediction": str})
    split = pd.read_parquet(results(demo) / "pooled/split.parquet")
    assert set(images["name"]) == set(split["name"][split["split"] == "test"])
    for table in (images, crops):
        values = table[[f"p_{name}" for name in CLASSES]].to_numpy()
        np.testing.assert_allclose(values.sum(1), 1, atol=1e-4)
        assert (np.array(CLASSES)[values.argmax(1)] == table["prediction"]).all()
        assert ((table["label"] == table["prediction"]) == table["correct"]).all()
    assert images["correct"].mean() == pytest.approx(test["image_accuracy"])


def test_no_crop_crosses_and_the_test_is_later(demo: Project) -> None:
    crops = pd.read_parquet(results(demo) / "pooled/crops.parquet")
    split = pd.read_parquet(results(demo) / "pooled/split.parquet")
    assert crops.groupby("name")["split"].nunique().max() == 1
    for _, images in split.groupby("label"):
        part = images.groupby("split")["time"]
        assert part.min()["test"] > part.max()["train"] and part.max()["validation"] < part.min()["train"]
        assert (images["split"] == "test").sum() == round(0.2 * len(images))


def test_the_audit_compares_the_network_with_trivial_features(demo: Project) -> None:
    audit = pd.read_csv(results(demo) / "model/audit.csv").set_index(["method", "scope"])
    overall = audit.xs("all", level="scope")["accuracy"]
    test = json.loads((results(demo) / "model/test.json").read_text())["metrics"]
    assert overall["network"] == pytest.approx(test["image_accuracy"])
    assert overall["network"] > overall["grey histogram"] + 0.1 and overall["majority class"] <= 2 / 12
    assert {"instrument settings", "information bar", "network, histograms matched"} <= set(overall.index)


def test_images_of_no_class_have_the_highest_scores(demo: Project) -> None:
    table = pd.read_csv(results(demo) / "additives/model.csv")
    assert table["strangeness"].is_monotonic_decreasing and table["rank"].tolist() == list(range(1, len(table) + 1))
    assert table["problem"].isna().all() and (table["bar_rows"] == 16).all() and (table["tiles"] > 1).all()
    # Every fourth image shows particles unlike those of any class, and is out of distribution.
    foreign = table["image"].str.extract(r"(\d+)\.jpg$")[0].astype(int) % 4 == 3
    assert foreign.sum() >= 3 and foreign[: foreign.sum()].all() and (table["foreign"] == foreign).all()
    assert np.log(len(CLASSES)) >= table["entropy"].max() and table["entropy"].min() >= 0


def test_only_what_became_invalid_runs_again(copied: Project) -> None:
    assert copied.planned() == {}
    stages = ("train", "test", "audit", "explain", "predict", "figures", "prediction_figures")
    after_train = {"mlflow": 1, **{f"sem_{name}": 1 for name in stages}}
    after_predict = {"sem_predict": 1, "sem_prediction_figures": 1, "mlflow": 1}
    config = copied.folder / "config.yaml"
    text = config.read_text()
    for old, new, jobs in (
        ("    side: 64\n", "    side: 64\n    seed: 5\n", {"sem_crops": 1, **after_train}),
        ("      blur: 0.35\n", "      blur: 0.35\n      gamma: 1.2\n", after_train),
        (
            "  train:\n    epochs: 14\n",
            "  predict:\n    overlap: 0.5\n  train:\n    epochs: 14\n",
            after_predict,
        ),
    ):
        assert text.count(old) == 1
        config.write_text(text.replace(old, new))
        assert copied.planned() == jobs
    # A network from elsewhere predicts, and those trained here are kept as they are.
    shutil.copy(copied.folder / "results/sem/model/model.pt", copied.folder / "given.pt")
    config.write_text(
        text.replace("  train:\n    epochs: 14\n", "  predict:\n    model: given.pt\n  train:\n    epochs: 14\n")
    )
    assert copied.planned() == after_predict
    config.write_text(text)
    (copied.folder / "results/sem/model/predictions.csv").unlink()
    assert copied.planned() == {"sem_test": 1, "sem_audit": 1, "sem_explain": 1, "sem_figures": 1, "mlflow": 1}


def images(folder: Path, counts: dict[str, int]) -> None:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / "raw" / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(rng.integers(0, 256, (120, 160), np.uint8)).save(folder / f"raw/{name}/{number}.png")


def text_named_jpg(folder: Path) -> None:
    images(folder, {"333": 4, "622": 4})
    (folder / "raw/333/note.jpg").write_text("no image")


def truncated_jpeg(folder: Path) -> None:
    images(folder, {"333": 4, "622": 4})
    Image.effect_noise((160, 120), 60).save(folder / "raw/333/cut.jpg")
    content = (folder / "raw/333/cut.jpg").read_bytes()
    (folder / "raw/333/cut.jpg").write_bytes(content[: len(content) // 2])


def empty_class(folder: Path) -> None:
    images(folder, {"333": 4, "622": 4, "811_cycled": 0})


def class_with_one_image(folder: Path) -> None:
    images(folder, {"333": 4, "622": 1})


def unlisted_class(folder: Path) -> None:
    images(folder, {"333": 4, "622": 4, "lithium": 4})


@pytest.mark.parametrize(
    ("make", "where", "expected"),
    [
        (text_named_jpg, "raw/333/note.jpg", "JPEG"),
        (truncated_jpeg, "raw/333/cut.jpg", "JPEG"),
        (empty_class, "raw/811_cycled", "images"),
        (class_with_one_image, "raw/622", "at least 3"),
        (unlisted_class, "raw/lithium", "class folder"),
    ],
)
def test_bad_images_are_one_line(tmp_path: Path, make: Callable[[Path], None], where: str, expected: str) -> None:
    make(tmp_path)
    result = run_stage(
        tmp_path,
        "sem",
        "index",
        "raw",
        "--compositions",
        "333, 622, 811",
        "--sample",
        "s",
        "--out",
        "out/t.parquet",
        "--record",
        "out/r.json",
    )
    assert result.returncode == 1 and "Traceback" not in result.stderr
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1 and where in lines[0] and expected in lines[0], result.stderr
    assert not (tmp_path / "out").exists()


def test_an_image_smaller_than_the_crop_is_one_line(tmp_path: Path) -> None:
    images(tmp_path, {"333": 4, "622": 4})
    Image.new("L", (60, 50)).save(tmp_path / "raw/622/small.png")
    index = run_stage(tmp_path, "sem", "index", "raw", "--sample", "s", "--out", "t.parquet", "--record", "r.json")
    split = run_stage(
        tmp_path, "sem", "split", "t.parquet", "--out", "s.parquet", "--record", "r.json", "--by", "image"
    )
    assert index.returncode == split.returncode == 0, index.stderr + split.stderr
    line = (
        "crops",
        "s.parquet",
        "--out",
        "c.zarr",
        "--record",
        "c.json",
        "--pixels",
        "96",
        "--side",
        "96",
        "--size",
        "80",
    )
    result = run_stage(tmp_path, "sem", *line)
    assert result.returncode == 1 and len(result.stderr.strip().splitlines()) == 1
    assert "small.png" in result.stderr and "50 x 60" in result.stderr and not (tmp_path / "c.zarr").exists()


def test_images_of_other_sizes_and_depths_are_predicted_in_one_command(demo: Project, tmp_path: Path) -> None:
    """Deeper, larger and coloured copies of an image get the prediction of the image itself."""
    source = next(iter(sorted((demo.folder / "results/raw/sem/cathodes/811").glob("*.jpg"))))
    grey = np.asarray(Image.open(source).convert("L"))
    (tmp_path / "new").mkdir()
    tifffile.imwrite(tmp_path / "new/same.tif", grey)
    tifffile.imwrite(tmp_path / "new/deep.tif", grey.astype(np.uint16) * 200 + 3000)
    tifffile.imwrite(tmp_path / "new/rgba.tif", np.dstack([grey] * 3 + [np.full_like(grey, 255)]), photometric="rgb")
    above = grey[:-16]
    tifffile.imwrite(tmp_path / "new/wide.tif", np.tile(above, (1, 2)))
    (tmp_path / "new/broken.tif").write_bytes(b"II*\0rest")
    model = demo.folder / "results/sem/model/model.pt"
    result = run_stage(tmp_path, "sem", "predict", "new", "--model", str(model), "--out", "predictions.csv")
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(tmp_path / "predictions.csv", dtype={"prediction": str}).set_index("image")
    assert pd.isna(table.loc["new/broken.tif", "prediction"]) and "broken.tif" in table.loc["new/broken.tif", "problem"]
    used = table.drop("new/broken.tif")
    assert used["prediction"].nunique() == 1 and used["confidence"].notna().all()
    same, deep, rgba = (used.loc[f"new/{name}.tif"] for name in ("same", "deep", "rgba"))
    assert same["bar_rows"] == deep["bar_rows"] == rgba["bar_rows"] == 16 and used.loc["new/wide.tif", "bar_rows"] == 0
    assert rgba["strangeness"] == pytest.approx(same["strangeness"], rel=0.02)
