"""Originals divided into training, validation and test set, with all crops of an original in the same set."""

import logging
import math
import re
from collections.abc import Callable, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd
from natsort import natsort_keygen
from numpy.typing import NDArray

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.sem.fields_of_view import overlapping
from cathodeflow.sem.image_options import Split
from cathodeflow.sem.seeds import generator

log = logging.getLogger("cathodeflow.sem")

SPLITS = ("train", "validation", "test")
LEFT_OUT = "left out"
_NUMBER = re.compile(r"(\d+)$")
# Images that an error names before it only counts the rest.
_NAMED = 3
# Stands for an unknown time; sorts last.
_UNKNOWN = np.iinfo(np.int64).max

Order = NDArray[np.intp]


def split_originals(index: pd.DataFrame, options: Split) -> pd.DataFrame:
    """Divide the images of every class into training, validation and test set.

    Of a class with n images, without duplicates, `n * test` are for the test, the fraction `validation` of the
    remaining ones is for validation (both rounded), and the rest is for training; each set has at least one image.
    Duplicates are left out. The result does not depend on the order of the rows, nor that of a class on other classes.

    - `by: time-block`: the last images of each class in time are the test set, the first ones the validation set. So
      the training set extends up to the test set in time, except for `gap`, or those images that overlap others
      (`fields_of_view`): a class whose specimen was changed late has
      both specimens in training.
    - `by: session`: the last sessions of each class, as many as come closest to the requested fraction, are the test
      set; of the others the last ones are the validation set, or the last images in time where only one is left, after
      a gap as of `time-block`. With
      `test_sessions`, these are the test set, of all classes that were imaged in them.
    - `by: image`: random images. `by: given`: the column split.

    An image without a time is placed in time by the number at the end of its name among those of its class, as
    instruments number their files. If there is no number, or numbers do not increase with time, it is left out of
    `time-block`, since its neighbours are unknown, and has no session. A class without any time is ordered by name.

    Parameters
    ----------
    index : DataFrame
        One row per original with the columns name, label, time (NaT: unknown), duplicate_of (None: no duplicate),
        session (None: unknown; known ones are kept), and split where `by` is "given".
    options : Split

    Returns
    -------
    DataFrame
        `index` sorted by label, time and name, with `session` filled and `split`: train, validation, test, left out.

    Raises
    ------
    InputError
        A class has too few images, or the given split lacks a set, a line for each class; or classes have one session.
    """
    by = options.by
    table = index.assign(time=pd.to_datetime(index["time"])).sort_values(["label", "time", "name"], ignore_index=True)
    used = table["duplicate_of"].isna().to_numpy()
    table["time"] = table["time"].astype("datetime64[ns]")
    placed = _placed_times(table)
    table["session"] = _sessions(table, placed, pause=pd.Timedelta(hours=options.session_hours))
    if by == "session":
        _require_sessions(table[used], options.test_sessions)
    errors: list[InputError] = []
    if by == "given":
        split = _given(table, used, errors)
    else:
        divide: dict[str, Callable[[str, Order], dict[str, Order]]] = {
            "image": lambda label, rows: _at_random(label, rows, options),
            "time-block": lambda label, rows: _in_time(label, rows, placed, options),
            "session": lambda label, rows: _by_session(label, rows, table["session"], options),
        }
        split = np.full(len(table), LEFT_OUT, dtype=object)
        for label, group in table[used].groupby("label", sort=True):
            try:
                for part, rows in divide[by](str(label), _ordered(group, placed, by_time=by != "image")).items():
                    split[rows] = part
            except InputError as error:
                errors += error.errors
    if by in ("time-block", "session") and options.gap is None and "mosaic" in table:
        _leave_gap(table, split)
    if errors:
        raise InputErrors.of(errors)
    return table.assign(split=split)


def _leave_gap(table: pd.DataFrame, split: NDArray[Any]) -> None:
    """Leave out training images that show a part of an image for validation or test, in place.

    A class of which all do keeps them.
    """
    train = np.flatnonzero(split == "train")
    held_out = table[np.isin(split, ("validation", "test"))]
    overlaps = overlapping(table.iloc[train], held_out)
    labels = table["label"].to_numpy()[train]
    for label in np.unique(labels):
        mine = labels == label
        if overlaps[mine].all():
            log.warning("class %s: all training images overlap images for validation or test, and are kept", label)
            overlaps[mine] = False
    split[train[overlaps]] = LEFT_OUT


def set_sizes(count: int, test: float, validation: float) -> tuple[int, int]:
    """Return the number of test and of validation images of `count` images, at least 3.

    Examples
    --------
    >>> set_sizes(40, 0.2, 0.2), set_sizes(3, 0.2, 0.2)
    ((8, 6), (1, 1))
    """
    n_test = min(max(_rounded(test * count), 1), count - 2)
    n_validation = min(max(_rounded(validation * (count - n_test)), 1), count - n_test - 1)
    return n_test, n_validation


def _rounded(value: float) -> int:
    # Half rounds up; the addend compensates rounding in products such as 0.7 * 45.
    return math.floor(value + 0.5 + 1e-9)


