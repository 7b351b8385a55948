"""A whole scan from compressed raw frames to fitted peaks: `bragg measure` against `frames`, `find-peaks` and `fit`.

1440 frames of 2048 x 2048 uint16 (bitshuffle, lz4; Poisson background of 2 counts) with 77,000 Gaussian peaks of 60 to
3000 counts, in a temporary folder (some 2.5 GB). 36 frames are simulated and follow each other, so that the file is
made quickly; each is read, decompressed and measured as often as it occurs. The three commands run on a tenth of the
scan, and their times, without those of their start, are multiplied. Each command is a process of its own, as on the
command line; caches of numba are filled before. On a machine that does other work at the same time, processor time
(user and system) says more than wall time: both are given. The last table is of one thread: what a frame costs in each
step, and which step bounds the whole.

    python benchmarks/bragg_measure.py [--frames 1440]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDE, DISTINCT, SEED = 2048, 36, 0
PEAKS_PER_FRAME = 77_000 / 1440
BACKGROUND = 2.0


def make_raw(path, n_frames):
    """Write the raw frames; chunks after the first 36 are copies."""
    import h5py
    import hdf5plugin
    import numpy as np

    rng = np.random.default_rng(SEED)
    reach = np.arange(-8, 9)

    def frame():
        mean = np.full((SIDE, SIDE), BACKGROUND)
        n = int(PEAKS_PER_FRAME + rng.random())
        centres, widths = rng.uniform(9, SIDE - 9, (n, 2)), rng.uniform(0.7, 1.4, (n, 2))
        for (row, col), (high, wide), height in zip(
            centres, widths, np.exp(rng.uniform(np.log(60), np.log(3000), n)), strict=True
        ):
            r, c = round(row) + reach, round(col) + reach
            mean[np.ix_(r, c)] += height * np.outer(
                np.exp(-((r - row) ** 2) / 2 / high**2), np.exp(-((c - col) ** 2) / 2 / wide**2)
            )
        return rng.poisson(mean).astype(np.uint16)

    with h5py.File(path, "w") as file:
        filters = hdf5plugin.Bitshuffle(cname="lz4")
        data = file.create_dataset(
            "entry/data/data", (n_frames, SIDE, SIDE), np.uint16, chunks=(1, SIDE, SIDE), **filters
        )
        for i in range(min(DISTINCT, n_frames)):
            data[i] = frame()
        chunks = [data.id.read_direct_chunk((i, 0, 0)) for i in range(min(DISTINCT, n_frames))]
        for i in range(DISTINCT, n_frames):
            mask, chunk = chunks[i % DISTINCT]
            data.id.write_direct_chunk((i, 0, 0), chunk, mask)


def run(threads, *arguments):
    """Run a command of the Bragg stages; return wall and processor time [s]."""
    line = [sys.executable, "-m", "cathodeflow", "--threads", str(threads), "bragg", *arguments]
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(line, check=True, capture_output=True)
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def steps(source, n_frames):
    """Return the processor time of a frame in each step of `bragg measure`, on one thread [ms]."""
    import numpy as np

    from cathodeflow.bragg.fitted_peaks import FittedPeaks
    from cathodeflow.bragg.peak_options import Measure
    from cathodeflow.bragg.peak_search import candidates
    from cathodeflow.bragg.prepared_frames import prepared_frame
    from cathodeflow.bragg.raw_scan import open_scan
    from cathodeflow.io.frames import lazy_frames
    from cathodeflow.io.frames_writer import storable

    options = Measure()
    scan, fitted, spent = open_scan(source, options.frames), FittedPeaks(options.fit), {}
    none = np.zeros(scan.mask.shape, bool)

    def timed(step, function, *arguments, **keywords):
        begin = time.thread_time()
        result = function(*arguments, **keywords)
        spent.setdefault(step, []).append(1e3 * (time.thread_time() - begin))
        return result

    for frame in lazy_frames(scan.series, 0, 2):  # loads what was compiled
        counts = storable(prepared_frame(0, frame.load(), scan.correction), scan.mask, scan.saturation).pixels
        found = candidates(counts, options.find_peaks, mask=scan.mask)
        at = found["row"], found["col"]
        FittedPeaks(options.fit).add(counts, *at, mask=none, saturated=none, variance=np.zeros(()))
    frames = lazy_frames(scan.series, 0, n_frames)
    while (frame := timed("read", next, frames, None)) is not None:
        raw = timed("decompress", frame.load)
        counts = timed("correct", prepared_frame, frame.number, raw, scan.correction)
        stored = timed("correct", storable, counts, scan.mask, scan.saturation)
        found = timed("search", candidates, stored.pixels, options.find_peaks, mask=scan.mask)
        at = found["row"], found["col"]
        timed("fit", fitted.add, stored.pixels, *at, mask=scan.mask, saturated=none, variance=np.zeros(()))
    return {step: sum(times) / n_frames for step, times in spent.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1440)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        return make_raw(arguments.make[0], int(arguments.make[1]))
    n_frames, threads = arguments.frames, arguments.threads
    os.environ.update({f"{name}_NUM_THREADS": "1" for name in ("OMP", "NUMBA", "OPENBLAS", "MKL")})
    with tempfile.TemporaryDirectory() as folder:
        raw, few = f"{folder}/raw.h5", max(1, n_frames // 10)
        subprocess.run([sys.executable, __file__, "--make", raw, str(n_frames)], check=True)
        stages = {
            "frames": ("frames", raw, "--out", f"{folder}/frames.h5"),
            "find-peaks": ("find-peaks", f"{folder}/frames.h5", "--out", f"{folder}/candidates.parquet"),
            "fit": ("fit", f"{folder}/frames.h5", f"{folder}/candidates.parquet", "--out", f"{folder}/peaks.h5"),
        }
        measure = ("measure", raw, "--out", f"{folder}/measured.h5")
        # One frame alone: what the start of each command takes, with the caches filled.
        starts = {}
        for _ in range(2):
            for name, line in stages.items():
                starts[name] = run(threads, *line, *(("--stop", "1") if name == "frames" else ()))
            starts["measure"] = run(threads, *measure, "--frames-stop", "1")
        load = os.getloadavg()[0]
        whole = run(threads, *measure)
        chain = {
            name: run(threads, *line, *(("--stop", str(few)) if name == "frames" else ()))
            for name, line in stages.items()
        }
        same = run(threads, *measure, "--frames-stop", str(few)) and (
            Path(f"{folder}/measured.h5").read_bytes() == Path(f"{folder}/peaks.h5").read_bytes()
        )
        size = {name: Path(f"{folder}/{name}.h5").stat().st_size / 2**20 for name in ("raw", "frames")}
        per_frame = steps(raw, min(few, 100))
    print(
        f"{n_frames} frames of {SIDE} x {SIDE} uint16, {n_frames * PEAKS_PER_FRAME:.0f} peaks, seed {SEED};"
        f" {threads} threads on {os.cpu_count()} cores; load of the machine before the run {load:.1f}"
    )
    print(f"{'command':40}{'wall [s]':>10}{'processor [s]':>15}")
    print(f"{f'measure, {n_frames} frames':40}{whole[0]:10.1f}{whole[1]:15.1f}")
    total = [0.0, 0.0]
    for name, spent in chain.items():
        scaled = [n_frames / few * (taken - start) + start for taken, start in zip(spent, starts[name], strict=True)]
        total = [one + other for one, other in zip(total, scaled, strict=True)]
        print(f"{f'{name}, scaled from {few} frames':40}{scaled[0]:10.1f}{scaled[1]:15.1f}")
    print(f"{'the three, one after the other':40}{total[0]:10.1f}{total[1]:15.1f}")
    print(f"{'ratio':40}{total[0] / whole[0]:10.1f}{total[1] / whole[1]:15.1f}")
    print(f"start of measure (1 frame): {starts['measure'][0]:.1f} s, {starts['measure'][1]:.1f} s of processor time")
    print(
        f"frames a second: {n_frames / whole[0]:.0f}; peaks.h5 of {few} frames equal to the byte:"
        f" {'yes' if same else 'no'}"
    )
    print(f"raw {size['raw'] * few / n_frames:.0f} MB, frames.h5 {size['frames']:.0f} MB for {few} frames")
    print("processor time of a frame: " + ", ".join(f"{step} {spent:.2f} ms" for step, spent in per_frame.items()))
    shared = sum(spent for step, spent in per_frame.items() if step not in ("read", "fit"))
    bounds = {
        "all steps on all threads": sum(per_frame.values()) / threads,
        "the fits, on one thread": per_frame["fit"],
        "reading, on one thread": per_frame["read"],
    }
    bound = max(bounds, key=bounds.get)
    slowest = max(per_frame, key=per_frame.get)
    print(
        f"bound by {bound}: {bounds[bound]:.2f} ms a frame, {n_frames * bounds[bound] / 1e3:.1f} s; the largest step is"
        f" {slowest} ({100 * per_frame[slowest] / sum(per_frame.values()):.0f} %), and decompression, correction and"
        f" search together {100 * shared / sum(per_frame.values()):.0f} %"
    )
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(main())
