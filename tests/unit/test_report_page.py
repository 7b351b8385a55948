"""The report: numbers of the tables and records, what is missing left out, one file that needs no other."""

import base64
import functools
import io
import json
import re
import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure
from PIL import Image

from cathodeflow.bcdi.trust_options import Trust
from cathodeflow.bragg.peak_options import FindPeaks
from cathodeflow.cli import cli
from cathodeflow.errors import InputError
from cathodeflow.io.atomic import WRITTEN
from cathodeflow.io.digests import content_digest, written_digests
from cathodeflow.io.figures import save_figure
from cathodeflow.io.tables import plain, write_csv, write_json
from cathodeflow.options import Options
from cathodeflow.record import write_record
from cathodeflow.report.captions import caption_name
from cathodeflow.report.page import write_report
from cathodeflow.report.results import Job
from cathodeflow.report.sem import audit_warnings

from ..headless_browser import find, started

ROOT = Path(__file__).parents[2]
CAPTIONS = str(ROOT / "workflow" / "report")
HOSTILE = "<script>alert(1)</script>"

AUDIT = {
    "method": ["network", "network, histograms matched", "instrument settings", "grey histogram"],
    "scope": ["all"] * 4,
    "classes": [4] * 4,
    "n": [24] * 4,
    "accuracy": [0.958, 0.917, 0.833, 0.292],
    "low": [0.798, 0.742, 0.641, 0.149],
    "high": [0.993, 0.977, 0.933, 0.492],
    "chance": [0.25] * 4,
}


@functools.cache
def any_record(folder: Path) -> dict[str, Any]:
    """Return a record as a job writes it: that of a stage with little code, whose digest is soon computed."""
    path = folder / "record.json"
    write_record(str(path), stage="bragg.find_peaks", sample="a", options=FindPeaks(), metrics={})
    record = json.loads(path.read_text())
    path.unlink()
    return record


def job(
    path: str,
    stage: str,
    sample: str,
    merits: dict[str, Any],
    *,
    options: Options | None = None,
    warnings: tuple[str, ...] = (),
    **outputs: pd.DataFrame | Figure,
) -> None:
    """Write the outputs of a job as its stage does, and its record, without computing the digest of its code."""
    record = dict(any_record(Path.cwd()))
    WRITTEN.clear()
    folder = Path(path).parent
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in outputs.items():
        if isinstance(content, Figure):
            save_figure(folder / f"{name}.png", content, dpi=60)
        else:
            write_csv(folder / f"{name}.csv", content)
    record |= {"stage": stage, "sample": sample, "metrics": merits, "outputs": written_digests(folder)}
    record["options"] = (options or FindPeaks()).model_dump(mode="json")
    run = record.pop("job") | {"warnings": list(warnings)}
    for key in ("digest", "checksum"):
        del record[key]
    record = plain(record) | {"digest": content_digest(plain(record)), "job": run}
    write_json(path, record | {"checksum": content_digest(record)})


def figure() -> Figure:
    drawn = Figure(figsize=(4, 2))
    drawn.subplots().plot([0, 1], [0, 1])
    return drawn


def sem_results() -> None:
    scores = {
        "figure": ["accuracy", "ece", "accuracy", "macro_f1"],
        "label": ["", "", HOSTILE, ""],
        "value": [0.958333, 0.0748, 0.5, 0.75],
        "low": [0.797582, 0.0393, 0.095, 0.722],
        "high": [0.992607, 0.1105, 0.905, 0.778],
        "originals": [24, 24, 2, 24],
        "fields": [9, 9, 2, 9],
        "kind": ["image"] * 4,
    }
    job("results/sem/model/test.json", "sem.test", "model", {}, metrics=pd.DataFrame(scores))
    job("results/sem/model/audit.json", "sem.audit", "model", {}, audit=pd.DataFrame(AUDIT))
    job("results/sem/model/figures.json", "sem.figures", "model", {}, audit=figure())
    job(
        "results/sem/new/model.json",
        "sem.predict",
        "new",
        {"images": 12, "foreign": 3, "withheld": 5, "mean_confidence": 0.9},
    )


