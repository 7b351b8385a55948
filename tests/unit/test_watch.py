"""Scans that are measured while another process writes them: nothing is lost, repeated or measured too early."""

import gc
import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pandas as pd
import pytest
import tifffile

from cathodeflow import bragg
from cathodeflow.bragg.peak_options import FindPeaks, Fit, Frames, Watch
from cathodeflow.bragg.rings import find_rings, join_spots, ring_mean, ring_strain
from cathodeflow.errors import InputError
from cathodeflow.io.growing import GrowingSeries, frame_places
from cathodeflow.io.peaks import read_peaks

SHAPE = (96, 80)
GONE = np.iinfo(np.uint16).max


def raw_frames(count, seed=0, shape=SHAPE):
    """Frames of a few peaks on a background of 20, with a gap, a hot pixel that is not always hot, and saturation."""
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[: shape[0], : shape[1]]
    frames = np.full((count, *shape), 20.0)
    for _ in range(3 * count):
        at, height = rng.uniform([0, 0, 0], [count, *shape]), np.exp(rng.uniform(4, 7))
        for number in range(max(0, int(at[0]) - 1), min(count, int(at[0]) + 2)):
            fall = np.exp(-((number - at[0]) ** 2)) * height
            frames[number] += fall * np.exp(-((row - at[1]) ** 2 + (col - at[2]) ** 2) / 5)
    frames = rng.poisson(np.concatenate([frames, frames[:1], frames[:1], frames[:1]])).astype(np.uint16)
    frames[:, :, 40:43] = GONE
    frames[[0, 1, 3], 5, 5] = GONE
    frames[0, 30:32, 20:22] = GONE  # a saturated peak of the first frame alone
    return frames[:count]


def batch(source, folder, frames=None):
    """Bytes of the peaks.h5 of the three stages."""
    bragg.frames(source, out=folder / "frames.h5", options=frames or Frames())
    bragg.find_peaks(folder / "frames.h5", out=folder / "candidates.parquet", options=FindPeaks())
    bragg.fit(folder / "frames.h5", folder / "candidates.parquet", out=folder / "peaks.h5", options=Fit())
    return (folder / "peaks.h5").read_bytes()


def start(*words, stderr=subprocess.PIPE):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *map(str, words)], stderr=stderr, text=True, env=environment,
        # As in a terminal, also where these tests run in the background, which ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def cathodeflow_watch(source, out, *flags):
    return start("-m", "cathodeflow", "bragg", "watch", source, "--out", out, *flags)


def until(condition, seconds=240):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.02)
    return found


def measured(out):
    return len(list(Path(out).glob("parts/part_*.h5")))


DROP = """
import os, sys, time
import numpy, tifffile
frames, folder = numpy.load(sys.argv[1]), sys.argv[2]
os.makedirs(folder)
order = list(range(len(frames)))
order[5], order[9] = order[9], order[5]
for count, number in enumerate(order):
    name = os.path.join(folder, f"frame_{number}.tif")  # frame_2 comes before frame_10
    if count % 3 == 0:
        tifffile.imwrite(folder + "/.part", frames[number])
        os.rename(folder + "/.part", name)
    else:
        tifffile.imwrite(folder + "/.part", frames[number])
        whole = open(folder + "/.part", "rb").read()
        with open(name, "wb") as file:
            for part in whole[: len(whole) // 2], whole[len(whole) // 2 :]:
                file.write(part)
                file.flush()
                time.sleep(0.02)
    time.sleep(0.05)
    while count == 11 and not os.path.exists(folder + "/.killed"):
        time.sleep(0.02)
"""


