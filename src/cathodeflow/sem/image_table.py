"""All images of labelled data sets in one table, with their metadata."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
import pandas as pd
from natsort import natsort_keygen

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.instrument_settings import SETTINGS
from cathodeflow.io.micrographs import instrument_settings, micrograph_header, read_micrograph
from cathodeflow.io.raw_format import ImageHeader
from cathodeflow.parallel import ordered_map
from cathodeflow.sem.classes import SPLITS, ImageRow
from cathodeflow.sem.fields_of_view import COLUMNS as FIELD_COLUMNS
from cathodeflow.sem.fields_of_view import mosaics, thumbnail
from cathodeflow.sem.image_options import Index
from cathodeflow.sem.info_bar import bar_of
from cathodeflow.sem.listed_images import read_listed
from cathodeflow.sem.printed_pixel import COLUMNS as PRINTED_COLUMNS
from cathodeflow.sem.printed_pixel import DIFFERS, printed_columns, read_printed
from cathodeflow.sem.twins import fingerprint, mark_twins
from cathodeflow.sem.usable_area import UsableArea
from cathodeflow.sem.usable_blocks import usable_blocks

_THUMBNAIL = "thumbnail"
_TEXTS = ("detector", "maker")
_FRACTIONS = ("mean", "deviation", "usable", "bare", "blurred", "saturated")
# Images of which less shows particles are unusual.
_USABLE = 0.5
# Columns in which the images of a class usually agree.
_ALIKE = ("rows", "cols", "bit_depth", "channels", "bar_rows", "magnification")
_THREADS = 4
#: Columns of a table of images.
COLUMNS = (
    *("image", "name", "label", "composition", "state", "session", "time", *ImageHeader._fields),
    *("bar_rows", "bar_side", "bar_source", *UsableArea._fields),
    *(name for name in SETTINGS if name != "time"),
    *PRINTED_COLUMNS,
    *("mean", "deviation", "usable", "bare", "blurred", "saturated", "blocks"),
    *("sha256", "fingerprint", "duplicate_of", "likeness", "split", "page", "mask"),
    *FIELD_COLUMNS,
)  # fmt: skip


def build_index(rows: Sequence[ImageRow], options: Index, *, bad: list[InputError] | None = None) -> pd.DataFrame:
    """Read all images, and the metadata stored with them, into one table.

    Parameters
    ----------
    rows : sequence of ImageRow
        Of one or more data sets.
    options : Index
        `bar_rows`, `bar_side`, and `min_images`: the minimum number of different usable images per class.
    bad : list of InputError, optional
        Errors of unusable images are appended here, and these images left out, instead of raised.

    Returns
    -------
    DataFrame
        A row for every image, sorted by label, time (unknown last) and name in natural order, with the columns
        `image`, `name`, `label`, `composition`, `state`, `session`, `time`, `rows`, `cols` (of the file) [px],
        `bit_depth`, `channels`, `bar_rows`, `bar_side`, `bar_source` (what says so), `row0`, `row1`, `col0`, `col1`
        (`UsableArea`) [px], `magnification`, `voltage_kv`, `detector`, `pixel_nm`, `brightness`, `contrast`, `focus`,
        `maker`, the `printed_pixel.COLUMNS`, `mean`, `deviation` (of the intensity beside the bar, in 0..1), `usable`,
        `bare`, `blurred`,
        `saturated` (fractions of that area) and `blocks` (which they are: `usable_blocks`), `sha256` (of the pixels
        beside the bar), `fingerprint` and `duplicate_of` (name of the first image with the same pixels, or that shows
        the same: `twins.mark_twins`), `likeness` to it (1: the same pixels) and `split`, `page`, `mask`, the options
        with which it was read, and where it is (`fields_of_view.COLUMNS`). Unknown values are missing in the sense of
        `isna`. Duplicates have the split `left out`.

    Raises
    ------
    InputError
        Images that cannot be read, identical images in different classes, and classes with too few images: a line each.
    """
    errors: list[InputError] = []
    records: list[dict[str, Any]] = []
    for found in ordered_map(lambda row: _examine(row, options), rows, workers=_THREADS):
        if isinstance(found, InputError):
            errors.append(found)
        else:
            records.append(found)
    conflicts = _conflicts(records)
    errors += conflicts.values()
    table = _as_table([record for record in records if record["name"] not in conflicts])
    few = _too_few(rows, table, options.min_images)
    if few or (errors and bad is None):
        raise InputErrors.of(errors + few)
    if bad is not None:
        bad += errors
    return table


def odd_images(table: pd.DataFrame) -> pd.Series:
    """Find images unlike most of their class, bare ones, and those whose printed scale bar contradicts the pixel size.

    Parameters
    ----------
    table : DataFrame
        Of `build_index`.

    Returns
    -------
    Series of str
        How each of these images differs, by its index in the table, such as "cols 640, most of 622 have 1280".
    """
    odd: dict[Any, list[str]] = {}
    for label, same in table.groupby("label", sort=False):
        for column in _ALIKE:
            values = same[column].dropna()
            if values.nunique() > 1:
                usual = values.mode().iloc[0]
                for index, value in values[values != usual].items():
                    odd.setdefault(index, []).append(f"{column} {value:g}, most of {label} have {usual:g}")
    for index, usable in table["usable"][table["usable"] < _USABLE].items():
        odd.setdefault(index, []).append(f"only {100 * usable:.0f} % shows particles in focus")
    for row in table[table["printed_check"] == DIFFERS].itertuples():
        text = f"{row.printed_nm:.4g} nm per pixel by the printed bar of {row.printed_bar}"
        odd.setdefault(row.Index, []).append(f"{text}, {row.pixel_nm:.4g} by the {row.pixel_source}")
    return pd.Series({index: "; ".join(texts) for index, texts in sorted(odd.items())}, dtype=object)


def pool(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Join the tables of several data sets; images that occur in several, or show the same, are used once.

    Raises
    ------
    InputError
        The same image in different classes, a line for each.
    """
    table = pd.concat(tables, ignore_index=True).sort_values(["label", "time", "name"], ignore_index=True)
    errors = []
    for _, same in table[table["duplicate_of"].isna()].groupby("sha256"):
        if same["label"].nunique() > 1:
            other = same[same["label"] != same["label"].iloc[0]].iloc[0]
            found = f"the image {same['name'].iloc[0]} again, as {other['label']}"
            errors.append(InputError(other["image"], found, f"one class, {same['label'].iloc[0]} or {other['label']}"))
        for row in same.index[1:]:
            table.loc[row, ["duplicate_of", "likeness", "split"]] = [same["name"].iloc[0], 1.0, SPLITS[-1]]
    if errors:
        raise InputErrors.of(errors)
    mark_twins(table)
    return table


