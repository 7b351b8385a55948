"""Every format is written by its own library, and read back frame by frame."""

import os

import fabio.cbfimage
import fabio.edfimage
import h5py
import hdf5plugin
import numpy as np
import pytest
import tifffile
from PIL import Image

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.correction_images import read_image, read_mean
from cathodeflow.io.frames import open_series, read_frames, unless_bad

N, ROWS, COLS = 7, 12, 17


@pytest.fixture
def stack():
    return np.random.default_rng(1).poisson(40, (N, ROWS, COLS)).astype(np.uint16)


def frames_of(source, *range_, **options):
    series = open_series(str(source), **options)
    return {number: frame for number, frame in read_frames(series, *range_)}


def tiff_files(folder, stack):
    for i, frame in enumerate(stack):
        tifffile.imwrite(folder / f"f_{i}.tif", frame, compression="lzw" if i % 2 else None)
    return f"{folder}/*.tif"


def tiff_stack(folder, stack):
    tifffile.imwrite(folder / "stack.tif", stack, photometric="minisblack", compression="zlib")
    return folder / "stack.tif"


def tiff_big_endian(folder, stack):
    tifffile.imwrite(folder / "stack.tif", stack, photometric="minisblack", byteorder=">", bigtiff=True)
    return folder / "stack.tif"


def tiff_one_page_for_all(folder, stack):
    tifffile.imwrite(folder / "stack.tif", stack, imagej=True, truncate=True)
    return folder / "stack.tif"


def png(folder, stack):
    for i, frame in enumerate(stack):
        Image.fromarray(frame).save(folder / f"{i}.png")
    return folder


def hdf5(folder, stack):
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("entry/data/data", data=stack, chunks=(3, 8, 8), **hdf5plugin.Bitshuffle(cname="lz4"))
        file["entry/angle"] = np.arange(N)
    return folder / "a.h5"


def hdf5_axis_of_length_1(folder, stack):
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("entry/data/data", data=stack[:, None], chunks=(2, 1, 8, 8))
    return folder / "a.h5"


def hdf5_leading_axis_of_length_1(folder, stack):
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_dataset("entry/data/data", data=stack[None], chunks=(1, 2, 8, 8))
    return folder / "a.h5"


def hdf5_named(folder, stack):
    with h5py.File(folder / "a.h5", "w") as file:
        file["one"], file["two"] = stack, stack[:, ::2]
    return f"{folder}/a.h5::/one"


def hdf5_nexus_default(folder, stack):
    with h5py.File(folder / "a.nxs", "w") as file:
        file["entry/other"] = stack[:, ::2]
        file["entry/plot/signal"] = stack
        file.attrs["default"], file["entry"].attrs["default"] = "entry", "plot"
        file["entry/plot"].attrs["signal"] = "signal"
    return folder / "a.nxs"


def hdf5_frame_per_file(folder, stack):
    for i, frame in enumerate(stack):
        with h5py.File(folder / f"{i}.h5", "w") as file:
            file["x/frame"] = frame
    return f"{folder}/*.h5::x/frame"


def npy(folder, stack):
    np.save(folder / "a.npy", stack)
    return folder / "a.npy"


def npy_fortran_big_endian(folder, stack):
    np.save(folder / "a.npy", np.asfortranarray(stack.astype(">u2")))
    return folder / "a.npy"


def frame_cache(folder, stack):
    members = {"shape": (ROWS, COLS), "nframes": N, "dtype": np.bytes_(b"uint16"), "omega": np.zeros((N, 2))}
    for i, frame in enumerate(stack):
        row, col = np.nonzero(frame)
        members |= {f"{i}_row": row.astype("u2"), f"{i}_col": col.astype("u2"), f"{i}_data": frame[row, col]}
    np.savez_compressed(folder / "cache.npz", **members)
    return folder / "cache.npz"


def edf_multi_frame(folder, stack):
    image = fabio.edfimage.EdfImage(data=stack[0])
    for frame in stack[1:]:
        image.append_frame(data=frame)
    image.write(folder / "a.edf")
    return folder / "a.edf"


