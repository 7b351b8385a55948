"""Extents, strain and resolution of a particle with their spread over the starts that found the same object."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from torch import Tensor

from cathodeflow.bcdi.ambiguities import align, centred
from cathodeflow.bcdi.figures_of_merit import support_of
from cathodeflow.bcdi.geometry import Geometry, ScanVectors
from cathodeflow.bcdi.options import Strain
from cathodeflow.bcdi.resolution import prtf
from cathodeflow.bcdi.strain_fields import depth_statistics, particle, particle_metrics

COLUMNS = ["quantity", "unit", "value", "spread", "lowest", "highest", "starts"]
_UNITS = {
    "extent_z_nm": "nm",
    "extent_y_nm": "nm",
    "extent_x_nm": "nm",
    "volume_nm3": "nm^3",
    "strain_deviation": "1",
    "strain_q05": "1",
    "strain_q95": "1",
    "mean_prtf": "1",
    "voxels": "voxel",
}


def spread_of_starts(
    objects: Tensor,
    amplitude: Tensor,
    mask: Tensor,
    geometry: Geometry | ScanVectors | None,
    options: Strain,
    *,
    binning: tuple[int, int, int],
    voxel_nm: ArrayLike,
) -> pd.DataFrame:
    """Measure every object, and give the value of the first with the spread over all.

    Each start has its own random numbers, so that the spread over the starts is that over seeds, too. The PRTF is that
    of all objects; its spread is the jackknife's, from leaving out each in turn [1]_.

    Parameters
    ----------
    objects : (n, z, y, x) complex64
        The best first; of one particle.
    amplitude, mask : (z, y, x)
    geometry : Geometry, optional
        Without it, sizes are in voxels of the scan and there is no strain.
    options : Strain
    binning : (int, int, int)
    voxel_nm : (3,)
        Size of a voxel, for the PRTF.

    Returns
    -------
    DataFrame
        `COLUMNS`; the spread is the standard deviation, NaN for a single start.

    References
    ----------
    .. [1] B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 11
    """
    aligned = centred(align(objects, objects[0])[0])
    measured = pd.DataFrame([_sizes(one, geometry, options, binning) for one in aligned])
    rows = [_row(str(name), float(measured[name].iloc[0]), measured[name].to_numpy(float)) for name in measured]
    if len(objects) > 1:
        whole = float(prtf(objects, amplitude, voxel_nm=voxel_nm, valid=mask).value.mean())
        row = _row("mean_prtf", whole, np.full(len(objects), np.nan))
        if len(objects) > 2:
            kept = [[index for index in range(len(objects)) if index != left] for left in range(len(objects))]
            parts = np.array(
                [float(prtf(objects[some], amplitude, voxel_nm=voxel_nm, valid=mask).value.mean()) for some in kept]
            )
            spread = float(np.sqrt((len(parts) - 1) * np.mean((parts - parts.mean()) ** 2)))
            row |= {"spread": spread, "lowest": float(parts.min()), "highest": float(parts.max())}
        rows.append(row)
    return pd.DataFrame(rows, columns=COLUMNS)


def _sizes(
    volume: Tensor, geometry: Geometry | ScanVectors | None, options: Strain, binning: tuple[int, int, int]
) -> dict[str, float]:
    support = support_of(volume, threshold=options.threshold)
    if geometry is None:
        return {"voxels": float(support.sum())}
    made = particle(volume.numpy(), support.numpy(), geometry, options, binning=binning)
    table = pd.DataFrame(depth_statistics([made.strain, made.displacement], made.support, made.voxel_nm, shells=()))
    merits = particle_metrics(made, table)
    merits["volume_nm3"] = merits["voxels"] * made.voxel_nm**3
    return {name: merits[name] for name in _UNITS if name in merits and name != "voxels"}


def _row(quantity: str, value: float, values: Any) -> dict[str, Any]:
    several = len(values) > 1
    return {
        "quantity": quantity,
        "unit": _UNITS[quantity],
        "value": value,
        "spread": float(np.std(values, ddof=1)) if several else np.nan,
        "lowest": float(np.min(values)),
        "highest": float(np.max(values)),
        "starts": len(values),
    }
