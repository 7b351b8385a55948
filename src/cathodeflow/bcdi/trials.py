"""Phasing of crystals with known truth from predictions of a network and from random starts, with equal settings."""

from typing import Any

import pandas as pd
from torch import Tensor

from cathodeflow.bcdi.comparison import against_truth
from cathodeflow.bcdi.displacement import REGIMES
from cathodeflow.bcdi.figures_of_merit import support_fraction
from cathodeflow.bcdi.network import PhaseNetwork
from cathodeflow.bcdi.network_options import Evaluate, phasing_options
from cathodeflow.bcdi.phase_options import SUPPORT_THRESHOLD
from cathodeflow.bcdi.prediction import predict_objects
from cathodeflow.bcdi.refinement import refinement
from cathodeflow.bcdi.retrieval import retrieve

#: Kinds of starts.
NETWORK, RANDOM = "network", "random"

Row = dict[str, Any]


def try_starts(
    network: PhaseNetwork, amplitude: Tensor, truth: Tensor, options: Evaluate, *, mask: Tensor | None = None
) -> list[Row]:
    """Phase one crystal separately for each number of iterations, from both kinds of start with the same settings.

    Parameters
    ----------
    network : PhaseNetwork
    amplitude : (z, y, x) float32
        Square root of counts, zero frequency at index n // 2.
    truth : (z, y, x) complex64
    options : Evaluate
        With the number of random starts, and of candidates of the network (those with the lowest residuals, if it
        predicts more).
    mask : (z, y, x) bool, optional
        True where a pixel was measured. Default: all.

    Returns
    -------
    list of dict
        One row per start: `start` (`NETWORK` or `RANDOM`), `iterations`, `candidate` (its number), `correlation`,
        `phase_error` [rad], `error` and `support_fraction`. 0 iterations are those of the network alone. A network that
        predicts only zeros has a row with correlation 0 for each number of iterations.
    """
    guess = predict_objects(network, amplitude.numpy(), options, mask=mask)
    usable = guess.objects.abs().amax((1, 2, 3)) > 0
    candidates = guess.objects[usable][: options.starts]
    rows = trial_rows(NETWORK, 0, guess.objects[: options.starts], guess.residuals[: options.starts], truth)
    for count in options.iterations:
        phasing = phasing_options(options, recipe=refinement(count))
        found = {RANDOM: retrieve(amplitude, phasing, mask=mask)}
        if len(candidates):
            found[NETWORK] = retrieve(amplitude, phasing, mask=mask, initial=candidates)
        else:
            rows += [{**rows[0], "iterations": count}]
        for start, result in found.items():
            rows += trial_rows(start, count, result.objects, result.errors[:, -1], truth)
    return rows


def best_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Keep the start with the lowest error of each crystal, a choice that does not need the truth.

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
    """Compare objects (candidate, z, y, x) of one kind of start with the truth: rows as in `try_starts`."""
    agreement, fractions = (
        against_truth(objects, truth, threshold=SUPPORT_THRESHOLD),
        support_fraction(objects, threshold=SUPPORT_THRESHOLD),
    )
    columns = zip(agreement.correlation, agreement.phase_error, errors, fractions, strict=True)
    names = ("correlation", "phase_error", "error", "support_fraction")
    return [
        {
            "start": start,
            "iterations": iterations,
            "candidate": number,
            **dict(zip(names, map(float, values), strict=True)),
        }
        for number, values in enumerate(columns)
    ]


def by_regime(trials: pd.DataFrame) -> pd.DataFrame:
    """Sort trials by regime, from weak to strong strain, then by crystal, without changing the order of its trials."""
    ranks = trials["regime"].map(list(REGIMES).index)
    return trials.assign(rank=ranks).sort_values(["rank", "crystal"], kind="stable").drop(columns="rank")
