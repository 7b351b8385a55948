"""Phases of the spots of a track: which of two coexisting ones is rich in lithium."""

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.bragg.track_links import Links

Integers = NDArray[np.int64]

# A ring has two phases in a state if at least this fraction of its particles, and so many, have two spots.
_FRACTION, _PAIRS = 0.05, 3


def find_phases(spots: pd.DataFrame, links: Links) -> Integers:
    """Return the phases: 0 where a particle has one, or for the one rich in lithium; 1 for the poor one.

    The rich phase has the lattice of lower charge: of the two spots it is the one nearer to where the particles of the
    ring are in the next state of lower charge with one phase, seen against the next one of higher charge. A particle of
    which only one phase was found, in a state where the others of its ring have two, is in the phase that fits its
    change of the lattice spacing.

    Parameters
    ----------
    spots : DataFrame
        `state` (int), `state_of_charge` and `strain` (logarithm of the lattice spacing).
    links : Links

    Returns
    -------
    (n,) int64
    """
    phase = np.zeros(len(spots), np.int64)
    state, strain = spots["state"].to_numpy(np.int64), spots["strain"].to_numpy(np.float64)
    charge, ring, partner = spots["state_of_charge"].to_numpy(np.float64), links.ring, links.partner
    paired = partner >= 0
    counts = pd.DataFrame({"state": state, "ring": ring, "paired": paired}).groupby(["state", "ring"])["paired"]
    table = counts.agg(["sum", "size"])
    several = (table["sum"] >= 2 * _PAIRS) & (table["sum"] >= _FRACTION * table["size"])
    split = [(int(of_state), int(of_ring)) for of_state, of_ring in table.index[several].to_list()]
    whole = ~paired & ~np.array([key in split for key in zip(state, ring, strict=True)], dtype=bool)
    of_track = pd.DataFrame({"track": links.track, "charge": charge, "strain": strain})[whole]
    for number in np.unique(state[paired]):
        at = float(charge[state == number][0])
        before = _nearest(of_track[of_track["charge"] < at], links.track, highest=True)
        after = _nearest(of_track[of_track["charge"] > at], links.track, highest=False)
        lower = np.flatnonzero((state == number) & paired & (strain < strain[partner]))
        for group in np.unique(ring[lower]):
            of_group = lower[ring[lower] == group]
            # Positive where the upper spot, of the larger spacing, is the rich one.
            votes = [_nearness(known, strain, of_group, partner[of_group]) for known in (before, after)]
            upper_is_rich = float(np.median(np.nan_to_num(votes[0]) - np.nan_to_num(votes[1]))) >= 0
            phase[of_group if upper_is_rich else partner[of_group]] = 1
        for group in (of_ring for of_state, of_ring in split if of_state == number):
            here = (state == number) & (ring == group)
            members = np.flatnonzero((state == number) & paired & (here | here[partner]))
            known = before if np.isfinite(before[members]).sum() >= 2 * _PAIRS else after
            change = strain - known
            alone = np.flatnonzero(here & ~paired & np.isfinite(change))
            rich, poor = (float(np.nanmedian(change[members[phase[members] == of]])) for of in (0, 1))
            phase[alone] = np.abs(change[alone] - poor) < np.abs(change[alone] - rich)
    return phase


def _nearest(of_track: pd.DataFrame, track: Integers, *, highest: bool) -> NDArray[np.float64]:
    """Return for each spot the strain of its track at the highest or lowest charge of the table; NaN without one."""
    ordered = of_track.sort_values("charge", kind="stable")
    values = ordered.groupby("track")["strain"].agg("last" if highest else "first")
    return values.reindex(track).to_numpy(np.float64)


def _nearness(
    reference: NDArray[np.float64], strain: NDArray[np.float64], lower: Integers, upper: Integers
) -> NDArray[np.float64]:
    """Return 1 where the upper spot is nearer to the reference, -1 where the lower one is; NaN without a reference."""
    sign = np.abs(strain[lower] - reference[lower]) - np.abs(strain[upper] - reference[upper])
    return np.sign(sign)
