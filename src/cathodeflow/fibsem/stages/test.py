"""Stage: segment the test images with every method."""

import logging
from collections.abc import Iterator
from typing import Any

import dask.array as da
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from cathodeflow.fibsem.bundle import load_bundle, save_bundle
from cathodeflow.fibsem.idk import evaluate_threshold
from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.methods import Method, Segmentation, all_methods, apply_method
from cathodeflow.fibsem.neighbours import read_matched
from cathodeflow.fibsem.options import Test
from cathodeflow.fibsem.selection import selection_scores
from cathodeflow.fibsem.slice_counts import confusion, mean_iou
from cathodeflow.fibsem.split import TEST, TRAIN, VALIDATION
from cathodeflow.io.tables import read_table, write_table
from cathodeflow.io.volumes import read_volume, write_volume
from cathodeflow.learning import resolve_device
from cathodeflow.stage import InputFolder, InputStore, Metrics, stage

log = logging.getLogger("cathodeflow.fibsem")
# Images in memory at a time.
_TOGETHER = 8


@stage("fibsem.test")
def test(
    folder: InputFolder,
    images: InputStore,
    labels: InputStore,
    *,
    networks: str,
    split: str,
    methods: str = "",
    repeat: int = 0,
    options: Test,
) -> Metrics:
    """Predict the test images with every method trained in FOLDER, and choose the best method on the validation set.

    Where labels are few, the training images count, too: each is predicted by networks that were trained without it.

    Parameters
    ----------
    folder : path
        Folder of a run, with its trained networks. The test writes to it: `model.pt` with all networks; the stores
        `test_labels.zarr`, `test_probabilities.zarr`, `test_uncertainty.zarr` and `test_idk.zarr`; `test.parquet`.
    images : path
        Zarr store of the images.
    labels : path
        Zarr store of their labels.
    networks : str
        Names of the global networks in FOLDER, separated by commas.
    split : str
        Split of the images: `grouped` or `paper`.
    methods : str
        Methods with a local model as NAME=NETWORK, separated by commas; NAME=NETWORK/all if the local model decides all
        pixels.
    repeat : int
        Number of the run.
    """
    torch.set_num_threads(options.threads)
    given = dict(method.split("=") for method in methods.split(",") if method)
    local = {name: network.removesuffix("/all") for name, network in given.items()}
    everywhere = {name for name, network in given.items() if network.endswith("/all")}
    trained, metadata, crossed = _collect(folder, networks.split(","), local)
    offered = all_methods(metadata["class_weights"], local, everywhere)
    device = resolve_device(options.device or "auto")
    volume, label_volume = read_volume(images), read_volume(labels)
    found: dict[str, dict[str, NDArray[Any]]] = {}
    counts: dict[str, NDArray[np.float64]] = {}
    out_of_fold: dict[str, NDArray[np.float64]] = {}
    n_classes = len(metadata["classes"])
    for method in offered:
        columns = ["slice", "copy", "image", "role", "neighbours", "gain", "offset"]
        listed = read_table(f"{folder}/{method.network}_images.parquet", columns)
        logits = read_volume(f"{folder}/{method.network}_logits.zarr")
        rows = {role: np.flatnonzero(listed["role"] == role) for role in (VALIDATION, TEST)}
        predicted = {
            role: _joined(_segmentations(method, trained, metadata, listed, own, logits, volume, device))
            for role, own in rows.items()
        }
        right = label_volume[listed["image"].to_numpy()[rows[VALIDATION]]].compute()
        counts[method.name] = confusion(right, predicted[VALIDATION]["labels"], n_classes)
        found[method.name], tested = predicted[TEST], listed.iloc[rows[TEST]]
        if method.kind == "network" and crossed:
            own = np.flatnonzero((listed["role"] == TRAIN) & (listed["copy"] == 0))
            without = read_volume(f"{folder}/{method.network}_labels.zarr")
            out_of_fold[method.name] = np.zeros((n_classes, n_classes))
            for row, image in zip(own, listed["image"].to_numpy()[own], strict=True):
                right = label_volume[image].compute()
                out_of_fold[method.name] += confusion(right, without[row].compute(), n_classes)
    scores = selection_scores(offered, counts, out_of_fold)
    best = max(scores, key=lambda name: scores[name])
    metadata |= {"best": best, "methods": [method._asdict() for method in offered]}
    save_bundle(f"{folder}/model.pt", trained, metadata)
    attributes = {"methods": list(found), "networks": networks.split(","), "classes": metadata["classes"]}
    attributes |= {"local": local, "best": best}
    stacked = {name: np.stack([arrays[name] for arrays in found.values()]) for name in next(iter(found.values()))}
    stacked |= {"probabilities": stacked["probabilities"].astype(np.float16), "idk": stacked["idk"].astype(np.uint8)}
    for name, array in stacked.items():
        axes = ("method", "image", "class", "y", "x") if name == "probabilities" else ("method", "image", "y", "x")
        write_volume(f"{folder}/test_{name}.zarr", array, axes=axes, attributes=attributes)
    write_table(f"{folder}/test.parquet", tested.assign(split=split, seed=repeat))
    metrics = {f"validation_miu_{name}": float(mean_iou(own)) for name, own in counts.items()}
    if crossed:
        metrics |= {f"crossvalidation_miu_{name}": value for name, value in scores.items()}
    metrics |= {"test_images": len(tested)}
    right = label_volume[tested["image"].to_numpy()].compute()
    for name, base in local.items():
        known = right != UNLABELLED
        value = evaluate_threshold(found[name]["idk"][known], (found[base]["labels"] != right)[known], 0.5)
        metrics |= {f"idk_{figure}_{name}": getattr(value, figure) for figure in ("precision", "recall", "share")}
    log.info("best %s mIoU: %s (%.4f)", "cross-validation" if crossed else "validation", best, scores[best])
    return Metrics(metrics)


