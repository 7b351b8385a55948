"""Stage: measure the frames of a scan while they are written."""

import gc
import hashlib
import logging
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import cathodeflow
from cathodeflow.bragg.frame_peaks import RECORD, table_of, warm_up
from cathodeflow.bragg.live_scan import LiveScan
from cathodeflow.bragg.live_view import page as live_page
from cathodeflow.bragg.options import require_apart
from cathodeflow.bragg.peak_options import Watch
from cathodeflow.bragg.raw_scan import Images, read_images
from cathodeflow.bragg.strain_so_far import Spots, StrainSoFar, spots_of
from cathodeflow.bragg.watch_report import WatchReport
from cathodeflow.config import complete, validate
from cathodeflow.errors import InputError
from cathodeflow.interruption import Interrupted
from cathodeflow.io.detector_geometry import DetectorGeometry
from cathodeflow.io.frames import FrameSeries
from cathodeflow.io.geometry_files import read_detector_geometry
from cathodeflow.io.growing import GrowingSeries
from cathodeflow.io.hdf5 import beside_writers
from cathodeflow.io.peak_parts import PeakParts
from cathodeflow.io.peaks import read_peaks, write_peaks
from cathodeflow.io.series_conditions import series_conditions
from cathodeflow.io.tables import read_table
from cathodeflow.io.text import read_yaml
from cathodeflow.live_page import LivePage, served
from cathodeflow.stage import InputFile, Metrics, OutputFolder, Source, stage
from cathodeflow.statistics import median

log = logging.getLogger("cathodeflow.bragg")

_SECTIONS = ("frames", "find_peaks", "fit", "geometry")


@stage("bragg.watch")
def watch(
    source: Source,
    *,
    out: OutputFolder,
    dark: Source | None = None,
    flat: Source | None = None,
    mask: Source | None = None,
    geometry: InputFile | None = None,
    reference: InputFile | None = None,
    energy_kev: float | None = None,
    config: InputFile | None = None,
    options: Watch,
) -> Metrics:
    """Find and fit the peaks of SOURCE, a folder or an HDF5 file, while its frames are written.

    Ctrl-C ends the command, with the peaks of the frames so far. After a crash, the same command goes on where it was.

    Parameters
    ----------
    source : path
        Raw frames: a folder, a glob pattern, a file, or FILE.h5::/DATASET; nothing needs to exist yet.
    out : path
        Folder of the results: `peaks.h5` at the end, `frames.csv` and `rings.csv` all the time, and `parts`, with the
        peaks so far.
    dark : path
        Dark image, or a series of dark images, whose mean is subtracted.
    flat : path
        Flat field, dark subtracted, or a series of them.
    mask : path
        Mask image: 0 at good pixels, any other value at bad pixels and gaps.
    geometry : path
        Geometry of the detector, for the strain: a PONI file (pyFAI), an instrument of hexrd (YAML), or a NeXus file.
    reference : path
        Peaks that the strain refers to: a `peaks.h5` of the same detector, or a table (Parquet) of peaks or spots with
        the columns `d` and `d_err`. Default: the first frames of the scan.
    energy_kev : float
        Photon energy [keV], instead of that in the geometry file or the raw files.
    config : path
        Configuration file with the options of the stages frames, find_peaks, fit and geometry, in place of those of the
        command line.

    Raises
    ------
    InputError
        As in these stages; or options of stages are given both here and in a configuration file.
    """
    if config:
        options = _with_config(options, config)
    images_given = {"dark": dark, "flat": flat, "mask": mask}
    require_apart({"frames": source, **images_given})
    growing = GrowingSeries(source, settle=options.interval)
    page = LivePage(live_page())
    with ExitStack() as stack:
        if options.port is not None:
            stack.enter_context(served(page, options.host, options.port))
            log.info("live page: %s", page.address)
        page.update({"source": source, **_nothing_yet(options)}, {})
        warm_up(options.find_peaks, options.fit)
        series = _first(growing, source, options)
        images = read_images(series.shape, options.frames, **images_given)
        parts = stack.enter_context(PeakParts(Path(out) / "parts", _settings(source, images, options), RECORD))
        if parts.frames:
            log.info("%d frames were measured before", len(parts.frames))
        strain = None
        if geometry:
            place = read_detector_geometry(geometry, detector=options.geometry.detector, shape=series.shape)
            energy = _energy(series, place, energy_kev)
            strain = StrainSoFar(place, energy, options, _reference(reference, place, energy))
        elif reference:
            raise InputError("--reference", "no geometry", "--geometry, with which its lattice spacings are compared")
        scan = LiveScan(images, options, parts)
        report = WatchReport(source, out, growing, scan, parts, page, strain, options)
        series = _follow(growing, series, scan, report, options)
        report.update(series, waiting=len(scan.pending(series)), status="comparing all frames", always=True)
        require_apart({"frames": source, **images_given})
        peaks = scan.finish(series)
        table, figures = table_of(peaks, options.fit, options.frames.binning)
        write_peaks(Path(out) / "peaks.h5", **table)
        report.update(series, waiting=0, status="finished", always=True)
    # Files behind links stay open, without locks, until the last object in them is gone; this process could not open
    # them with locks meanwhile.
    gc.collect()
    log.info("%d peaks on %d frames written", figures["peaks"], len(peaks))
    lags = np.array([done - growing.arrival(*key) for key, done in scan.measured_at.items()])
    of_time = {"median_lag": median(lags), "max_lag": float(lags.max()) if len(lags) else None}
    return Metrics({"frames": len(peaks), **figures, **of_time})


