"""Units of voxel sizes as files write them."""

import math
from collections.abc import Sequence

from cathodeflow.io.raw_format import VoxelSize

#: Length of a unit [nm], by its UDUNITS-2 name.
NANOMETRES = {
    "angstrom": 0.1,
    "nanometer": 1.0,
    "micrometer": 1e3,
    "millimeter": 1e6,
    "centimeter": 1e7,
    "meter": 1e9,
    "inch": 2.54e7,
}
_NAMES = {
    "angstrom": ("a", "å", "angstrom", "ångström", "angstroms"),
    "nanometer": ("nm", "nanometer", "nanometre", "nanometers", "nanometres"),
    "micrometer": ("um", "µm", "μm", "\\u00b5m", "micron", "microns", "micrometer", "micrometre", "micrometers"),
    "millimeter": ("mm", "millimeter", "millimetre", "millimeters", "millimetres"),
    "centimeter": ("cm", "centimeter", "centimetre"),
    "meter": ("m", "meter", "metre", "meters"),
    "inch": ("inch", "inches", "in"),
}


def unit_name(text: str | None) -> str | None:
    """Return the UDUNITS-2 name of a unit of length; None if it is none.

    Examples
    --------
    >>> unit_name("µm"), unit_name("micron"), unit_name("pixel")
    ('micrometer', 'micrometer', None)
    """
    given = (text or "").strip().lower()
    return next((name for name, known in _NAMES.items() if given in known), None)


def stated_voxel(
    size: Sequence[float | None], unit: str | None, origin: str, *, convention: str | None = None
) -> VoxelSize | None:
    """Describe the voxel size that a file states; None if it states none.

    Parameters
    ----------
    size : (3,) float or None
        Distances between slices, rows and columns; what is not a positive number counts as not stated.
    unit : str, optional
        As written in the file.
    origin : str
    convention : str, optional
        Unit of the format for files that name none.

    Examples
    --------
    >>> stated_voxel((0.2, 0.05, 0.05), "um", "OME metadata")
    VoxelSize(size=(0.2, 0.05, 0.05), unit='micrometer', origin='OME metadata', convention=None)
    >>> stated_voxel((1, 1, 1), None, "ElementSpacing") is None
    True
    """
    slices, rows, cols = (
        float(step) if step is not None and math.isfinite(step) and step > 0 else None for step in size
    )
    named = unit_name(unit)
    if rows is None or cols is None or (named is None and {slices, rows, cols} <= {1.0, None}):
        # Steps of 1 without a unit are what programs write where nobody has set a size.
        return None
    return VoxelSize((slices, rows, cols), named, origin, convention)
