"""The time of trainings that `cathodeflow check` extrapolates from a few real steps."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cathodeflow import training_time
from cathodeflow.bragg import training_estimate as bragg
from cathodeflow.config import samples, validate
from cathodeflow.training_time import epoch_time, training_lines

EPOCH = 1.5


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Let trainings run, but count their second epoch as 1.5 s; returns the true times."""
    times: list[float] = []

    def known(train: Any, *, threads: int | None) -> float:
        times.append(epoch_time(train, threads=threads))
        return EPOCH

    for technique in ("bcdi", "bragg", "fibsem", "sem"):
        module = __import__(f"cathodeflow.{technique}.training_estimate", fromlist=["epoch_time"])
        monkeypatch.setattr(module, "epoch_time", known)
    return times


def lines(config: dict[str, Any]) -> list[str]:
    settings = validate(config)
    return training_lines(settings, samples(settings, checked=False))


def sheet(folder: Path, text: str) -> str:
    (folder / "s.tsv").write_text(text.replace("DATA", str(folder)))
    return str(folder / "s.tsv")


def test_the_second_epoch_counts_and_then_the_training_ends(caplog: pytest.LogCaptureFixture) -> None:
    threads, epochs = torch.get_num_threads(), []

    def train(note: Any) -> None:
        for number in range(5):
            epochs.append((number, torch.get_num_threads()))
            logging.getLogger("cathodeflow").warning("epoch %d", number)
            note({})

    with caplog.at_level(logging.INFO):
        assert epoch_time(train, threads=1) >= 0
        logging.getLogger("cathodeflow").info("afterwards")
    assert epochs == [(0, 1), (1, 1)] and torch.get_num_threads() == threads
    assert caplog.messages == ["afterwards"]


def test_micrographs(tmp_path: Path, measured: list[float]) -> None:
    samples_file = sheet(tmp_path, "sample\trole\timages\na\ttrain\tsimulated\n")
    train = {"epochs": 4, "batch_size": 4, "progressive_fraction": 0.5, "progressive_size": 16, "backbone": "resnet10t"}
    config = {"sem": {"samples": samples_file, "crops": {"size": 1000, "ratio": 0.2, "side": 32}, "train": train}}
    # Of 8 crops an epoch takes 1.5 s; half of the epochs have a quarter of the pixels.
    seconds = EPOCH / 8 * 800 * (2 + 2 / 4)
    assert lines(config) == [
        f"sem: training: at most about {seconds / 60:.1f} min for 4 epochs of 800 crops of 32 x 32 px, from a few steps "
        "measured on this machine"
    ]
    assert len(measured) == 1 and measured[0] > 0
    sheet(tmp_path, "sample\trole\timages\na\tpredict\tsimulated\n")
    assert lines(config) == []


def test_phase_retrieval(tmp_path: Path, measured: list[float]) -> None:
    samples_file = sheet(tmp_path, "sample\trole\tframes\na\tpredict\tsimulated\n")
    train = {"epochs": 5, "batch_size": 2, "validation": 0.2, "widths": [4, 8]}
    config = {"bcdi": {"samples": samples_file, "simulate": {"crystals": 50, "size": 16}, "train": train}}
    # 4 volumes for training and 1 for validation.
    (line,) = lines(config)
    assert line.startswith(
        f"bcdi: training: at most about {EPOCH / 5 * 50 * 5 / 60:.1f} min for 5 epochs of 50 crystals of 16"
    )
    sheet(tmp_path, "sample\trole\tframes\na\tphase\tsimulated\n")
    assert lines(config) == []


def test_slices(tmp_path: Path, measured: list[float]) -> None:
    samples_file = sheet(tmp_path, "sample\trole\timages\tlabels\na\ttrain\tsimulated\t\n")
    small = {"architecture": "unet", "widths": [4, 8], "epochs": 10, "folds": 3}
    section = {
        "samples": samples_file,
        "simulate": {"n_slices": 40, "rows": 32, "cols": 320},
        "augment": {"copies": 2, "splits": ["grouped"], "test": 0.25, "validation": 0.2, "gap": 0},
        "networks": {"unet": small, "ugsm": small},
        "methods": {"matphase": {"network": "ugsm"}},
        "train_local": {"epochs": 2, "batch_size": 8, "pixels_per_epoch": 160},
        "seeds": [0, 1],
    }
    (line,) = lines({"fibsem": section})
    # 24 slices for training, 6 for validation; only 256 of 320 columns are measured.
    per_slice = EPOCH / (2 + 1 / 3) * 320 / 256
    networks = (1 + 4) * 10 * (24 * 2 + 6 / 3) * per_slice
    windows = 2 * 160 * EPOCH / (16 * (1 + 1 / 12))
    minutes = 2 * (networks + windows) / 3600
    what = "3 networks and local models on 40 labelled slices, 2 times"
    assert (
        line == f"fibsem: training: at most about {minutes:.1f} h for {what}, from a few steps measured on this machine"
    )
    assert len(measured) == 3


def test_peaks(tmp_path: Path, measured: list[float]) -> None:
    grid = np.mgrid[:40, :60]
    frame = sum(200 * np.exp(-((grid[0] - 20) ** 2 + (grid[1] - at) ** 2) / 3) for at in (10, 30, 50))
    np.save(tmp_path / "scan.npy", np.repeat(frame[None].astype(np.uint16), 30, axis=0))
    samples_file = sheet(
        tmp_path, "sample\trole\tframes\tstop\na\ttrain\tDATA/scan.npy\t20\nb\tmeasure\tDATA/scan.npy\t\n"
    )
    section = {"samples": samples_file, "find_peaks": {"min_value": 5}, "train": {"epochs": 7, "batch_size": 4}}
    config = {"bragg": section}
    scan = samples(validate(config), checked=False)["bragg"]["a"]
    assert bragg.count_patches(validate(config).bragg, scan) == 60
    (line,) = lines(config)
    assert line.startswith(f"bragg: training: at most about {EPOCH / 5 * 7:.1f} min for 7 epochs of some 60 patches")
    (tmp_path / "scan.npy").unlink()
    assert lines(config) == []  # said by the check of the headers


def test_a_time_has_the_unit_that_suits_it() -> None:
    assert [training_time.duration(seconds) for seconds in (3, 59.4, 61, 4000)] == ["3 s", "59 s", "1.0 min", "1.1 h"]
