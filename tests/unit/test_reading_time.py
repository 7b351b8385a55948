"""The time that reading takes is that of the images, times their number."""

import re
import time
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from cathodeflow.bragg.options import Scan
from cathodeflow.cli import cli
from cathodeflow.reading_time import mean_time, reading_time


def test_the_first_reading_counts_once_libraries_are_loaded() -> None:
    seen: list[int] = []

    def read(number: int) -> None:
        time.sleep(0.01 if seen else 0.3)
        seen.append(number)

    assert 0.01 <= mean_time(read, 31) < 0.1
    assert seen == [0, 0, 10, 20, 30]


def test_a_slow_image_is_not_waited_for_four_times() -> None:
    seen: list[int] = []
    clock = iter(np.arange(0, 100, 3.0))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "perf_counter", lambda: float(next(clock)))
        mean_time(seen.append, 31)
    assert seen == [0, 0]


def test_samples_without_images_here_have_no_time(tmp_path: Path) -> None:
    for frames in ("simulated", "https://example.org/a.h5", str(tmp_path / "none.tif")):
        assert reading_time(Scan(sample="a", role="fit", frames=frames)) is None


def test_check_says_how_many_images_there_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("622", "622_cycled"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(2):
            imageio.imwrite(tmp_path / "set" / name / f"{i}.png", np.full((20, 30), 40 * i, np.uint8))
    # Braces and other characters that Snakemake or a shell would fill in are fine in the names of images.
    tifffile.imwrite(tmp_path / "frames.tif", np.zeros((5, 16, 16), np.uint16), photometric="minisblack")
    (tmp_path / "raw").mkdir()
    for i in range(3):
        tifffile.imwrite(tmp_path / "raw" / f"f{{{i}}} $x.tif", np.zeros((16, 16), np.uint16))
    Path("scans.tsv").write_text("sample\trole\tframes\na\tfit\tframes.tif\nb\tfit\traw\n")
    Path("sem.tsv").write_text("sample\trole\timages\ns\ttrain\tset\n")
    Path("c.yaml").write_text("bragg: {samples: scans.tsv}\nsem: {samples: sem.tsv}\n")
    done = CliRunner().invoke(cli, ["check", "c.yaml"], catch_exceptions=False)
    lines = done.output.splitlines()
    assert any(
        re.match(r"c.yaml: bragg: 8 raw images, (less than a second|about \d+ s) to read them once", line)
        for line in lines
    )
    assert any(line.startswith("c.yaml: sem: 4 raw images, ") for line in lines)


def test_braces_in_a_path_of_a_sheet_are_refused(tmp_path: Path) -> None:
    (tmp_path / "s.tsv").write_text("sample\trole\tframes\na\tfit\traw/f{0}.tif\n")
    (tmp_path / "c.yaml").write_text(f"bragg: {{samples: {tmp_path}/s.tsv}}\n")
    error = CliRunner().invoke(cli, ["check", str(tmp_path / "c.yaml")]).exception
    assert str(error) == (
        f"{tmp_path}/s.tsv: scan 'a', frames: found raw/f{{0}}.tif, expected a path without {{ and }}"
    )
