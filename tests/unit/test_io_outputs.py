"""Outputs replace files and our own stores; folders, devices, links and inputs are refused in one line and stay."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from cathodeflow import bragg, fibsem
from cathodeflow.cli import cli
from cathodeflow.errors import InputError
from cathodeflow.io.atomic import remove_remains
from cathodeflow.io.figures import save_figure
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.io.hdf5 import new_hdf5
from cathodeflow.io.models import discard_checkpoint, save_checkpoint, save_model
from cathodeflow.io.reconstructions import write_page
from cathodeflow.io.simulated import write_tiff
from cathodeflow.io.tables import write_csv, write_json, write_table
from cathodeflow.io.text import write_text
from cathodeflow.io.volumes import read_volume, read_volume_info, write_volume
from cathodeflow.plotting import training_curves

VALUES = np.arange(64, dtype=np.uint8).reshape(4, 4, 4)


def write_hdf5(path: Path) -> None:
    with new_hdf5(path):
        pass


WRITERS: dict[str, Callable[[Path], None]] = {
    "table": lambda path: write_table(path, {"a": [1]}),
    "CSV": lambda path: write_csv(path, {"a": [1]}),
    "JSON": lambda path: write_json(path, {}),
    "text": lambda path: write_text(path, "a"),
    "page": lambda path: write_page(path, "<p>"),
    "figure": lambda path: save_figure(f"{path}.png", training_curves([{"epoch": 1, "train_loss": 1.0}], unit="a")),
    "model": lambda path: save_model(path, {}, {}),
    "checkpoint": lambda path: save_checkpoint(path, {}),
    "HDF5": write_hdf5,
    "TIFF": lambda path: write_tiff(path, VALUES[0]),
    "store": lambda path: write_volume(path, VALUES),
    "manifest": lambda path: write_volume(f"{path}.zarr", VALUES),
}
#: Names that some writers give to a path themselves.
SUFFIX = {"figure": ".png", "manifest": ".zarr.manifest.json"}


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")


def a_link(path: Path) -> None:
    path.with_name("raw").write_text("years of work")
    path.symlink_to("raw")


def a_link_to_a_folder(path: Path) -> None:
    a_folder(path.with_name("raw"))
    path.symlink_to("raw")


THINGS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a folder": (a_folder, "found a folder"),
    "an empty folder": (Path.mkdir, "found a folder"),
    "a link": (a_link, "found a symbolic link to raw"),
    "a link to a folder": (a_link_to_a_folder, "found a symbolic link to raw"),
    "a link to nothing": (lambda path: path.symlink_to("nowhere"), "found a symbolic link to nowhere"),
    "a named pipe": (lambda path: os.mkfifo(path), "found a named pipe"),
    "a device": (lambda path: os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3)), "found a device"),
}


def content(folder: Path) -> dict[str, object]:
    """Everything in a folder: kinds, targets of links, and content of files."""
    found: dict[str, object] = {}
    for path in sorted(folder.rglob("*")):
        kind = stat.S_IFMT(path.lstat().st_mode)
        name = path.relative_to(folder).as_posix()
        found[name] = (kind, path.read_bytes() if kind == stat.S_IFREG else path.is_symlink() and os.readlink(path))
    return found


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("kind", WRITERS)
def test_nothing_but_files_and_our_stores_is_replaced(tmp_path: Path, kind: str, thing: str) -> None:
    make, found = THINGS[thing]
    taken = tmp_path / f"x{SUFFIX.get(kind, '')}"
    try:
        make(taken)
    except PermissionError:
        pytest.skip("only root makes devices")
    before = content(tmp_path)
    with pytest.raises(InputError) as caught:
        WRITERS[kind](tmp_path / "x")
    text = str(caught.value)
    assert text.startswith(str(taken)) and "\n" not in text
    assert found in text or (kind == "store" and "no folder" in text)
    assert content(tmp_path) == before


@pytest.mark.parametrize("kind", WRITERS)
def test_files_are_replaced_also_through_linked_folders(tmp_path: Path, kind: str) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "results").symlink_to("disk")
    for _ in range(2):
        WRITERS[kind](tmp_path / "results" / "x")
    assert (tmp_path / "disk" / f"x{SUFFIX.get(kind, '')}").exists() and (tmp_path / "results").is_symlink()


def test_a_store_replaces_no_file(tmp_path: Path) -> None:
    (tmp_path / "x.zarr").write_text("years of work")
    with pytest.raises(InputError, match=r"x\.zarr: found no folder, expected a new name, or a store"):
        write_volume(tmp_path / "x.zarr", VALUES)
    assert (tmp_path / "x.zarr").read_text() == "years of work"


def manifest(store: Path) -> Path:
    return Path(f"{store}.manifest.json")


def damage_metadata(store: Path) -> None:
    (store / "zarr.json").write_text("{")


def of_before(store: Path) -> None:
    """Make a store as earlier versions wrote it, without their name in it."""
    about = json.loads((store / "zarr.json").read_text())
    del about["attributes"]["creator"]
    (store / "zarr.json").write_text(json.dumps(about))


OURS: dict[str, Callable[[Path], object]] = {
    "whole": lambda store: None,
    "killed before its manifest": lambda store: manifest(store).unlink(),
    "with a damaged manifest": lambda store: manifest(store).write_text("\0" * 100),
    "with damaged metadata": damage_metadata,
    "with a missing chunk": lambda store: (store / "0/c/0/0/0").unlink(),
    "of an earlier version": of_before,
    "as Snakemake leaves it": lambda store: (store / ".snakemake_timestamp").touch(),
}
NOT_OURS: dict[str, Callable[[Path], object]] = {
    "with a file of somebody else": lambda store: (store / "notes.txt").write_text("years of work"),
    "with a link": lambda store: (store / "raw").symlink_to("/"),
    "of another program": lambda store: (of_before(store), manifest(store).unlink()),
    "with nothing of ours": lambda store: (shutil.rmtree(store), a_folder(store)),
}


@pytest.mark.parametrize("state", OURS)
def test_our_stores_are_replaced_whatever_happened_to_them(tmp_path: Path, state: str) -> None:
    store = tmp_path / "x.zarr"
    write_volume(store, VALUES)
    OURS[state](store)
    write_volume(store, VALUES + 1)
    assert np.array_equal(np.asarray(read_volume(store, verify=True)), VALUES + 1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.zarr", "x.zarr.manifest.json"]


@pytest.mark.parametrize("state", NOT_OURS)
def test_stores_that_hold_anything_of_others_stay(tmp_path: Path, state: str) -> None:
    store = tmp_path / "x.zarr"
    write_volume(store, VALUES)
    NOT_OURS[state](store)
    before = content(tmp_path)
    with pytest.raises(InputError, match=r"x\.zarr: found a folder with other content"):
        write_volume(store, VALUES + 1)
    assert content(tmp_path) == before


def test_what_appears_while_an_output_is_written_stays(tmp_path: Path) -> None:
    path = tmp_path / "x.h5"
    with pytest.raises(InputError, match="found a folder"), new_hdf5(path):
        a_folder(path)
    assert content(tmp_path).keys() == {"x.h5", "x.h5/thesis.txt"}


def test_the_mark_of_our_stores_is_no_attribute_of_the_volume(tmp_path: Path) -> None:
    write_volume(tmp_path / "x.zarr", VALUES, attributes={"k": 1})
    assert json.loads((tmp_path / "x.zarr/zarr.json").read_text())["attributes"]["creator"] == "cathodeflow"
    assert read_volume_info(tmp_path / "x.zarr").attributes == {"k": 1}


def test_remains_are_told_from_hidden_folders_of_others(tmp_path: Path) -> None:
    ours, theirs, named_alike = (tmp_path / name for name in (".x.abcd1234", ".x.config", ".x.settings"))
    for folder in (ours, theirs, named_alike):
        folder.mkdir()
        (folder / "lock").write_text("held")
    (ours / "partial.h5").touch()
    (named_alike / "thesis.txt").write_text("years of work")
    (tmp_path / "x").touch()
    discard_checkpoint(tmp_path / "x")
    remove_remains(tmp_path / "x")
    assert content(tmp_path).keys() == {".x.config", ".x.config/lock", *(f".x.settings/{n}" for n in ("lock", "thesis.txt")), ".x.settings"}  # fmt: skip
    assert (theirs / "lock").read_text() == "held"


@pytest.fixture
def frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    images = enumerate(np.zeros((2, 16, 16), np.float32))
    write_frames("frames.h5", images, shape=(16, 16), mask=np.zeros((16, 16), bool), source="simulated")
    return tmp_path


CALLS = {
    "a folder as --out": ({"out": "taken"}, "taken: found a folder"),
    "a folder as --record": ({"out": "x.parquet", "record": "taken"}, "taken: found a folder"),
    "a device as --record": ({"out": "x.parquet", "record": "/dev/null"}, "/dev/null: found a device"),
    "an input as --out": ({"out": "frames.h5"}, "frames.h5: found an input of the same command"),
    "an input by another path": ({"out": "./taken/../frames.h5"}, "frames.h5: found an input of the same command"),
    "a name for two outputs": ({"out": "x", "record": "./x"}, "x: found two outputs of this name"),
}


@pytest.mark.parametrize("case", CALLS)
def test_a_stage_refuses_its_outputs_before_it_begins(frames: Path, case: str) -> None:
    outputs, text = CALLS[case]
    a_folder(frames / "taken")
    before = content(frames)
    with pytest.raises(InputError, match=text):
        bragg.find_peaks("frames.h5", options=bragg.FindPeaks(), **outputs)
    line = [word for name, path in outputs.items() for word in (f"--{name}", path)]
    done = CliRunner().invoke(cli, ["bragg", "find-peaks", "frames.h5", *line])
    assert isinstance(done.exception, InputError) and "\n" not in str(done.exception)
    assert content(frames) == before


def test_nothing_is_written_into_a_store(frames: Path) -> None:
    write_volume("in.zarr", VALUES)
    write_tiff("raw/a.tif", VALUES[0])
    before = content(frames)
    for record in ("in.zarr/r.json", "out.zarr/r.json"):
        with pytest.raises(InputError, match=rf"^{record}: found a place inside a Zarr store, expected a place beside"):
            fibsem.volume("raw", out="out.zarr", record=record, options=fibsem.Volume())
    assert content(frames) == before


def test_raw_files_in_a_folder_or_pattern_are_no_outputs(frames: Path) -> None:
    write_tiff("raw/a.tif", VALUES[0])
    for source in ("raw", "raw/*.tif"):
        with pytest.raises(InputError, match=r"raw/a.tif: found an input of the same command"):
            bragg.frames(source, out="raw/a.tif", options=bragg.Frames())


def test_all_that_would_be_lost_is_named_at_once(frames: Path) -> None:
    write_tiff("raw/a.tif", VALUES[0])
    a_folder(frames / "taken")
    with pytest.raises(InputError) as caught:
        fibsem.volume("raw", out="taken", record="frames.h5/none", labels_out="raw", options=fibsem.Volume())
    assert [error.where for error in caught.value.errors] == ["frames.h5/none", "taken", "raw"]
