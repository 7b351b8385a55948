"""Detector files as instruments write them: which dataset is the frames, bad pixels, and what the stage makes of them."""

import gzip
import os
from pathlib import Path

import fabio.cbfimage
import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
from fabio.compression import compByteOffset

from cathodeflow import bragg
from cathodeflow.bragg.options import Scan, Section, require_apart
from cathodeflow.bragg.peak_options import FindPeaks, Frames, Simulate
from cathodeflow.bragg.raw_data import raw_files
from cathodeflow.errors import InputError
from cathodeflow.io.correction_images import read_mask, read_mean
from cathodeflow.io.frames import count_limits, open_series, read_frames, stored_masks
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.raw_format import CountLimits
from cathodeflow.io.rocking_scans import read_scan

N, ROWS, COLS = 6, 40, 48
GAP, DEAD = 2**32 - 1, 2**32 - 2


@pytest.fixture
def truth() -> np.ndarray:
    """Frames with one peak each, far from the gap in rows 20 and 21."""
    random = np.random.default_rng(2)
    row, col = np.mgrid[:ROWS, :COLS]
    peaks = [500 * np.exp(-((row - 10) ** 2 + (col - 10 - 3 * i) ** 2) / 4) for i in range(N)]
    return random.poisson(3 + np.stack(peaks)).astype(np.uint32)


def as_eiger(truth: np.ndarray) -> np.ndarray:
    frames = truth.copy()
    frames[:, 20:22] = GAP
    frames[:, 30, 5] = GAP
    frames[:, 31, 6] = DEAD
    return frames


def bad_of_eiger() -> np.ndarray:
    bad = np.zeros((ROWS, COLS), bool)
    bad[20:22] = bad[30, 5] = bad[31, 6] = True
    return bad


def master(folder: Path, frames: np.ndarray, *, per_file: int = 2, beside: str = "") -> Path:
    """A master file of Dectris: links to data files of `per_file` frames each, with names that sort as text wrongly."""
    with h5py.File(folder / "run_master.h5", "w") as file:
        data = file.create_group("entry/data")
        for number, first in enumerate(range(0, len(frames), per_file), 9):
            with h5py.File(folder / f"run_data_{number}.h5", "w") as part:
                part.create_dataset(
                    "entry/data/data",
                    data=frames[first : first + per_file],
                    chunks=(1, *frames.shape[1:]),
                    **hdf5plugin.Bitshuffle(cname="lz4"),
                )
            data[f"data_{number}"] = h5py.ExternalLink(f"run_data_{number}.h5", "/entry/data/data")
        special = file.create_group("entry/instrument/detector/detectorSpecific")
        special["flatfield"] = np.ones(frames.shape[1:], np.float32)
        special["countrate_correction_table"] = np.ones((2, 100), np.float32)
        if "mask" in beside:
            mask = np.zeros(frames.shape[1:], np.uint32)
            mask[20:22], mask[30, 5], mask[31, 6], mask[3, 3] = 1, 2, 8, 2**31
            special["pixel_mask"] = mask
        if "default" in beside:
            file.attrs["default"], file["entry"].attrs["default"] = "entry", "data"
            data.attrs["signal"] = np.bytes_(b"data_9")
    return folder / "run_master.h5"


def frames_of(source: object) -> np.ndarray:
    return np.stack([frame for _, frame in read_frames(open_series(str(source)))])


@pytest.mark.parametrize("beside", ["", "default", "mask", "default mask"])
def test_linked_data_files_are_one_series_in_the_order_of_their_numbers(tmp_path, truth, beside):
    path = master(tmp_path, truth, beside=beside)
    np.testing.assert_array_equal(frames_of(path), truth)
    np.testing.assert_array_equal(frames_of(f"{path}::/entry/data"), truth)
    np.testing.assert_array_equal(frames_of(f"{path}::/entry/data/data_10"), truth[2:4])
    # Over the ends of the files, and from the middle of one.
    found = [number for number, _ in read_frames(open_series(str(path)), 1, 6, 2)]
    np.testing.assert_array_equal([frame for _, frame in read_frames(open_series(str(path)), 1, 6, 2)], truth[1:6:2])
    assert found == [1, 3, 5]
    assert [os.path.basename(file) for file in raw_files(Scan(sample="a", frames=str(path)), Simulate())] == [
        "run_master.h5",
        "run_data_10.h5",
        "run_data_11.h5",
        "run_data_9.h5",
    ]


