"""Warnings about classes that a method hardly ever predicts."""

from collections.abc import Mapping, Sequence

import pandas as pd

# A class is missing from a prediction below this fraction of its usual fraction.
_MISSING = 0.05


def missing_classes(predicted: Mapping[str, float], usual: Mapping[str, float]) -> list[str]:
    """Describe the classes that are hardly ever predicted.

    Parameters
    ----------
    predicted : mapping of str to float
        Fraction of the pixels that each class has in the prediction.
    usual : mapping of str to float
        The same in the training set, or in the reference.

    Examples
    --------
    >>> missing_classes({"pore": 0.6, "binder": 2e-5}, {"pore": 0.5, "binder": 0.025})
    ['binder has 0.002 % of the predicted pixels, and 2.5 % of the labelled ones']
    """
    return [
        f"{name} has {100 * predicted.get(name, 0.0):.2g} % of the predicted pixels, "
        f"and {100 * fraction:.2g} % of the labelled ones"
        for name, fraction in usual.items()
        if predicted.get(name, 0.0) < _MISSING * fraction
    ]


def missing_in_table(table: pd.DataFrame, classes: Sequence[str]) -> list[str]:
    """Describe the classes that methods hardly ever predict, one line for each method, seed and split.

    Parameters
    ----------
    table : DataFrame
        Columns `model`, `seed`, `split`, `fraction_<class>` and `true_fraction_<class>`.
    classes : sequence of str
    """
    return [
        f"{row['model']} ({row['split']}, seed {row['seed']}): {text}"
        for row in table.to_dict("records")
        for text in missing_classes(
            {name: row[f"fraction_{name}"] for name in classes},
            {name: row[f"true_fraction_{name}"] for name in classes},
        )
    ]
