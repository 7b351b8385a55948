"""Tracks of particles over the states of charge, against the truth of simulated series."""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest

from cathodeflow import bragg
from cathodeflow.bragg.particles import draw_population, geometry_of, phases
from cathodeflow.bragg.peak_options import Simulate
from cathodeflow.bragg.series_options import Tracks
from cathodeflow.bragg.series_plots import tracks_on_detector
from cathodeflow.bragg.track_links import assign, find_rings, link_spots
from cathodeflow.bragg.track_phases import find_phases
from cathodeflow.bragg.track_truth import link_quality, true_particles
from cathodeflow.errors import InputError

STATES = (0.1, 0.4, 0.5, 0.7, 0.9)
SHAPE = (256, 256)


def true_series(seed, *, states=STATES, n=500, missed=0.05, false=0.02, heterogeneity=0.03, radial_spread=0.02):
    """Spots of a series with the errors of a measurement, of which some are missed and some are false."""
    rng = np.random.default_rng(seed)
    kinds = {"amplitude": (50, 5000), "fwhm": (1.5, 3.2), "rocking_fwhm": (1.5, 4.0)}
    particles = draw_population(n, radial_spread=radial_spread, heterogeneity=heterogeneity, rng=rng, **kinds)
    tables = []
    for number, charge in enumerate(states):
        shown = phases(
            particles, state_of_charge=charge, coexistence=(0.6, 0.8), broadening=0.4, fading=0.6, shape=SHAPE
        )
        shown = shown[(shown["amplitude"] > 30) & (rng.random(len(shown)) > missed)]
        added = shown.sample(round(false * len(shown)), random_state=seed).assign(peak=-1)
        added["azimuth"], added["centre"] = rng.uniform(-1, 1, len(added)), rng.uniform(0, 1, len(added))
        both = pd.concat([shown, added], ignore_index=True).assign(state=number, state_of_charge=charge)
        tables.append(both.sample(frac=1, random_state=seed))
    spots = pd.concat(tables, ignore_index=True)
    place, count = geometry_of(SHAPE), len(spots)
    noise = 0.3 / np.sqrt(spots["amplitude"].to_numpy())
    radius = np.hypot(spots["row"] - place.beam_row, spots["col"] - place.beam_col)
    angle = np.arctan2(spots["row"] - place.beam_row, spots["col"] - place.beam_col)
    angle[spots["peak"] < 0] = 0.35 * spots["azimuth"][spots["peak"] < 0]
    radius = radius + noise * rng.normal(size=count)
    return spots.assign(
        strain=-np.log(np.sin(0.5 * np.arctan(radius / place.distance))),
        strain_err=noise / radius,
        azimuth=np.rad2deg(angle + noise / radius * rng.normal(size=count)),
        azimuth_err=np.rad2deg(noise / radius),
        angle=6 * spots["centre"] + noise * 0.1 * rng.normal(size=count),
        angle_err=0.1 * noise,
        intensity=spots["amplitude"] * np.exp(0.1 * rng.normal(size=count)),
    )


def quality(spots, links):
    steps = link_quality(spots["state"].to_numpy(), links.track, spots["peak"].to_numpy())
    return steps.assign(precision=steps["right"] / steps["links"], recall=steps["right"] / steps["true"])


@pytest.mark.parametrize(
    "changes",
    [{}, {"heterogeneity": 0.045}, {"radial_spread": 0.01}, {"missed": 0.15, "false": 0.1}],
    ids=["as the demo", "heterogeneous", "narrow rings", "many missed and false"],
)
def test_links_are_right_and_few_are_missed(changes):
    for seed in (1, 8):
        spots = true_series(seed, n=250, **changes)
        steps = quality(spots, link_spots(spots, Tracks()))
        inside = np.array([STATES[n] == 0.7 or STATES[n + 1] == 0.7 for n in steps["state"]])
        assert (steps["precision"] > 0.99).all(), steps
        assert (steps["recall"][~inside] > 0.99).all(), steps
        assert (steps["recall"][inside] > 0.97).all(), steps