def bragg_results() -> None:
    states = {
        "sample": ["a", "b"],
        "state_of_charge": [0.1, 0.7],
        "phase": [0, 0],
        "particles": [494, 406],
        "strain_count": [494, 406],
    }
    limits = {"phase_fraction": (1, 1, 1), "strain_median": (0.0025973, 0.0025553, 0.0026577)}
    for name, values in limits.items():
        first = name.removesuffix("_median")
        columns = (name, f"{first}_low95", f"{first}_high95")
        states |= {
            column: [1.0 if values[0] == 1 else 0.0, value] for column, value in zip(columns, values, strict=True)
        }
    for axis, value, change in (("a", 2.86014, -0.0148135), ("c", 14.26062, 0.0149116)):
        states |= {f"cell_{axis}": [value, value * (1 + change)], f"cell_{axis}_err": [0.0135974, 0.014]}
        states |= {f"cell_{axis}_change": [0.0, change], f"cell_{axis}_change_err": [0.0, 0.00004]}
    metrics = {
        "tracks": 587,
        "tracks_ambiguous": 49,
        "strain_z_rms": 1.06,
        "strain_error_median": 4.5e-5,
        "compared_with_truth": 2685,
    }
    job("results/bragg/series/lattice.json", "bragg.lattice", "series", metrics, summary=pd.DataFrame(states))
    job("results/bragg/a/candidates.json", "bragg.find_peaks", "a", {"peaks": 2807})
    job("results/bragg/b/candidates.json", "bragg.find_peaks", "b", {"peaks": 0})
    job("results/bragg/a/figures.json", "bragg.figures", "a", {}, frame=figure(), patches=figure())


def fibsem_results() -> None:
    table = {"model": ["unet"], "seed": [0], "split": ["grouped"], "slices": [8], "boundary_f1": [0.7], "ece": [0.1]}
    table |= {"miu": [0.665858], "miu_low": [0.625], "miu_high": [0.711], "accuracy": [0.839]}
    table |= {"fraction_pore": [0.253], "true_fraction_pore": [0.144], "fraction_binder": [2e-5]}
    table |= {"true_fraction_binder": [0.025]}
    job("results/fibsem/e/metrics.json", "fibsem.metrics", "e", {}, metrics=pd.DataFrame(table))
    nan = np.nan
    measured = {
        "property": ["volume_fraction", "tortuosity_factor", "tortuosity_factor", *["specific_surface_area"] * 2],
        "phase": ["pore", "pore", "active", "pore", "active"],
        "direction": [None, 0, 1, None, None],
        "value": [0.3812, 2.517, nan, 0.9, 1.2],
        "unit": ["1", "1", "1", "1/um", "1/um"],
        "standard_error": [0.012, 0.2, nan, 0.1, 0.1],
        "low_95": [0.3577, 2.1, nan, 0.7, 1.0],
        "high_95": [0.4047, 2.9, nan, 1.1, 1.4],
    }
    methods = {"method": ["reference", "unet"], "property": ["volume_fraction"] * 2, "phase": ["pore"] * 2}
    methods |= {"direction": [None] * 2, "value": [0.3, 0.25], "unit": ["1"] * 2}
    methods |= {"low_95": [0.2, 0.15], "high_95": [0.4, 0.35]}
    path = "results/fibsem/e/grouped/seed0/properties/properties_record.json"
    job(path, "fibsem.properties", "e/grouped/seed0", {}, properties=pd.DataFrame(methods))
    job("results/fibsem/e/measure/measure.json", "fibsem.measure", "e", {}, properties=pd.DataFrame(measured))