def test_killed_and_started_again_the_peaks_are_those_of_the_finished_scan(tmp_path):
    """Files come ten a second, out of order, some half written; the page shows the scan meanwhile."""
    frames = raw_frames(20)
    np.save(tmp_path / "frames.npy", frames)
    raw, out = tmp_path / "raw", tmp_path / "out"
    writer = None
    flags = ("--interval", "0.2", "--expected", "20", "--find-peaks-min-value", "30")
    first = cathodeflow_watch(raw, out, *flags, "--port", "0")
    try:
        address = re.search(r"http://127\.0\.0\.1:\d+/", first.stderr.readline())[0]
        until(lambda: "waiting" in first.stderr.readline())
        writer = start("-c", DROP, tmp_path / "frames.npy", raw)
        until(lambda: measured(out))
        state = until(
            lambda: (found := json.loads(urllib.request.urlopen(f"{address}state.json").read()))["last"] and found
        )
        image = urllib.request.urlopen(f"{address}frame.png").read()
        page = urllib.request.urlopen(address).read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(f"{address}../settings.json")
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        (raw / ".killed").touch()
        again = cathodeflow_watch(raw, out, *flags, "--port", "none", "--record", out / "watch.json")
        log = again.communicate(timeout=240)[1]
    finally:
        for process in filter(None, (first, writer)):
            process.kill()
            process.wait()
            process.stderr.close()
    assert again.returncode == 0, log
    assert 0 < int(re.search(r"(\d+) frames were measured before", log)[1]) < 20
    options = FindPeaks(min_value=30)
    bragg.frames(str(raw), out=tmp_path / "frames.h5", options=Frames())
    bragg.find_peaks(tmp_path / "frames.h5", out=tmp_path / "c.parquet", options=options)
    bragg.fit(tmp_path / "frames.h5", tmp_path / "c.parquet", out=tmp_path / "peaks.h5", options=Fit())
    assert (out / "peaks.h5").read_bytes() == (tmp_path / "peaks.h5").read_bytes()
    table = pd.read_csv(out / "frames.csv")
    assert table["file"].map(os.path.basename).tolist() == [f"frame_{number}.tif" for number in range(20)]
    assert table["peaks"].tolist() == np.bincount(read_peaks(out / "peaks.h5")["peak_fidx"], minlength=20).tolist()
    # What the page shows.
    assert state["frames"] == len(state["series"]["peaks"]) > 0 and state["expected"] == 20
    assert image.startswith(b"\x89PNG") and (state["last"]["rows"], state["last"]["cols"]) == SHAPE
    number = int(re.search(r"frame_(\d+)\.tif", state["last"]["name"])[1])
    peaks = read_peaks(out / "peaks.h5")
    expected = np.stack([peaks["peak_row"], peaks["peak_col"]], axis=1)[peaks["peak_fidx"] == number]
    # On a busy machine a half written file may pass for a complete one; it is measured again at the end.
    if "measured again" not in log:
        np.testing.assert_allclose(np.array(state["last"]["peaks"])[:, :2], expected, atol=0.006)
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:)?//|@import|url\(", page), "the page asks the network"
    # Nothing is done twice, and nothing is left but one file.
    record = json.loads((out / "watch.json").read_text())
    assert set(record["outputs"]) == {"peaks.h5", "frames.csv"} and measured(out) == 1


SWMR = """
import sys, time
import h5py, hdf5plugin, numpy
frames, path = numpy.load(sys.argv[1]), sys.argv[2]
with h5py.File(path, "w", libver="latest") as file:
    data = file.create_dataset("entry/data/data", shape=(0, *frames.shape[1:]), maxshape=(None, *frames.shape[1:]),
        chunks=(1, *frames.shape[1:]), dtype=frames.dtype, **hdf5plugin.Bitshuffle(cname="lz4"))
    file.swmr_mode = True
    for number, frame in enumerate(frames):
        data.resize(number + 1, axis=0)
        data.flush()
        time.sleep(0.02)
        data[number] = frame
        data.flush()
        print(number, file=sys.stderr, flush=True)
        time.sleep(0.05)
    sys.stdin.read() if len(sys.argv) > 3 else None
"""


