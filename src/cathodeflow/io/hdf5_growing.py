"""Frames of HDF5 files that are being written: which are there, although others are still missing.

Read inside `cathodeflow.io.hdf5.beside_writers`.
"""

import h5py

from cathodeflow.errors import InputError
from cathodeflow.io.frames import read_header
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import open_hdf5
from cathodeflow.io.hdf5_frames import count_frames, find_stack
from cathodeflow.io.hdf5_search import find_frames, numbered_datasets
from cathodeflow.io.raw_format import FrameHeader


def written_headers(path: str, dataset: str | None, *, settled: bool, known: int = 0) -> list[FrameHeader]:
    """Return headers of the frames that are there, in their order; `n_frames` counts only those.

    Parameters
    ----------
    path : str
        HDF5 file. Of a master file whose data files appear one by one, the datasets that can be reached are counted up
        to the first one that is missing.
    dataset : str, optional
        Dataset, or group of numbered datasets.
    settled : bool
        Whether the file has not changed for a while: the last chunk is then taken as complete.
    known : int
        Number of frames that were there before.

    Returns
    -------
    list of FrameHeader
        One for all frames, or one for each dataset.

    Raises
    ------
    InputError
        The file cannot be read, at least not now, or has no frames that can be reached.
    """
    names: list[str | None] = [dataset]
    with open_hdf5(path) as file:
        try:
            find_frames(file, dataset)
        except InputError:
            names = list(numbered_datasets(file, dataset))
            if not names:
                raise
    headers = []
    for name in names:
        header = read_header(path, name)
        with open_hdf5(path) as file, guarded(path, "a readable HDF5 file"):
            stack = find_stack(file, header.dataset)
            counts = [count_frames(each) for each in stack.datasets]
            there = 0
            for each, count in zip(stack.datasets, counts, strict=True):
                before = min(max(0, known - there), count)
                written = _written(each, count, before, settled)
                there += written
                if written < count:
                    break
        known -= there
        headers.append(header._replace(n_frames=there))
        if there < sum(counts):
            break
    return [header for header in headers if header.n_frames]


def _written(dataset: h5py.Dataset, count: int, known: int, settled: bool) -> int:
    """Count the leading frames that are written; HDF5 itself reads frames that are not as zeros."""
    if dataset.chunks is None or dataset.is_virtual or dataset.ndim < 3:
        return count if settled else known
    axis = next((axis for axis, length in enumerate(dataset.shape[:-2]) if length != 1), 0)
    length = dataset.chunks[axis]
    corner = [0] * dataset.ndim

    def exists(frame: int) -> bool:
        corner[axis] = frame
        return dataset.id.get_chunk_info_by_coord(tuple(corner)).byte_offset is not None

    end = known // length * length
    while end < count and exists(end):
        end += length
    # Nothing tells how many frames of the last chunk are written, where a chunk has several.
    if length > 1 and end > 0 and not settled:
        end -= length
    return max(known, min(end, count))
