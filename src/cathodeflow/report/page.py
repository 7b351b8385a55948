"""The page: one HTML file with figures and tables inside, which needs no other file and no network."""

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

import cathodeflow
from cathodeflow.errors import InputError
from cathodeflow.io.attachments import ImageAddress, file_address, file_size, image_address
from cathodeflow.io.reconstructions import write_page
from cathodeflow.io.text import package_text
from cathodeflow.report.bcdi import bcdi_content
from cathodeflow.report.bragg import bragg_content
from cathodeflow.report.captions import caption, caption_name, title
from cathodeflow.report.fibsem import fibsem_content
from cathodeflow.report.general import general_content
from cathodeflow.report.numbers import size
from cathodeflow.report.origin import data_grid, data_sentence, jobs_of, origin_warnings, records_grid, versions_of
from cathodeflow.report.parts import Attachment, Content, Picture, Section
from cathodeflow.report.results import Job, Results, read_results
from cathodeflow.report.sem import sem_content

log = logging.getLogger("cathodeflow.report")

_CONTENT = {"sem": sem_content, "bragg": bragg_content, "fibsem": fibsem_content, "bcdi": bcdi_content}
_IMAGES = (".png", ".jpg", ".webp")
#: Files that are linked: suffix and what it is. Tables are first, and inside the page if they are small.
_FILES = {
    ".csv": "table",
    ".mp4": "movie",
    ".gif": "movie",
    ".html": "page",
    ".cxi": "CXI, HDF5",
    ".vti": "ParaView",
    ".pt": "network",
    ".onnx": "network",
}
_VIEWS = ("particle.html", "surface.html")
_LARGEST_TABLE = 500_000
_TEMPLATE = Path(__file__).with_name("page.html")
#: Captions of the checkout that holds this package.
CAPTIONS = str(Path(__file__).parents[3] / "workflow" / "report")


class Budget:
    """Bytes that images may still take in the page; those beyond are linked."""

    def __init__(self, n_bytes: float) -> None:
        self._left = n_bytes

    def take(self, address: str) -> str:
        """Return a `data:` address if it still fits, else nothing."""
        if len(address) > self._left:
            return ""
        self._left -= len(address)
        return address


class Report(NamedTuple):
    """All that the page shows."""

    title: str
    sections: list[Section]
    warnings: list[str]
    versions: list[tuple[str, str]]
    period: str
    linked: bool


def write_report(folder: str, out: str, *, captions: str = CAPTIONS, max_mb: float = 25.0) -> Report:
    """Write the page of a results folder.

    Parameters
    ----------
    folder : str
        Results folder of a run. Techniques and stages that did not run are left out.
    out : str
        HTML file to write.
    captions : str
        Folder of the captions, `<technique>_<figure>.rst`.
    max_mb : float
        Size of all images in the page [MB]; further figures are linked.

    Returns
    -------
    Report

    Raises
    ------
    InputError
        The folder has no record.
    """
    results, errors = read_results(folder)
    budget = Budget(1e6 * max_mb)
    base = Path(out).resolve().parent
    order = sorted(results, key=lambda name: (list(_CONTENT).index(name) if name in _CONTENT else len(_CONTENT), name))
    sections = [_section(results[name], base, captions, budget) for name in order]
    jobs = jobs_of(results)
    starts = sorted(start[:10] for job in jobs if (start := (job.record.get("job") or {}).get("start")))
    report = Report(
        f"Results of {Path(folder).resolve().parent.name or folder}",
        sections,
        [*(f"A record is damaged and left out: {error}" for error in errors), *origin_warnings(results)],
        [(line.name, line.value) for line in versions_of(jobs)],
        "" if not starts else starts[0] if starts[0] == starts[-1] else f"{starts[0]} to {starts[-1]}",
        any(section.figures or section.more or section.attachments for section in sections),
    )
    write_page(out, render(report))
    return report


def render(report: Report) -> str:
    """Render the page as HTML; every text but the captions is escaped."""
    import jinja2

    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # A minus sign where a number begins; a hyphen is too short to be seen.
    environment.filters["minus"] = lambda text: re.sub(r"(?<![\w.])-(?=\d)", "\N{MINUS SIGN}", text)
    template = environment.from_string(package_text(_TEMPLATE))
    return template.render(report=report, version=cathodeflow.__version__) + "\n"


def _section(results: Results, base: Path, captions: str, budget: Budget) -> Section:
    content, data = _content(results), data_grid(results)
    figures, more = _figures(results, content, base, captions, budget)
    attachments = list(_attachments(results, base))
    return Section(
        results.technique,
        content,
        figures,
        more,
        attachments,
        data_sentence(data),
        data,
        records_grid(results),
    )


def _content(results: Results) -> Content:
    """Fill the part of a technique; if a table lacks what is expected, its figures of merit are listed instead."""
    fill = _CONTENT.get(results.technique, general_content)
    try:
        return fill(results)
    except (KeyError, InputError) as error:
        found = general_content(results)
        text = f"Tables of this technique could not be read as expected ({error}); its figures of merit are listed."
        return found._replace(warnings=[text, *found.warnings])


def _figures(
    results: Results, content: Content, base: Path, captions: str, budget: Budget
) -> tuple[list[Picture], list[Picture]]:
    """Return the figures to show first, one of each kind, and all others."""
    found = [(job, path) for job in results.all(*results.jobs) for path in job.files(*_IMAGES)]
    first: dict[str, tuple[Job, Path]] = {}
    for job, path in sorted(found, key=lambda each: each[0].sample.split("/")[0] not in content.first_samples):
        first.setdefault(path.stem, (job, path))
    chosen = [first[kind] for kind in content.leading if kind in first]
    rest = [each for each in found if each not in chosen]
    return (
        [_picture(results.technique, job, path, base, captions, budget) for job, path in chosen],
        [_picture(results.technique, job, path, base, captions, budget) for job, path in rest],
    )


def _picture(technique: str, job: Job, path: Path, base: Path, captions: str, budget: Budget) -> Picture:
    named = caption_name(technique, job, path, captions)
    try:
        image = image_address(path)
    except InputError as error:
        log.warning("%s", error)
        image = ImageAddress("", 0, 0)
    name = f"{title(technique, named, path)} · {job.label}"
    text = caption(named, job.sample.split("/")[0], captions)
    return Picture(name, text, budget.take(image.address), image.width, image.height, _link(path, base))


def _attachments(results: Results, base: Path) -> Iterator[Attachment]:
    """Yield tables, movies, 3D views and volumes, tables first."""
    seen: set[Path] = set()
    for suffix, kind in _FILES.items():
        for job in results.all(*results.jobs):
            for path in job.files(suffix):
                if path in seen:
                    continue
                seen.add(path)
                n_bytes = file_size(path) or 0
                inside = suffix == ".csv" and n_bytes <= _LARGEST_TABLE
                name = f"{job.sample}/{path.name}"
                kind = "3D view" if path.name in _VIEWS else kind
                yield Attachment(name, kind, size(n_bytes), file_address(path) if inside else "", _link(path, base))


def _link(path: Path, base: Path) -> str:
    return quote(Path(os.path.relpath(path.resolve(), base)).as_posix())
