"""Folders of every kind: only to be read, on another file system, behind a link, with blanks in their names."""

import shutil
from collections.abc import Callable
from pathlib import Path

from ..conftest import ROOT, Project
from .conftest import TARGETS, command, digests, only_full, tally


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
        fresh.snakemake(*TARGETS)
        assert digests(fresh.folder) == digests(whole.folder)


@only_full
def test_home_with_blanks_behind_a_link(fresh: Project, whole: Project, tmp_path: Path) -> None:
    with tally("a folder with blanks in its name, reached through a link"):
        home = tmp_path / "home of  Jo O'Neill (ü)"
        fresh.folder.rename(home)
        (tmp_path / "link to it").symlink_to(home)
        Project(tmp_path / "link to it", ROOT).snakemake(*TARGETS)
        assert digests(home) == digests(whole.folder)
        assert command(tmp_path / "link to it", "verify").returncode == 0