def test_a_series_of_many_states_has_whole_tracks():
    states = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.65, 0.7, 0.75, 0.8, 0.9, 1.0)
    spots = true_series(3, states=states, n=150, missed=0.03)
    links = link_spots(spots, Tracks())
    steps = quality(spots, links)
    assert (steps["precision"] > 0.97).all() and (steps["recall"] > 0.97).all(), steps
    real = spots["peak"] >= 0
    # Missed spots are bridged: nearly all spots of a particle are in one track.
    share = (
        pd.DataFrame({"peak": spots["peak"], "track": links.track})[real]
        .groupby("peak")["track"]
        .agg(lambda tracks: tracks.value_counts().iloc[0] / len(tracks))
    )
    assert share.mean() > 0.97


def test_phases_are_those_of_the_truth_where_two_coexist_and_zero_elsewhere():
    spots = true_series(4)
    phase = find_phases(spots, link_spots(spots, Tracks()))
    two = (spots["state_of_charge"] == 0.7) & (spots["peak"] >= 0)
    assert (phase[two] == spots["phase"][two]).mean() > 0.98
    assert (phase[~two & (spots["peak"] >= 0)] == 0).mean() > 0.99
    # The order of the scans does not decide which phase is rich: on discharge it is the same.
    back = spots.assign(state=4 - spots["state"])
    phase = find_phases(back, link_spots(back, Tracks()))
    assert (phase[two] == spots["phase"][two]).mean() > 0.98


def test_a_particle_missed_in_one_state_goes_on_unless_gaps_are_not_allowed():
    spots = true_series(5, missed=0.0, false=0.0, states=(0.1, 0.2, 0.3, 0.4))
    without = spots[~((spots["state"] == 2) & (spots["peak"] < 50))].reset_index(drop=True)
    for max_gap, least, most in ((1, 0.9, 1.0), (0, 0.0, 0.02)):
        links = link_spots(without, Tracks(max_gap=max_gap))
        table = without.assign(track=links.track)
        before, after = (table[table["state"] == n].set_index("peak")["track"] for n in (1, 3))
        same = [before[peak] == after[peak] for peak in range(50) if peak in before and peak in after]
        assert least <= np.mean(same) <= most


def test_unrelated_scans_are_hardly_linked():
    """Spots of other particles have no common motion: nothing is made of chance."""
    one, other = true_series(6, states=(0.1,)), true_series(7, states=(0.1,))
    spots = pd.concat([one, other.assign(state=1, peak=other["peak"] + 10_000)], ignore_index=True)
    steps = quality(spots, link_spots(spots, Tracks()))
    assert steps["links"].iloc[0] < 0.05 * len(one)


def test_the_assignment_is_the_best_of_all():
    rng = np.random.default_rng(0)
    for _ in range(20):
        odds = rng.normal(size=(4, 4))
        one, other = np.mgrid[:4, :4].reshape(2, -1)
        rows, cols = assign(one, other, odds.ravel())
        best = max(sum(max(odds[i, j], 0) for i, j in enumerate(order)) for order in permutations(range(4)))
        assert odds[rows, cols].sum() == pytest.approx(best) and (odds[rows, cols] > 0).all()
        assert len(set(rows)) == len(rows) and len(set(cols)) == len(cols)


