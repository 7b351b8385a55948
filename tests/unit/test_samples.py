"""Sample sheets: what is wrong is said before any job starts, all of it at once."""

import zipfile
from pathlib import Path
from typing import Literal

import openpyxl
import pytest

from cathodeflow.errors import InputError
from cathodeflow.io.sources import list_files
from cathodeflow.options import option
from cathodeflow.samples import Sample, read_metadata, read_samples


class Scan(Sample):
    role: Literal["train", "measure"] = option("measure", "Role.")
    frames: str = option(..., "Frames.")
    state: float | None = option(None, "State.", ge=0, le=1)


def sheet(tmp_path: Path, text: str) -> str:
    path = tmp_path / "scans.tsv"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_reads_rows_comments_and_empty_cells(tmp_path: Path) -> None:
    path = sheet(tmp_path, "# our scans\nsample\trole\tframes\tstate\na\ttrain\tx y/*.tif\t.5\n\nb\t\tz.h5\t\n")
    assert read_samples(path, Scan) == {
        "a": Scan(sample="a", role="train", frames="x y/*.tif", state=0.5),
        "b": Scan(sample="b", role="measure", frames="z.h5"),
    }


def test_spreadsheet_export_with_byte_order_mark_and_windows_lines(tmp_path: Path) -> None:
    assert list(read_samples(sheet(tmp_path, "\ufeffsample\tframes\r\na\tx\r\n"), Scan)) == ["a"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample\tframes\na\tx\na\ty\n", "line 3: found sample 'a' a second time, expected every sample name once"),
        ("sample\trole\tframes\na\ttraining\tx\n", "line 2: role: found 'training', expected 'train' or 'measure'"),
        ("sample\tframe\na\tx\n", "found column 'frame', expected 'frames', or a name that is less like it"),
        ("sample\tframes\n../up\tx\n", "line 2: sample: found '../up', expected"),
        ("sample\tframes\n", "found no samples, expected one row per sample"),
        ("", "found an empty file, expected a sample sheet with columns such as sample, frames"),
        ("sample\tframes\tstate\na\tx\t7\n", "line 2: state: found '7', expected less than or equal to 1"),
        ("sample\tframes\na\tx\ty\n", "line 2: found 3 cells, expected 2 cells separated by tabs"),
        (
            "# Of today.\nsample  Role   frames\na  train  x y.tif\n",
            "line 2: found columns separated by spaces, expected tabs, commas or semicolons between the columns",
        ),
        ("sample\tframes\na\t\n", "line 2: frames: found nothing, expected a value"),
        (
            "sample\trole\tframes\na train x\n",
            "line 2: found cells separated by spaces, expected tabs, as in the header",
        ),
        ("sample;frames\na,x\n", "line 2: found cells separated by commas, expected semicolons, as in the header"),
        (
            "sample|frames\na|x\n",
            "line 1: found 'sample|frames', none of the known columns, expected names of columns such as sample, frames, "
            "role, state, separated by tabs, commas or semicolons",
        ),
        ("a\ttrain\tx\n", "line 1: found 'a\ttrain\tx', none of the known columns, expected names of columns such as"),
        ('sample;frames\na;"x\nb;y\n', "found a quote that is not closed, or a line break inside of quotes, expected"),
        ("sample\tframes\tstate\na\tx\t0,5\n", "line 2: state: found '0,5', expected a point before the decimals: 0.5"),
        ("sample\tframes\t\na\tx\tNN\n", "found a column without a name, expected a name in every cell of the first"),
    ],
)
def test_wrong_sheet_is_said_in_a_line(tmp_path: Path, text: str, message: str) -> None:
    path = sheet(tmp_path, text)
    with pytest.raises(InputError) as error:
        read_samples(path, Scan)
    assert message in str(error.value)
    assert all(line.startswith(path) for line in str(error.value).splitlines())


def test_every_wrong_row_is_told(tmp_path: Path) -> None:
    path = sheet(tmp_path, "sample\trole\tframes\na\tx\tf\nb\ty\tf\na\ttrain\tf\n")
    with pytest.raises(InputError) as error:
        read_samples(path, Scan)
    assert len(str(error.value).splitlines()) == 2


