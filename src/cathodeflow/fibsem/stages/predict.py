"""Stage: segment slices without labels."""

import logging
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cathodeflow.fibsem.new_slices import NewSlices, open_new_slices
from cathodeflow.fibsem.predict_options import Predict
from cathodeflow.fibsem.rare_classes import missing_classes
from cathodeflow.fibsem.segmentation import segment
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
    return segment_to_stores(
        open_new_slices(slices, options), out=out, probabilities=probabilities, uncertainty=uncertainty, options=options
    )


def segment_to_stores(
    slices: NewSlices, *, out: str, probabilities: str | None = None, uncertainty: str | None = None, options: Predict
) -> Metrics:
    """Segment opened slices; parameters and result are those of `predict`."""
    volume, left, compared, method = slices.volume, slices.left_out, slices.compared, slices.method
    networks, metadata, matching = slices.networks, slices.metadata, slices.matching
    n, rows, cols = volume.shape
    classes, scale = metadata["classes"], slices.voxel.metadata
    # Models of earlier versions do not know the fractions of their training set.
    trained = dict(zip(classes, metadata.get("fractions", []), strict=False))
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
    return Metrics({**metrics, **compared.record, **slices.voxel.record, **named})