def _placed_times(table: pd.DataFrame) -> NDArray[np.int64]:
    """Give every image a time [ns], interpolated by its number where it has none."""
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
    """Return sessions as given; images without one are divided at pauses into sessions named by their start."""
    sessions = table["session"].astype(object).where(table["session"].notna(), None)
    rows = np.flatnonzero(sessions.isna() & (placed != _UNKNOWN))
    rows = rows[np.argsort(placed[rows], kind="stable")]
    for block in np.split(rows, np.flatnonzero(np.diff(placed[rows]) > pause.value) + 1):
        sessions.iloc[block] = f"{pd.Timestamp(placed[block[0]]):%Y-%m-%d %H:%M}" if len(block) else None
    return sessions.map(str, na_action="ignore")


def _ordered(images: pd.DataFrame, placed: NDArray[np.int64], *, by_time: bool) -> Order:
    """Rows in the natural order of their names, or of time first."""
    key, names = natsort_keygen(), images["name"]
    rows = sorted(images.index, key=lambda row: (placed[row] if by_time else 0, key(names[row])))
    return np.array(rows, dtype=np.intp)


def _at_random(label: str, rows: Order, options: Split) -> dict[str, Order]:
    n_test, n_validation = _require(label, rows, options, gap=0)
    return _blocks(generator(options.seed or 0, "split", label).permutation(rows), n_test, n_validation, gap=0)


def _in_time(label: str, rows: Order, placed: NDArray[np.int64], options: Split) -> dict[str, Order]:
    known = rows[placed[rows] != _UNKNOWN]
    rows = known if len(known) else rows
    n_test, n_validation = _require(label, rows, options, gap=options.gap or 0)
    return _blocks(rows, n_test, n_validation, gap=options.gap or 0)


def _blocks(rows: Order, n_test: int, n_validation: int, *, gap: int) -> dict[str, Order]:
    """Divide images into validation, a gap, training, a gap, and test, in this order."""
    last = len(rows) - n_test
    return {"validation": rows[:n_validation], "train": rows[n_validation + gap : last - gap], "test": rows[last:]}


def _require(label: str, rows: Order, options: Split, *, gap: int) -> tuple[int, int]:
    if len(rows) < 3:
        raise InputError(f"class {label}", _images(len(rows)), "at least 3 that differ: for training, validation, test")
    n_test, n_validation = set_sizes(len(rows), options.test, options.validation)
    if n_test + n_validation + 2 * gap >= len(rows):
        expected = f"more than {n_test + n_validation + 2 * gap}: test {n_test}, validation {n_validation}, gaps {gap}"
        raise InputError(f"class {label}", _images(len(rows)), expected)
    return n_test, n_validation


def _images(count: int) -> str:
    return f"{count} image{'s' if count != 1 else ''}"


def _require_sessions(images: pd.DataFrame, chosen: Sequence[str] | None) -> None:
    if chosen:
        known = sorted(images["session"].dropna().unique())
        errors = [
            InputError("split.test_sessions", name, f"one of {', '.join(known) or 'known sessions: there is none'}")
            for name in chosen
            if not any(session.startswith(name) for session in known)
        ]
        if errors:
            raise InputErrors.of(errors)
        return
    counts = images.groupby("label")["session"].nunique()
    few = [str(label) for label in counts.index[counts < 2]]
    if few:
        expected = "at least 2 of each class, to test it across sessions; the split time-block needs only one"
        raise InputError("split.by", f"one session, or none known, of {', '.join(few)}", expected)


def _by_session(label: str, rows: Order, of_image: pd.Series, options: Split) -> dict[str, Order]:
    """Divide whole sessions; without `test_sessions` there are at least two, of which the last are the test set."""
    sessions = of_image.to_numpy()
    rows = rows[of_image[rows].notna()]
    blocks = [rows[sessions[rows] == name] for name in dict.fromkeys(sessions[rows])]
    if options.test_sessions:
        chosen = [bool(sessions[block[0]].startswith(options.test_sessions)) for block in blocks]
        tested = [block for block, test in zip(blocks, chosen, strict=True) if test]
        left = [block for block, test in zip(blocks, chosen, strict=True) if not test]
        if not left:
            raise InputError(f"class {label}", "no image outside the test sessions", "some, for training")
    else:
        n_tested = _last_blocks(blocks, _rounded(options.test * len(rows)))
        left, tested = blocks[: len(blocks) - n_tested], blocks[len(blocks) - n_tested :]
    split = {"test": np.concatenate(tested)} if tested else {}
    rest = np.concatenate(left)
    n_validation, gap = max(_rounded(options.validation * len(rest)), 1), options.gap or 0
    if len(left) > 1:
        validated = _last_blocks(left, n_validation)
        split["validation"] = np.concatenate(left[len(left) - validated :])
        split["train"] = np.concatenate(left[: len(left) - validated])
        return split
    if n_validation + gap >= len(rest):
        expected = f"more than {n_validation + gap}: validation {n_validation}, gap {gap}"
        raise InputError(f"class {label}", f"{_images(len(rest))} outside the test sessions", expected)
    split["validation"], split["train"] = rest[len(rest) - n_validation :], rest[: len(rest) - n_validation - gap]
    return split


def _last_blocks(blocks: list[Order], wanted: int) -> int:
    """Return the number of last blocks whose images come closest to `wanted`; at least one, and not all."""
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
