"""Label images of a stack of slices, read as classes, with their mistakes collected by kind."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.errors import InputError
from cathodeflow.fibsem.labels import UNLABELLED, colour_name, colour_values, to_classes
from cathodeflow.fibsem.pairing import Pairing, match_labels
from cathodeflow.fibsem.reading import Labelling, colour_value
from cathodeflow.io.slices import Stack, open_stack, read_labels, some

# Values, or colours, that a message lists.
_LISTED = 5


def open_labels(labels: str | None, stack: Stack, options: Labelling) -> "LabelImages | None":
    """Open the label images of a stack.

    Parameters
    ----------
    labels : str, optional
        Folder, pattern, stack file, dataset or Zarr store.
    stack : Stack
        The slices.
    options : Labelling

    Raises
    ------
    InputError
        They cannot be read, or differ in size from the slices; a label image fits no slice; or the options have not one
        value or colour for each class.
    """
    n_classes = len(options.classes)
    for key, given in (("--label-values", options.label_values), ("--label-colors", options.label_colors)):
        if given is not None and len(given) != n_classes:
            raise InputError(key, f"{len(given)} values", f"one for each of {n_classes} classes")
    if labels is None:
        return None
    opened = open_stack(labels, options.choice()._replace(channel=None, time_point=None, axes=options.label_axes))
    if opened.shape != stack.shape:
        expected = "{} x {} pixels, as the slices".format(*stack.shape)
        if sorted((opened.n_slices, *opened.shape)) == sorted((stack.n_slices, *stack.shape)):
            expected += "; give `axes` or `label_axes` if the axes of one are in another order"
        raise InputError(labels, "{} x {} pixels".format(*opened.shape), expected)
    if opened.files[0].coloured and options.label_colors is None:
        first = next(read_labels(opened, 0, 1))
        if first.ndim == 3:
            found = [colour_name(value) for value in np.unique(colour_values(first)).tolist()]
            shown = some(found, _LISTED)
            raise InputError(labels, f"colours ({shown})", "`label_colors`: the colour of each class")
    return LabelImages(labels, opened, match_labels(stack.names, opened.names, labels, by=options.pairing), options)


class LabelImages:
    """Label images, read as classes.

    Parameters
    ----------
    source : str
    stack : Stack
    pairing : Pairing
    options : Labelling
    """

    def __init__(self, source: str, stack: Stack, pairing: Pairing, options: Labelling) -> None:
        self._source, self._stack, self._own = source, stack, pairing.own
        self.unused = pairing.unused
        self._colours = options.label_colors
        if self._colours is None:
            self._values = options.label_values or tuple(range(len(options.classes)))
            self._ignore = options.ignore
        else:
            self._values = tuple(map(colour_value, self._colours))
            self._ignore = None if options.ignore_color is None else colour_value(options.ignore_color)
        self._unknown: dict[float, list[str]] = {}
        self._images: Iterator[NDArray[Any]] = iter(())
        self._next = -1

    @property
    def labelled(self) -> list[int]:
        """Numbers of the slices with a label image."""
        return np.flatnonzero(self._own >= 0).tolist()

    def read(self, number: int) -> NDArray[np.uint8]:
        """Return the classes (row, col) of a slice; `UNLABELLED` where there is no label."""
        index = int(self._own[number])
        if index < 0:
            return np.full(self._stack.shape, UNLABELLED, np.uint8)
        image = self._image(index)
        if self._colours is not None or image.ndim == 3:
            image = colour_values(image)
        classes, unknown = to_classes(image, self._values, self._ignore)
        for value in unknown:
            self._unknown.setdefault(value, []).append(self._stack.names[index] or str(index))
        return classes

    def _image(self, index: int) -> NDArray[Any]:
        """Read a label image; images in order are read in one pass, as some files cannot be entered in the middle."""
        if self._next != index:
            self._images = read_labels(self._stack, index, colours=self._colours is not None)
        self._next = index + 1
        return next(self._images)

    def errors(self) -> list[InputError]:
        """Return one error for all values that belong to no class, with the images that have them."""
        if not self._unknown:
            return []
        places = list(dict.fromkeys(name for names in self._unknown.values() for name in names))
        where = f"{self._source}, images {some(places)}"
        values = sorted(self._unknown)
        coloured = self._colours is not None
        shown = some([colour_name(value) if coloured else f"{value:g}" for value in values], _LISTED)
        expected = ", ".join(self._colours) if self._colours is not None else ", ".join(map(str, self._values))
        hint = "`label_colors` and `ignore_color`" if coloured else "`label_values`, and `ignore` for unlabelled pixels"
        return [InputError(where, f"the {'colours' if coloured else 'values'} {shown}", f"only {expected}; see {hint}")]