def test_a_folder_of_a_master_and_its_data_files_does_not_count_frames_twice(tmp_path, truth):
    path = master(tmp_path, truth)
    for source in (tmp_path, f"{tmp_path}/*.h5"):
        with pytest.raises(InputError, match=r"run_data_9.h5 as well as .*run_master.h5, which links to it, expected"):
            open_series(str(source))
    # In the natural order of their names.
    np.testing.assert_array_equal(frames_of(f"{tmp_path}/run_data_*.h5"), truth)
    assert path.exists()


@pytest.mark.parametrize("beside", ["", "default", "mask"])
@pytest.mark.parametrize("lost", ["run_data_9.h5", "run_data_11.h5"])
def test_flat_field_and_mask_are_never_taken_for_frames_whose_file_is_lost(tmp_path, truth, beside, lost):
    path = master(tmp_path, truth, beside=beside)
    (tmp_path / lost).unlink()
    with pytest.raises(InputError, match=f"a link to {lost} whose target is missing"):
        open_series(str(path))


def test_a_master_without_links_holds_no_frames(tmp_path, truth):
    path = master(tmp_path, truth, beside="mask")
    with h5py.File(path, "r+") as file:
        del file["entry/data"]
    with pytest.raises(InputError, match=r"found no frames, but .*flatfield, .*pixel_mask, expected one 2-D or 3-D"):
        open_series(str(path))
    # What it does hold is read by its name.
    assert frames_of(f"{path}::/entry/instrument/detector/detectorSpecific/flatfield").shape == (1, ROWS, COLS)


@pytest.mark.parametrize("name", ["pixel_mask", "entry/data/flatfield", "entry/instrument/detector/mask"])
def test_a_file_of_a_detector_without_frames(tmp_path, truth, name):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file[name] = truth[0]
    with pytest.raises(InputError, match=f"found no frames, but /{name}"):
        open_series(str(tmp_path / "a.h5"))


def test_a_file_that_holds_one_image_is_read_whatever_it_is_called(tmp_path, truth):
    with h5py.File(tmp_path / "labels.h5", "w") as file:
        file["labels/mask"] = truth
    np.testing.assert_array_equal(frames_of(tmp_path / "labels.h5"), truth)


def test_a_number_that_is_left_out_is_missed(tmp_path, truth):
    path = master(tmp_path, truth)
    with h5py.File(path, "r+") as file:
        del file["entry/data/data_10"]
    with pytest.raises(InputError, match="data_11: found no dataset of number 10 before it"):
        open_series(str(path))


def test_data_files_that_differ_are_refused(tmp_path, truth):
    path = master(tmp_path, truth)
    with h5py.File(tmp_path / "run_data_10.h5", "r+") as file:
        del file["entry/data/data"]
        file["entry/data/data"] = truth[2:4, :-1]
    with pytest.raises(InputError, match=r"data_10: found uint32 of \(39, 48\) pixels, expected .*\(40, 48\)"):
        open_series(str(path))


def test_a_virtual_dataset_stands_for_the_data_files_that_it_joins(tmp_path, truth):
    path = master(tmp_path, truth)
    layout = h5py.VirtualLayout(truth.shape, truth.dtype)
    for number in range(3):
        source = h5py.VirtualSource(f"run_data_{9 + number}.h5", "/entry/data/data", (2, ROWS, COLS))
        layout[2 * number : 2 * number + 2] = source
    with h5py.File(path, "r+") as file:
        file["entry/data"].create_virtual_dataset("data", layout)
    np.testing.assert_array_equal(frames_of(path), truth)


