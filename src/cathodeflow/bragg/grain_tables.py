"""Tables of grains and of their spots."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from cathodeflow.bragg.grain_model import STRAINS, Fitted
from cathodeflow.bragg.grain_search import Found
from cathodeflow.bragg.reflections import PARAMETERS, FreeCell

Floats = NDArray[np.float64]

# A reduced chi-square of this many standard deviations above 1 is not due to chance.
_CHANCE = 3.0
_AXES = ("x", "y", "z")
_RESIDUALS = ("row_residual", "col_residual", "omega_residual")
GRAIN_COLUMNS = (
    "grain", "n_spots", "completeness",
    *_AXES, *(f"{axis}_err" for axis in _AXES),
    *(f"rotation_{axis}" for axis in _AXES), *(f"rotation_{axis}_err" for axis in _AXES),
    *PARAMETERS, *(f"{name}_err" for name in PARAMETERS),
    *(f"strain_{name}" for name in STRAINS), *(f"strain_{name}_err" for name in STRAINS),
    "row_rms", "col_rms", "omega_rms", "chi2",
)  # fmt: skip
SPOT_COLUMNS = ("spot", "grain", "h", "k", "l", "row", "col", "omega", *_RESIDUALS)


def grain_table(found: Found, sigma: Floats, free: FreeCell) -> pd.DataFrame:
    """Make the table of the grains, a row each.

    Parameters
    ----------
    found : Found
    sigma : (n, 3) float64
        Standard errors of all spots, without `found.added`.
    free : FreeCell
        Parameters of the cell that were fitted.

    Returns
    -------
    DataFrame
        `GRAIN_COLUMNS`: position [mm], rotation vector (axis times angle [rad]) from the crystal's Cartesian frame to
        that of the sample, cell [Angstrom, deg], strain; standard errors, 0 for what the symmetry fixes, NaN for what
        the spots do not determine.
    """
    rows = []
    for number, (fit, strained, spots) in enumerate(found.grains):
        total = np.hypot(sigma[spots.spot], found.added)
        chi2, factor = _chi2(fit, total)
        errors = np.sqrt(np.diag(fit.covariance) * factor)
        vector = Rotation.from_matrix(fit.grain.orientation)
        # The covariance is that of a turn after the rotation; the vector changes with it as its left Jacobian.
        jacobian = _vector_change(vector.as_rotvec())
        turn = jacobian @ fit.covariance[:3, :3] @ jacobian.T * factor
        cell = free.matrix @ fit.covariance[6:, 6:] @ free.matrix.T * factor
        if strained is None:
            strain, strain_errors = np.full((3, 3), np.nan), np.full(6, np.nan)
        else:
            strain = strained.grain.strain
            strain_errors = np.sqrt(np.diag(strained.covariance)[6:] * _chi2(strained, total)[1])
        components = [strain[("xyz".index(name[0]), "xyz".index(name[1]))] for name in STRAINS]
        rms = np.sqrt(np.mean(fit.residuals**2, axis=0))
        values = [number, len(spots.spot), len(spots.spot) / max(spots.expected, 1)]
        values += [*fit.grain.position, *errors[3:6], *vector.as_rotvec(), *np.sqrt(np.diag(turn))]
        values += [*fit.grain.cell, *np.sqrt(np.diag(cell)), *components, *strain_errors, *rms, chi2]
        rows.append(values)
    table = pd.DataFrame(rows, columns=list(GRAIN_COLUMNS), dtype=np.float64)
    return table.astype({"grain": np.int64, "n_spots": np.int64})


def grain_spot_table(found: Found, number: NDArray[np.integer], place: Floats) -> pd.DataFrame:
    """Make the table of the spots of all grains, a row each.

    Parameters
    ----------
    found : Found
    number : (n,) int
        Number of each spot in the table of spots.
    place : (n, 3) float64
        Measured row, col [px] and omega [deg].

    Returns
    -------
    DataFrame
        `SPOT_COLUMNS`; residuals are measured minus expected [px, deg].
    """
    parts = []
    for index, (fit, _, spots) in enumerate(found.grains):
        columns = {"spot": number[spots.spot], "grain": np.full(len(spots.spot), index)}
        columns |= dict(zip("hkl", spots.hkl.T, strict=True))
        columns |= dict(zip(("row", "col", "omega"), place[spots.spot].T, strict=True))
        columns |= dict(zip(_RESIDUALS, fit.residuals.T, strict=True))
        parts.append(pd.DataFrame(columns))
    empty = pd.DataFrame({name: np.zeros(0, np.int64 if name in SPOT_COLUMNS[:5] else float) for name in SPOT_COLUMNS})
    return pd.concat(parts, ignore_index=True) if parts else empty


def _chi2(fit: Fitted, sigma: Floats) -> tuple[float, float]:
    """Return the reduced chi-square, and the factor of the covariance: 1 unless chi-square is above chance."""
    freedom = max(float(np.sum(1 - fit.leverage)), 1.0)
    chi2 = float(np.sum((fit.residuals / sigma) ** 2) / freedom)
    return chi2, chi2 if chi2 > 1 + _CHANCE * np.sqrt(2 / freedom) else 1.0


def _vector_change(vector: Floats) -> Floats:
    """Return the change of a rotation vector by a small turn after the rotation, d vector / d turn (3, 3).

    The inverse of the left Jacobian of SO(3) (Sola, Deray & Atchuthan, arXiv:1812.01537, equation 146).
    """
    angle = float(np.linalg.norm(vector))
    x, y, z = vector
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    if angle < 1e-6:
        return np.eye(3) - cross / 2
    factor = 1 / angle**2 - (1 + np.cos(angle)) / (2 * angle * np.sin(angle))
    return np.asarray(np.eye(3) - cross / 2 + factor * cross @ cross)
