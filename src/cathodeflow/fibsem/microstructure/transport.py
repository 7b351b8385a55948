"""Effective diffusivity and tortuosity factor of a phase: TauFactor, or the same equations compiled for CPUs."""

import contextlib
import io
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cathodeflow.fibsem.microstructure.connectivity import percolating
from cathodeflow.fibsem.microstructure.diffusion import solve_diffusion

#: Note of a phase that does not percolate.
NOT_PERCOLATING = "does not percolate"
# Iterations of TauFactor, which relax every other voxel; a sweep relaxes all.
_ITERATIONS = 10_000


class Transport(NamedTuple):
    """Transport through a phase along an axis.

    tortuosity : float
        Tortuosity factor: volume fraction over relative effective diffusivity; `inf` without percolation, NaN without
        the phase.
    diffusivity : float
        Effective diffusivity relative to that of the bulk.
    note : str
        What a reader must know: no percolation, or no convergence.
    """

    tortuosity: float
    diffusivity: float
    note: str = ""


def transport(
    mask: NDArray[np.bool_],
    axis: int,
    size: Sequence[float],
    *,
    convergence: float,
    solver: Literal["compiled", "taufactor"],
    device: str | None = None,
) -> Transport:
    """Solve the steady-state diffusion through a phase, between fixed concentrations on the two sides of the volume.

    Only the percolating part conducts, so that the solver gets no phase that it never converges for; the volume
    fraction is that of the whole phase. The equations are those of TauFactor [1]_.

    Parameters
    ----------
    mask : (z, y, x) bool
        The phase. A single slice is solved in two dimensions.
    axis : int
        Axis of the transport, with at least two voxels.
    size : (3,)
        Size of a voxel along z, y, x.
    convergence : float
        Maximum relative difference between the fluxes through the layers of the volume.
    solver : {"compiled", "taufactor"}
        TauFactor, which also runs on GPUs, or the same equations compiled for the voxels that conduct.
    device : str, optional
        Of torch, for TauFactor: `cpu`, the default, or `cuda` for a GPU.

    References
    ----------
    .. [1] S. Kench, I. Squires, S. Cooper, TauFactor 2, J. Open Source Softw. 8 (2023) 5358, doi:10.21105/joss.05358
    """
    fraction = float(mask.mean())
    if not fraction:
        return Transport(math.nan, math.nan, "phase absent")
    through = percolating(mask, axis)
    if not through.any():
        return Transport(math.inf, 0.0, NOT_PERCOLATING)
    if through.all():
        # A volume of a single phase: the field is linear.
        return Transport(1.0, 1.0)
    # A view with the axis of the transport first.
    image = np.ascontiguousarray(np.moveaxis(through, axis, 0))
    spacing = [float(size[axis]), *(float(step) for k, step in enumerate(size) if k != axis)]
    if solver == "taufactor":
        diffusivity, converged = _taufactor(image, spacing, convergence, device or "cpu")
    else:
        ratios = ((spacing[0] / spacing[1]) ** 2, (spacing[0] / spacing[2]) ** 2)
        diffusivity, converged = solve_diffusion(image, ratios, convergence=convergence, max_sweeps=_ITERATIONS // 2)
    if not diffusivity > 0:
        return Transport(math.inf, 0.0, NOT_PERCOLATING)
    note = "" if converged else f"not converged after {_ITERATIONS} iterations"
    return Transport(fraction / diffusivity, diffusivity, note)


def _taufactor(image: NDArray[np.bool_], spacing: list[float], convergence: float, device: str) -> tuple[float, bool]:
    # Slow to import, and with it torch.
    import taufactor
    import torch

    # It prints that it has not converged.
    with contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
        if max(spacing) - min(spacing) <= 1e-9 * max(spacing):
            solver = taufactor.Solver(image.astype(np.uint8), device=device)
        else:
            solver = taufactor.AnisotropicSolver(image.astype(np.uint8), spacing, device=device)
        solver.solve(iter_limit=_ITERATIONS, verbose=False, conv_crit=convergence)
    return float(solver.D_rel), bool(solver.converged)