def test_the_nexus_default_of_a_curve_is_no_frames(tmp_path, truth):
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        file["entry/plot/counter"] = np.arange(N)
        file["entry/measurement/detector"] = truth
        file.attrs["default"], file["entry"].attrs["default"] = "entry", "plot"
        file["entry/plot"].attrs["signal"] = "counter"
    np.testing.assert_array_equal(frames_of(tmp_path / "a.nxs"), truth)


def test_one_dataset_by_two_paths_is_no_choice(tmp_path, truth):
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["data"] = truth
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["1.1/measurement/eiger"] = h5py.ExternalLink("frames.h5", "/data")
        file["1.1/instrument/eiger/data"] = h5py.ExternalLink("frames.h5", "/data")
    np.testing.assert_array_equal(frames_of(tmp_path / "a.h5"), truth)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file["2.1/measurement/eiger"] = truth
    with pytest.raises(InputError, match="2 datasets that could be frames"):
        open_series(str(tmp_path / "a.h5"))


def test_an_older_nexus_file_marks_its_frames_by_signal_1(tmp_path, truth):
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        file["entry/data/data"], file["entry/data/other"] = truth, truth[:, 1:]
        file["entry/data/data"].attrs["signal"] = 1
    np.testing.assert_array_equal(frames_of(tmp_path / "a.nxs"), truth)


def test_a_preview_beside_the_frames_is_no_choice(tmp_path, truth):
    path = master(tmp_path, truth)
    with h5py.File(path, "r+") as file:
        file["entry/preview"] = truth[0, ::4, ::4]
    np.testing.assert_array_equal(frames_of(path), truth)


def test_a_mask_where_the_frames_lie_counts_behind_a_link(tmp_path, truth):
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["entry/data/data"] = truth
        file["entry/instrument/detector/pixel_mask"] = bad_of_eiger().astype(np.uint32)
        file["entry/instrument/detector/saturation_value"] = 999
    with h5py.File(tmp_path / "master.h5", "w") as file:
        file["1.1/measurement/eiger"] = h5py.ExternalLink("data.h5", "/entry/data/data")
    series = open_series(str(tmp_path / "master.h5"))
    np.testing.assert_array_equal(stored_masks(series)(0), bad_of_eiger())
    assert count_limits(series).highest == 999


