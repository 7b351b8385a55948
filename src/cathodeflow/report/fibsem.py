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


def fibsem_content(results: Results) -> Content:
    """Fill the part of FIB-SEM from the records and tables of its stages."""
    tables = [(job, table) for job in results.all("metrics") if (table := job.table("metrics.csv")) is not None]
    findings: list[Finding] = []
    grids: list[Grid] = []
    warnings: list[str] = []
    for job, table in tables:
        findings += _best(job.sample, max(rows_of(table), key=lambda row: row["miu"]), _classes(table))
        grids += [_scores(job.sample, table), _fractions(job.sample, table)]
        warnings += missing_classes(table)
    findings += _predicted(results)
    for job in results.all("measure"):
        if (table := job.table("properties.csv")) is not None:
            findings += _measured(job.sample, table)
    for job in results.all("measure", "properties"):
        if (table := job.table("properties.csv")) is not None:
            grids.append(_properties(job.sample, table))
    return Content(
        "FIB-SEM slices",
        "How much of the electrode is pore, binder and active material, and how certain is the segmentation?",
        findings,
        grids,
        [*_checks(tables), *_inside(results), *_training(results)],
        [*warnings, *_voxel_sizes(results), *general_warnings(results)],
        ("properties", "sizes", "methods", "fractions", "slices", "predict"),
    )


def _classes(table: pd.DataFrame) -> list[str]:
    return [name.removeprefix("true_fraction_") for name in map(str, table) if name.startswith("true_fraction_")]


def _label(row: Any) -> str:
    return f"{row['model']}, split {row['split']}, seed {row['seed']}"


def _best(sample: str, row: dict[str, Any], classes: list[str]) -> Iterator[Finding]:
    note = f"{_label(row)}; {number(row['slices'])} test slices of {sample}"
    for name, words in (("miu", "Mean intersection over union (mIoU), best model"), ("accuracy", "Correct pixels")):
        interval = between(row.get(f"{name}_low"), row.get(f"{name}_high"), as_percent=True)
        yield Finding(words, percent(row[name]), interval, note)
    for name in classes:
        yield Finding(
            f"Fraction of {name}",
            percent(row[f"fraction_{name}"]),
            f"reference {percent(row[f'true_fraction_{name}'])}",
            "test slices, " + _label(row),
        )


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


def _predicted(results: Results) -> Iterator[Finding]:
    for job in results.all("predict"):
        fractions = {
            name.removeprefix("fraction_"): value
            for name, value in job.metrics.items()
            if name.startswith("fraction_") and is_number(value)
        }
        text = ", ".join(f"{name} {percent(value)}" for name, value in fractions.items())
        if text:
            yield Finding(f"Predicted phases of {job.sample}", text, "", "volume without labels")


def _measured(sample: str, table: pd.DataFrame) -> Iterator[Finding]:
    """Yield the properties that have an interval and no direction."""
    for row in rows_of(table):
        interval = between(row["low_95"], row["high_95"], unit=_unit(row))
        if interval and pd.isna(row["direction"]):
            yield Finding(
                f"{_words(row['property'])}, {row['phase']}",
                with_error(row["value"], row["standard_error"], _unit(row)),
                interval,
                f"volume {sample}",
            )


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _unit(row: dict[str, Any]) -> str:
    unit = row.get("unit")
    return unit if isinstance(unit, str) and unit != "1" else ""


def _properties(sample: str, table: pd.DataFrame) -> Grid:
    named = [name for name in ("method", "property", "phase", "direction") if name in table]
    rows = []
    for row in rows_of(table):
        low, high = row.get("low_95"), row.get("high_95")
        interval = f"{number(low)} to {number(high)}" if is_number(low) and is_number(high) else ""
        cells = [setting(row[name]).replace("_", " ") for name in named]
        rows.append([*cells, number(row["value"]), interval, _unit(row)])
    headings = [name.capitalize() for name in named]
    return Grid(f"Properties of {sample}", [*headings, "Value", "95 % interval", "Unit"], rows)


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
