"""Stacks of slices of any supported format, read one slice at a time."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask import delayed
from numpy.typing import NDArray

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.frames import FrameSeries, open_series, read_frames
from cathodeflow.io.micrographs import micrograph_header, read_micrograph
from cathodeflow.io.sources import list_files
from cathodeflow.io.volumes import read_volume, read_volume_info


class Stack(NamedTuple):
    """Slices of a stack, without their pixels.

    source : str
    n_slices : int
    shape : (int, int), rows and columns of a slice [px].
    names : tuple of str, file name of each slice without suffix; empty strings if one file has all slices.
    series : FrameSeries, or None if the files are colour images.
    files : tuple of str.
    """

    source: str
    n_slices: int
    shape: tuple[int, int]
    names: tuple[str, ...]
    series: FrameSeries | None
    files: tuple[str, ...]


def open_stack(source: str) -> Stack:
    """Read the headers of all slices.

    Parameters
    ----------
    source : str
        Folder or pattern of images, in natural order, or a file with all slices; with `::/dataset/path` for HDF5.

    Raises
    ------
    InputError
        There is no file, or files that cannot be read or differ in size (one line each); or a single file has slices
        marked as colours.
    """
    files = tuple(list_files(source))
    if _coloured(files[0]):
        headers = [micrograph_header(path) for path in files]
        if len(files) == 1 and headers[0].planes:
            # Some programs write three or four slices like this; as colours they would be mixed to one slice.
            found = f"{headers[0].channels} planes marked as the colours of one image"
            raise InputError(files[0], found, "slices: pages marked as grey (tifffile: photometric='minisblack')")
        shape = (headers[0].rows, headers[0].cols)
        bad = [
            InputError(path, f"{header.rows} x {header.cols} pixels", f"{shape[0]} x {shape[1]}, as in {files[0]}")
            for path, header in zip(files, headers, strict=True)
            if (header.rows, header.cols) != shape
        ]
        if bad:
            raise InputErrors.of(bad)
        return Stack(source, len(files), shape, tuple(Path(path).stem for path in files), None, files)
    series = open_series(source)
    names = [Path(file.path).stem if file.n_frames == 1 else "" for file in series.files for _ in range(file.n_frames)]
    return Stack(source, series.n_frames, series.shape, tuple(names), series, files)


def read_stack(stack: Stack, start: int = 0, stop: int | None = None) -> Iterator[NDArray[Any]]:
    """Yield slices (row, col) of 8-bit or 16-bit integers, or float32; colours become their luminance.

    Raises
    ------
    InputError
        A slice cannot be decoded, or has values that are not finite.
    """
    if stack.series is None:
        yield from map(read_micrograph, stack.files[start:stop])
        return
    for number, frame in read_frames(stack.series, start, stop):
        if frame.dtype.newbyteorder("=") in (np.uint8, np.uint16):
            yield frame.astype(frame.dtype.newbyteorder("="), copy=False)
            continue
        values = frame.astype(np.float32)
        if not np.isfinite(values).all():
            raise InputError(
                f"{stack.source}, slice {number}", "values that are not finite", "a finite number in every pixel"
            )
        yield values


def lazy_stack(
    stack: Stack, change: Callable[[int, NDArray[Any]], NDArray[Any]] | None = None, *, together: int = 16
) -> da.Array:
    """Array (slice, row, col) whose slices are read when they are needed.

    Parameters
    ----------
    stack : Stack
    change : callable, optional
        Function of the index and the pixels of a slice that returns the changed slice, of one type and shape for all.
    together : int
        Slices per block.
    """
    first = next(read_stack(stack, 0, 1))
    model = first if change is None else change(0, first)

    def block(start: int, stop: int) -> NDArray[Any]:
        read = enumerate(read_stack(stack, start, stop), start)
        return np.stack([image if change is None else change(number, image) for number, image in read])

    spans = [(start, min(start + together, stack.n_slices)) for start in range(0, stack.n_slices, together)]
    parts = [
        da.from_delayed(delayed(block)(start, stop), shape=(stop - start, *model.shape), dtype=model.dtype)
        for start, stop in spans
    ]
    return da.concatenate(parts)


def open_slices(source: str) -> tuple[da.Array, dict[str, Any]]:
    """Open slices of any kind as an array (slice, row, col), read when it is needed, with their scale.

    Parameters
    ----------
    source : str
        As for `open_stack`, or a Zarr store.

    Returns
    -------
    array : da.Array
    scale : dict
        `scale` and `unit` of a Zarr store; empty for other sources, which have none.

    Raises
    ------
    InputError
        As in `open_stack`, or a store has other axes.
    """
    if not source.rstrip("/").endswith(".zarr"):
        return lazy_stack(open_stack(source), together=1), {}
    volume, info = read_volume(source), read_volume_info(source)
    if volume.ndim != 3:
        raise InputError(source, f"axes {', '.join(info.axes)}", "slice, row, col")
    return volume, {"scale": info.scale, "unit": info.unit}


def _coloured(path: str) -> bool:
    try:
        return micrograph_header(path).channels > 1
    except InputError:
        # Stacks and detector formats are not micrographs; `open_series` reports errors of a file.
        return False
