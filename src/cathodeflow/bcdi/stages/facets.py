"""Stage: facets of a particle, line profiles, and resolution by direction."""

import logging
from typing import Any

import numpy as np
import pandas as pd
import torch

from cathodeflow.bcdi.directional_resolution import directional_curves
from cathodeflow.bcdi.facet_indices import indexed_facets
from cathodeflow.bcdi.facet_options import Facets
from cathodeflow.bcdi.facet_search import find_facets, particle_surface, surface_level
from cathodeflow.bcdi.facet_table import facet_table
from cathodeflow.bcdi.geometry import Geometry, ScanVectors, q_vector, reciprocal_basis, restored
from cathodeflow.bcdi.line_profiles import edge_widths, line_profiles
from cathodeflow.bcdi.phase_options import SUPPORT_THRESHOLD
from cathodeflow.errors import InputError
from cathodeflow.io.phasing import read_pattern, read_starts
from cathodeflow.io.reconstructions import read_cxi
from cathodeflow.io.tables import write_csv
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bcdi")

# Volume within the planes, relative to that within the surface, above which facets are missing.
_MISSING = 1.15


@stage("bcdi.facets")
def facets(
    reconstruction: InputFile,
    *,
    out: OutputFile,
    profiles: OutputFile,
    directions: OutputFile,
    pattern: InputFile | None = None,
    objects: InputFile | None = None,
    options: Facets,
) -> Metrics:
    """Find the facets of a RECONSTRUCTION, and compute profiles along lines and the resolution by direction.

    Parameters
    ----------
    reconstruction : path
        CXI file of `strain`, with a geometry.
    out : path
        CSV table to write: one row per facet.
    profiles : path
        CSV table to write: amplitude, strain and displacement along x, y, z and the scattering vector Q.
    directions : path
        CSV table to write: PRTF and FSC by spatial frequency, in all directions and in cones along x, y, z and Q;
        empty without PATTERN and OBJECTS, or of a single start.
    pattern : path
        Diffraction amplitudes (prepared.h5).
    objects : path
        Objects of `phase` or `refine` (objects.h5).

    Raises
    ------
    InputError
        The reconstruction has no geometry or no strain, or the cell cannot be used.
    """
    found = read_cxi(reconstruction)
    if not found.geometry or found.voxel_nm is None or found.frame != "laboratory":
        raise InputError(reconstruction, "no geometry", "a reconstruction of `strain` with a geometry")
    geometry, voxel_nm = restored(found.geometry), found.voxel_nm[0]
    fields = {name.split(" ")[0]: values for name, _, values in found.fields}
    if not {"strain", "displacement"} <= set(fields):
        raise InputError(reconstruction, f"fields {', '.join(fields) or 'none'}", "strain and displacement")
    q, amplitude = q_vector(geometry), np.abs(found.volume)
    level = surface_level(amplitude, found.support, options.isosurface)
    surface = particle_surface(amplitude, voxel_nm, level=level, smoothing=options.smoothing)
    planes = find_facets(surface, options, voxel_nm=voxel_nm)
    weights = np.where(np.isfinite(planes.areas), planes.areas, planes.flat_areas)
    indexed = indexed_facets(planes.normals, weights, q, options)
    table = facet_table(
        planes, surface, indexed, q, fields["strain"], fields["displacement"], voxel_nm=voxel_nm, depth=options.depth
    )
    write_csv(out, table)
    axes = {"x": np.array([1.0, 0, 0]), "y": np.array([0, 1.0, 0]), "z": np.array([0, 0, 1.0]), "Q": q}
    named = {"strain": fields["strain"], "displacement_nm": fields["displacement"]}
    lines = line_profiles(amplitude, found.support, named, axes, voxel_nm=voxel_nm)
    write_csv(profiles, lines)
    merits: dict[str, Any] = {
        "facets": len(table),
        "facet_fraction": float(planes.flat_areas.sum() / surface.areas.sum()),
        "indexed_facets": int((table["hkl"] != "").sum()),
        "index_agreement": indexed.agreement,
        "volume_ratio": planes.volume / (float((amplitude > level).sum()) * voxel_nm**3),
    }
    merits |= {f"edge_width_{name}_nm": width for name, width in edge_widths(lines).items()}
    if pattern and objects:
        merits |= _resolution(directions, pattern, objects, geometry, axes, options)
    else:
        write_csv(directions, pd.DataFrame(columns=["curve", "direction", "frequency", "value", "threshold"]))
    if not merits["volume_ratio"] <= _MISSING:
        log.warning("%s: the planes of the facets do not enclose the particle closely: facets are missing, and areas"
                    " up to the edges are too large or unknown", reconstruction)  # fmt: skip
    log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in merits.items()))
    return Metrics(merits)


def _resolution(
    out: str, pattern: str, objects: str, geometry: Geometry | ScanVectors, axes: dict[str, Any], options: Facets
) -> dict[str, float]:
    """Write the curves by direction, and return the resolution of each."""
    measured, starts = read_pattern(pattern), read_starts(objects)
    curves = {}
    if len(starts.objects) > 1:
        curves = directional_curves(
            torch.from_numpy(starts.objects),
            torch.from_numpy(measured.amplitude),
            reciprocal_basis(geometry, binning=starts.binning),
            axes,
            cone_deg=options.cone_deg,
            threshold=SUPPORT_THRESHOLD,
            valid=torch.from_numpy(measured.mask),
        )
    parts = [
        pd.DataFrame({"curve": curve, "direction": direction, **values._asdict()})
        for (curve, direction), values in curves.items()
    ]
    empty = pd.DataFrame(columns=["curve", "direction", "frequency", "value", "threshold"])
    write_csv(out, pd.concat(parts, ignore_index=True) if parts else empty)
    return {
        f"prtf_resolution_{direction}_nm": values.resolution_nm
        for (curve, direction), values in curves.items()
        if curve == "PRTF"
    }
