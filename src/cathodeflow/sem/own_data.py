"""Proposed configuration for micrographs of cathodes."""

import os
from collections import Counter

from cathodeflow.errors import InputError
from cathodeflow.init.files import Contents, Group
from cathodeflow.init.proposal import Names, Proposal
from cathodeflow.sem.classes import list_images, similar_labels

_COLUMNS = ("sample", "role", "images")
# Settings that are worth a line.
_SHOWN = {"maker": "", "magnification": "x", "voltage_kv": " kV", "pixel_nm": " nm per pixel"}


def propose(groups: list[Group], contents: Contents, why: str) -> Proposal:
    """Propose data sets: folders of class folders to train on, other folders to classify."""
    names, rows, found, unknown = Names(), [], [], []
    above = Counter(os.path.dirname(folder) for folder in {group.folder for group in groups})
    labelled = [folder for folder, n in above.items() if n > 1 and not _has_images(folder, groups)]
    for folder in labelled:
        try:
            classes = Counter(row.label for row in list_images(folder))
        except InputError as error:
            unknown += [f"how to read {one.where}: found {one.found}, expected {one.expected}" for one in error.errors]
            classes = Counter()
        inside = [group for group in groups if os.path.dirname(group.folder) == folder]
        name = names.give(inside[0]._replace(folder=folder), by_file=False)
        rows.append({"sample": name, "role": "train", "images": folder})
        found.append(
            f"data set {name}: {sum(group.n for group in inside)} images; of the first class: {inside[0].text()}"
        )
        if classes:
            found.append(f"data set {name}: classes " + ", ".join(f"{key} ({n})" for key, n in classes.items()))
        found += [
            f"data set {name}: classes {a} and {b} differ little: misspelt?" for a, b in similar_labels(list(classes))
        ]
        found += [f"data set {name}: {text}" for text in _settings(inside)]
        if not any(group.settings for group in inside):
            unknown.append(f"magnification and pixel size of {name}: no sidecar and no settings in the first images")
    rest = {group.folder: group for group in groups if os.path.dirname(group.folder) not in labelled}
    for folder, group in rest.items():
        name = names.give(group, by_file=False)
        rows.append({"sample": name, "role": "predict", "images": folder if len(group.files) > 1 else group.source})
        found.append(f"data set {name}: {group.text()}, without classes")
        found += [f"data set {name}: {text}" for text in _settings([group])]
    if labelled:
        options = [
            "# Classes come from the folders, MATERIAL or MATERIAL_STATE. Other states:",
            "# index: {states: [pristine, formation, cycled]}",
            "train:",
            "  epochs: 5   # config/sem.yaml has further values for a CPU",
            "pages: true",
        ]
        unknown.append("whether images of a class were taken in one session: see the audit before trusting an accuracy")
    else:
        options = [
            "predict:",
            "  model:   # fill in: a model file of sem train, or write labelled images into the sheet",
        ]
        unknown.append(
            "the classes: put images into one folder per class, or name a trained model in sem.predict.model"
        )
    return Proposal("sem", why, _COLUMNS, rows, options, found, unknown)


def _has_images(folder: str, groups: list[Group]) -> bool:
    return any(group.folder == folder for group in groups)


def _settings(groups: list[Group]) -> list[str]:
    """Write the settings that the first images of the folders state."""
    texts = []
    for key, unit in _SHOWN.items():
        values = Counter(group.settings[key] for group in groups if key in group.settings)
        if values:
            shown = ", ".join(f"{value:g}{unit}" if isinstance(value, float) else f"{value}{unit}" for value in values)
            texts.append(f"{key}: {shown}")
    return texts
