"""Crops of one size cut from micrographs, without their information bars."""

import math
from collections.abc import Callable
from typing import NamedTuple

import dask
import dask.array as da
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.crops import CROPS
from cathodeflow.sem.image_options import Crops
from cathodeflow.sem.resample import shrink
from cathodeflow.sem.seeds import generator
from cathodeflow.sem.splits import SPLITS
from cathodeflow.sem.usable_area import UsableArea
from cathodeflow.sem.usable_blocks import UsableBlocks

# Crops cut at a time from one image, about 50 MB where they are 224 px wide.
_BLOCK = 1024
# Images that an error lists before it only counts them.
_LISTED = 10

Places = NDArray[np.int64]
Pair = tuple[int, int]

# Times that positions are drawn at random, before all that are possible are listed.
_TRIES = 50
_ROUNDING = 1e-9


class Shows(NamedTuple):
    """Which positions of a crop in an image show enough particles, or as many as `best`, if that is less."""

    blocks: UsableBlocks
    origin: Places
    extent: Pair
    least: float
    best: float

    def __call__(self, places: Places) -> NDArray[np.bool_]:
        """Say it of positions (n, 2)."""
        fractions = self.blocks.fractions(places + self.origin, self.extent)
        enough: NDArray[np.bool_] = fractions >= min(self.least, self.best) - _ROUNDING
        return enough


def plan_crops(split_table: pd.DataFrame, options: Crops) -> pd.DataFrame:
    """Choose the positions of the crops: `size` for training and validation, and `size * ratio` more for the test.

    Crops are divided evenly among the images of a class, or among all images. The positions in an image depend only on
    the seed, its name and the number of its crops. With `pixels: null`, crops are half the image's rows and columns,
    bar included, which `cut_crops` resizes to a square. With `pixel_nm`, crops have the physical size of `pixels` at
    that pixel size. Without `overlap`, positions are drawn uniformly and independently, as published.
    Crops of which less than `min_usable` shows particles are left out. An image in which no crop has enough is not used
    for training; for validation and test its crops with the most are used.

    Parameters
    ----------
    split_table : DataFrame
        One row per original with the columns name, label, split, rows, cols [px], those of `UsableArea`, session
        (None: unknown), pixel_nm [nm] if the option `pixel_nm` is given, and blocks (`UsableBlocks.as_text`), if they
        are known. Originals whose split is not train, validation or test have no crops.
    options : Crops

    Returns
    -------
    DataFrame
        Columns `cathodeflow.io.crops.CROPS`: number of the crop, name, label and split of its original, first pixel
        (row, col) in it, its extent (rows, cols) [px]; and session and field of view of its original. Ordered by split
        (train, validation, test), then by name.

    Raises
    ------
    InputError
        Images that are smaller than a crop or of unknown pixel size, a line for each of the first ones; no room for
        the crops; or fewer crops than classes.
    """
    size, seed = options.size, options.seed or 0
    if options.pixels is None and options.pixel_nm is not None:
        raise InputError("crops.pixel_nm", f"{options.pixel_nm:g} nm with crops of half an image", "crops.pixels too")
    images = split_table[split_table["split"].isin(SPLITS)].sort_values("name", ignore_index=True)
    extents, rooms, firsts = _extents(images, options)
    shows = [
        _shows_particles(images.iloc[at], firsts[at], extents[at], rooms[at], options.min_usable)
        for at in range(len(images))
    ]
    bare = np.array([one is not None and one.best < options.min_usable for one in shows], bool)
    trained = images["split"] == "train"
    # A class of which every training image is bare keeps them.
    bare &= trained & ~images["label"].isin(_without(images["label"][trained], images["label"][trained & ~bare]))
    sessions = images["session"] if "session" in images else pd.Series(None, index=images.index, dtype=object)
    fields = images["field"] if "field" in images else images["name"]
    held_out = round(size * options.ratio)
    totals = dict.fromkeys(SPLITS, held_out) | {"train": size - held_out}
    parts, crowded = [], []
    for split, total in totals.items():
        mine = images[(images["split"] == split) & ~bare]
        counts = _counts(mine, total, per_class=options.per_class, seed=seed, what=f"crops.size, {split}")
        untested = sum(counts.get(name, 0) == 0 for name in mine["name"])
        if untested and split != "train":
            found = f"{total} crops, none for {untested} of the {len(mine)} images for {split}"
            raise InputError("crops.size, crops.ratio", found, "at least one crop for each image")
        for at, name, label in zip(mine.index, mine["name"], mine["label"], strict=True):
            count = counts.get(name, 0)
            rng = generator(seed, "crops", name)
            places = _places(count, rooms[at], extents[at], options.overlap, rng, shows[at])
            if len(places) < count:
                crowded.append((count - len(places), len(places), count, name))
            columns = {
                "name": name,
                "label": label,
                "split": split,
                "session": sessions[at],
                "field": fields[at],
                "rows": extents[at][0],
                "cols": extents[at][1],
            }
            parts.append(pd.DataFrame(places + firsts[at], columns=["row", "col"]).assign(**columns))
    if crowded:
        _, most, count, name = max(crowded)
        found = f"room for {most} of {count} crops in {name}, and too little room in {len(crowded)} images"
        raise InputError(
            "crops.overlap", found, "more room: increase it, or decrease crops.size, crops.pixels or crops.min_usable"
        )
    return pd.concat(parts, ignore_index=True).rename_axis("crop").reset_index()[[*CROPS, "session", "field"]]