def test_a_swmr_file_is_followed_while_it_is_open_and_ctrl_c_ends_with_the_frames_so_far(tmp_path):
    frames = raw_frames(12, seed=1)
    np.save(tmp_path / "frames.npy", frames)
    raw, out = tmp_path / "scan.h5", tmp_path / "out"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    writer = subprocess.Popen(
        [sys.executable, "-c", SWMR, str(tmp_path / "frames.npy"), str(raw), "stay"], stdin=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    watcher = cathodeflow_watch(raw, out, "--interval", "0.1", "--port", "none")
    try:
        until(lambda: (out / "frames.csv").exists() and len(pd.read_csv(out / "frames.csv")) == 12)
        assert writer.poll() is None, "the file is still open"
        watcher.send_signal(signal.SIGINT)
        log = watcher.communicate(timeout=240)[1]
    finally:
        watcher.kill()
        writer.communicate("")
    assert watcher.returncode == 0 and "stopped" in log, log
    assert (out / "peaks.h5").read_bytes() == batch(str(raw), tmp_path)


def follow(source, settle=0.0):
    """Look twice, as a file must not change in between."""
    growing = GrowingSeries(str(source), settle=settle)
    growing.look()
    return growing, growing.look()


def test_files_that_are_not_complete_are_waited_for(tmp_path):
    frames = raw_frames(3)
    growing, series = follow(tmp_path / "raw")
    assert series is None and "no file of this name" in growing.waiting[str(tmp_path / "raw")]
    (tmp_path / "raw").mkdir()
    for number in (10, 2):
        tifffile.imwrite(tmp_path / "raw" / f"a_{number}.tif", frames[0])
    whole = (tmp_path / "raw" / "a_2.tif").read_bytes()
    (tmp_path / "raw" / "a_3.tif").write_bytes(whole[:-10])
    (tmp_path / "raw" / "a_4.tif").touch()
    growing, series = follow(tmp_path / "raw")
    assert [Path(path).name for path, _ in frame_places(series)] == ["a_2.tif", "a_10.tif"]
    assert {Path(path).name for path in growing.waiting} == {"a_3.tif", "a_4.tif"}
    (tmp_path / "raw" / "a_3.tif").write_bytes(whole)
    growing.look()
    assert [Path(path).name for path, _ in frame_places(growing.look())] == ["a_2.tif", "a_3.tif", "a_10.tif"]
    # As long as a file changes, it is not complete, even if it can be read.
    growing, series = follow(tmp_path / "raw", settle=3600)
    assert series is None and len(growing.waiting) == 4


def count(series):
    return 0 if series is None else series.n_frames


def test_of_hdf5_files_the_frames_count_that_are_written(tmp_path):
    frames = raw_frames(6)
    path = tmp_path / "scan.h5"
    # All frames are announced; those without a chunk would be read as zeros.
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (6, *SHAPE), np.uint16, chunks=(1, *SHAPE))
        data[:2] = frames[:2]
    growing, series = follow(path)
    assert series.n_frames == 2
    with h5py.File(path, "r+") as file:
        assert growing.look().n_frames == 2  # not now: another program writes it, and it must not be held up
        file["data"][2:5] = frames[2:5]
    assert growing.look().n_frames == 5
    # Of a chunk of several frames nobody knows how many are written, until the next one or for a while.
    with h5py.File(path, "w") as file:
        data = file.create_dataset("data", (0, *SHAPE), np.uint16, maxshape=(None, *SHAPE), chunks=(4, *SHAPE))
        data.resize(5, axis=0)
        data[:5] = frames[:5]
    growing = GrowingSeries(str(path), settle=3600)
    assert count(growing.look()) == 4
    assert count(follow(path)[1]) == 5


