"""How far is `cathodeflow bragg watch` behind the detector? Frames of the demo, dropped at a constant rate.

Another process writes the frames of a simulated scan into a folder, each in two halves, or into an HDF5 file that is
open for SWMR; the lag of a frame is the time from the end of writing (time of change of the file) until its peaks are
on the disk. `--rate 1` is the demo's scan at one frame a second; `--rows 2048 --cols 2048` are frames of an Eiger 4M.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pandas as pd
import tifffile

from cathodeflow import bragg
from cathodeflow.bragg.peak_options import Simulate


def drop(frames, target, rate):
    """Write frames at a rate [1/s], to a folder of TIFF files or to an HDF5 file (SWMR)."""
    begun = time.monotonic()

    def in_time():
        for number, frame in enumerate(frames):
            time.sleep(max(0.0, begun + number / rate - time.monotonic()))
            yield number, frame

    if target.suffix != ".h5":
        target.mkdir()
        for number, frame in in_time():
            tifffile.imwrite(target / ".part", frame)
            whole = (target / ".part").read_bytes()
            with open(target / f"frame_{number:05d}.tif", "wb") as file:
                for half in (whole[: len(whole) // 2], whole[len(whole) // 2 :]):
                    file.write(half)
                    file.flush()
        return
    shape = frames[0].shape
    with h5py.File(target, "w", libver="latest") as file:
        packed = hdf5plugin.Bitshuffle(cname="lz4")
        size = {"shape": (0, *shape), "maxshape": (None, *shape), "chunks": (1, *shape)}
        data = file.create_dataset("entry/data/data", dtype=frames[0].dtype, **size, **packed)
        file.swmr_mode = True
        for number, frame in in_time():
            data.resize(number + 1, axis=0)
            data[number] = frame
            data.flush()


def main():
    """Print the lag of every way of writing."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1.0, help="frames per second")
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--cols", type=int, default=256)
    parser.add_argument("--peaks", type=int, default=800)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--drop", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.drop:
        files = sorted(Path(given.drop[0]).glob("frame_*.tif"))
        drop([tifffile.imread(path) for path in files], Path(given.drop[1]), given.rate)
        return
    with tempfile.TemporaryDirectory() as folder:
        simulated = Path(folder) / "simulated"
        size = {"rows": given.rows, "cols": given.cols, "n_frames": given.frames, "n_peaks": given.peaks, "seed": 0}
        bragg.simulate(simulated, state_of_charge=0.2, options=Simulate(**size))
        corrections = ["--dark", str(simulated / "dark.tif"), "--mask", str(simulated / "mask.tif")]
        print(
            f"{given.frames} frames of {given.rows} x {given.cols} at {given.rate:g} a second, {given.threads} threads"
        )
        for target in (Path(folder) / "raw", Path(folder) / "raw.h5"):
            out = Path(folder) / f"out_{target.name}"
            command = [sys.executable, "-m", "cathodeflow", "--threads", str(given.threads), "bragg", "watch"]
            command += [str(target), "--out", str(out), "--expected", str(given.frames), "--port", "0", *corrections]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as watcher:
                # As at a beamline, the command is there before the scan.
                while "waiting for the first frame" not in watcher.stderr.readline():
                    pass
                writer = [sys.executable, __file__, "--drop", str(simulated), str(target), "--rate", str(given.rate)]
                subprocess.run(writer, check=True)
                print(watcher.stderr.read().strip().splitlines()[-1])
            lag = pd.read_csv(out / "frames.csv")["lag"].to_numpy()
            peaks = int(pd.read_csv(out / "frames.csv")["peaks"].sum())
            kind = "HDF5 (SWMR)" if target.suffix else "TIFF files"
            print(f"{kind}: lag {np.median(lag):.2f} s in the median, at most {lag.max():.2f} s; {peaks} peaks")


if __name__ == "__main__":
    main()
