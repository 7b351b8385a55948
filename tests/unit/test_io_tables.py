import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cathodeflow.errors import InputError
from cathodeflow.io.tables import read_json, read_table, write_csv, write_json, write_table

COLUMNS = {"frame": np.array([0, 1], np.uint32), "row": np.array([1.5, np.nan], np.float32), "name": ["a", "b"]}
STRUCTURED = np.array([(0, 1.5), (1, 2.5)], dtype=[("frame", np.uint32), ("row", np.float32)])


@pytest.mark.parametrize("table", [COLUMNS, STRUCTURED, pd.DataFrame(COLUMNS, index=[5, 9])])
def test_tables_of_every_kind_come_back_with_their_types(tmp_path, table):
    write_table(tmp_path / "t.parquet", table)
    frame = read_table(tmp_path / "t.parquet")
    assert (frame["frame"].dtype, frame["row"].dtype) == (np.uint32, np.float32)
    assert frame.index.tolist() == [0, 1]
    assert frame["row"][0] == 1.5


def test_an_empty_table_keeps_its_columns(tmp_path):
    write_table(tmp_path / "t.parquet", STRUCTURED[:0])
    assert read_table(tmp_path / "t.parquet").dtypes.to_dict() == {"frame": np.uint32, "row": np.float32}


def test_columns_are_read_in_the_order_asked_for(tmp_path):
    write_table(tmp_path / "t.parquet", COLUMNS)
    assert list(read_table(tmp_path / "t.parquet", ["name", "frame"])) == ["name", "frame"]


def test_equal_tables_give_equal_bytes(tmp_path):
    for name in ("a", "b"):
        write_table(tmp_path / f"{name}.parquet", COLUMNS)
        write_csv(tmp_path / f"{name}.csv", COLUMNS)
    for suffix in ("parquet", "csv"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
    assert (tmp_path / "a.csv").read_text() == "frame,row,name\n0,1.5,a\n1,,b\n"


@pytest.mark.parametrize(
    ("columns", "expected"), [(["score"], "column score"), (["score", "row", "size"], "columns score, size")]
)
def test_missing_columns_are_one_line(tmp_path, columns, expected):
    write_table(tmp_path / "t.parquet", COLUMNS)
    with pytest.raises(InputError) as caught:
        read_table(tmp_path / "t.parquet", columns)
    assert (caught.value.found, caught.value.expected) == ("columns frame, row, name", expected)


def test_what_is_no_table_is_one_line(tmp_path):
    path = tmp_path / "t.parquet"
    with pytest.raises(InputError, match="found no such file, expected a Parquet table"):
        read_table(path)
    path.write_text("frame,row\n")
    with pytest.raises(InputError, match=r"t\.parquet: found an error .*expected a Parquet table"):
        read_table(path)
    write_table(path, COLUMNS)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match="expected a Parquet table"):
        read_table(path)


def test_nothing_is_left_behind_on_failure(tmp_path):
    with pytest.raises(Exception):  # noqa: B017
        write_table(tmp_path / "t.parquet", {"x": [1, "a", object()]})
    with pytest.raises(TypeError):
        write_json(tmp_path / "t.json", {"x": object()})
    assert os.listdir(tmp_path) == []


def test_json_is_sorted_and_has_no_nan(tmp_path):
    data = {
        "b": np.float32(0.5),
        "a": {2: np.arange(2), "x": (np.nan, np.inf, -1.5)},
        "p": Path("a/b"),
        "n": np.bool_(1),
    }
    write_json(tmp_path / "m.json", data)
    text = (tmp_path / "m.json").read_text()
    assert json.loads(text, parse_constant=lambda word: pytest.fail(word)) == read_json(tmp_path / "m.json")
    assert read_json(tmp_path / "m.json") == {
        "a": {"2": [0, 1], "x": [None, None, -1.5]},
        "b": 0.5,
        "n": True,
        "p": "a/b",
    }
    assert text.index('"a"') < text.index('"b"')
    assert text.endswith("}\n")


def test_what_is_no_json_is_one_line(tmp_path):
    (tmp_path / "m.json").write_text("{")
    with pytest.raises(InputError, match=r"m\.json: found an error .*expected a JSON file"):
        read_json(tmp_path / "m.json")
