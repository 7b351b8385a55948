"""Probability that a reconstruction is right, from what is known without the truth.

A logistic regression on the numbers of `evidence`, fitted to simulated crystals of all regimes and kinds and 1e5 to 1e8
photons, phased by the default recipe from five starts (`benchmarks/bcdi_trust.py`, which also checks it on others).
"""

from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from cathodeflow.bcdi.evidence import evidence
from cathodeflow.bcdi.retrieval import Retrieval

#: Correlation with the true object above which a reconstruction is called right.
RIGHT = 0.95
#: Inputs that need several starts. Of the others (`evidence.FEATURES`), none lowers the Brier score in cross-validation
#: further: starts that are wrong agree, too.
OF_SEVERAL = ("highest_agreement",)
#: Inputs of the regressions.
INPUTS = (
    "error_over_noise",
    "log_chi_square",
    "unevenness",
    "surface",
    "largest_part",
    "twin_likeness",
    "counting_noise",
    *OF_SEVERAL,
)
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


SEVERAL = Model(
    9.046,
    {
        "error_over_noise": (0.1017, 0.329, -3.778),
        "log_chi_square": (0.08419, 0.9564, 0.4208),
        "unevenness": (-3.108, 1.499, -5.214),
        "surface": (0.316, 0.1359, -1.016),
        "largest_part": (0.9953, 0.02795, 0.6213),
        "twin_likeness": (1.717, 1.314, -0.2768),
        "counting_noise": (-2.898, 0.9814, -3.69),
        "highest_agreement": (5.329, 1.595, 1.442),
    },
)
SINGLE = Model(
    8.74,
    {
        "error_over_noise": (0.1017, 0.329, -3.97),
        "log_chi_square": (0.08419, 0.9564, 0.1057),
        "unevenness": (-3.108, 1.499, -6.034),
        "surface": (0.316, 0.1359, -1.171),
        "largest_part": (0.9953, 0.02795, 0.5512),
        "twin_likeness": (1.717, 1.314, -0.03799),
        "counting_noise": (-2.898, 0.9814, -4.067),
    },
)


def probability_right(table: pd.DataFrame) -> NDArray[np.float64]:
    """Probability (start,) that each start of one pattern is right: has a correlation with the truth above `RIGHT`.

    Parameters
    ----------
    table : DataFrame
        Of `evidence`: one row per start.
    """
    return applied(SEVERAL if len(table) > 1 else SINGLE, table)


def probability_of_each(found: Retrieval, amplitude: Tensor, mask: Tensor) -> Tensor:
    """Probability (start,) float64 that each start is right, each by itself.

    For starts that are bred from each other: they agree because they have the same parents.

    Parameters
    ----------
    found : Retrieval
    amplitude : (z, y, x) float32
    mask : (z, y, x) bool
    """
    values = []
    for index in range(len(found.objects)):
        one = Retrieval(*(tensor[index : index + 1] for tensor in found))
        known = evidence(one.objects, one.errors[:, -1], one.free_log_likelihood, one.coherence, amplitude, mask=mask)
        values.append(float(applied(SINGLE, known)[0]))
    return torch.tensor(values, dtype=torch.float64)


def applied(model: Model, table: pd.DataFrame) -> NDArray[np.float64]:
    """Apply a regression to each row of a table of `evidence`."""
    given = inputs(table)
    total = np.full(len(table), model.intercept)
    for name, (centre, scale, weight) in model.terms.items():
        total += weight * (given[name].to_numpy() - centre) / scale
    probability: NDArray[np.float64] = 1 / (1 + np.exp(-np.clip(total, -50, 50)))
    return probability


def inputs(table: pd.DataFrame) -> pd.DataFrame:
    """Bring the columns of `evidence` to the scales on which the regression is linear."""
    given = table[list(INPUTS)].astype(float).copy()
    for name in ("unevenness", "surface", "counting_noise"):
        given[name] = np.log(given[name].clip(lower=_LEAST))
    for name in ("highest_agreement", "twin_likeness"):
        given[name] = -np.log((1 - given[name]).clip(lower=_LEAST))
    return given
