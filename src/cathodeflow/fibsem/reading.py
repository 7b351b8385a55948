"""Options of what is read of files of slices, and the voxel size that results from them and from the files."""

import re
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from cathodeflow.errors import InputError
from cathodeflow.io.raw_format import VoxelSize
from cathodeflow.io.volume_axes import LETTERS, Choice, RawLayout
from cathodeflow.io.voxel_sizes import NANOMETRES, unit_name
from cathodeflow.options import Options, option


class Raw(Options):
    """Contents of files without a header (.raw, .vol, .bin, .dat, .img)."""

    shape: tuple[int, ...] | None = option(
        None, "Slices, rows and columns. Default: files without a header are refused.", min_length=3, max_length=3
    )
    data_type: Literal["uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64"] = option(
        "uint8", "Data type of the values."
    )
    big_endian: bool = option(False, "Whether the most significant byte of a value comes first.")
    offset: int = option(0, "Bytes before the first value.", ge=0)


class Reading(Options):
    """What is read of files of slices."""

    channel: int | None = option(
        None, "Channel to read, from 0. Default: files with several channels are refused.", ge=0
    )
    time_point: int | None = option(
        None, "Time point to read, from 0. Default: files with slices and several time points are refused.", ge=0
    )
    axes: str | None = option(
        None,
        "Axes of arrays with as many axes, in place of what the files state: `z` slices, `y` rows, `x` columns, `c` "
        "channels, `t` time points, `s` colours of a pixel, `q` others; such as `xyz` for transposed arrays. "
        "Default: from the metadata; z, y, x in files that name no axes.",
    )
    raw: Raw = option(Raw(), "Contents of files without a header.")
    pixel_nm: float | None = option(
        None, "Pixel size in the slices. Default: that in the files, otherwise unknown.", unit="nm", gt=0
    )
    slice_nm: float | None = option(
        None, "Distance between slices. Default: that in the files, otherwise the pixel size.", unit="nm", gt=0
    )
    voxel_unit: Literal["angstrom", "nm", "um", "mm", "m"] | None = option(
        None,
        "Unit of the voxel size in files that name none. Default: mm for MHD, NIfTI and NRRD, the convention of these "
        "formats; otherwise none.",
    )
    blank_slices: Literal["fail", "leave_out"] = option(
        "fail",
        "Slices with the same value in every pixel, or with values that are not finite: `fail` refuses them, "
        "`leave_out` continues without them and names their numbers.",
    )

    @field_validator("axes")
    @classmethod
    def _axes(cls, axes: str | None) -> str | None:
        return checked_axes(axes)

    def choice(self) -> Choice:
        """Return what is read, as the readers take it."""
        layout = None
        if self.raw.shape is not None:
            slices, rows, cols = self.raw.shape
            layout = RawLayout((slices, rows, cols), self.raw.data_type, self.raw.big_endian, self.raw.offset)
        return Choice(self.channel, self.time_point, self.axes, layout)


def checked_axes(axes: str | None) -> str | None:
    """Return letters of axes.

    Raises
    ------
    ValueError
        Other letters, or not one axis of rows and one of columns.
    """
    known = axes is None or (re.fullmatch(f"[{LETTERS}]+", axes) and axes.count("y") == axes.count("x") == 1)
    if not known:
        raise ValueError(f"letters of {LETTERS}, with y and x once each, such as zyx or tczyx")
    return axes


class UsedVoxel(NamedTuple):
    """Voxel size that is used.

    metadata : dict
        `scale` (slice, row, col) and `unit` of a store; empty if unknown.
    record : dict
        The same for the record of a stage, with `voxel_size_from`: where it comes from.
    warnings : list of str
    """

    metadata: dict[str, Any]
    record: dict[str, Any]
    warnings: list[str]


