"""Stacks of slices of any supported format, read one slice at a time."""

from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask import delayed
from numpy.typing import NDArray

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.micrographs import luminance
from cathodeflow.io.raw_format import VoxelSize
from cathodeflow.io.slice_files import SliceFile, open_slice_file, read_slice_file
from cathodeflow.io.sources import list_files, split_source
from cathodeflow.io.volume_axes import Choice

# Bytes and slices of a file per block of a lazy array, of which the last two are kept: some files are read from their
# beginning for each block.
_BLOCK_BYTES, _BLOCK_SLICES = 2**25, 64


class Stack(NamedTuple):
    """Slices of a stack, without their pixels.

    source : str
    n_slices : int
    shape : (int, int), rows and columns of a slice [px].
    names : tuple of str, file name of each slice without suffix; empty strings if one file has all slices.
    files : tuple of SliceFile.
    voxel : VoxelSize, or None if the files do not state it.
    """

    source: str
    n_slices: int
    shape: tuple[int, int]
    names: tuple[str, ...]
    files: tuple[SliceFile, ...]
    voxel: VoxelSize | None


def open_stack(source: str, choice: Choice | None = None) -> Stack:
    """Read the headers of all slices.

    Parameters
    ----------
    source : str
        Folder or pattern of images, in natural order, a file with all slices, or a Zarr store; with
        `::/dataset/path` for HDF5 and Zarr.
    choice : Choice, optional
        What is read of files with channels or time points, or without a description.

    Raises
    ------
    InputError
        There is no file, or files that cannot be read or differ in size or type (one line for each kind of mistake);
        or the axes of a file are ambiguous.
    """
    paths, dataset = list_files(source), split_source(source)[1]
    files: list[SliceFile] = []
    bad: list[InputError] = []
    for path in paths:
        try:
            files.append(open_slice_file(path, dataset, choice or Choice(), alone=len(paths) == 1))
        except InputError as error:
            bad += error.errors
    usual_kind = Counter((file.shape, file.dtype, file.coloured) for file in files).most_common(1)
    first = next((file for file in files if (file.shape, file.dtype, file.coloured) == usual_kind[0][0]), None)
    for file in files:
        if first is not None and (file.shape, file.dtype, file.coloured) != usual_kind[0][0]:
            kind, usual = (
                f"{one.dtype} of {one.shape} pixels{' with colours' * one.coloured}" for one in (file, first)
            )
            bad.append(InputError(file.path, kind, f"{usual}, as in {first.path}"))
    if bad:
        raise InputErrors.of(grouped(bad))
    names = [Path(file.path).stem if file.n == 1 else "" for file in files for _ in range(file.n)]
    return Stack(source, len(names), files[0].shape, tuple(names), tuple(files), files[0].voxel)


def read_stack(
    stack: Stack, start: int = 0, stop: int | None = None, *, require_finite: bool = True
) -> Iterator[NDArray[Any]]:
    """Yield slices (row, col) of 8-bit or 16-bit integers, or float32; colours become their luminance.

    Files that show high values as dark (TIFF with MINISWHITE) are inverted.

    Raises
    ------
    InputError
        A slice cannot be decoded, or, with `require_finite`, has values that are not finite.
    """
    for number, (file, pixels) in enumerate(_stored(stack, start, stop, values=False), start):
        if file.palette is not None and file.format == "PNG":
            # The values of a palette are in any order. Those of TIFF files are intensities, shown in colours.
            pixels = file.palette[np.minimum(pixels, len(file.palette) - 1)]
        grey = luminance(pixels) if pixels.ndim == 3 else pixels
        if grey.dtype.newbyteorder("=") in (np.uint8, np.uint16):
            yield np.ascontiguousarray(grey, dtype=grey.dtype.newbyteorder("="))
            continue
        values = np.ascontiguousarray(grey, np.float32)
        if require_finite and not np.isfinite(values).all():
            raise InputError(
                f"{stack.source}, slice {number}", "values that are not finite", "a finite number in every pixel"
            )
        yield values


