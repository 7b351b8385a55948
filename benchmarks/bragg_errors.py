"""Are the standard errors of the peak fits true? Variance of the normalised residuals on simulated frames.

For each case, peaks of known centres are drawn on a grid, with Poisson noise and the noise of the case, and fitted at
their nearest pixels. A normalised residual is (fitted - true) / standard error of a coordinate; the variance of
correct errors is 1. Only good peaks count (flags of docs/bragg.md), whose share is printed too. Peaks have 50 to 2000
photons at their maximum, full widths of 1.5 to 4 px, Lorentzian fractions of .1 to .9 and a background of 5 photons.
"""

import argparse

import numpy as np

from cathodeflow.bragg.binning import bin_frame, bin_mask
from cathodeflow.bragg.corrections import extra_variance
from cathodeflow.bragg.flags import flag_peaks, is_good
from cathodeflow.bragg.peak_fits import fit_frame
from cathodeflow.bragg.peak_options import Fit
from cathodeflow.bragg.profiles import profile

CELL = 28


def scene(rng, n, *, height=(50, 2000), width=(1.5, 4.0), apart=None, integrated=False, cell=CELL, background=5.0):
    """Return the expected photons (row, col) and the peaks (n, 7) of a grid of cells with a peak or a pair each."""
    across = int(np.sqrt(n))
    mean = np.full((across * cell, across * cell), background)
    peaks = []
    shifts = (np.arange(5) - 2) / 5 if integrated else [0.0]
    for row in range(0, across * cell, cell):
        for col in range(0, across * cell, cell):
            centre = np.array([row, col]) + cell // 2 + rng.uniform(-0.5, 0.5, 2)
            level = np.exp(rng.uniform(*np.log(height)))
            places = [(centre, level)]
            if apart:
                turn = rng.uniform(0, 2 * np.pi)
                away = rng.uniform(*apart) * np.array([np.sin(turn), np.cos(turn)])
                places.append((centre + away, level * np.exp(rng.uniform(-0.7, 0.7))))
            grid = np.mgrid[row : row + cell, col : col + cell]
            for place, counts in places:
                peak = [*place, counts, 0, *rng.uniform(*width, 2), rng.uniform(0.1, 0.9)]
                window = sum(profile(peak, grid[0] + i, grid[1] + j) for i in shifts for j in shifts) / len(shifts) ** 2
                mean[row : row + cell, col : col + cell] += window
                peaks.append(peak)
    return mean, np.array(peaks)


def cases(rng, n):
    """Yield name, frame, peaks in its pixels, and the arguments of the fit."""
    mean, peaks = scene(rng, n)
    raw = rng.poisson(mean).astype(np.float32)
    yield "plain", raw, peaks, Fit(), {}
    for low, high in ((1.5, 4.0), (0.8, 1.5)):
        shaped, of = scene(rng, n, width=(low, high), integrated=True)
        counts = rng.poisson(shaped).astype(np.float32)
        yield f"integrated over pixels, width {low} to {high} px", counts, of, Fit(), {}
    for low, high in ((1.0, 2.0), (2.0, 3.0), (3.0, 4.0), (4.0, 5.5), (5.5, 8.0)):
        pair, of = scene(rng, n // 2, apart=(low, high))
        yield f"neighbours {low} to {high} px", rng.poisson(pair).astype(np.float32), of, Fit(), {}
    for gain in (0.1, 4.0, 10.0):
        yield f"gain {gain:g}", (gain * raw).astype(np.float32), peaks, Fit(gain=gain), {}
    for sigma in (1.0, 3.0, 10.0):
        noisy = (raw + rng.normal(0, sigma, raw.shape)).astype(np.float32)
        yield f"read noise {sigma:g}", noisy, peaks, Fit(read_noise=sigma), {}
    dark = np.full(raw.shape, 50.0)
    for frames in (1, 10):
        subtracted = rng.poisson(dark, (frames, *dark.shape)).mean(axis=0)
        counts = (rng.poisson(mean + dark) - subtracted).astype(np.float32)
        more = extra_variance(subtracted, frames, binning=1, read_noise=0, dark_gain=1)
        yield f"dark of 50, mean of {frames}", counts, peaks, Fit(), {"variance": more}
    wide, of = scene(rng, n // 4, width=(3.0, 7.0), cell=2 * CELL)
    of = of.copy()
    of[:, :2], of[:, 4:6] = (of[:, :2] + 0.5) / 2 - 0.5, of[:, 4:6] / 2
    counts = rng.poisson(wide + 20) - 20 + rng.normal(0, 2, wide.shape)
    more = extra_variance(np.full((1, 1), 80.0), 10**6, binning=2, read_noise=2, dark_gain=1)
    binned = bin_frame(counts.astype(np.float32), 2)
    yield "binning 2, read noise 2, dark 20", binned, of, Fit(read_noise=2), {"variance": np.full(binned.shape, more)}
    gaps = np.zeros(raw.shape, bool)
    gaps[CELL // 2 + 4 :: CELL] = True
    yield "masked gaps 4 px away", np.where(gaps, 0, raw), peaks, Fit(), {"mask": gaps}
    full, of = scene(rng, n, height=(2000, 20000))
    counts = np.minimum(rng.poisson(full), 4000).astype(np.float32)
    yield "saturated at 4000 (all fits)", counts, of, Fit(), {"saturated": counts >= 4000}
    hot = raw.copy()
    places = np.rint(peaks[:, :2]).astype(int)
    hot[places[:, 0] + 3, places[:, 1] - 2] = 3000
    yield "hot pixel of 3000 beside each", hot, peaks, Fit(), {}
    for cut in (10, 40):
        kept = np.where(raw < cut, 0, raw)
        strong = peaks[:, 2] > 4 * cut
        yield f"threshold {cut}, over 4 times as high", kept, peaks[strong], Fit(threshold=cut), {}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peaks", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--only", default="", help="Print only the cases whose names contain this.")
    arguments = parser.parse_args()
    print(f"{arguments.peaks} peaks a case, seed {arguments.seed}")
    print(f"{'':44} converged   good  median error [px]  variance  beyond 3")
    for name, frame, peaks, options, more in cases(np.random.default_rng(arguments.seed), arguments.peaks):
        if arguments.only not in name:
            continue
        rows, cols = np.rint(peaks[:, :2]).astype(int).T
        fits = fit_frame(frame, rows, cols, options, **more)
        mask = bin_mask(more["mask"], 1) if "mask" in more else np.zeros(frame.shape, bool)
        flags = flag_peaks(fits, rows, cols, options, mask=mask, saturated=more.get("saturated"))
        good = is_good(fits, flags)
        if "saturated" in more:
            full = flags["saturated"] & fits.converged
        used = full if "saturated" in more else good
        away = np.stack([fits.row - peaks[:, 0], fits.col - peaks[:, 1]])[:, used]
        z = away / np.stack([fits.row_err, fits.col_err])[:, used]
        if not used.any():
            print(f"{name:44} {fits.converged.mean():9.3f} {good.mean():6.3f}")
            continue
        print(
            f"{name:44} {fits.converged.mean():9.3f} {good.mean():6.3f} {np.median(np.hypot(*away)):18.4f} "
            f"{z.var():9.2f} {np.mean(np.abs(z) > 3):9.4f}"
        )


if __name__ == "__main__":
    main()
