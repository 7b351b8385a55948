"""Simulated cathode particles: positions of their Bragg spots at any state of charge."""

from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import PchipInterpolator

# Reflections of the layered structure (R-3m, hexagonal axes) whose lattice spacings differ by 16 to 20 %, so that the
# radius of a spot tells its reflection at any charge. 006 depends on c alone; the two phases of 104 are 4 px apart on
# 256 columns, those of the others 9 px.
REFLECTIONS = ((0, 0, 6), (1, 0, 4), (1, 0, 7))
# Detector distance and beam centre's distance from the left edge, in detector widths; 0.4 A is 31 keV. The rings stay
# on the detector at any charge.
DISTANCE, BEAM_OFFSET, WAVELENGTH = 8.4, 1.34, 0.4
#: States of charge between which two phases coexist.
COEXISTENCE = (0.6, 0.8)
#: Side of a detector pixel [m].
PIXEL_SIZE = 1e-4
_CHARGE = (0.0, 0.2, 0.4, 0.6, 0.7, 0.8, 0.9, 1.0)
_LATTICE = PchipInterpolator(
    _CHARGE,
    np.column_stack(
        [
            (2.872, 2.853, 2.835, 2.820, 2.817, 2.815, 2.814, 2.814),
            (14.20, 14.30, 14.41, 14.46, 14.33, 14.10, 13.86, 13.70),
        ]
    ),
)


class Geometry(NamedTuple):
    """Flat detector at right angles to the beam: beam centre [px], distance [px], wavelength [A]."""

    beam_row: float
    beam_col: float
    distance: float
    wavelength: float