def edf_files(folder, stack):
    for i, frame in enumerate(stack):
        fabio.edfimage.EdfImage(data=frame).write(folder / f"a{i}.edf")
    return folder


WRITERS = [
    tiff_files,
    tiff_stack,
    tiff_big_endian,
    tiff_one_page_for_all,
    png,
    hdf5,
    hdf5_axis_of_length_1,
    hdf5_leading_axis_of_length_1,
    hdf5_named,
    hdf5_nexus_default,
    hdf5_frame_per_file,
    npy,
    npy_fortran_big_endian,
    frame_cache,
    edf_multi_frame,
    edf_files,
]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_frames_come_back_as_written(tmp_path, stack, write):
    source = str(write(tmp_path, stack))
    series = open_series(source)
    assert (series.n_frames, series.shape, series.dtype, series.bad) == (N, (ROWS, COLS), np.uint16, ())
    read = dict(read_frames(series))
    assert list(read) == list(range(N))
    assert all(frame.dtype == np.uint16 and frame.flags.c_contiguous for frame in read.values())
    np.testing.assert_array_equal(np.stack(list(read.values())), stack)
    part = dict(read_frames(series, 1, 6, 2))
    assert list(part) == [1, 3, 5]
    np.testing.assert_array_equal(np.stack(list(part.values())), stack[1:6:2])


def test_cbf_and_jpeg_and_floats(tmp_path, stack):
    fabio.cbfimage.CbfImage(data=stack[0].astype(np.int32) - 41).write(tmp_path / "a.cbf")
    np.testing.assert_array_equal(frames_of(tmp_path / "a.cbf")[0], stack[0].astype(np.int32) - 41)
    Image.fromarray(np.full((16, 16), 77, np.uint8)).save(tmp_path / "a.jpg")
    assert (read_image(str(tmp_path / "a.jpg")) == 77).all()
    tifffile.imwrite(tmp_path / "f.tif", np.float32([[0.5]]))
    assert read_image(str(tmp_path / "f.tif"), shape=(1, 1)) == np.float32(0.5)
    tifffile.imwrite(tmp_path / "b.tif", np.array([[True, False]]))
    assert read_image(str(tmp_path / "b.tif")).dtype == bool


def test_cbf_of_64_bits_keeps_large_counts(tmp_path):
    counts = np.array([[5, 2**33, -7], [0, 2**32 - 1, 2**40]])
    fabio.cbfimage.CbfImage(data=counts).write(tmp_path / "a.cbf")
    read = frames_of(tmp_path / "a.cbf")[0]
    assert read.dtype == np.int64 and (read == counts).all()
    content = (tmp_path / "a.cbf").read_bytes()
    first = content.index(b"\x0c\x1a\x04\xd5") + 4
    (tmp_path / "a.cbf").write_bytes(content[:first] + b"\x06" + content[first + 1 :])
    with pytest.raises(InputError, match=r"a\.cbf.*found pixels of MD5"):
        frames_of(tmp_path / "a.cbf")


def test_ge_frames_with_the_blank_header_of_newer_firmware(tmp_path):
    frames = np.zeros((2, 2048, 2048), "<u2")
    frames[:, 3, 4] = 5, 6
    (tmp_path / "a.ge2").write_bytes(bytes(8192) + frames.tobytes())
    read = frames_of(tmp_path / "a.ge2")
    assert [(number, frame.shape, frame[3, 4], frame.sum()) for number, frame in read.items()] == [
        (0, (2048, 2048), 5, 5),
        (1, (2048, 2048), 6, 6),
    ]


def test_frames_in_several_files_of_several_frames_are_numbered_through(tmp_path, stack):
    tifffile.imwrite(tmp_path / "s2.tif", stack[:3], photometric="minisblack")
    tifffile.imwrite(tmp_path / "s10.tif", stack[3:], photometric="minisblack")
    read = frames_of(f"{tmp_path}/s*.tif", 2, None, 2)
    assert list(read) == [2, 4, 6]
    np.testing.assert_array_equal(np.stack(list(read.values())), stack[2::2])


