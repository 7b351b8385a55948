"""Which axis of a stored volume holds slices, rows, columns, and which part of the others is read."""

from collections.abc import Sequence
from typing import NamedTuple

from cathodeflow.errors import InputError

#: Letters of axes, see `cathodeflow.io.raw_format.VolumeHeader`.
LETTERS = "tczyxsq"
# A last axis of at most so many values, after two of more, may hold channels or colours.
_FEW = 4


class RawLayout(NamedTuple):
    """Contents of a file without a header.

    shape : (int, int, int), slices, rows and columns.
    dtype : str, NumPy's name of the type.
    big_endian : bool
    offset : int, bytes before the values.
    """

    shape: tuple[int, int, int]
    dtype: str
    big_endian: bool
    offset: int


class Choice(NamedTuple):
    """What is read of files that hold more than one stack, or do not describe themselves.

    channel, time_point : int, optional
        Number, from 0.
    axes : str, optional
        Letters of the axes of arrays with as many axes, in place of what the file states.
    raw : RawLayout, optional
        Contents of files without a header.
    """

    channel: int | None = None
    time_point: int | None = None
    axes: str | None = None
    raw: RawLayout | None = None


class Planes(NamedTuple):
    """How the slices lie in a stored array.

    n : int
        Number of slices.
    shape : (int, int)
        Rows and columns [px].
    axis : int, optional
        Axis of the slices; None if there is only one.
    fixed : tuple of int or slice
        Index of a slice, but for its own axis.
    order : tuple of int
        Order of the remaining axes that gives (row, col), or (row, col, colour).
    """

    n: int
    shape: tuple[int, int]
    axis: int | None
    fixed: tuple[int | slice, ...]
    order: tuple[int, ...]

    def at(self, number: int) -> tuple[int | slice, ...]:
        """Return the index of a slice in the stored array."""
        if self.axis is None:
            return self.fixed
        return (*self.fixed[: self.axis], number, *self.fixed[self.axis + 1 :])


def find_planes(shape: Sequence[int], axes: str | None, choice: Choice, where: str) -> Planes:
    """Find the slices in a stored array.

    Parameters
    ----------
    shape : sequence of int
        Lengths of the stored axes.
    axes : str, optional
        Their letters, as the file states them.
    choice : Choice
    where : str
        File, for messages.

    Raises
    ------
    InputError
        Rows, columns or slices are ambiguous, or several channels or time points are there and none is chosen.

    Examples
    --------
    >>> find_planes((2, 12, 48, 56), "czyx", Choice(channel=1), "a.tif").at(3)
    (1, 3, slice(None, None, None), slice(None, None, None))
    >>> planes = find_planes((56, 48, 12), "xyz", Choice(), "a.h5")
    >>> planes.shape, planes.at(3), planes.order
    ((48, 56), (slice(None, None, None), slice(None, None, None), 3), (1, 0))
    """
    letters = axis_letters(shape, axes, choice, where)
    long = [axis for axis, length in enumerate(shape) if length != 1]
    described = " x ".join(f"{length} {letter}" for length, letter in zip(shape, letters, strict=True))
    for letter in "yx":
        if letters.count(letter) != 1:
            raise InputError(where, f"axes {letters}", "one axis y (rows) and one axis x (columns)")
    others = [axis for axis in long if letters[axis] == "q"]
    slices = [axis for axis in long if letters[axis] == "z"]
    times = [axis for axis in long if letters[axis] == "t"]
    channels = [axis for axis in long if letters[axis] == "c"]
    if not slices and len(others) == 1:
        slices, others = others, []
    if not slices and len(times) == 1 and choice.time_point is None and not others:
        # Image sequences are often stored as a series in time.
        slices, times = times, []
    if others or len(slices) > 1 or len(times) > 1 or len(channels) > 1:
        raise InputError(where, f"{described}", "axes that are named: `axes`, such as czyx")
    if channels and not slices and choice.channel is None:
        found = f"{shape[channels[0]]} channels and no axis of slices ({described})"
        raise InputError(where, found, "`channel` of the one slice, or `axes` if these are slices, such as zyx")
    index: list[int | slice] = [0] * len(shape)
    for axis in (letters.index("y"), letters.index("x"), *(k for k in long if letters[k] == "s")):
        index[axis] = slice(None)
    for name, several, chosen in (
        ("channel", channels, choice.channel),
        ("time_point", times, choice.time_point),
    ):
        count = shape[several[0]] if several else 1
        if several and chosen is None:
            text = f"{count} {name.replace('_', ' ')}s ({described})"
            raise InputError(where, text, f"`{name}`: a number from 0 to {count - 1}")
        if chosen is not None and chosen >= count:
            raise InputError(where, f"{count} {name.replace('_', ' ')}{'s' * (count > 1)}", f"`{name}` below {count}")
        if several and chosen is not None:
            index[several[0]] = chosen
    kept = "".join(letter for letter, part in zip(letters, index, strict=True) if isinstance(part, slice))
    order = tuple(kept.index(letter) for letter in "yxs" if letter in kept)
    rows, cols = shape[letters.index("y")], shape[letters.index("x")]
    count = shape[slices[0]] if slices else 1
    return Planes(count, (rows, cols), slices[0] if slices else None, tuple(index), order)


def axis_letters(shape: Sequence[int], axes: str | None, choice: Choice, where: str) -> str:
    """Return the letters of all axes: the chosen ones, those of the file, or the only ones that make sense.

    Raises
    ------
    InputError
        There are none.
    """
    if choice.axes is not None and len(choice.axes) == len(shape):
        return choice.axes
    if axes is not None:
        return "".join(letter if letter in LETTERS else "q" for letter in axes.lower())
    lengths = " x ".join(map(str, shape))
    if len(shape) == 2:
        return "yx"
    long = [axis for axis, length in enumerate(shape) if length != 1]
    if len(shape) == 3 and (shape[2] != 1 or len(long) < 2):
        kept = [0, 1, 2]
    elif len(long) in (2, 3):
        kept = long
    else:
        raise InputError(where, f"{len(shape)} axes without names ({lengths})", "`axes`, such as czyx")
    if len(kept) == 3 and 1 < shape[kept[2]] <= _FEW and min(shape[kept[0]], shape[kept[1]]) > 2 * _FEW:
        found = f"{shape[kept[2]]} values along the last axis ({lengths})"
        raise InputError(where, found, "`axes`, such as yxc for channels, or zyx for slices")
    names = dict(zip(kept, "zyx"[-len(kept) :], strict=True))
    return "".join(names.get(axis, "q") for axis in range(len(shape)))
