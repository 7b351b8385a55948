import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
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


EVERY_TYPE = {
    "count": np.arange(300, dtype=np.uint16),
    "row": np.linspace(0, 1, 300, dtype=np.float32),
    "central": np.arange(300) % 3 == 0,
    "name": [f"ä{k}" for k in range(300)],
    "missing": [None, 1.5] * 150,
    "text": [None, "a", ""] * 100,
    "time": pd.date_range("2024-01-01", periods=300, freq="s"),
    "lists": [[k, k + 1.5] for k in range(300)],
    "codes": pd.Categorical(["a", "b", None] * 100),
}


def test_every_type_comes_back_and_keeps_its_digest(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, EVERY_TYPE)
    frame, plain = read_table(path), pd.read_parquet(path)
    pd.testing.assert_frame_equal(frame, plain)
    assert frame["central"].dtype == bool and frame["codes"].dtype == "category"
    for name in EVERY_TYPE:
        pd.testing.assert_frame_equal(read_table(path, [name]), plain[[name]])
    # As other programs write what they have read: with other bytes, and other values behind missing ones.
    table = pq.read_table(path)
    pq.write_table(table, tmp_path / "again.parquet", row_group_size=100, use_dictionary=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "again.parquet"), frame)


def test_columns_and_values_that_were_changed_are_named(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, EVERY_TYPE)
    table = pq.read_table(path)
    changes = {
        "columns counx": table.rename_columns(["counx", *table.column_names[1:]]),
        "columns row, count": table.select(["row", "count", *table.column_names[2:]]),
        "column row of sha256": table.set_column(1, "row", pa.array(np.zeros(300, np.float32))),
        "column count of sha256": table.set_column(0, "count", table["count"].cast(pa.int32())),
        "types of sha256": table.replace_schema_metadata({**table.schema.metadata, b"pandas": b"{}"}),
        "columns name": table.select(["name"]),
    }
    for found, changed in changes.items():
        metadata = changed.schema.metadata or table.schema.metadata
        pq.write_table(changed.replace_schema_metadata(metadata), path)
        with pytest.raises(InputError, match=rf"t\.parquet: found {found}.*as (they were )?written"):
            read_table(path, ["name"] if found.startswith(("columns", "types")) else None)
    pq.write_table(table.replace_schema_metadata(None), path)
    assert list(read_table(path)) == list(EVERY_TYPE), "a table of others"


def test_any_flipped_bit_is_seen_or_changes_nothing(tmp_path):
    path = tmp_path / "t.parquet"
    write_table(path, {name: values[:20] for name, values in EVERY_TYPE.items()})
    frame, content = read_table(path), path.read_bytes()
    rng = np.random.default_rng(0)
    footer = int.from_bytes(content[-8:-4], "little") + 8
    places = [*rng.integers(len(content) - footer, len(content), 200), *rng.integers(0, len(content), 50)]
    seen = 0
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.integers(8)
        path.write_bytes(bytes(damaged))
        try:
            pd.testing.assert_frame_equal(read_table(path), frame)
        except InputError as error:
            seen += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    assert seen > 120


def test_required_columns_are_needed_where_all_are_read(tmp_path):
    write_table(tmp_path / "t.parquet", COLUMNS)
    assert list(read_table(tmp_path / "t.parquet", required=["row"])) == ["frame", "row", "name"]
    with pytest.raises(InputError, match="found columns frame, row, name, expected column score"):
        read_table(tmp_path / "t.parquet", required=["row", "score"])
