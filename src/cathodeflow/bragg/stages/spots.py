"""Stage: join the peaks of neighbouring frames into the spots of a rocking scan."""

import logging

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from cathodeflow.bragg.binning import to_detector
from cathodeflow.bragg.peak_information import information_of, misfit_of
from cathodeflow.bragg.scattering import scattering
from cathodeflow.bragg.series_options import Spots
from cathodeflow.bragg.spot_joining import join_peaks
from cathodeflow.bragg.spot_table import PEAK_COLUMNS, spots_of
from cathodeflow.bragg.surroundings import Sources, lacking_of, model_of_frame, sources_of
from cathodeflow.errors import InputError
from cathodeflow.io.frames_file import FramesFile, read_frames_file
from cathodeflow.io.geometry_files import read_detector_geometry
from cathodeflow.io.peaks import read_peaks
from cathodeflow.io.tables import write_table
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage
from cathodeflow.statistics import median

log = logging.getLogger("cathodeflow.bragg")

# Lengths in pixels of the frames.
_LENGTHS = ("row_err", "col_err", "fwhm_row", "fwhm_col")
# Frames of the background that is the same in all, at most, and their memory [bytes]; with fewer it is not known.
_MOST, _MEMORY, _LEAST = 96, 2**28, 16
# Smoothing of this background [px].
_SMOOTHING = 2.0
_SCATTERING = ("two_theta", "azimuth", "q", "d")
#: Columns of the table, in their order.
COLUMNS = (
    "spot", "frame", "first_frame", "last_frame", "n_frames", "n_good", "omega", "omega_err", "row", "col", "row_err",
    "col_err", "fwhm_row", "fwhm_col", "fwhm_frames", "intensity", "intensity_err",
    *(f"{name}{suffix}" for name in _SCATTERING for suffix in ("", "_err")), "cut", "good",
)  # fmt: skip


@stage("bragg.spots")
def spots(
    frames: InputFile,
    peaks: InputFile,
    *,
    out: OutputFile,
    geometry: InputFile | None = None,
    detector: str | None = None,
    options: Spots,
) -> Metrics:
    """Join the fitted PEAKS of neighbouring FRAMES into spots in row, column and angle of the sample.

    Parameters
    ----------
    frames : path
        Frames file (frames.h5) with the angle of every frame, if it is known.
    peaks : path
        Fitted peaks (peaks.h5).
    out : path
        Table to write (Parquet): a row per spot.
    geometry : path
        Geometry of the detector, for scattering angles and lattice spacings: a PONI file (pyFAI), an instrument of
        hexrd (YAML), or a NeXus file.
    detector : str
        Name of the detector in the geometry file. Default: the only one that the file describes.
    """
    with read_frames_file(frames) as file:
        n_frames, binning, shape = len(file.frames), file.binning, file.raw_shape
        omega, energies = file.omega, file.energy_kev
        table = _read(peaks, n_frames)
        spot = join_peaks(table, options)
        sources = sources_of(table, spot, n_frames)
        background = static_background(file, sources)
        lacking = lacking_of(table, sources, file.mask.shape, background)
    angles = np.full(n_frames, np.nan) if omega is None else omega
    information = information_of(table, lacking)
    misfit = misfit_of(table, information)
    found = spots_of(table, spot, angles, information, misfit=misfit, min_frames=options.min_frames)
    found[[*_LENGTHS]] *= binning
    found = found.assign(**{axis: to_detector(found[axis].to_numpy(), binning) for axis in ("row", "col")})
    columns = {f"{name}{suffix}": np.full(len(found), np.nan) for name in _SCATTERING for suffix in ("", "_err")}
    if geometry:
        place = read_detector_geometry(geometry, detector=detector, shape=shape)
        energy = np.full(n_frames, np.nan) if energies is None else energies
        nearest = np.clip(np.rint(found["frame"]).astype(np.int64), 0, n_frames - 1)
        known = np.where(np.isfinite(energy), energy, np.nan if place.energy_kev is None else place.energy_kev)[nearest]
        errors = {name: found[name] for name in ("row_err", "col_err")}
        columns = scattering(place, found["row"], found["col"], **errors, energy_kev=known)._asdict()
        if outside := int(np.isnan(columns["two_theta"]).sum()):
            log.warning("%d of %d spots lie on no module of the detector: their angles are empty", outside, len(found))
    found = found.assign(**columns)[[*COLUMNS]]
    write_table(out, found)
    fitted = found["fwhm_frames"].notna()
    log.info("%d spots of %d peaks, %d with a fitted rocking curve", len(found), len(table), fitted.sum())
    return Metrics(
        {
            "peaks": len(table),
            "spots": len(found),
            "good": int(found["good"].sum()),
            "misfit": misfit,
            "cut": int(found["cut"].sum()),
            "rocking_curves": int(fitted.sum()),
            "median_frames": median(found["n_frames"]),
            "median_row_err": median(found["row_err"]),
            "median_col_err": median(found["col_err"]),
            "median_omega_err": median(found["omega_err"].dropna()),
            "median_fwhm_frames": median(found["fwhm_frames"].dropna()),
        }
    )


