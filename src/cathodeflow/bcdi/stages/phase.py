"""Stage: iterative phase retrieval from random starts."""

import logging

import torch

from cathodeflow.bcdi.modes import mode_decomposition, summary
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.search import search
from cathodeflow.io.phasing import Starts, read_pattern, write_starts
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bcdi")


@stage("bcdi.phase")
def phase(pattern: InputFile, *, out: OutputFile, options: Phase) -> Metrics:
    """Retrieve the phases of the prepared PATTERN from random starts.

    Parameters
    ----------
    pattern : path
        Diffraction amplitudes (prepared.h5).
    out : path
        File of the objects to write (objects.h5), the best first.

    Raises
    ------
    InputError
        The pattern cannot be phased with these options.
    """
    torch.set_num_threads(options.threads)
    measured = read_pattern(pattern)
    amplitude, mask = torch.from_numpy(measured.amplitude), torch.from_numpy(measured.mask)
    found, order = search(amplitude, options, mask=mask)
    write_starts(out, Starts._make([*(tensor[order].numpy() for tensor in found), measured.binning]))
    modes = mode_decomposition(found.objects[order[: options.modes]])
    metrics = summary(found, order, amplitude=amplitude, mask=mask) | {"first_mode_share": float(modes.fractions[0])}
    log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    # A bred start has fewer iterations.
    kept = found.errors[order[0]]
    errors = enumerate(kept[kept.isfinite()].tolist(), 1)
    return Metrics(metrics, history=[{"epoch": number, "error": error} for number, error in errors])
