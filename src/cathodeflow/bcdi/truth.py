"""The truth of a simulated scan on the voxels of what was prepared and phased."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from cathodeflow.bcdi.sampling import Triple, window_of


def on_voxels(truth: NDArray[np.complexfloating[Any]], shape: Triple, binning: Triple) -> NDArray[np.complex64]:
    """Bring an object that belongs to raw frames to the voxels of a volume that was cut out of them and binned.

    A smaller part of the peak has larger voxels; joining pixels makes the window around the object smaller.

    Parameters
    ----------
    truth : (rocking, row, col) complex
        Its centred transform is sampled as the frames are.
    shape : (int, int, int)
        Of the volume.
    binning : (int, int, int)
        Frames, rows and columns that were joined to one.

    Examples
    --------
    >>> flat = np.zeros((8, 8, 8), complex)
    >>> flat[3:5, 3:5, 3:5] = 1
    >>> bool(np.abs(on_voxels(flat, (4, 8, 8), (2, 1, 1)) - flat[2:6]).max() < 1e-6)
    True
    """
    spectrum = fft.fftshift(fft.fftn(fft.ifftshift(truth), norm="ortho"))
    lengths = [side * joined for side, joined in zip(shape, binning, strict=True)]
    starts = [whole // 2 - length // 2 for whole, length in zip(truth.shape, lengths, strict=True)]
    volume = fft.fftshift(fft.ifftn(fft.ifftshift(window_of(spectrum, starts, lengths)), norm="ortho"))
    starts = [length // 2 - side // 2 for side, length in zip(shape, lengths, strict=True)]
    return window_of(volume, starts, shape).astype(np.complex64)
