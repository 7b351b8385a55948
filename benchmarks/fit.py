"""Peak fits: Cathodeflow's Poisson maximum likelihood against scipy.optimize.curve_fit, same model, same patches.

curve_fit (least squares, MINPACK) gets the analytic start that a person would give it: brightest pixel, its height over
the median, width 2.5 px. It runs unweighted, as it mostly is, on one core, since it is not parallel. The centre errors
are radial medians; the bound is the median of errors that scatter by the Cramer-Rao covariance of each peak.
"""

import argparse
import os
import time

import numba
import numpy as np
from scipy.optimize import curve_fit

from cathodeflow.bragg.options import Fit
from cathodeflow.bragg.peak_fits import fit_peaks
from cathodeflow.bragg.profiles import profile


def simulated(n: int, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Peaks (n, 7) and Poisson patches (n, size, size): 50 to 2000 counts, FWHM 1.5 to 4 px, background 0.5 to 20."""
    rng = np.random.default_rng(seed)
    peaks = np.stack(
        [
            *rng.uniform(size // 2 - 1, size // 2 + 1, (2, n)),
            np.exp(rng.uniform(np.log(50), np.log(2000), n)),
            rng.uniform(0.5, 20, n),
            *rng.uniform(1.5, 4, (2, n)),
            rng.uniform(0.1, 0.9, n),
        ],
        axis=1,
    )
    return peaks, rng.poisson(profile(peaks[:, None, None], *np.mgrid[:size, :size])).astype(np.float32)


def bound(peaks: np.ndarray, size: int, seed: int) -> float:
    """Median radial error at the Cramer-Rao bound [px]."""
    grid = np.mgrid[:size, :size]
    steps = 1e-5 * np.eye(7)
    slopes = [
        (profile((peaks + step)[:, None, None], *grid) - profile((peaks - step)[:, None, None], *grid)) / 2e-5
        for step in steps
    ]
    slopes = np.stack(slopes, axis=1).reshape(len(peaks), 7, -1)
    expected = profile(peaks[:, None, None], *grid).reshape(len(peaks), 1, -1)
    covariance = np.linalg.inv(slopes / expected @ slopes.transpose(0, 2, 1))[:, :2, :2]
    scatter = np.linalg.cholesky(covariance) @ np.random.default_rng(seed).normal(size=(len(peaks), 2, 64))
    return float(np.median(np.hypot(scatter[:, 0], scatter[:, 1])))


def fit_scipy(patches: np.ndarray) -> np.ndarray:
    """Fit centres (n, 2) by curve_fit; NaN where it gives up."""
    size = patches.shape[1]
    grid = np.mgrid[:size, :size].reshape(2, -1)

    def model(points: np.ndarray, *parameters: float) -> np.ndarray:
        return profile(parameters, *points)

    centres = np.full((len(patches), 2), np.nan)
    for i, patch in enumerate(patches.astype(np.float64)):
        row, col = np.unravel_index(patch.argmax(), patch.shape)
        floor = np.median(patch)
        start = [row, col, patch.max() - floor, floor, 2.5, 2.5, 0.5]
        try:
            centres[i] = curve_fit(model, grid, patch.ravel(), start)[0][:2]
        except RuntimeError:
            continue
    return centres


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=100_000)
    parser.add_argument("--scipy-patches", type=int, default=2000)
    parser.add_argument("--size", type=int, default=11)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    peaks, patches = simulated(arguments.patches, arguments.size, arguments.seed)
    few = min(arguments.scipy_patches, arguments.patches)
    fit_peaks(patches[:10], Fit())

    start = time.perf_counter()
    centres = fit_scipy(patches[:few])
    peer = few / (time.perf_counter() - start)
    print(
        f"{arguments.patches} patches {arguments.size}x{arguments.size}, pseudo-Voigt, seed {arguments.seed}; "
        f"{os.cpu_count()} cores, numba {numba.__version__}"
    )
    print(f"{'':28} patches/s  ratio  converged  median error [px]")
    error = np.hypot(*(centres - peaks[:few, :2]).T)
    done = np.isfinite(error).mean()
    print(f"{'scipy curve_fit, 1 core':28} {peer:9.0f} {1:6.0f}  {done:9.4f}  {np.nanmedian(error):.4f}")
    for threads in sorted({1, numba.config.NUMBA_NUM_THREADS}):
        numba.set_num_threads(threads)
        rates = []
        for _ in range(3):
            start = time.perf_counter()
            fits = fit_peaks(patches, Fit())
            rates.append(len(patches) / (time.perf_counter() - start))
        error = np.hypot(fits.row - peaks[:, 0], fits.col - peaks[:, 1])
        name = f"cathodeflow, {threads} thread{'s' * (threads > 1)}"
        rate = max(rates)
        print(f"{name:28} {rate:9.0f} {rate / peer:6.0f}  {fits.converged.mean():9.4f}  {np.median(error):.4f}")
    limit = bound(peaks[:20_000], arguments.size, arguments.seed)
    print(f"{'Cramer-Rao bound':28} {'':9} {'':6}  {'':9}  {limit:.4f}")


if __name__ == "__main__":
    main()