def run_frames(source: object, folder: Path, **arguments: object) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Run the stage; return frames, mask and the masks of all frames."""
    options = Frames(**{key: value for key, value in arguments.items() if key not in ("mask", "dark")})
    named = {key: str(value) for key, value in arguments.items() if key in ("mask", "dark")}
    bragg.frames(str(source), out=str(folder / "frames.h5"), options=options, **named)
    with read_frames_file(folder / "frames.h5") as file:
        return np.stack(list(file.frames)), file.mask, [file.bad_pixels(index) for index in range(len(file.frames))]


def test_the_masters_own_mask_and_the_marks_of_an_eiger_are_masked(tmp_path, truth):
    path = master(tmp_path, as_eiger(truth), beside="default mask")
    frames, mask, _ = run_frames(path, tmp_path)
    np.testing.assert_array_equal(mask, bad_of_eiger())
    np.testing.assert_array_equal(frames, np.where(mask, 0, truth))


def test_the_stored_mask_counts_where_the_frames_mark_nothing_unless_it_is_turned_off(tmp_path, truth):
    path = master(tmp_path, truth, beside="mask")
    # A virtual pixel (bit 31) holds a count, as NeXus says.
    np.testing.assert_array_equal(run_frames(path, tmp_path)[1], bad_of_eiger())
    assert not run_frames(path, tmp_path, stored_mask=False)[1].any()
    mask = f"{path}::/entry/instrument/detector/detectorSpecific/pixel_mask"
    np.testing.assert_array_equal(read_mask(mask), bad_of_eiger())
    np.testing.assert_array_equal(run_frames(path, tmp_path, stored_mask=False, mask=mask)[1], bad_of_eiger())


def test_a_mask_in_the_file_of_the_frames(tmp_path, truth):
    path = tmp_path / "one.nxs"
    with h5py.File(path, "w") as file:
        file["entry/data/data"] = truth
        file["entry/extra/shadow"] = np.eye(ROWS, COLS, dtype=np.uint8)
        file["entry/instrument/detector/pixel_mask"] = bad_of_eiger().astype(np.uint32)
    np.testing.assert_array_equal(
        run_frames(f"{path}::/entry/data/data", tmp_path, mask=f"{path}::/entry/extra/shadow")[1],
        bad_of_eiger() | np.eye(ROWS, COLS, dtype=bool),
    )
    with pytest.raises(InputError, match=r"the mask .*one\.nxs among the frames"):
        require_apart({"frames": f"{path}::/entry/data/data", "mask": f"{path}::entry/data/data"})
    with pytest.raises(InputError, match=r"the mask .*one\.nxs among the frames"):
        require_apart({"frames": f"{path}::/entry/data/data", "mask": str(path)})


def test_mask_and_dark_are_found_in_a_file_by_their_names(tmp_path, truth):
    mask, path = bad_of_eiger().astype(np.uint8), tmp_path / "a.h5"
    with h5py.File(tmp_path / "one.h5", "w") as file:
        file["shadow"] = mask
    np.testing.assert_array_equal(read_mask(str(tmp_path / "one.h5")), mask != 0)
    with h5py.File(path, "w") as file:
        file["detector/pixel_mask"], file["detector/dark"], file["detector/data"] = mask, truth[:2], truth
    np.testing.assert_array_equal(read_mask(str(path)), mask != 0)
    np.testing.assert_array_equal(read_mean(str(path)).image, truth[:2].mean(axis=0))
    with h5py.File(path, "r+") as file:
        file["other/dark"], file["other/data"] = truth[:2], truth
    with pytest.raises(InputError, match="2 datasets that could be frames"):
        read_mean(str(path))


def test_check_looks_at_dark_and_mask(tmp_path, truth):
    np.save(tmp_path / "a.npy", truth)
    np.save(tmp_path / "mask.npy", np.zeros((ROWS, COLS - 1), np.uint8))
    section = Section(samples="scans.tsv")
    scans = {"a": Scan(sample="a", frames=f"{tmp_path}/a.npy", mask=f"{tmp_path}/mask.npy")}
    with pytest.raises(InputError, match=r"scan 'a': .*mask.npy: found \(40, 47\) pixels, expected \(40, 48\)"):
        section.read_headers(scans)
    section.read_headers({"a": Scan(sample="a", frames=f"{tmp_path}/a.npy", dark=f"{tmp_path}/a.npy")})


def test_of_two_detectors_the_mask_is_that_beside_the_frames(tmp_path, truth):
    other = np.ones((ROWS, COLS), np.uint8)
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        file["entry/instrument/eiger/data"] = truth
        file["entry/instrument/eiger/pixel_mask"] = bad_of_eiger().astype(np.uint32)
        file["entry/instrument/pilatus/pixel_mask"] = other
    series = open_series(str(tmp_path / "a.nxs"))
    np.testing.assert_array_equal(stored_masks(series)(3), bad_of_eiger())
    with h5py.File(tmp_path / "a.nxs", "r+") as file:
        file.move("entry/instrument/eiger/data", "entry/data/data")
    with pytest.raises(InputError, match="masks of several detectors"):
        open_series(str(tmp_path / "a.nxs"))


def test_a_mask_for_each_frame(tmp_path, truth):
    masks = np.zeros(truth.shape, np.uint8)
    masks[:, 5] = masks[2, 30, 30] = 1
    with h5py.File(tmp_path / "a.cxi", "w") as file:
        file["entry_1/instrument_1/detector_1/data"] = truth
        file["entry_1/instrument_1/detector_1/mask"] = masks
        file["entry_1/data_1/data"] = h5py.SoftLink("/entry_1/instrument_1/detector_1/data")
    frames, mask, bad = run_frames(tmp_path / "a.cxi", tmp_path)
    np.testing.assert_array_equal(bad, masks != 0)
    np.testing.assert_array_equal(mask, masks[0] != 0)
    np.testing.assert_array_equal(frames, np.where(masks, 0, truth))
    np.testing.assert_array_equal(read_scan(str(tmp_path / "a.cxi")), np.where(masks, np.nan, truth))


@pytest.mark.parametrize("dtype", [np.uint32, np.uint16, np.int32, np.float32])
def test_dead_pixels_are_masked_and_give_no_peaks(tmp_path, truth, dtype):
    marks = {np.uint32: (GAP, DEAD), np.uint16: (65535, 65534)}.get(dtype, (-1, -2))
    random = np.random.default_rng(5)
    dead = np.zeros((ROWS, COLS), np.uint8)
    dead[random.integers(22, ROWS, 12), random.integers(0, COLS, 12)] = 1
    dead[random.integers(22, ROWS, 12), random.integers(0, COLS, 12)] = 2
    frames = np.where(dead == 1, marks[0], np.where(dead == 2, marks[1], truth.astype(np.int64))).astype(dtype)
    np.save(tmp_path / "a.npy", frames)
    found, mask, _ = run_frames(tmp_path / "a.npy", tmp_path)
    np.testing.assert_array_equal(mask, dead != 0)
    np.testing.assert_array_equal(found, np.where(dead, 0, truth))
    bragg.find_peaks(tmp_path / "frames.h5", out=tmp_path / "peaks.parquet", options=FindPeaks(min_persistence=100))
    peaks = bragg_table(tmp_path / "peaks.parquet")
    assert peaks["row"].tolist() == pytest.approx([10] * N, abs=1) and len(peaks) == N


def bragg_table(path: Path):
    from cathodeflow.io.tables import read_table

    return read_table(path, ["frame", "row", "col"])


def test_a_pixel_that_overflows_in_one_frame_is_masked_there_alone(tmp_path, truth):
    frames = truth.copy()
    frames[3, 30, 30] = GAP
    np.save(tmp_path / "a.npy", frames)
    _, mask, bad = run_frames(tmp_path / "a.npy", tmp_path)
    assert not mask.any()
    assert [int(one.sum()) for one in bad] == [0, 0, 0, 1, 0, 0] and bad[3][30, 30]
    bragg.find_peaks(tmp_path / "frames.h5", out=tmp_path / "peaks.parquet", options=FindPeaks(min_persistence=100))
    assert bragg_table(tmp_path / "peaks.parquet")["frame"].tolist() == list(range(N))


@pytest.mark.parametrize(
    ("fields", "limits"),
    [
        ({"saturation_value": 1000}, CountLimits(highest=1000)),
        ({"detectorSpecific/countrate_correction_count_cutoff": [900]}, CountLimits(highest=900)),
        (
            {"saturation_value": 1000, "detectorSpecific/countrate_correction_count_cutoff": 900},
            CountLimits(highest=900),
        ),
        ({"underload_value": 2.0, "undefined_value": -7}, CountLimits(marks=(-7,), lowest=2)),
        ({"saturation_value": 0, "underload_value": np.nan}, CountLimits()),
        ({"saturation_value": np.bytes_(b"unknown")}, CountLimits()),
    ],
)
def test_limits_that_a_nexus_file_names(tmp_path, truth, fields, limits):
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        file["entry/data/data"] = truth
        for name, value in fields.items():
            file[f"entry/instrument/detector/{name}"] = value
    assert count_limits(open_series(str(tmp_path / "a.nxs"))) == limits


def test_counts_above_what_the_file_calls_valid_are_masked(tmp_path, truth):
    limit = int(np.sort(truth[2].ravel())[-3])
    with h5py.File(tmp_path / "a.nxs", "w") as file:
        file["entry/data/data"] = truth[2:3]
        file["entry/instrument/detector/saturation_value"] = limit
    frames, mask, _ = run_frames(tmp_path / "a.nxs", tmp_path)
    np.testing.assert_array_equal(mask, truth[2] > limit)
    assert frames.max() == limit and mask.sum() == 2
    # The user's own level is the first pixel that is saturated.
    assert run_frames(tmp_path / "a.nxs", tmp_path, saturation=limit)[1].sum() == 3


def test_a_dark_without_a_count_at_a_pixel_is_no_count_of_four_thousand_million(tmp_path, truth):
    dark = np.full((2, ROWS, COLS), 4, np.uint32)
    dark[0, 5, 5] = dark[:, 6, 6] = GAP
    np.save(tmp_path / "dark.npy", dark)
    mean = read_mean(str(tmp_path / "dark.npy")).image
    assert mean[5, 5] == 4 and np.isnan(mean[6, 6]) and np.nanmax(mean) == 4


def fch5(path: Path, frames: np.ndarray, *, group: str = "/") -> None:
    """Write a frame cache as hexrd does: frames one after another, here in the order in which its threads end."""
    indices = [np.argwhere(frame) for frame in frames]
    order = [2, 0, 1, 5, 4, 3]
    ends = np.cumsum([0] + [len(indices[index]) for index in order])
    ranges = np.zeros((len(frames), 2), np.uint64)
    for place, index in enumerate(order):
        ranges[index] = ends[place], ends[place + 1]
    with h5py.File(path, "w") as file:
        cache = file.require_group(group)
        cache.attrs["HEXRD_FRAMECACHE_VERSION"] = 1
        cache["shape"], cache["nframes"] = frames.shape[1:], len(frames)
        cache["dtype"] = str(frames.dtype).encode()
        cache["data"] = np.concatenate([frames[index][frames[index] > 0] for index in order])[:, None]
        cache["indices"] = np.concatenate([indices[index] for index in order]).astype(np.uint16)
        cache["frame_ids"] = ranges.ravel()
        cache.create_group("metadata")["omega"] = np.zeros((len(frames), 2))


@pytest.mark.parametrize("group", ["/", "/images/ff1"])
def test_frame_caches_of_hexrd_in_hdf5(tmp_path, truth, group):
    fch5(tmp_path / "cache.fch5", truth, group=group)
    source = f"{tmp_path}/cache.fch5" + (f"::{group}" if group != "/" else "")
    np.testing.assert_array_equal(frames_of(source), truth)
    found = dict(read_frames(open_series(source), 1, 6, 3))
    assert list(found) == [1, 4]
    np.testing.assert_array_equal(found[4], truth[4])


@pytest.mark.parametrize(
    ("name", "value", "found"),
    [
        ("frame_ids", np.zeros(3, np.uint64), "frame_ids \\(3,\\)"),
        ("frame_ids", np.full(12, 10**6), "beyond"),
        ("nframes", 7, "7"),
    ],
)
def test_caches_that_do_not_fit_together_are_one_line(tmp_path, truth, name, value, found):
    fch5(tmp_path / "cache.fch5", truth)
    with h5py.File(tmp_path / "cache.fch5", "r+") as file:
        del file[name]
        file[name] = value
    with pytest.raises(InputError, match=found):
        open_series(str(tmp_path / "cache.fch5"))


def test_a_cache_with_pixels_outside_the_frame_is_refused(tmp_path, truth):
    fch5(tmp_path / "cache.fch5", truth)
    with h5py.File(tmp_path / "cache.fch5", "r+") as file:
        file["indices"][0] = ROWS, 0
    with pytest.raises(InputError, match="frame 2: found pixels outside the frame"):
        frames_of(tmp_path / "cache.fch5")


def edf_header(size: int, **fields: object) -> bytes:
    lines = "".join(f"{name} = {value} ;\r\n" for name, value in fields.items())
    text = "{\nHeaderID = EH:000001:000000:000000 ;\r\n" + lines
    return (text + " " * (size - len(text) - 2) + "}\n").encode()


def edf_frame(frame: np.ndarray, **fields: object) -> bytes:
    fields = {"ByteOrder": "HighByteFirst", "DataType": "UnsignedInteger", "Dim_1": COLS, "Dim_2": ROWS} | fields
    return edf_header(512, **fields) + frame.astype(">u4").tobytes()


@pytest.mark.parametrize("wrong", [12345, 4 * ROWS * COLS + 512])
def test_an_edf_with_a_wrong_size_is_read_by_its_binary_size(tmp_path, truth, wrong):
    size = {"EDF_BinarySize": 4 * ROWS * COLS, "Size": wrong}
    (tmp_path / "a.edf").write_bytes(b"".join(edf_frame(frame, **size) for frame in truth))
    np.testing.assert_array_equal(frames_of(tmp_path / "a.edf"), truth)


def test_an_edf_with_a_wrong_binary_size_is_read_by_its_size(tmp_path, truth):
    size = {"EDF_BinarySize": 12345, "Size": 4 * ROWS * COLS}
    (tmp_path / "a.edf").write_bytes(b"".join(edf_frame(frame, **size) for frame in truth))
    np.testing.assert_array_equal(frames_of(tmp_path / "a.edf"), truth)


@pytest.mark.parametrize("wrong", [12345, 10**6])
def test_an_edf_with_a_wrong_size_alone_is_read_where_the_file_shows_the_right_one(tmp_path, truth, wrong):
    (tmp_path / "a.edf").write_bytes(edf_frame(truth[0], Size=wrong))
    np.testing.assert_array_equal(frames_of(tmp_path / "a.edf"), truth[:1])


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            lambda x: b"".join(edf_frame(frame, Size=12345) for frame in x[:2]),
            "frame 0: found 12345 bytes of pixels by its",
        ),
        (lambda x: edf_frame(x[0], Size=4 * ROWS * COLS) + bytes(4 * ROWS * COLS), "found 7680 bytes after frame 0"),
        (lambda x: edf_frame(x[0], Size=4 * ROWS * COLS)[:-5], "a truncated file"),
    ],
)
def test_an_edf_that_does_not_fit_its_header_is_refused(tmp_path, truth, content, found):
    (tmp_path / "a.edf").write_bytes(content(truth))
    with pytest.raises(InputError, match=found):
        open_series(str(tmp_path / "a.edf"))


@pytest.mark.timeout(20)
def test_an_edf_of_many_axes_is_refused_at_once(tmp_path, truth):
    content = edf_frame(truth[0], Dim_99999999999=5)
    (tmp_path / "a.edf").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.edf.* at most 8 axes"):
        open_series(str(tmp_path / "a.edf"))


@pytest.mark.parametrize("name", ["a.ge5", "a.edf.ge5", "a.edf"])
def test_frames_of_a_ge_detector_behind_one_header_of_edf(tmp_path, truth, name):
    fields = {"EDF_HeaderSize": 8192, "ByteOrder": "LowByteFirst", "Num_Images": N, "DataType": "UnsignedShort"}
    header = edf_header(8192, **fields, Dim_1=COLS, Dim_2=ROWS, Size=2 * ROWS * COLS)
    (tmp_path / name).write_bytes(header + truth.astype("<u2").tobytes())
    np.testing.assert_array_equal(frames_of(tmp_path / name), truth)
    np.testing.assert_array_equal(dict(read_frames(open_series(str(tmp_path / name)), 2, 6, 3))[5], truth[5])
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    with pytest.raises(InputError, match="Num_Images = 6"):
        open_series(str(tmp_path / f"{name}.gz"))
    (tmp_path / name).write_bytes((header + truth.astype("<u2").tobytes())[:-2])
    with pytest.raises(InputError, match="expected 6 frames of 3840 bytes after a header of 8192 bytes"):
        open_series(str(tmp_path / name))


def test_fabio_prints_nothing(tmp_path, capfd):
    frames = np.zeros((2, 2048, 2048), np.uint16)
    frames[1, 3, 4] = 7
    (tmp_path / "a.ge2").write_bytes(bytes(8192) + frames.tobytes())
    assert frames_of(tmp_path / "a.ge2")[1, 3, 4] == 7
    assert capfd.readouterr() == ("", "")


def cbf(path: Path, image: np.ndarray, *, header: str = "") -> None:
    """Write a CBF file of signed integers of the size of the image's, by the rules of imgCIF."""
    packed = compByteOffset(image.astype(np.int64))
    bits = 8 * image.dtype.itemsize
    mime = (
        f'Content-Type: application/octet-stream;\r\n     conversions="x-CBF_BYTE_OFFSET"\r\n'
        f'X-Binary-Size: {len(packed)}\r\nX-Binary-Element-Type: "signed {bits}-bit integer"\r\n'
        f"X-Binary-Number-of-Elements: {image.size}\r\nX-Binary-Size-Fastest-Dimension: {image.shape[1]}\r\n"
        f"X-Binary-Size-Second-Dimension: {image.shape[0]}\r\n\r\n"
    )
    section = b"--CIF-BINARY-FORMAT-SECTION--"
    text = f"###CBF: VERSION 1.5\r\ndata_a\r\n{header}\r\n_array_data.data\r\n;\r\n".encode()
    path.write_bytes(
        text + section + b"\r\n" + mime.encode() + b"\x0c\x1a\x04\xd5" + packed + b"\r\n" + section + b"--\r\n"
    )


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        (np.int64, [0, 2**40 + 1, -(2**35), 2**31, 7]),
        (np.int32, [0, 2**31 - 1, -(2**31), 70000, 7]),
        (np.int16, [5, -9, 32000]),
    ],
)
def test_cbf_of_each_width_keeps_its_values(tmp_path, dtype, values):
    image = np.array([values, values[::-1]], dtype)
    cbf(tmp_path / "a.cbf", image)
    found = frames_of(tmp_path / "a.cbf")[0]
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, image)