def test_of_a_master_file_the_data_files_count_that_are_there(tmp_path, request):
    """As Dectris writes them: links to files that appear one by one."""
    gc.disable()
    request.addfinalizer(gc.enable)
    frames = raw_frames(6)
    with h5py.File(tmp_path / "scan_master.h5", "w") as file:
        for number in range(1, 4):
            link = h5py.ExternalLink(f"scan_data_{number:06d}.h5", "/entry/data/data")
            file[f"entry/data/data_{number:06d}"] = link
    growing = GrowingSeries(str(tmp_path / "scan_master.h5"), settle=0)
    for number in range(1, 4):
        assert count(growing.look()) == 2 * (number - 1)
        with h5py.File(tmp_path / f"scan_data_{number:06d}.h5", "w") as file:
            part = frames[2 * number - 2 : 2 * number]
            file.create_dataset("entry/data/data", data=part, chunks=(1, *SHAPE), **hdf5plugin.Bitshuffle(cname="lz4"))
    series = growing.look()
    master = str(tmp_path / "scan_master.h5")
    assert frame_places(series) == [(master, index) for index in range(6)]
    out = tmp_path / "out"
    bragg.watch(master, out=out, options=Watch(port=None, expected=6, interval=0.05))
    assert (out / "peaks.h5").read_bytes() == batch(master, tmp_path)


