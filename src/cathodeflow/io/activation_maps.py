"""explain.h5: class activation maps of crops and of whole images, with their pixels."""

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import hdf5plugin
import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.io.guard import guarded
from cathodeflow.io.hdf5 import new_dataset, new_hdf5, open_hdf5, read_array


class ActivationMaps(NamedTuple):
    """Class activation maps: non-negative, in any unit.

    crops : (n, side, side) uint8, crops as the network takes them.
    crop_maps : (n, h, w) float32, of the size of the network's feature maps.
    images : sequence of (rows, cols) uint8, whole images without information bar.
    image_maps : sequence of (rows, cols) float32, one per image.
    """

    crops: NDArray[np.uint8]
    crop_maps: NDArray[np.float32]
    images: Sequence[NDArray[np.uint8]]
    image_maps: Sequence[NDArray[np.float32]]


def write_activation_maps(path: str | os.PathLike[str], maps: ActivationMaps, *, requested: int) -> None:
    """Write class activation maps.

    Parameters
    ----------
    path : path
        HDF5 file: `crops`, `crop_maps`, and for every whole image `images/1`, `image_maps/1` and so on.
    maps : ActivationMaps
    requested : int
        Number of requested whole images; there may be fewer. An attribute of the file.
    """
    with new_hdf5(path) as file:
        file.attrs["requested"] = requested
        arrays: dict[str, NDArray[Any]] = {"crops": maps.crops, "crop_maps": maps.crop_maps}
        arrays |= {f"images/{number}": image for number, image in enumerate(maps.images, start=1)}
        arrays |= {f"image_maps/{number}": values for number, values in enumerate(maps.image_maps, start=1)}
        for name, array in arrays.items():
            new_dataset(file, name, array, **hdf5plugin.Bitshuffle(cname="lz4"))
            file.require_room()


def read_activation_maps(path: str | os.PathLike[str]) -> tuple[ActivationMaps, int]:
    """Read class activation maps, and the number of requested whole images.

    Raises
    ------
    InputError
        The file is missing, damaged, or has other content.
    """
    expected = "class activation maps (explain.h5)"
    with open_hdf5(path) as file, guarded(path, expected):
        if "requested" not in file.attrs:
            raise InputError(path, "no attribute requested", expected)
        numbers = range(1, len(file.get("images", ())) + 1)
        images, image_maps = ([read_array(file, f"{kind}/{n}") for n in numbers] for kind in ("images", "image_maps"))
        maps = ActivationMaps(read_array(file, "crops"), read_array(file, "crop_maps"), images, image_maps)
        return maps, int(file.attrs["requested"])
