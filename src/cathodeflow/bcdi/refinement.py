"""From the network's image to the measured crystal: a few iterations of phase retrieval, or fine-tuning the network."""

import copy
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from cathodeflow.bcdi.losses import LossName, best, diffraction_loss
from cathodeflow.bcdi.network import PhaseNetwork
from cathodeflow.bcdi.prediction import checked
from cathodeflow.bcdi.recipe import Step
from cathodeflow.bcdi.retrieval import Retrieval, retrieve
from cathodeflow.errors import InputError
from cathodeflow.learning import resolve_device, resolve_precision


class FineTuned(NamedTuple):
    """A network fine-tuned to one pattern, in evaluation mode on the CPU, and its loss before, and after each step."""

    model: PhaseNetwork
    losses: list[float]


def refine_objects(
    amplitude: Tensor,
    start: Tensor,
    *,
    iterations: int = 50,
    recipe: str | None = None,
    mask: Tensor | None = None,
    beta: float | None = None,
    shrink_every: int = 10,
    sigma: tuple[float, float] = (1.0, 0.5),
    threshold: float = 0.13,
    likelihood: Literal["amplitude", "poisson"] = "amplitude",
    device: str = "auto",
) -> Retrieval:
    """Phase a pattern from the network's objects, with shrink-wrap.

    Parameters
    ----------
    amplitude : (z, y, x) float32
        Roots of counts, zero frequency at index n // 2; on another scale give a `beta`.
    start : (z, y, x) or (candidates, z, y, x) complex64
        Objects, on any scale; all are refined, the first support of each is its own shrink-wrap.
    iterations : int
        Divided as of `refinement`.
    recipe : str, optional
        In place of `iterations`, in the notation of `cathodeflow.bcdi.recipe`.
    mask, beta, shrink_every, sigma, threshold, likelihood, device
        Of `phase.retrieve`.

    Returns
    -------
    Retrieval
        A start for each object, in their order.

    Raises
    ------
    InputError
        When there is no iteration, an object is 0 everywhere, or as of `phase.retrieve`.
    """
    return retrieve(
        amplitude, recipe=refinement(iterations) if recipe is None else recipe, initial=start, mask=mask, beta=beta,
        shrink_every=shrink_every, sigma=sigma, threshold=threshold, likelihood=likelihood, device=device,
    )  # fmt: skip


def refinement(iterations: int) -> list[Step]:
    """Divide iterations: relaxed averaged alternating reflections, and error reduction for the last fifth, at most 20.

    Hybrid input-output leaves wrong minima as well, but where photons are few it leaves the right one too: with some
    1e6 of them or fewer it does so even from the truth. RAAR, with its relaxation by the noise (`beta` None of
    `phase.retrieve`), stays there, and ER ends in it.

    Examples
    --------
    >>> [(step.algorithm, step.iterations) for step in refinement(50)]
    [('RAAR', 40), ('ER', 10)]
    """
    if iterations < 1:
        raise InputError("iterations", str(iterations), "at least 1")
    last = min(-(-iterations // 5), 20)
    steps = (("RAAR", iterations - last), ("ER", last))
    return [Step(name, count) for name, count in steps if count]


def fine_tune(
    model: PhaseNetwork,
    amplitude: Any,
    *,
    steps: int = 100,
    learning_rate: float = 1e-4,
    loss: LossName = "mix",
    mask: Any = None,
    clip_norm: float = 1.0,
    device: str = "auto",
    precision: str = "auto",
) -> FineTuned:
    """Train a copy of a network on the one pattern that was measured; it ends with the weights of the lowest loss.

    Parameters
    ----------
    model : PhaseNetwork
        Left as it is. What its batch normalisation has learned of other patterns stays.
    amplitude : (z, y, x) float32
        Square root of counts, zero frequency at index n // 2.
    steps : int
        Of Adam.
    loss : {"l1", "pearson", "poisson", "mix"}
        Of the best candidate (`losses.diffraction_loss`).
    mask : (z, y, x) bool, optional
        True where a pixel was measured. Default: all.
    clip_norm : float
        Largest norm of the gradient; where it is not finite the step is left out.
    device : {"auto", "cpu", "cuda"}
    precision : {"auto", "bf16-mixed", "32-true"}

    Raises
    ------
    InputError
        When there is no step, or as of `infer.infer`.
    """
    if steps < 1:
        raise InputError("steps", str(steps), "at least 1")
    place = resolve_device(device)
    measured = checked(model, amplitude, mask)
    if len(measured) != 1:
        raise InputError("amplitude", f"{len(measured)} volumes", "one")
    measured = measured.to(place)
    valid = None if mask is None else torch.as_tensor(mask, device=place).bool()
    tuned = copy.deepcopy(model).to(place).eval()
    autocast = resolve_precision(precision, place) != "32-true"
    optimizer = torch.optim.Adam(tuned.parameters(), lr=learning_rate)
    losses: list[float] = []
    lowest = copy.deepcopy(tuned.state_dict())
    # One more time without a step, for the weights after the last.
    for step in range(steps + 1):
        with torch.set_grad_enabled(step < steps):
            with torch.autocast(place.type, torch.bfloat16, enabled=autocast):
                found = tuned(measured)
            value = best(diffraction_loss(found, measured, loss, mask=valid)).mean()
        losses.append(float(value.detach()))
        if step and losses[-1] <= min(losses):
            lowest = copy.deepcopy(tuned.state_dict())
        if step < steps:
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            # A norm that is not finite would write NaN into every weight.
            if torch.isfinite(nn.utils.clip_grad_norm_(tuned.parameters(), clip_norm)):
                optimizer.step()
    tuned.load_state_dict(lowest)
    return FineTuned(tuned.cpu(), losses)
