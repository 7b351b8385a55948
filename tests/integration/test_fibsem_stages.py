"""FIB-SEM: all stages called as functions, as in a notebook; what they return is what they write."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile

from cathodeflow import fibsem
from cathodeflow.errors import InputError
from cathodeflow.io.volumes import read_volume, read_volume_info
from cathodeflow.report.numbers import percent
from cathodeflow.report.page import write_report

DEVICE = {"device": "cpu", "threads": 1}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A volume with labels in a part of the pixels of every second slice, and a run of one network and one method."""
    folder = tmp_path_factory.mktemp("stages")
    fibsem.simulate(folder / "raw", options=fibsem.Simulate(n_slices=26, rows=48, cols=56, seed=1))
    stores = {name: folder / f"{name}.zarr" for name in ("slices", "labels", "images", "image_labels")}
    rng = np.random.default_rng(0)
    for number, path in enumerate(sorted((folder / "raw/labels").glob("*.tif"))):
        if number % 2:
            path.unlink()
            continue
        labels = tifffile.imread(path)
        labels[rng.random(labels.shape) < 0.2] = 255
        labels[:6, :30] = 255
        tifffile.imwrite(path, labels)
    volume = fibsem.Volume(pixel_nm=20.0, slice_nm=40.0, ignore=255)
    source, labels = folder / "raw/slices", folder / "raw/labels"
    fibsem.volume(source, out=stores["slices"], labels=labels, labels_out=stores["labels"], options=volume)
    fibsem.augment(
        stores["slices"], stores["labels"], out=stores["images"], labels_out=stores["image_labels"],
        pairs=folder / "pairs.parquet", options=fibsem.Augment(copies=2, gap=0),
    )  # fmt: skip
    network = {
        "widths": (4, 8),
        "epochs": 4,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "passes": 3,
        "dropout": 0.2,
        "context": 3,
        **DEVICE,
    }
    fibsem.train_global(
        stores["images"], stores["image_labels"], folder / "pairs.parquet", split="grouped", out=folder / "ugsm.pt",
        cross_fit=True, record=folder / "ugsm.json", checkpoint=folder / "ugsm.ckpt",
        options=fibsem.TrainGlobal(**network),
    )  # fmt: skip
    fibsem.predict_global(
        folder / "ugsm.pt", stores["images"], folder / "pairs.parquet", split="grouped", out=folder / "ugsm_logits.zarr",
        entropy=folder / "ugsm_entropy.zarr", labels=folder / "ugsm_labels.zarr", table=folder / "ugsm_images.parquet",
        options=fibsem.PredictGlobal(**DEVICE),
    )  # fmt: skip
    predicted = (folder / "ugsm_logits.zarr", folder / "ugsm_images.parquet")
    fibsem.train_idk(
        *predicted, stores["image_labels"], out=folder / "matphase_idk.pt", checkpoint=folder / "idk.ckpt",
        options=fibsem.TrainIdk(epochs=2, target=0.4, **DEVICE),
    )  # fmt: skip
    fibsem.train_local(
        folder / "ugsm.pt", folder / "matphase_idk.pt", *predicted, stores["images"], stores["image_labels"],
        out=folder / "matphase_local.pt", entropies=folder / "matphase_entropy.parquet",
        record=folder / "matphase_local.json", options=fibsem.TrainLocal(epochs=2, **DEVICE),
    )  # fmt: skip
    fibsem.test(
        folder, stores["images"], stores["image_labels"], networks="ugsm", methods="matphase=ugsm", split="grouped",
        record=folder / "test.json", options=fibsem.Test(**DEVICE),
    )  # fmt: skip
    assert not list(folder.glob("*.ckpt*"))
    return folder


def test_the_local_model_decides_at_idk_pixels_alone(run: Path) -> None:
    metrics = json.loads((run / "test.json").read_text())["metrics"]
    attributes = read_volume_info(run / "test_labels.zarr").attributes
    row = {name: index for index, name in enumerate(attributes["methods"])}
    idk, labels = (read_volume(run / f"test_{part}.zarr").compute() for part in ("idk", "labels"))
    tested = pd.read_parquet(run / "test.parquet")["image"].to_numpy()
    # Figures of merit count labelled pixels alone.
    known = read_volume(run / "image_labels.zarr")[tested].compute() != 255
    assert idk[row["matphase"]][known].mean() == pytest.approx(metrics["idk_share_matphase"])
    assert not idk[row["ugsm"]].any()
    assert 0.05 < idk[row["matphase"]].mean() < 0.9
    differ = labels[row["matphase"]] != labels[row["ugsm"]]
    assert not differ[idk[row["matphase"]] == 0].any()
    scores = {name: metrics[f"validation_miu_{name}"] for name in attributes["methods"]}
    assert attributes["best"] == max(scores, key=lambda name: scores[name]) and attributes["local"] == {
        "matphase": "ugsm"
    }


