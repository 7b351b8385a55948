import os
import subprocess
import sys
import weakref

import h5py
import numpy as np
import pytest

from cathodeflow.errors import InputError
from cathodeflow.io.frames_file import read_frames_file
from cathodeflow.io.frames_writer import write_frames

FRAMES = np.random.default_rng(3).poisson(5, (4, 9, 11)).astype(np.float32)


def write(path, frames=FRAMES, **options):
    return write_frames(path, ((10 + i, frame) for i, frame in enumerate(frames)), shape=(9, 11), **options)


def test_what_is_written_is_read(tmp_path):
    mask = np.eye(9, 11, dtype=bool)
    path = tmp_path / "new" / "frames.h5"
    assert write(path, mask=mask, binning=2, source="raw/scan1", raw_shape=(19, 23)) == (4, 0, 0)
    with read_frames_file(path) as file:
        assert len(file.frames) == 4
        np.testing.assert_array_equal(np.stack(list(file.frames)), FRAMES)
        np.testing.assert_array_equal(file.frames[-1], FRAMES[-1])
        np.testing.assert_array_equal(file.mask, mask)
        assert file.frame_number.tolist() == [10, 11, 12, 13]
        assert file[3:6] == (2, "raw/scan1", (19, 23))
        with pytest.raises(IndexError):
            file.frames[4]


def test_the_layout_is_braggnns_with_a_chunk_per_frame(tmp_path):
    write(tmp_path / "frames.h5")
    with h5py.File(tmp_path / "frames.h5") as file:
        frames = file["frames"]
        assert (frames.dtype, frames.shape, frames.chunks) == (np.float32, (4, 9, 11), (1, 9, 11))
        assert frames.id.get_create_plist().get_filter(0)[0] == 32008  # registered number of bitshuffle
        assert {name: file[name].dtype for name in ("mask", "frame_number")} == {"mask": "u1", "frame_number": "i8"}


def test_braggnns_own_file_opens(tmp_path):
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["frames"] = FRAMES
    with read_frames_file(tmp_path / "frames.h5") as file:
        np.testing.assert_array_equal(file.frames[2], FRAMES[2])
        assert not file.mask.any()
        assert file[2:6] == (pytest.approx(np.arange(4)), 1, "", (9, 11))
        assert file.bad_pixels(3) is file.mask


def test_pixels_without_a_count_in_one_frame_are_bad_there_alone(tmp_path):
    frames, mask = FRAMES.copy(), np.zeros((9, 11), bool)
    mask[0, 0] = True
    frames[:, 0, 0] = frames[1, 3, 4] = frames[1, 8, 10] = frames[3, 2, 2] = np.nan
    assert write(tmp_path / "frames.h5", frames, mask=mask) == (4, 3, 0)
    with read_frames_file(tmp_path / "frames.h5") as file:
        for index, frame in enumerate(file.frames):
            np.testing.assert_array_equal(file.bad_pixels(index), np.isnan(frames[index]) | mask)
            np.testing.assert_array_equal(frame, np.nan_to_num(frames[index]))


@pytest.mark.parametrize("rows", [[[0, 9, 0]], [[4, 0, 0]], [[1, 0, 0], [0, 0, 0]]])
def test_wrong_invalid_pixels_are_one_line(tmp_path, rows):
    write(tmp_path / "frames.h5")
    with h5py.File(tmp_path / "frames.h5", "r+") as file:
        del file["invalid_pixels"]
        file["invalid_pixels"] = np.array(rows, np.uint32)
    with (
        pytest.raises(InputError, match="invalid_pixels: found pixels outside"),
        read_frames_file(tmp_path / "frames.h5"),
    ):
        pass


@pytest.mark.parametrize("compression", ["gzip", "none", "bitshuffle-lz4"])
def test_plain_h5py_reads_the_frames_unless_they_need_the_plugin(tmp_path, compression):
    write(tmp_path / "frames.h5", compression=compression)
    script = "import h5py, sys; print(float(h5py.File(sys.argv[1])['frames'][()].sum()))"
    variables = {name: value for name, value in os.environ.items() if name != "HDF5_PLUGIN_PATH"}
    command = [sys.executable, "-c", script, str(tmp_path / "frames.h5")]
    ran = subprocess.run(command, capture_output=True, text=True, env=variables)
    with h5py.File(tmp_path / "frames.h5") as file:
        said = file.attrs["compression"]
    if compression == "bitshuffle-lz4":
        assert ran.returncode and "import hdf5plugin" in said
        command[2] = f"import hdf5plugin; {script}"
        ran = subprocess.run(command, capture_output=True, text=True, env=variables)
    else:
        assert said == compression
    assert float(ran.stdout) == FRAMES.sum(dtype=float)


