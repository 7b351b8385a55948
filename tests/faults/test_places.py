"""Folders of every kind: only to be read, on another file system, behind a link, with blanks in their names."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ..conftest import ROOT, Project
from .conftest import command, digests, only_full, tally


@only_full
def test_raw_data_to_be_read_only_and_results_on_another_file_system(
    fresh: Project, whole: Project, small_disk: Callable[..., Path]
) -> None:
    with tally("raw data on a read-only disk, results on another file system"):
        shutil.move(fresh.folder / "raw", fresh.folder / "source")
        mounted = small_disk(fresh.folder / "raw", "size=32m")
        shutil.copytree(fresh.folder / "source", mounted, dirs_exist_ok=True)
        small_disk(mounted, "ro")
        small_disk(fresh.folder / "results", "size=64m")
        fresh.snakemake()
        assert digests(fresh.folder) == digests(whole.folder)


def test_a_locale_without_utf8(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Paths with an umlaut, of inputs, outputs and logs, under LC_ALL=C and without Python's UTF-8 mode."""
    shutil.copytree(source / "raw/only", tmp_path / "für/Müll")
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONUTF8", "0")
    line = "--log über.log bragg frames für/Müll/frame_*.tif --out ä/frames.h5 --record ä/frames.json"
    with tally("a locale without UTF-8, names with umlauts"):
        done = command(tmp_path, line)
        assert done.returncode == 0, done.stderr
        assert "für/Müll" in (tmp_path / "ä/frames.json").read_text(encoding="utf-8")
        assert "frames" in (tmp_path / "über.log").read_text(encoding="utf-8")


@only_full
def test_home_with_blanks_behind_a_link(
    fresh: Project, whole: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("PYTHONUTF8", "0")
    with tally("a folder with blanks in its name, reached through a link, in a locale without UTF-8"):
        home = tmp_path / "home of  Jo O'Neill (ü)"
        fresh.folder.rename(home)
        (tmp_path / "link to it").symlink_to(home)
        Project(tmp_path / "link to it", ROOT).snakemake()
        assert digests(home) == digests(whole.folder)
        assert command(tmp_path / "link to it", "verify").returncode == 0
