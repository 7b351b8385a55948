"""Peaks of the raw frames of a scan, frame by frame, equal to those of the stages `frames`, `find-peaks` and `fit`.

The mask of all frames is that of the first, the middle and the last frame, of which only the first is there while a
scan runs. Until its end, a pixel is masked if no frame so far has a count at it. `Measurement.method` is a digest of
the mask and of all else that peaks depend on: at the end, frames that were measured with another are measured again.
"""

import hashlib
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.binning import bin_frame, bin_mask
from cathodeflow.bragg.corrections import corrected_frames, detector_mask, extra_variance, saturation_level
from cathodeflow.bragg.frame_peaks import FramePeaks, measure_frame
from cathodeflow.bragg.options import Watch
from cathodeflow.bragg.scan_corrections import CorrectionImages, InvalidPixels
from cathodeflow.errors import InputError
from cathodeflow.io.frames import FrameSeries
from cathodeflow.io.frames_file import stored_counts

Raw = NDArray[Any]
Mask = NDArray[np.bool_]


class MeasuredCounts(NamedTuple):
    """A corrected frame (row, col) float32, its bad pixels (row, col) bool, and its peaks."""

    counts: NDArray[np.float32]
    bad: Mask
    peaks: FramePeaks


def content_of(raw: Raw) -> str:
    """Return a digest of the counts of a raw frame."""
    return hashlib.sha256(np.ascontiguousarray(raw)).hexdigest()[:32]


class Measurement:
    """Correct raw frames with one mask, find their peaks and fit them.

    Parameters
    ----------
    series : FrameSeries
    images : CorrectionImages
    find_invalid : InvalidPixels
        Of the series; may be replaced by that of a longer one with the same limits.
    mask : (row, col) bool
        Raw pixels that are bad in all frames.
    options : Watch
        `frames`, `find_peaks` and `fit`.
    """

    def __init__(
        self, series: FrameSeries, images: CorrectionImages, find_invalid: InvalidPixels, mask: Mask, options: Watch
    ) -> None:
        self._source, self._images, self.find_invalid = series.source, images, find_invalid
        self.mask, self._options = mask, options
        binning, fit, limits = options.frames.binning, options.fit, find_invalid.limits
        self._binned = bin_mask(mask, binning)
        subtracted = images.subtracted()
        dark = None if subtracted is None else bin_frame(np.where(mask, 0, subtracted), binning).astype(np.float32)
        self._variance = extra_variance(
            dark,
            images.dark_frames,
            binning=binning,
            read_noise=fit.read_noise,
            dark_gain=fit.gain if fit.dark_noise == "poisson" else 0.0,
        )
        self._saturation = saturation_level(series.dtype, options.frames, limits) * binning**2
        self._common = hashlib.sha256(repr((series.shape, series.dtype.str, limits)).encode())
        self._common.update(np.packbits(mask).tobytes())

    def method(self, number: int) -> str:
        """Return a digest of what the peaks of a frame depend on, without its counts, the options and the images."""
        digest = self._common.copy()
        if (stored := self.find_invalid.stored(number)) is not None:
            digest.update(np.packbits(stored).tobytes())
        return digest.hexdigest()[:32]

    def measure(
        self, frames: Iterable[tuple[int, Raw]], bad: list[InputError] | None = None
    ) -> Iterator[tuple[int, MeasuredCounts]]:
        """Measure raw frames one by one.

        Parameters
        ----------
        frames : iterable of (int, (row, col) array)
            Number in the series, and raw frame.
        bad : list of InputError, optional
            As of `corrected_frames`.
        """
        corrected = corrected_frames(
            frames,
            self._options.frames,
            source=self._source,
            mask=self.mask,
            find_invalid=self.find_invalid,
            limits=self.find_invalid.limits,
            dark_image=self._images.dark_image,
            sensitivity=self._images.sensitivity,
            bad=bad,
        )
        for number, frame in corrected:
            stored = stored_counts(frame, self._binned, self._saturation)
            masked = self._binned if stored.invalid is None else self._binned | stored.invalid
            saturated = np.zeros(masked.shape, bool) if stored.saturated is None else stored.saturated
            pixels = {"mask": masked, "saturated": saturated, "variance": self._variance}
            peaks = measure_frame(stored.counts, self._options.find_peaks, self._options.fit, **pixels)
            yield number, MeasuredCounts(stored.counts, masked, peaks)


class GrowingMask:
    """The pixels without a count in all frames so far, of a scan whose last frame is not there yet.

    Parameters
    ----------
    images : CorrectionImages
    """

    def __init__(self, images: CorrectionImages) -> None:
        self._images = images
        self._always: Mask | None = None

    @property
    def begun(self) -> bool:
        """Whether there was a frame."""
        return self._always is not None

    def add(self, invalid: Mask) -> Mask:
        """Take in the pixels without a count of one more frame, and return the mask: those, and the mask image's."""
        self._always = invalid if self._always is None else self._always & invalid
        return detector_mask([self._always], bad=self._images.bad_pixels)
