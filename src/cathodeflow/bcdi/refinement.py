"""Refinement of a prediction: a few iterations of phase retrieval, or fine-tuning of the network."""

import copy
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cathodeflow.bcdi.losses import best, diffraction_loss
from cathodeflow.bcdi.network import PhaseNetwork
from cathodeflow.bcdi.network_options import Infer, Refine, Train, phasing_options
from cathodeflow.bcdi.prediction import checked
from cathodeflow.bcdi.retrieval import Retrieval, retrieve
from cathodeflow.errors import InputError
from cathodeflow.learning import resolve_device, resolve_precision


class FineTuned(NamedTuple):
    """A network fine-tuned to one pattern, in evaluation mode on the CPU, and its losses: at first, after each step."""

    model: PhaseNetwork
    losses: list[float]


def refine_objects(amplitude: Tensor, start: Tensor, options: Refine, *, mask: Tensor | None = None) -> Retrieval:
    """Refine the objects of a network by iterative phase retrieval with shrink-wrap.

    Parameters
    ----------
    amplitude : (z, y, x) float32
        Square roots of counts, zero frequency at index n // 2; set `beta` for another scale.
    start : (z, y, x) or (candidates, z, y, x) complex64
        Objects, on any scale; all are refined, and the first support of each is its shrink-wrap support.
    options : Refine
    mask : (z, y, x) bool, optional
        True where a pixel was measured. Default: all.

    Returns
    -------
    Retrieval
        One start per object, in the same order.

    Raises
    ------
    InputError
        An object is 0 everywhere, or as in `retrieval.retrieve`.
    """
    recipe = refinement(options.iterations) if options.recipe is None else options.recipe
    return retrieve(amplitude, phasing_options(options, recipe=recipe), mask=mask, initial=start)


def refinement(iterations: int) -> str:
    """Return the recipe for a number of iterations (at least 1): RAAR, and ER for the last fifth, at most 20.

    Hybrid input-output leaves wrong minima, too, but with few photons it also leaves the right one: at 1e6 photons or
    fewer even when started from the truth. RAAR, with its relaxation set by the noise (`beta` None), stays there, and
    ER converges to it.

    Examples
    --------
    >>> refinement(50), refinement(1)
    ('40*RAAR+10*ER', '1*ER')
    """
    last = min(-(-iterations // 5), 20)
    return (f"{iterations - last}*RAAR+" if iterations > last else "") + f"{last}*ER"


def fine_tune(model: PhaseNetwork, amplitude: Any, options: Infer, *, mask: Any = None) -> FineTuned:
    """Train a copy of a network on the measured pattern; the weights with the lowest loss are kept.

    Parameters
    ----------
    model : PhaseNetwork
        Not changed. The statistics of its batch normalisation, from other patterns, are kept.
    amplitude : (z, y, x) float32
        Square root of counts, zero frequency at index n // 2.
    options : Infer
        `fine_tune`, the number of Adam steps, and `loss` (`losses.diffraction_loss`, with candidates weighted as in
        training).
    mask : (z, y, x) bool, optional
        True where a pixel was measured. Default: all.

    Raises
    ------
    InputError
        The number of steps is 0, or as in `prediction.predict_objects`.
    """
    steps = options.fine_tune
    if steps < 1:
        raise InputError("fine_tune", str(steps), "at least 1 step")
    device, usual = resolve_device(options.device or "auto"), Train()
    measured = checked(model, amplitude, mask)
    if len(measured) != 1:
        raise InputError("amplitude", f"{len(measured)} volumes", "one")
    measured = measured.to(device)
    valid = None if mask is None else torch.as_tensor(mask, device=device).bool()
    tuned = copy.deepcopy(model).to(device).eval()
    autocast = resolve_precision(options.precision, device) != "32-true"
    optimizer = torch.optim.Adam(tuned.parameters(), lr=options.learning_rate)
    losses: list[float] = []
    lowest = copy.deepcopy(tuned.state_dict())
    # One more pass without a step evaluates the weights after the last step.
    for step in range(steps + 1):
        with torch.set_grad_enabled(step < steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
                found = tuned(measured)
            value = best(
                diffraction_loss(found, measured, options.loss, mask=valid), mean_fraction=usual.mean_fraction
            ).mean()
        losses.append(float(value.detach()))
        if step and losses[-1] <= min(losses):
            lowest = copy.deepcopy(tuned.state_dict())
        if step < steps:
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            # A norm that is not finite would set every weight to NaN.
            if torch.isfinite(nn.utils.clip_grad_norm_(tuned.parameters(), usual.clip_norm)):
                optimizer.step()
    tuned.load_state_dict(lowest)
    return FineTuned(tuned.cpu(), losses)
