"""Fourier transform between object and detector, and limits of the phase and the extent of an object.

Objects and waves are complex (..., z, y, x) with the object's centre and the zero frequency at index n // 2 of every
axis. The Fourier transform is unitary, with the sign of numpy's `fftn` from object to detector; axes before the last
three are a batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

#: Axes of a volume (..., z, y, x).
VOLUME = (-3, -2, -1)


def fourier(objects: Tensor) -> Tensor:
    """Propagate objects to the far field.

    Parameters
    ----------
    objects : (..., z, y, x) complex or float

    Returns
    -------
    (..., z, y, x) complex
        With the norm of the objects (Parseval), and their precision and device.

    Examples
    --------
    >>> point = torch.zeros(4, 4, 4)
    >>> point[2, 2, 2] = 8
    >>> bool((fourier(point) == 1).all())
    True
    """
    waves = torch.fft.fftn(torch.fft.ifftshift(objects, VOLUME), dim=VOLUME, norm="ortho")
    return torch.fft.fftshift(waves, VOLUME)


def inverse_fourier(waves: Tensor) -> Tensor:
    """Propagate waves (..., z, y, x) on the detector back: inverse and adjoint of `fourier`."""
    objects = torch.fft.ifftn(torch.fft.ifftshift(waves, VOLUME), dim=VOLUME, norm="ortho")
    return torch.fft.fftshift(objects, VOLUME)


def amplitude(objects: Tensor) -> Tensor:
    """Calculate the far-field amplitude |F(o)|, (..., z, y, x) real."""
    return fourier(objects).abs()


def within_phase(objects: Tensor, limits: Sequence[float]) -> Tensor:
    """Find the voxels whose phase lies between two limits.

    Parameters
    ----------
    objects : (..., z, y, x) complex
    limits : (lowest, highest)
        Between -pi and pi [rad].

    Returns
    -------
    (..., z, y, x) bool
    """
    phases = objects.angle()
    return (phases >= limits[0]) & (phases <= limits[1])


def bounding_box(supports: Tensor) -> tuple[slice, slice, slice]:
    """Find the smallest box (z, y, x) that contains all supports (..., z, y, x) bool; if empty, the whole volume."""
    together = supports.reshape(-1, *supports.shape[-3:]).any(0)
    lines = together.any(2)
    box = []
    for filled in (lines.any(1), lines.any(0), together.flatten(0, 1).any(0)):
        places = filled.nonzero().flatten()
        box.append(slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, len(filled)))
    return box[0], box[1], box[2]
