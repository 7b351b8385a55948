"""Segmentation of new slices and their properties with error bars, in one call."""

import json
import re

import dask.array as da
import numpy as np
import pandas as pd
import pytest
import tifffile
import torch
from scipy.ndimage import gaussian_filter

from cathodeflow import fibsem
from cathodeflow.errors import InputError
from cathodeflow.fibsem.bundle import save_bundle
from cathodeflow.fibsem.surface_page import phases_page
from cathodeflow.fibsem.unet import UNet
from cathodeflow.io.tables import write_table
from cathodeflow.io.volumes import write_volume

CLASSES = ["pore", "active", "binder"]
MEANS = (50.0, 150.0, 100.0)
GROUPS = ("fractions", "surfaces")


def nearest_mean():
    """A network that takes the class with the nearest mean grey level: its logits are linear in the grey level."""
    network = UNet(3, context=1, widths=(2, 2), dropout=0.1, dropout_where="blocks", dropout_kind="element",
                   normalization="batch")  # fmt: skip
    with torch.no_grad():
        for name, value in network.named_parameters():
            # Weights of the batch norms are 1.
            value.fill_(1.0 if name.endswith(("1.weight", "4.weight")) and value.ndim == 1 else 0.0)
        for block in (network.encoders[0], network.decoders[0]):
            for layer in (block.layers[0], block.layers[3]):
                layer.weight[0, 0, 1, 1] = 1
        means = torch.tensor(MEANS) / 10
        network.head.weight[:, 0, 0, 0] = 2 * means
        network.head.bias[:] = -means.square()
    network.set_normalization(0.0, 10.0)
    return network.eval()


def slices(seed, shape=(16, 48, 48)):
    """Labels, and their slices with blurred edges, in which the binder between pores and solid is an artefact."""
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal(shape), 4)
    # With fixed fractions, as of one electrode.
    labels = np.digitize(noise, np.quantile(noise, [0.4, 0.5]))
    labels = np.array([0, 2, 1])[labels].astype(np.uint8)
    grey = gaussian_filter(np.array(MEANS)[labels], (0, 1, 1))
    return labels, grey.round().astype(np.uint8)


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrated")
    method = {"name": "ugsm", "network": "ugsm", "kind": "network", "helpers": ""}
    own = {"class_weights": [1.0, 1.0, 1.0], "passes": 8, "flips": False, "seed": 0}
    metadata = {name: {"ugsm": value} for name, value in own.items()}
    metadata |= {"classes": CLASSES, "fractions": [0.4, 0.5, 0.1], "threshold": {}, "best": "ugsm", "grey": "uint8"}
    save_bundle(folder / "model.pt", {"ugsm": nearest_mean()}, {**metadata, "levelled": False, "methods": [method]})
    labels, grey = slices(0)
    write_volume(folder / "images.zarr", grey, axes=("image", "y", "x"), attributes={"classes": CLASSES})
    write_volume(folder / "labels.zarr", labels, axes=("image", "y", "x"), attributes={"classes": CLASSES})
    role = ["validation"] * 14 + ["left out"] * 2
    write_table(folder / "pairs.parquet", pd.DataFrame({"slice": range(16), "copy": 0, "role_grouped": role}))
    fibsem.calibrate_errors(
        folder / "model.pt", folder / "images.zarr", folder / "labels.zarr", folder / "pairs.parquet",
        split="grouped", out=folder / "model_errors.json",
        options=fibsem.CalibrateErrors(groups=GROUPS, passes=2, threads=1),
    )  # fmt: skip
    return folder


def measured(folder, out, number=1, **options):
    labels, grey = slices(number)
    tifffile.imwrite(out / "slices.tif", grey, photometric="minisblack")
    settings = {"groups": GROUPS, "threads": 1, "pixel_nm": 100.0} | options
    metrics = fibsem.measure(
        out / "slices.tif", out=out / "out", options=fibsem.Measure(model=str(folder / "model.pt"), **settings)
    )
    return labels, pd.read_csv(out / "out/properties.csv"), metrics


def test_the_bias_is_removed_and_both_errors_are_in_the_interval(calibrated, tmp_path):
    labels, table, metrics = measured(calibrated, tmp_path)
    rows = table[table["property"] == "volume_fraction"].set_index("phase")
    for number, name in enumerate(CLASSES):
        row, true = rows.loc[name], float((labels == number).mean())
        if name == "binder":
            # Blurred edges look like binder.
            assert row["as_segmented"] > true + 0.02
        assert abs(row["value"] - true) < 0.5 * abs(row["as_segmented"] - true) + 0.003
        assert row["standard_error"] == pytest.approx(
            np.hypot(row["sampling_error"], row["segmentation_error"]), rel=1e-3
        )
        assert row["low_95"] < row["low_68"] < row["value"] < row["high_68"] < row["high_95"]
    assert rows["value"].sum() == pytest.approx(1)
    assert set(table.loc[table["property"] == "specific_surface_area", "unit"]) == {"1/um"}
    content = json.loads((tmp_path / "out/properties.json").read_text())
    assert content["settings"]["segmentation_error"] and len(content["properties"]) == len(table)
    assert metrics["pass_ratio"] >= 1
    page = (tmp_path / "out/surface.html").read_text()
    assert all(f'"{name}"' in page for name in CLASSES) and "http" not in page.replace("http://www.w3.org", "")
    assert (tmp_path / "out/properties.png").stat().st_size > 10_000


def test_without_calibration_the_table_says_that_only_sampling_is_in_it(calibrated, tmp_path):
    (tmp_path / "model.pt").write_bytes((calibrated / "model.pt").read_bytes())
    _, table, _ = measured(tmp_path, tmp_path)
    known = table[table["standard_error"].notna()]
    assert len(known) and known["note"].str.contains("sampling error only").all()
    assert known["as_segmented"].equals(known["value"])


def test_the_calibration_of_another_model_is_refused(calibrated, tmp_path):
    content = json.loads((calibrated / "model_errors.json").read_text())
    (tmp_path / "model.pt").write_bytes((calibrated / "model.pt").read_bytes())
    (tmp_path / "model_errors.json").write_text(json.dumps({**content, "model": "0" * 64}))
    with pytest.raises(InputError, match="calibration of another model"):
        measured(tmp_path, tmp_path)
    (tmp_path / "model_errors.json").write_text("{}")
    with pytest.raises(InputError, match="another file"):
        measured(tmp_path, tmp_path)


def test_the_page_of_few_large_slices_keeps_their_distance() -> None:
    """Slices of more than 72 px are averaged, two slices over two of them only."""
    labels = np.zeros((2, 300, 300), np.uint8)
    labels[:, :150] = 1
    page = phases_page(da.from_array(labels), ["pore", "active"], (100.0, 1.0, 1.0), unit="um", title="thin")
    radius = float(re.search(r'"radius": ?([0-9.]+)', page)[1])
    assert radius == pytest.approx(np.linalg.norm([100, 150, 150]), rel=0.05)
