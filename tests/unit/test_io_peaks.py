import os

import h5py
import numpy as np
import pytest

from cathodeflow.errors import InputError
from cathodeflow.io.peaks import read_peaks, write_peaks

PEAKS = ([0, 0, 3], [1.5, 2.25, 8], [4, 5.5, 0.125], [0.25, -1, -1], [1, 2, 70_000])
LAYOUT = {"peak_fidx": "u4", "peak_row": "f4", "peak_col": "f4", "deviations": "f4", "npeaks": "u2"}


def test_the_layout_is_braggnns(tmp_path):
    write_peaks(tmp_path / "peaks.h5", *PEAKS, columns={"amplitude": [1.0, 2, 3], "converged": [True, False, True]})
    with h5py.File(tmp_path / "peaks.h5") as file:
        assert {name: file[name].dtype.str[1:] for name in LAYOUT} == LAYOUT
        assert file["peak_row"][()].tolist() == [1.5, 2.25, 8]
        assert file["peak_col"][()].tolist() == [4, 5.5, 0.125]
        assert set(file) == {*LAYOUT, "amplitude", "converged"}


def test_what_is_written_is_read(tmp_path):
    path = tmp_path / "peaks.h5"
    write_peaks(
        path, *PEAKS, columns={"amplitude": [1.0, 2, 3], "angle": [0, 1, 2]}, attributes={"patch": 11, "by": "us"}
    )
    peaks = read_peaks(path)
    assert {name: column.dtype.str[1:] for name, column in peaks.items()} == LAYOUT
    assert peaks["npeaks"].tolist() == [1, 2, 65535]
    assert list(read_peaks(path, ["angle"])) == [*LAYOUT, "angle"]
    assert read_peaks(path, None)["amplitude"].tolist() == [1, 2, 3]
    with h5py.File(path) as file:
        assert dict(file.attrs) == {"patch": 11, "by": "us"}


def test_no_peaks_are_peaks_too(tmp_path):
    write_peaks(tmp_path / "peaks.h5", [], [], [], [], [])
    assert {len(column) for column in read_peaks(tmp_path / "peaks.h5").values()} == {0}


def test_equal_peaks_give_equal_bytes(tmp_path):
    for name in ("a.h5", "b.h5"):
        write_peaks(tmp_path / name, *PEAKS, columns={"x": [1, 2, 3]}, attributes={"b": 1, "a": 2})
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


@pytest.mark.parametrize(
    ("change", "columns", "message"),
    [
        ({0: [0, 1]}, {}, "not of shape"),
        ({0: [0, -1, 2]}, {}, "does not fit uint32"),
        ({1: [0, np.nan, 2]}, {}, "not finite"),
        ({}, {"x": [1, 2]}, r"\['x'\] are not of shape \(3,\)"),
        ({}, {"npeaks": [1, 2, 3]}, "belong to the layout"),
    ],
)
def test_wrong_peaks_are_not_written(tmp_path, change, columns, message):
    peaks = [change.get(i, column) for i, column in enumerate(PEAKS)]
    with pytest.raises(ValueError, match=message):
        write_peaks(tmp_path / "peaks.h5", *peaks, columns=columns)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "data", "where", "found", "expected"),
    [
        ("npeaks", None, "", "datasets deviations, peak_col, peak_fidx, peak_row", "a dataset npeaks"),
        ("peak_row", np.zeros(2, "f4"), "::peak_row", "2 values", "3, as in peak_fidx"),
        ("peak_row", np.zeros((3, 2), "f4"), "::peak_row", "float32 of shape (3, 2)", "numbers of shape (n,)"),
        ("peak_row", np.full(3, b"x"), "::peak_row", "|S1 of shape (3,)", "numbers of shape (n,)"),
        ("peak_fidx", np.array([0, -1, 2]), "::peak_fidx", "values from -1 to 2", "whole numbers from 0 to 4294967295"),
        (
            "peak_fidx",
            np.array([0, 0.5, 2]),
            "::peak_fidx",
            "values from 0.0 to 2.0",
            "whole numbers from 0 to 4294967295",
        ),
    ],
)
def test_a_wrong_layout_is_one_line(tmp_path, name, data, where, found, expected):
    path = tmp_path / "peaks.h5"
    write_peaks(path, *PEAKS)
    with h5py.File(path, "a") as file:
        del file[name]
        if data is not None:
            file[name] = data
    with pytest.raises(InputError) as caught:
        read_peaks(path)
    assert (caught.value.where, caught.value.found, caught.value.expected) == (f"{path}{where}", found, expected)


def test_a_missing_column_or_file_is_one_line(tmp_path):
    write_peaks(tmp_path / "peaks.h5", *PEAKS)
    with pytest.raises(InputError, match="expected a dataset amplitude"):
        read_peaks(tmp_path / "peaks.h5", ["amplitude"])
    with pytest.raises(InputError, match="found no such file, expected an HDF5 file"):
        read_peaks(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("text")
    with pytest.raises(InputError, match="found no HDF5 signature, expected an HDF5 file"):
        read_peaks(tmp_path / "text.h5")
