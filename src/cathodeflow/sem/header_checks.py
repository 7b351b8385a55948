"""What the names of class folders and the size of a mask say of labelled micrographs, before they are read."""

from collections.abc import Iterator, Sequence

from cathodeflow.errors import InputError
from cathodeflow.io.micrographs import micrograph_header
from cathodeflow.sem.classes import ImageRow, similar_labels


def class_warnings(rows: Sequence[ImageRow]) -> Iterator[str]:
    """Find classes with almost the same name, which would be trained as two."""
    for a, b in similar_labels(sorted({row.label for row in rows})):
        yield f"classes '{a}' and '{b}' have almost the same name: are they one?"


def mask_errors(mask: str | None, paths: Sequence[str], key: str) -> Iterator[InputError]:
    """Find out whether a mask is as large as the first image.

    Parameters
    ----------
    mask : str, optional
        Image in which pixels above 0 are not used.
    paths : sequence of str
        Images.
    key : str
        Key of the mask in the configuration.
    """
    if mask is None or not paths:
        return
    header, image = micrograph_header(mask), micrograph_header(paths[0])
    if (header.rows, header.cols) != (image.rows, image.cols):
        found = f"{header.rows} x {header.cols} pixels"
        yield InputError(f"{key}: {mask}", found, f"{image.rows} x {image.cols}, as {paths[0]}")
