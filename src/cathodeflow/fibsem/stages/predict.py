"""Stage: segment slices without labels."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.fibsem.bundle import load_bundle
from cathodeflow.fibsem.methods import Method
from cathodeflow.fibsem.predict_options import AUTO, Predict
from cathodeflow.fibsem.preprocessing import blank_slices, normalize_slices
from cathodeflow.fibsem.rare_classes import missing_classes
from cathodeflow.fibsem.segmentation import match_volume, segment
from cathodeflow.fibsem.training_appearance import Comparison, compare_slices
from cathodeflow.fibsem.voxels import used_voxel
from cathodeflow.io.slices import open_slices
from cathodeflow.io.streams import NewStore, write_together
from cathodeflow.progress import progress
from cathodeflow.stage import Metrics, OutputStore, Source, stage

log = logging.getLogger("cathodeflow.fibsem")
# Slices that are segmented at a time.
_TOGETHER = 4


@stage("fibsem.predict")
def predict(
    slices: Source,
    *,
    out: OutputStore,
    probabilities: OutputStore | None = None,
    uncertainty: OutputStore | None = None,
    options: Predict,
) -> Metrics:
    """Segment SLICES into phases with a trained model.

    Parameters
    ----------
    slices : path
        Slices: folder, pattern, stack file, dataset or Zarr store.
    out : path
        Zarr store of the phases to write.
    probabilities : path
        Zarr store of the class probabilities to write.
    uncertainty : path
        Zarr store of the entropy of the class probabilities to write [nat].

    Raises
    ------
    InputError
        The model is missing or has no methods, or the slices cannot be used.
    """
    torch.set_num_threads(options.threads)
    method, networks, metadata = _model(options)
    volume, stated = open_slices(slices, options.choice(), refuse_blank=options.blank_slices == "fail")
    voxel = used_voxel(stated, options, slices)
    left: list[int] = []
    if options.blank_slices == "leave_out":
        left = blank_slices(np.asarray(volume[number]) for number in range(len(volume)))
        volume = volume[[number for number in range(len(volume)) if number not in set(left)]]
    if not len(volume):
        raise InputError(slices, "only blank slices", "images")
    for text in [*voxel.warnings, *([f"blank slices, left out: {', '.join(map(str, left))}"] if left else [])]:
        log.warning("%s", text)
    n, rows, cols = volume.shape
    classes, scale = metadata["classes"], voxel.metadata
    # Models of earlier versions do not know the fractions of their training set.
    trained = dict(zip(classes, metadata.get("fractions", []), strict=False))
    matching = match_volume(volume, networks[method.network], metadata, options)
    compared = Comparison({}, [])
    if metadata.get("appearance"):

        def one(number: int) -> NDArray[Any]:
            image = np.asarray(volume[number])
            return normalize_slices(image[None])[0] if metadata["levelled"] else image

        same = metadata["levelled"] or str(volume.dtype) == metadata["grey"]
        compared = compare_slices(one, n, matching, metadata["appearance"], same_scale=same)
    for text in compared.warnings:
        log.warning("%s", text)
    # What figures need to show the same slices.
    read = {
        "read": {**options.choice()._asdict(), "left_out": left},
        "trained_fractions": trained,
        "warnings": compared.warnings,
    }
    layout = {"attributes": {"classes": classes, "method": method.name, **read}, **scale}
    layered = {**layout, "axes": ("c", "z", "y", "x")}
    if scale:
        layered["scale"] = (1.0, *scale["scale"])
    stores = {
        "labels": NewStore(out, (n, rows, cols), np.uint8, layout),
        "probabilities": NewStore(probabilities or "", (len(classes), n, rows, cols), np.float16, layered),
        "uncertainty": NewStore(uncertainty or "", (n, rows, cols), np.float32, layout),
    }
    wanted = [name for name, store in stores.items() if store.path]
    if metadata["levelled"]:
        log.info("each slice is normalised to a common mean and standard deviation, as in training")
    elif not matching.identity:
        log.info("intensities are matched to those of the training slices: %.4g * intensity %+.4g", *matching[:2])
    counts, sums = np.zeros(len(classes)), {"entropy": 0.0, "idk": 0.0}

    def blocks() -> Iterator[list[NDArray[Any]]]:
        found = segment(volume, method, networks, metadata, options, matching=matching, together=_TOGETHER)
        for phases, idk in progress(found, "segmenting", total=-(-n // _TOGETHER)):
            labels, likely, entropy = (values.numpy() for values in phases)
            counts[:] += np.bincount(labels.ravel(), minlength=len(classes))
            sums["entropy"] += float(entropy.sum(dtype=np.float64))
            sums["idk"] += 0.0 if idk is None else float(idk.sum())
            made = {"labels": labels, "probabilities": likely.swapaxes(0, 1), "uncertainty": entropy}
            yield [made[name] for name in wanted]

    write_together([stores[name] for name in wanted], blocks())
    pixels = n * rows * cols
    fractions = {name: float(part) for name, part in zip(classes, counts / pixels, strict=True)}
    missing = missing_classes(fractions, trained)
    for text in missing:
        log.warning("%s: %s", method.name, text)
    metrics = {f"fraction_{name}": part for name, part in fractions.items()}
    metrics |= {"slices": n, "mean_entropy": sums["entropy"] / pixels, "idk_share": sums["idk"] / pixels}
    log.info("%s: %s", method.name, ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    texts = {"slices_left_out": ", ".join(map(str, left)), "missing_classes": "; ".join(missing),
             "unlike_training": "; ".join(compared.warnings)}  # fmt: skip
    named = {key: text for key, text in texts.items() if text}
    return Metrics({**metrics, **compared.record, **voxel.record, **named})


def _model(options: Predict) -> tuple[Method, dict[str, Any], dict[str, Any]]:
    """Read the networks, and find the method of the options."""
    if options.model is None:
        raise InputError("--model", "nothing", "the model file of trained networks")
    path = options.model
    networks, metadata = load_bundle(path if Path(path).is_file() or path.endswith(".pt") else f"{path}.pt")
    methods = {entry["name"]: Method(**entry) for entry in metadata.get("methods", [])}
    if not methods:
        raise InputError(path, "networks without methods", "the file model.pt of a run")
    name = metadata["best"] if options.method == AUTO else options.method
    if name not in methods:
        raise InputError("--method", name, "one of " + ", ".join([*methods, AUTO]))
    return methods[name], networks, metadata