def test_properties_by_every_method_stand_beside_those_of_the_reference(run: Path, tmp_path: Path) -> None:
    fibsem.properties(
        run / "test_labels.zarr", reference=run / "image_labels.zarr", table=run / "test.parquet", out=tmp_path / "made",
        options=fibsem.Properties(groups=("fractions",)),
    )  # fmt: skip
    found = pd.read_csv(tmp_path / "made/properties.csv").set_index(["method", "property", "phase"])["value"]
    methods = read_volume_info(run / "test_labels.zarr").attributes["methods"]
    assert set(found.index.get_level_values("method")) == {"reference", *methods}
    tested = pd.read_parquet(run / "test.parquet")
    truth = read_volume(run / "image_labels.zarr").compute()[tested["image"].to_numpy()]
    predicted = read_volume(run / "test_labels.zarr")[methods.index("matphase")].compute()
    best = max(
        (tested.index[a : b + 1] for a in tested.index for b in tested.index if b >= a and _neighbours(tested, a, b)),
        key=len,
    )
    known = truth[best] != 255
    # Tables have six digits.
    assert found["reference", "volume_fraction", "pore"] == pytest.approx((truth[best] == 0)[known].mean(), rel=1e-5)
    assert found["matphase", "volume_fraction", "pore"] == pytest.approx((predicted[best] == 0).mean(), rel=1e-5)


def _neighbours(tested: pd.DataFrame, first: int, last: int) -> bool:
    """Whether these rows are a run of neighbouring slices."""
    slices = tested["slice"].to_numpy()[first : last + 1]
    return bool((np.diff(slices) == 1).all())


def test_metrics_are_those_of_the_tables_and_figures_are_drawn_from_files(run: Path, tmp_path: Path) -> None:
    tables = {name: tmp_path / f"{name}.csv" for name in ("out", "per_slice", "differences")}
    tables["out"] = tmp_path / "metrics.csv"
    options = fibsem.Metrics(bootstrap_samples=100)
    record = {"sample": "electrode", "record": tmp_path / "metrics.json"}
    found = fibsem.metrics([run], truth=run / "image_labels.zarr", options=options, **tables, **record)
    table = pd.read_csv(tables["out"]).set_index("model")
    truth = read_volume(run / "image_labels.zarr")[pd.read_parquet(run / "test.parquet")["image"].to_numpy()].compute()
    assert (truth == 255).mean() > 0.2
    assert table["true_fraction_pore"].to_numpy() == pytest.approx((truth == 0).sum() / (truth < 255).sum(), rel=1e-5)
    for name, row in table.iterrows():
        assert found[f"miu_{name}_grouped"] == pytest.approx(row["miu"], rel=1e-5)
    stores = {"images": run / "images.zarr", "labels": run / "image_labels.zarr"}
    drawn = fibsem.figures(out=tmp_path, comparison=tables["out"], run=run, **stores)
    names = ["methods", "fractions", "ugsm", "matphase_local", "matphase_pacing", "slices"]
    assert drawn.figures == [f"{tmp_path}/{name}.png" for name in names]
    assert all(Path(path).stat().st_size > 5000 for path in drawn.figures)
    (section,) = write_report(str(tmp_path), str(tmp_path / "index.html")).sections
    assert section.content.findings[0].value == percent(table["miu"].max())
    assert [grid.title.split(",")[0] for grid in section.content.grids] == [
        "Segmentation of the test slices", "Phase fractions of the test slices"
    ]  # fmt: skip


def test_the_reported_scores_are_those_of_the_prediction(run: Path, tmp_path: Path) -> None:
    """Slices between the labelled ones enter test and prediction, so that both are the same."""
    tables = {name: tmp_path / f"{name}.csv" for name in ("out", "per_slice", "differences")}
    fibsem.metrics([run], truth=run / "image_labels.zarr", options=fibsem.Metrics(bootstrap_samples=100), **tables)
    reported = pd.read_csv(tables["out"]).set_index("model")["miu"]
    tested = pd.read_parquet(run / "test.parquet")
    truth = read_volume(run / "image_labels.zarr")[tested["image"].to_numpy()].compute()
    methods = read_volume_info(run / "test_labels.zarr").attributes["methods"]
    for index, name in enumerate(methods):
        options = fibsem.Predict(model=str(run / "model.pt"), method=name, **DEVICE)
        fibsem.predict(run / "slices.zarr", out=tmp_path / f"{name}.zarr", options=options)
        phases = read_volume(tmp_path / f"{name}.zarr").compute()[tested["slice"].to_numpy()]
        np.testing.assert_array_equal(phases, read_volume(run / "test_labels.zarr")[index].compute())
        pairs = np.bincount((3 * truth.astype(int) + phases)[truth != 255], minlength=9).reshape(3, 3)
        overlap = np.diag(pairs) / (pairs.sum(0) + pairs.sum(1) - np.diag(pairs))
        assert reported[name] == pytest.approx(overlap.mean(), abs=1e-5)


