"""Compiled passes of the phasing loop for CPUs: each reads and writes every number once, in blocks that fit a cache.

Complex numbers are pairs of float32 where the arithmetic is vectorised, and complex64 where they are only moved.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Complexes = NDArray[np.complex64]

#: Value of the measured amplitude where there is no constraint.
UNMEASURED = np.float32(-1)

# Numbers per block: the factors of a block, 16 KB, stay in the first cache between two loops. In one loop the
# compiler does not vectorise the division.
_BLOCK = 4096


@njit(nogil=True, cache=True, fastmath=True, error_model="numpy")
def project(waves: Floats, amplitude: Floats, least: np.float32, poisson: bool) -> float:
    """Scale waves to the measured modulus in place; return the squared distance of their modulus before.

    Parameters
    ----------
    waves : (2 n,) float32
        Real and imaginary parts.
    amplitude : (n,) float32
        Measured amplitude, `UNMEASURED` where there is none.
    least : float32
        Added to the intensity, which avoids 0 / 0.
    poisson : bool
        Project by the proximity operator of the Poisson likelihood (Soulez et al. 2016, section 3.B).
    """
    total = 0.0
    factors = np.empty(_BLOCK, np.float32)
    zero, one, eight, quarter = np.float32(0), np.float32(1), np.float32(8), np.float32(0.25)
    for start in range(0, len(amplitude), _BLOCK):
        wanted = amplitude[start : start + _BLOCK]
        wave = waves[2 * start : 2 * (start + _BLOCK)]
        squares = zero
        for i in range(len(wanted)):
            modulus = np.sqrt(wave[2 * i] * wave[2 * i] + wave[2 * i + 1] * wave[2 * i + 1] + least)
            difference = modulus - wanted[i]
            squares += difference * difference if wanted[i] >= zero else zero
            factors[i] = wanted[i] / modulus if wanted[i] >= zero else one
            if poisson:
                root = np.sqrt(modulus * modulus + eight * wanted[i] * wanted[i])
                factors[i] = quarter * (modulus + root) / modulus if wanted[i] >= zero else one
        for i in range(len(wanted)):
            wave[2 * i] *= factors[i]
            wave[2 * i + 1] *= factors[i]
        total += float(squares)
    return total


@njit(nogil=True, cache=True, fastmath=True)
def mix(columns: Floats, back: Floats, keep: np.float32, share: np.float32) -> None:
    """Set columns to keep * columns + share * back, all (n,) float32."""
    for i in range(len(columns)):
        columns[i] = keep * columns[i] + share * back[i]


@njit(nogil=True, cache=True)
def add_planes(columns: Complexes, planes: Complexes, first: int) -> None:
    """Add planes (x, z of the box, y) to columns (x, y, z); the box begins at z index `first`."""
    for x in range(columns.shape[0]):
        for y in range(columns.shape[1]):
            for z in range(planes.shape[1]):
                columns[x, y, first + z] += planes[x, z, y]


@njit(nogil=True, cache=True)
def take_planes(columns: Complexes, planes: Complexes, first: int) -> None:
    """Copy the planes of the box out of columns; the arrays are as in `add_planes`."""
    for x in range(columns.shape[0]):
        for z in range(planes.shape[1]):
            for y in range(columns.shape[1]):
                planes[x, z, y] = columns[x, y, first + z]


@njit(nogil=True, cache=True)
def take_lines(planes: Complexes, lines: Complexes, first: int) -> None:
    """Copy lines (z, y of the box, x) out of planes (x, z, y); the box begins at y index `first`."""
    for z in range(lines.shape[0]):
        for x in range(lines.shape[2]):
            for y in range(lines.shape[1]):
                lines[z, y, x] = planes[x, z, first + y]


@njit(nogil=True, cache=True)
def put_lines(lines: Complexes, planes: Complexes, first: int) -> None:
    """Insert lines into planes; the arrays are as in `take_lines`."""
    for z in range(lines.shape[0]):
        for x in range(lines.shape[2]):
            for y in range(lines.shape[1]):
                planes[x, z, first + y] = lines[z, y, x]


@njit(nogil=True, cache=True)
def update(
    lines: Complexes, x: Complexes, allowed: NDArray[np.bool_], first_x: int, keep: np.float32, share: np.float32
) -> None:
    """Replace the projected object by its update u, and x by keep * x + share * y + u, in the box.

    Parameters
    ----------
    lines : (z, y, whole x) complex64
        Projected object y; becomes u, 0 outside the box.
    x : (z, y, x) complex64
        Iterate in the box.
    allowed : (z, y, x) bool
        Support: u = (1 - share) * y - keep * x there, else 0.
    first_x : int
        Index of the box in the lines.
    keep, share : float32
    """
    inside, zero = np.float32(1) - share, np.complex64(0)
    for i in range(lines.shape[0]):
        for j in range(lines.shape[1]):
            lines[i, j, :first_x] = zero
            lines[i, j, first_x + x.shape[2] :] = zero
            for k in range(x.shape[2]):
                y, old = lines[i, j, first_x + k], x[i, j, k]
                if allowed[i, j, k]:
                    lines[i, j, first_x + k] = inside * y - keep * old
                    x[i, j, k] = y
                else:
                    lines[i, j, first_x + k] = zero
                    x[i, j, k] = keep * old + share * y
