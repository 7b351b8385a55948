"""Columns of peaks and spots as other programs have them: ImageD11, hexrd, NeXus."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.bragg.peak_information import information_of
from cathodeflow.bragg.scattering import scattering
from cathodeflow.io.detector_geometry import DetectorGeometry

Columns = dict[str, NDArray[np.float64]]

#: Columns of `common_columns`; NaN where a value is not known.
COMMON = (
    "number", "row", "col", "row_err", "col_err", "fwhm_row", "fwhm_col", "intensity", "intensity_err", "height",
    "first_frame", "last_frame", "omega", "omega_err", "two_theta", "azimuth", "q", "d", "two_theta_err", "d_err",
)  # fmt: skip
#: Columns of peaks that have them from the fit.
FITTED = (
    "amplitude", "amplitude_err", "background", "fwhm_row", "fwhm_col", "mixing", "chi2", "row_err", "col_err",
)  # fmt: skip
#: Columns of hexrd's tables of spots, in their order.
HEXRD = (
    "ID", "PID", "H", "K", "L", "sum(int)", "max(int)", "pred tth", "pred eta", "pred ome",
    "meas tth", "meas eta", "meas ome", "pred X", "pred Y", "meas X", "meas Y",
)  # fmt: skip
#: Units of NeXus by column; others are numbers.
UNITS = {
    **dict.fromkeys(("row", "col", "row_err", "col_err", "fwhm_row", "fwhm_col"), "pixel"),
    **dict.fromkeys(("intensity", "intensity_err", "height"), "counts"),
    **dict.fromkeys(("omega", "omega_err", "two_theta", "two_theta_err", "azimuth"), "degree"),
    "q": "1/angstrom",
    "d": "angstrom",
    "d_err": "angstrom",
}
# Standard deviation of a Gaussian, as a fraction of its full width at half maximum.
_SIGMA = 1 / np.sqrt(8 * np.log(2))


def peaks_in_common(peaks: pd.DataFrame, binning: int, omega: NDArray[np.float64] | None) -> pd.DataFrame:
    """Return fitted peaks in the columns `COMMON`.

    Parameters
    ----------
    peaks : DataFrame
        `frame`, `number`, `detector_row`, `detector_col` [detector px], `row`, `col` and `FITTED` in frame pixels.
    binning : int
        Binning of the frames.
    omega : (frame,) float64, optional
        Angle of the sample in each frame [deg].
    """
    information = information_of(peaks)
    frame = peaks["frame"].to_numpy(np.int64)
    angle = np.full(len(peaks), np.nan) if omega is None else omega[frame]
    table = pd.DataFrame({"number": peaks["number"], "first_frame": frame, "last_frame": frame, "omega": angle})
    for axis in ("row", "col"):
        table[axis] = peaks[f"detector_{axis}"].to_numpy(np.float64)
        for name in (f"{axis}_err", f"fwhm_{axis}"):
            table[name] = binning * peaks[name].to_numpy(np.float64)
    table["intensity"], table["intensity_err"] = information.counts, np.sqrt(information.counts_var)
    table["height"] = peaks["amplitude"].to_numpy(np.float64)
    return table.reindex(columns=[*COMMON])


def spots_in_common(spots: pd.DataFrame) -> pd.DataFrame:
    """Return spots (spots.parquet) in the columns `COMMON`."""
    return spots.rename(columns={"spot": "number"}).reindex(columns=[*COMMON])


def with_angles(
    table: pd.DataFrame, geometry: DetectorGeometry, energy_kev: NDArray[np.float64] | None
) -> pd.DataFrame:
    """Return the table with `two_theta`, `azimuth`, `q` and `d` by a geometry."""
    errors = {f"{axis}_err": table[f"{axis}_err"].to_numpy(np.float64) for axis in ("row", "col")}
    found = scattering(geometry, table["row"], table["col"], **errors, energy_kev=energy_kev)
    return table.assign(**{name: getattr(found, name) for name in COMMON if name in found._fields})


def imaged11_columns(table: pd.DataFrame, n_frames: int | None) -> Columns:
    """Return the columns of an ImageD11 columnfile, as far as they are known.

    In ImageD11 s (slow) is the row and f (fast) the column, with pixel centres at integers as here. Positions are not
    corrected for distortion, so `sc`, `fc` and `s_raw`, `f_raw` are the same. `Number_of_pixels` is the area of the
    ellipse, with one full width as semi-axes, in which `sum_intensity` is counted, times the number of frames.

    Parameters
    ----------
    table : DataFrame
        Columns `COMMON`.
    n_frames : int, optional
        Number of frames of the scan, for `onfirst` and `onlast`, which are left out without it.
    """
    frames = table["last_frame"] - table["first_frame"] + 1
    pixels = np.maximum(np.rint(np.pi * table["fwhm_row"] * table["fwhm_col"]), 1) * frames
    columns = {
        "sc": table["row"], "fc": table["col"], "omega": table["omega"], "Number_of_pixels": pixels,
        "avg_intensity": table["intensity"] / pixels, "s_raw": table["row"], "f_raw": table["col"],
        "sigs": _SIGMA * table["fwhm_row"], "sigf": _SIGMA * table["fwhm_col"], "sum_intensity": table["intensity"],
    }  # fmt: skip
    if n_frames is not None:
        columns |= {"onfirst": table["first_frame"] == 0, "onlast": table["last_frame"] == n_frames - 1}
    columns |= {"spot3d_id": table["number"], "sc_err": table["row_err"], "fc_err": table["col_err"]}
    columns |= {"omega_err": table["omega_err"], "sum_intensity_err": table["intensity_err"]}
    return {name: np.asarray(values, np.float64) for name, values in columns.items()}


def hexrd_columns(table: pd.DataFrame, geometry: DetectorGeometry, shape: tuple[int, int]) -> Columns:
    """Return the columns of hexrd's table of spots: angles in radians, positions on the panel in mm.

    X points to the right and Y up, from the centre of the panel. Indices and predicted values are not known: NaN.

    Parameters
    ----------
    table : DataFrame
        Columns `COMMON`, with angles.
    geometry : DetectorGeometry
    shape : (int, int)
        (row, col) of the detector [px].
    """
    columns = {name: np.full(len(table), np.nan) for name in HEXRD}
    columns |= {"ID": np.arange(len(table), dtype=np.float64), "PID": table["number"].to_numpy(np.float64)}
    columns |= {"sum(int)": table["intensity"].to_numpy(np.float64), "max(int)": table["height"].to_numpy(np.float64)}
    for name, angle in (("tth", "two_theta"), ("eta", "azimuth"), ("ome", "omega")):
        columns[f"meas {name}"] = np.deg2rad(table[angle].to_numpy(np.float64))
    pixel_row, pixel_col = (1000 * np.linalg.norm(step) for step in (geometry.row_step, geometry.col_step))
    columns["meas X"] = (table["col"].to_numpy(np.float64) - (shape[1] - 1) / 2) * pixel_col
    columns["meas Y"] = ((shape[0] - 1) / 2 - table["row"].to_numpy(np.float64)) * pixel_row
    return columns


def nexus_columns(table: pd.DataFrame) -> Columns:
    """Return the columns with at least one known value, under the names of the tables here."""
    found = {name: table[name].to_numpy(np.float64) for name in COMMON}
    return {name: values for name, values in found.items() if np.isfinite(values).any() or name in ("row", "col")}
