"""Stage: compare search settings on frames with known peaks."""

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.binning import to_detector
from cathodeflow.bragg.injection import (
    Reference,
    draw_peaks,
    inject,
    reference,
    selection_weights,
    simulate_frame,
    usable,
)
from cathodeflow.bragg.peak_options import Study
from cathodeflow.bragg.search_study import (
    SETTING,
    Found,
    StudyFrame,
    count_known,
    measured_peaks,
    search_all,
    summarise,
)
from cathodeflow.bragg.simulation import TRUTH
from cathodeflow.errors import InputError
from cathodeflow.io.frames_file import FramesFile, read_frames_file
from cathodeflow.io.tables import read_table, write_csv
from cathodeflow.progress import progress
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bragg")

# Number of times that peaks of all amplitudes are injected into each frame, to learn which of them are measured.
_TRIALS = 3
_Row = tuple[tuple[float, ...], dict[str, int], NDArray[np.float64]]


class _Scan(NamedTuple):
    frames: list[StudyFrame]
    numbers: list[int]
    binnings: Sequence[int]


@stage("bragg.study")
def study(frames: Sequence[InputFile], *, out: OutputFile, truth: Sequence[InputFile] = (), options: Study) -> Metrics:
    """Compare search settings on FRAMES: peaks found, missed and false, and their position error.

    With `truth`, the known peaks are those of the simulation. Without it, known peaks are injected into the measured
    frames, and false peaks are counted in simulated copies of these. Noise that is no counting or read-out noise, such
    as cosmic rays, is not in these copies.

    Parameters
    ----------
    frames : sequence of path
        Frames files (frames.h5), one for each scan, best without binning.
    out : path
        CSV table to write: one row for each setting.
    truth : sequence of path
        Tables of the true positions of the scans, if they are simulated.

    Raises
    ------
    InputError
        The frames have a larger binning than any to compare, there is not one truth for each scan, or no peak can be
        injected.
    """
    if truth and len(truth) != len(frames):
        raise InputError("--truth", f"{len(truth)} tables", f"{len(frames)}, one for each scan")
    rng = np.random.default_rng(options.seed or 0)
    rows: list[_Row] = []
    for index, path in enumerate(frames):
        with read_frames_file(path) as file:
            scan = _read(file, path, options)
        counted = _against_truth(scan, truth[index], options) if truth else _by_injection(scan, path, options, rng)
        rows += progress(counted, "studying")
    table = summarise(rows)
    write_csv(out, table)
    method = "true" if truth else "injected"
    metrics: dict[str, float | int | str | None] = {"settings": len(table), "known": int(table["known"].max())}
    best = table[table["recommended"]]
    if not len(best):
        log.warning("no setting finds a peak: use lower values of min_value and min_persistence")
        return Metrics({**metrics, **dict.fromkeys((*SETTING, "found_fraction", "false_fraction", "error"))})
    row = best.iloc[0]
    metrics |= {name: float(row[name]) for name in (*SETTING, "found_fraction", "false_fraction", "error")}
    log.info(
        "recommended: binning %d, min_value %g, min_persistence %g: %.1f %% of the %s peaks found, %.1f %% of all "
        "found false, median error %.3f px",
        *row[[*SETTING]], 100 * row["found_fraction"], method, 100 * row["false_fraction"], row["error"],
    )  # fmt: skip
    return Metrics(metrics)


def _read(file: FramesFile, path: str, options: Study) -> _Scan:
    """Read frames that are evenly spaced over the scan."""
    binnings = [binning for binning in options.binning if binning % file.binning == 0]
    if not binnings:
        found = f"frames with binning {file.binning}"
        raise InputError(path, found, f"a binning of at most {max(options.binning)}, best 1")
    if len(binnings) < len(options.binning):
        left_out = ", ".join(str(binning) for binning in options.binning if binning not in binnings)
        log.warning("left out: binning %s, as the frames have binning %d", left_out, file.binning)
    count = len(file.frames)
    chosen = np.unique(np.linspace(0, count - 1, min(options.n_frames, count)).round().astype(int))
    read = [
        StudyFrame(
            file.frames[index],
            file.bad_pixels(index),
            file.saturated_pixels(index),
            file.dark,
            file.dark_frames,
            file.binning,
        )
        for index in chosen
    ]
    return _Scan(read, [int(file.frame_number[index]) for index in chosen], binnings)


def _against_truth(scan: _Scan, truth: str, options: Study) -> Iterator[_Row]:
    true = read_table(truth, list(TRUTH))
    for frame, number in zip(scan.frames, scan.numbers, strict=True):
        here = true[true["frame"] == number]
        known = here[["row", "col"]].to_numpy(np.float64)
        counted = ((here["amplitude"] >= options.min_amplitude) & ~here["masked"]).to_numpy(bool)
        for setting, found in search_all(frame, options, scan.binnings):
            yield setting, *count_known(found, known, counted, np.empty((0, 2)), options)


def _by_injection(scan: _Scan, path: str, options: Study, rng: np.random.Generator) -> Iterator[_Row]:
    native = scan.frames[0].binning
    lowest = options.model_copy(
        update={name: (min(getattr(options, name)),) for name in ("min_value", "min_persistence")}
    )
    measured = [next(search_all(frame, lowest, [native]))[1] for frame in scan.frames]
    known = reference(scan.frames, measured)
    shapes = known.peaks.loc[usable(known, options), "amplitude"].to_numpy(np.float64)
    if not len(shapes):
        lacking = f"no good peak of at least {options.min_amplitude:g} counts"
        raise InputError(path, lacking, "peaks to inject others like them")
    weights = selection_weights(shapes, *_trial(scan, known, measured, lowest, rng))
    for index, frame in enumerate(scan.frames):
        without = dict(search_all(frame, options, scan.binnings, fit=False))
        for _ in range(options.repeats):
            injected = draw_peaks(known, index, frame, options, rng, weights=weights)
            changed = inject(frame, injected, options, rng)
            at = _detector(injected[["row", "col"]].to_numpy(np.float64), native)
            for setting, found in search_all(changed, options, scan.binnings):
                every = np.ones(len(at), bool)
                counts, errors = count_known(found, at, every, without[setting].position, options)
                # False peaks are counted in the simulated copy.
                yield setting, {**counts, "peaks": 0, "false": 0}, errors
            copied, positions = simulate_frame(known, index, frame, options, rng)
            true = _detector(positions, native)
            for setting, found in search_all(copied, options, scan.binnings, fit=False):
                counts, _ = count_known(found, true, np.zeros(len(true), bool), np.empty((0, 2)), options)
                yield setting, {**counts, "known": 0, "found": 0}, np.empty(0)


def _trial(
    scan: _Scan, known: Reference, measured: Sequence[Found], lowest: Study, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Inject peaks of all amplitudes and search with the lowest limits: amplitudes, and which have a good fit."""
    amplitudes, good = [], []
    native = scan.frames[0].binning
    for index, (frame, before) in enumerate(zip(scan.frames, measured, strict=True)):
        for _ in range(_TRIALS):
            injected = draw_peaks(known, index, frame, lowest, rng)
            at = _detector(injected[["row", "col"]].to_numpy(np.float64), native)
            _, found = next(search_all(inject(frame, injected, lowest, rng), lowest, [native]))
            amplitudes.append(injected["amplitude"].to_numpy(np.float64))
            good.append(measured_peaks(found, at, before.position, lowest))
    return np.concatenate(amplitudes), np.concatenate(good)


def _detector(positions: NDArray[np.float64], binning: int) -> NDArray[np.float64]:
    return np.asarray(to_detector(positions, binning), np.float64)
