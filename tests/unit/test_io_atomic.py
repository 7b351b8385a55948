"""Outputs that several processes write at once, and outputs when the power goes."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cathodeflow.io.hdf5 import new_dataset, new_hdf5
from cathodeflow.io.models import save_checkpoint
from cathodeflow.io.tables import read_json, write_csv, write_json, write_table
from cathodeflow.io.volumes import write_volume

SCRIPT = """\
import sys
from cathodeflow.io.tables import write_json

for number in range(300):
    write_json("same.json", {"of": [number] * 200})
"""


def test_processes_that_write_the_same_output_do_not_take_each_other_for_killed(tmp_path: Path) -> None:
    started = [
        subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    for process in started:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert read_json(tmp_path / "same.json") == {"of": [299] * 200}
    assert [path.name for path in tmp_path.iterdir()] == ["same.json"]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, ...]]:
    """Record what is synced, renamed and removed, in order, and do it."""
    made: list[tuple[str, ...]] = []
    fsync, replace, remove = os.fsync, os.replace, os.remove

    def record_sync(number: int) -> None:
        made.append(("sync", os.readlink(f"/proc/self/fd/{number}")))
        fsync(number)

    def record_rename(old: str, new: str) -> None:
        if not os.fspath(old).endswith(".partial"):  # Zarr renames chunks inside a store that has no name yet
            made.append(("rename", os.fspath(old), os.fspath(new)))
        replace(old, new)

    def record_removal(path: str) -> None:
        made.append(("remove", os.fspath(path)))
        remove(path)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(os, "replace", record_rename)
    monkeypatch.setattr(os, "remove", record_removal)
    return made


def write_hdf5(path: Path) -> None:
    with new_hdf5(path) as file:
        new_dataset(file, "a", np.arange(5))


FILES: dict[str, Callable[[Path], None]] = {
    "a.json": lambda path: write_json(path, {"a": 1}),
    "a.csv": lambda path: write_csv(path, {"a": [1]}),
    "a.parquet": lambda path: write_table(path, {"a": [1]}),
    "a.ckpt": lambda path: save_checkpoint(path, {"epoch": 3}),
    "a.h5": write_hdf5,
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_before_the_writer_returns(
    name: str, tmp_path: Path, calls: list[tuple[str, ...]]
) -> None:
    path = tmp_path / "new" / "below" / name
    for times in (1, 2):
        calls.clear()
        FILES[name](path)
        temporary = next(call[1] for call in calls if call[0] == "rename")
        expected = [("sync", temporary), ("rename", temporary, str(path)), ("sync", str(path.parent))]
        if times == 1:
            # New folders have names too.
            expected += [("sync", str(path.parents[1])), ("sync", str(path.parents[2]))]
        assert calls == expected


def test_a_store_is_on_the_disk_with_all_chunks_and_folders_before_it_has_its_name(
    tmp_path: Path, calls: list[tuple[str, ...]]
) -> None:
    path, manifest = tmp_path / "v.zarr", f"{tmp_path}/v.zarr.manifest.json"
    write_volume(path, np.arange(64).reshape(4, 4, 4), chunks=(2, 4, 4))
    inside = [path, *path.rglob("*")]
    assert len([file for file in inside if file.is_file()]) == 4
    for times in (1, 2):
        if times == 2:
            calls.clear()
            write_volume(path, np.arange(64).reshape(4, 4, 4), chunks=(2, 4, 4))
            # The manifest of the former store is gone for good before there is a new store.
            removed = calls.index(("remove", manifest))
            assert calls[removed + 1] == ("sync", str(tmp_path)) and calls[removed + 2][:2] == ("rename", str(path))
            # The former store is moved aside, not removed, at the last moment.
            assert calls.pop(next(i for i, call in enumerate(calls) if call[1:2] == (str(path),)))[0] == "rename"
            del calls[removed : removed + 2]
        named = next(i for i, call in enumerate(calls) if call[0] == "rename" and call[2] == str(path))
        temporary = calls[named][1]
        synced = [call[1] for call in calls[:named] if call[0] == "sync"]
        assert sorted(synced) == sorted(str(one).replace(str(path), temporary) for one in inside)
        order = {name: number for number, name in enumerate(synced)}
        assert all(order[str(Path(name).parent)] > order[name] for name in synced if name != temporary)
        assert calls[named + 1] == ("sync", str(tmp_path))
        # Its manifest follows, written like any file.
        assert [call[0] for call in calls[named + 2 :]] == ["sync", "rename", "sync"]
        assert calls[-2][2] == manifest
    assert sorted(one.name for one in tmp_path.iterdir()) == ["v.zarr", "v.zarr.manifest.json"]


def test_nothing_is_renamed_when_the_disk_refuses_the_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, 1)

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"no space left on the disk.*a\.json"):
        write_json(path, 2)
    assert read_json(path) == 1 and [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_file_systems_without_sync_of_folders_are_used_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync

    def only_files(number: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{number}"):
            raise OSError(22, "Invalid argument")
        fsync(number)

    monkeypatch.setattr(os, "fsync", only_files)
    write_json(tmp_path / "a.json", 1)
    assert read_json(tmp_path / "a.json") == 1
