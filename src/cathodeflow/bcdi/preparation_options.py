"""Options of the preparation of a rocking scan."""

from pydantic import field_validator

from cathodeflow.bcdi.cleaning_options import Cleaning
from cathodeflow.options import option


class Prepare(Cleaning):
    """Raw frames -> diffraction amplitudes: corrected, centred on the peak, binned, cut to size."""

    frames: tuple[int, ...] | None = option(
        None, "First frame to use, and the one after the last. Default: all frames.", min_length=2, max_length=2
    )
    rows: tuple[int, ...] | None = option(
        None,
        "First row to use, and the one after the last. Default: all rows.",
        unit="px",
        min_length=2,
        max_length=2,
    )
    cols: tuple[int, ...] | None = option(
        None,
        "First column to use, and the one after the last. Default: all columns.",
        unit="px",
        min_length=2,
        max_length=2,
    )
    region: tuple[int, ...] | None = option(
        None,
        "Region of the detector that the frames show, as (first row, end, first column, end). Default: that of the "
        "SPEC file.",
        unit="px",
        min_length=4,
        max_length=4,
    )
    invert_mask: bool = option(
        False,
        "Mask images have 0 at good pixels and any other value at bad ones, instead of the other way round. Not needed "
        "for `pixel_mask` of NeXus and `mask` of CXI files.",
    )
    dark_limit: float = option(
        10.0, "Pixels whose dark counts differ from the median by more than this are masked.", unit="counts", ge=0
    )
    threshold: float = option(0.0, "Set intensities below this number of counts to zero.", unit="counts", ge=0)
    oversampling: float = option(3.0, "Bin frames and pixels only while the oversampling stays above this ratio.", ge=2)
    bins: tuple[int, ...] | None = option(
        None,
        "Numbers of frames, rows and columns that are binned into one. Default: as far as `oversampling` allows.",
        min_length=3,
        max_length=3,
    )
    size: tuple[int, ...] | None = option(
        None,
        "Size of the volume, as (frames, rows, columns), after binning. Default: nearly the whole measured volume.",
        unit="px",
        min_length=3,
        max_length=3,
    )
    divisor: int = option(
        16, "Divisor of the default size; a network needs 2 to the power of its number of resolutions.", ge=2
    )

    @field_validator("size")
    @classmethod
    def _even_sides(cls, size: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if size is not None and any(side < 2 or side % 2 for side in size):
            raise ValueError("even numbers")
        return size

    @field_validator("bins")
    @classmethod
    def _at_least_one(cls, bins: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if bins is not None and min(bins) < 1:
            raise ValueError("whole numbers, at least 1")
        return bins

    @field_validator("divisor")
    @classmethod
    def _even(cls, divisor: int) -> int:
        if divisor % 2:
            raise ValueError("an even number")
        return divisor

    @field_validator("frames", "rows", "cols")
    @classmethod
    def _rising(cls, ends: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if ends is not None and not 0 <= ends[0] < ends[1]:
            raise ValueError("two ascending numbers, at least 0")
        return ends
