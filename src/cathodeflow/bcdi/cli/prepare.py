"""The command from raw frames to amplitudes."""

import logging
from collections.abc import Iterable, Mapping
from typing import Any

import click

from cathodeflow.bcdi.cli.shared import group, out_flag, read_spec, sample_flag, scan_flag, spec_flag
from cathodeflow.bcdi.options import Prepare
from cathodeflow.old_commands import stage_command
from cathodeflow.old_flags import record_flag

log = logging.getLogger("cathodeflow.bcdi")
_AXES = ("frames", "rows", "cols")


@stage_command(group, Prepare)
@click.argument("raw")
@click.option("--dark", metavar="SOURCE", help="Dark frame, or several to average.")
@click.option("--whitefield", metavar="SOURCE", help="Image of even light, or several to average.")
@click.option("--mask", metavar="SOURCE", help="Image that is 0 where nothing can be used, or one for each frame.")
@spec_flag
@scan_flag
@sample_flag
@out_flag
@record_flag()
def prepare(
    raw: str, dark: str | None, whitefield: str | None, mask: str | None, spec: str | None, scan: int | None,
    sample: str, out: str, record: str, options: Prepare,
) -> None:  # fmt: skip
    """Bring the frames RAW of a rocking scan to amplitudes: a folder, a pattern or a file."""
    from cathodeflow.bcdi import prepare as steps
    from cathodeflow.errors import InputError
    from cathodeflow.io.frames import read_mean
    from cathodeflow.io.phasing import Pattern, write_pattern
    from cathodeflow.io.rocking_scans import read_scan
    from cathodeflow.record import write_record

    region = None
    if options.region is not None:
        region = slice(*options.region[:2]), slice(*options.region[2:])
    elif (known := read_spec(spec, scan)) is not None:
        region = known.region
    counts = read_scan(raw)
    named = {"dark": dark, "whitefield": whitefield, "mask": mask}
    images = {name: read_mean(source) if source else None for name, source in named.items() if name != "mask"}
    images["mask"] = _mask(mask) if mask else None
    parts = [slice(*ends) if ends else slice(None) for ends in (options.frames, options.rows, options.cols)]
    keywords = options.model_dump(exclude={*_AXES, "region"})
    try:
        made = steps.prepare(counts, **images, detector_region=region, window=tuple(parts), **keywords)  # type: ignore[arg-type]
    except InputError as error:
        # What the step calls the dark is a file here.
        raise InputError(named.get(error.where) or f"{raw}: {error.where}", error.found, error.expected) from None
    figures = _figures(made.steps)
    binning = next(step["binning"] for step in made.steps if "binning" in step)
    write_pattern(out, Pattern(made.amplitude, made.mask, tuple(binning)), steps=made.steps)
    write_record(record, stage="bcdi.prepare", sample=sample, options=options, metrics=figures)
    for step in made.steps:
        name = step["step"]
        numbers = (f"{key.removeprefix(f'{name}_')} {value:g}" for key, value in _figures([step]).items())
        log.info("%s: %s", name, ", ".join(numbers))
        if "warning" in step:
            log.warning("%s: %s", raw, step["warning"])


def _mask(source: str) -> Any:
    """Read a mask: an image, or one for each frame."""
    from cathodeflow.io.frames import open_series, read_frames
    from cathodeflow.io.rocking_scans import read_scan

    series = open_series(source)
    return next(frame for _, frame in read_frames(series)) if series.n_frames == 1 else read_scan(source)


def _figures(steps: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Write all numbers of the steps under names such as `oversampling_estimated_rows`."""
    found: dict[str, float] = {}
    for step in steps:
        for key, value in step.items():
            name = f"{step['step']}_{key}"
            if isinstance(value, int | float):
                found[name] = value
            elif isinstance(value, list) and len(value) == len(_AXES) and key != "zero_frames":
                found |= {f"{name}_{axis}": one for axis, one in zip(_AXES, value, strict=True)}
            elif isinstance(value, list):
                found[name] = len(value)
    return found
