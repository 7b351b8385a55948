"""Stage: segment slices and measure their properties, with error bars."""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from cathodeflow.errors import InputError
from cathodeflow.fibsem.error_options import Compared, Measure
from cathodeflow.fibsem.label_volumes import given_voxel
from cathodeflow.fibsem.microstructure.blocks import as_labels
from cathodeflow.fibsem.microstructure.compute import compute_properties
from cathodeflow.fibsem.microstructure.property_table import Property, Voxel, as_columns
from cathodeflow.fibsem.new_slices import NewSlices, open_new_slices
from cathodeflow.fibsem.properties_options import Properties
from cathodeflow.fibsem.property_errors import combined
from cathodeflow.fibsem.property_plots import properties_figure
from cathodeflow.fibsem.sampling_error import sampling_errors
from cathodeflow.fibsem.segmentation_error import correct, from_json, pass_ratio, pass_spread
from cathodeflow.fibsem.stages.predict import segment_to_stores
from cathodeflow.fibsem.surface_page import phases_page
from cathodeflow.fibsem.validation_errors import Model, compared_properties, single_passes
from cathodeflow.io.digests import file_digest
from cathodeflow.io.figures import save_figure
from cathodeflow.io.reconstructions import write_page
from cathodeflow.io.tables import read_json, write_csv, write_json
from cathodeflow.io.volumes import read_volume, read_volume_info
from cathodeflow.io.voxel_sizes import NANOMETRES, unit_name
from cathodeflow.learning import resolve_device
from cathodeflow.stage import Metrics, OutputFolder, Source, stage

log = logging.getLogger("cathodeflow.fibsem")
# Groups of properties without a scale for errors, which blocks do not compute.
_WITHOUT_ERROR = ("connectivity", "correlation")


@stage("fibsem.measure")
def measure(
    slices: Source, *, out: OutputFolder, voxel: tuple[str, str, str] | None = None, options: Measure
) -> Metrics:
    """Segment SLICES and measure their properties, with error bars.

    Error bars have two terms: the sampling error, how far one volume is from the whole electrode, and the segmentation
    error, with bias and spread from the validation slices of the model. The bias is removed from the values.

    Parameters
    ----------
    slices : path
        Slices: folder, pattern, stack file, dataset or Zarr store.
    out : path
        Folder to write: `phases.zarr` with the segmentation, `properties.csv`, `properties.json`, `properties.png`, and
        `surface.html` with the surface of each phase in 3D.
    voxel : texts
        Distance of slices, rows and columns with a unit, such as `0.1 0.1 0.2um`. Default: that in the files; without
        it, lengths are in voxels.

    Raises
    ------
    InputError
        The model is missing, the slices cannot be used, or the calibration is of another model.
    """
    given = None if voxel is None else given_voxel(voxel)
    phases = f"{out}/phases.zarr"
    torch.set_num_threads(options.threads)
    opened = open_new_slices(slices, options)
    segmentation = segment_to_stores(opened, out=phases, options=options)
    # Read block by block.
    info, labels = read_volume_info(phases), read_volume(phases)
    classes, method = info.attributes["classes"], info.attributes["method"]
    size = given or voxel_of(info.scale, info.unit)
    device = str(resolve_device(options.device or "auto"))

    def compute(part: Any, groups: Sequence[Any]) -> list[Property]:
        return compute_properties(part, classes, size, Properties(groups=tuple(groups)), device=device)

    found = compute(labels, options.groups)
    in_blocks = [name for name in options.groups if name not in _WITHOUT_ERROR]
    sampling = sampling_errors(
        labels, found, lambda part: compute(part, in_blocks), classes=classes, options=options.sampling
    )
    calibration, ratio = _calibration(options, opened, size)
    properties = from_json(calibration["properties"]) if calibration else {}
    rows = combined(found, sampling, correct(found, properties, voxels=labels.size, ratio=ratio))
    columns = as_columns(one.row for one in rows)
    for name in ("as_segmented", "sampling_error", "segmentation_error"):
        columns[name] = [getattr(one, name) for one in rows]
    write_csv(f"{out}/properties.csv", columns)
    settings = {
        "method": method, "classes": classes, "voxel": size._asdict(), "shape": list(labels.shape),
        "pass_ratio": ratio, "segmentation_error": bool(properties),
        "intervals": "Student's t on the logarithm, of fractions on the log-odds",
        "options": options.model_dump(mode="json"),
    }  # fmt: skip
    drawn = pd.DataFrame(columns | {"direction": ["" if one is None else str(one) for one in columns["direction"]]})
    save_figure(f"{out}/properties.png", properties_figure(drawn, classes))
    page = phases_page(as_labels(labels), classes, size.size, unit=size.unit, title="Segmented phases")
    write_page(f"{out}/surface.html", page)
    write_json(f"{out}/properties.json", {"settings": settings, "properties": _records(columns)})
    for one in rows:
        row = one.row
        if np.isfinite(row.standard_error):
            where = "" if row.direction is None else f", direction {row.direction}"
            unit = "" if row.unit == "1" else f" {row.unit}"
            log.info("%s of %s%s: %.4g +- %.2g%s", row.property, row.phase, where, row.value, row.standard_error, unit)
    kept = {key: value for key, value in segmentation.items() if not key.startswith("fraction_")}
    return Metrics(
        {**kept, **_figures([one.row for one in rows]), "pass_ratio": ratio}, figures=[f"{out}/properties.png"]
    )


