"""Table of the facets of a particle: normals, areas, Miller indices, and the strain below each."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from cathodeflow.bcdi.facet_indices import Indexed
from cathodeflow.bcdi.facet_search import FacetPlanes, Surface

Floats = NDArray[np.float64]


def facet_table(
    planes: FacetPlanes,
    surface: Surface,
    indexed: Indexed,
    q: Floats,
    strain: NDArray[np.floating],
    displacement: NDArray[np.floating],
    *,
    voxel_nm: float,
    depth: float,
) -> pd.DataFrame:
    """List the facets, the largest first, one row each; columns in docs/bcdi.md.

    Parameters
    ----------
    planes : FacetPlanes
    surface : Surface
    indexed : Indexed
    q : (3,)
        Scattering vector.
    strain, displacement : (z, y, x)
        NaN where they are unknown.
    voxel_nm : float
    depth : float
        Depth below the surface down to which voxels belong to a facet [voxel].
    """
    members = _voxels_of_facets(planes, surface, np.isfinite(strain), voxel_nm=voxel_nm, depth=depth)
    direction = q / np.linalg.norm(q)
    rows = []
    for index, normal in enumerate(planes.normals):
        here = strain[members == index].astype(np.float64)
        moved = displacement[members == index].astype(np.float64)
        rows.append(
            {
                "facet": index + 1,
                "hkl": indexed.hkl[index],
                "family": indexed.families[index],
                "misfit_deg": indexed.misfits[index],
                **{f"normal_{axis}": value for axis, value in zip("xyz", normal, strict=True)},
                "angle_to_q_deg": float(np.degrees(np.arccos(np.clip(normal @ direction, -1, 1)))),
                "distance_nm": planes.distances[index],
                "area_nm2": planes.areas[index],
                "flat_area_nm2": planes.flat_areas[index],
                "voxels": len(here),
                "strain_mean": float(here.mean()) if len(here) else float("nan"),
                "strain_deviation": float(here.std()) if len(here) else float("nan"),
                "displacement_nm": float(np.nanmean(moved)) if np.isfinite(moved).any() else float("nan"),
            }
        )
    names = ["facet", "hkl", "family", "misfit_deg", "normal_x", "normal_y", "normal_z", "angle_to_q_deg",
             "distance_nm", "area_nm2", "flat_area_nm2", "voxels", "strain_mean", "strain_deviation",
             "displacement_nm"]  # fmt: skip
    return pd.DataFrame(rows, columns=names)


def _voxels_of_facets(
    planes: FacetPlanes, surface: Surface, known: NDArray[np.bool_], *, voxel_nm: float, depth: float
) -> NDArray[np.intp]:
    """Facet (z, y, x) that is nearest to each known voxel near the surface; -1 for all others."""
    found = np.full(known.shape, -1, np.intp)
    places = np.argwhere(known)
    if not len(places) or not len(surface.areas):
        return found
    positions = (places - np.asarray(known.shape) // 2)[:, ::-1] * voxel_nm
    distance, nearest = cKDTree(surface.centres).query(positions, distance_upper_bound=depth * voxel_nm)
    near = np.isfinite(distance)
    found[tuple(places[near].T)] = planes.members[nearest[near]]
    return found
