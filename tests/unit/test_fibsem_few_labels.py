"""Few labelled slices: the method is chosen by cross-validation, and networks get large surroundings."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from cathodeflow import fibsem
from cathodeflow.errors import InputError
from cathodeflow.fibsem.architectures import build_network
from cathodeflow.fibsem.methods import all_methods
from cathodeflow.fibsem.network_options import TrainGlobal
from cathodeflow.fibsem.selection import selection_scores
from cathodeflow.fibsem.slice_counts import confusion, mean_iou
from cathodeflow.io.volumes import read_volume, read_volume_info, write_volume
from tests.unit.test_fibsem_unet import predict_slices

needs_smp = pytest.mark.skipif(
    importlib.util.find_spec("segmentation_models_pytorch") is None, reason="needs the extra fibsem-architectures"
)
ONE = {"threads": 1, "device": "cpu"}


def diagonal(*right: int) -> np.ndarray:
    """Confusion matrix of two classes with 10 pixels each, so many of them right."""
    return np.array([[right[0], 10 - right[0]], [10 - right[1], right[1]]], float)


def test_a_lucky_validation_image_does_not_decide_where_labels_are_few() -> None:
    methods = all_methods({"lucky": [1, 1], "steady": [1, 1]}, {"local": "steady"})
    validation = {
        "lucky": diagonal(9, 9),
        "steady": diagonal(8, 8),
        "steady_mlp": diagonal(7, 7),
        "local": diagonal(9, 9),
    }
    scores = selection_scores(methods, validation, {})
    assert scores["lucky"] == scores["local"] == pytest.approx(9 / 11)
    # Five images, each predicted by a network that does not know it.
    scores = selection_scores(methods, validation, {"lucky": 5 * diagonal(5, 5), "steady": 5 * diagonal(8, 8)})
    assert scores["lucky"] == pytest.approx(34 / (60 + 26))
    assert scores["steady"] == pytest.approx(8 / 12)
    # Pixel networks know the out-of-fold predictions: only their gain on the validation images counts.
    assert scores["local"] == pytest.approx(8 / 12 + 9 / 11 - 8 / 12)
    assert scores["steady_mlp"] < scores["steady"]
    assert max(scores, key=lambda name: scores[name]) == "local"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images: bright spots, in one half of which the label depends on the half."""
    folder = tmp_path_factory.mktemp("few")
    rng = np.random.default_rng(0)
    labels = (rng.random((8, 32, 32)) < 0.4).astype(np.uint8)
    labels[:, 0, :2] = (0, 1)
    grey = np.clip(90 + 60 * labels + rng.normal(0, 25, labels.shape), 0, 255).astype(np.uint8)
    axes = ("z", "y", "x")
    write_volume(folder / "slices.zarr", grey, axes=axes)
    write_volume(folder / "labels.zarr", labels, axes=axes, attributes={"classes": ["a", "b"]})
    fibsem.augment(
        folder / "slices.zarr", folder / "labels.zarr", out=folder / "images.zarr",
        labels_out=folder / "image_labels.zarr", pairs=folder / "pairs.parquet",
        options=fibsem.Augment(copies=2, gap=0),
    )  # fmt: skip
    return folder


def trained(folder: Path, name: str, **options: object) -> None:
    """Train a small forest, and predict."""
    stores = (folder / "images.zarr", folder / "image_labels.zarr")
    forest = {"trees": 3, "scales": [0.7], "min_leaf": 1, "pixels_per_image": 300}
    fibsem.train_global(
        *stores, folder / "pairs.parquet", split="grouped", out=folder / f"{name}.pt",
        options=TrainGlobal(architecture="forest", dropout=0.0, class_weights="none", forest=forest, **ONE, **options),
    )  # fmt: skip
    fibsem.predict_global(
        folder / f"{name}.pt", stores[0], folder / "pairs.parquet", split="grouped", out=folder / f"{name}_logits.zarr",
        entropy=folder / f"{name}_entropy.zarr", labels=folder / f"{name}_labels.zarr",
        table=folder / f"{name}_images.parquet", options=fibsem.PredictGlobal(**ONE),
    )  # fmt: skip


def scored(folder: Path, networks: str) -> dict[str, float]:
    fibsem.test(
        folder, folder / "images.zarr", folder / "image_labels.zarr", networks=networks, split="grouped",
        record=folder / "test.json", options=fibsem.Test(**ONE),
    )  # fmt: skip
    return json.loads((folder / "test.json").read_text())["metrics"]


def test_all_labelled_images_count_in_the_choice_where_labels_are_few(run: Path) -> None:
    trained(run, "forest")
    metrics = scored(run, "forest")
    listed = pd.read_parquet(run / "forest_images.parquet")
    assert (listed["role"] == "train").sum() == 5 and (listed["role"] == "validation").sum() == 1
    truth, predicted = (
        read_volume(run / "image_labels.zarr").compute(),
        read_volume(run / "forest_labels.zarr").compute(),
    )
    scores = {}
    for roles in (["validation"], ["train"], ["train", "validation"]):
        own = np.flatnonzero(listed["role"].isin(roles))
        scores["+".join(roles)] = float(mean_iou(confusion(truth[listed["image"].to_numpy()[own]], predicted[own], 2)))
    assert metrics["validation_miu_forest"] == pytest.approx(scores["validation"])
    assert metrics["crossvalidation_miu_forest"] == pytest.approx(scores["train+validation"])
    # A forest with single pixels in its leaves knows its own pixels nearly by heart.
    assert scores["train"] < 0.75
    assert read_volume_info(run / "test_labels.zarr").attributes["best"] == "forest"


def test_many_labels_are_not_cross_validated(run: Path) -> None:
    trained(run, "plain", few_labels=5)
    assert set(pd.read_parquet(run / "plain_images.parquet")["role"]) == {"validation", "test"}
    assert "crossvalidation_miu_plain" not in scored(run, "plain")


@needs_smp
def test_a_reduced_network_segments_the_averaged_slice() -> None:
    options = TrainGlobal(architecture="smp.unet/resnet18", dropout=0.0, reduction=4)
    torch.manual_seed(0)
    network = build_network(options, n_classes=2).eval()
    x = torch.rand(1, 1, 256, 128)
    with torch.no_grad():
        coarse = network.body(x.reshape(1, 1, 64, 4, 32, 4).mean((3, 5)))
        found = network(x)
    assert found.shape == (1, 2, 256, 128)
    # Between the pixels of the network, logits are interpolated; in the middle of 4 x 4 px they are those of one.
    middle = found[..., 1::4, 1::4] + found[..., 2::4, 2::4] + found[..., 1::4, 2::4] + found[..., 2::4, 1::4]
    inner = (..., slice(1, -1), slice(1, -1))
    laplacian = torch.nn.functional.avg_pool2d(coarse, 3, 1, 1) - coarse
    assert (middle / 4 - coarse)[inner].abs().max() < 1.1 * laplacian.abs().max()
    # Tiles count reduced pixels: this slice is one tile.
    whole, tiled = (predict_slices(network, x[:, 0], tile=tile, overlap=8) for tile in (1024, 64))
    assert torch.equal(whole.logits, tiled.logits)
    with torch.no_grad():
        assert network(torch.rand(1, 1, 50, 37)).shape == (1, 2, 50, 37)


def test_other_networks_are_not_reduced() -> None:
    with pytest.raises((InputError, ValueError), match="`reduction` needs smp"):
        TrainGlobal(architecture="unet", reduction=2)