def read_labels(
    stack: Stack, start: int = 0, stop: int | None = None, *, colours: bool = False
) -> Iterator[NDArray[Any]]:
    """Yield label images: their values (row, col) as stored, or colours (row, col, 3) where the files have them.

    Parameters
    ----------
    stack : Stack
    start, stop : int
        Range of slices.
    colours : bool
        Whether the colours of a palette are wanted, not its values.

    Raises
    ------
    InputError
        An image cannot be decoded.
    """
    for file, pixels in _stored(stack, start, stop, values=True):
        if colours and file.palette is not None:
            pixels = file.palette[np.minimum(pixels, len(file.palette) - 1)]
        if pixels.ndim == 3 and all(np.array_equal(pixels[..., 0], pixels[..., k]) for k in (1, 2)) and not colours:
            pixels = pixels[..., 0]
        yield np.ascontiguousarray(pixels)


def grouped(errors: list[InputError]) -> list[InputError]:
    """Join errors of the same kind to one each, which names where they are.

    Examples
    --------
    >>> for error in grouped([InputError(f"s{number}.tif", "no file", "a file") for number in range(9)]):
    ...     print(error)
    s0.tif, s1.tif, s2.tif, s3.tif and 5 more: found no file, expected a file
    """
    kinds: dict[tuple[str, str], list[str]] = {}
    for error in errors:
        kinds.setdefault((error.found, error.expected), []).append(error.where)
    return [InputError(some(places), *kind) for kind, places in kinds.items()]


def some(names: list[str], most: int = 4) -> str:
    """List names, and the number of those that are too many to list."""
    more = len(names) - most
    return ", ".join(names) if more <= 1 else ", ".join(names[:most]) + f" and {more} more"


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


def _stored(stack: Stack, start: int, stop: int | None, *, values: bool) -> Iterator[tuple[SliceFile, NDArray[Any]]]:
    wanted = range(stack.n_slices)[start:stop]
    first = 0
    for file in stack.files:
        here = range(max(wanted.start - first, 0), min(wanted.stop - first, file.n))
        if len(here):
            for pixels in read_slice_file(file, here, values=values):
                yield file, pixels
        first += file.n


def lazy_stack(stack: Stack, *, together: int = 16, refuse_blank: bool = True) -> da.Array:
    """Array (slice, row, col) whose slices are read when they are needed.

    Parameters
    ----------
    stack : Stack
    together : int
        Slices per block.
    refuse_blank : bool
        Whether slices with the same value in every pixel, or with values that are not finite, are an error when they
        are read.
    """
    model = next(read_stack(stack, 0, 1, require_finite=False))

    @lru_cache(maxsize=2)
    def block(start: int, stop: int) -> NDArray[Any]:
        images = list(read_stack(stack, start, stop, require_finite=False))
        for number, image in enumerate(images, start):
            if refuse_blank and is_blank(image):
                found = "the same value in every pixel, or values that are not finite"
                where = f"{stack.source}, slice {stack.names[number] or number}"
                raise InputError(where, found, "an image, or `blank_slices: leave_out`")
        return np.stack(images)

    spans = [(start, min(start + together, stack.n_slices)) for start in range(0, stack.n_slices, together)]
    parts = [
        da.from_delayed(delayed(block)(start, stop), shape=(stop - start, *model.shape), dtype=model.dtype)
        for start, stop in spans
    ]
    return da.concatenate(parts)


def open_slices(
    source: str, choice: Choice | None = None, *, refuse_blank: bool = True
) -> tuple[da.Array, VoxelSize | None]:
    """Open slices of any kind as an array (slice, row, col), read when it is needed, with their voxel size.

    Parameters
    ----------
    source, choice
        As for `open_stack`.
    refuse_blank
        As for `lazy_stack`.

    Returns
    -------
    array : da.Array
    voxel : VoxelSize or None
        As stated in the files.

    Raises
    ------
    InputError
        As in `open_stack`.
    """
    stack = open_stack(source, choice)
    together = 1
    if stack.files[0].n > 1:
        size = stack.shape[0] * stack.shape[1] * stack.files[0].dtype.itemsize
        together = max(1, min(_BLOCK_SLICES, _BLOCK_BYTES // size))
    return lazy_stack(stack, together=together, refuse_blank=refuse_blank), stack.voxel