def test_only_what_is_asked_for_is_read(tmp_path, stack):
    tiff_files(tmp_path, stack)
    series = open_series(str(tmp_path))
    frames = read_frames(series)
    next(frames)
    # The other files are not opened yet: one that goes now is missed only when its turn comes.
    os.remove(tmp_path / "f_2.tif")
    assert next(frames)[0] == 1
    with pytest.raises(InputError, match=r"f_2\.tif"):
        next(frames)


def test_a_sparse_series_of_terabytes_opens_at_once_and_reads_one_chunk(tmp_path):
    with h5py.File(tmp_path / "big.h5", "w") as file:
        data = file.create_dataset("data", (500_000, 2048, 2048), np.uint16, chunks=(1, 2048, 2048))
        data[499_999, 5, 6] = 7
    series = open_series(str(tmp_path / "big.h5"))
    number, frame = next(read_frames(series, 499_999))
    assert (number, frame[5, 6], frame.sum()) == (499_999, 7, 7)


def test_mean_of_a_dark_series(tmp_path, stack):
    source = str(hdf5(tmp_path, stack))
    np.testing.assert_allclose(read_mean(source, shape=(ROWS, COLS)).image, stack.mean(axis=0), rtol=1e-12)
    with pytest.raises(InputError, match=r"found \(12, 17\) pixels, expected \(3, 4\) pixels"):
        read_mean(source, shape=(3, 4))
    with pytest.raises(InputError, match="found 7 frames, expected one image"):
        read_image(source)


# Bad input: what is written, where it is found, and what is said.


def truncated(path, keep):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    return path


def text_tiff(folder, stack):
    (folder / "a.tif").write_text("not an image\n")
    return folder / "a.tif"


def truncated_tiff(folder, stack):
    tifffile.imwrite(folder / "a.tif", stack[0], metadata=None)
    return truncated(folder / "a.tif", 0.6)


def rgb_tiff(folder, stack):
    tifffile.imwrite(folder / "a.tif", np.zeros((8, 9, 3), np.uint8), photometric="rgb")
    return folder / "a.tif"


def complex_tiff(folder, stack):
    tifffile.imwrite(folder / "a.tif", np.zeros((8, 9), np.complex64))
    return folder / "a.tif"


def pages_of_two_shapes(folder, stack):
    with tifffile.TiffWriter(folder / "a.tif") as writer:
        writer.write(stack[0], metadata=None)
        writer.write(stack[1][:5], metadata=None)
    return folder / "a.tif"


def rgb_png(folder, stack):
    Image.fromarray(np.zeros((8, 9, 3), np.uint8)).save(folder / "a.png")
    return folder / "a.png"


def empty_file(folder, stack):
    (folder / "a.cbf").touch()
    return folder / "a.cbf"


def unknown_content(folder, stack):
    (folder / "a.dat").write_text("hello\n")
    return folder / "a.dat"


def dangling_link(folder, stack):
    (folder / "a.tif").symlink_to(folder / "gone.tif")
    return folder / "a.tif"


def truncated_hdf5(folder, stack):
    return truncated(hdf5(folder, stack), 0.5)


def no_dataset(folder, stack):
    return f"{hdf5(folder, stack)}::/entry/data/images"


def dataset_is_a_group(folder, stack):
    return f"{hdf5(folder, stack)}::/entry/data"


def dataset_of_rank_1(folder, stack):
    return f"{hdf5(folder, stack)}::/entry/angle"


def dataset_of_rank_4(folder, stack):
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = np.stack([stack, stack])
    return f"{folder}/a.h5::x"


def dataset_of_text(folder, stack):
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = np.full((3, 3), b"text")
    return f"{folder}/a.h5::x"


def ambiguous_hdf5(folder, stack):
    with h5py.File(folder / "a.h5", "w") as file:
        file["one"], file["two"] = stack, stack
    return folder / "a.h5"


def hdf5_without_images(folder, stack):
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = np.arange(3)
    return folder / "a.h5"


def no_frames(folder, stack):
    with h5py.File(folder / "a.h5", "w") as file:
        file["x"] = stack[:0]
    return folder / "a.h5"


def broken_external_link(folder, stack):
    with h5py.File(folder / "a.h5", "w") as file:
        file["data"] = h5py.ExternalLink("gone.h5", "/x")
    return f"{folder}/a.h5::data"


