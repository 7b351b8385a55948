"""Any other byte in what the user gives counts; times, places and the search for a graphics card do not."""

import os
import shutil
import time
from pathlib import Path

import pandas as pd
import pytest

from cathodeflow.bragg.network_options import Train
from cathodeflow.errors import InputError
from cathodeflow.io import digests
from cathodeflow.io.digests import file_digest
from cathodeflow.io.known_digests import KnownDigests
from cathodeflow.io.notes import Notes
from cathodeflow.options import Options, to_flags
from cathodeflow.reruns import Devices, content, followed, with_contents
from cathodeflow.samples import source_errors
from cathodeflow.sem.moved_images import present_paths, read_split
from cathodeflow.sem.options import DataSet, Section

LONG_AGO = 1e9


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two raw files, which the system has known for long."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    Path("raw").mkdir()
    for name in ("a", "b"):
        write(f"raw/{name}.tif", name.encode() * 1000)
    later(monkeypatch)
    return tmp_path


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the last change of all files be past, as between two runs."""
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 60)


def write(path: str, data: bytes, *, of: float = LONG_AGO) -> None:
    Path(path).write_bytes(data)
    os.utime(path, (of, of))


def known(**options: bool) -> KnownDigests:
    """What another run of Snakemake begins with."""
    return KnownDigests(Notes(".snakemake/notes"), **options)


def count_readings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the files that are read from now on."""
    read: list[str] = []

    def digest(path: str) -> str:
        read.append(path)
        return file_digest(path)

    for module in ("digests", "known_digests"):
        monkeypatch.setattr(f"cathodeflow.io.{module}.file_digest", digest)
    return read


FILES = ["raw/b.tif", "raw/a.tif"]


def test_known_files_are_not_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = [file_digest(path) for path in FILES]
    read = count_readings(monkeypatch)
    assert known().of(FILES) == expected and sorted(read) == sorted(FILES)
    read.clear()
    assert known().of(FILES) == expected and read == []
    assert known(cache=False).of(FILES) == expected and sorted(read) == sorted(FILES)


@pytest.mark.parametrize("size", [1000, digests.REMEMBERED_BYTES])
@pytest.mark.parametrize("age", [0.0, -1e6, 1e6])
@pytest.mark.parametrize("way", ["in place", "renamed", "copied over", "swapped"])
def test_other_bytes_of_the_same_size_count_whatever_their_time(folder: Path, size: int, age: float, way: str) -> None:
    for name in "ab":
        write(f"raw/{name}.tif", name.encode() * size)
    before = known().of(FILES)
    write("new", b"a" * (size - 1) + b"x", of=LONG_AGO + age)
    if way == "in place":
        # As a disk tool does, that sets the time back.
        with open("raw/a.tif", "r+b") as file:
            file.seek(size - 1)
            file.write(b"x")
        os.utime("raw/a.tif", (LONG_AGO + age,) * 2)
    elif way == "renamed":
        os.replace("new", "raw/a.tif")
    elif way == "copied over":
        shutil.copy2("new", "raw/a.tif")
    else:
        os.rename("raw/a.tif", "other")
        os.rename("raw/b.tif", "raw/a.tif")
        os.rename("other", "raw/b.tif")
    after = known().of(FILES)
    assert after == [file_digest(path) for path in FILES]
    assert after == before[::-1] if way == "swapped" else (after[0] == before[0] and after[1] != before[1])


