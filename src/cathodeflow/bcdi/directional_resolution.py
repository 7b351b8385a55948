"""Phase retrieval transfer function and Fourier shell correlation in all directions, and in cones along given ones.

Other than in `cathodeflow.bcdi.resolution`, spatial frequencies are those of the laboratory frame: the skew of the axes
of a scan is not neglected.
"""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cathodeflow.bcdi.ambiguities import align
from cathodeflow.bcdi.figures_of_merit import support_fraction
from cathodeflow.bcdi.operators import fourier
from cathodeflow.bcdi.resolution import Curve, half_bit
from cathodeflow.errors import InputError

Floats = NDArray[np.float64]
#: Name of the curve without a cone.
ALL = "all"
# Minimum number of voxels of a shell within a cone.
_LEAST = 4


def directional_curves(
    objects: Tensor,
    measured: Tensor,
    reciprocal: Floats,
    directions: Mapping[str, Floats],
    *,
    cone_deg: float,
    threshold: float,
    valid: Tensor | None = None,
) -> dict[tuple[str, str], Curve]:
    """Compute the PRTF of all starts, and the FSC of the best two, by frequency and direction.

    Parameters
    ----------
    objects : (n, z, y, x) complex64
        Objects of at least two starts, the best first.
    measured : (z, y, x) float32
        Amplitude.
    reciprocal : (3, 3)
        Rows are the vectors along the axes of the pattern [1/nm], 2 pi included.
    directions : mapping of str to (3,)
        Vectors (x, y, z) by name; a cone has both of their ends.
    cone_deg : float
        Half the opening angle of the cones [degrees].
    threshold : float
        Isosurface level of the support, as a fraction of the maximum amplitude, for the half-bit threshold.
    valid : (z, y, x) bool, optional
        Measured pixels, which enter the PRTF.

    Returns
    -------
    dict of (curve, direction) to Curve
        Curves "PRTF" and "FSC of the best two"; direction "all" first. Shells without measured amplitude end a curve.

    Raises
    ------
    InputError
        Fewer than two objects, or shapes that do not match.
    """
    if objects.ndim != 4 or len(objects) < 2 or objects.shape[1:] != measured.shape:
        raise InputError("objects", f"shape {tuple(objects.shape)}", "two or more objects as large as the pattern")
    aligned = align(objects, objects[0])[0]
    mean = fourier(aligned.mean(0)).abs().numpy().astype(np.float64)
    first, second = (fourier(each).numpy().astype(np.complex128) for each in aligned[:2])
    amplitude = measured.numpy().astype(np.float64)
    known = np.ones(amplitude.shape, bool) if valid is None else valid.numpy()
    filled = float(support_fraction(objects[0], threshold=threshold)) ** (2 / 3)
    shape = measured.shape
    index = np.stack(np.meshgrid(*(np.arange(n) - n // 2 for n in shape), indexing="ij"), axis=-1)
    vectors = index @ (reciprocal / (2 * np.pi))
    length = np.linalg.norm(vectors, axis=-1)
    step = float(np.linalg.norm(reciprocal, axis=1).max() / (2 * np.pi))
    shell = np.rint(length / step).astype(np.intp) - 1
    cosine = math.cos(math.radians(cone_deg))
    cones = {ALL: np.ones(shape, bool)}
    for name, vector in directions.items():
        unit = np.asarray(vector) / np.linalg.norm(vector)
        cones[name] = np.abs(vectors @ unit) >= cosine * length
    common, powers = (first * second.conj()).real, (np.abs(first) ** 2, np.abs(second) ** 2)
    found = {}
    for name, cone in cones.items():
        use = cone & (shell >= 0) & known
        found["PRTF", name] = _curve(shell[use], step, mean[use], amplitude[use])
    for name, cone in cones.items():
        use = cone & (shell >= 0)
        sums = [np.bincount(shell[use], power[use]) for power in powers]
        # Divided by the number of voxels, as the norm of a shell is no sum over them.
        norm = np.sqrt(sums[0] * sums[1]) / np.maximum(np.bincount(shell[use]), 1)
        found["FSC of the best two", name] = _curve(shell[use], step, common[use], norm[shell[use]], filled=filled)
    return found


def _curve(shell: NDArray[np.intp], step: float, above: Floats, below: Floats, *, filled: float | None = None) -> Curve:
    """Ratio of two sums over the voxels of each shell; with `filled` the half-bit threshold, else 1/e.

    The first shells of a cone have few voxels; after them, the curve ends where there is nothing more to compare.
    """
    counts, top, bottom = np.bincount(shell), np.bincount(shell, above), np.bincount(shell, below)
    use = (counts >= _LEAST) & (bottom > 0)
    start = int(use.argmax()) if use.any() else len(counts)
    gaps = np.flatnonzero(~use[start:])
    part = slice(start, start + int(gaps[0]) if len(gaps) else len(counts))
    threshold = np.full(len(counts), 1 / math.e) if filled is None else half_bit(counts * filled)
    return Curve(step * np.arange(1.0, len(counts) + 1)[part], top[part] / bottom[part], threshold[part])
