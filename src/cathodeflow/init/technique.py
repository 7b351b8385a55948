"""The technique that files probably belong to, by their names, sizes and types."""

import importlib
import os
from typing import NamedTuple

from cathodeflow.init.files import Contents, Group
from cathodeflow.init.proposal import nearest

# Sides up to which frames may be a region of interest around one reflection [px], and frames of a rocking scan.
_REGION, _ROCKING = 1024, 20
_PICTURES = ("JPEG", "PNG", "BMP")
_VOLUMES = ("MetaImage", "NRRD", "NIfTI", "Amira", "Zarr")


class Guess(NamedTuple):
    """Groups of files that probably belong to a technique, and what speaks for it."""

    groups: list[Group]
    why: list[str]


def guess(contents: Contents) -> dict[str, Guess]:
    """Divide groups of files among the techniques.

    Dark images, flat fields, masks and labels are no data for themselves; the techniques look for them.
    """
    found: dict[str, Guess] = {}
    for group in contents.groups:
        if group.word and not _is_label_volume(group):
            continue
        technique, why = _technique(group, contents)
        guessed = found.setdefault(technique, Guess([], []))
        guessed.groups.append(group)
        if why not in guessed.why:
            guessed.why.append(why)
    return found


def _is_label_volume(group: Group) -> bool:
    """Whether a file has a whole volume of labels or masks, which may be data for itself."""
    return group.word == "labels" and len(group.files) == 1 and group.n > 1


def _technique(group: Group, contents: Contents) -> tuple[str, str]:
    several = len(group.files) > 1
    # Techniques are not imported, but found by their names.
    if importlib.import_module("cathodeflow.fibsem.own_data").labels_of(group, contents.groups):
        return "fibsem", "label images of the same size"
    if group.format in _VOLUMES:
        return "fibsem", f"volumes in the format {group.format}"
    if {"magnification", "voltage_kv"} & set(group.settings):
        return "sem", "settings of an electron microscope"
    if group.coloured or (group.format in _PICTURES and group.dtype == "uint8"):
        return "sem", f"{group.format} images of 8 bits"
    if group.dtype in ("uint8", "int8"):
        beside = {one.folder for one in contents.groups if os.path.dirname(one.folder) == os.path.dirname(group.folder)}
        if several and len(beside) > 1:
            return "sem", "folders of 8-bit images beside each other"
        return "fibsem", "slices of 8 bits"
    spec = nearest(contents.spec, group.folder)
    geometry = nearest(contents.geometries, group.folder)
    small = max(group.shape) <= _REGION
    if small and spec and not geometry:
        return "bcdi", f"frames of at most {_REGION} px with a SPEC file"
    if small and not geometry and group.n >= _ROCKING and len(contents.groups) < 8:
        return "bcdi", f"{_ROCKING} or more frames of at most {_REGION} px, as of one reflection"
    return "bragg", "detector frames" + " with a geometry" * bool(geometry)
