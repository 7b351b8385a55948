"""Coherent diffraction in the report: size, strain and resolution of the particle, agreement of the starts."""

from collections.abc import Iterator

import pandas as pd

from cathodeflow.report.numbers import is_number, number, percent, percent_limits, setting, with_error
from cathodeflow.report.parts import Content, Finding, Grid
from cathodeflow.report.results import Job, Results, rows_of
from cathodeflow.report.warnings import general_warnings

#: Correlation between starts below which they are not the same object, and margin of a twin that is uncertain.
_AGREEMENT, _MARGIN = 0.9, 0.01
#: Highest probability that is shown: the fit to some hundred simulated crystals knows no higher ones.
_CERTAIN = 0.99
_STARTS = {"phase": "phase retrieval from random starts", "refine": "prediction of the network, refined"}


def bcdi_content(results: Results) -> Content:
    """Fill the part of coherent diffraction from the records and tables of its stages."""
    series = [(job, table) for job in results.all("series") if (table := job.table("series.csv")) is not None]
    objects = results.all("strain")
    grids = [grid for job, table in series for grid in [_series(job.sample, table)]]
    if objects:
        grids.append(_objects(objects))
    grids += [_success(table) for job in results.all("evaluate") if (table := job.table("success.csv")) is not None]
    question = "What is the shape and the strain field of a single particle"
    return Content(
        "Coherent diffraction",
        f"{question}, and how do they change along the series?" if series else f"{question}?",
        [*(finding for job, table in series for finding in _of_series(job, table)), *_of_objects(results, objects)],
        grids,
        [*_trust(results), *_agreement(results), *_truth(results)],
        [
            *_warnings(results),
            *(text for job, table in series for text in series_warnings(job.sample, table)),
            *general_warnings(results),
        ],
        ("series", "slices", "trust", "facets", "resolution", "errors", "diffraction"),
    )


def _of_series(job: Job, table: pd.DataFrame) -> Iterator[Finding]:
    found = [row for row in rows_of(table) if is_number(row["mean_strain"])]
    if not found:
        return
    quantities = {
        "mean_strain": "Largest change of the mean lattice spacing",
        "strain_deviation": "Largest standard deviation of the strain in the particle",
    }
    for name, words in quantities.items():
        row = max(found, key=lambda each: abs(each[name]))
        starts = f"± standard deviation over {row['starts_used']} random starts"
        yield Finding(
            f"{words}, series {job.sample}",
            with_error(1e3 * row[name], 1e3 * row[f"{name}_err"], "× 10⁻³"),
            starts if is_number(row[f"{name}_err"]) else "",
            f"scan {row['scan']}" + (", relative to the reference scan" if name == "mean_strain" else ""),
        )


def _of_objects(results: Results, objects: list[Job]) -> Iterator[Finding]:
    """Yield size and strain of a single particle, of the route that is right with the highest probability.

    Several particles are listed in the table.
    """
    if len({job.sample.partition("/")[0] for job in objects}) != 1:
        return
    trust = {job.sample: job.metrics for job in results.all("trust")}
    best = max(objects, key=lambda job: trust.get(job.sample, {}).get("probability_right") or 0.0)
    found, trusted = best.metrics, trust.get(best.sample, {})
    which = f"{best.label}, " if len(objects) > 1 else ""
    extents = [found.get(f"extent_{axis}_nm") for axis in "xyz"]
    if all(map(is_number, extents)):
        text = " × ".join(number(extent) for extent in extents)
        yield Finding(
            "Extent of the particle along x, y, z", f"{text} nm", "", f"{which}voxel {number(found['voxel_nm'])} nm"
        )
    if is_number(found.get("strain_deviation")):
        error = trusted.get("strain_error")
        yield Finding(
            "Standard deviation of the strain in the particle",
            f"{1e4 * found['strain_deviation']:.3g} × 10⁻⁴",
            f"90 % of the voxels between {1e4 * found['strain_q05']:.3g} and {1e4 * found['strain_q95']:.3g} × 10⁻⁴",
            f"{which}{number(found['voxels'])} voxels"
            + (f"; standard error of a voxel {1e4 * error:.2g} × 10⁻⁴" if is_number(error) else ""),
        )
    if is_number(value := trusted.get("probability_right")):
        yield Finding(
            "Probability that the object is right",
            _probability(value),
            "",
            f"{which}correlation with the true object above 0.95, from a regression on simulated crystals",
        )


