"""A stage called from Python does what its command does, and takes its help from its docstring."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cathodeflow import bcdi, bragg
from cathodeflow.errors import InputError
from cathodeflow.io.atomic import WRITTEN
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.stage import Metrics, parameter_texts

SHAPE = (64, 80)


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two frames with Gaussian peaks, two of them close together, in a folder that is the current one."""
    monkeypatch.chdir(tmp_path)
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    mean = np.full(SHAPE, 2.0)
    for row, col in ((12.3, 15.1), (30.2, 40.4), (30.9, 46.0), (50.0, 70.6)):
        mean += 400 * np.exp(-((rows - row) ** 2 + (cols - col) ** 2) / (2 * 1.2**2))
    random = np.random.default_rng(0)
    images = enumerate(random.poisson(mean).astype(np.float32) for _ in range(2))
    write_frames("frames.h5", images, shape=SHAPE, mask=np.zeros(SHAPE, bool), source="simulated")
    return Path("frames.h5")


def command(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "cathodeflow", "--threads", "2", "bragg", *words], check=True)


def test_find_peaks_and_fit_from_python_are_those_of_the_commands(frames: Path) -> None:
    options = bragg.Fit(model="gaussian", neighbours="mask")
    found = bragg.find_peaks(frames, out=Path("candidates.parquet"), options=bragg.FindPeaks(min_persistence=40))
    fitted = bragg.fit(frames, Path("candidates.parquet"), out=Path("peaks.h5"), options=options)
    assert found["peaks"] == 8 == fitted["peaks"] and fitted["share_converged"] == 1.0
    assert set(pd.read_parquet("candidates.parquet")["frame"]) == {0, 1}

    command("find-peaks", "frames.h5", "--out", "c/c.parquet", "--min-persistence", "40", "--record", "c/find.json")
    flags = ["--model", "gaussian", "--neighbours", "mask", "--sample", "a", "--record", "c/fit.json"]
    command("fit", "frames.h5", "c/c.parquet", "--out", "c/peaks.h5", *flags)
    assert Path("candidates.parquet").read_bytes() == Path("c/c.parquet").read_bytes()
    assert Path("peaks.h5").read_bytes() == Path("c/peaks.h5").read_bytes()
    for path, stage, sample, metrics in (
        ("c/find.json", "bragg.find_peaks", "c", found),
        ("c/fit.json", "bragg.fit", "a", fitted),
    ):
        record = json.loads(Path(path).read_text())
        assert (record["stage"], record["sample"], record["metrics"]) == (stage, sample, dict(metrics))


def test_a_record_is_that_of_the_command(frames: Path) -> None:
    arguments = {"out": "a/candidates.parquet", "options": bragg.FindPeaks(min_persistence=40), "sample": "s"}
    bragg.find_peaks("frames.h5", record=Path("a/python.json"), **arguments)
    flags = ["--min-persistence", "40", "--sample", "s", "--record", "a/command.json"]
    command("find-peaks", "frames.h5", "--out", "a/candidates.parquet", *flags)
    records = [json.loads(Path(f"a/{name}.json").read_text()) for name in ("python", "command")]
    for record in records:
        assert record["options"]["min_persistence"] == 40 and "candidates.parquet" in str(record)
        # Times and memory of the job differ, and with them the checksum of the file.
        assert record.pop("job") and record.pop("checksum")
    assert records[0] == records[1]


def test_a_record_lists_only_what_its_own_stage_wrote(frames: Path) -> None:
    bragg.find_peaks(frames, out="b/first.parquet")
    bragg.find_peaks(frames, out="b/second.parquet", record="b/second.json")
    text = Path("b/second.json").read_text()
    assert "second.parquet" in text and "first.parquet" not in text
    assert json.loads(text)["sample"] == "b"


def test_a_failing_stage_does_not_forget_what_was_written_before(frames: Path) -> None:
    bragg.find_peaks(frames, out="a/candidates.parquet", options=bragg.FindPeaks(min_persistence=40))
    written = dict(WRITTEN)
    with pytest.raises(InputError):
        bragg.fit(frames, "missing.parquet", out="b/peaks.h5", record="b/fit.json")
    assert written == WRITTEN


def test_files_that_nested_options_name_are_inputs() -> None:
    options = bcdi.Reconstruct.model_validate({"infer": {"model": "network.pt"}})
    assert "network.pt" in bcdi.reconstruct._files({}, options, output=False)


def test_errors_are_those_of_the_command(frames: Path) -> None:
    with pytest.raises(InputError, match=r"^none\.h5: found no such file"):
        bragg.find_peaks("none.h5", out="candidates.parquet")
    with pytest.raises(InputError, match=r"^--model: found nothing, expected a trained BraggNN$"):
        bragg.locate(frames, "candidates.parquet", table="t.parquet", out="t.h5")
    with pytest.raises(TypeError, match="'out'"):
        bragg.fit("none.h5", "candidates.parquet")


def test_a_technique_offers_its_stages_and_options() -> None:
    assert {"find_peaks", "FindPeaks", "fit", "Fit", "figures"} <= set(dir(bragg))
    assert bragg.fit.name == "bragg.fit" and bragg.fit.summary().startswith("Fit the peaks")
    with pytest.raises(AttributeError, match="has no attribute 'fits'"):
        bragg.fits  # noqa: B018


def test_metrics_are_a_mapping_with_history_and_figures() -> None:
    metrics = Metrics({"peaks": 3}, history=[{"epoch": 1}], figures=("a.png",))
    assert metrics == {"peaks": 3} and metrics.history == [{"epoch": 1}] and metrics.figures == ["a.png"]


def test_texts_of_parameters_come_from_a_numpy_docstring() -> None:
    docstring = (
        "Fit.\n\nParameters\n----------\na, b : path\n    Two\n    files: one and another.\n"
        "c : {'x', 'y'}, optional\n    First paragraph.\n\n    Second one.\nd\n    No type.\n\n"
        "Returns\n-------\ne : int\n    Not a parameter.\n"
    )
    assert parameter_texts(docstring) == {
        "a": "Two files: one and another.",
        "b": "Two files: one and another.",
        "c": "First paragraph. Second one.",
        "d": "No type.",
    }
    assert parameter_texts("Fit.") == {}
