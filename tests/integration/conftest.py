"""A finished project in a folder of its own, with a copy of the sources that a test may edit."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import tifffile

from ..conftest import ROOT, Project, once

CONFIG = """\
seed: 5
device: cpu
bragg:
  samples: scans.tsv
  find_peaks: {min_value: 20, min_persistence: 15}
  train: {epochs: 2}
"""
SHEET = """\
sample\trole\tframes\tdark\tmask
first\ttrain\traw/first/frame_*.tif\traw/first/dark.tif\traw/first/mask.tif
second\tmeasure\traw/second/frame_*.tif\traw/second/dark.tif\traw/second/mask.tif
"""


def copy_sources(source: Path, target: Path) -> None:
    """Copy a folder of sources with what is compiled already, and the time stamps that go with it.

    Files that another process is compiling have a name with a number behind it, or are called tmp, until they are whole.
    """
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("*.egg-info", "*.pyc.*", "tmp*"))


def copy(project: Project, folder: Path) -> Project:
    """Copy a finished project, with its time stamps, so that a test can change it."""
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("folder", "checkout"):
        subprocess.run(["cp", "-a", "--reflink=auto", getattr(project, part), folder / part], check=True)
    return Project(folder / "folder", folder / "checkout")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, worker_id: str) -> Project:
    """A project whose graph has been run to its end on raw TIFF files of two scans; one for all, to be copied."""
    base = once("finished", tmp_path_factory, worker_id, _finish)
    return Project(base / "folder", base / "checkout")


def _finish(base: Path) -> None:
    project = Project(base / "folder", base / "checkout")
    project.folder.mkdir()
    for name in ("src", "workflow", "profiles", "envs", "Snakefile"):
        source = ROOT / name
        if source.is_dir():
            copy_sources(source, project.checkout / name)
        else:
            shutil.copy(source, project.checkout / name)
    (project.folder / "config.yaml").write_text(CONFIG)
    (project.folder / "scans.tsv").write_text(SHEET)
    for name, state in (("first", "0.1"), ("second", "0.6")):
        arguments = f"bragg simulate raw/{name} --state-of-charge {state} --seed 3 --n-frames 12 --rows 128 --cols 128 --n-peaks 120"
        subprocess.run([sys.executable, "-m", "cathodeflow", *arguments.split()], cwd=project.folder, check=True)
    for path in project.folder.glob("raw/*/frame_*.tif"):
        # Not compressed, so that another byte is another count and not a damaged file.
        tifffile.imwrite(path, tifffile.imread(path))
    project.snakemake()


@pytest.fixture
def project(finished: Project, tmp_path: Path) -> Project:
    """A copy of the finished project."""
    return copy(finished, tmp_path)
