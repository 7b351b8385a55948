"""Detector counts of a crystal's coherent diffraction: photons, coherence, noise, bad pixels."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.fft import fftn, fftshift
from scipy.ndimage import gaussian_filter

from cathodeflow.bcdi.polyhedra import Floats
from cathodeflow.errors import InputError


class Pattern(NamedTuple):
    """Counts (z, y, x) int32 of a rocking scan, and mask (y, x) of the good pixels."""

    counts: NDArray[np.int32]
    good: NDArray[np.bool_]


def expected_intensity(
    amplitude: Floats, phase: Floats, *, photons: float, coherence: float, background: float
) -> Floats:
    """Mean counts of an object's far field, |F|^2 with the unitary transform, zero frequency at n // 2.

    Parameters
    ----------
    amplitude, phase : (z, y, x)
        Object; phase [rad].
    photons : float
        Photons in the whole window without background, to which the object is scaled by Parseval's theorem.
    coherence : float
        Partial coherence: standard deviation of the Gaussian that blurs the intensity [voxel]. The number of photons
        is unchanged.
    background : float
        Background of every voxel [counts].

    Returns
    -------
    (z, y, x) float32

    Raises
    ------
    InputError
        A number is negative, or the object is 0.
    """
    for name, value in (("photons", photons), ("coherence", coherence), ("background", background)):
        if not (np.isfinite(value) and value >= 0):
            raise InputError(name, f"{value}", "at least 0")
    power = float(np.sum(amplitude * amplitude, dtype=np.float64))
    if power == 0:
        raise InputError("amplitude", "0 everywhere", "an object")
    field = np.exp(np.complex64(1j) * phase)
    field *= amplitude
    # The position of the object does not affect the intensity, so the object is not moved.
    transform = fftn(field, norm="ortho", overwrite_x=True)
    intensity = transform.real**2
    intensity += transform.imag**2
    intensity *= np.float32(photons / power)
    if coherence > 0:
        # The transform is periodic, so the total is preserved.
        intensity = gaussian_filter(intensity, coherence, mode="wrap")
    intensity += np.float32(background)
    return fftshift(intensity)


def detector_mask(
    shape: tuple[int, int],
    *,
    stop_radius: float,
    row_gaps: Sequence[tuple[int, int]] = (),
    col_gaps: Sequence[tuple[int, int]] = (),
) -> NDArray[np.bool_]:
    """Pixels (y, x) that are illuminated: outside the beam stop and the gaps between modules.

    Parameters
    ----------
    shape : (int, int)
        Rows and columns.
    stop_radius : float
        Radius of the disc around the centre of the peak, n // 2 [px]; 0: no beam stop.
    row_gaps, col_gaps : sequence of (int, int)
        First row (column) of each gap and the first one after it.

    Raises
    ------
    InputError
        A negative radius or a gap that is not on the detector.

    Examples
    --------
    >>> detector_mask((4, 4), stop_radius=0.5, col_gaps=[(0, 1)]).sum(axis=1).tolist()
    [3, 3, 2, 3]
    """
    if not stop_radius >= 0:
        raise InputError("stop_radius", f"{stop_radius} px", "at least 0")
    row, col = (np.arange(n) - n // 2 for n in shape)
    good = np.ones(shape, dtype=bool)
    if stop_radius:
        good = np.hypot(row[:, None], col) > stop_radius
    for gaps, lines in ((row_gaps, good), (col_gaps, good.T)):
        for start, stop in gaps:
            if not 0 <= start < stop <= len(lines):
                raise InputError("gaps", f"({start}, {stop})", f"a range within 0 to {len(lines)}")
            lines[start:stop] = False
    return good


def measure(
    intensity: Floats,
    *,
    rng: np.random.Generator,
    good: NDArray[np.bool_] | None = None,
    hot_fraction: float,
) -> Pattern:
    """Count photons: Poisson noise of the intensity, no counts at masked pixels, hot pixels.

    Parameters
    ----------
    intensity : (z, y, x)
        Mean counts.
    rng : Generator
    good : (y, x) bool, optional
        Pixels that are illuminated; the others have 0 counts.
    hot_fraction : float
        Fraction of hot pixels, which have excess counts in all frames: log-uniform from 10 to the
        intensity's maximum, with its own Poisson noise.

    Returns
    -------
    Pattern
        Hot pixels are marked as bad.

    Raises
    ------
    InputError
        The intensity is negative or not finite, the mask has another size, or the fraction is not between 0 and 1.
    """
    lowest, highest = float(intensity.min()), float(intensity.max())
    if not (lowest >= 0 and highest < np.iinfo(np.int32).max / 2):
        raise InputError("intensity", f"values from {lowest:.3g} to {highest:.3g}", "0 to 1e9 counts")
    shape = intensity.shape[1:]
    if good is not None and good.shape != shape:
        raise InputError("good", f"shape {good.shape}", f"that of a frame, {shape}")
    if not 0 <= hot_fraction <= 1:
        raise InputError("hot_fraction", f"{hot_fraction}", "0 to 1")
    counts = rng.poisson(intensity).astype(np.int32)
    good = np.ones(shape, dtype=bool) if good is None else good.copy()
    counts[:, ~good] = 0
    hot = rng.choice(good.size, round(hot_fraction * good.size), replace=False)
    hot = hot[good.flat[hot]]
    if len(hot):
        rates = np.exp(rng.uniform(np.log(10), np.log(max(highest, 20.0)), len(hot)))
        counts.reshape(len(counts), -1)[:, hot] += rng.poisson(rates, (len(counts), len(hot))).astype(np.int32)
        good.flat[hot] = False
    return Pattern(counts, good)