def used_voxel(stated: VoxelSize | None, options: Reading, source: str) -> UsedVoxel:
    """Find the voxel size: that of the options, otherwise what the files state.

    Parameters
    ----------
    stated : VoxelSize, optional
        As stated in the files.
    options : Reading
    source : str
        The slices, for messages.

    Raises
    ------
    InputError
        Only the distance between slices is given, and the files state no pixel size with a unit.

    Examples
    --------
    >>> stated = VoxelSize((0.2, 0.05, 0.05), "micrometer", "ImageJ metadata")
    >>> used_voxel(stated, Reading(), "a.tif").metadata
    {'scale': (0.2, 0.05, 0.05), 'unit': 'micrometer'}
    >>> used_voxel(stated, Reading(pixel_nm=40), "a.tif").metadata
    {'scale': (40.0, 40.0, 40.0), 'unit': 'nm'}
    """
    if options.pixel_nm is not None:
        steps = (options.slice_nm or options.pixel_nm, options.pixel_nm, options.pixel_nm)
        warnings = []
        if stated is not None and (nm := _nanometres(stated, options)) is not None:
            known = [(a, b) for a, b in zip(nm, steps, strict=True) if a is not None]
            if any(abs(a / b - 1) > 0.01 for a, b in known):
                found = " x ".join("unknown" if step is None else f"{step:g}" for step in nm)
                text = f"a voxel size of {found} nm ({stated.origin}); that of the options is used"
                warnings = [f"{source}: {text}"]
        return _used(steps, "nm", "options", warnings)
    if stated is None:
        if options.slice_nm is not None:
            raise InputError("slice_nm", "a distance between slices without a pixel size", "`pixel_nm` as well")
        return UsedVoxel({}, {"voxel_size_from": "unknown"}, [])
    unit, origin = stated.unit, stated.origin
    if unit is None:
        unit = unit_name(options.voxel_unit or stated.convention)
        origin += f", in {unit} by the {'options' if options.voxel_unit else 'convention of the format'}" * bool(unit)
    slices, rows, cols = stated.size
    assert rows is not None and cols is not None
    warnings = []
    if options.slice_nm is not None:
        if unit is None:
            raise InputError("slice_nm", f"a voxel size without a unit in {source}", "`pixel_nm` or `voxel_unit`")
        slices, origin = options.slice_nm / NANOMETRES[unit], f"{origin}; distance of slices: options"
    if slices is None:
        slices = cols
        warnings = [f"{source}: no distance between slices ({origin}): the pixel size is used; give slice_nm"]
    if unit is None:
        warnings.append(f"{source}: a voxel size without a unit ({origin}); give voxel_unit or pixel_nm")
    return _used((slices, rows, cols), unit, origin, warnings)


def _used(steps: tuple[float, float, float], unit: str | None, origin: str, warnings: list[str]) -> UsedVoxel:
    record = dict(zip(("voxel_slice", "voxel_row", "voxel_col"), steps, strict=True))
    return UsedVoxel(
        {"scale": steps, "unit": unit}, {**record, "voxel_unit": unit or "", "voxel_size_from": origin}, warnings
    )


def _nanometres(stated: VoxelSize, options: Reading) -> list[float | None] | None:
    unit = stated.unit or unit_name(options.voxel_unit)
    return None if unit is None else [None if step is None else step * NANOMETRES[unit] for step in stated.size]


def is_blank(image: NDArray[Any]) -> bool:
    """Whether a slice has the same value in every pixel, or values that are not finite.

    Examples
    --------
    >>> is_blank(np.zeros((2, 2))), is_blank(np.array([[0, np.nan]])), is_blank(np.array([[0, 1]]))
    (True, True, False)
    """
    low, high = image.min(), image.max()
    # The minimum of values with NaN is NaN.
    return not (np.isfinite(low) and np.isfinite(high)) or bool(low == high)


def blank_slices(images: Iterable[NDArray[Any]]) -> list[int]:
    """Return the numbers of the blank slices among some."""
    return [number for number, image in enumerate(images) if is_blank(image)]
