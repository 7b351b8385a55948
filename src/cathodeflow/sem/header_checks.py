"""What the names of class folders and the size of a mask say of labelled micrographs, before they are read."""

import logging
from collections.abc import Iterator, Mapping, Sequence

from cathodeflow.errors import InputError
from cathodeflow.io.image_lists import image_files
from cathodeflow.io.micrographs import micrograph_header, read_micrograph
from cathodeflow.sem.classes import ImageRow, list_images, similar_labels, with_classes
from cathodeflow.sem.options import DataSet, Section

log = logging.getLogger("cathodeflow")

# Most excluded pixels of a mask without a warning [%].
_MOST = 50


def find_problems(section: Section, samples: Mapping[str, DataSet]) -> Iterator[InputError]:
    """Find masks of another size than the images, and a single class; classes with almost the same name are logged."""
    classes: set[str] = set()
    for name, data_set in samples.items():
        if data_set.simulated:
            classes |= {"simulated", "classes"} if data_set.role == "train" else set()
            continue
        mask, key = section.index.mask, "sem.index.mask"
        if data_set.role == "predict":
            mask, key = section.predict.mask, "sem.predict.mask"
        else:
            rows = list_images(data_set.images, section.index.compositions, section.index.states, refused=[])
            for text in class_warnings(rows):
                log.warning("%s: data set '%s': %s", section.samples, name, text)
            if data_set.role == "train":
                classes |= {row.label for row in with_classes(rows, section.index.classes)}
        yield from mask_errors(mask, image_files(data_set.images, []), key)
    if len(classes) == 1:
        yield InputError(section.samples or "sem.samples", f"one class, {classes.pop()}", "at least two to train on")


def class_warnings(rows: Sequence[ImageRow]) -> Iterator[str]:
    """Find classes with almost the same name, which would be trained as two, and folders that may be no class."""
    for a, b in similar_labels(sorted({row.label for row in rows})):
        yield f"classes '{a}' and '{b}' have almost the same name: are they one?"
    numbered = {name: any(letter.isdigit() for letter in name) for name in sorted({row.composition for row in rows})}
    others = [f"'{name}'" for name, has in numbered.items() if not has]
    if 0 < len(others) < len(numbered) / 2:
        yield f"is {' and '.join(others)} a class? The names of the other {sum(numbered.values())} have numbers"


def mask_errors(mask: str | None, paths: Sequence[str], key: str) -> Iterator[InputError]:
    """Find out whether a mask is as large as the first image; one that excludes most pixels is logged.

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
        return
    excluded = 100 * float((read_micrograph(mask) > 0).mean())
    if excluded > _MOST:
        log.warning("%s: %s excludes %.1f %% of the pixels: those above 0 are not used", key, mask, excluded)
