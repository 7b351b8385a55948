"""Commands that phase: from random starts, and from the network's image."""

import logging
from typing import Any

import click

from cathodeflow.bcdi.cli.shared import group, out_flag, sample_flag
from cathodeflow.bcdi.options import Phase, Refine
from cathodeflow.old_commands import stage_command
from cathodeflow.old_flags import compute_device, record_flag

log = logging.getLogger("cathodeflow.bcdi")
figure_flag = click.option("--figure", required=True, metavar="FILE", help="Image of the errors to write.")


@stage_command(group, Phase)
@click.argument("pattern")
@sample_flag
@out_flag
@record_flag()
@figure_flag
def phase(pattern: str, sample: str, out: str, record: str, figure: str, options: Phase) -> None:
    """Phase the prepared PATTERN from random starts."""
    import torch

    from cathodeflow.bcdi.modes import best_of, mode_decomposition
    from cathodeflow.bcdi.phase import retrieve
    from cathodeflow.io.phasing import read_pattern

    torch.set_num_threads(options.threads)
    measured = read_pattern(pattern)
    widths: dict[str, Any] = {"full": None, "fixed": options.coherence_px, "fit": "fit"}
    names = {"recipe", "starts", "beta", "shrink_every", "sigma", "threshold", "support", "phase_limits", "likelihood",
             "free_share"}  # fmt: skip
    found = retrieve(
        torch.from_numpy(measured.amplitude), mask=torch.from_numpy(measured.mask), seed=options.seed or 0,
        coherence=widths[options.coherence], device=compute_device(options.device), **options.model_dump(include=names),
    )  # fmt: skip
    order = best_of(found, options.starts)
    modes = mode_decomposition(found.objects[order[: options.modes]])
    more = {"first_mode_share": float(modes.shares[0])}
    _write("phase", found, order, measured, sample, out, record, figure, options, more)


@stage_command(group, Refine)
@click.argument("pattern")
@click.argument("objects")
@sample_flag
@out_flag
@record_flag()
@figure_flag
def refine(pattern: str, objects: str, sample: str, out: str, record: str, figure: str, options: Refine) -> None:
    """Phase the prepared PATTERN from the OBJECTS that a network made of it."""
    import torch

    from cathodeflow.bcdi import refine as stage
    from cathodeflow.bcdi.modes import best_of
    from cathodeflow.errors import InputError
    from cathodeflow.io.phasing import read_pattern, read_starts

    torch.set_num_threads(options.threads)
    measured, start = read_pattern(pattern), read_starts(objects)
    # A candidate of zeros is nothing to start from.
    usable = torch.from_numpy(start.objects[start.objects.any((1, 2, 3))][: options.candidates])
    if not len(usable):
        raise InputError(objects, "candidates that are 0 everywhere", "an image: train the network longer")
    found = stage.refine(
        torch.from_numpy(measured.amplitude), usable, mask=torch.from_numpy(measured.mask),
        device=compute_device(options.device), **options.model_dump(exclude={"candidates", "threads", "device"}),
    )  # fmt: skip
    order = best_of(found, len(found.objects))
    _write("refine", found, order, measured, sample, out, record, figure, options, {})


def _write(
    stage: str, found: Any, order: list[int], measured: Any, sample: str, out: str, record: str, figure: str,
    options: Any, more: dict[str, float],
) -> None:  # fmt: skip
    """Write objects, the best first, and what they are like."""
    import torch

    from cathodeflow.bcdi.ambiguities import align
    from cathodeflow.bcdi.metrics import support_fraction
    from cathodeflow.bcdi.noise import counting_noise
    from cathodeflow.bcdi.plots import errors_figure
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.phasing import Starts, write_starts
    from cathodeflow.record import write_record

    sorted_starts = [tensor[order] for tensor in found]
    objects = sorted_starts[0]
    arrays = dict(zip(Starts._fields, (tensor.numpy() for tensor in sorted_starts), strict=False))
    write_starts(out, Starts(**arrays, binning=measured.binning))
    noise = counting_noise(torch.from_numpy(measured.amplitude), valid=torch.from_numpy(measured.mask))
    save_figure(figure, errors_figure([one.numpy() for one in found.errors], chosen=order[0], noise=noise))
    metrics = {
        "starts": len(order), "best_start": order[0], "error": float(found.errors[order[0], -1]),
        "counting_noise": noise, "support_fraction": float(support_fraction(objects[:1])[0]), **more,
    }  # fmt: skip
    if not bool(found.free_log_likelihood.isnan().any()):
        metrics["free_log_likelihood"] = float(sorted_starts[3][0])
    if len(order) > 1:
        metrics["median_correlation_with_best"] = float(align(objects[1:], objects[0])[1].median())
    history = [{"epoch": number, "error": float(value)} for number, value in enumerate(found.errors[order[0]], 1)]
    write_record(
        record, stage=f"bcdi.{stage}", sample=sample, options=options, metrics=metrics, history=history,
        figures=[figure],
    )  # fmt: skip
    log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
