"""Peak memory of the Bragg stages for 200 and for 2000 frames of 1024 x 1024 pixels: it must not grow with the scan.

Each measurement is a process of its own. The peer loads all frames into one array, as BraggNN's own loader does; it is
measured at the smaller size only. Raw files are made in a temporary folder that is removed (about 1 GB).

    python benchmarks/frames_memory.py [--frames 200 2000]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SIDE = 1024
SEED = 5
DISTINCT = 20
LIMIT_MB = 100


def make_raw(folder, n_frames):
    """Make a folder of TIFF files and an HDF5 series; frames repeat after 20, and files are links, to be quick."""
    import h5py
    import hdf5plugin
    import numpy as np
    import tifffile

    rng = np.random.default_rng(SEED)
    frames = rng.poisson(0.2, (DISTINCT, SIDE, SIDE)).astype(np.uint16)
    for frame in frames:
        frame[rng.integers(0, SIDE, 100), rng.integers(0, SIDE, 100)] = 3000
    os.mkdir(f"{folder}/tiff")
    for i in range(n_frames):
        if i < DISTINCT:
            tifffile.imwrite(f"{folder}/tiff/frame_{i}.tif", frames[i])
        else:
            os.link(f"{folder}/tiff/frame_{i % DISTINCT}.tif", f"{folder}/tiff/frame_{i}.tif")
    with h5py.File(f"{folder}/series.h5", "w") as file:
        filters = hdf5plugin.Bitshuffle(cname="lz4")
        data = file.create_dataset(
            "entry/data/data", (n_frames, SIDE, SIDE), np.uint16, chunks=(1, SIDE, SIDE), **filters
        )
        for i in range(n_frames):
            data[i] = frames[i % DISTINCT]


def command(*arguments):
    """Run a stage's command in this process."""
    from cathodeflow.cli import cli

    cli(["bragg", *arguments, "--sample", "x", "--record", "record.json"], standalone_mode=False)


def frames_stage(source, out):
    """Correct raw frames, bin them 2x2 and write frames.h5."""
    command("frames", source, "--binning", "2", "--out", out)


def find_peaks_stage(source, out):
    """Find the peaks on frames.h5."""
    command("find-peaks", out, "--min-value", "1000", "--out", "candidates.parquet")


def all_in_memory(source, out):
    """Load the whole series into one float32 array (the peer)."""
    import numpy as np

    from cathodeflow.io.frames import open_series, read_frames

    series = open_series(source)
    frames = np.empty((series.n_frames, *series.shape), np.float32)
    for i, frame in read_frames(series):
        frames[i] = frame


STAGES = {"frames": frames_stage, "find-peaks": find_peaks_stage, "peer: all in memory": all_in_memory}


def measure(stage, source, out):
    """Return peak memory [MB] and time [s] of a stage in a process of its own."""
    begin = time.perf_counter()
    call = [sys.executable, os.path.abspath(__file__), "--child", stage, source, out]
    peak = subprocess.run(call, cwd=Path(out).parent, check=True, capture_output=True, text=True).stdout
    return float(peak), time.perf_counter() - begin


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, nargs=2, default=(200, 2000), metavar=("FEW", "MANY"))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--make", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.make:
        return make_raw(arguments.make[0], int(arguments.make[1]))
    if arguments.child:
        stage, source, out = arguments.child
        STAGES[stage](source, out)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return None
    few, many = arguments.frames
    peaks = {}
    for n_frames in (few, many):
        with tempfile.TemporaryDirectory() as folder:
            # This process stays small: on Linux a child's peak begins at its parent's size.
            subprocess.run([sys.executable, __file__, "--make", folder, str(n_frames)], check=True)
            for kind, source in (("TIFF", f"{folder}/tiff"), ("HDF5", f"{folder}/series.h5")):
                for stage in STAGES:
                    if n_frames == few or not stage.startswith("peer"):
                        peaks[kind, stage, n_frames] = measure(stage, source, f"{folder}/frames.h5")
    print(f"{SIDE} x {SIDE} uint16, seed {SEED}, {os.cpu_count()} cores; peak memory of a process [MB], time [s]")
    print(f"{'raw':6}{'stage':22}{few:>9}{many:>9}{'growth':>9}{'peer/stage':>12}{f's/{many}':>9}")
    grown = []
    for kind, stage, n_frames in peaks:
        if n_frames == many:
            (low, _), (high, seconds) = peaks[kind, stage, few], peaks[kind, stage, many]
            ratio = peaks[kind, "peer: all in memory", few][0] / low
            print(f"{kind:6}{stage:22}{low:9.0f}{high:9.0f}{high - low:9.1f}{ratio:12.1f}{seconds:9.1f}")
            grown += [stage] if high - low >= LIMIT_MB else []
    for kind in ("TIFF", "HDF5"):
        print(f"{kind:6}{'peer: all in memory':22}{peaks[kind, 'peer: all in memory', few][0]:9.0f}")
    print(f"growth below {LIMIT_MB} MB: {'no: ' + ', '.join(grown) if grown else 'yes'}")
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
