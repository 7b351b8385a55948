"""Peaks of the raw frames of a scan, frame by frame, equal to those of the stages `frames`, `find-peaks` and `fit`.

The mask of all frames is that of the first, the middle and the last frame, of which only the first is there while a
scan runs. Until its end, a pixel is masked if no frame so far has a count at it. `Measurement.method` is a digest of
the mask and of all else that peaks depend on: at the end, frames that were measured with another are measured again.
"""

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.corrections import detector_mask, invalid_pixels
from cathodeflow.bragg.fitted_peaks import fit_and_flag, pixel_variance
from cathodeflow.bragg.frame_peaks import FramePeaks
from cathodeflow.bragg.peak_options import Watch
from cathodeflow.bragg.peak_search import candidates
from cathodeflow.bragg.prepared_frames import Correction, prepared_frame
from cathodeflow.bragg.raw_scan import RawScan
from cathodeflow.io.frames_writer import StoredFrame, storable

Raw = NDArray[Any]
Mask = NDArray[np.bool_]


class SearchedFrame(NamedTuple):
    """A corrected frame as frames.h5 holds it, its bad pixels (row, col) bool, and its candidates."""

    stored: StoredFrame
    bad: Mask
    found: NDArray[np.void]


class MeasuredCounts(NamedTuple):
    """A corrected frame (row, col) float32, its bad pixels (row, col) bool, and its peaks."""

    counts: NDArray[np.float32]
    bad: Mask
    peaks: FramePeaks


def content_of(raw: Raw) -> str:
    """Return a digest of the counts of a raw frame."""
    return hashlib.sha256(np.ascontiguousarray(raw).data).hexdigest()[:32]


class Measurement:
    """Correct raw frames of a scan, find their peaks and fit them.

    Parameters
    ----------
    scan : RawScan
    options : Watch
        `find_peaks` and `fit`.
    """

    def __init__(self, scan: RawScan, options: Watch) -> None:
        self.scan, self._options = scan, options
        binning = scan.correction.options.binning
        self._variance = pixel_variance(scan.dark, scan.dark_frames, binning, options.fit)
        about = scan.series.shape, scan.series.dtype.str, scan.correction.limits
        self._common = hashlib.sha256(repr(about).encode())
        self._common.update(np.packbits(scan.correction.mask).tobytes())

    def method(self, number: int) -> str:
        """Return a digest of what the peaks of a frame depend on, without its counts, the options and the images."""
        digest = self._common.copy()
        mask_of = self.scan.correction.mask_of
        if mask_of is not None and (stored := mask_of(number)) is not None:
            digest.update(np.packbits(stored).tobytes())
        return digest.hexdigest()[:32]

    def search(self, number: int, raw: Raw) -> SearchedFrame:
        """Correct a raw frame and find its candidates; may run in any thread.

        Raises
        ------
        InputError
            The frame is rejected, as by `prepared_frame`.
        """
        scan = self.scan
        stored = storable(prepared_frame(number, raw, scan.correction), scan.mask, scan.saturation)
        bad = stored.bad_pixels(scan.mask)
        return SearchedFrame(stored, bad, candidates(stored.pixels, self._options.find_peaks, mask=bad))

    def fit(self, frame: SearchedFrame) -> MeasuredCounts:
        """Fit the candidates of a frame, in several threads of its own."""
        at = frame.found["row"], frame.found["col"]
        fitted = fit_and_flag(
            frame.stored.pixels,
            *at,
            options=self._options.fit,
            mask=frame.bad,
            saturated=frame.stored.saturated_pixels(),
            variance=self._variance,
        )
        return MeasuredCounts(frame.stored.pixels, frame.bad, FramePeaks(frame.found, fitted))


class GrowingMask:
    """The pixels without a count in all frames so far, of a scan whose last frame is not there yet.

    Parameters
    ----------
    bad_pixels : (row, col) bool, optional
        Of the mask image.
    """

    def __init__(self, bad_pixels: Mask | None) -> None:
        self._bad_pixels = bad_pixels
        self._always: Mask | None = None

    @property
    def begun(self) -> bool:
        """Whether there was a frame."""
        return self._always is not None

    def add(self, number: int, raw: Raw, correction: Correction) -> Mask:
        """Take in one more raw frame, and return the mask; the mask of the correction is not used."""
        invalid = invalid_pixels(raw, correction.options, correction.limits)
        stored = None if correction.mask_of is None else correction.mask_of(number)
        invalid = invalid if stored is None else invalid | stored
        self._always = invalid if self._always is None else self._always & invalid
        return detector_mask([self._always], bad=self._bad_pixels)