def test_a_file_changed_just_now_is_not_remembered(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = os.stat("raw/a.tif").st_ctime
    monkeypatch.setattr(time, "time", lambda: now + 0.5)
    read = count_readings(monkeypatch)
    known().of(FILES)
    known().of(FILES)
    assert len(read) == 4


def test_answers_stay_the_same_in_a_process(folder: Path) -> None:
    process = known()
    before = process.of(FILES)
    write("raw/a.tif", b"x" * 1000)
    assert process.of(FILES) == before != known().of(FILES)


def test_damaged_notes_are_no_digests(folder: Path) -> None:
    expected = known().of(FILES)
    notes = Path(".snakemake/notes")
    for text in (
        notes.read_text()[:-30],
        "\x00\xff[]{}",
        notes.read_text().replace(expected[0], "0" * 63 + "g"),
        "[1]\n[]\nnull\n",
    ):
        notes.write_bytes(text.encode("latin1"))
        assert known().of(FILES) == expected
    notes.unlink()
    notes.mkdir()
    assert known().of(FILES) == expected


def test_notes_keep_the_last_value_and_stay_short(folder: Path) -> None:
    notes = Notes("notes")
    for number in range(1500):
        notes.add({"key": [number]})
    assert notes.read() == {"key": [1499]}
    assert len(Path("notes").read_text().splitlines()) < 10 and notes.read() == {"key": [1499]}


def test_missing_files_are_named(folder: Path) -> None:
    Path("raw/link.tif").symlink_to("nowhere")
    for path in ("raw/c.tif", "raw/link.tif"):
        with pytest.raises(InputError, match=rf"^{path}: found no such file or directory, expected a file"):
            known().of([path])


def test_reading_much_is_announced_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cathodeflow.io.known_digests._LONG_BYTES", 500)
    said: list[str] = []
    reader = KnownDigests(Notes("notes"), tell=said.append)
    reader.of(FILES[:1])
    reader.of(FILES)
    assert len(said) == 1 and "raw files" in said[0]
    KnownDigests(Notes("notes"), tell=said.append).of(FILES)
    assert len(said) == 1


def test_contents_are_those_of_the_files_in_order_wherever_they_lie(folder: Path) -> None:
    def of(source: str, files: list[str], base: str | None = None) -> str:
        return content(source, files, known().of, base)

    first = of("raw/*.tif", FILES)
    assert of(f"{folder}/raw", [f"{folder}/{path}" for path in FILES]) == first
    shutil.copytree("raw", "moved/deeper")
    assert of("moved", ["moved/deeper/b.tif", "moved/deeper/a.tif"]) == first
    assert of("raw/*.tif::/entry/data", FILES) != first
    assert len({first, of("raw", FILES[:1]), of("raw", FILES[::-1]), of("raw", [*FILES, FILES[0]])}) == 4
    os.rename("moved/deeper/b.tif", "moved/deeper/c.tif")
    assert of("moved", ["moved/deeper/c.tif", "moved/deeper/a.tif"]) != first
    # Where the folder of a file is its class, the folder's name counts.
    assert of("moved", ["moved/deeper/a.tif"], "moved") != of("raw", ["raw/a.tif"], "raw")
    assert of("raw", ["raw/a.tif"], "raw") == of("moved/deeper", ["moved/deeper/a.tif"], "moved/deeper")


def test_snakemake_follows_what_jobs_make_and_what_it_fetches(folder: Path) -> None:
    files = ["results/raw/a.tif", f"{folder}/results/b.tif", "https://example.org/a.h5"]
    assert followed([*files, "raw/a.tif", "../results/a.tif", "results2/a.tif"]) == files
    # They need not be there yet.
    assert content("results/raw/*.tif", files[:2], known().of) == "results"
    assert content(files[2], files[2:], known().of) == files[2]


def test_files_that_options_name_count_by_content(folder: Path) -> None:
    flags = to_flags(with_contents(Train(initial="raw/a.tif"), known().of))
    assert file_digest("raw/a.tif") in flags and "raw" not in flags
    shutil.copy("raw/a.tif", "other.pt")
    assert to_flags(with_contents(Train(initial=f"{folder}/other.pt"), known().of)) == flags
    assert to_flags(with_contents(Train(initial="raw/b.tif"), known().of)) != flags
    assert with_contents(Train(), known().of) == Train()
    made = Train(initial="results/bragg/model/braggnn.pt")
    assert with_contents(made, known().of) == made


class Groups(Options):
    """Options of a stage, in groups."""

    train: Train = Train()


def test_files_in_groups_of_options_count_by_content_too(folder: Path) -> None:
    found = with_contents(Groups(train=Train(initial="raw/a.tif", epochs=3)), known().of)
    assert found.train.initial == file_digest("raw/a.tif") and found.train.epochs == 3


def run(asked: str, here: str, *, dry: bool = False, stage: str = "train") -> str:
    """The name that one run of Snakemake compares."""
    devices = Devices(Notes("devices"))
    if not dry:
        devices.begin()
    return devices.name(stage, asked, here)


def test_auto_takes_what_is_there_and_a_demand_only_its_own(folder: Path) -> None:
    assert run("cpu", "cpu") == run("auto", "cpu") == run("cpu", "cuda") == "cpu"
    # A dry run leaves nothing behind.
    assert run("cuda", "cuda", dry=True) == "cuda" and run("cpu", "cpu", dry=True) == "cpu"
    # With `auto`, results of the CPU stay valid on a machine with a GPU; what runs there may be on either.
    assert run("auto", "cuda") == "cpu"
    only = run("cpu", "cpu")
    assert only != "cpu" and run("cpu", "cpu") == run("auto", "cpu") == run("auto", "cuda") == only
    assert run("cuda", "cuda") == "cuda" and run("auto", "cpu", dry=True) == "cuda"
    assert run("cpu", "cpu", stage="locate") == "cpu"


def test_auto_without_notes_is_what_is_there(folder: Path) -> None:
    assert run("auto", "cuda", dry=True) == "cuda" and run("auto", "cpu", dry=True) == "cpu"
    Path("devices").write_text('["train"]\n["train", 3]\nnonsense')
    assert run("auto", "cpu", stage="locate") == "cpu"


def test_moved_images_are_found_again(folder: Path) -> None:
    for path in ("here/622/1.tif", "here/811/1.tif", "sets/list.csv", "pictures/x/1.tif", "pictures/1.tif"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(b"")
    old = ["/data/raw/622/1.tif", "/data/raw/811/1.tif"]
    assert present_paths(old, "here") == ["here/622/1.tif", "here/811/1.tif"]
    assert present_paths(["here/811/1.tif"], f"{folder}/here") == [f"{folder}/here/811/1.tif"]
    Path("sets/list.csv").write_text("image\n../pictures/1.tif\n../pictures/x/1.tif\n")
    assert present_paths(["a/pictures/x/1.tif", "a/pictures/1.tif"], "sets/list.csv") == [
        "pictures/x/1.tif",
        "pictures/1.tif",
    ]
    with pytest.raises(InputError, match=r"^here: found no image 2.tif"):
        present_paths(["/data/raw/622/2.tif"], "here")


def test_a_sheet_says_where_the_images_are(folder: Path) -> None:
    for path in ("here/622/1.tif", "here/811/1.tif"):
        Path(path).parent.mkdir(parents=True)
        Path(path).write_bytes(b"")
    table = pd.DataFrame(
        {
            "name": ["one/622/1.tif", "two/622/1.tif", "one/811/1.tif"],
            "image": ["gone/622/1.tif", "gone/2/622/1.tif", "gone/811/1.tif"],
        }
    )
    table.to_parquet("split.parquet")
    Path("sheet.tsv").write_text("sample\timages\none\there\n")
    assert list(read_split("split.parquet", ["name", "image"])["image"]) == list(table["image"])
    assert list(read_split("split.parquet", ["name", "image"], sheet="sheet.tsv")["image"]) == [
        "here/622/1.tif",
        "gone/2/622/1.tif",
        "here/811/1.tif",
    ]


def test_links_to_nothing_are_named_before_any_job(folder: Path) -> None:
    Path("raw/c.tif").symlink_to("nowhere")
    Path("list.csv").write_text("image,composition\nraw/a.tif,622\nraw/gone.tif,622\n")
    assert [str(error) for error in source_errors("s.tsv: scan 'a'", {"frames": "raw", "dark": None})] == [
        "s.tsv: scan 'a', frames: raw/c.tif: found no such file, or a link to none, expected a file"
    ]
    section = Section(samples="s.tsv")
    with pytest.raises(InputError, match=r"s.tsv: data set 'a', images: raw/gone.tif: found no such file"):
        section.check({"a": DataSet(sample="a", images="list.csv")})
