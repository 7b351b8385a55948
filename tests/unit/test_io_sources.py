import os
import subprocess
import sys

import pytest

from cathodeflow.errors import InputError
from cathodeflow.io.image_lists import image_files, images_in, subfolders
from cathodeflow.io.sources import list_files, split_source


def touch(folder, *names):
    for name in names:
        (folder / name).write_bytes(b"x")


def test_a_folder_gives_its_regular_visible_files_in_natural_order(tmp_path):
    touch(tmp_path, "frame_10.tif", "frame_2.tif", "frame_1.tif", ".hidden")
    (tmp_path / "dark").mkdir()
    touch(tmp_path / "dark", "dark_1.tif")
    assert list_files(str(tmp_path)) == [str(tmp_path / f"frame_{i}.tif") for i in (1, 2, 10)]


def test_a_pattern_gives_what_matches_and_keeps_natural_order_across_folders(tmp_path):
    for folder in ("scan10", "scan2"):
        (tmp_path / folder).mkdir()
        touch(tmp_path / folder, "b.h5", "notes.txt")
    found = list_files(f"{tmp_path}/scan*/*.h5::/entry/data/data")
    assert found == [f"{tmp_path}/scan2/b.h5", f"{tmp_path}/scan10/b.h5"]


def test_names_that_natural_order_holds_equal_have_one_order(tmp_path):
    touch(tmp_path, "f1", "f01", "f001")
    assert [os.path.basename(name) for name in list_files(str(tmp_path))] == ["f001", "f01", "f1"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path):
    touch(tmp_path, "a[1].tif", "a1.tif")
    assert list_files(str(tmp_path / "a[1].tif")) == [str(tmp_path / "a[1].tif")]


@pytest.mark.parametrize(
    ("source", "found"),
    [("none.tif", "no file of this name"), ("*.tif", "no file that matches"), ("empty", "a folder without files")],
)
def test_nothing_found_is_one_line(tmp_path, source, found):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError) as caught:
        list_files(str(tmp_path / source))
    assert (caught.value.where, caught.value.found) == (str(tmp_path / source), found)


def test_the_dataset_is_split_off():
    assert split_source("a.h5::/x") == ("a.h5", "/x")
    assert split_source("a.h5") == ("a.h5", None)


def test_listing_files_loads_no_array_library():
    code = "import sys, cathodeflow.io.sources; print([m for m in ('numpy', 'h5py', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_names_that_are_not_utf8_are_named_never_skipped(tmp_path):
    folder = tmp_path / "images"
    (folder / "a").mkdir(parents=True)
    touch(folder, "good.tif")
    name = os.fsdecode(b"M\xfcll.tif")
    touch(folder, name)
    for read in (list_files, images_in, image_files):
        with pytest.raises(InputError, match=r"images/M\\xfcll\.tif: found a name that is not in UTF-8"):
            read(str(folder))
    with pytest.raises(InputError, match="not in UTF-8"):
        image_files(f"{folder}/*.tif")
    (folder / os.fsdecode(b"\xfcbrig")).mkdir()
    with pytest.raises(InputError, match="not in UTF-8"):
        subfolders(str(folder))


def test_a_folder_named_like_a_pattern_is_that_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for folder in ("raw[1]", "raw1", "raw2"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "f1.tif").touch()
    assert list_files("raw[1]/*.tif") == list_files("raw[1]") == ["raw[1]/f1.tif"]
    assert list_files("raw[12]/f[1].tif") == ["raw1/f1.tif", "raw2/f1.tif"]
    assert list_files(str(tmp_path / "raw[1]" / "f[1].tif")) == [str(tmp_path / "raw[1]" / "f1.tif")]
    assert list_files("raw*/*.tif") == ["raw1/f1.tif", "raw2/f1.tif", "raw[1]/f1.tif"]
    for name in ("g[2]_1.tif", "g[2]_2.tif", "h2_1.tif", "h[2]_1.tif"):
        (tmp_path / "raw1" / name).touch()
    assert list_files("raw1/g[2]_*.tif") == ["raw1/g[2]_1.tif", "raw1/g[2]_2.tif"]
    assert list_files("raw1/h[2]_*.tif") == ["raw1/h2_1.tif"]


def test_windows_paths_say_what_they_need():
    with pytest.raises(InputError, match=r"expected a file, .* files, with / between folders instead of \\$"):
        list_files("C:\\data\\*.tif")


def test_what_systems_leave_in_folders_is_no_data(tmp_path):
    for name in ("f1.tif", "Thumbs.db", "desktop.ini", ".DS_Store", "._f1.tif", "Icon\r"):
        (tmp_path / name).touch()
    assert list_files(str(tmp_path)) == list_files(f"{tmp_path}/*") == [f"{tmp_path}/f1.tif"]
