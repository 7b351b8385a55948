"""The command that goes all the way from the raw frames of one scan to its strain, without Snakemake."""

from pathlib import Path
from typing import Any

import click

from cathodeflow.bcdi.cli.metrics import metrics
from cathodeflow.bcdi.cli.network import infer
from cathodeflow.bcdi.cli.phasing import phase, refine
from cathodeflow.bcdi.cli.prepare import prepare
from cathodeflow.bcdi.cli.shared import group, scan_flag, spec_flag
from cathodeflow.bcdi.cli.strain import strain


@group.command()
@click.argument("raw")
@click.option("--out", required=True, metavar="FOLDER", help="Folder of all results.")
@click.option("--model", metavar="FILE", help="Network to start from; without it, random starts.")
@click.option("--dark", metavar="SOURCE", help="Dark frame, or several to average.")
@click.option("--whitefield", metavar="SOURCE", help="Image of even light, or several to average.")
@click.option("--mask", metavar="SOURCE", help="Image that is 0 where nothing can be used, or one for each frame.")
@spec_flag
@scan_flag
@click.option("--geometry", metavar="FILE", help="YAML or JSON file of the geometry.")
@click.option("--config", metavar="FILE", help="Configuration whose options of the stages hold; default: defaults.")
def reconstruct(
    raw: str, out: str, model: str | None, dark: str | None, whitefield: str | None, mask: str | None,
    spec: str | None, scan: int | None, geometry: str | None, config: str | None,
) -> None:  # fmt: skip
    """Reconstruct the frames RAW of one scan: a folder, a pattern or a file."""
    from cathodeflow.config import stage_options, validate
    from cathodeflow.errors import InputError
    from cathodeflow.io.text import read_yaml

    values = read_yaml(config) if config else {"bcdi": {"samples": "none"}}
    if "bcdi" not in values:
        raise InputError(str(config), "no section 'bcdi'", "options of its stages")
    settings = validate(values, str(config))

    def options(stage: str) -> Any:
        return stage_options(settings, f"bcdi.{stage}")

    name, folder = Path(out).name, Path(out)
    common = {"sample": name}

    def files(**named: str) -> dict[str, str]:
        return {key: str(folder / file) for key, file in named.items()}

    pattern, objects, cxi = (str(folder / file) for file in ("prepared.h5", "objects.h5", "reconstruction.cxi"))
    prepare(raw, dark, whitefield, mask, spec, scan, out=pattern, **files(record="prepare.json"), **common,
            options=options("prepare"))  # fmt: skip
    results = {**common, "out": objects, **files(figure="errors.png")}
    if model is None:
        phase(pattern, **results, **files(record="phase.json"), options=options("phase"))
    else:
        found = files(out="inferred.h5", record="infer.json")
        infer(pattern, **common, **found, options=options("infer").model_copy(update={"model": model}))
        refine(pattern, found["out"], **results, **files(record="refine.json"), options=options("refine"))
    outputs = files(vti="reconstruction.vti", statistics="statistics.csv", figure="slices.png", page="particle.html")
    strain(objects, spec, scan, geometry, out=cxi, **outputs, **files(record="strain.json"), **common,
           options=options("strain"))  # fmt: skip
    outputs = files(out="metrics.csv", curves="curves.csv", diffraction="diffraction.png", resolution="resolution.png")
    metrics(pattern, objects, cxi, None, **outputs, **files(record="metrics.json"), **common,
            options=options("metrics"))  # fmt: skip