def bcdi_results() -> None:
    series: dict[str, Any] = {
        "scan": ["c0", "c1"],
        "state_of_charge": [0, 0.1],
        "starts": [5, 5],
        "starts_used": [5, 1],
    }
    series |= {"mean_strain": [0, 0.00128194], "mean_strain_err": [0, 8.8e-7], "margin": [1, 0.002]}
    series |= {"d_spacing": [2.33193365, 2.33223259], "d_spacing_err": [1.9e-7, np.nan]}
    series |= {"strain_deviation": [4.8e-5, 1.2e-4], "strain_deviation_err": [8e-7, 7e-7]}
    series |= {"volume_nm3": [24336855.0, 24397394.0], "volume_nm3_err": [60539.0, 91812.0]}
    job("results/bcdi/series/all/phase/series.json", "bcdi.series", "all/phase", {}, series=pd.DataFrame(series))
    found = {"extent_x_nm": 432.0, "extent_y_nm": 353.0, "extent_z_nm": 432.0, "voxel_nm": 39.3, "voxels": 472}
    found |= {"strain_deviation": 4.5e-5, "strain_q05": -6.6e-5, "strain_q95": 8.7e-5}
    several = ("the peak is cut", *(f"reason {number}" for number in range(6)))
    job("results/bcdi/c0/phase/strain.json", "bcdi.strain", "c0/phase", found, warnings=several)
    rates = {"start": ["network"] * 2, "regime": ["weak", "all"], "iterations": [10] * 2, "successes": [5, 10]}
    rates |= {"count": [7, 24], "share": [0.714, 0.417], "low": [0.359, 0.245], "high": [0.918, 0.612]}
    job("results/bcdi/model/evaluate.json", "bcdi.evaluate", "model", {}, success=pd.DataFrame(rates))
    merits = {"probability_right": 0.31, "strain_error": 1.37e-5}
    job("results/bcdi/c0/phase/trust.json", "bcdi.trust", "c0/phase", merits, options=Trust(warn_below=0.5))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of all techniques."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for fill in (sem_results, bragg_results, fibsem_results, bcdi_results):
            fill()
    return folder / "results"


