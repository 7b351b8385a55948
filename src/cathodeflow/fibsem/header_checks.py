"""Whether labelled slices suffice for training and test, from their number."""

from collections.abc import Callable
from typing import Any

from cathodeflow.errors import InputError
from cathodeflow.fibsem import split
from cathodeflow.fibsem.labelled_stack import LabelImages
from cathodeflow.fibsem.options import Augment

_SPLITS: dict[str, Callable[..., Any]] = {"paper": split.paper, "grouped": split.grouped}


def require_splits(labels: LabelImages, options: Augment) -> None:
    """Require that the labelled slices of a volume can be split as the options say.

    Raises
    ------
    InputError
        They are too few.
    """
    seeded = options.model_copy(update={"seed": options.seed or 0})
    for name in options.splits:
        try:
            _SPLITS[name](labels.labelled, seeded)
        except InputError as error:
            where = f"labels, {error.where}"
            raise InputError(where, f"{len(labels.labelled)} labelled slices: {error.found}", error.expected) from None
