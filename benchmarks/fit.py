"""Peak fits: Cathodeflow's Poisson maximum likelihood against scipy.optimize.curve_fit, same model, same patches.

curve_fit (least squares, MINPACK) gets the analytic start that a person would give it: brightest pixel, its height over
the median, width 2.5 px. It runs once as it mostly is, without weights and with numerical derivatives, and once as well
as it can be: with the analytic Jacobian and the weights 1 / counts. Rates are those of processor time on one thread,
the best of several rounds in which all take turns. The centre errors are radial medians over the peaks that curve_fit
fits too; the bound is the median of errors that scatter by the Cramer-Rao covariance of each.
"""

import argparse
import time
from collections.abc import Callable

import numba
import numpy as np
from scipy.optimize import curve_fit

from cathodeflow.bragg.peak_fits import fit_peaks
from cathodeflow.bragg.peak_options import Fit
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


def slopes(parameters: np.ndarray, rows: np.ndarray, cols: np.ndarray) -> np.ndarray:
    """Compute the derivatives (pixels, 7) of the pseudo-Voigt by its parameters."""
    row, col, amplitude, _, width_row, width_col, mixing = parameters
    u, v = (rows - row) / width_row, (cols - col) / width_col
    q = 4 * (u * u + v * v)
    lorentz, gauss = 1 / (1 + q), np.exp2(-q)
    slope = 8 * amplitude * (mixing * lorentz**2 + (1 - mixing) * np.log(2) * gauss)
    by_row, by_col = slope * u / width_row, slope * v / width_col
    shape = mixing * lorentz + (1 - mixing) * gauss
    return np.stack(
        [by_row, by_col, shape, np.ones_like(q), by_row * u, by_col * v, amplitude * (lorentz - gauss)], axis=1
    )


def fit_scipy(patches: np.ndarray, *, best: bool) -> np.ndarray:
    """Fit centres (n, 2) by curve_fit, `best` with Jacobian and weights; NaN where it gives up."""
    size = patches.shape[1]
    grid = np.mgrid[:size, :size].reshape(2, -1)

    def model(points: np.ndarray, *parameters: float) -> np.ndarray:
        return profile(parameters, *points)

    def jacobian(points: np.ndarray, *parameters: float) -> np.ndarray:
        return slopes(np.array(parameters), *points)

    centres = np.full((len(patches), 2), np.nan)
    for i, patch in enumerate(patches.astype(np.float64)):
        row, col = np.unravel_index(patch.argmax(), patch.shape)
        floor = np.median(patch)
        start = [row, col, patch.max() - floor, floor, 2.5, 2.5, 0.5]
        more = {"jac": jacobian, "sigma": np.sqrt(np.maximum(patch.ravel(), 1))} if best else {}
        try:
            centres[i] = curve_fit(model, grid, patch.ravel(), start, **more)[0][:2]
        except RuntimeError:
            continue
    return centres


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patches", type=int, default=20_000)
    parser.add_argument("--scipy-patches", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, default=11)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    peaks, patches = simulated(arguments.patches, arguments.size, arguments.seed)
    few = patches[: arguments.scipy_patches]
    numba.set_num_threads(1)
    fit_peaks(patches[:10], Fit())

    runs: dict[str, tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]] = {
        "curve_fit, as it is": (few, lambda given: fit_scipy(given, best=False)),
        "curve_fit, Jacobian and weights": (few, lambda given: fit_scipy(given, best=True)),
        "cathodeflow": (patches, lambda given: np.stack([(found := fit_peaks(given, Fit())).row, found.col], axis=1)),
    }
    taken, centres = dict.fromkeys(runs, np.inf), {}
    for _ in range(arguments.rounds):
        for name, (given, run) in runs.items():
            start = time.process_time()
            centres[name] = run(given)
            taken[name] = min(taken[name], (time.process_time() - start) / len(given))
    print(
        f"{arguments.patches} patches {arguments.size}x{arguments.size} ({len(few)} for curve_fit), pseudo-Voigt, "
        f"seed {arguments.seed}; one thread, processor time, numba {numba.__version__}"
    )
    print(f"{'':32} patches/s  ratio  converged  median error [px]")
    for name in runs:
        error = np.hypot(*(centres[name][: len(few)] - peaks[: len(few), :2]).T)
        ratio = taken["curve_fit, Jacobian and weights"] / taken[name]
        done = np.isfinite(error).mean()
        print(f"{name:32} {1 / taken[name]:9.0f} {ratio:6.1f}  {done:9.4f}  {np.nanmedian(error):.4f}")
    limit = bound(peaks[: len(few)], arguments.size, arguments.seed)
    print(f"{'Cramer-Rao bound':32} {'':9} {'':6}  {'':9}  {limit:.4f}")


if __name__ == "__main__":
    main()
