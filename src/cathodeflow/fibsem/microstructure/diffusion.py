"""Steady-state diffusion through a mask of voxels: red-black over-relaxation, compiled for CPUs.

The kernels are serial and release the interpreter lock: phases and directions are solved beside each other.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Sweeps between two looks at the convergence.
_SWEEPS = 50


class Diffusion(NamedTuple):
    """Solution: relative effective diffusivity, and whether it has converged."""

    diffusivity: float
    converged: bool


def solve_diffusion(
    mask: NDArray[np.bool_], ratios: tuple[float, float], *, convergence: float, max_sweeps: int
) -> Diffusion:
    """Solve the diffusion along the first axis of a mask that percolates, between concentrations of -1/2 and 1/2.

    The equations, the boundary conditions and the factor of over-relaxation are those of TauFactor. The effective
    diffusivity is that of the dissipation, whose error is of second order in the error of the concentrations.

    Parameters
    ----------
    mask : (n, m, k) bool
        Voxels that conduct, all with the same diffusivity.
    ratios : (float, float)
        Squared ratios of the voxel size along the first axis to those along the others.
    convergence : float
        Maximum relative difference between the fluxes through the layers.
    max_sweeps : int
    """
    n = mask.shape[0]
    conducting = np.pad(mask, 1)
    field = np.zeros(conducting.shape)
    linear = (np.arange(n) + 0.5) / n - 0.5
    field[1:-1] = np.where(conducting[1:-1], linear[:, None, None], 0)
    # The sides lie half a voxel from the first and the last voxel, so that they count twice.
    field[0], field[-1] = -1.0, 1.0
    weights = np.array([1.0, *ratios])
    strides = np.array([step // field.itemsize for step in field.strides], np.int64)
    places = np.flatnonzero(conducting.ravel())
    parity = np.indices(conducting.shape, sparse=True)
    odd = ((parity[0] + parity[1] + parity[2]) % 2).astype(np.bool_).ravel()[places]
    flat, known = field.ravel(), conducting.ravel()
    colours = [(own, _inverse(known, own, strides, weights, n)) for own in (places[~odd], places[odd])]
    omega = 2 - math.pi / (1.5 * n)
    done, converged = 0, False
    while not converged and done < max_sweeps:
        for _ in range(_SWEEPS):
            for own, inverse in colours:
                _relax(flat, own, inverse, strides, weights, omega)
        done += _SWEEPS
        flux = _fluxes(flat, known, places, strides, n)
        converged = bool(flux.max() - flux.min() < convergence * flux.max())
    return Diffusion(_dissipation(flat, known, places, strides, weights, n) * n / mask[0].size, converged)


@njit(nogil=True, cache=True)
def _inverse(known: Any, places: Any, strides: Any, weights: Any, n: int) -> Any:
    """One over the sum of the weights of the conducting neighbours of each voxel."""
    found = np.empty(places.size, np.float32)
    for i in range(places.size):
        p = places[i]
        layer = p // strides[0]
        total = 0.0
        for k in range(3):
            total += weights[k] * (known[p - strides[k]] + known[p + strides[k]])
        total += 2 * weights[0] * ((layer == 1) + (layer == n))
        found[i] = 1 / total if total > 0 else 0
    return found


@njit(nogil=True, cache=True, fastmath=True)
def _relax(field: Any, places: Any, inverse: Any, strides: Any, weights: Any, omega: Any) -> None:
    """Relax the voxels of one colour; voxels that do not conduct hold 0 and add nothing."""
    s0, s1, s2 = strides
    w1, w2 = weights[1], weights[2]
    for i in range(places.size):
        p = places[i]
        around = (
            field[p - s0] + field[p + s0] + w1 * (field[p - s1] + field[p + s1]) + w2 * (field[p - s2] + field[p + s2])
        )
        field[p] += omega * (around * inverse[i] - field[p])


@njit(nogil=True, cache=True)
def _fluxes(field: Any, known: Any, places: Any, strides: Any, n: int) -> Any:
    """Fluxes through the sides and between the layers: (n + 1,)."""
    found = np.zeros(n + 1)
    for p in places:
        layer = p // strides[0]
        if layer == 1:
            found[0] += 2 * (field[p] + 0.5)
        if layer == n:
            found[n] += 2 * (0.5 - field[p])
        if known[p + strides[0]]:
            found[layer] += field[p + strides[0]] - field[p]
    return found


@njit(nogil=True, cache=True)
def _dissipation(field: Any, known: Any, places: Any, strides: Any, weights: Any, n: int) -> float:
    """Sum of the weighted squared differences between neighbours, and to the sides."""
    total = 0.0
    for p in places:
        layer = p // strides[0]
        if layer == 1:
            total += 2 * (field[p] + 0.5) ** 2
        if layer == n:
            total += 2 * (0.5 - field[p]) ** 2
        for k in range(3):
            if known[p + strides[k]]:
                total += weights[k] * (field[p + strides[k]] - field[p]) ** 2
    return total