def virtual_dataset_without_its_file(folder, stack):
    layout = h5py.VirtualLayout((N, ROWS, COLS), np.uint16)
    layout[:] = h5py.VirtualSource("gone.h5", "x", (N, ROWS, COLS), np.uint16)
    with h5py.File(folder / "a.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    return folder / "a.h5"


def dataset_of_a_tiff(folder, stack):
    tifffile.imwrite(folder / "a.tif", stack[0])
    return f"{folder}/a.tif::/entry"


def pickled_npy(folder, stack):
    np.save(folder / "a.npy", np.array([[{}]], dtype=object), allow_pickle=True)
    return folder / "a.npy"


def npy_of_rank_1(folder, stack):
    np.save(folder / "a.npy", np.arange(3))
    return folder / "a.npy"


def truncated_npy(folder, stack):
    return truncated(npy(folder, stack), 0.7)


def npz_of_something_else(folder, stack):
    np.savez(folder / "a.npz", x=stack, y=stack)
    return folder / "a.npz"


def npz_without_a_member(folder, stack):
    members = dict(np.load(frame_cache(folder, stack)))
    del members["3_col"]
    np.savez(folder / "a.npz", **members)
    return folder / "a.npz"


def truncated_npz(folder, stack):
    return truncated(frame_cache(folder, stack), 0.7)


def truncated_edf(folder, stack):
    return truncated(edf_multi_frame(folder, stack), 0.99)


def truncated_cbf(folder, stack):
    fabio.cbfimage.CbfImage(data=np.random.default_rng(0).integers(0, 99, (99, 99), dtype=np.int32)).write(
        folder / "a.cbf"
    )
    return truncated(folder / "a.cbf", 0.7)


@pytest.mark.parametrize(
    ("write", "found", "expected"),
    [
        (text_tiff, "text", "TIFF content"),
        (truncated_tiff, "truncated", "a complete TIFF"),
        (rgb_tiff, "(8, 9, 3)", "grey"),
        (complex_tiff, "complex64", "real numbers"),
        (pages_of_two_shapes, "page 1 of (5, 17)", "(12, 17)"),
        (rgb_png, "mode RGB", "grey"),
        (empty_file, "an empty file", "a file of frames"),
        (unknown_content, "could not identify", "fabio reads"),
        (dangling_link, "no such file", "a file of frames"),
        (truncated_hdf5, "a truncated file", "a readable HDF5 file"),
        (no_dataset, "no such dataset", "one of /entry/data/data"),
        (dataset_is_a_group, "a group", "a dataset"),
        (dataset_of_rank_1, "a 1-D dataset", "(frame, row, col)"),
        (dataset_of_rank_4, "a 4-D dataset", "(frame, row, col)"),
        (dataset_of_text, "|S4", "real numbers"),
        (ambiguous_hdf5, "2 datasets that could be frames (/one, /two)", "FILE::/PATH"),
        (hdf5_without_images, "none", "one 2-D or 3-D dataset"),
        (no_frames, "0 frames", "at least one frame"),
        (broken_external_link, "gone.h5", "a dataset"),
        (virtual_dataset_without_its_file, "gone.h5", "in the same folder"),
        (dataset_of_a_tiff, "format TIFF", "an HDF5 file"),
        (pickled_npy, "bject", "a readable npy file"),
        (npy_of_rank_1, "a 1-D array", "(frame, row, col)"),
        (truncated_npy, "an error", "a readable npy file"),
        (npz_of_something_else, "members x, y", "hexrd frame cache"),
        (npz_without_a_member, "no 3_col", "7 2-D frames"),
        (truncated_npz, "an error", "a readable npz file"),
        (truncated_edf, "a truncated file", "at least"),
        (truncated_cbf, "a truncated file", "at least"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_bad_files_are_refused_in_one_line_that_names_them(tmp_path, stack, write, found, expected):
    source = str(write(tmp_path, stack))
    with pytest.raises(InputError) as caught:
        open_series(source)
    error = caught.value
    assert error.where.startswith(source.partition("::")[0])
    assert found in error.found
    assert expected in error.expected
    assert "\n" not in str(error)


@pytest.fixture
def scan(tmp_path, stack):
    """A scan of 7 files: number 2 has another shape, number 4 is text, number 5 another dtype."""
    tiff_files(tmp_path, stack)
    tifffile.imwrite(tmp_path / "f_2.tif", stack[2][:5])
    (tmp_path / "f_4.tif").write_text("text")
    tifffile.imwrite(tmp_path / "f_5.tif", stack[5].astype(np.float32))
    return str(tmp_path)


def test_all_bad_files_are_listed_at_once(scan):
    with pytest.raises(InputErrors) as caught:
        open_series(scan)
    lines = str(caught.value).splitlines()
    assert [line.partition(": ")[0][-7:] for line in lines] == ["f_2.tif", "f_4.tif", "f_5.tif"]
    assert lines[0].endswith(
        "found uint16 of (5, 17) pixels, expected uint16 of (12, 17) pixels, as in " + scan + "/f_0.tif"
    )


def test_files_left_out_do_not_shift_the_numbers_of_the_others(scan, stack):
    series = open_series(scan, on_bad_file="skip")
    assert (series.n_frames, len(series.bad)) == (7, 3)
    read = dict(read_frames(series))
    assert list(read) == [0, 1, 3, 6]
    np.testing.assert_array_equal(read[6], stack[6])


def test_a_first_file_that_is_the_odd_one_is_the_bad_one(tmp_path, stack):
    tiff_files(tmp_path, stack)
    tifffile.imwrite(tmp_path / "f_0.tif", stack[0][:3])
    assert [error.where[-7:] for error in open_series(str(tmp_path), on_bad_file="skip").bad] == ["f_0.tif"]


def test_skipping_never_leaves_nothing(tmp_path):
    (tmp_path / "a.tif").write_text("text")
    with pytest.raises(InputError, match="found text"):
        open_series(str(tmp_path), on_bad_file="skip")


@pytest.fixture
def undecodable(tmp_path, stack):
    """PNG frames whose headers are whole; the pixels of 1 and 4 are not."""
    source = png(tmp_path, stack)
    for i in (1, 4):
        truncated(tmp_path / f"{i}.png", 0.6)
    return str(source)


def test_pixels_that_cannot_be_decoded_are_an_error_in_their_turn(undecodable):
    frames = read_frames(open_series(undecodable))
    assert next(frames)[0] == 0
    with pytest.raises(InputError, match=r"1\.png, frame 0: found an error \(.+\), expected readable"):
        next(frames)


def test_undecodable_frames_are_all_listed_or_left_out(undecodable):
    series = open_series(undecodable)
    bad = []
    assert [number for number, _ in read_frames(series, bad=bad)] == [0, 2, 3, 5, 6]
    assert len(bad) == 2
    bad, passed = [], []
    with pytest.raises(InputErrors) as caught:
        for number, _ in unless_bad(read_frames(series, bad=bad), bad):
            passed.append(number)
    assert passed == [0]
    assert len(caught.value.errors) == 2


def test_a_corrupt_hdf5_chunk_is_one_line(tmp_path, stack):
    path = hdf5(tmp_path, stack)
    with h5py.File(path) as file:
        chunk = file["entry/data/data"].id.get_chunk_info(4)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"a\.h5, frame .*expected readable HDF5 frames"):
        list(read_frames(open_series(str(path))))


@pytest.mark.parametrize("range_", [(7,), (3, 3), (5, 2)])
def test_a_range_without_frames_is_refused(tmp_path, stack, range_):
    series = open_series(str(npy(tmp_path, stack)))
    with pytest.raises(InputError, match="expected a range within its 7 frames"):
        list(read_frames(series, *range_))


def test_sparse_coordinates_outside_the_frame_are_refused(tmp_path, stack):
    members = dict(np.load(frame_cache(tmp_path, stack)))
    members["2_row"] = members["2_row"] + ROWS
    np.savez(tmp_path / "a.npz", **members)
    with pytest.raises(InputError, match=r"a\.npz, frame 2: found an error \(index 12"):
        list(read_frames(open_series(str(tmp_path / "a.npz"))))