def test_equal_frames_give_equal_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        write(tmp_path / name, source="s")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_frames_are_written_as_they_come_and_none_is_kept(tmp_path):
    frames = [np.full((9, 11), i, np.float32) for i in range(5)]
    alive = [weakref.ref(frame) for frame in frames]

    def handed_over():
        for i in range(5):
            if i > 1:
                assert alive[i - 2]() is None
            yield i, frames.pop(0)

    assert write_frames(tmp_path / "frames.h5", handed_over(), shape=(9, 11)) == (5, 0, 0)


def failing():
    yield 0, FRAMES[0]
    raise InputError("raw/7.tif", "text", "a TIFF")


@pytest.mark.parametrize(
    ("frames", "error"),
    [
        (failing(), "raw/7.tif"),
        ([], "found no frame"),
        ([(0, FRAMES[0, :5])], "frame 0 of"),
        ([(0, 1.0)], "frame 0 of"),
    ],
)
def test_nothing_is_left_behind_on_failure(tmp_path, frames, error):
    with pytest.raises((InputError, ValueError), match=error):
        write_frames(tmp_path / "frames.h5", frames, shape=(9, 11))
    assert os.listdir(tmp_path) == []


def test_a_file_that_stands_survives_a_failure(tmp_path):
    write(tmp_path / "frames.h5")
    before = (tmp_path / "frames.h5").read_bytes()
    with pytest.raises(InputError):
        write_frames(tmp_path / "frames.h5", failing(), shape=(9, 11))
    assert (tmp_path / "frames.h5").read_bytes() == before
    assert os.listdir(tmp_path) == ["frames.h5"]


def test_a_mask_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match="mask of"):
        write(tmp_path / "frames.h5", mask=np.zeros((3, 3)))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("datasets", "where", "found", "expected"),
    [
        ({"images": FRAMES}, "", "datasets images", "a dataset frames"),
        ({}, "", "datasets none", "a dataset frames"),
        ({"frames": FRAMES[0]}, "::frames", "float32 of shape (9, 11)", "(frame, row, col)"),
        ({"frames": FRAMES[:0]}, "::frames", "float32 of shape (0, 9, 11)", "at least one frame"),
        ({"frames": FRAMES.astype(complex)}, "::frames", "complex128", "real numbers"),
        ({"frames": FRAMES, "mask": np.zeros((3, 3), "u1")}, "::mask", "uint8 of shape (3, 3)", "shape (9, 11)"),
        ({"frames": FRAMES, "frame_number": np.arange(3)}, "::frame_number", "int64 of shape (3,)", "shape (4,)"),
    ],
)
def test_a_wrong_layout_is_one_line(tmp_path, datasets, where, found, expected):
    path = tmp_path / "frames.h5"
    with h5py.File(path, "w") as file:
        for name, data in datasets.items():
            file[name] = data
    with pytest.raises(InputError) as caught, read_frames_file(path):
        pass
    assert caught.value.where == f"{path}{where}"
    assert found in caught.value.found
    assert expected in caught.value.expected


@pytest.mark.parametrize("attributes", [{"binning": 0}, {"binning": "two"}, {"raw_shape": [1, 2, 3]}])
def test_wrong_attributes_are_one_line(tmp_path, attributes):
    with h5py.File(tmp_path / "frames.h5", "w") as file:
        file["frames"] = FRAMES
        file.attrs.update(attributes)
    with (
        pytest.raises(InputError, match=r"expected (integers|a number|two numbers)"),
        read_frames_file(tmp_path / "frames.h5"),
    ):
        pass


def test_a_truncated_file_is_one_line(tmp_path):
    path = tmp_path / "frames.h5"
    write(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match="found a truncated file"), read_frames_file(path):
        pass


def test_a_corrupt_frame_is_named(tmp_path):
    path = tmp_path / "frames.h5"
    write(path)
    with h5py.File(path) as file:
        chunk = file["frames"].id.get_chunk_info(2)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(data)
    with read_frames_file(path) as file:
        np.testing.assert_array_equal(file.frames[1], FRAMES[1])
        with pytest.raises(InputError, match=r"frames\.h5::/frames, frame 2: found an error"):
            file.frames[2]
