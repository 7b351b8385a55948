"""Things of the user in the way of outputs, among results, and in records: kept, and told from ours."""

import os
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cathodeflow.bragg.network_options import Train
from cathodeflow.bragg.peak_options import FindPeaks
from cathodeflow.errors import InputError
from cathodeflow.io.atomic import WRITTEN
from cathodeflow.io.tables import read_table, write_json, write_table
from cathodeflow.io.volumes import write_volume
from cathodeflow.record import write_record
from cathodeflow.record_files import read_record, read_records
from cathodeflow.verify import remove_damaged, verify

from .conftest import command, only_full, patches, tally, times
from .test_corrupted import flip
from .test_disk import WRITERS


def a_folder(path: Path) -> None:
    path.mkdir()
    (path / "thesis.txt").write_text("years of work")


def a_link(path: Path) -> None:
    path.with_name("raw.h5").write_text("years of work")
    path.symlink_to("raw.h5")


IN_THE_WAY: dict[str, Callable[[Path], None]] = {
    "folder": a_folder,
    "link": a_link,
    "named pipe": lambda path: os.mkfifo(path),
}
OUTPUTS = {"HDF5": "frames.h5", "Zarr": "s.zarr", "torch": "model.pt", "a record": "a.json", "a figure": "train.png"}


def state(folder: Path) -> dict[str, object]:
    return {str(path): path.is_file() and path.read_bytes() for path in folder.rglob("*") if not path.is_fifo()}


@only_full
@pytest.mark.parametrize("kind", OUTPUTS)
def test_what_is_in_the_way_of_an_output_stays(source: Path, tmp_path: Path, kind: str) -> None:
    (tmp_path / "raw").symlink_to(source / "raw")
    patches(tmp_path / "patches.h5")
    (tmp_path / "big.h5").touch()
    lines = {key: line for key, (line, _) in WRITERS.items()}
    lines |= {"a record": lines["torch"], "a figure": "bragg figures --training train.json --out disk"}
    write_json(
        tmp_path / "train.json",
        {
            "options": Train().model_dump(mode="json"),
            "metrics": {"best_epoch": 1},
            "history": [{"epoch": 1, "train_loss": 1.0, "validation_loss": 1.0}],
        },
    )
    for thing, make in IN_THE_WAY.items():
        (tmp_path / "disk").mkdir(exist_ok=True)
        taken = tmp_path / "disk" / OUTPUTS[kind]
        make(taken)
        before = state(tmp_path / "disk")
        with tally(f"a {thing} in the place of an output"):
            done = command(tmp_path, f"--log log.txt {lines[kind]}")
            assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
            assert done.stderr.startswith(f"disk/{taken.name}: found ")
            assert state(tmp_path / "disk") == before and taken.lstat()
        (tmp_path / "disk").rename(tmp_path / thing)


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for sample in ("a", "b"):
        WRITTEN.clear()
        write_table(f"results/bragg/{sample}/t.parquet", {"row": np.arange(50), "name": ["x"] * 50})
        write_volume(f"results/bragg/{sample}/v.zarr", np.ones((4, 8, 8), np.uint8))
        path = f"results/bragg/{sample}/t.json"
        write_record(path, stage="bragg.find_peaks", sample=sample, options=FindPeaks(), metrics={"peaks": 5})
    return tmp_path / "results"


def test_repair_takes_what_is_damaged_and_no_file_of_others(results: Path) -> None:
    rng, number = random.Random(7), times(60, 6)
    ours = sorted(path for path in results.rglob("*") if path.is_file())
    with tally("results damaged among files of the user (verify --repair)", number):
        for k in range(number):
            good = {path: path.read_bytes() for path in ours}
            notes = results / f"bragg/{rng.choice('ab')}/notes{k}.json"
            notes.write_text(rng.choice(['{"temperature": 25}', "{", "", '{"metrics": {"peaks": NaN}}']))
            damaged = rng.sample(ours, rng.randrange(1, 4))
            for path in damaged:
                flip(path, rng) if rng.random() < 0.7 else path.write_bytes(good[path][: len(good[path]) // 2])
            remove_damaged(verify("results"))
            gone = {path for path in ours if not path.exists()}
            # What a damaged record names is made again with it.
            lost = {path.parent for path in damaged if path.name == "t.json"}
            assert (
                notes.exists()
                and {path for path in damaged if path.name != "t.parquet" or path.parent not in lost} <= gone
            )
            # A store goes as a whole.
            assert all(path in damaged or "v.zarr" in str(path) for path in gone)
            for path, content in good.items():
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)


def test_a_bit_of_a_record_or_table_is_not_believed(results: Path) -> None:
    rng, number = random.Random(8), times(400, 40)
    record, table = Path("results/bragg/a/t.json"), Path("results/bragg/a/t.parquet")
    good, frame = read_record(record), read_table(table)
    content = record.read_bytes()
    with tally("a bit of a record flipped, imported into MLflow", number):
        for _ in range(number):
            flip(record, rng)
            found, errors = read_records([str(record), "results/bragg/b/t.json"])
            assert [path.parent.name for path, _ in found][-1] == "b" and len(found) + len(errors) == 2
            assert len(found) == 1 or found[0][1] == good
            record.write_bytes(content)
    content = table.read_bytes()
    with tally("a bit of a Parquet table flipped, read", number):
        for _ in range(number):
            flip(table, rng)
            try:
                pd.testing.assert_frame_equal(read_table(table), frame)
            except InputError as error:
                assert str(error).startswith(str(table))
            table.write_bytes(content)