def cut_crops(table: pd.DataFrame, read_image: Callable[[str], NDArray[np.uint8]], *, side: int) -> da.Array:
    """Cut crops from their images and resize them, once they are computed.

    Parameters
    ----------
    table : DataFrame
        Of `plan_crops`. Consecutive crops of an image are cut together, and their image is read once.
    read_image : function of str
        Returns the image (row, col) uint8 of a name; see `cathodeflow.sem.resample.to_uint8`.
    side : int
        Side of the result [px].

    Returns
    -------
    dask array (n, side, side) uint8
        Means over the area of each pixel, see `cathodeflow.sem.resample.shrink`.

    Raises
    ------
    InputError
        When it is computed: an image is not uint8, or smaller than in the table.
    """
    names = table["name"].to_numpy()
    places = table[["row", "col", "rows", "cols"]].to_numpy(np.int64)
    starts = np.flatnonzero(names[1:] != names[:-1]) + 1
    blocks = []
    for first, last in zip([0, *starts], [*starts, len(table)], strict=True):
        for begin in range(first, last, _BLOCK):
            part = places[begin : min(begin + _BLOCK, last)]
            block = dask.delayed(_cut)(read_image, names[begin], part, side)
            blocks.append(da.from_delayed(block, shape=(len(part), side, side), dtype=np.uint8))
    return da.concatenate(blocks) if blocks else da.zeros((0, side, side), dtype=np.uint8)


def _extents(images: pd.DataFrame, options: Crops) -> tuple[list[Pair], list[Pair], list[Pair]]:
    """Extent [px] of the crops of every image, the number of their positions along each axis, and the first one."""
    pixels, pixel_nm = options.pixels, options.pixel_nm
    size = images[["rows", "cols"]].to_numpy(np.int64)
    edges = images[[*UsableArea._fields]].to_numpy(np.int64)
    areas = [UsableArea(*area).inset(options.margin, tuple(shape)) for area, shape in zip(edges, size, strict=True)]
    usable = np.array([(area.rows, area.cols) for area in areas]).reshape(-1, 2)
    if pixels is None:
        extent = size // 2
    else:
        scale = np.ones(len(images)) if pixel_nm is None else pixel_nm / images["pixel_nm"].to_numpy(np.float64)
        unknown = images["name"][~np.isfinite(scale)]
        if len(unknown):
            expected = f"one, to bring it to {pixel_nm:g} nm"
            raise _listed([InputError(name, "no pixel size", expected) for name in unknown])
        extent = np.maximum(np.rint(pixels * scale), 1).astype(np.int64)[:, None].repeat(2, axis=1)
    rooms = usable - extent + 1
    errors = [
        InputError(
            images["name"].iloc[at],
            f"{usable[at, 0]} x {usable[at, 1]} px without a bar",
            f"at least a crop, {extent[at, 0]} x {extent[at, 1]} px: decrease crops.pixels",
        )
        for at in np.flatnonzero((rooms < 1).any(axis=1)).tolist()
    ]
    if errors:
        raise _listed(errors)
    firsts = [(int(area.row0), int(area.col0)) for area in areas]
    return [(int(a), int(b)) for a, b in extent], [(int(a), int(b)) for a, b in rooms], firsts


