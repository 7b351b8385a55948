"""Phasing of crystals whose truth is known, from a network's images and from random starts, with the same settings."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from torch import Tensor

from cathodeflow.bcdi.comparison import against_truth
from cathodeflow.bcdi.displacement import REGIMES
from cathodeflow.bcdi.figures_of_merit import support_fraction
from cathodeflow.bcdi.network import PhaseNetwork
from cathodeflow.bcdi.prediction import predict_objects
from cathodeflow.bcdi.refinement import refine_objects, refinement
from cathodeflow.bcdi.retrieval import retrieve

#: What phasing starts from.
NETWORK, RANDOM = "network", "random"

Row = dict[str, Any]


def try_starts(
    network: PhaseNetwork,
    amplitude: Tensor,
    truth: Tensor,
    *,
    iterations: Sequence[int],
    starts: int = 1,
    seed: int = 0,
    mask: Tensor | None = None,
    side: int | None = None,
    beta: float | None = None,
    device: str = "auto",
    precision: str = "auto",
    **settings: Any,
) -> list[Row]:
    """Phase one crystal anew for each number of iterations, from both kinds of start.

    Parameters
    ----------
    network : PhaseNetwork
    amplitude : (z, y, x) float32
        Square root of counts, zero frequency at index n // 2.
    truth : (z, y, x) complex64
    iterations : sequence of int
        Divided as of `refine.refinement`.
    starts : int
        Random starts; and candidates of the network, those of the lowest residual, as far as it gives as many.
    seed : int
        Of the random starts.
    mask : (z, y, x) bool, optional
        True where a pixel was measured. Default: all.
    side, device, precision
        Of `infer.infer`.
    beta
        Of `phase.retrieve`, by default by the noise.
    **settings
        Of `phase.retrieve`, the same for all.

    Returns
    -------
    list of dict
        A row for each start: `start` (`NETWORK` or `RANDOM`), `iterations`, `candidate` (its number), `correlation`,
        `phase_error` [rad], `error` and `support_fraction`. At 0 iterations the network alone. A network that gives
        nothing to start from has a row of correlation 0 for each number of iterations.
    """
    guess = predict_objects(network, amplitude.numpy(), mask=mask, side=side, device=device, precision=precision)
    usable = guess.objects.abs().amax((1, 2, 3)) > 0
    candidates = guess.objects[usable][:starts]
    rows = trial_rows(NETWORK, 0, guess.objects[:starts], guess.residuals[:starts], truth)
    settings |= {"mask": mask, "beta": beta, "device": device}
    for count in iterations:
        found = {RANDOM: retrieve(amplitude, recipe=refinement(count), starts=starts, seed=seed, **settings)}
        if len(candidates):
            found[NETWORK] = refine_objects(amplitude, candidates, iterations=count, **settings)
        else:
            rows += [{**rows[0], "iterations": count}]
        for start, one in found.items():
            rows += trial_rows(start, count, one.objects, one.errors[:, -1], truth)
    return rows


def best_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Keep of the starts of each crystal that of the least error, as one has to choose who has no truth.

    Parameters
    ----------
    trials : DataFrame
        Rows of `try_starts` with a column `crystal`.

    Examples
    --------
    >>> rows = {"crystal": [7, 7], "start": "random", "iterations": 50, "error": [0.3, 0.2], "correlation": [0.8, 0.9]}
    >>> best_trials(pd.DataFrame(rows))["correlation"].tolist()
    [0.9]
    """
    return trials.loc[trials.groupby(["crystal", "start", "iterations"], sort=False)["error"].idxmin()]


def trial_rows(start: str, iterations: int, objects: Tensor, errors: Tensor, truth: Tensor) -> list[Row]:
    """Compare objects (candidate, z, y, x) of one kind of start with the truth: the rows that `try_starts` tells of."""
    agreement, fractions = against_truth(objects, truth), support_fraction(objects)
    columns = zip(agreement.correlation, agreement.phase_error, errors, fractions, strict=True)
    names = ("correlation", "phase_error", "error", "support_fraction")
    return [
        {
            "start": start,
            "iterations": iterations,
            "candidate": number,
            **dict(zip(names, map(float, one), strict=True)),
        }
        for number, one in enumerate(columns)
    ]


def by_regime(trials: pd.DataFrame) -> pd.DataFrame:
    """Sort trials by regime, from weak to strong strain, then by crystal; the order of its trials stays."""
    ranks = trials["regime"].map(list(REGIMES).index)
    return trials.assign(rank=ranks).sort_values(["rank", "crystal"], kind="stable").drop(columns="rank")
