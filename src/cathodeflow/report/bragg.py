"""Bragg peaks in the report: lattice parameters and strain against charge, peaks of each scan, and their errors."""

from collections.abc import Iterator
from typing import Any

import pandas as pd

from cathodeflow.report.numbers import (
    Z95,
    between,
    change,
    is_number,
    number,
    percent,
    percent_limits,
    setting,
    with_error,
)
from cathodeflow.report.parts import Content, Finding, Grid
from cathodeflow.report.results import Job, Results, rows_of
from cathodeflow.report.warnings import general_warnings

_PIXELS = "px"
#: Phases of `summary.csv`.
_PHASES = {0: "rich in lithium, or single phase", 1: "poor in lithium"}


def bragg_content(results: Results) -> Content:
    """Fill the part of the Bragg peaks from the records and tables of its stages."""
    lattice = results.first("lattice")
    summary = lattice.table("summary.csv") if lattice else None
    question = (
        "How do lattice parameters, strain and phases of the cathode particles change with the state of charge?"
        if summary is not None
        else "Where on the detector are the Bragg peaks of single particles, and how precisely are they located?"
    )
    findings = [*_of_series(summary), *_of_tracks(results), *_of_peaks(results), *_of_grains(results)]
    grids = [] if summary is None else [_states(summary)]
    if scans := _scans(results):
        grids.append(scans)
    return Content(
        "Bragg peaks",
        question,
        findings,
        grids,
        [*_network(results), *_truth(results)],
        [*_warnings(results), *general_warnings(results)],
        ("lattice", "tracks", "grains", "intensity", "frame", "fitted"),
    )


def _of_series(summary: pd.DataFrame | None) -> Iterator[Finding]:
    """Yield the largest change of each lattice parameter, strain and the states with two phases."""
    if summary is None or summary.empty:
        return
    for axis in ("a", "c"):
        name, error = f"cell_{axis}_change", f"cell_{axis}_change_err"
        if (row := _largest(summary, name)) is not None:
            half = Z95 * row[error]
            low, high = 100 * (row[name] - half), 100 * (row[name] + half)
            yield Finding(
                f"Largest change of the lattice parameter {axis}",
                change(100 * row[name], low, high, "%"),
                between(low, high, unit="%"),
                f"scan {row['sample']}, {_charge(row)}, relative to the reference state of the series",
            )
    if (row := _largest(summary, "strain_median")) is not None:
        low, high = (1e3 * row[f"strain_{side}95"] for side in ("low", "high"))
        yield Finding(
            "Largest median strain of the particles",
            change(1e3 * row["strain_median"], low, high, "× 10⁻³"),
            between(low, high, unit="× 10⁻³"),
            f"scan {row['sample']}, {_charge(row)}, {number(row['strain_count'])} particles",
        )
    both = summary[summary["phase"] == 1] if "phase" in summary else summary[:0]
    for row in rows_of(both):
        if 0 < row["phase_fraction"] < 1:
            yield Finding(
                f"Fraction of the phase poor in lithium, {_charge(row)}",
                percent(row["phase_fraction"]),
                between(row["phase_fraction_low95"], row["phase_fraction_high95"], as_percent=True),
                "fraction of the integrated intensity",
            )


def _largest(summary: pd.DataFrame, name: str) -> dict[str, Any] | None:
    """Return the row with the largest magnitude of a column; None without a number in it."""
    rows = [row for row in rows_of(summary) if is_number(row.get(name))]
    return max(rows, key=lambda row: abs(row[name]), default=None)


def _charge(row: Any) -> str:
    charge = row["state_of_charge"]
    return f"state of charge {charge:g}" if is_number(charge) else "state of charge not known"


def _states(summary: pd.DataFrame) -> Grid:
    columns = ["State of charge", "Phase", "Particles", "Fraction of the phase", "Strain, median [10⁻³]"]
    rows = []
    for row in rows_of(summary):
        strain = [1e3 * row[f"strain_{name}"] for name in ("median", "low95", "high95")]
        cells = [
            setting(row["state_of_charge"]),
            _PHASES.get(row["phase"], number(row["phase"])),
            number(row["particles"]),
            percent_limits(*(row[f"phase_fraction{part}"] for part in ("", "_low95", "_high95"))),
            f"{strain[0]:.3f} ({strain[1]:.3f} to {strain[2]:.3f})" if is_number(strain[0]) else "",
        ]
        for axis in ("a", "c"):
            if f"cell_{axis}" in summary:
                value, error = row[f"cell_{axis}"], row[f"cell_{axis}_err"]
                cells.append(with_error(value, error) if is_number(value) else "")
        rows.append(cells)
    columns += [f"{axis} [Å]" for axis in ("a", "c") if f"cell_{axis}" in summary]
    note = (
        "In brackets: 95 % bootstrap interval over particles. Lattice parameters: ± standard error, which is common to "
        "all states; changes between states are known better, see above."
    )
    return Grid("Lattice and phases by state of charge", columns, rows, note)


def _of_tracks(results: Results) -> Iterator[Finding]:
    for job in results.all("tracks"):
        found = job.metrics
        yield Finding(
            "Particles followed through the series",
            f"{number(found.get('complete_tracks'))} in all scans",
            "",
            f"{number(found.get('tracks'))} tracks of {number(found.get('spots'))} spots in "
            f"{number(found.get('scans'))} scans",
        )


