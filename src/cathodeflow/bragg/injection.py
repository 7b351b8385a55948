"""Known peaks in measured frames: injected ones for the fraction found, and a model of a frame for false peaks.

Injected peaks have the shapes and places of measured ones and their own counting noise, so that they are as hard to
find. False peaks cannot be counted in a measured frame, as nobody knows which of its peaks are real. They are counted
in simulated copies of it: smooth background and fitted peaks, with counting noise, in which every other peak is false.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import cKDTree

from cathodeflow.bragg.corrections import extra_variance
from cathodeflow.bragg.peak_fits import PeakFits
from cathodeflow.bragg.peak_options import Study
from cathodeflow.bragg.search_study import Found, StudyFrame
from cathodeflow.bragg.simulation import add_peaks

Floats = NDArray[np.float64]

_SHAPE = ("amplitude", "fwhm_row", "fwhm_col", "mixing")
# An injected peak lies this far from the place of a measured one, along both axes, at most [px].
_JITTER = 12.0
# Bad pixels within this distance of a peak excuse that it is not found [px].
_BAD = 2.0
# The background is the mean where no peak lies within this number of full widths, smoothed by this sigma [px].
_CLEAR, _SMOOTH = 2.0, (2.0, 8.0, 32.0)
# Number of bins of the amplitude, for the fraction of peaks that are measured.
_BINS = 6
# A fitted peak is real, for the model of a frame, if its amplitude exceeds this number of standard errors.
_SIGNIFICANT = 4.0


class Reference(NamedTuple):
    """Measured peaks of the frames of a scan, at the binning of the file.

    `peaks` : a row per converged, significant fit: `frame` (index in the study), `row`, `col` and widths [px],
    `amplitude` [counts], `mixing`, `good`. `counts` : number of peaks of each frame. `background` : (row, col) mean
    without peaks [counts].
    """

    peaks: pd.DataFrame
    counts: NDArray[np.int64]
    background: Floats


def reference(frames: Sequence[StudyFrame], found: Sequence[Found]) -> Reference:
    """Collect the measured peaks, and average the frames where they have none.

    Parameters
    ----------
    frames : sequence of StudyFrame
        At the binning of the file.
    found : sequence of Found
        Peaks of each, found with the lowest limits.
    """
    tables = []
    shape = frames[0].counts.shape
    total, weight = np.zeros(shape), np.zeros(shape)
    for index, (frame, peaks) in enumerate(zip(frames, found, strict=True)):
        fits = peaks.fits
        assert fits is not None
        significant = fits.converged & (fits.amplitude > _SIGNIFICANT * fits.amplitude_err)
        columns = {name: getattr(fits, name)[significant] for name in ("row", "col", *_SHAPE)}
        tables.append(pd.DataFrame({"frame": index, **columns, "good": peaks.good[significant]}))
        clear = ~(frame.bad | frame.saturated | _covered(shape, fits))
        # The tails of the peaks reach farther, and the copies of the frames have them, too.
        tails = np.zeros(shape)
        add_peaks(tails, tables[-1])
        total[clear] += (frame.counts - tails)[clear]
        weight[clear] += 1
    return Reference(
        pd.concat(tables, ignore_index=True), np.array([len(table) for table in tables]), _smooth(total, weight)
    )


def usable(known: Reference, options: Study) -> NDArray[np.bool_]:
    """Return which measured peaks give injected ones their shape: good ones of at least `min_amplitude`."""
    return np.asarray(known.peaks["good"] & (known.peaks["amplitude"] >= options.min_amplitude))


def draw_peaks(
    known: Reference,
    index: int,
    frame: StudyFrame,
    options: Study,
    rng: np.random.Generator,
    *,
    weights: Floats | None = None,
) -> pd.DataFrame:
    """Draw peaks to inject into a frame: places near those of peaks of all frames, shapes of the usable ones.

    Parameters
    ----------
    known : Reference
    index : int
        Index of the frame, for the number of peaks.
    frame : StudyFrame
    options : Study
    rng : Generator
    weights : (n,) float64, optional
        Weight of each usable peak. Default: log-uniform amplitudes from `min_amplitude` to that of the brightest.

    Returns
    -------
    DataFrame
        `row`, `col` and widths [px], `amplitude` [counts], `mixing`; none at the frame's edge or at bad pixels.
    """
    shapes = known.peaks[usable(known, options)]
    number = max(1, round(options.inject_fraction * known.counts[index]))
    chosen = rng.choice(len(shapes), number, p=None if weights is None else weights / weights.sum())
    drawn = shapes.iloc[chosen][[*_SHAPE]].reset_index(drop=True)
    if weights is None:
        drawn["amplitude"] = np.exp(
            rng.uniform(np.log(options.min_amplitude), np.log(shapes["amplitude"].max()), number)
        )
    places = known.peaks[["row", "col"]].to_numpy()[rng.integers(len(known.peaks), size=number)]
    drawn[["row", "col"]] = places + rng.uniform(-_JITTER, _JITTER, (number, 2))
    return drawn[inside(drawn[["row", "col"]].to_numpy(), frame.bad)].reset_index(drop=True)


def selection_weights(amplitude: Floats, injected: Floats, measured: NDArray[np.bool_]) -> Floats:
    """Return weights that undo the selection of the measured peaks, of which weak ones are missed more often.

    Parameters
    ----------
    amplitude : (n,) float64
        Amplitudes of the measured peaks [counts].
    injected : (m,) float64
        Amplitudes of injected peaks [counts].
    measured : (m,) bool
        Whether these were found with a good fit.

    Returns
    -------
    (n,) float64
        Inverse of the probability to be measured, in bins of the logarithm of the amplitude.

    Examples
    --------
    >>> injected, measured = np.repeat([10.0, 100.0], 98), np.arange(196) > 48
    >>> selection_weights(np.array([10.0, 99.0]), injected, measured).round(2)
    array([2.  , 1.01])
    """
    edges = np.geomspace(injected.min(), injected.max() * (1 + 1e-9), _BINS + 1)
    bins, of = (
        np.clip(np.searchsorted(edges, values, side="right") - 1, 0, _BINS - 1) for values in (injected, amplitude)
    )
    total = np.bincount(bins, minlength=_BINS)
    # With one success and one failure more, no bin has the probability 0.
    probability = (np.bincount(bins, measured, _BINS) + 1) / (total + 2)
    weights: Floats = 1 / probability[of]
    return weights


def inside(positions: Floats, bad: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return which positions (n, 2) [px] are on the frame, not at its edge and not at bad pixels."""
    edge = np.array(bad.shape) - 1 - _BAD
    good = ((positions >= _BAD) & (positions <= edge)).all(axis=1)
    if bad.any() and len(positions):
        good &= cKDTree(np.argwhere(bad)).query(positions)[0] > _BAD
    return np.asarray(good)


