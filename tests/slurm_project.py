"""Projects that run on the Slurm of the tests, beside equal ones that ran on this machine alone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import hdf5plugin  # noqa: F401, without it compressed datasets cannot be read
import numpy as np

from .conftest import Project
from .slurm import jobs

# Soon after a job was sent, it is looked for the first time.
QUICK = ["--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5"]


def unfinished(finished: Project, folder: Path, settings: str = "") -> Project:
    """Give the raw files and the settings of a finished project, and further settings, in a folder of its own."""
    folder.mkdir()
    for name in ("raw", "scans.tsv"):
        source = finished.folder / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, folder / name)
    (folder / "config.yaml").write_text((finished.folder / "config.yaml").read_text() + settings)
    return Project(folder, finished.checkout)


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    """Start snakemake with the profile for Slurm."""
    command = [sys.executable, "-m", "snakemake", "--snakefile", str(project.checkout / "Snakefile")]
    command += [
        "--workflow-profile",
        str(project.checkout / "profiles" / "slurm"),
        "--configfile",
        "config.yaml",
        *QUICK,
    ]
    environment = {**os.environ, "PYTHONPATH": str(project.checkout / "src")}
    environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.Popen(
        [*command, *arguments],
        cwd=project.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # A shell has what it starts in the background ignore Ctrl-C, and so would all that is started here.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen[str], seconds: float = 500) -> str:
    """Wait for snakemake to end well, and give what it printed."""
    try:
        output, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        # It would wait for its jobs for ever if it were only asked to end.
        process.kill()
        output, _ = process.communicate()
        raise AssertionError(f"not done after {seconds} s\n{output}\n{jobs()}") from None
    assert process.returncode == 0, f"{output}\n{jobs()}"
    return output


def wait_for(condition: Callable[[], bool], seconds: float = 240) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"still not so after {seconds} s; {jobs()}"
        time.sleep(0.2)


def same_data(one: Path, other: Path) -> None:
    """Require that two HDF5 files hold the same datasets with the same values."""
    with h5py.File(one) as left, h5py.File(other) as right:
        names: list[str] = []
        left.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
        assert names and set(left) == set(right)
        for name in names:
            np.testing.assert_array_equal(left[name][()], right[name][()], err_msg=name)
