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
    charge = spots["state_of_charge"].to_numpy(np.float64)
    paired = links.partner >= 0
    keys = pd.DataFrame({"state": state, "ring": links.ring, "paired": paired})
    counts = keys.groupby(["state", "ring"])["paired"].agg(["sum", "size"])
    enough = (counts["sum"] / 2 >= _PAIRS) & (counts["sum"] >= _FRACTION * counts["size"])
    split = enough.to_dict()
    single = ~np.array([split[key] for key in zip(state, links.ring, strict=True)], dtype=bool)
    single &= ~paired
    of_track = pd.DataFrame({"track": links.track, "charge": charge, "strain": strain})[single]
    for (number, ring), is_split in split.items():
        here = (state == number) & (links.ring == ring)
        lower = np.flatnonzero(here & paired & (strain < strain[links.partner]))
        if not len(lower):
            continue
        upper = links.partner[lower]
        at = float(charge[lower[0]])
        before = _nearest(of_track[of_track["charge"] < at], links.track, highest=True)
        after = _nearest(of_track[of_track["charge"] > at], links.track, highest=False)
        # Positive where the upper spot, of the larger spacing, is the rich one.
        votes = np.nan_to_num(_nearness(before, strain, lower, upper)) - np.nan_to_num(
            _nearness(after, strain, lower, upper)
        )
        rich_is_upper = float(np.median(votes)) >= 0
        phase[lower if rich_is_upper else upper] = 1
        if is_split:
            known = before if np.isfinite(before[lower]).sum() >= _PAIRS else after
            alone = np.flatnonzero(here & ~paired & np.isfinite(known))
            poor = lower if rich_is_upper else upper
            rich = upper if rich_is_upper else lower
            changes = [float(np.nanmedian(strain[members] - known[members])) for members in (rich, poor)]
            change = strain[alone] - known[alone]
            phase[alone] = np.abs(change - changes[1]) < np.abs(change - changes[0])
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
