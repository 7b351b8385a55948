"""Spots of a rocking scan: position, angle, intensity and widths from the peaks of their frames."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import chdtri

from cathodeflow.bragg.peak_information import COLUMNS as INFORMATION_COLUMNS
from cathodeflow.bragg.peak_information import Information
from cathodeflow.bragg.rocking_curves import curves_of_spots

Floats = NDArray[np.float64]

#: Columns of the peaks that `spots_of` needs.
PEAK_COLUMNS = ("frame", "row_err", "col_err", "fwhm_row_err", "fwhm_col_err", "good", *INFORMATION_COLUMNS)
# Positions that scatter so much more than their errors, by chance in one of 10,000 spots, are not of one peak.
_CHANCE = 1e-4
# Standard deviation of the reduced chi-square of patches of 11 x 11 pixels.
_CHI2_NOISE = 0.13
# Degrees of freedom with the expected scatter that are added to those of the frames.
_USUAL = 6.0
# What is said of intensity that the fits lack is wrong by this fraction of it (standard deviation); like the next one
# chosen on the simulated series of docs/bragg.md.
_UNCERTAIN = 0.2
# Frames that are not good have an unresolved neighbour, which is in the other frames too: standard deviation of its
# pull in widths of the spot, times the fraction of such frames.
_UNRESOLVED = 0.012
# The response to a misfit is linear up to this fraction of the width.
_LINEAR = 0.12
# Spots whose width is so many standard deviations above the others', with at least this deviation of the logarithm, are
# two in one.
_WIDE, _NARROWEST_SPREAD = 3.0, 0.1
# Standard error of the centre of a spot of one frame [frames].
_ONE_FRAME = 0.5


class Means(NamedTuple):
    """Weighted means over the peaks of each spot, (n_spots,) float64 each, and their scatter.

    `chi2` is the sum of the squared deviations from the mean, in units of the errors of single peaks.
    """

    value: Floats
    error: Floats
    chi2: Floats


def weighted_means(value: Floats, error: Floats, spot: NDArray[np.int64], n_spots: int) -> Means:
    """Average values of each spot by inverse variance.

    Parameters
    ----------
    value, error : (n,) float64
        Values with errors that are not finite are left out.
    spot : (n,) int64
    n_spots : int
    """
    weight = np.where(np.isfinite(value) & np.isfinite(error) & (error > 0), 1.0 / np.maximum(error, 1e-12) ** 2, 0.0)
    known = np.where(weight > 0, value, 0.0)
    total = np.bincount(spot, weight, n_spots)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.bincount(spot, weight * known, n_spots) / total
        standard = np.sqrt(1.0 / total)
    scatter = np.bincount(spot, weight * (known - np.nan_to_num(mean)[spot]) ** 2, n_spots)
    return Means(mean, np.where(total > 0, standard, np.nan), scatter.astype(np.float64))


def common_variance(excess: Floats, error: Floats, spot: NDArray[np.int64], n_spots: int) -> Floats:
    """Estimate the variance of a position due to what all frames of a spot have in common and the model lacks [px^2].

    A misfit that points in no special direction in the space of the pixels, such as that of faint neighbours, shifts a
    parameter by its standard error times the root of the excess of chi-square: excess = common variance / error^2,
    which is fitted to the frames of each spot.

    Parameters
    ----------
    excess : (n,) float64
        Reduced chi-square of the peaks beyond the expected one.
    error : (n,) float64
        Standard error of the position [px]; peaks without one are left out.
    spot : (n,) int64
    n_spots : int
    """
    use = np.isfinite(excess) & np.isfinite(error) & (error > 0)
    inverse = np.where(use, 1.0 / np.maximum(error, 1e-12) ** 2, 0.0)
    squares = np.bincount(spot, inverse**2, n_spots)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.bincount(spot, np.where(use, excess, 0.0) * inverse, n_spots) / squares
        # Cut off at 0, noise would give half of the spots a common part.
        noise = 0.5 * _CHI2_NOISE / np.sqrt(squares)
    return np.maximum(np.nan_to_num(slope - noise), 0.0)


def spots_of(
    peaks: pd.DataFrame,
    spot: NDArray[np.int64],
    omega: Floats,
    information: Information,
    *,
    misfit: float = 0.0,
    min_frames: int,
) -> pd.DataFrame:
    """Combine the peaks of each spot.

    Positions are averaged by inverse variance of their errors, which are independent in the frames. What the frames
    have in common does not average out and is added: the response of the position to a misfit of the pixels relative to
    their counts, and that to what else raises chi-square (`common_variance`). The shift by what the fits lack is
    subtracted, and a fraction of it added to the error, as is the pull of unresolved neighbours where frames are not
    good. Where the positions of the frames scatter more than their errors say, the error of their mean is increased;
    the scatter of few frames counts less, as if six more had the expected one.

    Parameters
    ----------
    peaks : DataFrame
        `PEAK_COLUMNS`, in pixels of the frames.
    spot : (n,) int64
        Spot of each peak, from `spot_joining.join_peaks`.
    omega : (n_frames,) float64
        Angle of the sample of each frame [deg]; NaN where it is not known.
    information : Information
        Of the peaks.
    misfit : float
        Standard deviation of the counts of a pixel relative to these (`peak_information.misfit_of`).
    min_frames : int
        Spots with peaks in fewer frames are left out.

    Returns
    -------
    DataFrame
        A row per spot with at least one good peak. Positions and widths come from the good peaks alone, centre in angle
        and intensity from all.
    """
    n_spots = int(spot.max(initial=-1)) + 1
    frame = peaks["frame"].to_numpy(np.int64)
    good = peaks["good"].to_numpy(bool)
    n_peaks, n_good = np.bincount(spot, minlength=n_spots), np.bincount(spot, good, n_spots).astype(np.int64)
    counts, variance = information.counts, information.counts_var
    first, last = np.full(n_spots, np.iinfo(np.int64).max), np.full(n_spots, -1, np.int64)
    np.minimum.at(first, spot, frame)
    np.maximum.at(last, spot, frame)
    table = {"first_frame": first, "last_frame": last, "n_frames": n_peaks, "n_good": n_good}
    chi2, degrees = np.zeros(n_spots), 2 * np.maximum(n_good - 1, 0)
    unresolved, moved2 = _UNRESOLVED * (1 - n_good / n_peaks), np.zeros(n_spots)
    excess = peaks["chi2"].to_numpy(np.float64) - 1 - misfit**2 * information.expected
    for axis in ("row", "col"):
        error = np.where(good, peaks[f"{axis}_err"].to_numpy(np.float64), np.nan)
        shift = getattr(information, f"{axis}_shift")
        mean = weighted_means(peaks[axis].to_numpy(np.float64) - shift, error, spot, n_spots)
        moved = weighted_means(shift, error, spot, n_spots).value
        width_err = np.where(good, peaks[f"fwhm_{axis}_err"].to_numpy(np.float64), np.nan)
        width = weighted_means(peaks[f"fwhm_{axis}"].to_numpy(np.float64), width_err, spot, n_spots).value
        response = weighted_means(getattr(information, f"{axis}_response"), error, spot, n_spots).value
        common = common_variance(excess, error, spot, n_spots) + misfit**2 * response
        common += (_UNCERTAIN * moved) ** 2 + (unresolved * width) ** 2
        table |= {axis: mean.value, f"{axis}_err": mean.error, f"{axis}_common": common, f"fwhm_{axis}": width}
        chi2 += mean.chi2
        moved2 += (moved / width) ** 2
    scatter = (chi2 + _USUAL) / (degrees + _USUAL)
    for axis in ("row", "col"):
        table[f"{axis}_err"] = np.sqrt(table[f"{axis}_err"] ** 2 * scatter + table.pop(f"{axis}_common"))
    table |= _rocking(frame, counts, variance, spot, n_spots)
    table["cut"] = _cut(frame, counts, spot, first, last, len(omega))
    table |= _angles(table["frame"], table["frame_err"], omega)
    one_place = chi2 <= np.where(degrees > 0, chdtri(np.maximum(degrees, 1), _CHANCE), np.inf)
    one_peak = ~_too_wide(np.maximum(table["fwhm_row"], table["fwhm_col"]))
    found = pd.DataFrame(table).assign(good=one_place & one_peak & (moved2 < _LINEAR**2))
    found = found[(n_peaks >= min_frames) & (n_good > 0)].reset_index(drop=True)
    return found.assign(spot=np.arange(len(found)))


def _too_wide(width: Floats) -> NDArray[np.bool_]:
    """Tell which widths lie far above the others."""
    with np.errstate(divide="ignore", invalid="ignore"):
        size = np.log(width)
    if not np.isfinite(size).any():
        return np.zeros(len(width), bool)
    middle = np.nanmedian(size)
    spread = max(1.4826 * float(np.nanmedian(np.abs(size - middle))), _NARROWEST_SPREAD)
    return np.asarray(size > middle + _WIDE * spread)


def _rocking(
    frame: NDArray[np.int64], counts: Floats, variance: Floats, spot: NDArray[np.int64], n_spots: int
) -> dict[str, Floats]:
    """Return centre [frames], width and integrated intensity of each spot: of the fitted curve, else of the sums."""
    curves = curves_of_spots(frame, counts, variance, spot, n_spots)
    total = np.bincount(spot, counts, n_spots)
    mean = np.bincount(spot, counts * frame, n_spots) / np.maximum(total, 1e-300)
    slope = (frame - mean[spot]) / np.maximum(total, 1e-300)[spot]
    error = np.sqrt(np.bincount(spot, slope**2 * variance, n_spots))
    # A centroid of few frames is no better than the steps of the scan allow.
    few = _ONE_FRAME / np.maximum(np.bincount(spot, minlength=n_spots), 1)
    of_sums = {
        "frame": mean,
        "frame_err": np.hypot(error, few),
        "fwhm_frames": np.full(n_spots, np.nan),
        "intensity": total,
        "intensity_err": np.sqrt(np.bincount(spot, variance, n_spots)),
    }
    fitted = [curves.centre, curves.centre_err, curves.fwhm, curves.intensity, curves.intensity_err]
    pairs = zip(of_sums.items(), fitted, strict=True)
    return {name: np.where(curves.converged, value, fallback) for (name, fallback), value in pairs}


def _cut(
    frame: NDArray[np.int64],
    counts: Floats,
    spot: NDArray[np.int64],
    first: NDArray[np.int64],
    last: NDArray[np.int64],
    n_frames: int,
) -> NDArray[np.bool_]:
    """Return which spots have their highest intensity in the first or last frame of the scan, so it may lie outside."""
    order = np.lexsort((-counts, spot))
    at = np.searchsorted(spot[order], np.arange(len(first)))
    summit = frame[order[at]] if len(first) else first
    return ((first == 0) & (summit == 0)) | ((last == n_frames - 1) & (summit == n_frames - 1))


def _angles(frame: Floats, frame_err: Floats, omega: Floats) -> dict[str, Floats]:
    """Return angle and error [deg] at fractional frames, by linear interpolation and beyond the ends of the scan."""
    if len(omega) < 2:
        return {
            "omega": np.full(len(frame), omega[0] if len(omega) else np.nan),
            "omega_err": np.full(len(frame), np.nan),
        }
    left = np.clip(np.floor(frame).astype(np.int64), 0, len(omega) - 2)
    step = omega[left + 1] - omega[left]
    return {"omega": omega[left] + (frame - left) * step, "omega_err": frame_err * np.abs(step)}
