"""Simulated operando series: detector frames of single cathode particles during charge, with the truth.

All scans show the same population of particles, drawn only from the seed: its peaks move radially with the lattice
parameters, split where two phases coexist, and broaden and fade at high charge.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import cKDTree

from cathodeflow.bragg.matching import points_by_frame
from cathodeflow.bragg.particles import (
    BEAM_OFFSET,
    COEXISTENCE,
    REFLECTIONS,
    Geometry,
    draw_population,
    geometry_of,
    phases,
    ring_radius,
)
from cathodeflow.bragg.peak_options import Simulate
from cathodeflow.bragg.profiles import profile

#: Columns of the truth; positions and widths [px], amplitude [counts], `masked`: a bad pixel within 2 px.
TRUTH = (
    "frame", "peak", "phase", "row", "col", "amplitude", "fwhm_row",
    "fwhm_col", "mixing", "isolated", "masked", "hkl", "state_of_charge",
)  # fmt: skip

#: Rotation of the sample between two frames [deg].
OMEGA_STEP = 0.1


class SimulatedScan(NamedTuple):
    """One simulated scan: truth, dark image and mask of the detector, and what `raw_frame` needs to render frames.

    `omega` is the orientation angle of the sample of each frame [deg], in steps of `OMEGA_STEP` about 0.
    """

    truth: pd.DataFrame
    dark: NDArray[np.float32]
    mask: NDArray[np.uint8]
    omega: NDArray[np.float64]
    geometry: Geometry
    n_frames: int
    peaks: pd.DataFrame
    background: NDArray[np.float64]
    noise_key: tuple[int, ...]


def add_peaks(image: NDArray[np.float64], peaks: pd.DataFrame, *, negligible: float = 0.1) -> None:
    """Add peaks (columns of `TRUTH`) to an image (row, col) in place, as far as they exceed `negligible` [counts]."""
    rows, cols = image.shape
    columns = ["row", "col", "amplitude", "background", "fwhm_row", "fwhm_col", "mixing"]
    for parameters in peaks.assign(background=0.0)[columns].to_numpy(np.float64):
        row, col, amplitude, _, fwhm_row, fwhm_col, mixing = parameters
        # Widths beyond which the Lorentzian, and two beyond which every Gaussian, is negligible.
        reach = max(0.5 * np.sqrt(amplitude * mixing / negligible), 2.0)
        top, bottom = (int(np.clip(np.round(row + s * reach * fwhm_row), -1, rows)) for s in (-1, 1))
        left, right = (int(np.clip(np.round(col + s * reach * fwhm_col), -1, cols)) for s in (-1, 1))
        r, c = np.arange(max(top, 0), min(bottom + 1, rows)), np.arange(max(left, 0), min(right + 1, cols))
        if r.size and c.size:
            image[r[0] : r[-1] + 1, c[0] : c[-1] + 1] += profile(parameters, r[:, None], c[None])


def isolated(
    frame: ArrayLike, row: ArrayLike, col: ArrayLike, amplitude: ArrayLike, *, distance: float, fraction: float = 0.05
) -> NDArray[np.bool_]:
    """Whether no other peak of the frame, of at least `fraction` of the peak's amplitude, lies within `distance` [px].

    Examples
    --------
    >>> isolated([0, 0, 1], [5, 9, 5], [5, 5, 6], [100.0, 4.0, 100.0], distance=8)
    array([ True, False,  True])
    """
    amplitude = np.asarray(amplitude, dtype=np.float64)
    alone = np.ones(len(amplitude), dtype=bool)
    if len(amplitude):
        points = points_by_frame(np.column_stack([row, col]), frame, distance)
        i, j = cKDTree(points).query_pairs(distance, output_type="ndarray").T
        alone[i[amplitude[j] >= fraction * amplitude[i]]] = False
        alone[j[amplitude[i] >= fraction * amplitude[j]]] = False
    return alone


def simulate_scan(
    options: Simulate,
    *,
    state_of_charge: float,
    fwhm: tuple[float, float] = (1.5, 3.2),
    rocking_fwhm: tuple[float, float] = (1.5, 4.0),
    radial_spread: float = 0.02,
    heterogeneity: float = 0.03,
    coexistence: tuple[float, float] = COEXISTENCE,
    broadening: float = 0.4,
    fading: float = 0.6,
    isolation: float = 8.0,
    scan: int = 0,
) -> SimulatedScan:
    """Simulate a rocking scan at a state of charge; `raw_frames` then renders it frame by frame.

    Particles and detector depend only on the seed (and the detector's shape), so that scans at other states of charge
    show the same ones; the noise depends on the seed, `scan`, the state of charge and the frame number.

    Parameters
    ----------
    options : Simulate
        Amplitudes are the maximum of a spot over the scan, log-uniform. `seed`: None is 0.
    state_of_charge : float
        Fraction of the lithium removed, 0 to 1.
    fwhm, rocking_fwhm : (low, high)
        Full widths at half maximum of the spots on the detector [px] and in angle [frames], uniform.
    radial_spread : float
        Standard deviation of the distance between spots and their ring [detector widths], due to the particles' own
        lattice parameters: these differ by 1 to 1.4 %, more than in real electrodes, so that the spots are not crowded
        in a few narrow rings. The rings are twelve times as far apart, so the radius tells the reflection. With 600
        particles in 60 frames of 256 x 256 pixels, 54 % of the spots are isolated at low charge, 30 % with two phases.
    heterogeneity : float
        Standard deviation of the particles' own states of charge at half charge.
    coexistence : (low, high)
        Range of the state of charge with two phases.
    broadening, fading : float
        Relative growth of the widths and loss of the amplitude due to strain at full charge.
    isolation : float
        Distance for the column `isolated` of the truth [px]; see `isolated`.
    scan : int
        Number of the scan; scans of one state of charge differ in their noise.

    Returns
    -------
    SimulatedScan
        `truth` has the columns `TRUTH` and a row for every spot of at least one count with its centre on the detector.
    """
    shape, seed = (options.rows, options.cols), options.seed or 0
    rows, cols = shape
    population = draw_population(
        options.n_peaks,
        amplitude=(options.amplitude_min, options.amplitude_max),
        fwhm=fwhm,
        rocking_fwhm=rocking_fwhm,
        radial_spread=radial_spread,
        heterogeneity=heterogeneity,
        rng=_generator(seed, 0),
    )
    spots = phases(
        population,
        state_of_charge=state_of_charge,
        coexistence=coexistence,
        broadening=broadening,
        fading=fading,
        shape=shape,
    )
    from_centre = np.arange(options.n_frames)[:, None] - spots["centre"].to_numpy() * (options.n_frames - 1)
    rocking = np.exp(-4 * np.log(2) * (from_centre / spots["rocking_fwhm"].to_numpy()) ** 2)
    in_frame = rocking * spots["amplitude"].to_numpy()
    frame_number, spot = np.nonzero(in_frame >= 1.0)
    peaks = spots.iloc[spot].assign(frame=frame_number, amplitude=in_frame[frame_number, spot])
    peaks = peaks.sort_values(["frame", "peak", "phase"], ignore_index=True)
    peaks["isolated"] = isolated(peaks["frame"], peaks["row"], peaks["col"], peaks["amplitude"], distance=isolation)

    pedestal, mask, hot = _detector(options, rng=_generator(seed, 1, *shape))
    on_detector = peaks["row"].between(-0.5, rows - 0.5) & peaks["col"].between(-0.5, cols - 0.5)
    truth = peaks[on_detector].reset_index(drop=True)
    bad = cKDTree(np.argwhere(mask)) if mask.any() else None
    truth["masked"] = bad.query(truth[["row", "col"]].to_numpy())[0] <= 2 if bad and len(truth) else False
    truth["hkl"] = np.array(["".join(map(str, hkl)) for hkl in REFLECTIONS])[truth["reflection"]]
    truth["state_of_charge"] = state_of_charge
    return SimulatedScan(
        truth=truth[[*TRUTH]],
        dark=(pedestal + hot).astype(np.float32),
        mask=mask,
        omega=OMEGA_STEP * (np.arange(options.n_frames, dtype=np.float64) - (options.n_frames - 1) / 2),
        geometry=geometry_of(shape),
        n_frames=options.n_frames,
        peaks=peaks,
        background=options.background * _halo(shape)
        + options.ring * _rings(shape, state_of_charge, coexistence, radial_spread),
        noise_key=(seed, 2, scan, round(state_of_charge * 1e6)),
    )


def expected_frame(scan: SimulatedScan, number: int) -> NDArray[np.float64]:
    """Mean scattering (row, col) [counts] of one frame: background, rings and peaks, without detector and noise."""
    image = scan.background.copy()
    first, last = np.searchsorted(scan.peaks["frame"].to_numpy(), [number, number + 1])
    add_peaks(image, scan.peaks.iloc[first:last])
    return image


def raw_frame(scan: SimulatedScan, number: int) -> NDArray[np.uint16]:
    """Raw frame (row, col): Poisson counts on the dark offset; dead pixels and gaps read 0."""
    rng = _generator(*scan.noise_key, number)
    bad = scan.mask != 0
    # The current of a hot pixel dominates its counts; its excess over the dark level is noisy in the frames.
    hot = bad & (scan.dark > 0)
    mean = expected_frame(scan, number)
    mean[hot] += scan.dark[hot]
    counts = rng.poisson(mean) + np.where(hot, 0, scan.dark.astype(np.int64))
    counts[bad & ~hot] = 0
    return np.minimum(counts, np.iinfo(np.uint16).max).astype(np.uint16)


def raw_frames(scan: SimulatedScan) -> Iterator[NDArray[np.uint16]]:
    """Every raw frame of a scan, in order, one at a time."""
    return (raw_frame(scan, number) for number in range(scan.n_frames))


def _generator(seed: int, *key: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def _detector(
    options: Simulate, *, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.uint8], NDArray[np.float64]]:
    """Offset of every pixel [counts] (0 where dead), mask of bad pixels, and excess of hot pixels [counts]."""
    shape, gap = (options.rows, options.cols), options.gap
    pedestal = np.rint(np.maximum(options.dark + 0.05 * options.dark * rng.normal(size=shape), 0))
    n_bad = round(options.bad_fraction * pedestal.size)
    bad = rng.choice(pedestal.size, n_bad, replace=False)
    is_hot = rng.random(n_bad) < 0.5
    hot, mask = np.zeros(shape), np.zeros(shape, dtype=np.uint8)
    hot.flat[bad[is_hot]] = np.rint(np.exp(rng.uniform(np.log(300), np.log(40000), int(is_hot.sum()))))
    mask.flat[bad] = 1
    pedestal.flat[bad[~is_hot]] = 0
    between = slice((shape[1] - gap) // 2, (shape[1] - gap) // 2 + gap)
    mask[:, between], hot[:, between], pedestal[:, between] = 1, 0, 0
    return pedestal, mask, hot


def _halo(shape: tuple[int, int]) -> NDArray[np.float64]:
    """Diffuse scattering of all non-crystalline material (row, col): about 1, decreasing away from the beam."""
    return 0.6 + 0.8 * np.exp(-2.0 * (_radius(shape) / shape[1] - BEAM_OFFSET))


def _rings(
    shape: tuple[int, int], state_of_charge: float, coexistence: tuple[float, float], width: float
) -> NDArray[np.float64]:
    """Powder rings (row, col) of height 1, with the lever rule as in `phases`.

    They are as wide as the particles are spread: a narrower ring below a spot would draw its fitted centre along.
    """
    image, radius = np.zeros(shape), _radius(shape)
    (low, high), width = coexistence, max(width, 0.004) * shape[1]
    poor = float(np.clip((state_of_charge - low) / (high - low), 0, 1))
    for fraction, charge in ((1 - poor, min(state_of_charge, low)), (poor, max(state_of_charge, high))):
        for centre in ring_radius(np.array(REFLECTIONS), charge, geometry_of(shape)):
            image += fraction * np.exp(-0.5 * ((radius - centre) / width) ** 2)
    return image


def _radius(shape: tuple[int, int]) -> NDArray[np.float64]:
    rows, cols = np.ogrid[: shape[0], : shape[1]]
    geometry = geometry_of(shape)
    return np.hypot(rows - geometry.beam_row, cols - geometry.beam_col)
