"""Originals divided into training, validation and test, so that no crop of an original crosses."""

import math
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any, Literal

import numpy as np
import pandas as pd
from natsort import natsort_keygen
from numpy.typing import NDArray

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.sem.seeds import generator

By = Literal["time-block", "session", "image", "given"]

SPLITS = ("train", "validation", "test")
LEFT_OUT = "left out"
_NUMBER = re.compile(r"(\d+)$")
# Names of images in one line of an error, before the rest is only counted.
_NAMED = 3
# Stands for an unknown time; sorts last.
_UNKNOWN = np.iinfo(np.int64).max

Order = NDArray[np.intp]


def split_originals(
    index: pd.DataFrame,
    *,
    by: By = "time-block",
    test: float = 0.2,
    validation: float = 0.2,
    gap: int = 0,
    session_hours: float = 12.0,
    seed: int,
) -> pd.DataFrame:
    """Divide the images of every class into training, validation and test.

    Of a class with n images, duplicates apart, `n test` are for the test, `validation` of those left are for the
    validation, both rounded, and the rest is for training; each has one image at least. Duplicates are left out. The
    order of the rows does not matter, and no class changes what becomes of another.

    An image without a time takes the place that the number at the end of its name has among those of its class, as
    instruments count their files. Where the numbers tell nothing (there is none, or they do not grow with time) it is
    left out of `time-block`, since its neighbours are not known, and has no session. A class in which no image has a
    time is ordered by name.

    Parameters
    ----------
    index : DataFrame
        One row per original with the columns name, label, time (NaT: unknown), duplicate_of (None: no duplicate),
        session (None: unknown), and split where `by` is "given".
    by : {"time-block", "session", "image", "given"}
        time-block: the last images of each class in time are the test, the first ones the validation. So training
        reaches up to the test in time, as far as `gap` lets it: of a class whose specimen was changed late it has both.
        session: the last sessions of each class, as many as come closest to the share asked for, are the test; of the
        others the last ones are the validation, or the last images in time where just one is left.
        image: at random. given: as the column split says.
    test, validation : float
        Share of each class to test on; share of what is left to validate on.
    gap : int
        Images left out between blocks of time.
    session_hours : float
        Pause between two images [h] after which a new session begins. Sessions that `index` gives stay.
    seed : int
        Of the choice of "image".

    Returns
    -------
    DataFrame
        `index` sorted by label, time and name, with `session` filled and `split`: train, validation, test, left out.

    Raises
    ------
    InputError
        A class has too few images, or the given split lacks a part, a line for each class; or classes have one session.
    """
    table = index.assign(time=pd.to_datetime(index["time"])).sort_values(["label", "time", "name"], ignore_index=True)
    used = table["duplicate_of"].isna().to_numpy()
    table["time"] = table["time"].astype("datetime64[ns]")
    placed = _placed_times(table)
    table["session"] = _sessions(table, placed, pause=pd.Timedelta(hours=session_hours))
    if by == "session":
        _require_sessions(table[used])
    errors: list[InputError] = []
    if by == "given":
        split = _given(table, used, errors)
    else:
        divide: dict[str, Callable[[str, Order], dict[str, Order]]] = {
            "image": lambda label, rows: _at_random(label, rows, test, validation, seed),
            "time-block": lambda label, rows: _in_time(label, rows, placed, test, validation, gap),
            "session": lambda label, rows: _by_session(label, rows, table["session"], test, validation, gap),
        }
        split = np.full(len(table), LEFT_OUT, dtype=object)
        for label, group in table[used].groupby("label", sort=True):
            try:
                for part, rows in divide[by](str(label), _ordered(group, placed, by_time=by != "image")).items():
                    split[rows] = part
            except InputError as error:
                errors += error.errors
    if errors:
        raise InputErrors.of(errors)
    return table.assign(split=split)


def shares(count: int, test: float, validation: float) -> tuple[int, int]:
    """Return how many of `count` images, at least 3, are for the test and the validation.

    Examples
    --------
    >>> shares(40, 0.2, 0.2), shares(3, 0.2, 0.2)
    ((8, 6), (1, 1))
    """
    n_test = min(max(_rounded(test * count), 1), count - 2)
    n_validation = min(max(_rounded(validation * (count - n_test)), 1), count - n_test - 1)
    return n_test, n_validation


def _rounded(value: float) -> int:
    # Half rounds up; the addend takes what is lost in products such as 0.7 * 45.
    return math.floor(value + 0.5 + 1e-9)


def _placed_times(table: pd.DataFrame) -> NDArray[np.int64]:
    """Give every image a time [ns], that of its neighbours in number where it has none itself."""
    times = table["time"].to_numpy().astype(np.int64)
    times[table["time"].isna()] = _UNKNOWN
    numbers = np.array([_number(name) for name in table["name"]])
    for _, group in table.groupby("label"):
        rows = group.index.to_numpy()
        numbered = rows[np.isfinite(numbers[rows])]
        numbered = numbered[np.argsort(numbers[numbered], kind="stable")]
        dated, undated = (numbered[known] for known in (times[numbered] != _UNKNOWN, times[numbered] == _UNKNOWN))
        if len(dated) and (np.diff(times[dated]) >= 0).all():
            start = times[dated[0]]
            since = np.interp(numbers[undated], numbers[dated], (times[dated] - start).astype(np.float64))
            times[undated] = start + since.astype(np.int64)
    return times


def _number(name: str) -> float:
    found = _NUMBER.search(PurePosixPath(name).stem)
    return float(found[1]) if found else math.nan