def _probability(value: float) -> str:
    return percent(value) if value <= _CERTAIN else f"above {percent(_CERTAIN)}"


def _series(sample: str, table: pd.DataFrame) -> Grid:
    conditions = {"state_of_charge": "State of charge", "time": "Time", "temperature": "Temperature [°C]"}
    conditions |= {"voltage": "Voltage [V]"}
    shown = [name for name in conditions if name in table]
    quantities = [
        ("Lattice spacing [Å]", "d_spacing", 1.0),
        ("Mean strain [10⁻³]", "mean_strain", 1e3),
        ("Standard deviation of the strain [10⁻³]", "strain_deviation", 1e3),
        ("Volume [10⁶ nm³]", "volume_nm3", 1e-6),
    ]
    rows = [
        [
            str(row["scan"]),
            *(setting(row[name]) for name in shown),
            f"{row['starts_used']} of {row['starts']}",
            *(with_error(factor * row[name], factor * row[f"{name}_err"]) for _, name, factor in quantities),
        ]
        for row in rows_of(table)
    ]
    headings = ["Scan", *(conditions[name] for name in shown), "Starts used", *(heading for heading, *_ in quantities)]
    note = "± standard deviation over the random starts that agree; errors of energy, angles and distance not included."
    return Grid(f"Series {sample}", headings, rows, note)


def series_warnings(sample: str, table: pd.DataFrame) -> list[str]:
    """Name the scans of a series with an uncertain orientation, or without a second start that agrees.

    Parameters
    ----------
    sample : str
        Name of the series.
    table : DataFrame
        Columns `scan`, `starts`, `starts_used` and `margin`, as in `series.csv`.
    """
    found = []
    for row in rows_of(table):
        if row["starts"] > 1 and row["starts_used"] < 2:
            found.append(f"series {sample}, {row['scan']}: no other start agrees with the best, so there are no errors")
        if is_number(row["margin"]) and row["margin"] < _MARGIN:
            found.append(f"series {sample}, {row['scan']}: object and twin fit the scan before equally well")
    return found


def _objects(objects: list[Job]) -> Grid:
    rows = []
    for job in objects:
        found = job.metrics
        extents = [found.get(f"extent_{axis}_nm") for axis in "xyz"]
        strain = [found.get(f"strain_{name}") for name in ("deviation", "q05", "q95")]
        rows.append(
            [
                job.label,
                " × ".join(map(number, extents)) if all(map(is_number, extents)) else "",
                number(found.get("voxel_nm")),
                *(f"{1e4 * value:.3g}" if is_number(value) else "" for value in strain),
                number(found["displacement_deviation_nm"]) if "displacement_deviation_nm" in found else "",
            ]
        )
    columns = [
        "Scan",
        "Extent x × y × z [nm]",
        "Voxel [nm]",
        "Strain: standard deviation [10⁻⁴]",
        "5 % quantile [10⁻⁴]",
    ]
    columns += ["95 % quantile [10⁻⁴]", "Standard deviation of the displacement [nm]"]
    return Grid("Particles", columns, rows)


def _trust(results: Results) -> Iterator[Finding]:
    for job in results.all("trust"):
        if is_number(value := job.metrics.get("probability_right")):
            yield Finding(
                f"Probability that {job.label} is right",
                _probability(value),
                "",
                "correlation with the true object above 0.95; logistic regression fitted to simulated crystals",
            )
        if is_number(value := job.metrics.get("strain_error")):
            yield Finding(
                f"Standard error of the strain, {job.label}",
                f"{1e4 * value:.3g} × 10⁻⁴",
                "",
                "median over the voxels; spread over the starts that agree, and counting noise",
            )


