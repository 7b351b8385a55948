"""Lattice parameters of simulated particles against the truth: strain, standardised errors, hkl."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cathodeflow.bragg.scattering import scattering
from cathodeflow.io.detector_geometry import DetectorGeometry
from cathodeflow.statistics import median

# Largest distance from a spot to its true position [px], and in frames.
_RADIUS, _FRAMES = 2.0, 4.0
# Standardised errors beyond this are counted, and not averaged.
_BEYOND = 5.0


def true_spots(truth: pd.DataFrame, geometry: DetectorGeometry) -> pd.DataFrame:
    """Spots of a simulated scan: one per particle and phase, with the d of its true position and its mean frame."""
    weighted = truth.assign(moment=truth["frame"] * truth["amplitude"])
    by_spot = weighted.groupby(["peak", "phase"])
    spots = by_spot[["row", "col", "hkl"]].first()
    spots["frame"] = by_spot["moment"].sum() / by_spot["amplitude"].sum()
    spots["d"] = scattering(geometry, spots["row"], spots["col"]).d
    return spots.reset_index()


def matched(spots: pd.DataFrame, true: pd.DataFrame) -> pd.DataFrame:
    """Columns `true_peak` (-1 without one), `true_d`, `true_hkl` for spots: those of the nearest true one."""
    scale = np.array([1.0, 1.0, _RADIUS / _FRAMES])
    found = pd.DataFrame({"true_peak": -1, "true_phase": -1, "true_d": np.nan, "true_hkl": ""}, index=spots.index)
    if not len(true) or not len(spots):
        return found
    columns = ["row", "col", "frame"]
    distance, nearest = cKDTree(true[columns].to_numpy() * scale).query(spots[columns].to_numpy() * scale)
    # Of several spots at a true one, the nearest.
    order = np.argsort(distance, kind="stable")
    nearest_spot = np.zeros(len(spots), bool)
    nearest_spot[order[np.unique(nearest[order], return_index=True)[1]]] = True
    near = nearest_spot & (distance <= _RADIUS)
    for name in ("peak", "phase", "d", "hkl"):
        found.loc[near, f"true_{name}"] = true[name].to_numpy()[nearest[near]]
    return found


def against_truth(table: pd.DataFrame, true: pd.DataFrame) -> dict[str, Any]:
    """Figures of merit of a table of lattice parameters.

    Parameters
    ----------
    table : DataFrame
        As `LatticeSeries.table`.
    true : DataFrame
        Rows of `matched` for its rows.

    Returns
    -------
    dict
        `strain_error_median`, `strain_error_median_bright`: median absolute error of strain, and that of the half of
        the spots with the higher intensity, of tracks that are the same particle in both states; `strain_bias_bright`:
        median error of that half. `d_z_rms`, `strain_z_rms`: root mean square of error / standard error up to 5;
        `d_z_beyond_5`, `strain_z_beyond_5`: fraction of larger ones.
        `hkl_right`: fraction of the assigned tracks with the true hkl.
    """
    rows = table.assign(**{str(name): true[name].to_numpy() for name in true})
    rows = rows[rows["true_peak"] >= 0]
    z = ((rows["d"] - rows["true_d"]) / rows["d_err"]).to_numpy(np.float64)
    first = rows[rows["sample"] == rows["reference"]].sort_values("phase").drop_duplicates("track").set_index("track")
    there = first.reindex(rows["track"])
    same = (there["true_peak"].to_numpy() == rows["true_peak"].to_numpy()) & (rows["strain_err"] > 0).to_numpy()
    true_strain = rows["true_d"].to_numpy() / there["true_d"].to_numpy() - 1
    error = (rows["strain"].to_numpy() - true_strain)[same]
    bright = (rows["intensity"] >= rows["intensity"].median()).to_numpy()[same]
    assigned = rows[rows["hkl"].str.match(r"^[-\d]")]
    right = assigned["hkl"].str.replace(" ", "") == assigned["true_hkl"]
    return {
        "strain_error_median": median(np.abs(error)),
        "strain_error_median_bright": median(np.abs(error[bright])),
        "strain_bias_bright": median(error[bright]),
        **_standardised("strain", error / rows["strain_err"].to_numpy(np.float64)[same]),
        **_standardised("d", z),
        "hkl_right": float(right.mean()) if len(right) else None,
        "compared_with_truth": len(rows),
    }


def truth_of(tracks: pd.DataFrame, truths: Mapping[str, pd.DataFrame], geometry: DetectorGeometry) -> pd.DataFrame:
    """Rows of `matched` for all spots of a series; scans without a truth have none."""
    parts = [
        matched(spots, true_spots(truths[str(name)], geometry) if name in truths else pd.DataFrame())
        for name, spots in tracks.groupby("sample")
    ]
    return pd.concat(parts).reindex(tracks.index)


def _standardised(name: str, z: NDArray[np.float64]) -> dict[str, float | None]:
    core = z[np.abs(z) <= _BEYOND]
    return {
        f"{name}_z_rms": float(np.sqrt(np.mean(np.square(core)))) if len(core) else None,
        f"{name}_z_beyond_5": float(np.mean(np.abs(z) > _BEYOND)) if len(z) else None,
    }
