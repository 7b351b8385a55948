"""Phase retrieval from as many starts as one needs that is probably right."""

import torch
from torch import Tensor

from cathodeflow.bcdi.evidence import evidence
from cathodeflow.bcdi.modes import best_of
from cathodeflow.bcdi.options import Phase
from cathodeflow.bcdi.retrieval import Retrieval, retrieve
from cathodeflow.bcdi.trust import probability_right


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
    order : list of int
        Starts, the best first: by their free log-likelihood (`modes.best_of`); with `max_starts` by the
        probability that they are right.
    """
    if options.max_starts is None:
        found = retrieve(amplitude, options, mask=mask)
        return found, best_of(found, options.starts)
    done, parts = 0, []
    while True:
        count = min(options.starts, options.max_starts - done)
        parts.append(retrieve(amplitude, options, mask=mask, numbers=range(done, done + count)))
        done += count
        found = Retrieval(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
        known = evidence(
            found.objects, found.errors[:, -1], found.free_log_likelihood, found.coherence, amplitude, mask=mask
        )
        probability = torch.from_numpy(probability_right(known))
        if done >= options.max_starts or probability.max() >= options.until:
            return found, [int(number) for number in (-probability).argsort(stable=True)]
