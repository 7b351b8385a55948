"""The technique that files probably belong to, by their names, sizes and types."""

import os
from collections.abc import Sequence
from typing import NamedTuple

from cathodeflow.errors import InputError
from cathodeflow.init.files import Contents, Group, word_of
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


def labels_of(group: Group, groups: Sequence[Group]) -> Group | None:
    """Return the label images of a group of slices: as large, beside them or in a folder beside, with equal numbers."""
    from cathodeflow.fibsem.pairing import match_labels

    places = {group.folder, os.path.dirname(group.folder)}
    for other in groups:
        if other.word not in ("labels", "mask") or other.shape != group.shape or other.coloured:
            continue
        named = word_of(os.path.basename(other.folder)) in ("labels", "mask")
        if (os.path.dirname(other.folder) if named else other.folder) not in places:
            continue
        if other.word == "mask" and other.n != group.n:
            continue  # one mask of bad pixels for many frames
        names = [tuple(os.path.splitext(os.path.basename(path))[0] for path in one.files) for one in (group, other)]
        try:
            if len(group.files) == len(other.files) == 1 and group.n == other.n:
                return other
            if (match_labels(names[0], names[1], other.source, by="name").own >= 0).any():
                return other
        except InputError:
            continue
    return None


def _is_label_volume(group: Group) -> bool:
    """Whether a file has a whole volume of labels or masks, which may be data for itself."""
    return group.word == "labels" and len(group.files) == 1 and group.n > 1


def _technique(group: Group, contents: Contents) -> tuple[str, str]:
    several = len(group.files) > 1
    if labels_of(group, contents.groups):
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
