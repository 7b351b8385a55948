"""Stage: convert raw frames of a rocking scan to diffraction amplitudes."""

import logging
import re

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bcdi.beamlines import DEFAULT, read_beamline
from cathodeflow.bcdi.preparation import prepare_scan, step_metrics
from cathodeflow.bcdi.preparation_options import Prepare
from cathodeflow.bcdi.rocking_positions import even_scan
from cathodeflow.bcdi.scan_geometry import recorded
from cathodeflow.bcdi.scans import scan_log
from cathodeflow.errors import InputError
from cathodeflow.io.correction_images import correction_source, read_mean
from cathodeflow.io.frames import open_series, read_frames
from cathodeflow.io.invalid_pixels import bad_values
from cathodeflow.io.phasing import Pattern, write_pattern
from cathodeflow.io.rocking_scans import read_instrument, read_scan
from cathodeflow.io.scan_logs import ScanLog
from cathodeflow.io.sources import split_source
from cathodeflow.io.text import read_yaml
from cathodeflow.stage import InputFile, Metrics, OutputFile, Source, stage

# Datasets whose values other than 0 are bad pixels, by the definitions of NeXus and CXI.
_BAD_BY_NAME = re.compile(r"(.*/)?(pixel_mask|(detector|data|image)_\d+/mask)")

log = logging.getLogger("cathodeflow.bcdi")


@stage("bcdi.prepare")
def prepare(
    raw: Source,
    *,
    out: OutputFile,
    dark: Source | None = None,
    whitefield: Source | None = None,
    mask: Source | None = None,
    spec: InputFile | None = None,
    scan: int | None = None,
    geometry: InputFile | None = None,
    options: Prepare,
) -> Metrics:
    """Convert the raw frames RAW of a rocking scan to centred, binned diffraction amplitudes.

    Parameters
    ----------
    raw : path
        Raw frames: a folder, a glob pattern or a file. Pixels that the file marks as bad, or that hold a mark of the
        detector instead of a count, are masked.
    out : path
        File of the diffraction amplitudes to write (prepared.h5).
    dark : path
        Dark frame, or several that are averaged.
    whitefield : path
        Flat field (image under uniform illumination), or several that are averaged.
    mask : path
        Mask that is 0 at pixels to exclude, unless `invert_mask` is set: one image, or one for each frame. `pixel_mask`
        of a NeXus file and `mask` of a CXI file are 0 at good pixels, as these formats say.
    spec : path
        File with the motors of the scan (SPEC, fio, or HDF5 and NeXus), for the true position of each frame; of 34-ID-C
        also for the region of the detector that the frames show.
    scan : int
        Number of the scan in this file, and in that of the frames if it has several.
    geometry : path
        YAML or JSON file with the geometry, of which only the beamline is used.

    Raises
    ------
    InputError
        A file cannot be used, a correction is of another size than the frames, or there is no diffraction peak.
    """
    region, log_of_scan = None, scan_log(spec, scan)
    if options.region is not None:
        region = slice(*options.region[:2]), slice(*options.region[2:])
    elif log_of_scan is not None:
        region = log_of_scan.region
    sources = {"dark": dark, "whitefield": whitefield, "mask": mask}
    counts = read_scan(raw, number=scan)
    positions = None if log_of_scan is None else _positions(log_of_scan, geometry, len(counts))
    dark_image, whitefield_image = (read_mean(source).image if source else None for source in (dark, whitefield))
    try:
        made = prepare_scan(
            counts,
            options,
            dark_frame=dark_image,
            whitefield=whitefield_image,
            mask=_good_pixels(mask, options) if mask else None,
            detector_region=region,
            positions=positions,
        )
    except InputError as error:
        # What the numeric module calls `dark` is a file here.
        raise InputError(sources.get(error.where) or f"{raw}: {error.where}", error.found, error.expected) from None
    made.steps.append({"step": "instrument", **read_instrument(raw)})
    binning = next(step["binning"] for step in made.steps if "binning" in step)
    write_pattern(out, Pattern(made.amplitude, made.mask, tuple(binning)), steps=made.steps)
    for step in made.steps:
        name = step["step"]
        numbers = (f"{key.removeprefix(f'{name}_')} {value:g}" for key, value in step_metrics([step]).items())
        log.info("%s: %s", name, ", ".join(numbers))
        if "warning" in step:
            log.warning("%s: %s", raw, step["warning"])
    return Metrics(step_metrics(made.steps))


def _positions(log_of_scan: ScanLog, geometry: str | None, n_frames: int) -> NDArray[np.float64] | None:
    """Place of each frame on even positions; None where they are even, or no motor of the beamline moved."""
    given = read_yaml(geometry) if geometry else {}
    beamline = read_beamline(str(given.get("beamline", DEFAULT)))
    found = recorded(log_of_scan, beamline, n_frames=n_frames, axis=given.get("rocking_axis")).scan
    if found is None and log_of_scan.n_points and log_of_scan.columns:
        # The first column of a table is the motor that was scanned.
        first, values = next(iter(log_of_scan.columns.items()))
        found = even_scan(log_of_scan.where, {first: values}) if np.ptp(values) > 0 else None
    return None if found is None else found.at


def _good_pixels(source: str, options: Prepare) -> NDArray[np.bool_]:
    """Read a mask: an image (row, col), or one for each frame (frame, row, col); True at good pixels."""
    source = correction_source(source, mask=True)
    series = open_series(source)
    one = series.n_frames == 1
    values = next(frame for _, frame in read_frames(series)) if one else read_scan(source, counts=False)
    if _BAD_BY_NAME.fullmatch(split_source(source)[1] or ""):
        return ~bad_values(values.astype(np.uint32))
    return np.asarray((values == 0) if options.invert_mask else (values != 0))