def _examine(row: ImageRow, options: Index) -> dict[str, Any] | InputError:
    try:
        header = micrograph_header(row.image, options.page)
        image, settings = (
            read_listed(row.image, options.page, options.mask),
            instrument_settings(row.image, options.page),
        )
    except InputError as error:
        return error
    try:
        bar = bar_of(image, settings, options.bar_rows, options.bar_side)
        area = bar.area(image.shape)
    except InputError as error:
        return InputError(row.image, f"{error.where} of {error.found}", error.expected)
    pixels = np.ascontiguousarray(area.of(image))
    # The mask may hide the scale bar.
    plain = read_micrograph(row.image, options.page) if options.mask and options.scale_bar else image
    scale = float(np.iinfo(pixels.dtype).max)
    blocks = usable_blocks(pixels)
    digest = hashlib.sha256(f"{pixels.shape} {pixels.dtype.name} ".encode() + pixels.tobytes())
    return {
        **row._asdict(),
        **ImageHeader._asdict(header),
        "bar_rows": bar.rows,
        "bar_side": bar.side,
        "bar_source": bar.source,
        **area._asdict(),
        **{key: settings.get(key) for key in SETTINGS},
        **printed_columns(
            read_printed(plain, area) if options.scale_bar else None,
            settings.get("pixel_nm"),
            options.pixel_nm,
            wanted=options.scale_bar,
        ),
        "mean": float(pixels.mean(dtype=np.float64)) / scale,
        "deviation": float(pixels.std(dtype=np.float64)) / scale,
        "usable": float(blocks.usable.mean()),
        "bare": float(blocks.bare.mean()),
        "blurred": float(blocks.blurred.mean()),
        "saturated": float(blocks.saturated.mean()),
        "blocks": blocks.as_text(),
        "sha256": digest.hexdigest(),
        "fingerprint": fingerprint(pixels),
        "page": options.page,
        "mask": options.mask,
        _THUMBNAIL: thumbnail(pixels),
    }