def _follow(
    growing: GrowingSeries, series: FrameSeries, scan: LiveScan, report: WatchReport, options: Watch
) -> FrameSeries:
    """Measure frames as they come, until the scan is complete or the user ends it; return the series."""
    newest = time.monotonic()
    count = series.n_frames
    try:
        while True:
            looked = time.monotonic()
            series = growing.look() or series
            if series.n_frames != count:
                count, newest = series.n_frames, looked
            done = scan.measure_new(series)
            waiting = len(scan.pending(series))
            report.update(series, waiting=waiting, status="running")
            if not waiting or not done:
                if options.expected is not None and series.n_frames >= options.expected and not waiting:
                    break
                if options.idle is not None and looked - newest >= options.idle:
                    log.info("no new frame for %g s", options.idle)
                    break
                time.sleep(max(0.0, looked + options.interval - time.monotonic()))
    except (Interrupted, KeyboardInterrupt) as signal:
        if str(signal) not in ("SIGINT", ""):
            raise
        log.info("stopped: joining the peaks of the frames so far; Ctrl-C again ends at once")
        return series
    return growing.finished(on_bad_file=options.frames.on_bad_file)


def _first(growing: GrowingSeries, source: str, options: Watch) -> FrameSeries:
    """Wait for the first frame.

    Raises
    ------
    InputError
        There is none within the time of `idle`.
    """
    begun = told = time.monotonic()
    while True:
        looked = time.monotonic()
        if (series := growing.look()) is not None:
            return series
        why = "; ".join(f"{path}: {reason}" for path, reason in growing.waiting.items())
        if options.idle is not None and looked - begun >= options.idle:
            raise InputError(source, why or "no frame", f"a frame within {options.idle:g} s (idle)")
        if looked == begun or looked - told > 30:
            told = looked
            log.info("waiting for the first frame of %s (%s)", source, why)
        time.sleep(options.interval)


def _with_config(options: Watch, path: str) -> Watch:
    """Take the options of the stages from a configuration file."""
    if any(getattr(options, name) != Watch.model_fields[name].default for name in _SECTIONS):
        raise InputError("--config", "options of stages in addition to a configuration file", "only one of them")
    values = read_yaml(path)
    if "bragg" not in values:
        raise InputError(path, "no section 'bragg'", "options of its stages")
    settings = validate(values, path)
    section = settings.bragg  # type: ignore[attr-defined]
    return options.model_copy(update={name: complete(settings, getattr(section, name)) for name in _SECTIONS})


def _settings(source: str, images: Images, options: Watch) -> dict[str, Any]:
    """Return all that the peaks depend on but the frames themselves."""

    def digest(image: NDArray[Any] | None) -> str | None:
        return None if image is None else hashlib.sha256(image.tobytes()).hexdigest()

    chosen = options.model_dump(include={"frames", "find_peaks", "fit"})
    # Which frames are measured, and what becomes of the others, does not change their peaks.
    for name in ("start", "stop", "step", "on_bad_file", "compression", "omega_name"):
        del chosen["frames"][name]
    given = {name: digest(getattr(images, name)) for name in ("bad_pixels", "dark_image", "sensitivity")}
    return {"source": source, **chosen, **given, "dark_frames": images.dark_frames, "version": cathodeflow.__version__}


def _energy(series: FrameSeries, place: DetectorGeometry, given: float | None) -> float:
    """Find the photon energy [keV]: as given, else that of the geometry, else that of the first file."""
    if given is not None and not 0 < given < np.inf:
        raise InputError("--energy-kev", f"{given:g}", "more than 0")
    if (energy := given or place.energy_kev) is not None:
        return energy
    first = series.files[0]
    with beside_writers():
        found = series_conditions(series._replace(files=(first,), n_frames=first.n_frames)).energy_kev
    known = found[np.isfinite(found)]
    if not len(known):
        raise InputError(place.where, "no photon energy, nor in the raw files", "--energy-kev")
    return float(known[0])


def _reference(path: str | None, place: DetectorGeometry, energy: float) -> Spots | None:
    """Read the spots that the strain refers to."""
    if path is None:
        return None
    if path.lower().endswith(".parquet"):
        table = read_table(path, required=["d", "d_err"])
        good = table["good"].to_numpy(bool) if "good" in table else np.ones(len(table), bool)
        usable = good & np.isfinite(table["d"]) & (table["d_err"] > 0)
        return Spots(*(table.loc[usable, name].to_numpy(np.float64) for name in ("d", "d_err")))
    peaks = read_peaks(path, ["detector_row", "detector_col", "row_err", "col_err", "good"])
    good = peaks["good"] != 0
    # Errors are in the pixels of the frames, positions in those of the detector.
    binning = _binning(peaks["peak_row"][good], peaks["detector_row"][good])
    errors = [binning * peaks[name][good] for name in ("row_err", "col_err")]
    positions = [peaks[name][good] for name in ("detector_row", "detector_col")]
    return spots_of(place, peaks["peak_fidx"][good], *positions, *errors, energy_kev=energy)


def _binning(frame: NDArray[np.floating], detector: NDArray[np.floating]) -> float:
    return float(np.round(np.median((detector + 0.5) / (frame + 0.5)))) if len(frame) else 1.0


def _nothing_yet(options: Watch) -> dict[str, Any]:
    """Return what the page shows before the first frame."""
    return {
        "frames": 0,
        "expected": options.expected,
        "frames_per_s": 0.0,
        "lag": None,
        "peaks": 0,
        "status": "waiting for the first frame",
        "series": {"frame": [], "peaks": [], "good": []},
        "last": None,
        "rings": [],
        "notes": [],
    }
