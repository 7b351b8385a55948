"""Classes of labelled images, from the names of their folders or from a table. Light to import."""

import difflib
import itertools
import os
import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.image_lists import images_in, is_table, read_rows, subfolders

#: States that names of class folders end with, unless others are given; without one it is the first.
STATES = ("pristine", "formation", "cycled")
# Likeness of two names, from 0 to 1, of which one may be misspelt.
_SIMILAR = 0.9
SPLITS = ("train", "validation", "test", "left out")


class ImageRow(NamedTuple):
    """An image and its entries in the data set; names are unique within the data set."""

    image: str
    name: str
    composition: str
    state: str
    label: str
    session: str | None = None
    split: str | None = None


def list_images(
    images: str,
    compositions: Sequence[str] | None = None,
    states: Sequence[str] | None = None,
    *,
    data_set: str | None = None,
    refused: list[InputError] | None = None,
) -> list[ImageRow]:
    """List the images of a data set with their classes, without opening them.

    Parameters
    ----------
    images : str
        Folder of class folders named `<composition>` or `<composition>_<state>`; or a table, see
        `cathodeflow.io.image_lists.read_rows`. Without a state, images have the first one.
    compositions, states : sequence of str, optional
        Those that may occur, see `cathodeflow.sem.options.Index`.
    data_set : str, optional
        Prefix of the names of the images, which keeps those of several data sets apart.
    refused : list of InputError, optional
        Errors of images with names that are no text are appended here, and these left out, instead of raised.

    Returns
    -------
    list of ImageRow
        By class in natural order of the files, or as in the table.

    Raises
    ------
    InputError
        No such folder, class folders that are unknown or empty, images outside of them, or rows of a table with an
        unknown class or split, or whose image is missing: a line each.
    """
    rows = (
        _table_images(images, compositions, states)
        if is_table(images)
        else _folder_images(images, compositions, states, refused)
    )
    prefix = f"{data_set}/" if data_set else ""
    return [row._replace(name=prefix + row.name) for row in rows]


def with_classes(rows: Sequence[ImageRow], classes: str) -> list[ImageRow]:
    """Set the label of each image to what is to be predicted.

    Parameters
    ----------
    rows : sequence of ImageRow
    classes : {"both", "composition", "state"}
        `sem.index.classes`.

    Examples
    --------
    >>> row = ImageRow("a.tif", "622_cycled/a.tif", "622", "cycled", "622_cycled")
    >>> [with_classes([row], name)[0].label for name in ("both", "composition", "state")]
    ['622_cycled', '622', 'cycled']
    """
    if classes == "both":
        return list(rows)
    return [row._replace(label=row.composition if classes == "composition" else row.state) for row in rows]


def similar_labels(labels: Sequence[str]) -> list[tuple[str, str]]:
    """Find pairs of classes whose names differ so little that one may be misspelt.

    Examples
    --------
    >>> similar_labels(["333", "333_formation", "333_formaton", "533", "LFP", "lfp"])
    [('333_formation', '333_formaton'), ('LFP', 'lfp')]
    """
    # Accents may be letters of their own, and blanks at the ends are not visible.
    seen = {label: unicodedata.normalize("NFKC", label).strip().casefold() for label in labels}
    return [
        (a, b)
        for a, b in itertools.combinations(sorted(labels), 2)
        # Digits tell materials apart.
        if [letter for letter in seen[a] if letter.isdigit()] == [letter for letter in seen[b] if letter.isdigit()]
        and difflib.SequenceMatcher(None, seen[a], seen[b]).ratio() >= _SIMILAR
    ]


def _folder_images(
    folder: str, compositions: Sequence[str] | None, given: Sequence[str] | None, refused: list[InputError] | None
) -> list[ImageRow]:
    if not os.path.isdir(folder):
        found = "a file" if os.path.exists(folder) else "no such folder"
        raise InputError(folder, found, "a folder of class folders, or a table (.csv, .tsv)")
    states = given or STATES
    expected = "a class folder: "
    expected += f"{'|'.join(compositions)}, alone or" if compositions else "the material, alone or"
    expected += f" with _{'|_'.join(states)}"
    errors: list[InputError] = []
    rows: list[ImageRow] = []
    if outside := images_in(folder):
        errors.append(InputError(folder, f"{len(outside)} images outside of class folders", "class folders only"))
    folders = subfolders(folder)
    if not folders:
        errors.append(InputError(folder, "no folder in it", expected))
    for path in folders:
        name = os.path.basename(path)
        if set("{}") & set(name):
            # Snakemake reads braces as wildcards.
            errors.append(InputError(path, f"a class '{name}'", "a name without { and }"))
            continue
        composition, state = _class_of(name, compositions, states)
        if compositions and composition not in compositions:
            errors.append(InputError(path, f"an unknown class '{name}'", expected))
            continue
        errors += [InputError(inner, "a folder in a class folder", "images") for inner in subfolders(path)]
        files = images_in(path, refused)
        if not files:
            errors.append(InputError(path, "no image", "images of the class"))
        label = _label(composition, state, states)
        rows += [ImageRow(file, f"{name}/{os.path.basename(file)}", composition, state, label) for file in files]
    if errors:
        raise InputErrors.of(errors)
    return rows


def _class_of(folder: str, compositions: Sequence[str] | None, states: Sequence[str]) -> tuple[str, str]:
    """Split the name of a class folder; without a known state at its end all of it is the composition."""
    composition, _, state = folder.rpartition("_")
    if folder in (compositions or ()) or not composition or state not in states:
        return folder, states[0]
    return composition, state


def _table_images(table: str, compositions: Sequence[str] | None, given: Sequence[str] | None) -> list[ImageRow]:
    states = given or STATES
    errors: list[InputError] = []
    rows: list[ImageRow] = []
    for number, cells in read_rows(table):
        where = f"{table} line {number}"
        composition, state = cells.get("composition", ""), cells.get("state", states[0])
        split, image = cells.get("split"), cells["image"]
        if compositions and composition not in compositions:
            known = "one of " + ", ".join(compositions)
            errors.append(InputError(where, f"composition '{composition}'", known))
        elif not composition:
            errors.append(InputError(where, "no composition", "the class of the image"))
        if (given or compositions) and state not in states:
            errors.append(InputError(where, f"state '{state}'", "one of " + ", ".join(states)))
        if split not in (None, *SPLITS):
            errors.append(InputError(where, f"split '{split}'", "one of " + ", ".join(SPLITS) + ", or nothing"))
        if not os.path.isfile(image):
            errors.append(InputError(where, f"image '{image}', which does not exist", "the path of an image"))
        label = _label(composition, state, states)
        name = f"{label}/{os.path.basename(image)}"
        rows.append(ImageRow(image, name, composition, state, label, cells.get("session"), split))
    if errors:
        raise InputErrors.of(errors)
    times = Counter(row.name for row in rows)
    return [row if times[row.name] == 1 else row._replace(name=f"{row.label}/{row.image}") for row in rows]


def _label(composition: str, state: str, states: Sequence[str]) -> str:
    return composition if state == states[0] else f"{composition}_{state}"