def inject(frame: StudyFrame, peaks: pd.DataFrame, options: Study, rng: np.random.Generator) -> StudyFrame:
    """Add peaks with their counting noise to a frame; those of the frame itself stay as they are."""
    expected = np.zeros(frame.counts.shape)
    add_peaks(expected, peaks)
    counts = frame.counts + options.gain * rng.poisson(expected / options.gain)
    return frame._replace(counts=np.where(frame.bad, frame.counts, counts).astype(np.float32))


def simulate_frame(
    known: Reference, index: int, frame: StudyFrame, options: Study, rng: np.random.Generator
) -> tuple[StudyFrame, Floats]:
    """Simulate a copy of a frame by the model: background and its peaks, with noise.

    Returns
    -------
    StudyFrame
    (n, 2) float64
        Positions of its peaks [px].
    """
    peaks = known.peaks[known.peaks["frame"] == index]
    expected = known.background.copy()
    add_peaks(expected, peaks)
    variance = extra_variance(
        frame.dark, frame.dark_frames, binning=frame.binning, read_noise=options.read_noise, dark_gain=0.0
    )
    counts = options.gain * rng.poisson(np.maximum(expected, 0) / options.gain)
    counts = counts + rng.normal(size=counts.shape) * np.sqrt(np.maximum(variance + options.read_noise**2, 0))
    simulated = np.where(frame.bad, 0, counts).astype(np.float32)
    return frame._replace(counts=simulated, saturated=np.zeros_like(frame.bad)), peaks[["row", "col"]].to_numpy()


def _covered(shape: tuple[int, ...], fits: PeakFits) -> NDArray[np.bool_]:
    """Pixels within a few widths of a peak."""
    covered = np.zeros(shape, bool)
    for row, col, wide, narrow, fitted in zip(
        fits.row, fits.col, fits.fwhm_row, fits.fwhm_col, fits.converged, strict=True
    ):
        if not np.isfinite(row):
            continue
        height, width = (np.ceil(_CLEAR * size) if fitted else 5.0 for size in (wide, narrow))
        top, left = max(int(row - height), 0), max(int(col - width), 0)
        covered[top : max(int(row + height) + 1, 0), left : max(int(col + width) + 1, 0)] = True
    return covered


def _smooth(total: Floats, weight: Floats) -> Floats:
    """Average with a small window where there is enough, else with larger ones."""
    background = np.full(total.shape, total.sum() / max(weight.sum(), 1))
    for sigma in sorted(_SMOOTH, reverse=True):
        smooth_total, smooth_weight = gaussian_filter(total, sigma), gaussian_filter(weight, sigma)
        # As many frames and pixels as make the noise of the background small beside that of a frame.
        enough = smooth_weight * 4 * np.pi * sigma**2 > 50
        background[enough] = smooth_total[enough] / smooth_weight[enough]
    return background
