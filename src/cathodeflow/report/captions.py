"""Captions of the figures: the files of the workflow's report, by technique and name of the figure."""

import os
import re
from fnmatch import fnmatch
from html import escape
from pathlib import Path
from types import SimpleNamespace

from cathodeflow.io.attachments import file_size
from cathodeflow.io.text import package_text
from cathodeflow.report.results import Job

#: Figures that are named after samples or models: technique, stages, pattern of the file's name, caption.
_NAMED = (
    ("sem", "figures", "map_*", "maps"),
    ("fibsem", "figures", "*_pacing", "pacing"),
    ("fibsem", "property_figures", "property_errors", "properties_errors"),
    ("fibsem", "tables", "*", "tables"),
    ("*", "figures", "*", "train"),
)
#: Names of single figures that say too little.
_TITLES = {
    "predict": "predictions",
    "train": "training",
    "maps": "class activation maps of whole images",
    "explain": "class activation maps",
    "lattice": "lattice, strain and phases",
    "intensity": "errors and recall against intensity",
    "frame": "frame with its peaks",
    "fitted": "frame with its peaks",
    "errors": "residual of the phase retrieval",
    "particle": "surface in 3D",
    "audit": "audit against trivial features",
    "classes": "accuracy by class",
    "confusion": "confusion matrix",
    "slices": "slices",
    "fractions": "phase fractions",
    "methods": "methods",
    "measure": "properties with error bars",
    "method_properties": "properties of the test slices by method",
    "properties_errors": "errors of the properties by method",
}


class _Sample(dict[str, str]):
    """Wildcards of the workflow, all of which are the name of the sample."""

    def __getattr__(self, name: str) -> str:
        return self["sample"]


def caption_name(technique: str, job: Job, path: Path, folder: str | os.PathLike[str]) -> str | None:
    """Return the name of the caption of a figure, without its folder and suffix; None if there is none.

    Parameters
    ----------
    technique : str
    job : Job
        The job that drew it.
    path : Path
        The figure.
    folder : path
        Folder of the captions, `<technique>_<figure>.rst`.
    """
    names = [path.stem]
    names += [
        name
        for pattern, stage, figure, name in _NAMED
        if fnmatch(technique, pattern) and fnmatch(job.stage, stage) and fnmatch(path.stem, figure)
    ]
    if technique == "sem" and job.path.stem.startswith("figures_"):
        names.insert(0, "predict")  # images without labels, in a figure named after the network
    if job.stage == "measure":
        names.insert(0, "measure")  # with the errors of the segmentation, too
    if job.stage == "properties" and "/" in job.sample.removesuffix("/properties"):
        names.insert(0, "method_properties")  # of the test slices of a run
    return next((f"{technique}_{name}" for name in names if _file(folder, f"{technique}_{name}") is not None), None)


def caption(name: str | None, sample: str, folder: str | os.PathLike[str]) -> str:
    """Return a caption as HTML; empty if there is none.

    Parameters
    ----------
    name : str, optional
        As `caption_name` returns it.
    sample : str
        Name of the sample, which the caption may contain.
    folder : path
        Folder of the captions.
    """
    path = name and _file(folder, name)
    if not path:
        return ""
    import jinja2

    given = SimpleNamespace(wildcards=_Sample(sample=sample))
    text = jinja2.Environment(undefined=jinja2.StrictUndefined).from_string(package_text(path)).render(snakemake=given)
    return re.sub(r"``(.+?)``", r"<code>\1</code>", escape(" ".join(text.split())))


def title(technique: str, name: str | None, path: Path) -> str:
    """Return the title of a figure."""
    words = name.removeprefix(f"{technique}_") if name else path.stem
    text = _TITLES.get(words, words.replace("_", " "))
    text = text + (f", {path.stem.replace('_', ' ')}" if path.stem not in words else "")
    return text[:1].upper() + text[1:]


def _file(folder: str | os.PathLike[str], name: str) -> Path | None:
    path = Path(folder, f"{name}.rst")
    return path if file_size(path) is not None else None