PILATUS = "_array_data.header_contents\r\n;\r\n# Detector: PILATUS 300K\r\n# Count_cutoff 400 counts\r\n;"
IMGCIF = (
    "_array_intensities.undefined_value -7\r\n_array_intensities.overload 400\r\n_array_intensities.underload 1\r\n"
)


@pytest.mark.parametrize(
    ("header", "limits"),
    [(PILATUS, CountLimits(highest=400)), (IMGCIF, CountLimits((-7,), 1, 400)), ("", CountLimits())],
)
def test_limits_that_a_cbf_names(tmp_path, truth, header, limits):
    cbf(tmp_path / "a.cbf", truth[0].astype(np.int32), header=header)
    assert count_limits(open_series(str(tmp_path / "a.cbf"))) == limits


def test_a_pilatus_file_with_gaps_and_dead_pixels(tmp_path, truth):
    image = truth[0].astype(np.int32)
    image[20:22], image[30, 5] = -1, -2
    fabio.cbfimage.CbfImage(data=image).write(tmp_path / "a.cbf")
    frames, mask, _ = run_frames(tmp_path / "a.cbf", tmp_path)
    np.testing.assert_array_equal(mask, image < 0)
    np.testing.assert_array_equal(frames[0], np.where(mask, 0, truth[0]))


def test_limits_of_tiff_and_edf_headers(tmp_path, truth):
    tifffile.imwrite(tmp_path / "a.tif", truth[0], description="# Pixel_size 172e-6 m\n# Count_cutoff 400 counts\n")
    assert count_limits(open_series(str(tmp_path / "a.tif"))) == CountLimits(highest=400)
    (tmp_path / "a.edf").write_bytes(edf_frame(truth[0], Size=4 * ROWS * COLS, Dummy=-10, DDummy=0.1))
    assert count_limits(open_series(str(tmp_path / "a.edf"))) == CountLimits((-10,))


@pytest.mark.parametrize("shape", [(N, 1, ROWS, COLS), (1, N, ROWS, COLS), (1, 1, N, ROWS, COLS)])
def test_axes_of_length_1_in_npy(tmp_path, truth, shape):
    np.save(tmp_path / "a.npy", truth.reshape(shape))
    np.testing.assert_array_equal(frames_of(tmp_path / "a.npy"), truth)
    np.save(tmp_path / "a.npy", truth.reshape(2, 3, ROWS, COLS))
    with pytest.raises(InputError, match="a 4-D array"):
        open_series(str(tmp_path / "a.npy"))
