"""Stage: make the movie of a series."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.bragg.binning import to_detector
from cathodeflow.bragg.candidate_table import require_inside
from cathodeflow.bragg.movie_marks import PLAIN, Picture, track_colours, tracks_of_peaks
from cathodeflow.bragg.movie_pictures import Fixed, Point, compose, intensity_limits, prepare
from cathodeflow.bragg.series_options import Movie
from cathodeflow.errors import InputError
from cathodeflow.io.frames_file import FramesFile, read_frames_file
from cathodeflow.io.movies import write_gif, write_mp4
from cathodeflow.io.peaks import read_peaks
from cathodeflow.io.tables import read_csv, read_table
from cathodeflow.progress import progress
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bragg")

_SPOTS = ("sample", "track", "first_frame", "last_frame", "row", "col")
# Number of frames from which the colour scale and the palette of the GIF are made.
_SAMPLES = 12


class _Scan(NamedTuple):
    point: Point
    file: FramesFile
    peaks: pd.DataFrame
    spots: pd.DataFrame | None


@stage("bragg.movie")
def movie(
    frames: Sequence[InputFile],
    *,
    peaks: Sequence[InputFile],
    out: OutputFile,
    scan: Sequence[str] = (),
    state_of_charge: Sequence[float] = (),
    tracks: InputFile | None = None,
    summary: InputFile | None = None,
    options: Movie,
) -> Metrics:
    """Make a movie of the scans FRAMES in the order of charge, with their peaks.

    Every picture shows a frame on a logarithmic scale, crosses at its peaks whose size increases with persistence, and
    state of charge and voltage of the cell. The GIF is named as the MP4 file.

    Parameters
    ----------
    frames : sequence of path
        Frames files (frames.h5), one per scan.
    peaks : sequence of path
        Peaks of each scan, in the order of FRAMES: fitted peaks (peaks.h5) or candidates (candidates.parquet).
    out : path
        MP4 file to write.
    scan : sequence of str
        Name of each scan, as in the table of tracks. Default: the folder of its frames file.
    state_of_charge : sequence of float
        State of charge of each scan, 0 (discharged) to 1 (charged). Default: unknown, and scans in the given order.
    tracks : path
        Table of tracks (tracks.parquet), whose colours the crosses have.
    summary : path
        CSV table with the columns `sample` and `voltage` [V], such as summary.csv. Default: voltages are unknown.

    Raises
    ------
    InputError
        The lists are not of one length, the frames are not of one shape, or peaks are not on the frames.
    """
    titles = list(scan) or [Path(path).absolute().parent.name for path in frames]
    given = {"--peaks": peaks, "--scan": titles, "--state-of-charge": state_of_charge}
    for flag, values in given.items():
        if values and len(values) != len(frames):
            raise InputError(flag, f"{len(values)} values", f"{len(frames)}, one for each scan")
    known = [float(charge) for charge in state_of_charge] or [np.nan] * len(frames)
    volts = _voltages(summary) if summary else {}
    table = read_table(tracks, list(_SPOTS)) if tracks else None
    with ExitStack() as stack:
        series: list[_Scan] = []
        for index in np.argsort(known, kind="stable"):
            file = stack.enter_context(read_frames_file(frames[index]))
            point = Point(titles[index], known[index], volts.get(titles[index], np.nan))
            spots = None if table is None else table[table["sample"].astype(str) == titles[index]]
            series.append(_Scan(point, file, _read_peaks(peaks[index], file), spots))
            _require_alike(series[0].file, file, frames[index])
        if table is not None and not any(len(one.spots) for one in series if one.spots is not None):
            raise InputError(str(tracks), f"no spot of the scans {', '.join(titles)}", "their tracks")
        pictures = [
            (number, int(frame))
            for number, one in enumerate(series)
            for frame in _evenly(len(one.file.frames), options.frames_per_scan)
        ]
        chosen = [pictures[index] for index in _evenly(len(pictures), _SAMPLES)]
        limits = intensity_limits((series[number].file.frames[frame] for number, frame in chosen), options)
        fixed = prepare(
            series[0].file.mask.shape,
            [one.point for one in series],
            limits,
            options,
            binning=series[0].file.binning,
            tracked=table is not None,
        )

        def drawn(wanted: Sequence[tuple[int, int]]) -> Iterator[Picture]:
            return (_draw(fixed, series[number], number, frame, options) for number, frame in wanted)

        count = write_mp4(out, progress(drawn(pictures), "movie", total=len(pictures)), fps=options.fps)
        files = [str(out)]
        if options.gif:
            files.append(str(Path(out).with_suffix(".gif")))
            some = [pictures[index] for index in _evenly(len(pictures), options.gif_frames)]
            # As long as the movie, within the hundredths of a second that the format has.
            seconds = count / options.fps / len(some)
            write_gif(files[1], drawn(some), samples=list(drawn(chosen)), seconds=seconds, width=options.gif_width)
    sizes = " and ".join(f"{Path(file).stat().st_size / 1e6:.1f} MB" for file in files)
    log.info("%d pictures of %d scans, %s", count, len(series), sizes)
    return Metrics(
        {"pictures": count, "scans": len(series), "min_counts": limits[0], "max_counts": limits[1]}, figures=files
    )


def _draw(fixed: Fixed, scan: _Scan, number: int, frame: int, options: Movie) -> Picture:
    file, point = scan.file, scan.point
    first, end = np.searchsorted(scan.peaks["frame"], [frame, frame + 1])
    here = scan.peaks.iloc[first:end]
    colours = np.tile(PLAIN, (len(here), 1))
    if scan.spots is not None:
        row, col = (to_detector(here[axis].to_numpy(np.float64), file.binning) for axis in ("row", "col"))
        colours = track_colours(tracks_of_peaks(row, col, frame, scan.spots, max_distance=options.max_distance))
    title = f"{point.name},  frame {file.frame_number[frame]}"
    if file.omega is not None and np.isfinite(file.omega[frame]):
        title += f",  omega {file.omega[frame]:.2f}\N{DEGREE SIGN}"
    facts = [f"state of charge {point.charge:.2f}"] if np.isfinite(point.charge) else []
    facts += [f"{point.voltage:.2f} V"] if np.isfinite(point.voltage) else []
    facts.append(f"{len(here)} peak{'' if len(here) == 1 else 's'}")
    return compose(
        fixed,
        file.frames[frame],
        file.bad_pixels(frame),
        here,
        colours,
        options,
        scan=number,
        text=[title, ",  ".join(facts)],
    )


def _voltages(summary: str) -> dict[str, float]:
    """Return the voltage of each scan, if the table has it; there may be several rows of one."""
    table = read_csv(summary)
    if "sample" not in table:
        raise InputError(summary, f"columns {', '.join(map(str, table))}", "a column sample")
    return {} if "voltage" not in table else dict(zip(table["sample"], table["voltage"], strict=True))


def _require_alike(first: FramesFile, file: FramesFile, where: str) -> None:
    if (file.mask.shape, file.binning) != (first.mask.shape, first.binning):
        found, expected = (f"frames of {one.mask.shape} pixels, binning {one.binning}" for one in (file, first))
        raise InputError(where, found, f"{expected}, as in the first scan")


def _evenly(length: int, wanted: int) -> NDArray[np.int64]:
    """Return at most `wanted` indices, evenly spaced from the first to the last."""
    return np.unique(np.linspace(0, length - 1, min(wanted, length)).round().astype(np.int64))


def _read_peaks(path: str, file: FramesFile) -> pd.DataFrame:
    """Read `frame`, `row`, `col` [frame px], `persistence` and `good` of peaks, in the order of the frames."""
    if path.endswith(".parquet"):
        table = read_table(path, ["frame", "row", "col", "persistence"]).assign(good=True)
    else:
        stored = read_peaks(path, None)
        names = {"frame": "peak_fidx", "row": "peak_row", "col": "peak_col"}
        table = pd.DataFrame({name: stored[column] for name, column in names.items()})
        # Files of BraggNN have neither.
        table["persistence"] = stored.get("persistence", np.full(len(table), 100.0))
        table["good"] = stored.get("good", np.ones(len(table))) != 0
    if len(table) and not 0 <= table["frame"].min() <= table["frame"].max() < len(file.frames):
        raise InputError(path, f"peaks of frame {table['frame'].max()}", f"peaks of {len(file.frames)} frames")
    good = table[table["good"]]
    require_inside(good["row"].to_numpy(), good["col"].to_numpy(), file.frames.shape[1:], path)
    return table.sort_values("frame", kind="stable", ignore_index=True)