def lattice(charge: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lattice parameters (a, c) [A] of a nickel-rich layered oxide against the fraction of lithium removed.

    a shrinks; c grows while lithium leaves, since the oxygen layers repel each other, and collapses below about 40 %
    lithium [1]_. The values are rounded and typical, not measured on one compound.

    References
    ----------
    .. [1] T. Jousseaume et al., Energy Environ. Sci. 2024, doi:10.1039/d3ee04115h

    Examples
    --------
    >>> a, c = lattice([0.0, 0.6, 1.0])
    >>> c
    array([14.2 , 14.46, 13.7 ])
    """
    values = _LATTICE(np.clip(charge, 0.0, 1.0))
    return values[..., 0], values[..., 1]


def end_members(
    state_of_charge: ArrayLike, phase: ArrayLike, coexistence: tuple[float, float] = COEXISTENCE
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Lattice parameters (a, c) [A] of a phase at a state of charge, and its fraction by the lever rule.

    Of the mean particle: the others are ahead of it or behind. Phase 0 is rich in lithium, 1 poor.

    Examples
    --------
    >>> a, c, fraction = end_members([0.7, 0.7], [0, 1])
    >>> c, fraction.round(3)
    (array([14.46, 14.1 ]), array([0.5, 0.5]))
    """
    (low, high), charge = coexistence, np.asarray(state_of_charge, np.float64)
    second = np.asarray(phase) == 1
    poor = np.clip((charge - low) / (high - low), 0, 1)
    a, c = lattice(np.where(second, np.maximum(charge, high), np.minimum(charge, low)))
    return a, c, np.where(second, poor, 1 - poor)


def geometry_of(shape: tuple[int, int]) -> Geometry:
    """Geometry of a detector of this shape (rows, cols): the beam passes it on the left, at half height."""
    return Geometry((shape[0] - 1) / 2, -0.5 - BEAM_OFFSET * shape[1], DISTANCE * shape[1], WAVELENGTH)


def ring_radius(hkl: NDArray[np.int64], charge: ArrayLike, geometry: Geometry) -> NDArray[np.float64]:
    """Radius [px] of reflections hkl (..., 3) at a charge: Bragg's law, 1/d^2 = 4/3 (h^2 + hk + k^2)/a^2 + l^2/c^2."""
    a, c = lattice(charge)
    h, k, index_l = np.moveaxis(np.asarray(hkl), -1, 0)
    inverse_d = np.sqrt(4 / 3 * (h * h + h * k + k * k) / a**2 + index_l**2 / c**2)
    return geometry.distance * np.tan(2 * np.arcsin(geometry.wavelength * inverse_d / 2))


def draw_population(
    n_peaks: int,
    *,
    amplitude: tuple[float, float],
    fwhm: tuple[float, float],
    rocking_fwhm: tuple[float, float],
    radial_spread: float,
    heterogeneity: float,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Draw particles with one reflection each, in units independent of the detector and the number of frames.

    `azimuth` is -1 to 1 from the detector's top to its bottom, `offset` is in detector widths, `centre` in lengths of
    the scan, `charge_offset` in state of charge, `rocking_fwhm` in frames.
    """
    widths = rng.uniform(*fwhm, size=(2, n_peaks))
    # Both widths of a spot mostly depend on the same grain size, so they differ less than the grains do.
    fwhm_row, fwhm_col = 0.75 * widths + 0.25 * widths[::-1]
    return pd.DataFrame(
        {
            "reflection": rng.integers(len(REFLECTIONS), size=n_peaks),
            "azimuth": rng.uniform(-1, 1, n_peaks),
            "offset": rng.normal(0, radial_spread, n_peaks),
            "centre": rng.uniform(0, 1, n_peaks),
            "rocking_fwhm": rng.uniform(*rocking_fwhm, size=n_peaks),
            "amplitude": np.exp(rng.uniform(np.log(amplitude[0]), np.log(amplitude[1]), n_peaks)),
            "fwhm_row": fwhm_row,
            "fwhm_col": fwhm_col,
            "mixing": rng.uniform(0, 0.6, n_peaks),
            "charge_offset": heterogeneity * np.clip(rng.normal(size=n_peaks), -2, 2),
        }
    )


def phases(
    population: pd.DataFrame,
    *,
    state_of_charge: float,
    coexistence: tuple[float, float],
    broadening: float,
    fading: float,
    shape: tuple[int, int],
) -> pd.DataFrame:
    """Return the spots of a population at a state of charge: one per particle and phase, with position [px] and shape.

    Within the coexistence range a particle holds both end members in the amounts of the lever rule, as nickel oxides do
    between H2 and H3; outside it holds one phase at its own charge. Phase 0 is rich in lithium, 1 poor. Strain disorder
    sets in beyond the lower end of the range, where c collapses.
    """
    low, high = coexistence
    # Particles differ most at half charge: all are full at 0 and empty at 1.
    spread = 4 * state_of_charge * (1 - state_of_charge)
    own = np.clip(state_of_charge + spread * population["charge_offset"], 0, 1)
    poor = np.clip((own - low) / (high - low), 0, 1)
    strain = np.clip((own - low) / (1 - low), 0, 1) ** 2
    hkl, geometry = np.array(REFLECTIONS)[population["reflection"]], geometry_of(shape)
    # Each arc spans the detector's height; the azimuth of a particle does not change with its charge.
    widest = np.arcsin(0.5 * shape[0] / ring_radius(hkl, 0.0, geometry))
    spots = []
    for phase, fraction, charge in ((0, 1 - poor, np.minimum(own, low)), (1, poor, np.maximum(own, high))):
        radius = ring_radius(hkl, charge, geometry) + population["offset"] * shape[1]
        spots.append(
            population.assign(
                peak=np.arange(len(population)),
                phase=phase,
                row=geometry.beam_row + radius * np.sin(widest * population["azimuth"]),
                col=geometry.beam_col + radius * np.cos(widest * population["azimuth"]),
                amplitude=population["amplitude"] * fraction * (1 - fading * strain),
                fwhm_row=population["fwhm_row"] * (1 + broadening * strain),
                fwhm_col=population["fwhm_col"] * (1 + broadening * strain),
            )[fraction > 0]
        )
    return pd.concat(spots, ignore_index=True)
