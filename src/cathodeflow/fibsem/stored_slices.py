"""Images of a store that are read when a training needs them, so that memory does not grow with their number."""

import os

import numpy as np
import torch
from torch import Tensor


class StoredSlices:
    """Images (image, row, col) of a store, indexed by tensors like a tensor in memory.

    Parameters
    ----------
    path : path
        Zarr store with its manifest.

    Raises
    ------
    InputError
        There is no such store, or files of it are missing, changed or added.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Trainings on other machines, from tensors in memory, have no Zarr.
        from cathodeflow.io.manifests import manifest_path
        from cathodeflow.io.tables import read_json
        from cathodeflow.io.zarr_stores import open_array

        self._array = open_array(path)
        self.shape = torch.Size(self._array.shape)
        #: Digest of the contents.
        self.digest: str = read_json(manifest_path(path))["digest"]

    def __getitem__(self, rows: Tensor) -> Tensor:
        """Read the images of some numbers, each once: (*rows.shape, row, col)."""
        numbers, inverse = np.unique(rows.numpy(), return_inverse=True)
        images = np.stack([np.asarray(self._array[int(number)]) for number in numbers])
        return torch.from_numpy(images[inverse.reshape(rows.shape)])
