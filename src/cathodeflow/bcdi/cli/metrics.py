"""The command from objects to figures of merit."""

import logging
from typing import Any

import click

from cathodeflow.bcdi.cli.shared import group, out_flag, sample_flag
from cathodeflow.bcdi.options import Metrics
from cathodeflow.old_commands import stage_command
from cathodeflow.old_flags import record_flag

log = logging.getLogger("cathodeflow.bcdi")


@stage_command(group, Metrics)
@click.argument("pattern")
@click.argument("objects")
@click.argument("reconstruction")
@click.option("--truth", metavar="FILE", help="CXI file of the true object, of a simulated scan.")
@sample_flag
@out_flag
@click.option("--curves", required=True, metavar="FILE", help="CSV table of agreement by spatial frequency to write.")
@click.option("--diffraction", required=True, metavar="FILE", help="Image of the diffraction, measured and calculated.")
@click.option("--resolution", required=True, metavar="FILE", help="Image of these curves to write.")
@record_flag()
def metrics(
    pattern: str, objects: str, reconstruction: str, truth: str | None, sample: str, out: str, curves: str,
    diffraction: str, resolution: str, record: str, options: Metrics,
) -> None:  # fmt: skip
    """Compare OBJECTS with the measured PATTERN, each other and the truth; RECONSTRUCTION has the geometry."""
    import pandas as pd
    import torch

    from cathodeflow.bcdi import metrics as merit
    from cathodeflow.bcdi.ambiguities import align
    from cathodeflow.bcdi.geometry import Geometry
    from cathodeflow.bcdi.plots import diffraction_figure, resolution_figure
    from cathodeflow.io.figures import save_figure
    from cathodeflow.io.phasing import read_pattern, read_starts
    from cathodeflow.io.reconstructions import read_cxi
    from cathodeflow.io.tables import write_csv
    from cathodeflow.record import write_record

    measured, found = read_pattern(pattern), read_starts(objects)
    amplitude, valid = torch.from_numpy(measured.amplitude), torch.from_numpy(measured.mask)
    starts = torch.from_numpy(found.objects)
    known = read_cxi(reconstruction).geometry
    geometry = Geometry(**known) if known else None
    calculated = _calculated(starts, torch.from_numpy(found.coherence))
    columns = {
        "error": found.errors[:, -1],
        "r_factor": merit.r_factor(calculated, amplitude, valid=valid),
        "chi_square": merit.chi_square(calculated, amplitude, valid=valid),
        "log_likelihood": merit.log_likelihood(calculated, amplitude, valid=valid),
        "free_log_likelihood": found.free_log_likelihood,
        "support_fraction": merit.support_fraction(starts, threshold=options.threshold),
        "correlation_with_best": align(starts, starts[0])[1],
    }
    if truth is not None:
        columns |= _against(truth, starts, found.binning, geometry, options.threshold)
    table = pd.DataFrame({name: [float(one) for one in values] for name, values in columns.items()})
    table.insert(0, "start", range(1, len(table) + 1))
    write_csv(out, table)
    size, unit = _sizes(geometry, amplitude.shape, found.binning)
    agreement = {}
    if len(starts) > 1:
        agreement["PRTF"] = merit.prtf(starts, amplitude, voxel_nm=size, valid=valid)
        agreement["FSC of the best two"] = merit.fsc(starts[0], starts[1], voxel_nm=size, threshold=options.threshold)
    parts = [pd.DataFrame({"curve": name, **one._asdict(), "unit": unit}) for name, one in agreement.items()]
    empty = pd.DataFrame(columns=["curve", "frequency", "value", "threshold", "unit"])
    write_csv(curves, pd.concat(parts, ignore_index=True) if parts else empty)
    save_figure(diffraction, diffraction_figure(measured.amplitude, calculated[0].numpy(), valid=measured.mask))
    # Without a geometry there are no nanometres to draw.
    save_figure(resolution, resolution_figure(agreement if geometry else {}))
    figures: dict[str, Any] = {name: table[name].iloc[0] for name in columns if name != "correlation_with_best"}
    if len(starts) > 1:
        figures["median_correlation_with_best"] = float(table["correlation_with_best"][1:].median())
        figures["mean_prtf"] = float(agreement["PRTF"].value.mean())
        if geometry:
            figures["prtf_resolution_nm"] = agreement["PRTF"].resolution_nm
    write_record(
        record, stage="bcdi.metrics", sample=sample, options=options, metrics=figures,
        figures=[diffraction, resolution],
    )  # fmt: skip
    log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in figures.items()))


def _calculated(objects: Any, coherence: Any) -> Any:
    """Amplitudes of objects on the detector, blurred where their coherence is partial."""
    from cathodeflow.bcdi.coherence import Blur
    from cathodeflow.bcdi.operators import amplitude

    calculated = amplitude(objects)
    if not bool(coherence.any()):
        return calculated
    turned = calculated.square().permute(0, 3, 2, 1)
    return Blur(tuple(turned.shape), coherence)(turned).permute(0, 3, 2, 1).sqrt()


def _sizes(geometry: Any, shape: Any, binning: tuple[int, int, int]) -> tuple[tuple[float, ...], str]:
    """Sizes whose inverse is the step of frequency along each axis of the pattern, and the unit of frequency."""
    import numpy as np

    from cathodeflow.bcdi.geometry import reciprocal_basis

    if geometry is None:
        return (1.0, 1.0, 1.0), "1/voxel"
    steps = np.linalg.norm(reciprocal_basis(geometry, binning=binning), axis=1)
    return tuple(2 * np.pi / (steps * np.array(shape))), "1/nm"


def _against(path: str, starts: Any, binning: Any, geometry: Any, threshold: float) -> dict[str, Any]:
    """Correlation, errors of phase and of strain against the truth, of every start."""
    import numpy as np
    import torch

    from cathodeflow.bcdi.ambiguities import centred
    from cathodeflow.bcdi.geometry import q_vector, real_basis, reciprocal_basis
    from cathodeflow.bcdi.metrics import against_truth, support_of
    from cathodeflow.bcdi.strain import strain as strain_of
    from cathodeflow.bcdi.truth import on_voxels
    from cathodeflow.io.reconstructions import read_cxi

    shape = tuple(starts.shape[1:])
    truth = centred(torch.from_numpy(on_voxels(read_cxi(path).volume, shape, binning)))
    # Without ramps: a peak that is not quite in the middle is no strain.
    agreement = against_truth(centred(starts), truth, threshold=threshold)
    columns = {"true_correlation": agreement.correlation, "phase_error": agreement.phase_error}
    if geometry is None:
        return columns
    basis, q = real_basis(reciprocal_basis(geometry, binning=binning), shape), q_vector(geometry)
    right = strain_of(truth.numpy(), support_of(truth, threshold=threshold).numpy(), basis, q).values
    errors = []
    for one in agreement.aligned:
        values = strain_of(one.numpy(), support_of(one, threshold=threshold).numpy(), basis, q).values
        difference = values - right
        errors.append(float(np.sqrt(np.nanmean(difference**2))) if np.isfinite(difference).any() else np.nan)
    columns["strain_error"] = torch.tensor(errors)
    deviation = float(np.nanstd(right))
    columns["true_strain_deviation"] = torch.full((len(errors),), deviation)
    return columns
