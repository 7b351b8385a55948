"""Stage: link the spots of all scans of a series to tracks of particles."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from cathodeflow.bragg.series_options import Tracks
from cathodeflow.bragg.simulation import TRUTH
from cathodeflow.bragg.stages.spots import COLUMNS as SPOT_COLUMNS
from cathodeflow.bragg.track_links import link_spots
from cathodeflow.bragg.track_phases import find_phases
from cathodeflow.bragg.track_truth import link_quality, true_particles
from cathodeflow.errors import InputError
from cathodeflow.io.tables import read_table, write_table
from cathodeflow.stage import InputFile, Metrics, OutputFile, stage

log = logging.getLogger("cathodeflow.bragg")

#: Columns before those of the spots.
COLUMNS = ("sample", "state_of_charge", "track", "phase")


@stage("bragg.tracks")
def tracks(
    spots: Sequence[InputFile],
    *,
    out: OutputFile,
    scan: Sequence[str],
    state_of_charge: Sequence[float],
    truth: Sequence[InputFile] = (),
    options: Tracks,
) -> Metrics:
    """Link the SPOTS of the scans of a series to tracks of particles, over the states of charge.

    Parameters
    ----------
    spots : sequence of path
        Tables of spots (spots.parquet), one per scan, in the order in which the scans were taken.
    out : path
        Table to write (Parquet): the spots of all scans, with the track and phase of each.
    scan : sequence of str
        Name of each scan; give the option once for every scan.
    state_of_charge : sequence of float
        State of charge of each scan, 0 (discharged) to 1 (charged); give the option once for every scan.
    truth : sequence of path
        Tables of the true positions of simulated scans, one per scan, to count right links; give the option once for
        every scan.

    Raises
    ------
    InputError
        Numbers of tables, names and states differ, or spots have no scattering angles.
    """
    for name, given in (("--scan", scan), ("--state-of-charge", state_of_charge), ("--truth", truth or spots)):
        if len(given) != len(spots):
            raise InputError(name, f"{len(given)} values", f"{len(spots)}, one for each table of spots")
    tables = []
    for number, (path, name, charge) in enumerate(zip(spots, scan, state_of_charge, strict=True)):
        table = read_table(path, SPOT_COLUMNS)
        if len(table) and not np.isfinite(table["two_theta"]).all():
            raise InputError(path, "spots without scattering angles", "spots made with the geometry of the detector")
        tables.append(table.assign(sample=name, state_of_charge=charge, state=number))
    joined = pd.concat(tables, ignore_index=True)
    linked = joined.assign(**_coordinates(joined))
    links = link_spots(linked, options)
    joined = joined.assign(track=links.track, phase=find_phases(linked, links))
    metrics = _counts(joined, links.partner, len(spots))
    if truth:
        metrics |= _quality(joined, truth)
    write_table(out, joined[[*COLUMNS, *SPOT_COLUMNS]])
    log.info(
        "%d spots of %d scans: %d tracks, %d of them complete, %d split",
        *(metrics[name] for name in ("spots", "scans", "tracks", "complete_tracks", "split_tracks")),
    )
    return Metrics(metrics)


def _coordinates(spots: pd.DataFrame) -> dict[str, Any]:
    """Return the columns that `link_spots` compares; frames stand for angles if these are not known for all spots."""
    theta, error = np.deg2rad(spots["two_theta"] / 2), np.deg2rad(spots["two_theta_err"] / 2)
    columns: dict[str, Any] = {"strain": -np.log(np.sin(theta)), "strain_err": error / np.tan(theta)}
    if spots["omega"].notna().all():
        columns |= {"angle": spots["omega"], "angle_err": spots["omega_err"]}
    else:
        log.warning("the angles of the sample are not known: frames are compared instead")
        columns |= {"angle": spots["frame"], "angle_err": 0.5}
    return columns


def _counts(joined: pd.DataFrame, partner: Any, n_states: int) -> dict[str, Any]:
    present = joined.groupby("track")["state"].nunique()
    steps = joined[["track", "state"]].drop_duplicates()
    following = steps.assign(state=steps["state"] - 1)
    per_step = steps.merge(following, on=["track", "state"]).groupby("state").size()
    return {
        "scans": n_states,
        "spots": len(joined),
        "tracks": len(present),
        "complete_tracks": int((present == n_states).sum()),
        "single_spots": int((present == 1).sum()),
        "split_tracks": int(joined["track"][partner >= 0].nunique()),
        **{f"links_{number + 1}": int(per_step.get(number, 0)) for number in range(n_states - 1)},
    }


def _quality(joined: pd.DataFrame, truth: Sequence[str]) -> dict[str, Any]:
    particle = np.full(len(joined), -1, np.int64)
    for number, path in enumerate(truth):
        here = np.flatnonzero(joined["state"] == number)
        particle[here] = true_particles(joined.iloc[here], read_table(path, list(TRUTH)))
    steps = link_quality(joined["state"].to_numpy(np.int64), joined["track"].to_numpy(np.int64), particle)
    metrics: dict[str, Any] = {"true_spots": int((particle >= 0).sum())}
    counts = steps[["links", "right", "true"]].to_numpy(np.int64)
    for name, (links, right, true) in [
        *((f"_{state + 1}", row) for state, row in zip(steps["state"], counts, strict=True)),
        ("", counts.sum(axis=0)),
    ]:
        metrics[f"right{name}"] = float(right / links) if links else None
        metrics[f"recall{name}"] = float(right / true) if true else None
    log.info("links right: %s, recall: %s", metrics["right"], metrics["recall"])
    return metrics
