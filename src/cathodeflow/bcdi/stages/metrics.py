"""Stage: figures of merit of the objects."""

import logging
from typing import Any

import pandas as pd
import torch

from cathodeflow.bcdi.ambiguities import align
from cathodeflow.bcdi.coherence import detected_amplitude
from cathodeflow.bcdi.comparison import errors_against_truth
from cathodeflow.bcdi.figures_of_merit import chi_square, log_likelihood, r_factor, support_fraction
from cathodeflow.bcdi.geometry import frequency_scale, restored
from cathodeflow.bcdi.options import Metrics as MetricsOptions
from cathodeflow.bcdi.resolution import fsc, prtf
from cathodeflow.io.phasing import read_pattern, read_starts
from cathodeflow.io.reconstructions import read_cxi
from cathodeflow.io.tables import write_csv
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bcdi")
# Chi-square per pixel above which residuals are not noise.
_FAR = 10.0


@stage("bcdi.metrics")
def metrics(
    pattern: InputFile,
    objects: InputFile,
    reconstruction: InputFile,
    *,
    out: OutputFile,
    curves: OutputFile,
    truth: InputFile | None = None,
    options: MetricsOptions,
) -> Metrics:
    """Compare OBJECTS with the measured PATTERN, with each other and, where it is known, with the truth.

    Parameters
    ----------
    pattern : path
        Diffraction amplitudes (prepared.h5).
    objects : path
        Objects of `phase` or `refine` (objects.h5).
    reconstruction : path
        CXI file of `strain`, for the geometry.
    out : path
        CSV table of the figures of merit to write: one row per start, the best first.
    curves : path
        CSV table of the agreement by spatial frequency to write.
    truth : path
        CXI file of the true object of a simulated scan.
    """
    measured, found = read_pattern(pattern), read_starts(objects)
    amplitude, valid = torch.from_numpy(measured.amplitude), torch.from_numpy(measured.mask)
    starts = torch.from_numpy(found.objects)
    known = read_cxi(reconstruction).geometry
    geometry = restored(known) if known else None
    calculated = detected_amplitude(starts, torch.from_numpy(found.coherence))
    columns = {
        "error": found.errors[:, -1],
        "r_factor": r_factor(calculated, amplitude, valid=valid),
        "chi_square": chi_square(calculated, amplitude, valid=valid),
        "log_likelihood": log_likelihood(calculated, amplitude, valid=valid),
        "free_log_likelihood": found.free_log_likelihood,
        "support_fraction": support_fraction(starts, threshold=options.threshold),
        "correlation_with_best": align(starts, starts[0])[1],
    }
    if truth is not None:
        columns |= errors_against_truth(
            starts, read_cxi(truth).volume, binning=found.binning, geometry=geometry, threshold=options.threshold
        )
    table = pd.DataFrame({name: [float(value) for value in values] for name, values in columns.items()})
    table.insert(0, "start", range(1, len(table) + 1))
    write_csv(out, table)
    if (worst := float(table["chi_square"].iloc[0])) > _FAR:
        log.warning(
            "%s: residuals far above counting noise (chi-square %.0f per pixel, 1 for a perfect model): look at "
            "diffraction.png; the support, partial coherence or other crystals may be the reason",
            objects,
            worst,
        )
    size, unit = frequency_scale(geometry, amplitude.shape, found.binning)
    agreement = {}
    if len(starts) > 1:
        agreement["PRTF"] = prtf(starts, amplitude, voxel_nm=size, valid=valid)
        agreement["FSC of the best two"] = fsc(starts[0], starts[1], voxel_nm=size, threshold=options.threshold)
    parts = [pd.DataFrame({"curve": name, **curve._asdict(), "unit": unit}) for name, curve in agreement.items()]
    empty = pd.DataFrame(columns=["curve", "frequency", "value", "threshold", "unit"])
    write_csv(curves, pd.concat(parts, ignore_index=True) if parts else empty)
    merits: dict[str, Any] = {name: float(table[name].iloc[0]) for name in columns if name != "correlation_with_best"}
    if len(starts) > 1:
        merits["median_correlation_with_best"] = float(table["correlation_with_best"][1:].median())
        merits["mean_prtf"] = float(agreement["PRTF"].value.mean())
        if geometry:
            merits["prtf_resolution_nm"] = agreement["PRTF"].resolution_nm
    log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in merits.items()))
    return Metrics(merits)
