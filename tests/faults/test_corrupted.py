"""Results that were changed after they were written: found, named, and made anew when removed."""

import random
import shlex
from pathlib import Path

import numpy as np
import pytest

from cathodeflow.errors import InputError
from cathodeflow.io.volumes import read_volume, write_volume

from ..conftest import Project
from .conftest import TARGETS, command, digests, only_full, tally, times


def flip(path: Path, rng: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(bytes(content))


@only_full
def test_verify_finds_every_flipped_bit_and_its_command_mends_it(finished: Project) -> None:
    folder, rng = finished.folder, random.Random(3)
    good = digests(folder)
    assert command(folder, "verify").stdout.startswith("results: ")
    files = sorted(path for path in good if not path.endswith(".json")) + sorted(
        path for path in good if path.endswith(".json")
    )
    with tally("a bit of a result flipped (verify)") as tried:
        tried(len(files))
        for name in files:
            content = (folder / name).read_bytes()
            flip(folder / name, rng)
            done = command(folder, "verify")
            assert done.returncode == 1 and f"results{name.removeprefix('results')}: found " in done.stderr, name
            assert f"snakemake {name} --cores all" in done.stderr
            (folder / name).write_bytes(content)
    with tally("a damaged result removed and made anew"):
        damaged = ["results/bragg/only/frames.h5", "results/bragg/model/braggnn.pt", "results/bragg/only/locate.json"]
        for name in damaged:
            flip(folder / name, rng)
        done = command(folder, "verify --repair")
        assert done.returncode == 0 and not any((folder / name).exists() for name in damaged)
        assert shlex.split(done.stderr.splitlines()[-1])[1:-2] == [damaged[2], damaged[1], damaged[0]]
        # The target `all` asks for every file that is kept; without the import into MLflow they are asked for by name.
        finished.snakemake(*TARGETS, *damaged)
        assert digests(folder) == good
        assert command(folder, "verify").returncode == 0


@only_full
@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("results/bragg/only/frames.h5", "bragg find-peaks {} --sample a --out x.parquet --record x.json"),
        (
            "results/bragg/model/braggnn.pt",
            "bragg locate results/bragg/only/frames.h5 results/bragg/only/candidates.parquet --model {} --sample a --table x.parquet"
            " --out x.h5 --record x.json",
        ),
    ],
)
def test_stage_names_what_is_damaged(finished: Project, name: str, line: str) -> None:
    path = finished.folder / name
    content = path.read_bytes()
    damaged = {"cut": content[: len(content) // 2], "flipped": bytearray(content)}
    at = len(content) // 2
    damaged["flipped"][at : at + 16] = bytes(255 - byte for byte in content[at : at + 16])
    for how, new in damaged.items():
        with tally(f"{Path(name).name} {how}, read by a stage"):
            path.write_bytes(bytes(new))
            done = command(finished.folder, line.format(name))
            lines = done.stderr.splitlines()
            assert done.returncode == 1 and len(lines) == 1 and name in lines[0] and "found " in lines[0], done.stderr
            assert not list(finished.folder.glob("x.*"))


def test_volume_with_damaged_chunks_is_told_by_the_file(tmp_path: Path) -> None:
    rng = random.Random(2)
    values = np.random.default_rng(0).integers(0, 200, (16, 64, 64), np.uint8)
    write_volume(tmp_path / "v.zarr", values, chunks=(4, 32, 32), shards=(8, 64, 64))
    files = sorted(path for path in (tmp_path / "v.zarr").rglob("*") if path.is_file())
    with tally("a byte of a Zarr store flipped, read", times(200, 30)):
        for _ in range(times(200, 30)):
            path = rng.choice(files)
            content = path.read_bytes()
            flip(path, rng)
            with pytest.raises(InputError) as caught:
                np.asarray(read_volume(tmp_path / "v.zarr"))
            assert str(path) in str(caught.value)
            path.write_bytes(content)
    with tally("a Zarr chunk missing, cut or empty, read", 3 * len(files)):
        for path in files:
            content = path.read_bytes()
            for rest in (len(content) // 2, 0):
                path.write_bytes(content[:rest])
                with pytest.raises(InputError, match=path.name):
                    np.asarray(read_volume(tmp_path / "v.zarr"))
            path.unlink()
            with pytest.raises(InputError, match=path.name):
                np.asarray(read_volume(tmp_path / "v.zarr"))
            path.write_bytes(content)
    assert np.array_equal(np.asarray(read_volume(tmp_path / "v.zarr")), values)
