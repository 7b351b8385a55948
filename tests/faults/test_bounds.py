"""Decoders that never end, crash or take all memory: ended at their limits, and the next file is read."""

import itertools
import os
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile

from cathodeflow.errors import InputError
from cathodeflow.io import decoder_process
from cathodeflow.io.decoder_process import ask
from cathodeflow.io.frames import open_series, read_frames
from cathodeflow.io.micrographs import embedded_settings, micrograph_header, read_micrograph
from cathodeflow.io.patches import read_patches

from .conftest import patches, tally
from .detector_files import FRAME, GOOD


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lower limits, so that tests are quick."""
    monkeypatch.setattr(decoder_process, "SECONDS", 0.5)


@pytest.mark.usefixtures("quick")
def test_a_decoder_that_hangs_crashes_or_takes_all_memory_is_ended(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    cases = (
        ("s of processor time", sum, itertools.count()),
        ("takes more than 1.0 GiB of memory", bytearray, 2**33),
        ("the decoder ended (SIGABRT)", os.abort),
    )
    for found, function, *arguments in cases:
        with tally("a decoder that hangs, crashes or takes all memory"), pytest.raises(InputError) as caught:
            list(ask(str(path), function, *arguments))
        assert found in str(caught.value) and str(caught.value).startswith(f"{path}: found ")
        # The process, or a new one in its place, goes on.
        assert list(ask(str(path), range, 3)) == [0, 1, 2]


def test_processes_are_kept_and_two_readers_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"x")
    next(ask(str(path), range, 1))
    process = decoder_process._IDLE[-1].process.pid
    one, other = ask(str(path), range, 5), ask(str(path), range, 10, 15)
    assert [next(one), next(other), next(one), next(other)] == [0, 10, 1, 11]
    # Left before its end: the process is asked something else.
    del one, other
    assert next(ask(str(path), range, 7, 8)) == 7
    assert process in [decoder.process.pid for decoder in decoder_process._IDLE]


def test_frames_come_through_the_process_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by a relative path, after the folder was changed."""
    monkeypatch.chdir(tmp_path)
    for name in ("frames.ge2", "hipic.img", "frame.mar3450", "packed.edf.gz"):
        GOOD[name](tmp_path / name)
        read = [frame for _, frame in read_frames(open_series(name))]
        assert read[-1].flags.writeable and (name == "frame.mar3450" or np.array_equal(read[-1], FRAME))


@pytest.mark.usefixtures("quick")
def test_damaged_detector_file_on_which_fabio_never_ends(tmp_path: Path) -> None:
    """Its reader of MPA looks for the data beyond the end of the file."""
    path = tmp_path / "a.mpa"
    path.write_text("mpafmt=asc\n")
    with tally("a detector file that fabio never ends to read"), pytest.raises(InputError, match="processor time"):
        open_series(str(path))


def test_tags_that_are_texts_are_refused(tmp_path: Path) -> None:
    """The number of rows with the type of a text, as a flipped bit makes it."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((8, 8), np.uint8))
    good = path.read_bytes()
    with tifffile.TiffFile(path) as tiff:
        offsets = [tag.offset for tag in tiff.pages[0].tags]
    kinds = range(1, 14)
    with tally("a TIFF tag of another type", len(offsets) * len(kinds)):
        for offset, kind in itertools.product(offsets, kinds):
            content = bytearray(good)
            struct.pack_into("<H", content, offset + 2, kind)
            path.write_bytes(content)
            for read in (micrograph_header, read_micrograph, embedded_settings, lambda p: frames(p)):
                try:
                    read(str(path))
                except InputError as error:
                    assert "\n" not in str(error)


def test_tiff_whose_pages_go_round_in_circles(tmp_path: Path) -> None:
    """Behind the hundredth page, where tifffile no longer looks whether a page was there before."""
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((120, 8, 8), np.uint8), photometric="minisblack", compression="zlib")
    content = bytearray(path.read_bytes())
    offsets, at = [], 4
    while offset := struct.unpack_from("<I", content, at)[0]:
        offsets.append(offset)
        at = offset + 2 + 12 * struct.unpack_from("<H", content, offset)[0]
    struct.pack_into("<I", content, at, offsets[110])
    path.write_bytes(content)
    for read in (frames, micrograph_header):
        with (
            tally("TIFF pages in a circle"),
            pytest.raises(InputError, match="page 120 at the place of an earlier one"),
        ):
            read(str(path))


def frames(path: str) -> None:
    list(read_frames(open_series(path)))


@pytest.mark.parametrize("name", ["patches", "row", "fidx"])
@pytest.mark.parametrize("value", [0.5, np.zeros(2), np.zeros((2, 2)), "text"])
def test_patches_of_another_shape_are_refused(tmp_path: Path, name: str, value: object) -> None:
    path = tmp_path / "patches.h5"
    patches(path)
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = value
    with tally("patches.h5 with another value in place of a column"), pytest.raises(InputError, match=r"patches\.h5"):
        read_patches(path)
