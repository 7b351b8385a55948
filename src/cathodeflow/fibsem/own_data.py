"""Proposed configuration for stacks of slices and their label images."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cathodeflow.errors import InputError
from cathodeflow.fibsem.labels import colour_name, colour_values
from cathodeflow.fibsem.pairing import match_labels
from cathodeflow.init.files import Contents, Group, word_of
from cathodeflow.init.proposal import Names, Proposal, quoted
from cathodeflow.io.raw_format import VoxelSize
from cathodeflow.io.slices import open_stack, read_labels
from cathodeflow.io.voxel_sizes import NANOMETRES

_COLUMNS = ("sample", "role", "images", "labels")
# Label images that are decoded to list their values, and values that labels may have.
_DECODED, _VALUES = 8, 16


class _Volume(NamedTuple):
    """Slices, their label images, and the values of these, or colours as one number each."""

    group: Group
    labels: Group | None
    values: tuple[int, ...]

    @property
    def coloured(self) -> bool:
        return self.labels is not None and self.labels.coloured

    def text(self) -> str:
        """List the values or colours."""
        kind = "colours" if self.coloured else "values"
        return f"{kind} {_text(self.values, coloured=self.coloured)}"


def propose(groups: list[Group], contents: Contents, why: str) -> Proposal:
    """Propose volumes: those with label images to train on, others to segment.

    All volumes of a configuration have the same classes; those with other label values are named, not written.
    """
    volumes = [_volume(group, contents) for group in groups]
    known = Counter((volume.coloured, volume.values) for volume in volumes if volume.labels)
    coloured, values = known.most_common(1)[0][0] if known else (False, ())
    names, rows, found, unknown, options = Names(), [], [], [], ["volume:"]
    kept = []
    for volume in volumes:
        group, labels = volume.group, volume.labels
        if labels is None and volume.values:
            continue
        name = names.give(group, by_file=len(group.files) == 1)
        if labels and (volume.coloured, volume.values) != (coloured, values):
            found.append(f"volume {name}: labels with the {volume.text()}: init {group.folder} for a configuration")
            continue
        kept.append(volume)
        row = {"sample": name, "role": "train" if labels else "predict", "images": group.source}
        found.append(f"volume {name}: {group.text()}")
        if labels:
            row["labels"] = labels.source
            number = f"{labels.n} label image{'s' * (labels.n > 1)}"
            found.append(f"volume {name}: {number} {labels.source} with the {volume.text()}")
        if text := _voxel(group.voxel):
            found.append(f"volume {name}: {text}")
        else:
            unknown.append(f"the voxel size of {name}: pixel_nm and slice_nm")
        rows.append(row)
    alone = [volume for volume in volumes if volume.labels is None and volume.values]
    for volume in alone:
        found.append(f"{volume.group.source}: labels without grey images, with the {volume.text()}")
    if not rows and alone:
        return _rendered(alone, why, found)
    trained = any(row["role"] == "train" for row in rows)
    if values:
        shown = [colour_name(value).lstrip("#") if coloured else str(value) for value in values]
        classes = ", ".join(f"class_{text}" for text in shown)
        order = f"{'colours' if coloured else 'values'} {_text(values, coloured=coloured)}"
        options.append(f"  classes: [{classes}]   # fill in the names, in the order of the {order}")
        if coloured:
            options.append(f"  label_colors: [{', '.join(map(quoted, shown))}]")
        elif values != tuple(range(len(values))):
            options.append(f"  label_values: [{', '.join(map(str, values))}]")
        unknown.append(
            "the names of the classes: fibsem.volume.classes; values that only other images have are missing"
        )
    elif coloured:
        unknown.append(
            f"the classes: more than {_VALUES} colours in the labels; fill in fibsem.volume.classes and label_colors"
        )
    options.append("  # pixel_nm: 10   # voxel size where the files state none [nm]")
    options.append("  # slice_nm: 10")
    if any(_is_no_stack(volume.group) for volume in kept if volume.labels):
        options += [
            "# The names are no running numbers: single images. Without neighbouring slices; for up to 20 images,",
            "# add the pretrained networks of config/fibsem-images.yaml:",
            "networks:",
            "  unet: {dropout: 0.0, class_weights: none}",
            "  ugsm: {}",
            "  forest: {architecture: forest, dropout: 0.0, class_weights: none}",
            "methods: {matphase: ugsm}",
            "augment: {gap: 0, normalize_slices: true}",
        ]
    if not trained:
        options = ["predict:", "  model:   # fill in: a model of fibsem, or add labelled slices to the sheet"]
        unknown.append("the labels: column labels, for at least one volume; or a trained model in fibsem.predict.model")
    columns = tuple(name for name in _COLUMNS if any(row.get(name) for row in rows))
    return Proposal("fibsem", why, columns, rows, options, found, list(dict.fromkeys(unknown)))


def _rendered(alone: list[_Volume], why: str, found: list[str]) -> Proposal:
    """Propose slices rendered from a label volume, as there are no grey images: of three phases if there is one."""
    best = min(alone, key=lambda volume: (volume.values != (0, 1, 2), -volume.group.n))
    options = [
        "# No grey images were found: slices are rendered from the label volume (0 pore, 1 active, 2 binder).",
        "simulate:",
        f"  labels: {quoted(best.group.source)}",
    ]
    row = {"sample": "rendered", "role": "train", "images": "simulated"}
    return Proposal("fibsem", why, _COLUMNS[:3], [row], options, found, ["grey images of the labelled volumes"])


def labels_of(group: Group, groups: Sequence[Group]) -> Group | None:
    """Return the label images of a group of slices: as large, beside them or in a folder beside, with equal numbers."""
    places = {group.folder, os.path.dirname(group.folder)}
    for other in groups:
        if other.word not in ("labels", "mask") or other.shape != group.shape:
            continue
        if other.coloured and other.word == "mask":
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


def _volume(group: Group, contents: Contents) -> _Volume:
    labels = None if group.word else labels_of(group, contents.groups)
    if labels:
        found = _label_values(labels, _DECODED)
        # Colours of photographs, or blended at edges, are no classes.
        return _Volume(group, labels, () if labels.coloured and len(found) > _VALUES else found)
    values = _label_values(group, 1) if len(group.files) == 1 and group.n > 1 and "int8" in group.dtype else ()
    return _Volume(group, None, values if 1 < len(values) <= _VALUES else ())


def _label_values(group: Group, most: int) -> tuple[int, ...]:
    """List the values, or colours, of some label images, evenly spaced.

    None if they cannot be read or are no whole numbers.
    """
    found: set[float] = set()
    try:
        for path in group.files if len(group.files) <= most else group.files[:: -(-len(group.files) // most)]:
            stack = open_stack(path)
            middles = range(stack.n_slices // 2, stack.n_slices, max(1, stack.n_slices // 2))
            for number in [*middles][: 2 if stack.n_slices > 1 else 1]:
                image = next(read_labels(stack, number, number + 1, colours=group.coloured))
                image = colour_values(image) if group.coloured else image
                found |= set(np.unique(image).tolist()) if image.ndim == 2 else set()
    except (InputError, StopIteration):
        return ()
    return tuple(sorted(int(value) for value in found)) if all(float(value).is_integer() for value in found) else ()


def _is_no_stack(group: Group) -> bool:
    """Whether the names of files differ by more than one running number."""
    stems = {re.sub(r"\d+$", "", os.path.splitext(os.path.basename(path))[0]) for path in group.files}
    return len(group.files) > 1 and len(stems) > 1


def _voxel(voxel: VoxelSize | None) -> str | None:
    """Describe the voxel size that files state; None without a unit."""
    if voxel is None or voxel.unit not in NANOMETRES:
        return None
    steps = [None if step is None else step * NANOMETRES[voxel.unit] for step in voxel.size]
    return "voxels of {} nm ({})".format(
        " x ".join("?" if step is None else f"{step:g}" for step in steps), voxel.origin
    )


def _text(values: tuple[int, ...], *, coloured: bool = False) -> str:
    return ", ".join(colour_name(value) if coloured else str(value) for value in values) or "none (not read)"
