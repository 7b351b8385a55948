import os
import subprocess
import sys
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from cathodeflow import sem
from cathodeflow.errors import InputError
from cathodeflow.io.image_lists import image_files, raw_files
from cathodeflow.io.tables import read_table, write_table
from cathodeflow.sem.classes import ImageRow, list_images, similar_labels
from cathodeflow.sem.data_sets import simulated_files
from cathodeflow.sem.header_checks import find_problems
from cathodeflow.sem.image_options import Index
from cathodeflow.sem.image_table import build_index, odd_images
from cathodeflow.sem.options import DataSet, Section

CLASSES = ("333", "811")
KNOWN = Index(compositions=CLASSES)


def write_image(path: Path, seed: int, *, bar: int = 6, time: str | None = None) -> NDArray[np.uint8]:
    """Write a PNG with a bar and, given a time, a sidecar."""
    image = np.random.default_rng(seed).integers(40, 200, (48, 60), dtype=np.uint8)
    if bar:
        image[-bar:] = 0
        image[-3, 10:30] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    if time:
        Path(f"{path}.txt").write_text(f"[Image Info]\nModel : SNE\nDate : {time}\n[Running Info]\nFocus : {seed}\n")
    return image


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Three classes of three images; times run against the names."""
    for number, name in enumerate(["333", "333_cycled", "811_formation"]):
        for image in range(3):
            when = f"2019-09-0{number + 1} 오전 {5 - image}:00:00"
            write_image(tmp_path / "set" / name / f"i_{image}.png", 10 * number + image, time=when)
    return tmp_path / "set"


def index_of(source: Path, bad: list[InputError] | None = None, **options: object) -> pd.DataFrame:
    known = Index.model_validate(KNOWN.model_dump() | options)
    return build_index(list_images(str(source), known.compositions, known.states), known, bad=bad)


def lines(error: pytest.ExceptionInfo[InputError]) -> list[str]:
    return [str(single) for single in error.value.errors]


def test_the_index_tells_what_is_known_of_every_image(folders: Path) -> None:
    pixels = write_image(folders / "333" / "i_2.png", 77, time="2019-09-01 오후 3:00:00")
    index = index_of(folders)
    assert len(index) == 9
    row = index[index["name"] == "333/i_2.png"].iloc[0]
    assert row["image"] == str(folders / "333" / "i_2.png")
    assert (row["label"], row["composition"], row["state"]) == ("333", "333", "pristine")
    assert tuple(row[["rows", "cols", "bit_depth", "channels", "bar_rows"]]) == (48, 60, 8, 1, 6)
    assert row["time"] == datetime(2019, 9, 1, 15)
    assert (row["focus"], row["maker"]) == (77, "SEC SNE")
    assert np.isnan(row["magnification"]) and row["detector"] is None
    assert row["mean"] == pytest.approx(pixels[:42].mean() / 255)
    assert row["deviation"] == pytest.approx(pixels[:42].std() / 255)
    assert index["label"].unique().tolist() == ["333", "333_cycled", "811_formation"]
    assert index["state"].unique().tolist() == ["pristine", "cycled", "formation"]


def test_rows_are_in_order_of_class_time_and_natural_name(folders: Path) -> None:
    for name in ("i_10.png", "i_9.png"):
        write_image(folders / "333" / name, 50 + len(name))
    names = index_of(folders)["name"].tolist()
    assert names[:5] == [f"333/i_{number}.png" for number in (2, 1, 0, 9, 10)]
    assert names[5:] == [f"{label}/i_{image}.png" for label in ("333_cycled", "811_formation") for image in (2, 1, 0)]


def test_the_index_does_not_depend_on_the_order_of_files(folders: Path) -> None:
    rows = list_images(str(folders), CLASSES)
    pd.testing.assert_frame_equal(build_index(rows, KNOWN), build_index(rows[::-1], KNOWN))


def test_the_table_survives_parquet(folders: Path, tmp_path: Path) -> None:
    index = index_of(folders)
    write_table(tmp_path / "index.parquet", index)
    pd.testing.assert_frame_equal(read_table(tmp_path / "index.parquet"), index, check_dtype=False)
    assert index["session"].isna().all() and index["time"].dtype == "datetime64[ns]"


def test_a_state_in_full_is_the_same_class_as_none(folders: Path) -> None:
    (folders / "333").rename(folders / "333_pristine")
    index = index_of(folders)
    assert index["label"].unique().tolist() == ["333", "333_cycled", "811_formation"]
    assert index["name"].iloc[0] == "333_pristine/i_2.png"


def test_any_class_needs_no_list(folders: Path) -> None:
    (folders / "333").rename(folders / "LFP")
    (folders / "333_cycled").rename(folders / "graphite_fine")
    rows = list_images(str(folders))
    found = {row.label: (row.composition, row.state) for row in rows}
    assert found == {
        "LFP": ("LFP", "pristine"),
        "graphite_fine": ("graphite_fine", "pristine"),
        "811_formation": ("811", "formation"),
    }
    rows = list_images(str(folders), states=("coarse", "fine", "formation"))
    assert {row.label: row.state for row in rows}["graphite_fine"] == "fine"
    table = folders.parent / "t.csv"
    table.write_text(
        f"image,composition,state\n{rows[0].image},LFP,fresh\n{rows[1].image},LFP,\n{rows[2].image},,fresh\n"
    )
    with pytest.raises(InputError) as error:
        list_images(str(table))
    assert lines(error) == [f"{table} line 4: found no composition, expected the class of the image"]
    table.write_text("".join(table.read_text().splitlines(keepends=True)[:3]))
    assert [row.label for row in list_images(str(table))] == ["LFP_fresh", "LFP"]
    (folders / "a{b}").mkdir()
    with pytest.raises(InputError, match=r"found a class 'a\{b\}', expected a name without"):
        list_images(str(folders))


def test_one_class_is_told_before_anything_is_trained(folders: Path) -> None:
    sets = {"a": DataSet(sample="a", role="train", images=str(folders))}
    assert list(find_problems(Section(samples="sem.tsv"), sets)) == []
    for name in ("333_cycled", "811_formation"):
        (folders / name).rename(folders.parent / name)
    # As archives of a Mac have them.
    (folders / "__MACOSX").mkdir()
    found = [str(problem) for problem in find_problems(Section(samples="sem.tsv"), sets)]
    assert found == ["sem.tsv: found one class, 333, expected at least two to train on"]


def test_names_that_look_the_same_are_told() -> None:
    assert similar_labels(["M\u00fc", "Mu\u0308"]) and similar_labels(["A", "A "])


def test_duplicates_are_marked_and_left_out_whatever_their_bars(folders: Path) -> None:
    original = np.asarray(Image.open(folders / "333" / "i_1.png")).copy()
    original[-4, 40:50] = 255
    Image.fromarray(original).save(folders / "333" / "copy.png")
    index = index_of(folders).set_index("name")
    assert index["duplicate_of"].dropna().to_dict() == {"333/copy.png": "333/i_1.png"}
    assert index["split"].dropna().to_dict() == {"333/copy.png": "left out"}


def test_duplicates_do_not_count_towards_the_fewest_images(folders: Path) -> None:
    (folders / "333" / "i_1.png").write_bytes((folders / "333" / "i_0.png").read_bytes())
    with pytest.raises(
        InputError, match=r"set/333: found 2 usable images of class 333, all different, expected at least 3"
    ):
        index_of(folders)


def test_one_image_in_two_classes_is_an_error(folders: Path) -> None:
    for label in ("333", "811_formation"):
        write_image(folders / label / "same.png", 99)
    with pytest.raises(InputError) as error:
        index_of(folders)
    assert len(lines(error)) == 2
    assert "same.png: found the same pixels as 811_formation/same.png of another class" in lines(error)[0]
    bad: list[InputError] = []
    assert not index_of(folders, bad=bad)["name"].str.contains("same").any()
    assert len(bad) == 2


def test_everything_wrong_with_folders_is_told_at_once(folders: Path) -> None:
    write_image(folders / "outside.png", 1)
    write_image(folders / "811_cycled" / "deep" / "a.png", 2)
    write_image(folders / "NCM" / "a.png", 3)
    (folders / ".hidden").mkdir()
    with pytest.raises(InputError) as error:
        list_images(str(folders), CLASSES)
    assert [line.removeprefix(str(folders)).split(", expected")[0] for line in lines(error)] == [
        ": found 1 images outside of class folders",
        "/811_cycled/deep: found a folder in a class folder",
        "/811_cycled: found no image",
        "/NCM: found an unknown class 'NCM'",
    ]
    assert "a class folder: 333|811, alone or with _pristine|_formation|_cycled" in lines(error)[-1]


@pytest.mark.parametrize(("source", "found"), [("nowhere", "no such folder"), ("empty", "no folder in it")])
def test_no_data_is_named(source: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=found):
        list_images(str(tmp_path / source), CLASSES)


def test_bad_files_and_small_classes_are_told_at_once(folders: Path) -> None:
    (folders / "333" / "text.jpg").write_text("text")
    whole = (folders / "811_formation" / "i_1.png").read_bytes()
    (folders / "811_formation" / "i_1.png").write_bytes(whole[:900])
    with pytest.raises(InputError) as error:
        index_of(folders)
    assert [Path(single.where).name for single in error.value.errors] == ["text.jpg", "i_1.png", "811_formation"]


def test_bad_files_can_be_skipped_and_are_listed(folders: Path) -> None:
    (folders / "333" / "text.jpg").write_text("text")
    bad: list[InputError] = []
    index = index_of(folders, bad=bad)
    assert len(index) == 9
    assert [Path(error.where).name for error in bad] == ["text.jpg"]
    (folders / "333" / "i_0.png").write_bytes(b"")
    with pytest.raises(InputError, match="2 usable images of class 333"):
        index_of(folders, bad=[])


def test_images_unlike_their_class_are_told(folders: Path) -> None:
    assert odd_images(index_of(folders)).empty
    Image.fromarray(np.random.default_rng(9).integers(40, 200, (60, 48), dtype=np.uint8)).save(
        folders / "333" / "i_1.png"
    )
    index = index_of(folders)
    odd = odd_images(index)
    assert [Path(index["image"][place]).name for place in odd.index] == ["i_1.png"]
    assert "rows 60, most of 333 have 48" in odd.iloc[0] and "bar_rows 0" in odd.iloc[0]


def test_a_given_bar_is_taken_and_must_leave_something(folders: Path) -> None:
    assert index_of(folders, bar_rows=11)["bar_rows"].unique().tolist() == [11]
    with pytest.raises(InputError, match="bar_rows of 48, expected 0 to 47 of 48 rows"):
        index_of(folders, bar_rows=48)


def test_several_data_sets_are_pooled_under_names_of_their_own(folders: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "more" / "333" / "i_0.png", 500)
    rows = list_images(str(folders), CLASSES, data_set="a") + list_images(str(tmp_path / "more"), CLASSES, data_set="b")
    index = build_index(rows, KNOWN)
    assert index["name"].is_unique and {"a/333/i_0.png", "b/333/i_0.png"} < set(index["name"])


TABLE = "image,composition,state,session,split\n"


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_says_class_session_and_split(separator: str, tmp_path: Path) -> None:
    for number in range(4):
        write_image(tmp_path / "images" / f"{number}.png", number)
    text = (
        "# comment\n"
        + TABLE
        + "images/0.png,333,,s1,train\nimages/1.png,333,cycled,,\n./images/2.png,811,pristine,s2,test\n"
    )
    table = tmp_path / ("table.tsv" if separator == "\t" else "table.csv")
    table.write_text(text.replace(",", separator), encoding="utf-8-sig")
    images = [str(tmp_path / "images" / f"{number}.png") for number in range(3)]
    assert list_images(str(table), CLASSES) == [
        ImageRow(images[0], "333/0.png", "333", "pristine", "333", "s1", "train"),
        ImageRow(images[1], "333_cycled/1.png", "333", "cycled", "333_cycled"),
        ImageRow(images[2], "811/2.png", "811", "pristine", "811", "s2", "test"),
    ]
    index = index_of(table, min_images=1)
    assert index["session"].tolist()[::2] == ["s1", "s2"] and index["split"].tolist()[::2] == ["train", "test"]
    assert index["session"].isna().tolist() == index["split"].isna().tolist() == [False, True, False]


def test_equal_file_names_in_a_table_get_names_of_their_own(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        write_image(tmp_path / folder / "i.png", ord(folder))
    (tmp_path / "t.csv").write_text("image,composition\na/i.png,333\nb/i.png,333\n")
    names = [row.name for row in list_images(str(tmp_path / "t.csv"), CLASSES)]
    assert len(set(names)) == 2


def test_everything_wrong_with_a_table_is_told_at_once(tmp_path: Path) -> None:
    write_image(tmp_path / "0.png", 0)
    (tmp_path / "t.csv").write_text(TABLE + "0.png,334,old,,\n1.png,333,,,training\n")
    with pytest.raises(InputError) as error:
        list_images(str(tmp_path / "t.csv"), CLASSES)
    assert [line.split("found ")[1].split(", expected")[0] for line in lines(error)] == [
        "composition '334'",
        "state 'old'",
        "split 'training'",
        f"image '{tmp_path / '1.png'}', which does not exist",
    ]
    assert [line.split(": ")[0][-6:] for line in lines(error)] == ["line 2", "line 2", "line 3", "line 3"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "an empty file"),
        ("image,composition\n", "no rows"),
        ("composition\n333\n", "no such column, expected a column 'image'"),
        ("image,colour\n0.png,red\n", "column 'colour', expected one of image, composition, state, session, split"),
        ("image,image\n0.png,0.png\n", "the same column twice"),
        ("image,composition\n0.png,333\n./0.png,333\n", "line 3: found image .* twice"),
        ("image,composition\n,333\n", "no image"),
        ("image\n0.png,333\n", "2 cells, expected 1 cells"),
        ('image\n"0.png\n', "a quote that is not closed"),
    ],
)
def test_tables_that_cannot_be_read(text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text(text)
    with pytest.raises(InputError, match=found):
        raw_files(str(tmp_path / "t.csv"))


def test_every_raw_file_is_named_with_its_sidecar(folders: Path, tmp_path: Path) -> None:
    found = raw_files(str(folders))
    assert found[:2] == [str(folders / "333" / "i_0.png"), str(folders / "333" / "i_1.png")]
    assert sorted(found) == sorted(str(path) for path in folders.rglob("*") if path.is_file())
    (tmp_path / "t.csv").write_text("image\nset/333/i_1.png\n")
    image = str(folders / "333" / "i_1.png")
    assert raw_files(str(tmp_path / "t.csv")) == [str(tmp_path / "t.csv"), image, f"{image}.txt"]
    assert image_files(str(tmp_path / "t.csv")) == image_files(image) == [image]


def test_patterns_take_images_and_not_their_sidecars(folders: Path) -> None:
    assert image_files(f"{folders}/333/*") == [str(folders / "333" / f"i_{image}.png") for image in range(3)]
    assert len(raw_files(f"{folders}/**/i_0.*")) == 6
    for pattern in (f"{folders}/333/*.txt", f"{folders}/4*/*"):
        with pytest.raises(InputError, match="expected images with a suffix"):
            image_files(pattern)


def test_simulated_files_are_named_as_they_are_written() -> None:
    files = simulated_files("raw/set", SimpleNamespace(n_images=2, format="tiff"))
    assert len(files) == len(set(files)) == 12 * 2 * 2
    image = "raw/set/811_cycled/811_cycled_001.tif"
    assert {image, f"{image}.txt", "raw/set/333/333_000.tif"} < set(files)


def test_listing_raw_files_is_light() -> None:
    code = "import sys, cathodeflow.io.image_lists, cathodeflow.sem.data_sets; print([m for m in ('numpy', 'pandas', 'tifffile', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_name_that_is_no_utf_8_loses_that_image_alone(folders: Path, tmp_path: Path) -> None:
    """As of archives unpacked on another system."""
    os.rename(folders / "333" / "i_0.png", os.fsencode(folders / "333") + b"/i_\xe4.png")
    (folders / "333" / "i_9.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"i_\\xe4.png: found a name that is not in UTF-8"):
        sem.index(folders, out=tmp_path / "x.parquet", sample="s")
    options = sem.Index(on_bad_file="skip", min_images=1)
    found = sem.index(folders, out=tmp_path / "x.parquet", readable=tmp_path / "x.csv", sample="s", options=options)
    assert found["images_left_out"] == 2 and found["images"] >= 3
    listed = pd.read_csv(tmp_path / "x.csv")
    problems = listed.loc[listed["problem"].notna(), "image"]
    assert [Path(name).name for name in problems] == ["i_\\xe4.png", "i_9.png"]


def test_the_option_that_leaves_unusable_images_out_is_named(folders: Path, tmp_path: Path) -> None:
    (folders / "333" / "i_0.png").write_bytes(b"")
    with pytest.raises(InputError) as caught:
        sem.index(folders, out=tmp_path / "x.parquet", sample="s")
    lines = str(caught.value).splitlines()
    assert "i_0.png" in lines[0] and "sem.index.on_bad_file: skip" in lines[-1]


def test_a_composition_can_be_the_class_whatever_its_state(folders: Path, tmp_path: Path) -> None:
    options = sem.Index(classes="composition", pixel_nm=250.0)
    assert sem.index(folders, out=tmp_path / "x.parquet", sample="s", options=options)["classes"] == 2
    table = pd.read_parquet(tmp_path / "x.parquet")
    assert table["label"].value_counts().to_dict() == {"333": 6, "811": 3}
    assert set(table.loc[table["label"] == "333", "state"]) == {"pristine", "cycled"}
    # The sidecars say no pixel size.
    assert (table["pixel_nm"] == 250).all()