def _collect(folder: str, networks: list[str], local: dict[str, str]) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Gather the networks of all methods, the metadata for using them, and whether all networks are cross-validated."""
    found: dict[str, Any] = {}
    crossed = True
    metadata: dict[str, Any] = {"class_weights": {}, "passes": {}, "flips": {}, "threshold": {}, "seed": {}}
    for name in networks:
        bundle, own = load_bundle(f"{folder}/{name}.pt")
        found[name] = bundle["network"]
        # Of the training slices, which are the same for all networks.
        metadata |= {key: own[key] for key in ("classes", "fractions", "appearance", "grey", "levelled")}
        for key in ("class_weights", "passes", "flips", "seed"):
            metadata[key][name] = own[key]
        crossed = crossed and own.get("cross_validated", False)
    for name in local:
        classifiers, own = load_bundle(f"{folder}/{name}_idk.pt")
        windows, _ = load_bundle(f"{folder}/{name}_local.pt")
        found |= {f"{name}-idk": classifiers["idk"], f"{name}-mlp": classifiers["mlp"]}
        found[f"{name}-local"] = windows["local"]
        metadata["threshold"][name] = own["threshold"]
    return found, metadata, crossed


def _segmentations(
    method: Method, trained: dict[str, Any], metadata: dict[str, Any], listed: pd.DataFrame, rows: NDArray[np.intp],
    logits: da.Array, volume: da.Array, device: torch.device,
) -> Iterator[Segmentation]:  # fmt: skip
    """Yield the segmentations of some images by a method, a few at a time."""
    for start in range(0, len(rows), _TOGETHER):
        own = rows[start : start + _TOGETHER]
        mean = torch.from_numpy(logits[own].compute().astype(np.float32))
        images = position = None
        if method.kind == "local":
            grey, position = read_matched(volume, listed.iloc[own])
            images = torch.from_numpy(grey)
        yield apply_method(method, mean, trained, metadata, device=device, images=images, near=position)


def _joined(segmentations: Iterator[Segmentation]) -> dict[str, NDArray[Any]]:
    """Join the segmentations of some images to arrays."""
    kept: dict[str, list[NDArray[Any]]] = {"labels": [], "probabilities": [], "uncertainty": [], "idk": []}
    for phases, idk in segmentations:
        for name, values in phases._asdict().items():
            kept[name].append(values.numpy())
        kept["idk"].append(np.zeros(phases.labels.shape, bool) if idk is None else idk.numpy())
    return {name: np.concatenate(parts) for name, parts in kept.items()}
