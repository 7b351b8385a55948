"""Random generators and keys of trainings, and the checkpoints from which an interrupted training is resumed."""

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from cathodeflow.errors import InputError
from cathodeflow.io.models import load_checkpoint
from cathodeflow.seeds import derived_seed

LOG = logging.getLogger(__name__)


def generator(seed: int, *stream: int) -> torch.Generator:
    """Return a generator that depends on a seed and, for example, the number of an epoch."""
    return torch.Generator().manual_seed(derived_seed(seed, *stream))


def training_key(*parts: Any) -> str:
    """Compute the digest of everything that affects the result of a training.

    Parameters
    ----------
    *parts
        Arrays, tensors, mappings of names to tensors, and anything JSON can hold: options, data, initial weights.

    Returns
    -------
    str
        Differs if a value, a shape, a type or the order of the parts differs.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Mapping) and part and all(isinstance(value, Tensor) for value in part.values()):
            for name, tensor in part.items():
                digest.update(f"{name}:".encode())
                _add_array(digest, _bytes(tensor), tensor)
        elif isinstance(part, Tensor):
            _add_array(digest, _bytes(part), part)
        elif isinstance(part, np.ndarray):
            _add_array(digest, np.ascontiguousarray(part), part)
        else:
            digest.update(json.dumps(part, sort_keys=True, default=str).encode() + b";")
    return digest.hexdigest()


def _add_array(digest: "hashlib._Hash", content: np.ndarray, of: Tensor | np.ndarray) -> None:
    digest.update(f"{tuple(of.shape)}{of.dtype};".encode())
    digest.update(content.tobytes() if content.ndim == 0 else content.data)


def _bytes(tensor: Tensor) -> np.ndarray:
    # As bytes, because NumPy has no bfloat16; flat, because a scalar has no last axis to split.
    return cast(np.ndarray, tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy())


def matching_checkpoint(path: str | os.PathLike[str], key: str) -> dict[str, Any] | None:
    """Read a checkpoint if it exists, is complete and belongs to the same training; otherwise log the reason."""
    if not Path(path).is_file():
        return None
    try:
        content = load_checkpoint(path)
    except InputError as error:
        LOG.warning("%s; training starts again", error)
        return None
    if content.get("key") != key:
        LOG.info("%s belongs to other data or options; training starts again", path)
        return None
    return content
