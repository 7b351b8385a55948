"""FIB-SEM in the report: phase fractions, segmentation scores with intervals, properties."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from cathodeflow.report.numbers import between, is_number, number, percent, percent_limits, setting, with_error
from cathodeflow.report.parts import Content, Finding, Grid
from cathodeflow.report.results import Results, rows_of
from cathodeflow.report.warnings import general_warnings

#: A class is missing from a prediction below this fraction of its fraction in the reference.
_MISSING = 0.05
#: Axes of a volume, by the number of the direction.
_DIRECTIONS = ("z (slices)", "y (rows)", "x (columns)")
_AREA, _TORTUOSITY = "specific_surface_area", "tortuosity_factor"


def fibsem_content(results: Results) -> Content:
    """Fill the part of FIB-SEM from the records and tables of its stages."""
    tables = [(job, table) for job in results.all("metrics") if (table := job.table("metrics.csv")) is not None]
    measured = [(job, table) for job in results.all("measure", "properties")
                if (table := job.table("properties.csv")) is not None]  # fmt: skip
    findings: list[Finding] = []
    grids: list[Grid] = []
    warnings: list[str] = []
    predicted = {_volume(job.sample) for job in results.all("predict")}
    new = [(job, table) for job, table in measured if job.stage == "measure" or _volume(job.sample) in predicted]
    # The properties of the labels, where nothing else was segmented.
    for job, table in new or measured:
        if "method" not in table:
            findings += _measured(f"{'segmentation' if new else 'labels'} of {_volume(job.sample)}", table)
    findings += _predicted(results, {_volume(job.sample) for job, _ in measured})
    for job, table in tables:
        findings += _best(job.sample, max(rows_of(table), key=lambda row: row["miu"]))
        grids += [_scores(job.sample, table), _fractions(job.sample, table)]
        warnings += missing_classes(table)
    for job, table in measured:
        grids += [_by_method(job.sample, table)] if "method" in table else [_properties(job.sample, table)]
    return Content(
        "FIB-SEM slices",
        "How much of the electrode is pore, active material and binder, how are they arranged, and how certain is it?",
        findings,
        grids,
        [*_checks(tables), *_inside(results), *_training(results)],
        [*warnings, *_voxel_sizes(results), *general_warnings(results)],
        ("properties", "predict", "methods", "fractions", "slices", "sizes"),
        frozenset(predicted),
    )


def _classes(table: pd.DataFrame) -> list[str]:
    return [name.removeprefix("true_fraction_") for name in map(str, table) if name.startswith("true_fraction_")]


def _label(row: Any) -> str:
    return f"{row['model']}, split {row['split']}, seed {row['seed']}"


def _volume(sample: str) -> str:
    """Name of the volume without the part of it that a job works on, such as the properties."""
    return sample.split("/")[0]


def _best(sample: str, row: dict[str, Any]) -> Iterator[Finding]:
    note = f"{_label(row)}; {number(row['slices'])} test slices of {sample}"
    words = {"miu": "Segmentation, best model: mean intersection over union (mIoU)", "accuracy": "Correct pixels"}
    for name, text in words.items():
        interval = between(row.get(f"{name}_low"), row.get(f"{name}_high"), as_percent=True)
        yield Finding(text, percent(row[name]), interval, note)


def _scores(sample: str, table: pd.DataFrame) -> Grid:
    columns = ["Model", "mIoU", "Correct pixels", "Boundary F1", "Calibration error", "Test slices"]
    rows = [
        [
            _label(row),
            *(_with_limits(row, name) for name in ("miu", "accuracy", "boundary_f1", "ece")),
            number(row["slices"]),
        ]
        for row in rows_of(table)
    ]
    note = "In brackets: 95 % bootstrap interval over the original slices, valid for this part of the electrode."
    return Grid(f"Segmentation of the test slices, {sample}", columns, rows, note)


def _with_limits(row: dict[str, Any], name: str) -> str:
    return percent_limits(row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high"))


def _fractions(sample: str, table: pd.DataFrame) -> Grid:
    classes = _classes(table)
    rows = [
        [_label(row), *(f"{percent(row[f'fraction_{name}'])}{_error(row, name)}" for name in classes)]
        for row in rows_of(table)
    ]
    first = table.iloc[0]
    rows.append(["reference", *(percent(first[f"true_fraction_{name}"]) for name in classes)])
    note = "In brackets: 95 % interval of the difference from the reference, in percentage points."
    return Grid(f"Phase fractions of the test slices, {sample}", ["Model", *classes], rows, note)


def _error(row: dict[str, Any], name: str) -> str:
    low, high = row.get(f"fraction_error_{name}_low"), row.get(f"fraction_error_{name}_high")
    return f" ({100 * low:+.1f} to {100 * high:+.1f})" if is_number(low) and is_number(high) else ""


def missing_classes(table: pd.DataFrame) -> list[str]:
    """Name the classes that a model hardly ever predicts.

    Parameters
    ----------
    table : DataFrame
        Columns `model`, `seed`, `split`, `fraction_<class>` and `true_fraction_<class>`, as in `metrics.csv`.
    """
    return [
        f"{_label(row)}: {name} has {percent(row[f'fraction_{name}'])} of the predicted pixels, and "
        f"{percent(row[f'true_fraction_{name}'])} of the reference"
        for row in rows_of(table)
        for name in _classes(table)
        if row[f"fraction_{name}"] < _MISSING * row[f"true_fraction_{name}"]
    ]


def _predicted(results: Results, measured: set[str]) -> Iterator[Finding]:
    """Yield the phase fractions of the volumes whose properties were not measured."""
    for job in results.all("predict"):
        if _volume(job.sample) in measured:
            continue
        fractions = {
            name.removeprefix("fraction_"): value
            for name, value in job.metrics.items()
            if name.startswith("fraction_") and is_number(value)
        }
        text = ", ".join(f"{name} {percent(value)}" for name, value in fractions.items())
        if text:
            yield Finding(f"Predicted phases of {job.sample}", text, "", "volume without labels")


def _measured(what: str, table: pd.DataFrame) -> Iterator[Finding]:
    """Yield the volume fractions, the specific surface of the active material and the tortuosity of the pores."""
    rows = rows_of(table)
    known = [row for row in rows if is_number(row["low_95"])]
    areas = [row for row in known if row["property"] == _AREA]
    chosen = [row for row in rows if row["property"] == "volume_fraction"]
    # Reactions take place at the active material; ions move through the pores, the first phase.
    chosen += [row for row in areas if row["phase"] == "active"] or areas[:1]
    chosen += [row for row in known if row["property"] == _TORTUOSITY][:1]
    for row in chosen:
        note = what + (f"; {row['note']}" if isinstance(row.get("note"), str) and row["note"] else "")
        name = f"{_words(row['property'])} of {row['phase']}" + (f" along {_direction(row)}" * bool(_direction(row)))
        value, limits = with_error(row["value"], row["standard_error"], _unit(row)), (row["low_95"], row["high_95"])
        if row["property"] == "volume_fraction":
            yield Finding(name, percent(row["value"]), between(*limits, as_percent=True), note)
        else:
            yield Finding(name, value, between(*limits, unit=_unit(row)), note)


def _direction(row: dict[str, Any]) -> str:
    return _DIRECTIONS[int(row["direction"])] if is_number(row.get("direction")) else ""


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _unit(row: dict[str, Any]) -> str:
    unit = row.get("unit")
    if not isinstance(unit, str) or unit == "1":
        return ""
    return f"{unit[2:]}⁻¹" if unit.startswith("1/") else unit


def _properties(sample: str, table: pd.DataFrame) -> Grid:
    rows = [[*_key(row), _value(row), _limits(row), _unit(row)] for row in rows_of(table)]
    headings = ["Property", "Phase", "Along", "Value", "95 % interval", "Unit"]
    return Grid(f"Properties of {_volume(sample)}", headings, rows, folded=True)


def _by_method(sample: str, table: pd.DataFrame) -> Grid:
    """List the properties of the test slices in rows, and the methods in columns."""
    methods = list(dict.fromkeys(table["method"]))
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows_of(table):
        limits = f" ({found})" if (found := _limits(row)) else ""
        cells.setdefault((*_key(row), _unit(row)), {})[row["method"]] = _value(row) + limits
    rows = [[*key[:3], *(found.get(method, "") for method in methods), key[3]] for key, found in cells.items()]
    headings = ["Property", "Phase", "Along", *map(str, methods), "Unit"]
    note = "In brackets: 95 % intervals. They contain the sampling error of a few slices, and are wide."
    return Grid(f"Properties of the test slices by method, {sample}", headings, rows, note, folded=True)


def _key(row: dict[str, Any]) -> tuple[str, str, str]:
    return _words(row["property"]), setting(row["phase"]), _direction(row)


def _value(row: dict[str, Any]) -> str:
    if is_number(row["value"]):
        return number(row["value"])
    return "does not percolate" if row["property"] == _TORTUOSITY else "not measurable"


def _limits(row: dict[str, Any]) -> str:
    low, high = row.get("low_95"), row.get("high_95")
    return f"{number(low)} to {number(high)}" if is_number(low) and is_number(high) else ""


def _checks(tables: list[tuple[Any, pd.DataFrame]]) -> Iterator[Finding]:
    for job, _ in tables:
        differences = job.table("differences.csv")
        if differences is None:
            continue
        for row in rows_of(differences[differences["figure"] == "miu"]):
            if row["difference"] > 0:
                yield Finding(
                    f"mIoU of {row['model']} minus that of {row['reference']}",
                    f"{100 * row['difference']:.1f} percentage points",
                    between(100 * row["low"], 100 * row["high"]),
                    f"same test slices, split {row['split']}, seed {row['seed']}",
                )


def _inside(results: Results) -> Iterator[Finding]:
    for job in results.all("compare_properties"):
        if is_number(value := job.metrics.get("inside_95")):
            note = f"{number(job.metrics['compared'])} properties of {number(job.metrics['slices'])} test slices"
            name = f"Properties of the labels inside their 95 % intervals, {job.sample}"
            yield Finding(name, percent(value), "", note)
    for job in results.all("cell"):
        for name, value in job.metrics.items():
            if name.startswith("capacity_") and "_error" not in name and is_number(value):
                error = job.metrics.get(f"{name}_error_both")
                rate = name.removeprefix("capacity_").removesuffix("c")
                yield Finding(f"Capacity at {rate} C, cell with {job.sample}", with_error(value, error, "A h"))


def _training(results: Results) -> Iterator[Finding]:
    for job in results.all("train_global"):
        yield Finding(
            f"Training of {job.sample}",
            f"{percent(job.metrics.get('validation_accuracy'))} of the validation pixels correct",
            "",
            f"best epoch {number(job.metrics.get('best_epoch'))}, {number(job.metrics.get('images'))} training images",
        )


def _voxel_sizes(results: Results) -> Iterator[str]:
    for job in results.all("volume", "predict"):
        if job.metrics.get("voxel_size_from") == "unknown":
            yield f"{job.sample}: the voxel size is not known, so lengths are in voxels"
