"""Options of simulated crystals and rocking scans."""

from typing import Literal

from cathodeflow.bcdi.series_options import ChargeSeries
from cathodeflow.options import Options, option

Habit = Literal["polyhedron", "truncated_octahedron", "winterbottom"]
Kind = Literal["smooth", "surface", "twin", "fault", "edge", "screw", "domains"]
Regime = Literal["weak", "medium", "strong", "extreme"]


def number_range(default: tuple[float, float], description: str, *, unit: str | None = None) -> tuple[float, float]:
    """Make an option of two numbers."""
    both: tuple[float, float] = option(default, description, unit=unit, min_length=2, max_length=2)
    return both


class Simulate(Options):
    """Strained crystals and their diffraction patterns, to train and to test the network.

    Choices, and numbers within a range, are drawn uniformly for each crystal; photons log-uniformly.
    """

    crystals: int = option(2000, "Number of crystals.", ge=2, le=10_000_000)
    first: int = option(0, "Number of the first crystal; each crystal depends on `seed` and its number only.", ge=0)
    size: int = option(32, "Side of the cubic volumes.", unit="px", ge=16, le=512)
    habits: tuple[Habit, ...] = option(
        ("polyhedron", "truncated_octahedron", "winterbottom"),
        "Crystal habits (shapes); `winterbottom`: a truncated octahedron on a substrate.",
        min_length=1,
    )
    kinds: tuple[Kind, ...] = option(
        ("smooth", "surface", "twin", "fault", "edge", "screw"),
        "Kinds of displacement field; edge and screw dislocations occur only in the regime `extreme`. Also `domains`: "
        "blocks of constant phase.",
        min_length=1,
    )
    regimes: tuple[Regime, ...] = option(
        ("weak", "medium", "strong", "extreme"),
        "Strain regimes, by the range of the phase: 0.1-1, 2-3, 4-6, and 2 pi to 3 pi rad.",
        min_length=1,
    )
    oversampling: tuple[float, ...] = number_range(
        (2.2, 5.0), "Oversampling along the axis where it is lowest (minimum, maximum)."
    )
    aspect: float = option(1.5, "Maximum aspect ratio of the crystals.", ge=1, le=3)
    rounding: tuple[float, ...] = number_range(
        (0.05, 0.4), "Radius of the edges, as a fraction of the distance of the nearest facet (minimum, maximum)."
    )
    correlation: tuple[float, ...] = number_range(
        (0.25, 0.6), "Correlation length of smooth strain, as a fraction of the crystal's extent (minimum, maximum)."
    )
    photons: tuple[float, ...] = number_range((1e5, 1e8), "Photons per pattern (minimum, maximum).")
    coherence: tuple[float, ...] = number_range(
        (0.0, 0.4), "Standard deviation of the blur by partial coherence (minimum, maximum).", unit="px"
    )
    background: tuple[float, ...] = number_range((0.0, 0.02), "Mean background counts per voxel (minimum, maximum).")
    hot_fraction: float = option(0.0, "Fraction of hot pixels, which are masked.", ge=0, le=0.25)
    stop_radius: float = option(0.0, "Radius of the beam stop on the peak; 0: no beam stop.", unit="px", ge=0)
    gap: int = option(0, "Width of a gap along the rows and of another along the columns; 0: no gaps.", unit="px", ge=0)
    seed: int | None = option(None, "Random seed. Default: the workflow seed.", ge=0)


class SimulateScan(Options):
    """Raw frames of a strained crystal with dark, whitefield, mask and geometry, for scans that are `simulated`."""

    frames: int = option(48, "Number of frames.", ge=8, le=4096)
    rows: int = option(64, "Rows of a frame.", unit="px", ge=16, le=8192)
    cols: int = option(64, "Columns of a frame.", unit="px", ge=16, le=8192)
    size_nm: float = option(400.0, "Maximum extent of the crystal along an axis of the laboratory.", unit="nm", gt=0)
    habit: Habit = option("winterbottom", "Crystal habit (shape).")
    kind: Kind = option("smooth", "Kind of displacement field.")
    regime: Regime = option("medium", "Strain regime.")
    aspect: float = option(1.5, "Maximum aspect ratio of the crystal.", ge=1, le=3)
    rounding: float = option(
        0.2, "Radius of the edges, as a fraction of the distance of the nearest facet.", ge=0, lt=1
    )
    correlation: float = option(
        0.4, "Correlation length of smooth strain, as a fraction of the crystal's extent.", gt=0
    )
    rocking_step_deg: float = option(0.012, "Rocking angle between neighbouring frames.", unit="degrees", gt=0)
    offset: tuple[float, ...] = option(
        (1.3, -4.4, 3.7),
        "Offset of the peak from the centre of the scan, as (frames, rows, columns).",
        unit="px",
        min_length=3,
        max_length=3,
    )
    photons: float = option(1e7, "Photons of the whole peak.", gt=0)
    coherence: float = option(0.3, "Standard deviation of the blur by partial coherence.", unit="px", ge=0)
    background: float = option(0.005, "Mean counts of background scattering per pixel and frame.", ge=0)
    dark: float = option(0.02, "Mean dark counts per pixel and frame.", ge=0)
    hot_fraction: float = option(
        0.0005, "Fraction of hot pixels; the fraction of dead pixels is the same.", ge=0, le=0.25
    )
    unevenness: float = option(0.05, "Relative standard deviation of the pixels' sensitivity.", ge=0)
    charge: ChargeSeries = option(ChargeSeries(), "Changes with the state of charge.")
    seed: int | None = option(None, "Random seed. Default: the workflow seed.", ge=0)
