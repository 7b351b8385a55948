"""Stage: refine the prediction of a network by iterative phase retrieval."""

import logging

import torch

from cathodeflow.bcdi.modes import best_of, summary
from cathodeflow.bcdi.network_options import Refine
from cathodeflow.bcdi.refinement import refine_objects
from cathodeflow.errors import InputError
from cathodeflow.io.phasing import Starts, read_pattern, read_starts, write_starts
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bcdi")


@stage("bcdi.refine")
def refine(pattern: InputFile, objects: InputFile, *, out: OutputFile, options: Refine) -> Metrics:
    """Refine the predicted OBJECTS by a few iterations of phase retrieval on the prepared PATTERN.

    Parameters
    ----------
    pattern : path
        Diffraction amplitudes (prepared.h5).
    objects : path
        Candidates that `infer` predicted (inferred.h5).
    out : path
        File of the objects to write (objects.h5), the best first.

    Raises
    ------
    InputError
        Every candidate is 0 everywhere, or the pattern cannot be phased with these options.
    """
    torch.set_num_threads(options.threads)
    measured, predicted = read_pattern(pattern), read_starts(objects)
    amplitude, mask = torch.from_numpy(measured.amplitude), torch.from_numpy(measured.mask)
    # A candidate of zeros cannot be refined.
    usable = torch.from_numpy(predicted.objects[predicted.objects.any((1, 2, 3))][: options.candidates])
    if not len(usable):
        raise InputError(objects, "candidates that are 0 everywhere", "an object: train the network for longer")
    found = refine_objects(amplitude, usable, options, mask=mask)
    order = best_of(found, len(found.objects))
    write_starts(out, Starts._make([*(tensor[order].numpy() for tensor in found), measured.binning]))
    metrics = summary(found, order, amplitude=amplitude, mask=mask)
    log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    errors = enumerate(found.errors[order[0]].tolist(), 1)
    return Metrics(metrics, history=[{"epoch": number, "error": error} for number, error in errors])
