"""Stage: displacement and strain of the best reconstruction, on cubic voxels."""

import logging
from typing import Any

import numpy as np
import pandas as pd
import torch

from cathodeflow.bcdi.ambiguities import centred
from cathodeflow.bcdi.aps_34idc import geometry_of_34idc
from cathodeflow.bcdi.figures_of_merit import support_of
from cathodeflow.bcdi.geometry import Geometry, geometry_of
from cathodeflow.bcdi.options import Strain
from cathodeflow.bcdi.scans import spec_scan
from cathodeflow.bcdi.strain_fields import depth_statistics, particle, particle_metrics
from cathodeflow.errors import InputError
from cathodeflow.io.phasing import read_starts
from cathodeflow.io.reconstructions import Reconstruction, write_cxi, write_vti
from cathodeflow.io.tables import write_csv
from cathodeflow.io.text import read_yaml
from cathodeflow.options import from_config
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bcdi")
_COLUMNS = ["quantity", "unit", "region", "from_nm", "to_nm", "voxels", "mean", "deviation"]


@stage("bcdi.strain")
def strain(
    objects: InputFile,
    *,
    out: OutputFile,
    vti: OutputFile,
    statistics: OutputFile,
    sample: str = "scan",
    spec: InputFile | None = None,
    scan: int | None = None,
    geometry: InputFile | None = None,
    options: Strain,
) -> Metrics:
    """Compute displacement and strain of the best of OBJECTS, and write them for other programs.

    Without a geometry the object is written on the voxels of the measurement, without strain.

    Parameters
    ----------
    objects : path
        Objects of `phase` or `refine` (objects.h5).
    out : path
        CXI file to write.
    vti : path
        VTK image data to write, for ParaView.
    statistics : path
        CSV table of strain and displacement by depth to write.
    sample : str
        Name of the reconstruction.
    spec : path
        SPEC file of beamline 34-ID-C with the geometry.
    scan : int
        Number of the scan in the SPEC file.
    geometry : path
        YAML or JSON file with the geometry.

    Raises
    ------
    InputError
        The geometry cannot be used, or nothing is left of the particle after the erosion.
    """
    found = read_starts(objects)
    best = centred(torch.from_numpy(found.objects[0]))
    volume, support = best.numpy(), support_of(best, threshold=options.threshold).numpy()
    known = geometry_of_34idc(measured)._asdict() if (measured := spec_scan(spec, scan)) else {}
    where, missing = geometry_of(known, _read_geometry(geometry) if geometry else {}, options.model_dump())
    metrics: dict[str, float]
    process: dict[str, Any] = {"sample": sample, "options": options.model_dump(mode="json"), "binning": found.binning}
    if where is None:
        log.warning("%s: no geometry (%s), so there is no strain", sample, ", ".join(missing))
        result = Reconstruction(np.where(support, volume, 0), support, frame="scan", process=process)
        rows, metrics = pd.DataFrame(columns=_COLUMNS), {"voxels": int(support.sum())}
    else:
        try:
            made = particle(volume, support, where, options, binning=found.binning)
        except InputError as error:
            raise InputError(f"{objects}: {error.where}", error.found, error.expected) from None
        fields = (made.strain, made.displacement)
        rows = pd.DataFrame(depth_statistics(fields, made.support, made.voxel_nm, shells=options.shells))
        metrics = particle_metrics(made, rows)
        size = (made.voxel_nm,) * 3
        result = Reconstruction(
            made.volume, made.support, size, fields=fields, geometry=where._asdict(), process=process
        )
    write_csv(statistics, rows)
    write_cxi(out, result)
    write_vti(vti, result)
    log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    return Metrics(metrics)


def _read_geometry(path: str) -> dict[str, Any]:
    """Read a geometry file, whose values have the types and bounds of the options."""
    given = read_yaml(path)
    for name in given:
        if name not in Geometry._fields:
            raise InputError(f"{path}: {name}", "an unknown key", "one of " + ", ".join(Geometry._fields))
    return from_config(Strain, given, path).model_dump(include=set(given))