def test_missing_sheet(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found no such file, expected a sample sheet"):
        read_samples(str(tmp_path / "none.tsv"), Scan)


def test_a_column_that_no_stage_uses_is_kept(tmp_path: Path) -> None:
    path = sheet(tmp_path, "sample\tframes\ttemperature [C]\toperator\na\tx\t25\tNN\nb\ty\t40\t\n")
    assert list(read_samples(path, Scan)) == ["a", "b"]
    assert read_metadata(path, Scan) == {
        "a": {"temperature [C]": "25", "operator": "NN"},
        "b": {"temperature [C]": "40"},
    }


WANTED = {"a": Scan(sample="a", role="train", frames="x/ß, 1.tif", state=0.5), "b": Scan(sample="b", frames="y")}


@pytest.mark.parametrize("mark", ["\t", ",", ";"])
@pytest.mark.parametrize(
    ("encoding", "line_end"),
    [("utf-8", "\n"), ("utf-8-sig", "\r\n"), ("utf-16", "\r\n"), ("cp1252", "\r\n"), ("utf-8", "\r")],
)
def test_sheets_as_spreadsheets_save_them(tmp_path: Path, mark: str, encoding: str, line_end: str) -> None:
    rows = [
        ["Sample ", "Role", "frames", " State", ""],
        ["a", "train", '"x/ß, 1.tif"', "0.5", ""],
        ["b", "", "y", "", ""],
        [""] * 5,
    ]
    path = tmp_path / "scans.txt"
    path.write_bytes(line_end.join(mark.join(row) for row in rows).encode(encoding))
    assert read_samples(str(path), Scan) == WANTED


def test_a_workbook_is_a_sheet(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    for row in (
        ["sample", "role", "frames", "state", "run"],
        ["a", "train", "x/ß, 1.tif", 0.5, 7],
        [None] * 5,
        ["b", None, "y", None, None],
    ):
        book.active.append(row)
    path = str(tmp_path / "scans.xlsx")
    book.save(path)
    assert read_samples(path, Scan) == WANTED
    assert read_metadata(path, Scan) == {"a": {"run": "7"}, "b": {}}
    (tmp_path / "scans.xlsx").write_bytes((tmp_path / "scans.xlsx").read_bytes()[:2000])
    with pytest.raises(
        InputError, match=r"scans\.xlsx: found an error .*, expected a sample sheet as an Excel workbook"
    ):
        read_samples(path, Scan)


@pytest.mark.parametrize(
    "content",
    [
        'sep=;\r\nsample;role;frames;state\r\na;train;"x/ß, 1.tif";0,5\r\nb;;y;\r\n'.encode("cp1252"),
        '"sample", "role", "frames", "state"\n"a", "train", "x/ß, 1.tif", "0.5"\nb,, y,\n'.encode(),
        "sample\trole\tframes\tstate\na\ttrain\tx/ß, 1.tif\t0.5\nb\t\ty\t\n".encode("utf-16-le"),
        "sample\trole\tframes\tstate\na\ttrain\tx/ß, 1.tif\t0.5\nb\t\ty\t\n".encode("utf-16-be"),
        "sample\trole\tframes\tstate\na\ttrain\tx/ß, 1.tif\t0.5\nb\t\ty\t\n".encode("utf-32"),
        "sample;;role;frames\u00a0;state;\na;;train;x/ß, 1.tif;,5;\nb;;;y\n".encode(),
    ],
    ids=["Excel's sep=", "blanks after commas", "UTF-16 LE", "UTF-16 BE", "UTF-32", "empty columns, decimal comma"],
)
def test_exports_of_other_programs_and_countries(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "scans.csv"
    path.write_bytes(content)
    assert read_samples(str(path), Scan) == WANTED


def test_the_first_sheet_of_a_workbook_with_known_columns_counts_whatever_its_name(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.active.append(["How to fill in the next sheet"])
    for row in (["Sample", "frames"], ["a", "x"]):
        (book["S"] if "S" in book.sheetnames else book.create_sheet("S")).append(row)
    book.save(tmp_path / "scans.xlsx")
    (tmp_path / "scans.xlsx").rename(tmp_path / "scans.tsv")
    assert list(read_samples(str(tmp_path / "scans.tsv"), Scan)) == ["a"]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "a workbook of Excel 97 to 2003 (.xls)"),
        (b"%PDF-1.7\n", "a PDF document"),
    ],
)
def test_files_that_are_no_sheet_are_named(tmp_path: Path, content: bytes, found: str) -> None:
    path = tmp_path / "scans.xls"
    path.write_bytes(content)
    with pytest.raises(InputError) as error:
        read_samples(str(path), Scan)
    assert str(error.value) == f"{path}: found {found}, expected a sample sheet as an Excel workbook (.xlsx) or text"
    with pytest.raises(InputError, match=r": found a folder, expected a sample sheet$"):
        read_samples(str(tmp_path), Scan)


def test_an_opendocument_spreadsheet_is_named(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "scans.ods", "w") as file:
        file.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
    with pytest.raises(InputError, match=r"scans\.ods: found an OpenDocument spreadsheet \(\.ods\), expected a sample"):
        read_samples(str(tmp_path / "scans.ods"), Scan)


def test_a_variable_without_a_value_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BEAMTIME", raising=False)
    with pytest.raises(InputError, match=r"found no value of \$BEAMTIME in the environment, expected a sample sheet"):
        read_samples("$BEAMTIME/scans.tsv", Scan)
    with pytest.raises(
        InputError, match=r"found no value of \$BEAMTIME in the environment, expected a file, a pattern"
    ):
        list_files("${BEAMTIME}/a_*.tif")


def test_paths_may_have_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BEAMTIME", "/data/42")
    monkeypatch.setenv("HOME", "/home/nn")
    path = sheet(tmp_path, "sample\tframes\na\t$BEAMTIME/a\nb\t${BEAMTIME}/b\nc\t~/c\nd\td$1\n")
    assert [scan.frames for scan in read_samples(path, Scan).values()] == [
        "/data/42/a",
        "/data/42/b",
        "/home/nn/c",
        "d$1",
    ]