def _sessions(table: pd.DataFrame, placed: NDArray[np.int64], *, pause: pd.Timedelta) -> pd.Series:
    """Return sessions as given, and where none is, those between pauses of such images, named by their start."""
    sessions = table["session"].astype(object).where(table["session"].notna(), None)
    rows = np.flatnonzero(sessions.isna() & (placed != _UNKNOWN))
    rows = rows[np.argsort(placed[rows], kind="stable")]
    for block in np.split(rows, np.flatnonzero(np.diff(placed[rows]) > pause.value) + 1):
        sessions.iloc[block] = f"{pd.Timestamp(placed[block[0]]):%Y-%m-%d %H:%M}" if len(block) else None
    return sessions.map(str, na_action="ignore")


def _ordered(images: pd.DataFrame, placed: NDArray[np.int64], *, by_time: bool) -> Order:
    """Rows in the natural order of their names, or in that of time first."""
    key, names = natsort_keygen(), images["name"]
    rows = sorted(images.index, key=lambda row: (placed[row] if by_time else 0, key(names[row])))
    return np.array(rows, dtype=np.intp)


def _at_random(label: str, rows: Order, test: float, validation: float, seed: int) -> dict[str, Order]:
    n_test, n_validation = _require(label, rows, test, validation, 0)
    return _blocks(generator(seed, "split", label).permutation(rows), n_test, n_validation, 0)


def _in_time(
    label: str, rows: Order, placed: NDArray[np.int64], test: float, validation: float, gap: int
) -> dict[str, Order]:
    known = rows[placed[rows] != _UNKNOWN]
    rows = known if len(known) else rows
    n_test, n_validation = _require(label, rows, test, validation, gap)
    return _blocks(rows, n_test, n_validation, gap)


def _blocks(rows: Order, n_test: int, n_validation: int, gap: int) -> dict[str, Order]:
    """First the validation, then a gap, the training, a gap, and the test."""
    last = len(rows) - n_test
    return {"validation": rows[:n_validation], "train": rows[n_validation + gap : last - gap], "test": rows[last:]}


def _require(label: str, rows: Order, test: float, validation: float, gap: int) -> tuple[int, int]:
    if len(rows) < 3:
        raise InputError(f"class {label}", _images(len(rows)), "at least 3 that differ: for training, validation, test")
    n_test, n_validation = shares(len(rows), test, validation)
    if n_test + n_validation + 2 * gap >= len(rows):
        expected = f"more than {n_test + n_validation + 2 * gap}: test {n_test}, validation {n_validation}, gaps {gap}"
        raise InputError(f"class {label}", _images(len(rows)), expected)
    return n_test, n_validation


def _images(count: int) -> str:
    return f"{count} image{'s' if count != 1 else ''}"


def _require_sessions(images: pd.DataFrame) -> None:
    counts = images.groupby("label")["session"].nunique()
    few = [str(label) for label in counts.index[counts < 2]]
    if few:
        expected = "at least 2 of each class, to test it across sessions; the split time-block needs only one"
        raise InputError("split.by", f"one session, or none known, of {', '.join(few)}", expected)


def _by_session(
    label: str, rows: Order, of_image: pd.Series, test: float, validation: float, gap: int
) -> dict[str, Order]:
    """Whole sessions, the last ones first; there are at least two."""
    sessions = of_image.to_numpy()
    rows = rows[of_image[rows].notna()]
    blocks = [rows[sessions[rows] == name] for name in dict.fromkeys(sessions[rows])]
    tested = _last_blocks(blocks, _rounded(test * len(rows)))
    left = blocks[: len(blocks) - tested]
    split = {"test": np.concatenate(blocks[len(blocks) - tested :])}
    rest = np.concatenate(left)
    n_validation = max(_rounded(validation * len(rest)), 1)
    if len(left) > 1:
        validated = _last_blocks(left, n_validation)
        split["validation"] = np.concatenate(left[len(left) - validated :])
        split["train"] = np.concatenate(left[: len(left) - validated])
        return split
    if n_validation + gap >= len(rest):
        expected = f"more than {n_validation + gap}: validation {n_validation}, gap {gap}"
        raise InputError(f"class {label}", f"{_images(len(rest))} outside the test's sessions", expected)
    split["validation"], split["train"] = rest[len(rest) - n_validation :], rest[: len(rest) - n_validation - gap]
    return split


def _last_blocks(blocks: list[Order], wanted: int) -> int:
    """Return the number of blocks from the end whose images come closest to `wanted`; at least one, and not all."""
    sizes = np.cumsum([len(block) for block in blocks[:0:-1]])
    return int(np.argmin(np.abs(sizes - wanted))) + 1


def _given(table: pd.DataFrame, used: NDArray[np.bool_], errors: list[InputError]) -> NDArray[Any]:
    split = table["split"].astype(object).where(used, LEFT_OUT).to_numpy(copy=True)
    allowed = (*SPLITS, LEFT_OUT)
    wrong = [row for row, value in enumerate(split) if value not in allowed]
    for row in wrong[:_NAMED]:
        found = "no split" if pd.isna(split[row]) else f"split {split[row]}"
        errors.append(InputError(str(table["name"].iat[row]), found, f"one of {', '.join(allowed)}"))
    if len(wrong) > _NAMED:
        errors.append(
            InputError("column split", f"{len(wrong) - _NAMED} more such images", f"one of {', '.join(allowed)}")
        )
    for label, group in table[used].groupby("label", sort=True):
        missing = [part for part in SPLITS if part not in set(split[group.index])]
        if missing and not wrong:
            errors.append(InputError(f"class {label}", f"no image for {', '.join(missing)}", "at least one for each"))
    return split