def voxel_of(scale: Sequence[float] | None, unit: str | None) -> Voxel:
    """Return the size of a voxel in um; in voxels where it is not known."""
    if scale is None or unit_name(unit) is None:
        return Voxel()
    micrometres = NANOMETRES[str(unit_name(unit))] / NANOMETRES["micrometer"]
    first, second, third = (step * micrometres for step in scale[-3:])
    return Voxel((first, second, third), "um")


def _calibration(options: Measure, slices: NewSlices, voxel: Voxel) -> tuple[dict[str, Any] | None, float]:
    """Read the calibration of the method, and compare the spread of passes over the slices with it."""
    assert options.model is not None
    method = slices.method.name
    path = options.model if Path(options.model).is_file() else f"{options.model}.pt"
    beside = Path(path).with_name(f"{Path(path).stem}_errors.json")
    where = options.calibration or (os.fspath(beside) if beside.is_file() else None)
    if where is None:
        log.warning("no %s beside the model: intervals have the sampling error only", beside.name)
        return None, 1.0
    data = read_json(where)
    if not isinstance(data, dict) or not {"model", "classes", "settings", "methods"} <= set(data):
        raise InputError(where, "another file", "the calibration that `fibsem calibrate-errors` wrote")
    if data["model"] != file_digest(path):
        raise InputError(where, "the calibration of another model", f"that of {path}; run `fibsem calibrate-errors`")
    if method not in data["methods"]:
        log.warning("%s has no method %s: intervals have the sampling error only", where, method)
        return None, 1.0
    own = data["methods"][method]
    model, volume = Model(slices.method, slices.networks, slices.metadata), slices.volume
    # As many slices as the calibration had, from the middle of the stack.
    count = min(len(volume), data["settings"]["slices"])
    first = (len(volume) - count) // 2
    middle = volume[first : first + count]
    compared = Compared(groups=("fractions", "surfaces"))
    passes = [
        compared_properties(labels, data["classes"], voxel, compared)
        for labels in single_passes(middle, model, options, data["settings"]["passes"], slices.matching)
    ]
    validation = {(row["property"], row["phase"]): row["spread"] for row in own["passes"]}
    return own, pass_ratio(pass_spread(passes, voxels=middle.size), validation) if passes else 1.0


def _records(columns: dict[str, list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _figures(rows: Sequence[Property]) -> dict[str, float]:
    """Figures of merit of the record: values and standard errors."""
    figures: dict[str, float] = {}
    for row in rows:
        name = "_".join(str(part) for part in (row.property, row.phase, row.direction) if part is not None)
        figures |= {name: row.value, f"{name}_error": row.standard_error}
    return figures
