"""Fits and flags of the candidates of a scan, frame by frame, and the table that they make."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.binning import to_detector
from cathodeflow.bragg.corrections import extra_variance
from cathodeflow.bragg.flags import FLAGS, flag_peaks, is_good
from cathodeflow.bragg.peak_fits import PeakFits, deviations, fit_frame, fit_peaks
from cathodeflow.bragg.peak_options import Fit
from cathodeflow.statistics import median


def pixel_variance(
    dark: NDArray[np.floating] | None, dark_frames: int, binning: int, options: Fit
) -> NDArray[np.float64]:
    """Return the variance of the pixels that `fit_frame` needs: that of read-out and dark image [counts^2].

    Parameters
    ----------
    dark : (row, col) floating, optional
        Dark image that was subtracted, summed over binned pixels [counts].
    dark_frames : int
        Number of frames of which it is the mean.
    binning : int
        Side of the binned blocks [px].
    options : Fit
    """
    dark_gain = options.gain if options.dark_noise == "poisson" else 0.0
    return extra_variance(dark, dark_frames, binning=binning, read_noise=options.read_noise, dark_gain=dark_gain)


class FrameFits(NamedTuple):
    """Fits of the candidates of one frame, and their flags by name, (n,) bool each."""

    fits: PeakFits
    flags: dict[str, NDArray[np.bool_]]

    @property
    def good(self) -> NDArray[np.bool_]:
        """(n,) bool: converged and without a flag."""
        return is_good(self.fits, self.flags)


def fit_and_flag(
    frame: NDArray[np.floating],
    rows: NDArray[np.integer],
    cols: NDArray[np.integer],
    options: Fit,
    *,
    mask: NDArray[np.bool_],
    saturated: NDArray[np.bool_],
    variance: NDArray[np.float64],
) -> FrameFits:
    """Fit and flag the candidates of one frame; parameters as for `fit_frame`."""
    fits = fit_frame(frame, rows, cols, options, mask=mask, saturated=saturated, variance=variance)
    return FrameFits(fits, flag_peaks(fits, rows, cols, options, mask=mask, saturated=saturated))


class FittedPeaks:
    """Fits of the candidates, added frame by frame in the order of the table of candidates."""

    def __init__(self, options: Fit) -> None:
        self._options = options
        self._fits: list[PeakFits] = []
        self._flags: list[dict[str, NDArray[np.bool_]]] = []
        self._counts = (0, 0, 0)

    def add(
        self,
        frame: NDArray[np.floating],
        rows: NDArray[np.integer],
        cols: NDArray[np.integer],
        *,
        mask: NDArray[np.bool_],
        saturated: NDArray[np.bool_],
        variance: NDArray[np.float64],
    ) -> int:
        """Fit and flag the candidates of one frame, and return how many converge; parameters as for `fit_frame`."""
        found = fit_and_flag(frame, rows, cols, self._options, mask=mask, saturated=saturated, variance=variance)
        self.append(found)
        return int(np.count_nonzero(found.fits.converged))

    def append(self, found: FrameFits) -> None:
        """Add fits that were made before."""
        self._fits.append(found.fits)
        self._flags.append(found.flags)

    def table(
        self, candidates: Mapping[str, NDArray[Any]], binning: int
    ) -> tuple[dict[str, Any], dict[str, float | int | None]]:
        """Return the arguments of `io.peaks.write_peaks` but the path, and the figures of merit.

        Parameters
        ----------
        candidates : mapping of str to (n,) array
            `candidate_table.COLUMNS` of all peaks that were added.
        binning : int
            Side of the binned blocks [px].
        """
        # An empty patch stands for no peak at all, so that the columns keep their types.
        size = self._options.patch_size
        parts = [*self._fits, fit_peaks(np.empty((0, size, size)), self._options)]
        flagged = [*self._flags, {name: np.zeros(0, bool) for name in FLAGS}]
        fits = PeakFits(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in PeakFits._fields})
        flags = {name: np.concatenate([part[name] for part in flagged]) for name in FLAGS}
        good = is_good(fits, flags)
        rows, cols, npeaks = candidates["row"], candidates["col"], candidates["npeaks"]
        away = deviations(fits, rows, cols, npeaks)
        # A peak without a fit keeps the position of its pixel and is marked by an infinite deviation.
        row = np.where(np.isfinite(fits.row), fits.row, rows)
        col = np.where(np.isfinite(fits.col), fits.col, cols)
        columns = {name: values for name, values in fits._asdict().items() if name not in ("row", "col")}
        columns |= {"detector_row": to_detector(row, binning), "detector_col": to_detector(col, binning)}
        columns |= {name: candidates[name] for name in ("persistence", "central")}
        columns |= {"candidate": np.arange(len(rows), dtype=np.uint32), **flags, "good": good}
        self._counts = len(rows), int(np.count_nonzero(fits.converged)), int(np.count_nonzero(good))
        written = {
            "fidx": candidates["frame"],
            "row": row,
            "col": col,
            "deviations": away,
            "npeaks": npeaks,
            "columns": columns,
            "attributes": {"model": self._options.model, "binning": binning},
        }
        return written, {
            "peaks": len(rows),
            "share_converged": float(fits.converged.mean()) if len(rows) else None,
            "share_good": float(good.mean()) if len(rows) else None,
            **{name: int(np.count_nonzero(values)) for name, values in flags.items()},
            "median_row_err": median(fits.row_err[good]),
            "median_col_err": median(fits.col_err[good]),
            "median_fwhm_row": median(fits.fwhm_row[good]),
            "median_fwhm_col": median(fits.fwhm_col[good]),
            "median_chi2": median(fits.chi2[good]),
            "for_training": int((good & (away >= 0) & (away < 1)).sum()),
        }

    def counts(self) -> tuple[int, int, int]:
        """Return the numbers of peaks, of converged ones, and of good ones, of the table that was made."""
        return self._counts
