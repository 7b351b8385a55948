"""Stage: predict the object of a pattern with a trained network."""

import logging

import numpy as np
import torch

from cathodeflow.bcdi.figures_of_merit import support_fraction
from cathodeflow.bcdi.network import restored
from cathodeflow.bcdi.network_options import Infer
from cathodeflow.bcdi.phase_options import SUPPORT_THRESHOLD
from cathodeflow.bcdi.prediction import middle, predict_objects
from cathodeflow.bcdi.refinement import fine_tune
from cathodeflow.errors import InputError
from cathodeflow.io.models import load_model
from cathodeflow.io.phasing import Starts, read_pattern, write_starts
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bcdi")


@stage("bcdi.infer")
def infer(pattern: InputFile, *, out: OutputFile, options: Infer) -> Metrics:
    """Predict the object of the prepared PATTERN with a trained network.

    Parameters
    ----------
    pattern : path
        Diffraction amplitudes (prepared.h5).
    out : path
        File of the candidates to write (inferred.h5), sorted by residual, the lowest first.

    Raises
    ------
    InputError
        No model is given, the file is not a model of this technique, or the pattern does not fit the network.
    """
    torch.set_num_threads(options.threads)
    if options.model is None:
        raise InputError("--model", "nothing", "the model file of a trained network")
    network, measured = restored(*load_model(options.model), where=options.model), read_pattern(pattern)
    metrics: dict[str, float] = {}
    history: list[dict[str, float]] = []
    try:
        if options.fine_tune:
            side = options.side or max(measured.amplitude.shape)
            amplitude, mask = (middle(volume, side) for volume in (measured.amplitude, measured.mask))
            tuned = fine_tune(network, amplitude, options, mask=mask)
            network = tuned.model
            history = [{"epoch": step, "loss": loss} for step, loss in enumerate(tuned.losses)]
            metrics |= {"loss_before": tuned.losses[0], "loss_after": min(tuned.losses)}
        found = predict_objects(network, measured.amplitude, options, mask=measured.mask)
    except InputError as error:
        raise InputError(f"{pattern}: {error.where}", error.found, error.expected) from None
    count = len(found.objects)
    candidates = Starts(
        objects=found.objects.numpy(),
        supports=found.supports.numpy(),
        errors=found.residuals.numpy()[:, None],
        free_log_likelihood=np.full(count, np.nan, np.float32),
        coherence=np.zeros((count, 3), np.float32),
        binning=measured.binning,
    )
    write_starts(out, candidates)
    metrics |= {"candidates": count, "residual": float(found.residuals[0])}
    metrics["support_fraction"] = float(support_fraction(found.objects[:1], threshold=SUPPORT_THRESHOLD)[0])
    log.info("%s", ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    return Metrics(metrics, history=history)
