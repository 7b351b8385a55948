"""Labelled volumes of any kind, opened as class indices with the names of their classes and their voxel size."""

import itertools
from typing import Any, NamedTuple

import dask.array as da
import numpy as np
from dask import delayed
from dask.utils import SerializableLock
from numpy.typing import NDArray

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.fibsem.labelled_stack import open_labels
from cathodeflow.fibsem.labels import UNLABELLED
from cathodeflow.fibsem.microstructure.property_table import Voxel
from cathodeflow.fibsem.properties_options import Properties
from cathodeflow.fibsem.reading import Labelling
from cathodeflow.fibsem.voxels import used_voxel
from cathodeflow.io.manifests import is_own_store
from cathodeflow.io.slices import open_stack
from cathodeflow.io.volumes import read_volume, read_volume_info
from cathodeflow.io.voxel_sizes import NANOMETRES, unit_name

# Slices of a file that are read at a time.
_TOGETHER = 16
_NM_PER_UM = 1000.0


class LabelVolume(NamedTuple):
    """A labelled volume.

    labels : (z, y, x) dask array of uint8
        Class indices; `UNLABELLED` for voxels without a label.
    classes : tuple of str
    voxel : Voxel
        In um, or of size 1 if it is not known.
    warnings : list of str
    """

    labels: da.Array
    classes: tuple[str, ...]
    voxel: Voxel
    warnings: list[str]


def open_label_volume(source: str, options: Properties) -> LabelVolume:
    """Open a labelled volume.

    Parameters
    ----------
    source : str
        Folder, pattern, stack file, dataset or Zarr store.
    options : Properties
        Names, values and colours of the classes, and voxel size.

    Raises
    ------
    InputError
        The files cannot be read; or, when they are read, a value that belongs to no class.
    """
    attributes: dict[str, Any] = {}
    if is_own_store(source):
        attributes = read_volume_info(source).attributes
    classes = options.classes or tuple(attributes.get("classes", Labelling().classes))
    if "classes" in attributes and options.label_values is None and options.ignore is None:
        return reference_volume(source, options)
    given = options.model_dump(include=set(Properties.model_fields) & set(Labelling.model_fields) - {"classes"})
    labelling = Labelling(**given, classes=classes, label_axes=options.axes, pairing="order")
    stack = open_stack(source, options.choice())
    found = open_labels(source, stack, labelling)
    assert found is not None

    lock = SerializableLock()

    def read(start: int, stop: int) -> NDArray[np.uint8]:
        # The files are read in order, by one thread at a time.
        with lock:
            images = np.stack([found.read(number) for number in range(start, stop)])
            # Values of no class are an error as soon as they are found.
            if errors := found.errors():
                raise InputErrors.of(errors)
        return images

    together = _TOGETHER if any(file.n > 1 for file in stack.files) else 1
    edges = [*range(0, stack.n_slices, together), stack.n_slices]
    parts = [
        da.from_delayed(delayed(read)(start, stop), shape=(stop - start, *stack.shape), dtype=np.uint8)
        for start, stop in itertools.pairwise(edges)
    ]
    voxel = used_voxel(stack.voxel, options, source)
    return LabelVolume(da.concatenate(parts), classes, as_voxel(voxel.metadata), voxel.warnings)


def reference_volume(store: str, options: Properties) -> LabelVolume:
    """Open a store of class indices that Cathodeflow wrote.

    Raises
    ------
    InputError
        There is no such store, it is damaged, or, when it is read, a label belongs to no class.
    """
    info = read_volume_info(store)
    classes = options.classes or tuple(info.attributes.get("classes", Labelling().classes))

    def checked(part: NDArray[np.uint8]) -> NDArray[np.uint8]:
        counts = np.bincount(part.ravel(), minlength=UNLABELLED + 1)
        if unknown := np.flatnonzero(counts[len(classes) : UNLABELLED]).tolist():
            found = ", ".join(str(value + len(classes)) for value in unknown[:5])
            raise InputError(store, f"the labels {found}", f"0 to {len(classes) - 1}: {', '.join(classes)}")
        return part

    array = read_volume(store)
    steps = dict(zip(info.axes, info.scale, strict=True))
    metadata: dict[str, Any] = {"unit": info.unit, "scale": [steps.get(axis, 1.0) for axis in "zyx"]}
    voxel = as_voxel({} if options.pixel_nm else metadata)
    if options.pixel_nm:
        voxel = as_voxel(used_voxel(None, options, store).metadata)
    return LabelVolume(array.map_blocks(checked, dtype=np.uint8), classes, voxel, [])


def as_voxel(metadata: dict[str, Any]) -> Voxel:
    """Return the voxel of the scale and the unit of a store; that of size 1 where they are not known.

    Examples
    --------
    >>> as_voxel({"scale": (200.0, 50.0, 50.0), "unit": "nm"})
    Voxel(size=(0.2, 0.05, 0.05), unit='um')
    >>> as_voxel({})
    Voxel(size=(1.0, 1.0, 1.0), unit='voxel')
    """
    name = unit_name(metadata.get("unit"))
    if name is None:
        return Voxel()
    slices, rows, cols = (float(step) * NANOMETRES[name] / _NM_PER_UM for step in metadata["scale"])
    return Voxel((slices, rows, cols), "um")


def given_voxel(texts: tuple[str, str, str]) -> Voxel:
    """Read a voxel size as it is given on the command line: three numbers, with a unit on the last or on each.

    Raises
    ------
    InputError
        No positive numbers, or no unit of length.

    Examples
    --------
    >>> given_voxel(("0.2", "50nm", "0.05um")).size
    (0.2, 0.05, 0.05)
    """
    steps = []
    shown = " ".join(texts)
    units = [text.strip().lstrip("0123456789.+-eE") for text in texts]
    for text, unit in zip(texts, units, strict=True):
        name = unit_name(unit or units[-1])
        if name is None:
            raise InputError("--voxel", shown, "three lengths with a unit, such as 0.1 0.1 0.2um")
        try:
            length = float(text.strip().removesuffix(unit)) * NANOMETRES[name] / _NM_PER_UM
        except ValueError:
            raise InputError("--voxel", shown, "three lengths with a unit, such as 0.1 0.1 0.2um") from None
        if not 0 < length < float("inf"):
            raise InputError("--voxel", shown, "lengths above 0")
        steps.append(length)
    return Voxel((steps[0], steps[1], steps[2]), "um")


def method_volumes(source: str) -> dict[str, da.Array] | None:
    """Return the segmentations of all methods in a store that `test` wrote (method, image, y, x); None for others."""
    if not is_own_store(source) or "method" not in read_volume_info(source).axes:
        return None
    array = read_volume(source)
    return dict(zip(read_volume_info(source).attributes["methods"], array, strict=True))
