"""Whether labelled slices suffice for training and test, from their number, and a few of them for their classes."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.fibsem import split
from cathodeflow.fibsem.labelled_stack import LabelImages, open_labels
from cathodeflow.fibsem.options import Section
from cathodeflow.fibsem.slice_options import Augment, Slices
from cathodeflow.io.slices import open_stack
from cathodeflow.io.sources import is_remote

log = logging.getLogger("cathodeflow")

# Label images that are read for their values.
_IMAGES = 8
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
                require_classes(labels, section.volume.classes, f"{section.samples}: volume '{name}'")
        except InputError as error:
            for one in error.errors:
                yield InputError(f"{section.samples}: volume '{name}': {one.where}", one.found, one.expected)


def require_classes(labels: LabelImages, classes: Sequence[str], where: str) -> None:
    """Require that some label images have values of classes only; a class that they do not have is logged.

    Parameters
    ----------
    labels : LabelImages
    classes : sequence of str
        Names.
    where : str
        Name of the volume in warnings.

    Raises
    ------
    InputError
        One line for the values that are no class.
    """
    every = labels.labelled
    read = every[:: -(-len(every) // _IMAGES)]
    found = set().union(*(np.unique(labels.read(number)).tolist() for number in read))
    if errors := labels.errors():
        raise InputErrors.of(errors)
    if missing := [name for number, name in enumerate(classes) if number not in found]:
        log.warning("%s: no pixel of %s in %d of %d label images", where, " or ".join(missing), len(read), len(every))


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
