"""SEM in the report: accuracy with intervals, audit against trivial features, images without labels."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from cathodeflow.report.numbers import between, is_number, number, percent
from cathodeflow.report.parts import Content, Finding, Grid
from cathodeflow.report.results import Results, rows_of
from cathodeflow.report.warnings import general_warnings

_NAMES = {
    "accuracy": "Accuracy",
    "composition_accuracy": "Accuracy of the composition",
    "state_accuracy": "Accuracy of the state",
    "macro_f1": "Macro-averaged F1 score",
}
_NETWORK = "network"
#: Fewer fields of view of a class: a bootstrap within the classes hardly changes the images, and is too narrow.
_FEWEST_FIELDS = 5


def sem_content(results: Results) -> Content:
    """Fill the part of the SEM images from the records and tables of its stages."""
    tests = [(job, table) for job in results.all("test") if (table := job.table("metrics.csv")) is not None]
    audited = [(job.sample, table) for job in results.all("audit") if (table := job.table("audit.csv")) is not None]
    # One audit needs no name.
    audits = [(sample if len(audited) > 1 else "", table) for sample, table in audited]
    findings = [finding for job, table in tests for finding in _accuracy(job.sample, table, len(tests) > 1)]
    grids = [grid for job, table in tests if (grid := _classes(job.sample, table)) is not None]
    grids += [_audit_grid(table, sample) for sample, table in audits]
    if predicted := results.all("predict"):
        rows = [
            [
                job.sample,
                number(job.metrics.get("images")),
                number(job.metrics.get("foreign")),
                number(job.metrics.get("withheld")),
                percent(job.metrics.get("mean_confidence")),
            ]
            for job in predicted
        ]
        columns = ["Data set", "Images", "Out of distribution", "Withheld", "Mean confidence"]
        grids.append(Grid("Images without labels", columns, rows))
    return Content(
        "SEM images",
        "Which composition and state does the cathode have, and does the prediction rest on the particles?",
        findings,
        grids,
        [*_checks(results, tests), *(found for sample, table in audits for found in _features(table, sample))],
        [
            *(text for sample, table in audits for text in audit_warnings(table, sample)),
            *_warnings(results),
            *general_warnings(results),
        ],
        ("confusion", "audit", "classes", "calibration"),
    )


def _accuracy(sample: str, table: pd.DataFrame, several: bool) -> Iterator[Finding]:
    whole = table[table["label"].isna() & (table["kind"] == "image")]
    for row in rows_of(whole):
        if row["figure"] in _NAMES:
            name = _NAMES[row["figure"]] + (f", {sample}" if several else "")
            interval = _interval(row, table)
            counted = f"{number(row['originals'])} test images"
            if is_number(row.get("fields")) and row["fields"] < row["originals"]:
                counted += f", which overlap: {number(row['fields'])} fields of view"
            yield Finding(name, percent(row["value"]), interval, counted)


def _interval(row: dict[str, Any], table: pd.DataFrame) -> str:
    """Write an interval, unless it is a bootstrap over too few images of a class to have a meaning."""
    fields = table.loc[table["label"].notna() & (table["kind"] == "image"), "fields" if "fields" in table else []]
    if not row["figure"].endswith("accuracy") and (fields < _FEWEST_FIELDS).any(axis=None):
        return f"no interval: a class has fewer than {_FEWEST_FIELDS} independent images"
    return between(row["low"], row["high"], as_percent=True)


def _classes(sample: str, table: pd.DataFrame) -> Grid | None:
    own = table[table["label"].notna() & (table["kind"] == "image") & (table["figure"] == "accuracy")]
    if own.empty:
        return None
    rows = [[str(row["label"]), percent(row["value"]), _range(row), number(row["originals"])] for row in rows_of(own)]
    return Grid(f"Accuracy by class, {sample}", ["Class", "Accuracy", "95 % interval", "Test images"], rows)


def _range(row: dict[str, Any]) -> str:
    return f"{percent(row['low'])} to {percent(row['high'])}" if is_number(row["low"]) else ""


def _all(table: pd.DataFrame) -> list[dict[str, Any]]:
    return rows_of(table[table["scope"] == "all"])


def _audit_grid(table: pd.DataFrame, sample: str) -> Grid:
    rows = [
        [str(row["method"]), percent(row["accuracy"]), _range(row), percent(row["chance"]), number(row["n"])]
        for row in _all(table)
    ]
    return Grid(
        f"Audit{_of(sample)}: the network and trivial features on the same images",
        ["Method", "Accuracy", "95 % interval", "Chance", "Test images"],
        rows,
        "Trivial features are unrelated to the particles.",
    )


def _of(sample: str) -> str:
    return f" of {sample}" if sample else ""


def audit_warnings(table: pd.DataFrame, sample: str = "") -> list[str]:
    """Name the trivial features from which the classes can be predicted.

    Parameters
    ----------
    table : DataFrame
        Columns `method`, `scope`, `accuracy`, `low`, `high` and `chance`, as in `audit.csv`.
    sample : str
        Name of the audit, where there are several.

    Returns
    -------
    list of str
        One for each feature whose interval lies above chance: whether it reaches the interval of the network.
    """
    rows = _all(table)
    network = next((row for row in rows if row["method"] == _NETWORK), None)
    found = []
    for row in rows:
        if str(row["method"]).startswith(_NETWORK) or not row["low"] > row["chance"]:
            continue
        text = f"Audit{_of(sample)}: from {row['method']} alone, {percent(row['accuracy'])} of the images"
        text += f" ({_range(row)}) are classified correctly"
        if network is not None and row["high"] >= network["low"]:
            text += (
                f", by the network {percent(network['accuracy'])} ({_range(network)}). The intervals overlap, so the "
                "accuracy may come from the microscope instead of the particles"
            )
        else:
            text += f"; chance is {percent(row['chance'])}"
        found.append(text)
    return found


def _features(table: pd.DataFrame, sample: str) -> Iterator[Finding]:
    for row in _all(table):
        if str(row["method"]).startswith(f"{_NETWORK},"):
            interval = between(row["low"], row["high"], as_percent=True)
            note = "images changed so that brightness and contrast hold no information"
            name = f"Accuracy of the {row['method']}" + (f", {sample}" if sample else "")
            yield Finding(name, percent(row["accuracy"]), interval, note)


def _checks(results: Results, tests: list[tuple[Any, pd.DataFrame]]) -> Iterator[Finding]:
    for _, table in tests:
        own = table[(table["figure"] == "ece") & table["label"].isna() & (table["kind"] == "image")]
        for row in rows_of(own):
            interval = _interval(row, table)
            note = "0 if predictions with a confidence of 90 % are correct nine times in ten"
            yield Finding("Expected calibration error", percent(row["value"]), interval, note)
    for job in results.all("split"):
        counts = [f"{number(job.metrics.get(role))} {role}" for role in ("train", "validation", "test")]
        yield Finding("Images", ", ".join(counts), "", "a test image is in no other set")


def _warnings(results: Results) -> Iterator[str]:
    for job in results.all("audit"):
        seen = job.metrics.get("test_area_seen_in_training")
        if is_number(seen) and seen > 0:
            name = f"{job.sample}: " if len(results.all("audit")) > 1 else ""
            yield f"{name}{percent(seen)} of the area of the test images is visible in training images, too"
    for job in results.all("predict"):
        count = job.metrics.get("foreign")
        if is_number(count) and count > 0:
            yield (
                f"{job.sample}: {number(count)} of {number(job.metrics['images'])} images are out of distribution; "
                "inspect them before their predictions are used"
            )
