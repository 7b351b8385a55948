"""A disk that fills up: one line, nothing taken for whole, and on with it when there is room."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from ..conftest import Project
from .conftest import command, digests, only_full, patches, tally, times

#: By kind of file: the command, whose outputs go to `disk`, the size of the disk [kB], and what it needs.
WRITERS = {
    "HDF5": ("bragg frames big.h5 --sample a --out disk/frames.h5 --record disk/frames.json", 500),
    "Zarr": (
        "fibsem volume raw/slices --labels raw/labels --sample a --out disk/s.zarr --labels-out disk/l.zarr --record disk/a.json",
        900,
    ),
    "TIFF": ("bragg simulate disk --n-frames 20 --rows 128 --cols 128 --n-peaks 50 --state-of-charge 0.1 --seed 1", 200),
    "torch": (
        "bragg train patches.h5 --epochs 2 --out disk/model.pt --record disk/a.json --checkpoint disk/c.ckpt",
        40,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRITERS if times(1, 0) else ["HDF5", "Zarr"])
def test_one_line_nothing_left_and_on_when_there_is_room(
    source: Path, tmp_path: Path, small_disk: Callable[..., Path], kind: str
) -> None:
    line, size = WRITERS[kind]
    (tmp_path / "raw").symlink_to(source / "raw")
    patches(tmp_path / "patches.h5")
    with h5py.File(tmp_path / "big.h5", "w") as file:
        file["frames"] = np.random.default_rng(0).integers(0, 60_000, (30, 128, 128), np.uint16)
    disk = small_disk(tmp_path / "disk", f"size={size}k")
    with tally(f"disk full while writing {kind}"):
        done = command(tmp_path, f"--log disk/log.txt {line}")
        assert done.returncode == 1, "the disk was not small enough"
        lines = done.stderr.splitlines()
        assert len(lines) == 1 and "disk/" in lines[0] and "found no space left on the disk, expected" in lines[0], (
            lines
        )
        whole_files = {path.name for path in disk.iterdir() if not path.name.startswith(".")}
        assert not whole_files & {"frames.h5", "frames.json", "l.zarr", "a.json", "model.pt", "truth.parquet"}
        assert not [path for path in disk.iterdir() if path.name.startswith(".")]
        small_disk(disk, "size=64m")
        done = command(tmp_path, f"--log disk/log.txt {line}")
        assert done.returncode == 0, done.stderr


@only_full
def test_workflow_goes_on_when_there_is_room(fresh: Project, whole: Project, small_disk: Callable[..., Path]) -> None:
    """The results lie on a full disk, the rest elsewhere."""
    target = "results/bragg/only/patches.h5"
    disk = small_disk(fresh.folder / "results", "size=120k")
    with tally("disk full in a run"):
        failed = fresh.snakemake(target, check=False)
        assert failed.returncode == 1 and "found no space left on the disk" in failed.stdout + failed.stderr
        small_disk(disk, "size=64m")
        fresh.snakemake(target)
        assert digests(fresh.folder).items() <= digests(whole.folder).items()