def _of_peaks(results: Results) -> Iterator[Finding]:
    fits = [job.metrics for job in results.all("fit", "measure") if is_number(job.metrics.get("median_row_err"))]
    if fits:
        errors = sorted(max(found["median_row_err"], found["median_col_err"]) for found in fits)
        peaks = sum(found["peaks"] for found in fits)
        spread = f"{number(errors[0])}" if len(errors) == 1 else f"{number(errors[0])} to {number(errors[-1])}"
        yield Finding(
            "Standard error of a peak position, median of a scan",
            f"{spread} {_PIXELS}",
            "",
            f"{number(peaks)} peaks in {len(fits)} scan{'s' if len(fits) > 1 else ''}",
        )


def _of_grains(results: Results) -> Iterator[Finding]:
    for job in results.all("grains"):
        if is_number(job.metrics.get("grains")):
            yield Finding(f"Grains in scan {job.sample}", number(job.metrics["grains"]))


def _scans(results: Results) -> Grid | None:
    """List the scans: frames, peaks, good peaks and spots, as far as their stages ran."""
    columns = {
        "Frames": (("frames", "measure"), "frames", number),
        "Peaks": (("find_peaks", "measure"), "peaks", number),
        "Good fits": (("fit", "measure"), "share_good", percent),
        "Located by the network": (("locate",), "peaks", number),
        "Spots": (("spots",), "spots", number),
        f"Standard error [{_PIXELS}]": (("fit", "measure"), "median_row_err", number),
        "FWHM [px]": (("fit", "measure"), "median_fwhm_row", number),
    }
    by_sample: dict[str, dict[str, str]] = {}
    for heading, (stages, name, text) in columns.items():
        for job in results.all(*stages):
            if name in job.metrics:
                by_sample.setdefault(job.sample, {})[heading] = text(job.metrics[name])
    used = [heading for heading in columns if any(heading in row for row in by_sample.values())]
    if not used:
        return None
    rows = [[sample, *(row.get(heading, "") for heading in used)] for sample, row in sorted(by_sample.items())]
    return Grid("Scans", ["Scan", *used], rows, "Standard error and FWHM: median along the rows.")


def _network(results: Results) -> Iterator[Finding]:
    for job in results.all("train"):
        found = job.metrics
        yield Finding(
            "Network against fit, validation patches",
            f"median {number(found.get('distance_p50'))} {_PIXELS}",
            f"95 % of the peaks below {number(found.get('distance_p95'))} {_PIXELS}",
            f"distance between both positions; trained on {number(found.get('patches'))} patches",
        )


def _truth(results: Results) -> Iterator[Finding]:
    """Yield comparisons with the true values, which simulated scans have."""
    for name, words in (("network_truth", "network"), ("fit_truth", "fit")):
        jobs = [job for job in results.all("compare") if is_number(job.metrics.get(f"{name}_median"))]
        if jobs:
            medians = sorted(job.metrics[f"{name}_median"] for job in jobs)
            tails = max(job.metrics[f"{name}_p95"] for job in jobs)
            spread = number(medians[0]) + (f" to {number(medians[-1])}" if len(medians) > 1 else "")
            yield Finding(
                f"Distance of the {words} from the true positions, median of a scan",
                f"{spread} {_PIXELS}",
                f"95 % of the peaks below {number(tails)} {_PIXELS} in each scan",
                "simulated scans",
            )
    for job in results.all("tracks"):
        if is_number(job.metrics.get("right")):
            links = f"{percent(job.metrics.get('recall'))} of the true links were found"
            yield Finding("Links between scans that are right", percent(job.metrics["right"]), "", links)
    for job in results.all("lattice"):
        if is_number(job.metrics.get("strain_z_rms")):
            yield Finding(
                "Error of the strain divided by its standard error, root mean square",
                number(job.metrics["strain_z_rms"]),
                "",
                "1 if the standard errors are right; simulated scans",
            )
            yield Finding(
                "Error of the strain, median",
                number(job.metrics["strain_error_median"]),
                "",
                f"{number(job.metrics['compared_with_truth'])} values compared with the truth",
            )


def _warnings(results: Results) -> Iterator[str]:
    for job in results.all("locate", "train"):
        if job.metrics.get("calibrated") is False:
            yield f"{job.sample}: standard errors of the network are not calibrated; they contain counting noise only"
    for job in results.all("frames"):
        if (bad := _bad_fraction(job)) > 0.2:
            yield f"{job.sample}: {percent(bad)} of the pixels are bad or masked; check the mask"
    for job in results.all("lattice"):
        for name, words in (("tracks_ambiguous", "fit several reflections"), ("tracks_unexplained", "fit none")):
            if job.metrics.get(name):
                yield (
                    f"{number(job.metrics[name])} of {number(job.metrics['tracks'])} tracks {words}; "
                    "they are not used for the lattice"
                )


def _bad_fraction(job: Job) -> float:
    found = job.metrics
    pixels = found.get("rows", 0) * found.get("cols", 0)
    return found.get("bad_pixels", 0) / pixels if pixels else 0.0
