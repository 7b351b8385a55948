"""Wave of an object on the detector, and the projections of phase retrieval.

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
        With the norm of the objects (Parseval), of the same precision, on the same device.

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


def intensity(objects: Tensor) -> Tensor:
    """Calculate the far-field intensity |F(o)|^2, (..., z, y, x) real."""
    waves = fourier(objects)
    return waves.real.square() + waves.imag.square()


def project_modulus(objects: Tensor, measured: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Replace the far-field amplitude by the measured one and keep the phase.

    The nearest object with that amplitude (R. W. Gerchberg and W. O. Saxton, Optik 35, 237 (1972)).

    Parameters
    ----------
    objects : (..., z, y, x) complex
    measured : (z, y, x) or (..., z, y, x) float
        Amplitude, at least 0.
    mask : (z, y, x) bool, optional
        True where something was measured; elsewhere the wave stays as it is.

    Returns
    -------
    (..., z, y, x) complex

    Notes
    -----
    Where the wave is 0 its phase is undefined, and it is taken as 0.
    """
    waves = fourier(objects)
    modulus = waves.abs()
    phases = torch.where(modulus > 0, waves / modulus, 1)
    replaced = measured * phases
    return inverse_fourier(replaced if mask is None else torch.where(mask, replaced, waves))


def project_support(objects: Tensor, supports: Tensor) -> Tensor:
    """Set objects (..., z, y, x) to 0 outside their supports, (z, y, x) or (..., z, y, x) bool."""
    return torch.where(supports, objects, 0)


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
    """Find the smallest box (z, y, x) that holds all supports (..., z, y, x) bool; of empty ones, the whole volume."""
    together = supports.reshape(-1, *supports.shape[-3:]).any(0)
    lines = together.any(2)
    box = []
    for filled in (lines.any(1), lines.any(0), together.flatten(0, 1).any(0)):
        places = filled.nonzero().flatten()
        box.append(slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, len(filled)))
    return box[0], box[1], box[2]
