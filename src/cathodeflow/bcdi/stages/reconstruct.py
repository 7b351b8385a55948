"""Stage: all stages from the raw frames of one scan to strain and figures, without Snakemake."""

from pathlib import Path
from typing import Any

from cathodeflow.bcdi.options import Reconstruct
from cathodeflow.bcdi.stages.figures import figures
from cathodeflow.bcdi.stages.infer import infer
from cathodeflow.bcdi.stages.metrics import metrics
from cathodeflow.bcdi.stages.phase import phase
from cathodeflow.bcdi.stages.prepare import prepare
from cathodeflow.bcdi.stages.refine import refine
from cathodeflow.bcdi.stages.strain import strain
from cathodeflow.bcdi.stages.trust import trust
from cathodeflow.config import complete, validate
from cathodeflow.errors import InputError
from cathodeflow.io.text import read_yaml
from cathodeflow.stage import InputFile, Metrics, OutputFolder, Source, stage


@stage("bcdi.reconstruct")
def reconstruct(
    raw: Source,
    *,
    out: OutputFolder,
    model: InputFile | None = None,
    dark: Source | None = None,
    whitefield: Source | None = None,
    mask: Source | None = None,
    spec: InputFile | None = None,
    scan: int | None = None,
    geometry: InputFile | None = None,
    config: InputFile | None = None,
    options: Reconstruct,
) -> Metrics:
    """Reconstruct the raw frames RAW of one scan, from preparation to strain, metrics and figures.

    Parameters
    ----------
    raw : path
        Raw frames: a folder, a glob pattern or a file.
    out : path
        Folder of all results.
    model : path
        Trained network whose prediction is refined. Default: the option `infer.model`; without either, iterative phase
        retrieval from random starts.
    dark : path
        Dark frame, or several that are averaged.
    whitefield : path
        Flat field (image under uniform illumination), or several that are averaged.
    mask : path
        Mask that is 0 at pixels to exclude: one image, or one for each frame.
    spec : path
        File with the motors of the scan (SPEC, fio, or HDF5 and NeXus), for geometry and frame positions.
    scan : int
        Number of the scan in this file.
    geometry : path
        YAML or JSON file with the geometry.
    config : path
        Configuration file with the options of the stages, in place of the options of the command line.

    Raises
    ------
    InputError
        As in the stages; or options are given both here and in a configuration file.
    """
    if config:
        if options != Reconstruct():
            raise InputError("--config", "options of stages in addition to a configuration file", "only one of them")
        options = _options_of(config)
    model = model or options.infer.model
    name, folder = Path(out).name, Path(out)
    pattern, objects, cxi, curves = (
        folder / file for file in ("prepared.h5", "objects.h5", "reconstruction.cxi", "curves.csv")
    )
    corrections = {"dark": dark, "whitefield": whitefield, "mask": mask}

    def record(stage_name: str) -> dict[str, str]:
        return {"sample": name, "record": str(folder / f"{stage_name}.json")}

    motors: Any = {"spec": spec, "scan": scan, "geometry": geometry}
    prepare(raw, **corrections, **motors, out=pattern, options=options.prepare, **record("prepare"))
    if model is None:
        phase(pattern, out=objects, options=options.phase, **record("phase"))
    else:
        predicted = folder / "inferred.h5"
        inference = options.infer.model_copy(update={"model": model})
        infer(pattern, out=predicted, options=inference, **record("infer"))
        refine(pattern, predicted, out=objects, options=options.refine, **record("refine"))
    strain(
        objects,
        pattern=pattern,
        **motors,
        out=cxi,
        vti=folder / "reconstruction.vti",
        statistics=folder / "statistics.csv",
        options=options.strain,
        **record("strain"),
    )
    phasing = folder / f"{'refine' if model else 'phase'}.json"
    probabilities, errors = folder / "trust.csv", folder / "strain_errors.cxi"
    trust(
        pattern,
        objects,
        phasing,
        cxi,
        out=probabilities,
        spread=folder / "spread.csv",
        errors=errors,
        options=options.trust,
        **record("trust"),
    )
    merits = metrics(
        pattern,
        objects,
        cxi,
        out=folder / "metrics.csv",
        curves=curves,
        options=options.metrics,
        **record("metrics"),
    )
    figures(
        out=folder,
        pattern=pattern,
        objects=objects,
        phasing=phasing,
        reconstruction=cxi,
        curves=curves,
        trust=probabilities,
        strain_errors=errors,
        options=options.figures,
        **record("figures"),
    )
    return merits


def _options_of(path: str) -> Reconstruct:
    """Read the options of the stages from a configuration file."""
    values = read_yaml(path)
    if "bcdi" not in values:
        raise InputError(path, "no section 'bcdi'", "options of its stages")
    settings = validate(values, path)
    section = settings.bcdi  # type: ignore[attr-defined]
    return Reconstruct(**{name: complete(settings, getattr(section, name)) for name in Reconstruct.model_fields})
