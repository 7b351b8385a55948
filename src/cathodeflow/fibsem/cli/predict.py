"""The command that segments slices without labels."""

import logging

import click

from cathodeflow.commands import stage_command
from cathodeflow.fibsem.cli.shared import group
from cathodeflow.fibsem.options import Predict
from cathodeflow.flags import compute_device, record_flag, sample_flag

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
    import torch

    from cathodeflow.errors import InputError
    from cathodeflow.fibsem.bundle import load_bundle
    from cathodeflow.fibsem.methods import Method
    from cathodeflow.fibsem.segment import segment
    from cathodeflow.io.slices import lazy_stack, open_stack
    from cathodeflow.io.volumes import read_volume, read_volume_info

    if options.model is None:
        raise InputError("--model", "nothing", "the model file of trained networks")
    torch.set_num_threads(options.threads)
    networks, about = load_bundle(options.model)
    methods = {one["name"]: Method(**one) for one in about.get("methods", [])}
    name = options.method or about.get("best")
    if name not in methods:
        raise InputError(f"{options.model}, method", str(name), "one of " + ", ".join(methods))
    stored = slices.rstrip("/").endswith(".zarr")
    grey = read_volume(slices) if stored else lazy_stack(open_stack(slices), together=1)
    scale = dict(zip(("axes", "scale", "unit"), read_volume_info(slices)[:3], strict=True)) if stored else {}
    answers = segment(
        grey, methods[name], networks, about, together=_TOGETHER, tile=options.tile, overlap=options.overlap,
        device=compute_device(options.device),
    )  # fmt: skip