def test_new_slices_are_segmented_and_drawn(run: Path, tmp_path: Path) -> None:
    fibsem.simulate(tmp_path / "new", number=3, options=fibsem.Simulate(n_slices=9, rows=48, cols=56, seed=1))
    slices = tmp_path / "new/slices"
    stores = {name: tmp_path / f"{name}.zarr" for name in ("out", "uncertainty")}
    options = fibsem.Predict(model=str(run / "model.pt"), method="matphase", pixel_nm=20.0, **DEVICE)
    metrics = fibsem.predict(slices, options=options, **stores)
    phases = read_volume(stores["out"]).compute()
    assert phases.shape == (9, 48, 56) and metrics["fraction_active"] == pytest.approx((phases == 1).mean())
    drawn = fibsem.figures(out=tmp_path, slices=slices, phases=stores["out"], uncertainty=stores["uncertainty"])
    assert drawn.figures == [f"{tmp_path}/predict.png"] and (tmp_path / "predict.png").is_file()
    with pytest.raises(InputError, match="--method: found magic, expected one of ugsm"):
        fibsem.predict(slices, out=tmp_path / "no.zarr", options=options.model_copy(update={"method": "magic"}))
    # Another number is another electrode.
    first = tifffile.imread(run / "raw/slices/slice_0000.tif")
    assert np.mean(tifffile.imread(slices / "slice_0000.tif") != first) > 0.5


def test_new_slices_are_read_as_their_file_says(run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fibsem.simulate(tmp_path / "new", number=3, options=fibsem.Simulate(n_slices=8, rows=48, cols=56, seed=1))
    grey = np.stack([tifffile.imread(path) for path in sorted((tmp_path / "new/slices").glob("*.tif"))])
    options = fibsem.Predict(model=str(run / "model.pt"), method="ugsm", **DEVICE)
    fibsem.predict(tmp_path / "new/slices", out=tmp_path / "plain.zarr", options=options)
    # The same as the second channel of an ImageJ file, with a blank slice between.
    two = np.insert(np.stack([255 - grey, grey], 1), 3, 80, axis=0)
    metadata = {"axes": "ZCYX", "spacing": 0.2, "unit": "um"}
    tifffile.imwrite(tmp_path / "two.tif", two, imagej=True, metadata=metadata, resolution=(20, 20))
    with pytest.raises(InputError, match="2 channels"):
        fibsem.predict(tmp_path / "two.tif", out=tmp_path / "no.zarr", options=options)
    with pytest.raises(InputError, match=r"slice 3: found the same value.*blank_slices: leave_out"):
        fibsem.predict(
            tmp_path / "two.tif", out=tmp_path / "no.zarr", options=options.model_copy(update={"channel": 1})
        )
    chosen = options.model_copy(update={"channel": 1, "blank_slices": "leave_out"})
    stores = {"out": tmp_path / "two.zarr", "uncertainty": tmp_path / "u.zarr"}
    metrics = fibsem.predict(tmp_path / "two.tif", options=chosen, **stores)
    assert metrics["slices_left_out"] == "3" and metrics["slices"] == 8 and "left out: 3" in caplog.text
    info = read_volume_info(tmp_path / "two.zarr")
    assert info.scale == pytest.approx((0.2, 0.05, 0.05)) and info.unit == "micrometer"
    np.testing.assert_array_equal(
        read_volume(tmp_path / "two.zarr").compute(), read_volume(tmp_path / "plain.zarr").compute()
    )
    drawn = fibsem.figures(
        out=tmp_path, slices=tmp_path / "two.tif", phases=stores["out"], uncertainty=stores["uncertainty"]
    )
    assert drawn.figures == [f"{tmp_path}/predict.png"]
    # Slices that all look like active material: the other classes are missing, and that is said.
    flat = np.full((3, 48, 56), int(np.quantile(grey, 0.7)), np.uint8) + np.random.default_rng(0).integers(
        0, 3, (3, 48, 56), np.uint8
    )
    tifffile.imwrite(tmp_path / "flat.tif", flat, photometric="minisblack")
    metrics = fibsem.predict(tmp_path / "flat.tif", out=tmp_path / "flat.zarr", options=options)
    assert "pore has" in metrics["missing_classes"] and "pore has" in caplog.text


def test_a_store_of_slices_is_predicted_like_the_files(run: Path, tmp_path: Path) -> None:
    options = fibsem.Predict(model=str(run / "model.pt"), method="ugsm", **DEVICE)
    for name, source in (("files", run / "raw/slices"), ("store", run / "slices.zarr")):
        fibsem.predict(source, out=tmp_path / f"{name}.zarr", options=options)
    files, store = (read_volume(tmp_path / f"{name}.zarr").compute() for name in ("files", "store"))
    np.testing.assert_array_equal(files, store)
    assert read_volume_info(tmp_path / "store.zarr").scale == (40.0, 20.0, 20.0)