def _agreement(results: Results) -> Iterator[Finding]:
    for stage in _STARTS:
        jobs = [job for job in results.all(stage) if is_number(job.metrics.get("error"))]
        if not jobs:
            continue
        errors = [job.metrics["error"] for job in jobs]
        noise = [job.metrics["counting_noise"] for job in jobs if is_number(job.metrics.get("counting_noise"))]
        yield Finding(
            f"Distance of calculated from measured amplitudes, {_STARTS[stage]}",
            _spread(errors),
            f"counting noise alone: {_spread(noise)}" if noise else "",
            f"{len(jobs)} scan{'s' if len(jobs) > 1 else ''}, best start of each",
        )
        agreement = [job.metrics.get("median_correlation_with_best") for job in jobs]
        known = [value for value in agreement if is_number(value)]
        if known:
            yield Finding("Correlation of the starts with the best start, median", _spread(known), "", "1: identical")
    for job in results.all("metrics"):
        if is_number(value := job.metrics.get("prtf_resolution_nm")):
            note = "where the phase retrieval transfer function (PRTF) falls below 1/e"
            yield Finding(f"Resolution, {job.label}", f"{number(value)} nm{_or_better(job)}", "", note)


def _or_better(job: Job) -> str:
    """Say so if the PRTF does not fall below its threshold at any frequency that was measured."""
    curves = job.table("curves.csv")
    if curves is None:
        return ""
    prtf = curves[curves["curve"] == "PRTF"]
    return " or better" if (prtf["value"] >= prtf["threshold"]).all() else ""


def _spread(values: list[float]) -> str:
    low, high = number(min(values)), number(max(values))
    return low if low == high else f"{low} to {high}"


def _truth(results: Results) -> Iterator[Finding]:
    for job in results.all("metrics"):
        value = job.metrics.get("true_correlation")
        if is_number(value):
            yield Finding(f"Correlation of {job.label} with the true object", number(value), "", "simulated scan")


def _success(table: pd.DataFrame) -> Grid:
    """List how often phasing succeeds on simulated crystals, for all of them and by the range of their phase."""
    regimes = sorted(dict.fromkeys(table["regime"]), key=lambda name: name != "all")
    rows = []
    for (start, iterations), own in table.groupby(["start", "iterations"]):
        cells = {row["regime"]: percent_limits(row["share"], row["low"], row["high"]) for row in rows_of(own)}
        origin = "prediction of the network" if start == "network" else "random"
        rows.append([origin, number(iterations), *(cells.get(regime, "") for regime in regimes)])
    counts = table.groupby("regime")["count"].max()
    headings = [("all" if name == "all" else f"{name} strain") + f", {counts[name]} crystals" for name in regimes]
    note = "A success is an object whose correlation with the truth is above 0.95, or the limit that was set. "
    note += "In brackets: Wilson interval."
    return Grid("Success of phasing on unseen simulated crystals", ["Start", "Iterations", *headings], rows, note)


def _warnings(results: Results) -> Iterator[str]:
    for job in results.all("phase", "refine"):
        value = job.metrics.get("median_correlation_with_best")
        if is_number(value) and value < _AGREEMENT:
            yield f"{job.label}: the starts do not agree (median correlation {number(value)}); the object is uncertain"
    for job in results.all("trust"):
        value, limit = job.metrics.get("probability_right"), job.record["options"].get("warn_below")
        logged = (job.record.get("job") or {}).get("warnings")
        if is_number(value) and is_number(limit) and value < limit and not logged:
            yield f"{job.label}: the probability that the object is right is only {percent(value)}"
    for job in results.all("strain"):
        if "strain_deviation" not in job.metrics:
            yield f"{job.label}: no geometry is known, so there is no strain"
