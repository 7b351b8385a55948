"""Peak finding on one frame: Cathodeflow's union-find against the package findpeaks (method 'topology'), on one core.

findpeaks runs in its fastest setting (no scaling, no denoising, peaks alone) on the counts above the threshold, with a
`limit` of half a count, so that it treats the same pixels and keeps every pair. It gives the highest peak and those
that merge into a higher one above the threshold; the latter's pairs must be equal in the same run.
"""

import argparse
import logging
import os
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from findpeaks import findpeaks, stats

from cathodeflow.bragg.peak_options import FindPeaks
from cathodeflow.bragg.peak_search import candidates, persistence_peaks


def detector_frame(size: int, seed: int, *, background: float = 5.0, n_peaks: int = 300) -> np.ndarray:
    """Poisson counts of Gaussian spots on a flat background: (size, size) float32."""
    rng = np.random.default_rng(seed)
    mean = np.full((size, size), background)
    rows, cols = np.mgrid[-8:9, -8:9]
    for row, col, height in zip(*rng.uniform(9, size - 9, (2, n_peaks)), rng.lognormal(4.5, 1, n_peaks), strict=True):
        r, c, width = int(row), int(col), rng.uniform(1, 2)
        mean[r - 8 : r + 9, c - 8 : c + 9] += height * np.exp(
            -((rows + r - row) ** 2 + (cols + c - col) ** 2) / 2 / width**2
        )
    return rng.poisson(mean).astype(np.float32)


def best_time(function: Callable[[], Any], repeats: int) -> float:
    """Shortest of several runs [s]."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[512, 2048])
    parser.add_argument("--threshold", type=float, default=15.0)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    threshold = arguments.threshold
    finder = findpeaks(
        method="topology", whitelist="peak", limit=0.5, scale=False, togray=False, denoise=None, verbose="silent"
    )
    logging.getLogger("findpeaks").setLevel(logging.CRITICAL)
    print(f"one core of {os.cpu_count()}, seed {arguments.seed}, threshold {threshold:g}, 300 peaks, background 5")
    print(" size bright px    findpeaks  union_find  ratio  candidates equal pairs")
    for size in arguments.sizes:
        frame = detector_frame(size, arguments.seed)
        peaks = persistence_peaks(frame, threshold=threshold, min_persistence=0)
        options = FindPeaks(min_value=threshold, min_persistence=10, min_area=3)
        candidates(frame, options)
        ours = best_time(lambda: persistence_peaks(frame, threshold=threshold, min_persistence=0), 30)  # noqa: B023
        stage = best_time(lambda: candidates(frame, options), 30)  # noqa: B023
        table = finder.fit(frame - threshold)["persistence"]
        theirs = best_time(lambda: stats.topology(np.maximum(frame - threshold, 0), limit=0.5), 1 if size > 1024 else 3)  # noqa: B023

        merged = peaks[peaks["death"] > threshold]
        expected = sorted(zip(merged["birth"] - threshold, merged["death"] - threshold, strict=True))
        table = table[table.death_level > 0]
        found = sorted(
            zip(table.birth_level.round(6), table.death_level.round(6), strict=True)
        )  # less the tie-breakers
        if found != expected:
            raise SystemExit(f"size {size}: found {len(found)} pairs that differ, expected {len(expected)}")
        times = f"{theirs * 1e3:>9.1f} ms {ours * 1e3:>8.2f} ms {theirs / ours:>6.0f} {stage * 1e3:>8.2f} ms"
        print(f"{size:>5} {(frame > threshold).sum():>9} {times} {len(found):>11}")


if __name__ == "__main__":
    main()
