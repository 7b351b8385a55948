"""Images that correct frames - masks, dark and flat images - from sources of any format."""

import logging
import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.formats import detect_format
from cathodeflow.io.frames import FrameSeries, count_limits, open_series, read_frames
from cathodeflow.io.hdf5 import open_hdf5
from cathodeflow.io.hdf5_search import find_correction
from cathodeflow.io.invalid_pixels import bad_values, find_invalid, usual_marks
from cathodeflow.io.sources import split_source

log = logging.getLogger("cathodeflow")

# Largest fraction of excluded pixels of a mask that is the right way round.
_MOST = 0.5
# Most different values of a mask: those of NeXus have one for each of a few reasons.
_MASK_VALUES = 8
# Fraction of the pixels of a frame below a dark image that noise and a drift of the offset do not reach.
_DARKER = 0.9


def correction_source(source: str, *, mask: bool = False) -> str:
    """Name the dataset of a mask, or of a dark or flat image, in an HDF5 file of which only the file is named."""
    path, dataset = split_source(source)
    if dataset is not None or not os.path.isfile(path) or not detect_format(path, "frames").has_datasets:
        return source
    with open_hdf5(path) as file:
        found = find_correction(file, mask=mask)
    return source if found is None else f"{path}::{found}"


def read_image(source: str, *, shape: tuple[int, int] | None = None) -> NDArray[Any]:
    """Read the one (row, col) image of a source of any format, such as a mask.

    Raises
    ------
    InputError
        It holds more than one frame, or its shape is not `shape`.
    """
    series = open_series(source)
    if series.n_frames != 1:
        raise InputError(source, f"{series.n_frames} frames", "one image")
    require_shape(series, shape)
    return next(read_frames(series))[1]


def read_mask(source: str, *, shape: tuple[int, int] | None = None) -> NDArray[np.bool_]:
    """Read the bad pixels of a mask image of any format.

    Values other than 0 are bad; of a NeXus `pixel_mask` only those that NeXus says make a pixel bad.

    Returns
    -------
    (row, col) bool

    Raises
    ------
    InputError
        It is not one image, its shape is not `shape`, or it holds NaN.
    """
    source = correction_source(source, mask=True)
    values = read_image(source, shape=shape)
    if not np.isfinite(values).all():
        raise InputError(source, "NaN or infinity", "0 at good pixels and other numbers at bad ones")
    dataset = split_source(source)[1] or ""
    if dataset.rpartition("/")[2] == "pixel_mask" and values.dtype.kind in "iu":
        return bad_values(values)
    return values != 0


def warn_of_mask(source: str, *, bad_is_zero: bool, sample: str, key: str) -> None:
    """Log a warning if a mask image excludes most pixels, and may have the other sense, or is no mask by its values.

    The masks of NeXus and CXI files are left alone: these formats define their values.

    Parameters
    ----------
    source : str
    bad_is_zero : bool
        Whether 0 marks the bad pixels, and not the good ones.
    sample : str
        Such as "scan 'a'", for the warning.
    key : str
        Option for the other sense, for the warning.

    Raises
    ------
    InputError
        As in `read_mask`.
    """
    if correction_source(source, mask=True) != source or split_source(source)[1] is not None:
        return
    bad = read_mask(source) != bad_is_zero
    excluded = 100 * float(bad.mean())
    n_values = len(np.unique(read_image(source)))
    if n_values > _MASK_VALUES:
        text = "%s: %s has %d different values, and excludes %.1f %% of the pixels: is it a dark image? Masks have two"
        log.warning(text, sample, source, n_values, excluded)
    elif excluded > 100 * _MOST:
        text = "%s: %.1f %% of the pixels of %s are excluded; change %s if 0 marks its %s pixels"
        log.warning(text, sample, excluded, source, key, "good" if bad_is_zero else "bad")


def warn_of_levels(frames: FrameSeries, dark: str | None, flat: str | None, *, sample: str) -> None:
    """Log a warning if a dark image is brighter than the frames, or a flat field leaves hardly a pixel.

    Parameters
    ----------
    frames : FrameSeries
        Of which the middle one is read.
    dark, flat : str, optional
        Sources of the shape of the frames. Of a dark of many images the first one is read.
    sample : str
        Such as "scan 'a'", for the warning.

    Raises
    ------
    InputError
        An image cannot be read.
    """
    if dark is not None:
        middle = frames.n_frames // 2
        frame = next(read_frames(frames, middle, middle + 1))[1]
        level = next(read_frames(open_series(correction_source(dark)), 0, 1))[1]
        darker = 100 * float((frame.astype(np.float64) < level).mean())
        if darker > 100 * _DARKER:
            text = "%s: %.1f %% of the pixels of the middle frame are below the dark image %s: does it belong to them?"
            log.warning(text, sample, darker, dark)
    if flat is not None:
        image = read_mean(flat).image
        unused = 100 * float((~(image > 0)).mean())
        if unused > 100 * _MOST:
            log.warning("%s: %.1f %% of the pixels of the flat field %s are not above 0", sample, unused, flat)


class MeanFrame(NamedTuple):
    """The mean of frames.

    Attributes
    ----------
    image : (row, col) float64
        NaN at pixels that have no count in any frame.
    n_frames : int
    """

    image: NDArray[np.float64]
    n_frames: int


def read_mean(source: str, *, shape: tuple[int, int] | None = None) -> MeanFrame:
    """Read the mean frame of a source of any format, such as a dark, holding one frame at a time.

    Values that mark a pixel without a count do not enter the mean.

    The mean, and not the median, because it needs one frame in memory and is the estimate of least variance for counts.

    Raises
    ------
    InputError
        A frame cannot be read, or the shape is not `shape`.
    """
    series = open_series(correction_source(source))
    require_shape(series, shape)
    limits = count_limits(series)
    total, count = np.zeros(series.shape, np.float64), np.zeros(series.shape, np.intp)
    for _, frame in read_frames(series):
        # Noise of -1 and -2 is usual in a dark.
        valid = ~find_invalid(frame, usual_marks(frame.dtype, negative=False), limits)
        np.add(total, frame, out=total, where=valid)
        count += valid
    image = np.divide(total, count, out=np.full(series.shape, np.nan), where=count > 0)
    return MeanFrame(image, series.n_frames)


def require_shape(series: FrameSeries, shape: tuple[int, int] | None) -> None:
    """Require that the frames of a series have a (row, col) shape, if one is given.

    Raises
    ------
    InputError
        They have another.
    """
    if shape is not None and series.shape != tuple(shape):
        raise InputError(series.source, f"{series.shape} pixels", f"{tuple(shape)} pixels, as the raw frames have")
