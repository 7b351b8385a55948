"""Stage: from tracks to lattice parameters and strain."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cathodeflow.bragg.cycler_join import cycler_columns, scan_voltages
from cathodeflow.bragg.lattice_series import COLUMNS, LatticeSeries, lattice_series, usable_tracks
from cathodeflow.bragg.lattice_truth import against_truth, truth_of
from cathodeflow.bragg.particles import end_members
from cathodeflow.bragg.series_options import Lattice
from cathodeflow.bragg.series_summary import summarise
from cathodeflow.bragg.simulation import TRUTH
from cathodeflow.cell_options import unit_cell
from cathodeflow.cells import as_lattice
from cathodeflow.errors import InputError
from cathodeflow.io.cycler import read_cycler
from cathodeflow.io.geometry_files import read_detector_geometry
from cathodeflow.io.tables import read_table, write_csv
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bragg")


@stage("bragg.lattice")
def lattice(
    tracks: InputFile,
    *,
    out: OutputFile,
    summary: OutputFile,
    scan_time: Sequence[str] = (),
    truth: Sequence[InputFile] = (),
    geometry: InputFile | None = None,
    options: Lattice,
) -> Metrics:
    """Compute lattice parameters and strain of the particles in TRACKS.

    Parameters
    ----------
    tracks : path
        Table of the tracks of a series (tracks.parquet).
    out : path
        CSV table to write: one row per track, state and phase.
    summary : path
        CSV table to write: one row per state and phase.
    scan_time : sequence of str
        Time of a scan as NAME=TIME, to find its voltage in the table of the cycler.
    truth : sequence of path
        True positions of a simulated scan (truth.parquet), in a folder with the name of the scan.
    geometry : path
        Geometry of the detector of the simulated scans.

    Raises
    ------
    InputError
        The tracks have no lattice spacings or no clear reflection, the cell is not supported, or the table of the
        cycler does not have the scans.
    """
    table = read_table(tracks, required=COLUMNS)
    cell = as_lattice(unit_cell(options.cell), options.cell.file or "bragg.lattice.cell")
    series = lattice_series(table, cell, options, where=tracks)
    found = summarise(series, cell, samples=options.bootstrap, rng=np.random.default_rng(options.seed or 0))
    if options.cycler.file:
        times = dict(_time(text) for text in scan_time)
        states = dict(zip(found["sample"], found["state_of_charge"], strict=True))
        times = {name: value for name, value in times.items() if name in states}
        voltage = scan_voltages(
            read_cycler(options.cycler.file, cycler_columns(options.cycler, times)), states, times, options.cycler
        )
        found.insert(2, "voltage", found["sample"].map(voltage))
        if times:
            found.insert(2, "time", found["sample"].map(times))
    if truth:
        found["a_true"], found["c_true"], found["phase_fraction_true"] = end_members(
            found["state_of_charge"], found["phase"]
        )
    write_csv(out, series.table, float_format="%.9g")
    write_csv(summary, found, float_format="%.9g")
    metrics = _figures_of_merit(series)
    if truth and geometry:
        place = read_detector_geometry(geometry)
        truths = {Path(path).parent.name: read_table(path, list(TRUTH)) for path in truth}
        metrics |= against_truth(
            series.table, truth_of(usable_tracks(table, tracks).iloc[series.rows].reset_index(drop=True), truths, place)
        )
    if metrics["particle_scatter"] > options.particle_spread:
        log.warning(
            "the particles of a state differ by %.2g %% in a lattice parameter: check bragg.lattice.cell",
            100 * metrics["particle_scatter"],
        )
    log.info(
        "%d of %d tracks have an hkl, %d are ambiguous, %d unexplained",
        metrics["tracks_assigned"], metrics["tracks"], metrics["tracks_ambiguous"], metrics["tracks_unexplained"],
    )  # fmt: skip
    return Metrics(metrics)


def _time(text: str) -> tuple[str, float]:
    name, _, value = text.rpartition("=")
    try:
        return name, float(value)
    except ValueError:
        raise InputError("--scan-time", text, "NAME=NUMBER") from None


def _figures_of_merit(series: LatticeSeries) -> dict[str, int | float]:
    reflection = series.assignment.reflection
    return {
        "tracks": len(reflection),
        "tracks_assigned": int(np.sum(reflection >= 0)),
        "tracks_ambiguous": int(np.sum(reflection == -1)),
        "tracks_unexplained": int(np.sum(reflection == -2)),
        "offset_scatter": series.population.offset_scatter,
        "particle_scatter": float(series.population.scatter[series.population.determined].max(initial=0.0)),
        "median_strain_err": float(np.nanmedian(series.table.loc[series.table["strain_err"] > 0, "strain_err"])),
    }
