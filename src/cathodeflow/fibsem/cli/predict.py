"""The command that segments slices without labels."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from cathodeflow.errors import InputError
from cathodeflow.fibsem.cli.shared import group
from cathodeflow.fibsem.options import Predict
from cathodeflow.old_commands import progress, stage_command
from cathodeflow.old_flags import compute_device, record_flag, sample_flag

log = logging.getLogger("cathodeflow.fibsem")
# Slices whose answers are in memory at a time.
_TOGETHER = 4


@stage_command(group, Predict)
@click.argument("slices")
@sample_flag("Name of the volume.", "slices")
@click.option("--out", required=True, metavar="STORE", help="Zarr store of the phases to write.")
@click.option("--probabilities", metavar="STORE", help="Zarr store of the probabilities of the classes to write.")
@click.option("--uncertainty", metavar="STORE", help="Zarr store of the entropy of these to write.")
@click.option("--figure", metavar="FILE", help="Image of some slices to write.")
@record_flag(required=False)
def predict(
    slices: str, sample: str, out: str, probabilities: str | None, uncertainty: str | None, figure: str | None,
    record: str | None, options: Predict,
) -> None:  # fmt: skip
    """Tell the phases of SLICES: a folder, a pattern, a stack, or a Zarr store."""
    import numpy as np
    import torch

    from cathodeflow.fibsem.segment import segment
    from cathodeflow.fibsem.slice_plots import segmentation_figure
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.streams import NewStore, write_together
    from cathodeflow.record import write_record

    torch.set_num_threads(options.threads)
    method, networks, about = _model(options)
    grey, scale = _slices(slices, options)
    n, rows, cols = grey.shape
    classes = about["classes"]
    given = {"attributes": {"classes": classes, "method": method.name}, **scale}
    layered = {**given, "axes": ("c", "z", "y", "x")}
    if scale:
        layered["scale"] = (1.0, *scale["scale"])
    places = {"labels": out, "probabilities": probabilities, "uncertainty": uncertainty}
    stores = {
        "labels": NewStore(out, (n, rows, cols), np.uint8, given),
        "probabilities": NewStore(probabilities or "", (len(classes), n, rows, cols), np.float16, layered),
        "uncertainty": NewStore(uncertainty or "", (n, rows, cols), np.float32, given),
    }
    wanted = [name for name, path in places.items() if path]
    matched = options.grey == "matched" or (options.grey == "auto" and str(grey.dtype) != about["grey"])
    if about["levelled"]:
        log.info("every slice is brought to the same mean and deviation of the grey, as in training")
    elif matched:
        log.info("mean and deviation of the grey are brought to those of the training")
    shown = np.unique([0, n // 2, n - 1]).tolist()
    kept: list[tuple[Any, Any]] = []
    counts, sums = np.zeros(len(classes)), {"entropy": 0.0, "idk": 0.0}

    def blocks() -> Iterator[list[Any]]:
        answers = segment(
            grey, method, networks, about, matched=matched, together=_TOGETHER, tile=options.tile,
            overlap=options.overlap, device=compute_device(options.device),
        )  # fmt: skip
        start = 0
        for phases, idk in progress(answers, "segmenting", total=-(-n // _TOGETHER)):
            labels, likely, entropy = (one.numpy() for one in phases)
            counts[:] += np.bincount(labels.ravel(), minlength=len(classes))
            sums["entropy"] += float(entropy.sum(dtype=np.float64))
            sums["idk"] += 0.0 if idk is None else float(idk.sum())
            kept.extend((labels[k - start], entropy[k - start]) for k in shown if start <= k < start + len(labels))
            start += len(labels)
            made = {"labels": labels, "probabilities": likely.swapaxes(0, 1), "uncertainty": entropy}
            yield [made[name] for name in wanted]

    write_together([stores[name] for name in wanted], blocks())
    if figure:
        picture = segmentation_figure(
            np.stack([np.asarray(grey[k]) for k in shown]), {method.name: np.stack([one for one, _ in kept])},
            classes=classes, entropy=np.stack([one for _, one in kept]), names=[f"slice {k}" for k in shown],
            pixel_nm=options.pixel_nm,
        )  # fmt: skip
        save_figure(figure, picture)
    pixels = n * rows * cols
    metrics = {f"fraction_{name}": float(share) for name, share in zip(classes, counts / pixels, strict=True)}
    metrics |= {"slices": n, "mean_entropy": sums["entropy"] / pixels, "idk_share": sums["idk"] / pixels}
    if record:
        figures = [figure] if figure else []
        write_record(record, stage="fibsem.predict", sample=sample, options=options, metrics=metrics, figures=figures)
    log.info("%s: %s", method.name, ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))


def _model(options: Predict) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """Read the networks, and find the method that is asked for."""
    from cathodeflow.fibsem.bundle import load_bundle
    from cathodeflow.fibsem.methods import Method

    if options.model is None:
        raise InputError("--model", "nothing", "the model file of trained networks")
    path = options.model
    networks, about = load_bundle(path if Path(path).is_file() or path.endswith(".pt") else f"{path}.pt")
    methods = {one["name"]: Method(**one) for one in about.get("methods", [])}
    if not methods:
        raise InputError(path, "networks without methods", "the file model.pt of a run")
    name = options.method or about["best"]
    if name not in methods:
        raise InputError("--method", name, "one of " + ", ".join(methods))
    return methods[name], networks, about


def _slices(source: str, options: Predict) -> tuple[Any, dict[str, Any]]:
    """Open slices of any kind, and tell their scale as far as it is known."""
    from cathodeflow.io.slices import lazy_stack, open_stack
    from cathodeflow.io.volumes import read_volume, read_volume_info

    scale: dict[str, Any] = {}
    if source.rstrip("/").endswith(".zarr"):
        grey, info = read_volume(source), read_volume_info(source)
        if grey.ndim != 3:
            raise InputError(source, f"axes {', '.join(info.axes)}", "slice, row, col")
        scale = {"scale": info.scale, "unit": info.unit}
    else:
        grey = lazy_stack(open_stack(source), together=1)
    if options.pixel_nm:
        scale = {"scale": (options.slice_nm or options.pixel_nm, options.pixel_nm, options.pixel_nm), "unit": "nm"}
    return grey, scale
