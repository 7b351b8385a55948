"""Indices of the neighbouring slices that enter a network together."""

from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor


def neighbours_of(slices: NDArray[np.integer], copies: NDArray[np.integer], context: int) -> NDArray[np.int64]:
    """Find the images of the neighbouring slices of each image, in the same augmented copy.

    Parameters
    ----------
    slices, copies : (n,) int
        Slice and copy of each image.
    context : int
        Number of slices, the slice itself included: 1, 3 or 5.

    Returns
    -------
    (n, context) int
        Indices of images; a missing neighbour is replaced by the nearest image.

    Examples
    --------
    >>> neighbours_of(np.array([4, 5, 6]), np.zeros(3, int), 3).tolist()
    [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
    """
    image = {key: row for row, key in enumerate(zip(slices.tolist(), copies.tolist(), strict=True))}
    out = np.empty((len(slices), context), np.int64)
    for (number, copy), row in image.items():
        out[row, context // 2] = row
        for step in (-1, 1):
            nearest = row
            for distance in range(1, context // 2 + 1):
                nearest = image.get((number + step * distance, copy), nearest)
                out[row, context // 2 + step * distance] = nearest
    return out


def with_neighbours(images: NDArray[np.integer], near: NDArray[np.integer]) -> tuple[NDArray[np.int64], Tensor]:
    """List some images followed by those of their neighbours that are not among them.

    Parameters
    ----------
    images : (n,) int
        Numbers of the images, each once.
    near : (n, context) int
        Numbers of the images that enter with each of them.

    Returns
    -------
    wanted : (m,) int
        The images themselves, then further ones.
    position : (n, context) int64
        Where each neighbour is in `wanted`.

    Examples
    --------
    >>> wanted, position = with_neighbours(np.array([4, 5]), np.array([[3, 4, 5], [4, 5, 6]]))
    >>> wanted.tolist(), position.tolist()
    ([4, 5, 3, 6], [[2, 0, 1], [0, 1, 3]])
    """
    wanted = np.concatenate([images, np.setdiff1d(near, images)]).astype(np.int64)
    order = np.argsort(wanted)
    return wanted, torch.from_numpy(order[np.searchsorted(wanted[order], near)].astype(np.int64))


def read_matched(volume: Any, listed: pd.DataFrame) -> tuple[NDArray[np.float32], Tensor]:
    """Read some images and their neighbours, with the intensities that the global network got.

    Parameters
    ----------
    volume : (image, row, col) Dask array
    listed : DataFrame
        Rows of the images in the table that `predict_global` writes: `image`, `neighbours`, `gain`, `offset`.

    Returns
    -------
    images : (m, row, col) float32
        The images themselves, then further neighbours.
    position : (n, context) int64
        Where the neighbours of each image are in `images`.
    """
    near = np.stack(listed["neighbours"].tolist())
    wanted, position = with_neighbours(listed["image"].to_numpy(), near)
    # Neighbours are of the same volume, so all rows that list an image have the same factors.
    factors = np.zeros((len(wanted), 2), np.float32)
    factors[position.numpy()] = listed[["gain", "offset"]].to_numpy(np.float32)[:, None]
    gain, offset = factors.T[..., None, None]
    return volume[wanted].compute().astype(np.float32) * gain + offset, position


def neighbours(n_slices: int, context: int) -> Tensor:
    """Return the slices around each slice of a whole stack; beyond its ends the first or last slice is repeated.

    Returns
    -------
    (n_slices, context) int64

    Examples
    --------
    >>> neighbours(3, 3).tolist()
    [[0, 0, 1], [0, 1, 2], [1, 2, 2]]
    """
    offsets = torch.arange(context) - context // 2
    return (torch.arange(n_slices)[:, None] + offsets).clamp_(0, n_slices - 1)
