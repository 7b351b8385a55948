"""Stage: displacement and strain of the best reconstruction, on cubic voxels."""

import logging
from typing import Any

import numpy as np
import pandas as pd
import torch

from cathodeflow.bcdi.ambiguities import centred
from cathodeflow.bcdi.beamlines import DEFAULT, read_beamline
from cathodeflow.bcdi.figures_of_merit import support_of
from cathodeflow.bcdi.geometry import ScanVectors, q_vector
from cathodeflow.bcdi.geometry_options import GeometryFile
from cathodeflow.bcdi.options import Strain
from cathodeflow.bcdi.scan_geometry import recorded, setting_of, vectors_of
from cathodeflow.bcdi.strain_fields import depth_statistics, particle, particle_metrics
from cathodeflow.errors import InputError
from cathodeflow.io.phasing import read_preparation, read_starts
from cathodeflow.io.reconstructions import Reconstruction, write_cxi, write_vti
from cathodeflow.io.scan_logs import read_scan_log
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
    pattern: InputFile | None = None,
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
    pattern : path
        Prepared pattern (prepared.h5) with the frame and the pixel of the peak. Default: the peak is in the middle.
    spec : path
        File with the motors of the scan: SPEC, fio (P10), or HDF5 and NeXus.
    scan : int
        Number of the scan in this file.
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
    where, missing = _geometry(options, pattern, spec, scan, geometry)
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
        q = float(np.linalg.norm(q_vector(where)))
        metrics = particle_metrics(made, rows) | {"q_per_nm": q, "d_spacing_nm": 2 * np.pi / q}
        size = (made.voxel_nm,) * 3
        result = Reconstruction(
            made.volume, made.support, size, fields=fields, geometry=where._asdict(), process=process
        )
    write_csv(statistics, rows)
    write_cxi(out, result)
    write_vti(vti, result)
    log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    return Metrics(metrics)


def _geometry(
    options: Strain, pattern: str | None, spec: str | None, scan: int | None, geometry: str | None
) -> tuple[ScanVectors | None, list[str]]:
    """Combine the motors, the geometry file and the options; also the names of missing values."""
    given = options.given()
    if geometry:
        given = from_config(GeometryFile, read_yaml(geometry), geometry).given() | given
    name = given.get("beamline", DEFAULT)
    beamline = read_beamline(name)
    peak, n_frames, instrument = read_preparation(pattern) if pattern else (None, None, {})
    given = instrument | given
    known, where = None, geometry or "geometry"
    if spec:
        log_of_scan = read_scan_log(spec, scan)
        known = recorded(log_of_scan, beamline, n_frames=n_frames, axis=given.get("rocking_axis"))
        where = log_of_scan.where
    # Only a goniometer of three circles has all its angles as options.
    required = beamline.motors if name == DEFAULT else ()
    setting, missing = setting_of(given, known=known, required=required, where=where, peak=peak)
    return None if setting is None else vectors_of(beamline, name, setting, given), missing
