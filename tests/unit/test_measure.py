"""Raw frames to fitted peaks in one pass: the same bytes as stage by stage, for any number of workers."""

import gzip
import threading
import time
from pathlib import Path

import h5py
import hdf5plugin
import numpy as np
import pandas as pd
import pytest
import tifffile
from fabio.edfimage import EdfImage

from cathodeflow import bragg
from cathodeflow.bragg.peak_options import FindPeaks, Fit, Frames, Measure
from cathodeflow.bragg.profiles import profile
from cathodeflow.errors import InputError
from cathodeflow.io.frames import open_series, read_frames
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.hdf5_chunks import chunk_reader
from cathodeflow.io.peaks import read_peaks
from cathodeflow.parallel import read_ahead

SHAPE = (90, 112)


def raw_frames(n_frames=9, *, n_peaks=14, seed=0):
    """Poisson counts of peaks, some of them close together, saturated, beside a gap and on bad pixels, (n, row, col)."""
    rng = np.random.default_rng(seed)
    frames = np.empty((n_frames, *SHAPE), np.uint16)
    grid = np.mgrid[: SHAPE[0], : SHAPE[1]]
    for frame in frames:
        mean = np.full(SHAPE, 30.0)
        for row, col in rng.uniform(2, np.array(SHAPE) - 3, (n_peaks, 2)):
            shift, height = rng.uniform(0, 4), rng.uniform(100, 2000)
            mean += profile([row, col, height, 0, *rng.uniform(1.5, 3.5, 2), 0.3], *grid)
            mean += profile([row + shift, col, height / 2, 0, 2, 2, 0.3], *grid)
        frame[:] = rng.poisson(mean)
        frame[:, 50:53] = 65535
        frame[tuple(rng.integers(0, 50, 2))] = 65534
        row, col = rng.integers(10, 40, 2)
        frame[row : row + 2, col : col + 3] = 3000
    frames[3] = np.where(frames[3] == 65535, 65535, 25)  # a frame without peaks
    return frames


def write_hdf5(path, frames, **filters):
    with h5py.File(path, "w") as file:
        file.create_dataset("entry/data/data", data=frames, chunks=(1, *frames.shape[1:]), **filters)


def stage_by_stage(source, options, **corrections):
    """Run the three stages, and return the contents of their files."""
    bragg.frames(source, out="f.h5", options=options.frames, **corrections)
    bragg.find_peaks("f.h5", out="c.parquet", options=options.find_peaks)
    metrics = bragg.fit("f.h5", "c.parquet", out="p.h5", options=options.fit)
    return metrics, [Path(name).read_bytes() for name in ("f.h5", "c.parquet", "p.h5")]


def at_once(source, options, **corrections):
    metrics = bragg.measure(
        source, out="m.h5", candidates="mc.parquet", frames_out="mf.h5", options=options, **corrections
    )
    return metrics, [Path(name).read_bytes() for name in ("mf.h5", "mc.parquet", "m.h5")]


