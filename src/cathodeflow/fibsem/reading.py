"""Options of what is read of files of slices and labels. Light to import, as the options of the stages are."""

import re
from typing import Literal

from pydantic import field_validator

from cathodeflow.io.volume_axes import LETTERS, Choice, RawLayout
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


class VolumeFiles(Options):
    """What is read of files of slices or of labels."""

    channel: int | None = option(
        None, "Channel to read, from 0. Default: files with several channels are refused.", ge=0
    )
    time_point: int | None = option(
        None, "Time point to read, from 0. Default: files with slices and several time points are refused.", ge=0
    )
    axes: str | None = option(
        None,
        "Axes of the arrays, one letter each, in place of what the files state; used for arrays with that"
        " number of axes: `z` slices, `y` rows, `x` columns, `c` channels, `t` time points, `s` colours "
        "of a pixel, `q` others; such as `xyz` for transposed arrays. Default: from the metadata; z, y, x"
        " in files that name no axes.",
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


class Reading(VolumeFiles):
    """What is read of files of slices."""

    blank_slices: Literal["fail", "leave_out"] = option(
        "fail",
        "Slices with the same value in every pixel, or with values that are not finite: `fail` refuses them, "
        "`leave_out` continues without them and names their numbers.",
    )


class LabelValues(VolumeFiles):
    """Values or colours of the classes in label images."""

    label_values: tuple[int, ...] | None = option(
        None, "Values of the classes in the label files. Default: 0, 1, 2, ... in the order of `classes`."
    )
    label_colors: tuple[str, ...] | None = option(
        None,
        "Colours of the classes in coloured label images and palettes, in the order of `classes`, such as "
        "`505050,ff0000,00ff00`. Default: coloured label images are refused, and palettes give values.",
    )
    ignore: int | None = option(
        None, "Value of pixels without a label. Default: every pixel of a label image has a label."
    )
    ignore_color: str | None = option(
        None, "Colour of pixels without a label, where `label_colors` is given. Default: every pixel has a label."
    )

    @field_validator("label_colors")
    @classmethod
    def _colours(cls, colours: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for colour in colours or ():
            colour_value(colour)
        return colours

    @field_validator("ignore_color")
    @classmethod
    def _colour(cls, colour: str | None) -> str | None:
        if colour is not None:
            colour_value(colour)
        return colour


class Labelling(LabelValues, Reading):
    """What is read of files of slices and of their labels."""

    classes: tuple[str, ...] = option(
        ("pore", "active", "binder"),
        "Names of the classes, in the order of the label values.",
        min_length=2,
        max_length=64,
    )
    label_axes: str | None = option(
        None, "Axes of the label arrays, as `axes` of the slices. Default: from the metadata, otherwise z, y, x."
    )
    pairing: Literal["name", "order"] = option(
        "name",
        "Label images of slices: `name` matches equal names, or the numbers in the names; `order` takes as many label "
        "images as slices in the same order.",
    )

    @field_validator("label_axes")
    @classmethod
    def _label_axes(cls, axes: str | None) -> str | None:
        return checked_axes(axes)


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


def colour_value(text: str) -> int:
    """Return the number of a colour written as `ff0080` or `#ff0080`.

    Raises
    ------
    ValueError
        It is no colour.
    """
    digits = text.removeprefix("#")
    if len(digits) != 6:
        raise ValueError("a colour of six hexadecimal digits, such as ff0000")
    return int(digits, 16)
