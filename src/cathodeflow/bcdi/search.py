"""Phase retrieval from as many starts as one needs that is probably right.

Rounds of random starts, and of starts that are bred from the best objects so far, alternate. A support that has
lost a part of the crystal does not get it back, from whatever start, so most rounds have a lower threshold of the
shrink-wrap than the options; a support that is too large fits better, but has a lower probability of being right.
"""

import torch
from torch import Tensor

from cathodeflow.bcdi.breeding import bred
from cathodeflow.bcdi.modes import best_of
from cathodeflow.bcdi.phase_options import Phase
from cathodeflow.bcdi.retrieval import Retrieval, retrieve
from cathodeflow.bcdi.trust import probability_of_each

#: Iterations from a bred object: enough of HIO to leave a minimum, not so many that what was found is lost.
RECIPE = "60*HIO(beta=0.9)+100*RAAR(beta=0.9)+100*RAAR(beta=0.8)+20*ER"
# Thresholds of the shrink-wrap relative to that of the options: of random starts after the first round, of bred ones.
_RANDOM, _BRED = (0.7, 0.5, 1.0), (0.7, 0.5)


def search(amplitude: Tensor, options: Phase, *, mask: Tensor) -> tuple[Retrieval, list[int]]:
    """Phase `starts` starts, and with `max_starts` as many more as it takes until one is probably right.

    Parameters
    ----------
    amplitude : (z, y, x) float32
    options : Phase
    mask : (z, y, x) bool

    Returns
    -------
    found : Retrieval
        Errors of starts with fewer iterations begin with NaN.
    order : list of int
        Starts, the best first: by their free log-likelihood (`modes.best_of`); with `max_starts` by the
        probability that they are right.
    """
    if options.max_starts is None:
        found = retrieve(amplitude, options, mask=mask)
        return found, best_of(found, options.starts)
    found = retrieve(amplitude, options, mask=mask, numbers=range(min(options.starts, options.max_starts)))
    probability = probability_of_each(found, amplitude, mask)
    random, turn = len(found.objects), 0
    while len(found.objects) < options.max_starts and probability.max() < options.until:
        count = min(options.starts, options.max_starts - len(found.objects))
        if turn % 2 == 0:
            new = _bred_starts(amplitude, options, mask, found, _ranked(found, probability), count, turn // 2)
        else:
            new = _random_starts(amplitude, options, mask, range(random, random + count))
            random += count
        turn += 1
        found = _joined([found, new])
        probability = torch.cat([probability, probability_of_each(new, amplitude, mask)])
    return found, _ranked(found, probability)


def _ranked(found: Retrieval, probability: Tensor) -> list[int]:
    """Rank starts by their probability, and by their errors where these are as good as equal."""
    by_error = found.errors[:, -1].argsort(stable=True)
    return [int(number) for number in by_error[(-(100 * probability[by_error]).round()).argsort(stable=True)]]


def _random_starts(amplitude: Tensor, options: Phase, mask: Tensor, numbers: range) -> Retrieval:
    parts = []
    for index, factor in enumerate(_RANDOM):
        some = [number for number in numbers if number % len(_RANDOM) == index]
        if some:
            parts.append(retrieve(amplitude, _looser(options, factor), mask=mask, numbers=some))
    return _joined(parts)


def _bred_starts(
    amplitude: Tensor, options: Phase, mask: Tensor, found: Retrieval, order: list[int], count: int, turn: int
) -> Retrieval:
    """Phase starts bred from the best object and others; in the next turn each has the other threshold."""
    # The best one is its own first partner: it goes on with a larger support.
    partners = [order[index % len(order)] for index in range(count)]
    parts = []
    for index, factor in enumerate(_BRED):
        some = partners[(index + turn) % len(_BRED) :: len(_BRED)]
        if some:
            initial = bred(found.objects[order[0]], found.objects[some])
            settings = _looser(options, factor).model_copy(update={"recipe": RECIPE})
            parts.append(retrieve(amplitude, settings, mask=mask, initial=initial))
    return _joined(parts)


def _looser(options: Phase, factor: float) -> Phase:
    return options.model_copy(update={"threshold": factor * options.threshold})


def _joined(parts: list[Retrieval]) -> Retrieval:
    longest = max(part.errors.shape[1] for part in parts)
    padded = [
        part._replace(
            errors=torch.nn.functional.pad(part.errors, (longest - part.errors.shape[1], 0), value=float("nan"))
        )
        for part in parts
    ]
    return Retrieval(*(torch.cat(tensors) for tensors in zip(*padded, strict=True)))
