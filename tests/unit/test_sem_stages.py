"""SEM stages as a notebook calls them: they write the files of the commands and return the metrics."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from cathodeflow import sem
from cathodeflow.errors import InputError
from cathodeflow.io.activation_maps import ActivationMaps, read_activation_maps, write_activation_maps
from cathodeflow.io.crops import read_crops
from cathodeflow.sem.nickel import COLUMNS as NICKEL
from cathodeflow.sem.nickel import nickel_fraction


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Simulated images of all classes, and what the stages up to the crops make of them."""
    folder = tmp_path_factory.mktemp("sem")
    made = sem.simulate(folder / "raw", options=sem.Simulate(n_images=3, rows=120, cols=160, seed=2))
    assert made == {"images": 36} and len(list((folder / "raw").glob("*/*.jpg"))) == 36
    listed = sem.index(folder / "raw", out=folder / "index.parquet", readable=folder / "index.csv", sample="cells")
    assert (listed["images"], listed["classes"]) == (36, 12)
    divided = sem.split([folder / "index.parquet"], out=folder / "split.parquet", record=folder / "split.json")
    assert divided == {"train": 12, "validation": 12, "test": 12, "left_out": 0}
    options = sem.Crops(size=48, ratio=0.25, pixels=64, side=32, seed=1)
    cut = sem.crops(folder / "split.parquet", out=folder / "crops.zarr", options=options)
    assert cut == {"train": 36, "validation": 12, "test": 12}
    return folder


def test_stages_write_what_they_return(folder: Path) -> None:
    crops, table = read_crops(folder / "crops.zarr")
    assert crops.shape == (60, 32, 32) and table["split"].value_counts().to_dict() == {
        "train": 36, "validation": 12, "test": 12
    }  # fmt: skip
    assert pd.read_csv(folder / "index.csv")["name"].str.startswith("cells/").all()
    record = json.loads((folder / "split.json").read_text())
    assert record["stage"] == "sem.split" and record["metrics"]["test"] == 12 and "split.parquet" in record["outputs"]