def test_frames_that_change_afterwards_and_damaged_parts_are_measured_again(tmp_path, caplog):
    frames = raw_frames(4)
    raw, out = tmp_path / "raw", tmp_path / "out"
    raw.mkdir()
    for number in range(3):
        tifffile.imwrite(raw / f"a_{number}.tif", frames[number])
    options = Watch(port=None, idle=0.1, interval=0.05)
    caplog.set_level("INFO", "cathodeflow")
    bragg.watch(str(raw), out=out, options=options)
    # The first frame was measured with its own mask, the second with one that had not lost the hot pixel yet.
    assert "2 of 3 frames measured again" in caplog.text
    for number in (1, 3):
        tifffile.imwrite(raw / f"a_{number}.tif", frames[2])
    caplog.clear()
    bragg.watch(str(raw), out=out, options=options)
    assert "3 frames were measured before" in caplog.text and "1 of 4 frames measured again" in caplog.text
    assert (out / "peaks.h5").read_bytes() == batch(str(raw), tmp_path)
    # A flipped byte is found, and other options make other peaks.
    part = next(out.glob("parts/part_*.h5"))
    content = bytearray(part.read_bytes())
    content[len(content) // 2] ^= 1
    part.write_bytes(content)
    bragg.watch(str(raw), out=out, options=options)
    assert (out / "peaks.h5").read_bytes() == (tmp_path / "peaks.h5").read_bytes()
    bragg.watch(str(raw), out=out, options=options.model_copy(update={"frames": Frames(binning=2, stop=3)}))
    assert (out / "peaks.h5").read_bytes() == batch(str(raw), tmp_path, Frames(binning=2, stop=3))


def test_one_line_for_what_cannot_be_followed(tmp_path):
    options = Watch(port=None, idle=0.1, interval=0.05)
    with pytest.raises(InputError, match=r"nothing: found .*no file of this name, expected a frame within 0.1 s"):
        bragg.watch(str(tmp_path / "nothing"), out=tmp_path / "out", options=options)
    tifffile.imwrite(tmp_path / "a.tif", raw_frames(1)[0])
    with pytest.raises(InputError, match=r"--reference: found no geometry"):
        bragg.watch(str(tmp_path / "a.tif"), out=tmp_path / "out", reference=tmp_path / "a.tif", options=options)
    with pytest.raises(InputError, match=r"live page on 127.0.0.1, port \d+: found .*in use"):
        from cathodeflow.live_page import LivePage, served

        with served(page := LivePage(""), "127.0.0.1", 0):
            port = int(page.address.rstrip("/").rpartition(":")[2])
            bragg.watch(str(tmp_path / "a.tif"), out=tmp_path / "out", options=Watch(port=port))


def test_two_commands_do_not_measure_into_one_folder(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", raw_frames(1)[0])
    options = Watch(port=None, idle=0.1, interval=0.05)
    bragg.watch(str(tmp_path / "a.tif"), out=tmp_path / "out", options=options)
    code = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('locked'); sys.stdin.read()"
    holder = [sys.executable, "-c", code, str(tmp_path / "out" / "parts" / "lock")]
    with subprocess.Popen(holder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        other.stdout.readline()
        with pytest.raises(InputError, match="another command that measures into it"):
            bragg.watch(str(tmp_path / "a.tif"), out=tmp_path / "out", options=options)
        other.stdin.close()


def test_options_of_the_stages_come_from_a_configuration_file_or_the_command_line(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", raw_frames(1)[0])
    (tmp_path / "c.yaml").write_text("bragg:\n  samples: bragg.tsv\n  frames:\n    binning: 2\n")
    options = Watch(port=None, idle=0.1, interval=0.05)
    bragg.watch(str(tmp_path / "a.tif"), out=tmp_path / "out", config=tmp_path / "c.yaml", options=options)
    with h5py.File(tmp_path / "out" / "peaks.h5") as file:
        assert file.attrs["binning"] == 2
    with pytest.raises(InputError, match="--config: found options of stages in addition"):
        both = options.model_copy(update={"fit": Fit(gain=2)})
        bragg.watch(str(tmp_path / "a.tif"), out=tmp_path / "out", config=tmp_path / "c.yaml", options=both)


def test_a_reflection_counts_once_and_its_best_frame_gives_the_error():
    frame = np.array([0, 0, 1, 1, 2, 4])
    row = np.array([10.0, 50, 10.5, 30, 11, 11])
    d, error = np.array([2.0, 3, 2.02, 4, 2.02, 5]), np.array([0.02, 1, 0.01, 1, 0.02, 1])
    means, errors = join_spots(frame, row, np.zeros(6), d, error)
    # The gap at frame 3 ends a reflection.
    np.testing.assert_allclose(np.sort(means), [(2.0 + 4 * 2.02 + 2.02) / 6, 3, 4, 5])
    assert np.sort(errors).tolist() == [0.01, 1, 1, 1]
    assert len(join_spots(*np.zeros((5, 0)))[0]) == 0


def test_the_strain_of_rings_and_its_error_are_true():
    """Two rings whose particles differ by 1e-3, strained by 2e-4 and by -1 %: the errors are those of the scatter."""
    rng = np.random.default_rng(0)
    away = []
    for _ in range(300):
        rings = [d * (1 + 1e-3 * rng.normal(size=80)) for d in (4.7, 2.4)]
        later = [d * scale * (1 + 1e-3 * rng.normal(size=150)) for d, scale in ((4.7, 1.0002), (2.4, 0.99))]
        noise = [1e-4 * rng.normal(size=160), 1e-4 * rng.normal(size=300)]
        found = find_rings(np.concatenate(rings) + noise[0], np.full(160, 1e-4), gap=0.004, min_spots=5)
        assert len(found.q) == 2 and found.q[0] < found.q[1]
        table = ring_strain(found, np.concatenate(later) + noise[1], np.full(300, 1e-4))
        away.append((table["strain"] - [2e-4, -0.01]) / table["strain_err"])
    assert np.std(away) == pytest.approx(1, abs=0.12)
    assert abs(np.mean(away)) < 0.15


def test_a_spot_of_another_ring_does_not_count():
    d = np.array([2.0, 2.001, 1.999, 2.0005, 1.9995, 2.3])
    mean, error, used = ring_mean(d, np.full(6, 1e-4))
    assert used == 5 and mean == pytest.approx(2.0, abs=3 * error) and error < 1e-3


def test_every_column_of_the_tables_is_explained():
    text = (Path(__file__).parents[2] / "docs" / "bragg.md").read_text().partition("## While a scan runs")[2]
    rings = find_rings(np.full(9, 2.0), np.full(9, 1e-3), gap=0.01, min_spots=2)
    names = [*ring_strain(rings, np.full(9, 2.0), np.full(9, 1e-3)), "frame", "file", "index", "peaks", "good", "lag"]
    assert [name for name in names if f"`{name}`" not in text] == []


PONI = """poni_version: 2.1
Detector: Detector
Detector_config: {"pixel1": 1e-4, "pixel2": 1e-4, "max_shape": [160, 160], "orientation": 3}
Distance: 0.05
Poni1: 0.008
Poni2: -0.002
Rot1: 0.0
Rot2: 0.0
Rot3: 0.0
Wavelength: 4e-11
"""


def spots_on_rings(folder, radii, seed):
    """Write frames of spots on rings about (79.5, -20.5), each on three of four frames, and a PONI file."""
    rng = np.random.default_rng(seed)
    row, col = np.mgrid[:160, :160]
    frames = np.full((12, 160, 160), 5.0)
    for number in range(1, 12, 4):
        for radius in radii:
            for azimuth in np.deg2rad(np.arange(-24, 25, 8) + rng.uniform(-1, 1, 7)):
                at = 79.5 + radius * np.sin(azimuth), -20.5 + radius * np.cos(azimuth)
                spot = 3000 * np.exp(-((row - at[0]) ** 2 + (col - at[1]) ** 2) / 6)
                for frame, part in ((-1, 0.4), (0, 1), (1, 0.4)):
                    frames[number + frame] += part * spot
    folder.mkdir()
    for number, frame in enumerate(rng.poisson(frames).astype(np.uint16)):
        tifffile.imwrite(folder / f"a_{number}.tif", frame)
    (folder.parent / "d.poni").write_text(PONI)


@pytest.mark.parametrize("binning", [1, 2])
def test_the_strain_relative_to_another_scan_is_that_of_the_rings(tmp_path, binning):
    """The lattice spacing of a ring of radius r is wavelength / (2 sin(atan(r / distance) / 2))."""
    before, later = (70.0, 110.0, 140.0), (70.3, 109.8, 140.0)
    search = FindPeaks(min_value=100, min_persistence=100)
    options = Watch(port=None, idle=0.1, interval=0.05, frames=Frames(binning=binning), find_peaks=search)
    spots_on_rings(tmp_path / "before", before, 0)
    spots_on_rings(tmp_path / "later", later, 1)
    bragg.watch(str(tmp_path / "before"), out=tmp_path / "b", options=options)
    given = {"geometry": tmp_path / "d.poni", "reference": tmp_path / "b" / "peaks.h5"}
    bragg.watch(str(tmp_path / "later"), out=tmp_path / "a", options=options, **given)
    table = pd.read_csv(tmp_path / "a" / "rings.csv")
    d, expected = (0.4 / (2 * np.sin(np.arctan(np.array(radii) * 1e-4 / 0.05) / 2)) for radii in (before, later))
    # A spot on three frames counts once.
    assert table["spots"].tolist() == table["reference_spots"].tolist() == [21, 21, 21]
    np.testing.assert_allclose(table["d_reference"], d, rtol=3e-4)
    strain = expected / d - 1
    assert (np.abs(table["strain"] - strain) < 4 * table["strain_err"]).all()
    assert (table["strain_err"] < 2e-4).all() and abs(strain[0]) > 3e-3
    # Relative to its own first frames, nothing is strained.
    own = options.model_copy(update={"reference_frames": 4})
    bragg.watch(str(tmp_path / "later"), out=tmp_path / "c", geometry=tmp_path / "d.poni", options=own)
    table = pd.read_csv(tmp_path / "c" / "rings.csv")
    assert table["reference_spots"].tolist() == [7, 7, 7] and table["spots"].tolist() == [14, 14, 14]
    assert (np.abs(table["strain"]) < 4 * table["strain_err"]).all()
