"""Whether labelled slices suffice for training and test, from their number."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cathodeflow.errors import InputError
from cathodeflow.fibsem import split
from cathodeflow.fibsem.labelled_stack import LabelImages, open_labels
from cathodeflow.fibsem.options import Section
from cathodeflow.fibsem.slice_options import Augment, Slices
from cathodeflow.io.slices import open_stack
from cathodeflow.io.sources import is_remote

_SPLITS: dict[str, Callable[..., Any]] = {"paper": split.paper, "grouped": split.grouped}


def find_problems(section: Section, samples: Mapping[str, Slices]) -> Iterator[InputError]:
    """Find volumes with too few labelled slices, in a sheet whose slices and labels can be read."""
    for name, sample in samples.items():
        local = not (sample.simulated or is_remote(sample.images) or is_remote(sample.labels or ""))
        if sample.role != "train" or not local or section.pooled:
            continue
        try:
            labels = open_labels(sample.labels, open_stack(sample.images, section.volume.choice()), section.volume)
            if labels is not None:
                require_splits(labels, section.augment)
        except InputError as error:
            yield InputError(f"{section.samples}: volume '{name}': {error.where}", error.found, error.expected)


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
