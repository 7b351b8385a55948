"""The voxel size that is used: that of the options, otherwise what the files state."""

from typing import Any, NamedTuple

from cathodeflow.errors import InputError
from cathodeflow.fibsem.reading import VolumeFiles
from cathodeflow.io.raw_format import VoxelSize
from cathodeflow.io.voxel_sizes import NANOMETRES, unit_name


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


def used_voxel(stated: VoxelSize | None, options: VolumeFiles, source: str) -> UsedVoxel:
    """Find the voxel size: that of the options, otherwise what the files state.

    Parameters
    ----------
    stated : VoxelSize, optional
        As stated in the files.
    options : VolumeFiles
    source : str
        The slices, for messages.

    Raises
    ------
    InputError
        Only the distance between slices is given, and the files state no pixel size with a unit.

    Examples
    --------
    >>> stated = VoxelSize((0.2, 0.05, 0.05), "micrometer", "ImageJ metadata")
    >>> used_voxel(stated, VolumeFiles(), "a.tif").metadata
    {'scale': (0.2, 0.05, 0.05), 'unit': 'micrometer'}
    >>> used_voxel(stated, VolumeFiles(pixel_nm=40), "a.tif").metadata
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


def _nanometres(stated: VoxelSize, options: VolumeFiles) -> list[float | None] | None:
    unit = stated.unit or unit_name(options.voxel_unit)
    return None if unit is None else [None if step is None else step * NANOMETRES[unit] for step in stated.size]