@pytest.fixture(scope="module")
def model(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that was trained for an epoch on the crops."""
    out = tmp_path_factory.mktemp("network") / "model.pt"
    options = sem.Train(epochs=1, progressive_fraction=0, threads=1, device="cpu", seed=1)
    sem.train(folder / "crops.zarr", out=out, options=options)
    return out


def test_a_prediction_without_one_usable_image_fails(folder: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "a.png").write_bytes(b"no image")
    options = sem.Predict(model=str(model), device="cpu")
    with pytest.raises(InputError, match=r"1 images, none of which can be used, such as .*a.png: found"):
        sem.predict(tmp_path / "new", out=tmp_path / "p.csv", options=options)
    assert not (tmp_path / "p.csv").exists()
    name = next((folder / "raw").glob("*/*.jpg"))
    shutil.copy(name, os.fsencode(tmp_path / "new") + b"/\xe4.jpg")
    shutil.copy(name, tmp_path / "new" / "good.jpg")
    found = sem.predict(tmp_path / "new", out=tmp_path / "p.csv", options=options)
    assert (found["images"], found["images_left_out"]) == (1, 2)
    problems = pd.read_csv(tmp_path / "p.csv").set_index("image")["problem"]
    assert "not in UTF-8" in problems[f"{tmp_path}/new/\\xe4.jpg"]


def test_a_network_is_tested_on_other_labelled_images(folder: Path, model: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    sem.simulate(new, options=sem.Simulate(n_images=3, rows=120, cols=160, seed=3))
    sem.index(new, out=tmp_path / "index.parquet", sample="new")
    tables = {"out": "predictions", "crops_table": "crops", "metrics_table": "metrics", "calibration": "calibration"}
    files = {name: tmp_path / f"{file}.csv" for name, file in tables.items()}
    options = sem.Test(bootstrap_samples=100, overlap=0.25, device="cpu")
    tested = sem.test(model, tmp_path / "index.parquet", **files, options=options)
    listed = pd.read_csv(files["out"], dtype={"label": str, "prediction": str}).set_index("name")
    assert tested["images"] == 36 == len(listed) and tested["image_accuracy"] == listed["correct"].mean()
    assert tested["image_accuracy_low"] < tested["image_accuracy_high"]
    audited = sem.audit(
        folder / "split.parquet", model, folder / "crops.zarr", files["out"], out=tmp_path / "audit.csv",
        listed=tmp_path / "index.parquet", options=sem.Audit(overlap=False, device="cpu"),
    )  # fmt: skip
    assert audited["accuracy_network"] == pytest.approx(tested["image_accuracy"])
    assert pd.read_csv(tmp_path / "audit.csv")["n"].max() == 36
    # The same answers as for images without labels.
    known = {path: f"new/{path.parent.name}/{path.name}" for path in new.glob("333*/*.jpg")}
    sem.predict(new / "333", out=tmp_path / "p.csv", options=sem.Predict(model=str(model), device="cpu"))
    for row in pd.read_csv(tmp_path / "p.csv", dtype={"prediction": str}).itertuples():
        same = listed.loc[known[Path(row.image)]]
        assert same["prediction"] == row.prediction and same["confidence"] == pytest.approx(row.confidence, abs=1e-4)
        assert [same[name] for name in NICKEL] == pytest.approx([getattr(row, name) for name in NICKEL], abs=1e-3)
    truth = listed["label"].map(nickel_fraction).astype(float)
    assert tested["nickel_error"] == pytest.approx((listed["nickel"] - truth).abs().mean())
    for path in (new / "333").iterdir():
        path.rename(path.parent.parent / "811" / f"x{path.name}")
    shutil.move(new / "811", new / "999")
    shutil.rmtree(new / "333")
    sem.index(new, out=tmp_path / "index.parquet", sample="new")
    with pytest.raises(InputError, match="found class 999, expected 333"):
        sem.test(model, tmp_path / "index.parquet", **files, options=options)


def test_network_stages_and_their_figures(folder: Path, tmp_path: Path) -> None:
    crops, split = folder / "crops.zarr", folder / "split.parquet"
    options = sem.Train(epochs=1, progressive_fraction=0, threads=1, device="cpu", seed=1)
    trained = sem.train(crops, out=tmp_path / "model.pt", record=tmp_path / "train.json", options=options)
    assert trained["best_epoch"] == 1 and len(trained.history) == 1
    tables = {"out": "predictions", "crops_table": "crops", "metrics_table": "metrics", "calibration": "calibration"}
    files = {name: tmp_path / f"{file}.csv" for name, file in tables.items()}
    tested = sem.test(tmp_path / "model.pt", crops, **files, options=sem.Test(bootstrap_samples=100, bins=5))
    merit = pd.read_csv(files["metrics_table"], dtype={"label": str})
    of_images = merit[(merit["kind"] == "image") & merit["label"].isna()].set_index("figure")["value"]
    assert of_images["accuracy"] == pytest.approx(tested["image_accuracy"], abs=1e-5) and tested["images"] == 12
    bins = pd.read_csv(files["calibration"]).groupby(["kind", "temperature"])
    assert bins["count"].sum().to_dict() == {
        (kind, when): 12 for kind in ("crops", "images") for when in ("before", "after")
    }
    audited = sem.audit(
        split, tmp_path / "model.pt", crops, files["out"], out=tmp_path / "audit.csv", classes_table=tmp_path / "of.csv"
    )
    of_class = pd.read_csv(tmp_path / "of.csv")
    assert len(of_class) == 12 and of_class["area_off"].between(0.05, 0.95).all() and audited["classes_alone"] == 0
    assert "bare areas and edges" in set(pd.read_csv(tmp_path / "audit.csv")["method"])
    assert (
        audited["accuracy_network"] == pytest.approx(tested["image_accuracy"]) and "accuracy_grey_histogram" in audited
    )
    explained = sem.explain(
        split, tmp_path / "model.pt", crops, files["out"], files["crops_table"], out=tmp_path / "explain.h5",
        crops_table=tmp_path / "explain_crops.csv", images_table=tmp_path / "explain_images.csv",
        options=sem.Explain(whole=14, per_class=1),
    )  # fmt: skip
    assert explained["images"] == 12
    maps, requested = read_activation_maps(tmp_path / "explain.h5")
    assert requested == 14 and len(maps.images) == 12 == len(pd.read_csv(tmp_path / "explain_images.csv"))
    assert len(maps.crops) == explained["crops"] == len(pd.read_csv(tmp_path / "explain_crops.csv"))
    assert maps.images[0].shape == maps.image_maps[0].shape and maps.images[0].shape[1] == 160
    drawn = sem.figures(
        out=tmp_path / "figures", training=tmp_path / "train.json", images=files["out"],
        metrics_table=files["metrics_table"], calibration=files["calibration"], audited=tmp_path / "audit.csv",
        maps=tmp_path / "explain.h5", mapped_crops=tmp_path / "explain_crops.csv",
        mapped_images=tmp_path / "explain_images.csv",
    )  # fmt: skip
    names = ["train", "confusion", "calibration", "classes", "audit", "explain", *(f"map_{n}" for n in range(1, 15))]
    assert drawn.figures == [f"{tmp_path}/figures/{name}.png" for name in names]
    # Numbers beyond the test images say that there is none.
    sizes = [Image.open(path).size for path in drawn.figures[-3:]]
    assert sizes[0] != sizes[1] == sizes[2]


def test_own_classes_of_any_name_go_through_all_stages(tmp_path: Path) -> None:
    """Three materials by their own names, one of them after cycling; the files do not state a pixel size."""
    names = ["LCO coarse", "LFP", "NMC_cycled"]
    rng = np.random.default_rng(0)
    for size, name in enumerate(names, 1):
        (tmp_path / "raw" / name).mkdir(parents=True)
        for number in range(4):
            texture = gaussian_filter(rng.normal(size=(120, 160)), size)
            grey = np.clip(128 + 50 * texture / texture.std(), 0, 255).astype(np.uint8)
            Image.fromarray(grey).save(tmp_path / "raw" / name / f"{name}_{number}.png")
    sem.index(tmp_path / "raw", out=tmp_path / "index.parquet", sample="own", options=sem.Index(pixel_nm=5))
    sem.split([tmp_path / "index.parquet"], out=tmp_path / "split.parquet")
    cut = sem.Crops(size=24, ratio=0.25, pixels=40, pixel_nm=6, side=32)
    sem.crops(tmp_path / "split.parquet", out=tmp_path / "crops.zarr", options=cut)
    network = sem.Train(
        epochs=1, progressive_fraction=0, mixup=0, threads=1, device="cpu", normalization="histogram",
        robust={"magnification": 1.2, "octaves": 2, "curve": 0.5, "charging": 0.1, "group_weight": 1},
    )  # fmt: skip
    sem.train(tmp_path / "crops.zarr", out=tmp_path / "model.pt", options=network)
    # Crops of earlier versions have neither sessions nor fields.
    table = pd.read_parquet(tmp_path / "crops.parquet")
    table.drop(columns=["session", "field"]).to_parquet(tmp_path / "crops.parquet")
    tables = {"out": "images", "crops_table": "tiles", "metrics_table": "metrics", "calibration": "calibration"}
    files = {name: tmp_path / f"{file}.csv" for name, file in tables.items()}
    tested = sem.test(tmp_path / "model.pt", tmp_path / "crops.zarr", **files, options=sem.Test(bootstrap_samples=100))
    assert tested["images"] == 3 and "nickel_error" not in tested
    assert pd.read_csv(files["out"])["label"].tolist() == names
    options = sem.Predict(model=str(tmp_path / "model.pt"), device="cpu", pixel_nm=5)
    sem.predict(tmp_path / "raw" / "LFP", out=tmp_path / "new.csv", options=options)
    new = pd.read_csv(tmp_path / "new.csv")
    assert set(new["prediction"]) <= set(names) and (new["pixel_nm"] == 5).all() and "nickel" not in new
    paged = sem.page(tmp_path / "new.csv", tmp_path / "model.pt", out=tmp_path / "new.html")
    assert paged == {"images": 4, "pictures": 4}


def test_images_are_classified_with_the_model_of_the_options(folder: Path, tmp_path: Path) -> None:
    options = sem.Train(epochs=1, progressive_fraction=0, threads=1, device="cpu")
    sem.train(folder / "crops.zarr", out=tmp_path / "model.pt", options=options)
    images = folder / "raw" / "811"
    with pytest.raises(InputError, match=r"--model: found nothing, expected the model file of a network"):
        sem.predict(images, out=tmp_path / "v1.csv")
    found = sem.predict(images, out=tmp_path / "v1.csv", options=sem.Predict(model=str(tmp_path / "model.pt")))
    table = pd.read_csv(tmp_path / "v1.csv")
    assert found["images"] == len(table) == 3 and table["foreign"].sum() == found["foreign"]
    assert sem.figures(out=tmp_path, predictions=tmp_path / "v1.csv").figures == [f"{tmp_path}/v1.png"]


def test_activation_maps_come_back_and_other_files_are_named(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, shape, dtype=np.uint8) for shape in ((9, 12), (7, 30))]
    maps = [random.random(image.shape, dtype=np.float32) for image in images]
    crops = random.integers(0, 256, (3, 8, 8), dtype=np.uint8)
    given = ActivationMaps(crops, random.random((3, 2, 2), dtype=np.float32), images, maps)
    write_activation_maps(tmp_path / "a.h5", given, requested=4)
    write_activation_maps(tmp_path / "b.h5", given, requested=4)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()
    found, requested = read_activation_maps(tmp_path / "a.h5")
    assert requested == 4
    for expected, read in zip(given, found, strict=True):
        assert len(expected) == len(read) and all(map(np.array_equal, expected, read))
    write_activation_maps(tmp_path / "none.h5", ActivationMaps(crops[:0], maps[0][:0], [], []), requested=0)
    assert len(read_activation_maps(tmp_path / "none.h5")[0].images) == 0
    (tmp_path / "text.h5").write_text("maps")
    with pytest.raises(InputError, match=r"text\.h5: found no HDF5 signature"):
        read_activation_maps(tmp_path / "text.h5")