@pytest.mark.parametrize(("workers", "binning"), [(1, 1), (2, 2), (5, 1)])
def test_one_pass_gives_the_bytes_of_the_three_stages(workers, binning, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", str(workers))
    frames, rng = raw_frames(), np.random.default_rng(1)
    write_hdf5("raw.h5", frames, **hdf5plugin.Bitshuffle(cname="lz4"))
    tifffile.imwrite("dark.tif", rng.poisson(8, (3, *SHAPE)).astype(np.uint16), photometric="minisblack")
    tifffile.imwrite("mask.tif", (rng.random(SHAPE) < 0.003).astype(np.uint8))
    np.save("flat.npy", rng.uniform(0.9, 1.1, SHAPE))
    options = Measure(
        frames=Frames(binning=binning, saturation=3000, start=1, max_saturated=0.05),
        find_peaks=FindPeaks(min_value=60 * binning**2, min_persistence=40),
        fit=Fit(dark_noise="poisson", read_noise=1.0),
    )
    corrections = {"dark": "dark.tif", "mask": "mask.tif", "flat": "flat.npy"}
    chain, expected = stage_by_stage("raw.h5", options, **corrections)
    metrics, found = at_once("raw.h5", options, **corrections)
    assert found == expected
    assert {name: metrics[name] for name in chain} == chain
    assert metrics["frames"] == 8 and metrics["frames_without_peaks"] == 1
    assert metrics["invalid_pixels"] > 0 and metrics["saturated_pixels"] > 0
    # Not a comparison of nothing with nothing.
    peaks = read_peaks("m.h5", ["saturated", "blended", "touches_mask", "good"])
    assert len(peaks["good"]) > 80 and all(0 < peaks[name].sum() < len(peaks["good"]) for name in list(peaks)[5:])
    # Without the files in between, the peaks are the same.
    bragg.measure("raw.h5", out="alone.h5", options=options, **corrections)
    assert Path("alone.h5").read_bytes() == expected[2]


def test_a_damaged_file_is_left_out_as_by_the_stages(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    frames = raw_frames(8)
    for number, pair in enumerate(np.split(frames, 4)):
        write_hdf5(f"raw_{number}.h5", pair, **hdf5plugin.Bitshuffle(cname="lz4"))
    with h5py.File("raw_1.h5", "r+") as file:
        stored = file["entry/data/data"].id
        mask, chunk = stored.read_direct_chunk((0, 0, 0))
        stored.write_direct_chunk((0, 0, 0), chunk[: len(chunk) // 2], mask)
    # One count too many in another file: this frame alone is refused.
    frames[6, :, :40] = 65535
    write_hdf5("raw_3.h5", frames[6:], **hdf5plugin.Bitshuffle(cname="lz4"))
    skip = Measure(frames=Frames(on_bad_file="skip"), find_peaks=FindPeaks(min_value=60))
    _, expected = stage_by_stage("raw_*.h5", skip)
    metrics, found = at_once("raw_*.h5", skip)
    assert found == expected
    assert metrics["frames"] == 5 and metrics["frames_left_out"] == 3
    with h5py.File("mf.h5") as file:
        assert file["frame_number"][:].tolist() == [0, 1, 4, 5, 7]
    with pytest.raises(InputError) as caught:
        bragg.measure("raw_*.h5", out="none.h5", candidates="none.parquet", options=Measure())
    lines = str(caught.value).splitlines()
    assert len(lines) == 2 and "raw_1.h5, frame 0: found an error" in lines[0] and "frame 6" in lines[1]
    assert not [path for path in tmp_path.iterdir() if path.name.startswith("none")]


def test_tiff_files_and_no_peak_at_all(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("raw").mkdir()
    for number, frame in enumerate(raw_frames(4)):
        tifffile.imwrite(f"raw/frame_{number}.tif", frame)
    assert at_once("raw", Measure())[1] == stage_by_stage("raw", Measure())[1]
    nothing = Measure(find_peaks=FindPeaks(min_value=60000))
    assert at_once("raw", nothing)[1] == stage_by_stage("raw", nothing)[1]
    assert len(pd.read_parquet("mc.parquet")) == 0


FILTERS = {
    "lz4": dict(hdf5plugin.Bitshuffle(cname="lz4")),
    "lz4, small blocks": dict(hdf5plugin.Bitshuffle(nelems=64, cname="lz4")),
    "zstd": dict(hdf5plugin.Bitshuffle(cname="zstd")),
}


@pytest.mark.parametrize("filters", FILTERS.values(), ids=list(FILTERS))
@pytest.mark.parametrize("dtype", ["u1", "u2", "i4", "f4", "f8"])
@pytest.mark.parametrize("shape", [(3, 1, 37, 61), (4, 64, 128), (2, 5, 3)])
def test_chunks_are_decompressed_as_by_hdf5(filters, dtype, shape, tmp_path):
    frames = np.random.default_rng(0).poisson(3, shape).astype(dtype)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        chunks = (*(1 for _ in shape[:-2]), *shape[-2:])
        dataset = file.create_dataset("data", shape, dtype, chunks=chunks, fillvalue=7, **filters)
        dataset[: len(frames) - 1] = frames[:-1]
        # One chunk is stored without the filter, the last one not at all.
        dataset.id.write_direct_chunk((0,) * len(shape), frames[0].tobytes(), 1)
    with h5py.File(tmp_path / "a.h5") as file:
        read = chunk_reader(file["data"])
        assert read is not None
        loads = [read(number) for number in range(len(frames))]
        expected = file["data"][:].reshape(len(frames), *shape[-2:])
    for load, frame in zip(loads, expected, strict=True):
        assert load().dtype == frame.dtype and load().tobytes() == frame.tobytes()
    found = [frame for _, frame in read_frames(open_series(str(tmp_path / "a.h5")))]
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "keywords",
    [{"chunks": (2, 8, 8)}, {"chunks": (1, 4, 8)}, {"chunks": (1, 8, 8), "fletcher32": True}, {"dtype": ">u2"}],
)
def test_other_datasets_are_left_to_hdf5(keywords, tmp_path):
    frames = np.arange(256, dtype=np.uint16).reshape(4, 8, 8)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        dataset = file.create_dataset("data", data=frames, **FILTERS["lz4"], **{"chunks": (1, 8, 8), **keywords})
        assert chunk_reader(dataset) is None
    assert [frame.tolist() for _, frame in read_frames(open_series(str(tmp_path / "a.h5")))] == frames.tolist()


def test_damaged_chunks_are_errors_of_one_line(tmp_path):
    """The library of the filter trusts the lengths in a chunk, and would read beyond its end."""
    rng = np.random.default_rng(0)
    frames = rng.poisson(2, (1, 200, 160)).astype(np.uint16)
    write_hdf5(tmp_path / "a.h5", frames, **FILTERS["lz4"])
    with h5py.File(tmp_path / "a.h5") as file:
        whole = bytearray(file["entry/data/data"].id.read_direct_chunk((0, 0, 0))[1])
    series, wrong = open_series(str(tmp_path / "a.h5")), 0
    lengths = [12, *range(16, len(whole), 97)]
    for case in range(120):
        chunk = whole.copy()
        if case % 3 == 0:
            chunk = chunk[: rng.integers(0, len(chunk))]
        elif case % 3 == 1:
            chunk[12 if case == 1 else rng.choice(lengths)] = rng.integers(0, 256)
        else:
            chunk[rng.integers(0, 12)] ^= 1 << rng.integers(0, 8)
        with h5py.File(tmp_path / "a.h5", "r+") as file:
            file["entry/data/data"].id.write_direct_chunk((0, 0, 0), bytes(chunk), 0)
        try:
            ((_, frame),) = read_frames(series)
        except InputError as error:
            assert len(str(error).splitlines()) == 1 and "a.h5, frame 0: found an error" in str(error)
            wrong += 1
        else:
            assert frame.shape == (200, 160)
    assert wrong > 60


def test_reading_ahead_is_bounded_passes_errors_on_and_ends_with_its_user():
    taken = []

    def items():
        for number in range(50):
            taken.append(number)
            yield number
        raise ValueError("the end")

    before = threading.active_count()
    ahead = read_ahead(items(), depth=3)
    assert next(ahead) == 0
    time.sleep(0.3)
    # Three in the queue, one that waits for a place in it.
    assert len(taken) <= 5
    ahead.close()
    assert threading.active_count() == before
    taken.clear()
    with pytest.raises(ValueError, match="the end"):
        list(read_ahead(items(), depth=3))
    assert taken == list(range(50)) and threading.active_count() == before


def test_an_overview_has_all_but_the_pixels_of_other_frames(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_hdf5("raw.h5", raw_frames(), **FILTERS["lz4"])
    np.savetxt("omega.txt", np.arange(9) * 0.25, header="omega", comments="")
    options = Measure(frames=Frames(binning=2, step=2, start=1, saturation=3000, max_saturated=0.05))
    corrections = {"omega": "omega.txt", "energy_kev": 71.68}
    stage_by_stage("raw.h5", options, **corrections)
    bragg.measure("raw.h5", out="m.h5", overview="o.h5", options=options, **corrections)
    peaks = pd.DataFrame(read_peaks("m.h5", ["converged"]))
    busiest = peaks[peaks["converged"]]["peak_fidx"].mode().iloc[0]
    with h5py.File("f.h5") as whole, h5py.File("o.h5") as part:
        assert set(whole) == set(part) and part["frames"].shape == whole["frames"].shape
        for name in set(whole) - {"frames"}:
            assert part[name][:].tobytes() == whole[name][:].tobytes(), name
        assert {**part.attrs} | {"raw_shape": 0} == {**whole.attrs} | {"kept_frames": [busiest], "raw_shape": 0}
        assert part["frames"].id.get_num_chunks() == 1
    with read_frames_file("o.h5") as part, read_frames_file("f.h5") as whole:
        assert part.frames[busiest].tobytes() == whole.frames[busiest].tobytes()
        with pytest.raises(InputError, match=rf"o.h5::/frames, frame {1 - busiest % 2}: found an overview"):
            part.frames[1 - busiest % 2]
    # What the stages after it need.
    bragg.figures(out=".", frames="o.h5", fitted="m.h5")
    assert Path("fitted.png").is_file()
    with pytest.raises(InputError, match="found an overview"):
        bragg.find_peaks("o.h5", out="c2.parquet")


@pytest.mark.parametrize(
    ("dtype", "options", "dark", "stored"),
    [
        ("u2", {}, False, "u2"),
        ("u1", {}, False, "u2"),
        ("u2", {"binning": 4}, False, "u4"),
        ("i4", {"allow_negative": True}, False, "i4"),
        ("u4", {"saturation": 900}, False, "u4"),
        ("u4", {"saturation": 900.5}, False, "f4"),
        ("u2", {}, True, "f4"),
        ("f4", {}, False, "f4"),
        ("i8", {}, False, "f4"),
    ],
)
def test_whole_counts_are_stored_as_integers_and_read_as_they_were(dtype, options, dark, stored, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    frames = rng.poisson(40, (3, 32, 36)).astype(dtype)
    if dtype != "u1":
        frames[1, 4, 5:7] = 1000
    if options.get("allow_negative"):
        frames[1, 8:16] -= 60
    write_hdf5("raw.h5", frames)
    if dark:
        np.save("dark.npy", np.full((32, 36), 0.25))
    frame_options = Frames(max_saturated=1, **options)
    bragg.frames("raw.h5", out="f.h5", dark="dark.npy" if dark else None, options=frame_options)
    with h5py.File("f.h5") as file:
        assert file["frames"].dtype == stored
    n = options.get("binning", 1)
    expected = (frames.astype(float) - 0.25 * dark).reshape(3, 32 // n, n, 36 // n, n).sum(axis=(2, 4))
    with read_frames_file("f.h5") as file:
        found = np.array(list(file.frames))
        assert found.dtype == np.float32
        if "saturation" in options:
            assert file.saturated[:, 1:].tolist() == [[4, 5], [4, 6]]
            # At least the level, and at least the highest count of the frame.
            expected[1, 4, 5:7] = options["saturation"]
        np.testing.assert_array_equal(found, expected)


def test_files_that_a_decoder_process_reads_are_read_in_several_threads(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "4")
    for number, frame in enumerate(raw_frames(6)):
        EdfImage(data=frame).write("frame.edf")
        Path(f"raw_{number}.edf.gz").write_bytes(gzip.compress(Path("frame.edf").read_bytes()))
    assert at_once("raw_*.edf.gz", Measure())[1] == stage_by_stage("raw_*.edf.gz", Measure())[1]
    assert len(pd.read_parquet("mc.parquet")) > 50
