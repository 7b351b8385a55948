"""NIfTI-1 and NIfTI-2 in one file: volumes with voxel size, also compressed by gzip.

Stored order counts, x fastest; a rotation or reflection to anatomical axes is not applied.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from cathodeflow.errors import InputError
from cathodeflow.io.raw_format import DataPart, RawFormat, VolumeHeader, VolumeReader

if TYPE_CHECKING:
    from numpy.typing import NDArray

# It prints what it mends in damaged headers; what matters is checked here.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)

# Stored axes, the slowest first: of 4D files the fourth is time, the fifth the components of a vector.
_AXES = "ctzyx"
# The unit of voxel sizes in files that name none.
_CONVENTION = "mm"


def _header(path: str, dataset: str | None) -> VolumeHeader:
    import nibabel
    import numpy as np

    from cathodeflow.io.plane_files import require_size
    from cathodeflow.io.voxel_sizes import stated_voxel

    image = nibabel.load(path)
    header, stored = image.header, image.dataobj
    shape = tuple(int(length) for length in reversed(header.get_data_shape()))
    if not 2 <= len(shape) <= len(_AXES):
        raise InputError(path, f"{len(shape)} axes", f"2 to {len(_AXES)} axes")
    zooms = [float(step) for step in header.get_zooms()[:3]] + [0.0]
    unit = header.get_xyzt_units()[0]
    compression = "gzip file" if path.lower().endswith(".gz") else ""
    part = DataPart(path, int(stored.offset), compression, float(stored.slope), float(stored.inter))
    found = VolumeHeader(
        shape, np.dtype(header.get_data_dtype()), _AXES[-len(shape) :],
        stated_voxel((zooms[2], zooms[1], zooms[0]), unit, "NIfTI header", convention=_CONVENTION), data=part,
    )  # fmt: skip
    require_size(path, found)
    return found


def _read(path: str, header: VolumeHeader, indices: Iterable[tuple[int | slice, ...]]) -> Iterator[NDArray[Any]]:
    from cathodeflow.io.plane_files import read_parts

    return read_parts(path, header, indices)


FORMAT = RawFormat(name="NIfTI", suffixes=(".nii",), by_suffix=True, volume=VolumeReader(_header, _read))