def _conflicts(records: list[dict[str, Any]]) -> dict[str, InputError]:
    """Find identical images of different classes, at least one of which is wrong; keys are their names."""
    labels: dict[str, dict[str, str]] = {}
    for record in records:
        labels.setdefault(record["sha256"], {})[record["label"]] = record["name"]
    conflicts = {}
    for record in records:
        others = [name for label, name in labels[record["sha256"]].items() if label != record["label"]]
        if others:
            found = f"the same pixels as {', '.join(others)} of another class"
            conflicts[record["name"]] = InputError(record["image"], found, "an image of one class")
    return conflicts


def _as_table(records: list[dict[str, Any]]) -> pd.DataFrame:
    natural = natsort_keygen()
    # Sorted by plain text first, so that names that are equal in natural order (01 and 1) have a fixed order too.
    ordered = sorted(records, key=lambda record: record["name"])
    ordered.sort(key=lambda record: (record["label"], record["time"] or datetime.max, natural(record["name"])))
    first: dict[str, str] = {}
    for record in ordered:
        earlier = first.setdefault(record["sha256"], record["name"])
        record["duplicate_of"] = earlier if earlier != record["name"] else None
        record["likeness"] = 1.0 if record["duplicate_of"] else None
        if record["duplicate_of"]:
            record["split"] = "left out"
    table = pd.DataFrame(ordered, columns=list(COLUMNS))
    table["time"] = pd.to_datetime(table["time"]).astype("datetime64[ns]")
    known = (name for name in SETTINGS if name not in ("time", *_TEXTS))
    for name in (*known, *_FRACTIONS, "likeness", "printed_nm", "printed_error_nm"):
        table[name] = table[name].astype(np.float64)
    for name in (*_TEXTS, "pixel_source", "printed_bar", "session", "fingerprint", "duplicate_of", "split", "mask"):
        # Columns without any text would otherwise become numeric.
        table[name] = table[name].astype(object).where(table[name].notna(), None)
    table["page"] = table["page"].astype("Int64")
    mark_twins(table)
    small = {record["name"]: record[_THUMBNAIL] for record in ordered}
    # Images that are alone in their class, and duplicates, are fields of their own.
    table["mosaic"], table["field"] = table["name"], table["name"]
    table[["mosaic_row", "mosaic_col"]] = 0.0
    for _, group in table[table["duplicate_of"].isna()].groupby("label", sort=False):
        found = mosaics([small[name] for name in group["name"]], group["name"].tolist())
        table.loc[group.index, list(FIELD_COLUMNS)] = found.set_index(group.index)
    return table


def _too_few(rows: Sequence[ImageRow], table: pd.DataFrame, min_images: int) -> list[InputError]:
    used = Counter(table["label"][table["split"] != "left out"])
    folders = {row.label: os.path.dirname(row.image) for row in reversed(rows)}
    return [
        InputError(
            folders[label],
            f"{used[label]} usable images of class {label}, all different",
            f"at least {min_images}",
        )
        for label in sorted(folders)
        if used[label] < min_images
    ]