def test_rings_are_told_apart_by_their_spacing():
    rng = np.random.default_rng(1)
    spacing = np.concatenate([d * np.exp(0.004 * rng.normal(size=40)) for d in (2.4, 2.03, 1.93, 1.72)])
    rings = find_rings(np.log(spacing), 0.01).reshape(4, 40)
    assert (rings == rings[:, :1]).all() and rings[:, 0].tolist() == [3, 2, 1, 0]
    assert find_rings(np.zeros(0), 0.01).size == 0


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A small simulated series, from raw frames to spots."""
    folder, scans = tmp_path_factory.mktemp("series"), {}
    for charge in (0.1, 0.4, 0.7):
        scan = folder / f"charge_{round(100 * charge):03d}"
        options = Simulate(n_frames=20, rows=128, cols=256, n_peaks=90, seed=3)
        bragg.simulate(scan, state_of_charge=charge, options=options)
        given = {
            name: f"{scan}/{file}"
            for name, file in (("dark", "dark.tif"), ("mask", "mask.tif"), ("omega", "omega.csv"))
        }
        bragg.frames(f"{scan}/frame_*.tif", out=scan / "frames.h5", **given)
        bragg.find_peaks(scan / "frames.h5", out=scan / "candidates.parquet")
        bragg.fit(scan / "frames.h5", scan / "candidates.parquet", out=scan / "peaks.h5")
        bragg.spots(scan / "frames.h5", scan / "peaks.h5", geometry=scan / "geometry.poni", out=scan / "spots.parquet")
        scans[scan] = charge
    return scans


def arguments(series):
    return {"scan": [scan.name for scan in series], "state_of_charge": list(series.values())}


def test_tracks_of_a_simulated_series_are_right(series, tmp_path):
    tables, truth = [scan / "spots.parquet" for scan in series], [scan / "truth.parquet" for scan in series]
    metrics = bragg.tracks(tables, out=tmp_path / "tracks.parquet", truth=truth, **arguments(series))
    assert metrics["right_1"] >= 0.97 and metrics["recall_1"] >= 0.97
    assert metrics["right_2"] >= 0.95 and metrics["recall_2"] >= 0.95
    assert metrics["split_tracks"] > 25 and metrics["complete_tracks"] > 45
    found = pd.read_parquet(tmp_path / "tracks.parquet")
    assert len(found) == metrics["spots"] == sum(len(pd.read_parquet(table)) for table in tables)
    # One spot of a phase for each track in a state, and both phases only where they coexist.
    assert not found.duplicated(["sample", "track", "phase"]).any()
    assert (found.loc[found["phase"] == 1, "state_of_charge"] == 0.7).all()
    again = tmp_path / "again.parquet"
    bragg.tracks(tables, out=again, **arguments(series))
    assert again.read_bytes() == (tmp_path / "tracks.parquet").read_bytes()


def test_true_particles_are_counted_once(series):
    scan = next(iter(series))
    spots, truth = pd.read_parquet(scan / "spots.parquet"), pd.read_parquet(scan / "truth.parquet")
    twice = pd.concat([spots, spots.assign(row=spots["row"] + 0.1)], ignore_index=True)
    particle = true_particles(twice, truth)
    assert np.isin(particle[particle >= 0], truth["peak"]).all()
    assert pd.Series(particle[particle >= 0]).is_unique and (particle >= 0).sum() > 0.9 * len(spots)


def test_bad_input_ends_in_one_line(series, tmp_path):
    tables = [scan / "spots.parquet" for scan in series]
    with pytest.raises(InputError, match="--state-of-charge: found 2 values, expected 3"):
        bragg.tracks(tables, out=tmp_path / "t.parquet", **{**arguments(series), "state_of_charge": [0.1, 0.4]})
    scan = next(iter(series))
    bragg.spots(scan / "frames.h5", scan / "peaks.h5", out=tmp_path / "flat.parquet")
    with pytest.raises(InputError, match=r"flat.parquet: found spots without scattering angles"):
        bragg.tracks([tmp_path / "flat.parquet", *tables[1:]], out=tmp_path / "t.parquet", **arguments(series))


def test_the_figure_joins_the_spots_of_each_track():
    rows = [
        ("a", 0.1, 1, 0, 5.0, 5.0),
        ("a", 0.1, 2, 0, 9.0, 5.0),
        ("b", 0.4, 1, 0, 5.0, 7.0),
        ("b", 0.4, 1, 1, 5.0, 9.0),
    ]
    rows += [("c", 0.7, 1, 0, 5.0, 8.0), ("c", 0.7, 1, 1, 5.0, 10.0)]
    table = pd.DataFrame(rows, columns=["sample", "state_of_charge", "track", "phase", "row", "col"])
    axes = tracks_on_detector(table, min_states=2).axes[0]
    segments = {tuple(map(tuple, np.asarray(line))) for line in axes.collections[0].get_segments()}
    # One spot to two phases: two lines; two phases to two: each to its own. A single spot has none.
    assert segments == {((5, 5), (7, 5)), ((5, 5), (9, 5)), ((7, 5), (8, 5)), ((9, 5), (10, 5))}
    empty = tracks_on_detector(table, min_states=4)
    assert "no tracks of 4 states" in empty.axes[0].texts[0].get_text()
