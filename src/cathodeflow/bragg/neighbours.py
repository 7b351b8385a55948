"""Neighbours that are added to training patches."""

import numpy as np
import torch
from numpy.typing import NDArray


def draw_neighbours(
    rows: NDArray[np.integer], patch_size: int, overlap: float, random: torch.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw a neighbour for each of the patches `rows`: its row or -1, and its offset (row, col) [px].

    The distance is between 3 px, where two peaks begin to be resolved, and the distance at which a peak leaves the
    patch.
    """
    count = len(rows)
    chosen = torch.rand(count, generator=random).numpy() < overlap
    other = rows[torch.randint(count, (count,), generator=random).numpy()]
    distance = 3 + torch.rand(count, generator=random, dtype=torch.float64).numpy() * (patch_size / 2)
    angle = 2 * np.pi * torch.rand(count, generator=random, dtype=torch.float64).numpy()
    offset = np.rint(np.stack([distance * np.sin(angle), distance * np.cos(angle)], 1)).astype(np.int64)
    return np.where(chosen, other, -1).astype(np.int64), offset
