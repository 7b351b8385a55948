"""How long BraggNN will be trained, from the peaks on a few frames and two epochs on noisy patches."""

import time
from collections.abc import Mapping

import numpy as np

from cathodeflow.bragg.network_options import Train
from cathodeflow.bragg.options import Scan, Section
from cathodeflow.bragg.peak_search import candidates
from cathodeflow.bragg.prepared_frames import prepared_frame
from cathodeflow.bragg.raw_data import corrections, frames_options
from cathodeflow.bragg.raw_scan import open_scan
from cathodeflow.bragg.training import train_braggnn
from cathodeflow.io.frames import read_frames
from cathodeflow.io.patch_table import TrainingPatches
from cathodeflow.io.sources import is_remote
from cathodeflow.training_time import Estimate, epoch_time

# Frames of a scan on which peaks are searched, and the time after which no more are [s].
_FRAMES, _SECONDS = 12, 2.0
# Patches of a step that are measured.
_PATCHES = 256


def estimate(section: Section, samples: Mapping[str, Scan], device: str) -> Estimate | None:
    """Estimate the time of the training; None if nothing is trained, or its scans are simulated or remote."""
    scans = [scan for scan in samples.values() if scan.role == "train"]
    if section.locate.model is not None or not scans or any(scan.simulated or is_remote(scan.frames) for scan in scans):
        return None
    n_patches = sum(round(count_patches(section, scan)) for scan in scans)
    options = section.train
    seconds = _patch_time(options, device, section.patches.patch_size) * n_patches * options.epochs
    return Estimate(f"{options.epochs} epochs of some {n_patches} patches", seconds)


def count_patches(section: Section, scan: Scan) -> float:
    """Extrapolate the number of isolated peaks of a scan from some of its frames.

    Raises
    ------
    InputError
        A file cannot be read.
    """
    given = corrections(scan)
    raw = open_scan(
        scan.frames,
        frames_options(scan, section.frames),
        dark=given.get("dark"),
        flat=given.get("flat"),
        mask=given.get("mask"),
    )
    begun, found = time.perf_counter(), []
    for at in dict.fromkeys(np.linspace(0, len(raw.wanted) - 1, _FRAMES).astype(int).tolist()):
        number = raw.wanted[at]
        image = next(read_frames(raw.series, number, number + 1))[1]
        peaks = candidates(prepared_frame(number, image, raw.correction), section.find_peaks, mask=raw.mask)
        found.append(int((peaks["central"] & (peaks["npeaks"] == 1)).sum()))
        if time.perf_counter() - begun > _SECONDS:
            break
    return float(np.mean(found)) * len(raw.wanted)


def _patch_time(options: Train, device: str, size: int) -> float:
    """Measure the time per patch [s]."""
    n_train = min(options.batch_size, _PATCHES)
    n_validation = max(1, round(n_train * options.validation / (1 - options.validation)))
    count, side = n_train + n_validation, size + 2 * options.max_shift
    random = np.random.default_rng(0)
    row, col = random.uniform(side / 2 - 1, side / 2 + 1, (2, count)).astype(np.float32)
    grid = np.arange(side, dtype=np.float32)
    squares = (grid[:, None] - row[:, None, None]) ** 2 + (grid - col[:, None, None]) ** 2
    patches = random.poisson(200 * np.exp(-squares / 4)).astype(np.float32)
    numbers = np.arange(count)
    table = TrainingPatches(patches, row, col, numbers, numbers, np.full((count, 2), np.nan, np.float32))
    short = options.model_copy(update={"epochs": 2, "patience": None, "device": options.device or device})
    seconds = epoch_time(
        lambda note: train_braggnn(table, numbers >= n_train, short, patch_size=size, on_epoch=note),
        threads=options.threads,
    )
    return seconds / count
