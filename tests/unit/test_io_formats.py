"""A raw format is one new file: the template of docs/formats.md, put where formats lie, is read everywhere."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cathodeflow.code_reach import PACKAGE, code_digest
from cathodeflow.errors import InputError
from cathodeflow.io import formats
from cathodeflow.io.frames import open_series, read_frames
from cathodeflow.io.micrographs import list_micrographs, micrograph_header, read_micrograph
from cathodeflow.io.slices import open_stack, read_stack

TEMPLATE = Path(__file__).parents[2] / "docs" / "format_template.py"
FRAMES = np.random.default_rng(0).integers(0, 65536, (3, 5, 7), dtype=np.uint16)


@pytest.fixture
def template(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Install the template as one new module."""
    folder = tmp_path / "formats"
    folder.mkdir()
    shutil.copy(TEMPLATE, folder / "toy.py")
    monkeypatch.setattr(formats, "__path__", [*formats.__path__, str(folder)])
    formats.formats.cache_clear()
    yield
    sys.modules.pop("cathodeflow.io.formats.toy", None)
    formats.formats.cache_clear()


def write(path: Path, frames: NDArray[np.uint16]) -> str:
    header = b"RAW16\0\0\0" + np.array(frames.shape, "<u4").tobytes()
    path.write_bytes(header + frames.astype("<u2").tobytes())
    return str(path)


def test_without_its_module_the_format_is_unknown(tmp_path: Path) -> None:
    path = write(tmp_path / "scan.raw16", FRAMES)
    with pytest.raises(InputError):
        open_series(path)
    with pytest.raises(InputError, match="found unknown content, expected BMP, JPEG, PNG or TIFF"):
        micrograph_header(path)


def test_frames_of_a_new_format(template: None, tmp_path: Path) -> None:
    series = open_series(write(tmp_path / "scan.raw16", FRAMES))
    assert (series.n_frames, series.shape, series.dtype) == (3, (5, 7), np.uint16)
    found = dict(read_frames(series, 1))
    assert list(found) == [1, 2]
    np.testing.assert_array_equal(found[2], FRAMES[2])


def test_a_micrograph_of_a_new_format(template: None, tmp_path: Path) -> None:
    path = write(tmp_path / "image.raw16", FRAMES[:1])
    (tmp_path / "notes.doc").write_text("no image")
    assert list_micrographs(str(tmp_path)) == [path]
    header = micrograph_header(path)
    assert (header.rows, header.cols, header.bit_depth, header.channels) == (5, 7, 16, 1)
    np.testing.assert_array_equal(read_micrograph(path), FRAMES[0])


@pytest.mark.parametrize("n_files", [1, 3])
def test_slices_of_a_new_format(template: None, tmp_path: Path, n_files: int) -> None:
    folder = tmp_path / "stack"
    folder.mkdir()
    for number, part in enumerate(np.split(FRAMES, n_files)):
        write(folder / f"s_{number}.raw16", part)
    stack = open_stack(str(folder))
    assert (stack.n_slices, stack.shape) == (3, (5, 7))
    np.testing.assert_array_equal(list(read_stack(stack, 1, 3)), FRAMES[1:])


def test_bad_files_of_a_new_format_end_in_one_line(template: None, tmp_path: Path) -> None:
    path = Path(write(tmp_path / "scan.raw16", FRAMES))
    path.write_bytes(path.read_bytes()[:-1])
    for read in (open_series, micrograph_header):
        with pytest.raises(
            InputError, match=r"scan\.raw16: found a truncated file of 229 bytes, expected at least 230"
        ):
            read(str(path))
    # What is raised by libraries names the file too.
    path.write_bytes(path.read_bytes()[:12])
    with pytest.raises(InputError, match=r"scan\.raw16: found an error \(unpack .*\), expected a readable RAW16 file"):
        open_series(str(path))
    path.write_text("no such content")
    with pytest.raises(InputError, match=r"found text, expected RAW16 content, according to the suffix"):
        open_series(str(path))


def test_names_magic_and_suffixes_are_distinct(template: None) -> None:
    names = [one.name for one in formats.formats()]
    assert "RAW16" in names and len(set(names)) == len(names)
    for content in ("frames", "micrograph"):
        magic = [begin for one in formats.formats_of(content) for begin in one.magic]
        clashes = [(a, b) for a in magic for b in magic if a is not b and a.startswith(b)]
        assert not clashes and all(0 < len(begin) <= 16 for begin in magic)
        suffixes = [suffix for one in formats.formats_of(content) for suffix in one.suffixes]
        assert len(set(suffixes)) == len(suffixes)


def test_formats_load_no_library() -> None:
    heavy = "('numpy', 'h5py', 'tifffile', 'PIL', 'fabio', 'imagecodecs', 'pandas', 'pydantic')"
    code = f"import sys; from cathodeflow.io.formats import formats; formats(); print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == "[]"


@pytest.mark.parametrize("reader", ["cathodeflow.io.frames:read_frames", "cathodeflow.io.micrographs:read_micrograph"])
def test_code_digests_cover_formats_that_are_only_listed(reader: str, tmp_path: Path) -> None:
    roots = [tmp_path / name / PACKAGE.name for name in ("before", "after")]
    for root in roots:
        shutil.copytree(PACKAGE, root, ignore=shutil.ignore_patterns("__pycache__"))
    tiff = roots[1] / "io" / "formats" / "tiff.py"
    text = tiff.read_text()
    assert "bits < 8" in text
    tiff.write_text(text.replace("bits < 8", "bits < 9"))
    assert code_digest(reader, roots[0]) == code_digest(reader) != code_digest(reader, roots[1])