def static_background(file: FramesFile, sources: Sources) -> NDArray[np.float64] | None:
    """Return the background that all frames have in common, (row, col) [counts]: smoothed mean without the spots.

    Powder rings and diffuse scattering stay while the sample turns. The spots are subtracted, since on the rings their
    tails are in most of the frames, and pixels in which they exceed the background are left out.

    Parameters
    ----------
    file : FramesFile
    sources : Sources
        Spots of the scan.

    Returns
    -------
    (row, col) float64
        NaN at bad pixels; None if the scan has too few frames.
    """
    number = min(_MOST, max(_MEMORY // (4 * file.mask.size), _LEAST), len(file.frames))
    if number < _LEAST:
        return None
    chosen = np.unique(np.linspace(0, len(file.frames) - 1, number).round().astype(int))
    frames = np.stack([file.frames[int(index)] for index in chosen])
    level = np.median(frames, axis=0)
    noise = np.sqrt(np.maximum(level, 1.0))
    total, weight = np.zeros(level.shape), np.zeros(level.shape)
    for frame, index in zip(frames, chosen, strict=True):
        model = model_of_frame(sources, int(index), file.mask.shape)
        # Chosen by the model and, against spots that were not found, by a limit that noise hardly reaches.
        use = (model < 0.5 * np.maximum(level, 1.0)) & (frame - level < 5 * noise) & ~file.mask
        total += np.where(use, frame - model, 0.0)
        weight += use
    smooth = gaussian_filter(total, _SMOOTHING) / np.maximum(gaussian_filter(weight, _SMOOTHING), 1e-6)
    return np.where(file.mask, np.nan, smooth)


def _read(path: str, n_frames: int) -> pd.DataFrame:
    """Read the peaks with a converged fit, in pixels of the frames, in the order of the frames."""
    names = [name for name in PEAK_COLUMNS if name not in ("frame", "row", "col")]
    stored = read_peaks(path, [*names, "converged"])
    frame = stored["peak_fidx"].astype(np.int64)
    if len(frame) and frame.max() >= n_frames:
        raise InputError(path, f"peaks of frame {frame.max()}", f"peaks of {n_frames} frames")
    table = pd.DataFrame({"frame": frame, "row": stored["peak_row"], "col": stored["peak_col"]}).astype(
        {"row": np.float64, "col": np.float64}
    )
    table = table.assign(**{name: stored[name] for name in names})
    errors = ["row_err", "col_err", "amplitude_err", "fwhm_row_err", "fwhm_col_err"]
    use = (stored["converged"] != 0) & np.isfinite(table[errors]).all(axis=1)
    return table[use].sort_values("frame", kind="stable", ignore_index=True)
