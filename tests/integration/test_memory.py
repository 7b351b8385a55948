"""A network is trained from frames that do not fit into the memory that the process may use."""

import resource
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np

from cathodeflow.bragg.profiles import profile
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.io.peaks import write_peaks

LIMIT = 1500 * 2**20
SIZE, FRAMES, PEAKS = 1024, 2000, 2


def limited(arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run Python with no more than LIMIT bytes of private memory."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT)),
    )


def test_training_from_frames_larger_than_the_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.poisson(6, (4, SIZE, SIZE)).astype(np.float32)
    centres = rng.uniform(30, SIZE - 30, (FRAMES, PEAKS, 2))
    rows, cols = np.mgrid[-10:11, -10:11]

    def frames():
        for number in range(FRAMES):
            frame = noise[number % len(noise)].copy()
            for row, col in centres[number]:
                top, left = int(row) - 10, int(col) - 10
                spot = profile([row - top - 10, col - left - 10, 500, 0, 2.5, 2.5, 0.3], rows, cols)
                frame[top : top + 21, left : left + 21] += rng.poisson(spot)
            yield number, frame

    write_frames(tmp_path / "frames.h5", frames(), shape=(SIZE, SIZE))
    n = FRAMES * PEAKS
    write_peaks(
        tmp_path / "peaks.h5",
        np.repeat(np.arange(FRAMES), PEAKS),
        centres[..., 0].ravel(),
        centres[..., 1].ravel(),
        np.zeros(n),
        np.ones(n),
    )
    # The file itself is larger than the limit, and its frames five times as large.
    assert (tmp_path / "frames.h5").stat().st_size > LIMIT
    with h5py.File(tmp_path / "frames.h5") as file:
        assert file["frames"].nbytes > 5 * LIMIT
    whole = limited(["-c", "import h5py, hdf5plugin; h5py.File('frames.h5')['frames'][:]"], tmp_path)
    assert whole.returncode != 0 and "MemoryError" in whole.stderr, "the limit does not bite"

    run = ["-m", "cathodeflow", "--threads", "2", "bragg"]
    made = limited(
        [*run, "patches", "frames.h5", "peaks.h5", *["--sample", "a", "--out", "p.h5", "--record", "p.json"]], tmp_path
    )
    assert made.returncode == 0, made.stderr
    arguments = ["--out", "m.pt", "--record", "t.json", "--epochs", "3", "--device", "cpu", "--threads", "2"]
    trained = limited([*run, "train", "p.h5", *arguments], tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "m.pt").is_file()