def _shows_particles(image: pd.Series, first: Pair, extent: Pair, room: Pair, least: float) -> Shows | None:
    """Return where crops show enough particles; None where all do."""
    text = image.get("blocks")
    if not least or not isinstance(text, str):
        return None
    area = UsableArea(*image[[*UsableArea._fields]])
    blocks = UsableBlocks.of_text(text, (area.rows, area.cols))
    if blocks.usable.all():
        return None
    origin = np.array(first) - [area.row0, area.col0]
    # Between these positions the fraction changes by a small part of a block.
    steps = [max(size // (4 * count), 1) for size, count in zip((area.rows, area.cols), blocks.bare.shape, strict=True)]
    axes = [np.unique([*range(0, length, step), length - 1]) for length, step in zip(room, steps, strict=True)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return Shows(blocks, origin, extent, least, float(blocks.fractions(grid + origin, extent).max()))


def _without(labels: pd.Series, kept: pd.Series) -> list[str]:
    return sorted(set(labels) - set(kept))


def _listed(errors: list[InputError]) -> InputError:
    rest = len(errors) - _LISTED
    more = [InputError(f"{rest} more images", "the same", errors[0].expected)] if rest > 0 else []
    return InputErrors.of(errors[:_LISTED] + more)


def _counts(images: pd.DataFrame, total: int, *, per_class: bool, seed: int, what: str) -> dict[str, int]:
    """Crops of each image by its name."""
    if not per_class:
        return _even(total, images["name"].tolist(), generator(seed, what))
    labels = sorted(set(images["label"]))
    if total < len(labels):
        raise InputError(what, f"{total} crops for {len(labels)} classes", "at least one for each")
    counts: dict[str, int] = {}
    for label, crops in _even(total, labels, generator(seed, what)).items():
        counts |= _even(crops, images["name"][images["label"] == label].tolist(), generator(seed, what, label))
    return counts


def _even(total: int, names: list[str], rng: np.random.Generator) -> dict[str, int]:
    """Divide `total` evenly; random names get one more."""
    counts = np.full(len(names), total // len(names))
    counts[rng.permutation(len(names))[: total % len(names)]] += 1
    return dict(zip(names, counts.tolist(), strict=True))


def _places(
    count: int, room: Pair, extent: Pair, overlap: float | None, rng: np.random.Generator, shows: Shows | None = None
) -> Places:
    """Draw first pixels (n, 2) of crops within `room`, the positions along each axis; fewer where there is no room."""
    if overlap is None:
        places = np.column_stack([rng.integers(room[0], size=count), rng.integers(room[1], size=count)])
        return places if shows is None else _redrawn(places, room, rng, shows)
    drawn = _drawn_apart(count, room, extent, overlap, rng, shows)
    if len(drawn) == count:
        return drawn
    # Random positions waste room that a grid still has.
    steps = [max(math.ceil(side * (1 - overlap) - 1e-9), 1) for side in extent]
    lengths = [(places - 1) // step + 1 for places, step in zip(room, steps, strict=True)]
    if count > lengths[0] * lengths[1] and len(drawn) >= lengths[0] * lengths[1]:
        return drawn
    count = min(count, lengths[0] * lengths[1])
    slack = [places - 1 - (n - 1) * step for places, n, step in zip(room, lengths, steps, strict=True)]
    offset = [int(rng.integers(most + 1)) for most in slack]
    cells = np.stack(np.divmod(rng.choice(lengths[0] * lengths[1], count, replace=False), lengths[1]), axis=1)
    found = cells * np.array(steps) + np.array(offset)
    found = found if shows is None else found[shows(found)]
    return found if len(found) > len(drawn) else drawn


def _redrawn(places: Places, room: Pair, rng: np.random.Generator, shows: Shows) -> Places:
    """Draw positions without enough particles again; after many tries, among all that have enough."""
    for _ in range(_TRIES):
        wrong = np.flatnonzero(~shows(places))
        if not len(wrong):
            return places
        places[wrong] = np.column_stack([rng.integers(length, size=len(wrong)) for length in room])
    wrong = np.flatnonzero(~shows(places))
    allowed = _allowed(room, shows)
    places[wrong] = allowed[rng.integers(len(allowed), size=len(wrong))]
    return places


def _allowed(room: Pair, shows: Shows) -> Places:
    """All positions (n, 2) within `room` that show enough particles, row by row."""
    cols = np.arange(room[1])
    rows = (np.column_stack([np.full(room[1], row), cols]) for row in range(room[0]))
    return np.concatenate([row[shows(row)] for row in rows])


def _drawn_apart(
    count: int, room: Pair, extent: Pair, overlap: float, rng: np.random.Generator, shows: Shows | None = None
) -> Places:
    """Draw positions one by one, uniformly from those that overlap little enough with all before, while any is left."""
    rows, cols = extent
    down, across = np.arange(-rows + 1, rows), np.arange(-cols + 1, cols)
    shared = (rows - np.abs(down))[:, None] * (cols - np.abs(across))
    allowed = shared <= overlap * rows * cols
    free = np.ones(room, dtype=bool)
    if shows is not None:
        free[:] = False
        free[tuple(_allowed(room, shows).T)] = True
    places: list[tuple[int, int]] = []
    while len(places) < count:
        left = np.flatnonzero(free)
        if not len(left):
            break
        row, col = divmod(int(left[rng.integers(len(left))]), room[1])
        places.append((row, col))
        top, first = max(row - rows + 1, 0), max(col - cols + 1, 0)
        near = free[top : row + rows, first : col + cols]
        begin, start = top - (row - rows + 1), first - (col - cols + 1)
        near &= allowed[begin : begin + near.shape[0], start : start + near.shape[1]]
    return np.array(places, dtype=np.int64).reshape(-1, 2)


def _cut(read_image: Callable[[str], NDArray[np.uint8]], name: str, places: Places, side: int) -> NDArray[np.uint8]:
    image = read_image(name)
    needed = (places[:, :2] + places[:, 2:]).max(axis=0)
    if image.ndim != 2 or image.dtype != np.uint8 or (needed > image.shape).any():
        found = f"{image.dtype} {image.shape}"
        raise InputError(name, found, f"uint8, at least {needed[0]} x {needed[1]} px, as in the table of images")
    crops = np.empty((len(places), side, side), dtype=np.uint8)
    for number, (row, col, rows, cols) in enumerate(places):
        crops[number] = shrink(image[row : row + rows, col : col + cols], side=side)
    return crops
