"""Stage: how far the objects can be trusted."""

import logging
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cathodeflow.bcdi.ambiguities import centred
from cathodeflow.bcdi.evidence import alike, evidence
from cathodeflow.bcdi.figures_of_merit import support_of
from cathodeflow.bcdi.geometry import (
    Geometry,
    ScanVectors,
    frequency_scale,
    q_vector,
    real_basis,
    reciprocal_basis,
    restored,
)
from cathodeflow.bcdi.options import Strain
from cathodeflow.bcdi.phase_options import Phase, ShrinkWrap
from cathodeflow.bcdi.spread import spread_of_starts
from cathodeflow.bcdi.strain_fields import on_cubes
from cathodeflow.bcdi.trust import SINGLE, applied, probability_right
from cathodeflow.bcdi.trust_options import Trust
from cathodeflow.bcdi.uncertainty import redrawn, strain_errors
from cathodeflow.io.phasing import Starts, read_pattern, read_starts
from cathodeflow.io.reconstructions import read_cxi, write_cxi
from cathodeflow.io.tables import read_json, write_csv
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bcdi")


@stage("bcdi.trust")
def trust(
    pattern: InputFile,
    objects: InputFile,
    phasing: InputFile,
    reconstruction: InputFile,
    *,
    out: OutputFile,
    spread: OutputFile,
    errors: OutputFile,
    sample: str = "scan",
    options: Trust,
) -> Metrics:
    """Estimate how far OBJECTS can be trusted: probability that each is right, errors of the strain, spread.

    Parameters
    ----------
    pattern : path
        Diffraction amplitudes (prepared.h5).
    objects : path
        Objects of `phase` or `refine` (objects.h5).
    phasing : path
        Record of the stage that wrote them (phase.json or refine.json), for its shrink-wrap.
    reconstruction : path
        CXI file of `strain`, for the geometry and the isosurface.
    out : path
        CSV table to write: one row per start, the best first.
    spread : path
        CSV table of extents, strain and PRTF with their spread over the starts to write.
    errors : path
        CXI file of the strain and its standard error to write.
    sample : str
        Name of the reconstruction.
    """
    torch.set_num_threads(options.threads)
    measured, found, made = read_pattern(pattern), read_starts(objects), read_cxi(reconstruction)
    amplitude, mask = torch.from_numpy(measured.amplitude), torch.from_numpy(measured.mask)
    starts, widths = torch.from_numpy(found.objects), torch.from_numpy(found.coherence)
    known = evidence(
        starts,
        torch.from_numpy(found.errors[:, -1]),
        torch.from_numpy(found.free_log_likelihood),
        widths,
        amplitude,
        mask=mask,
    )
    # Starts that are bred from each other agree because they have the same parents.
    bred = read_json(phasing)["options"].get("max_starts") is not None
    probability = applied(SINGLE, known) if bred else probability_right(known)
    known.insert(0, "start", range(1, len(known) + 1))
    known.insert(1, "probability_right", probability)
    write_csv(out, known)
    same = alike(starts, torch.from_numpy(found.errors[:, -1]))
    geometry = restored(made.geometry) if made.geometry else None
    settings = Strain(**made.process["options"])
    voxel = frequency_scale(geometry, amplitude.shape, found.binning)[0]
    rows = spread_of_starts(starts[same], amplitude, mask, geometry, settings, binning=found.binning, voxel_nm=voxel)
    write_csv(spread, rows)
    fields = list(made.fields)
    metrics: dict[str, Any] = {
        "probability_right": float(probability[0]),
        "highest_probability_right": float(probability.max()),
        "starts_alike": len(same),
    }
    if geometry is not None:
        values = _errors(found, same, measured.amplitude, mask, geometry, settings, _phasing(phasing, options), options)
        inside = np.isfinite(values) & np.isfinite(fields[0][2])
        metrics["strain_error"] = float(np.median(values[inside]))
        fields.append(("standard error of the strain", "1", values))
    write_cxi(errors, made._replace(fields=fields))
    for name, value, deviation in zip(rows["quantity"], rows["value"], rows["spread"], strict=True):
        metrics |= {str(name): value, f"{name}_spread": deviation}
    log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    if probability[0] < options.warn_below:
        log.warning(
            "%s: the best object is right with a probability of only %.2f (%s of %s starts are alike); phase more "
            "starts (phase.max_starts) and check support and counts",
            sample,
            probability[0],
            len(same),
            len(starts),
        )
    return Metrics(metrics)


def _phasing(record: str, options: Trust) -> Phase:
    """Shrink-wrap and likelihood of the phasing, with the seed and the device of this stage."""
    used = read_json(record)["options"]
    shared = {name: used[name] for name in (*ShrinkWrap.model_fields, "likelihood") if name in used}
    return Phase(**shared, device=options.device, seed=options.seed)


def _errors(
    found: Starts,
    same: list[int],
    amplitude: NDArray[np.float32],
    mask: torch.Tensor,
    geometry: Geometry | ScanVectors,
    settings: Strain,
    phasing: Phase,
    options: Trust,
) -> NDArray[np.float32]:
    """Compute the standard error of the strain on the cubic voxels of the reconstruction."""
    starts, widths = torch.from_numpy(found.objects), torch.from_numpy(found.coherence)
    drawn = redrawn(
        starts[0],
        torch.from_numpy(amplitude),
        widths[0],
        phasing,
        mask=mask,
        count=options.redrawn,
        seed=options.seed or 0,
    )
    best = centred(starts[0])
    support = support_of(best, threshold=settings.threshold).numpy()
    basis = real_basis(reciprocal_basis(geometry, binning=found.binning), amplitude.shape)
    values = strain_errors(best, starts[same[1:]], drawn, support, basis, q_vector(geometry), erosion=settings.erosion)
    return on_cubes(values, support, geometry, settings, binning=found.binning, order=1)
