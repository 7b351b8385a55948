"""Write simulated raw data in the formats of beamlines and microscopes."""

import os
from collections.abc import Iterable
from pathlib import Path

import hdf5plugin
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cathodeflow.io.atomic import atomic_path
from cathodeflow.io.hdf5 import new_dataset, new_hdf5

#: Location of the detector frames in a NeXus file.
NEXUS_DATA = "/entry/data/data"


def write_tiff_series(folder: str | os.PathLike[str], frames: Iterable[NDArray[np.uint16]]) -> list[Path]:
    """Write one TIFF file for each frame: `frame_00000.tif`, `frame_00001.tif`, and so on.

    Parameters
    ----------
    folder : path
        Created if it does not exist.
    frames : iterable of (row, col) uint16
        Taken one at a time.

    Returns
    -------
    list of Path
        The files, in order.
    """
    paths = []
    for number, image in enumerate(frames):
        paths.append(Path(folder) / f"frame_{number:05d}.tif")
        write_tiff(paths[-1], image)
    return paths


def write_tiff(path: str | os.PathLike[str], image: NDArray[np.generic]) -> None:
    """Write an image (row, col) of any numeric type as a TIFF file; equal images give equal bytes."""
    with atomic_path(path) as temporary:
        tifffile.imwrite(temporary, image, metadata=None, software=False, compression="zlib")


def write_jpeg(path: str | os.PathLike[str], image: NDArray[np.uint8], *, quality: int = 92) -> None:
    """Write a grey image (row, col) as a JPEG file of three equal channels; equal images give equal bytes."""
    with atomic_path(path) as temporary:
        Image.fromarray(image).convert("RGB").save(temporary, format="JPEG", quality=quality)


def write_micrograph(path: str | os.PathLike[str], image: NDArray[np.uint8], *, sidecar: str) -> None:
    """Write a grey image (row, col) as JPEG or TIFF, by the suffix of `path`, and its sidecar as `PATH.txt`."""
    if Path(path).suffix.lower() in (".jpg", ".jpeg"):
        write_jpeg(path, image)
    else:
        write_tiff(path, image)
    with atomic_path(f"{os.fspath(path)}.txt") as temporary:
        temporary.write_text(sidecar, encoding="utf-8")


def write_nexus_series(
    path: str | os.PathLike[str], frames: Iterable[NDArray[np.uint16]], *, n_frames: int, shape: tuple[int, int]
) -> None:
    """Write frames as `/entry/data/data` (frame, row, col) of a NeXus file, with one compressed chunk per frame.

    Parameters
    ----------
    path : path
    frames : iterable of (row, col) uint16
        `n_frames` frames of this `shape`, taken one at a time.
    """
    with new_hdf5(path) as file:
        for group, kind in (("/entry", "NXentry"), ("/entry/data", "NXdata")):
            file.require_group(group).attrs["NX_class"] = kind
        file["/entry"].attrs["default"] = "data"
        file["/entry/data"].attrs["signal"] = "data"
        data = new_dataset(
            file,
            NEXUS_DATA,
            shape=(n_frames, *shape),
            dtype=np.uint16,
            chunks=(1, *shape),
            **hdf5plugin.Bitshuffle(cname="lz4"),
        )
        data.attrs["units"] = "counts"
        for number, image in enumerate(frames):
            data[number] = image