@pytest.fixture
def take(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Copy the results of some techniques into an empty folder."""

    def copy(*techniques: str) -> Path:
        for name in techniques:
            shutil.copytree(made / name, tmp_path / "results" / name)
        return tmp_path

    monkeypatch.chdir(tmp_path)
    return copy


def figures_of_the_workflow() -> list[tuple[str, str, str]]:
    """Return stage, name of the figure and name of its caption, as the rules have them, where both are literal."""
    found = []
    for path in sorted((ROOT / "workflow" / "rules").glob("*.smk")):
        for rule in re.split(r"\n(?=rule )", path.read_text()):
            for figure, given in re.findall(r'report\(\s*f?"([^"]+)",.*?caption=f?"../report/([^"]+).rst"', rule, re.S):
                if "{" not in given:
                    (stage,) = set(re.findall(r'(?:stage_params|compared_stage)\("([\w.]+)"', rule))
                    found.append((stage, figure, given))
    return found


class Page(HTMLParser):
    """Text, images, links and scripts of a page."""

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        self.images: list[str] = []
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.scripts, self._parts, self._hidden = 0, [], 0
        self.feed(Path(path).read_text(encoding="utf-8"))
        self.text = " ".join(" ".join(self._parts).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._hidden += tag in ("script", "style")
        self.scripts += tag == "script"
        if tag == "img":
            self.images.append(given["src"] or "")
        elif tag == "a":
            self.links.append(given["href"] or "")
        elif "src" in given or tag == "link":
            self.fetched.append(tag)

    def handle_endtag(self, tag: str) -> None:
        self._hidden -= tag in ("script", "style")

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._parts.append(data)


def report(**options: Any) -> Page:
    write_report("results", "results/index.html", captions=CAPTIONS, **options)
    return Page("results/index.html")


def test_numbers_intervals_and_warnings_are_those_of_the_tables(take: Callable[..., Path]) -> None:
    take("sem", "bragg", "fibsem", "bcdi")
    text = report().text
    for part in (
        "Accuracy 95.8 % 95 % interval 79.8 % to 99.3 % 24 test images, which overlap: 9 fields of view",
        "from instrument settings alone, 83.3 % of the images (64.1 % to 93.3 %) are classified correctly, by the network",
        "Macro-averaged F1 score 75.0 % no interval: a class has fewer than 5 independent images",
        "Expected calibration error 7.5 % ; no interval",
        "new: 3 of 12 images are out of distribution",
        "Withheld Mean confidence new 12 3 5 90.0 %",
        "Largest change of the lattice parameter c +1.491 % 95 % interval 1.483 to 1.499 %",
        "Largest median strain of the particles +2.60 × 10⁻³ 95 % interval 2.56 to 2.66 × 10⁻³",
        "14.261 ± 0.014",
        "49 of 587 tracks fit several reflections",
        "66.6 % (62.5 to 71.1)",
        "binder has 0.002 % of the predicted pixels, and 2.5 % of the reference",
        "1.28194 ± 0.00088 × 10⁻³",
        "series all/phase, c1: no other start agrees",
        "432 × 353 × 432 nm",
        "c0/phase, strain: the peak is cut",
        "c0/phase, strain: 2 more warnings in the record",
        "the probability that the object is right is only 31.0 %",
        "Volume fraction of pore 38.1 % 95 % interval 35.8 % to 40.5 % segmentation of e",
        "Tortuosity factor of pore along z (slices) 2.52 ± 0.20 95 % interval 2.10 to 2.90",
        "Specific surface area of active 1.20 ± 0.10 um⁻¹ 95 % interval 1.00 to 1.40 um⁻¹",
        "Tortuosity factor pore z (slices) 2.52 2.10 to 2.90",
        "Tortuosity factor active y (rows) does not percolate",
        "Property Phase Along reference unet Unit Volume fraction pore 0.300 (0.200 to 0.400) 0.250 (0.150 to 0.350)",
        "prediction of the network 10 41.7 % (24.5 to 61.2) 71.4 % (35.9 to 91.8)",
        "Standard deviation of the strain in the particle 0.45 × 10⁻⁴ 90 % of the voxels between −0.66 and 0.87 × 10⁻⁴",
        "Probability that c0 (random starts) is right 31.0 %",
        HOSTILE,
    ):
        assert part in text, part


def test_what_did_not_run_is_left_out(take: Callable[..., Path]) -> None:
    take("bcdi")
    page = report()
    assert "Coherent diffraction" in page.text
    assert not any(name in page.text for name in ("SEM images", "Bragg peaks", "FIB-SEM", "not known"))


def test_the_page_needs_no_other_file_and_shows_names_as_text(take: Callable[..., Path]) -> None:
    take("sem", "bragg")
    page = report()
    assert page.fetched == [] and page.scripts == 1 and HOSTILE not in Path("results/index.html").read_text()
    assert len(page.images) == 3
    for source in page.images:
        kind, _, content = source.partition(";base64,")
        assert kind == "data:image/png" and Image.open(io.BytesIO(base64.b64decode(content))).width == 240
    tables = [link for link in page.links if link.startswith("data:text/csv")]
    assert Path("results/sem/model/audit.csv").read_bytes() in [base64.b64decode(link.split(",")[1]) for link in tables]
    beside = [link for link in page.links if not link.startswith(("data:", "#"))]
    assert beside and all(Path("results", unquote(link)).is_file() for link in beside)
    assert "Frame with its peaks · a. The frame of scan a with the most peaks" in page.text


@pytest.mark.parametrize(("stage", "figure", "expected"), figures_of_the_workflow())
def test_figures_have_the_captions_of_the_workflow(stage: str, figure: str, expected: str) -> None:
    technique, name = stage.split(".")
    path = Path("results", technique, re.sub(r"[{}]+", "", figure.replace("{RUN}", "volume/grouped/seed0")))
    sample = "volume/grouped/seed0" if "{RUN}" in figure else "volume"
    record = path.with_name("figures_version.json" if expected == "sem_predict" else "figures.json")
    assert caption_name(technique, Job(record, name, sample, {}), path, CAPTIONS) == expected


def test_figures_beyond_the_size_are_linked(take: Callable[..., Path]) -> None:
    take("bragg")
    page = report(max_mb=0)
    assert page.images == [] and "figures/frame.png" not in page.links and "bragg/a/frame.png" in page.links


def test_large_figures_become_smaller(take: Callable[..., Path]) -> None:
    take("bragg")
    drawn = Figure(figsize=(6.4, 2))
    drawn.subplots().imshow(np.random.default_rng(0).random((20, 80)), interpolation="bicubic")
    save_figure("results/bragg/a/frame.png", drawn, dpi=300)
    assert Path("results/bragg/a/frame.png").stat().st_size > 300_000
    source = report().images[0]
    image = Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))
    assert image.format == "WEBP" and image.width == 1800
    assert len(source) < Path("results/bragg/a/frame.png").stat().st_size


def test_a_damaged_record_and_a_table_without_a_column_are_warned_of(take: Callable[..., Path]) -> None:
    take("sem", "bcdi")
    path = Path("results/sem/new/model.json")
    path.write_text(path.read_text().replace('"foreign": 3', '"foreign": 0'))
    write_csv("results/bcdi/series/all/phase/series.csv", {"scan": ["c0"]})
    text = report().text
    assert "A record is damaged and left out: results/sem/new/model.json" in text
    assert "Tables of this technique could not be read as expected" in text and "432" in text


def test_files_outside_the_folder_of_a_record_are_not_taken(take: Callable[..., Path]) -> None:
    folder = take("bragg")
    Path("secret.png").write_bytes(Path("results/bragg/a/frame.png").read_bytes())
    Path("results/bragg/a/frame.png").unlink()
    Path("results/bragg/a/frame.png").symlink_to(folder / "secret.png")
    assert len(report().images) == 1


def test_the_command_writes_the_page_and_no_record_is_one_line(take: Callable[..., Path]) -> None:
    Path("results").mkdir()
    with pytest.raises(InputError, match="results: found no record of a job"):
        write_report("results", "results/index.html")
    take("sem")
    done = CliRunner().invoke(cli, ["report"], catch_exceptions=False)
    assert done.exit_code == 0 and done.output == "results/index.html: SEM images\n"
    # With the captions of the checkout, wherever the command is called.
    text = Page("results/index.html").text
    assert "95.8 %" in text and "An accuracy that trivial features also reach" in text


def test_features_at_chance_are_no_warning() -> None:
    table = pd.DataFrame(AUDIT)
    table.loc[2:, ["accuracy", "low", "high"]] = [0.25, 0.12, 0.45]
    assert audit_warnings(table) == []
    table.loc[2, ["accuracy", "low", "high"]] = [0.5, 0.31, 0.69]
    (warning,) = audit_warnings(table)
    assert "chance is 25.0 %" in warning and "overlap" not in warning


def test_audits_of_several_data_sets_are_told_apart(take: Callable[..., Path]) -> None:
    take("sem")
    assert "Audit: the network and trivial features" in report().text
    job("results/sem/later/model/audit.json", "sem.audit", "later/model", {}, audit=pd.DataFrame(AUDIT))
    text = report().text
    assert (
        "Audit of model: from instrument settings" in text and "Audit of later/model: from instrument settings" in text
    )
    assert "Audit of later/model: the network and trivial features on the same images" in text


@pytest.mark.skipif(find() is None, reason="no Chromium on this machine; CHROME_BIN names one")
def test_a_browser_shows_the_page_without_errors_and_asks_for_nothing(take: Callable[..., Path]) -> None:
    folder = take("sem", "bragg", "fibsem", "bcdi")
    report()
    page = folder / "results" / "index.html"
    grounds = set()
    with started(str(find()), folder) as browser:
        for scheme, width in (("light", 1300), ("dark", 1300), ("dark", 390)):
            browser.open(page, width=width, scheme=scheme)
            assert browser.requests() == [page.as_uri()] and browser.problems() == []
            assert browser.evaluate("[...document.images].filter(i => !i.naturalWidth).length") == 0
            # Wide tables scroll in their own frame, and never the page.
            assert browser.evaluate("document.documentElement.scrollWidth") == width
            grounds.add(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert grounds == {"rgb(255, 255, 255)", "rgb(18, 23, 29)"}
        browser.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert browser.evaluate("document.querySelectorAll('details.print:not([open])').length") == 0
        assert contrast(browser.evaluate(INKS)) > 4.5


#: Text and ground of all elements with text of their own, as a list of pairs of colours.
INKS = """
(() => [...document.querySelectorAll("p, li, td, th, dt, dd, strong, span, summary, h1, h2, h3, a, b")].map(e => {
  let ground = e;
  while (ground && getComputedStyle(ground).backgroundColor === "rgba(0, 0, 0, 0)") ground = ground.parentElement;
  return [getComputedStyle(e).color, getComputedStyle(ground || document.body).backgroundColor];
}))()
"""


def contrast(pairs: list[tuple[str, str]]) -> float:
    """Return the lowest contrast ratio of text on its ground (WCAG 2.1, 4.5 is required)."""

    def luminance(colour: str) -> float:
        values = [int(part) / 255 for part in colour.removeprefix("rgb(").rstrip(")").split(",")]
        linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in values]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert len(pairs) > 100
    lights = [sorted((luminance(one), luminance(other))) for one, other in pairs]
    return min((high + 0.05) / (low + 0.05) for low, high in lights)
