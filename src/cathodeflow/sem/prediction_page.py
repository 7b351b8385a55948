"""One HTML page, which needs no other file: every image with its prediction and its class activation map."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from cathodeflow.io.tables import plain
from cathodeflow.io.text import package_text
from cathodeflow.sem.gradcam_plots import overlaid
from cathodeflow.sem.predictions import classes_of

_TEMPLATE = Path(__file__).with_name("page.html")
_QUALITY = 82
# Number of other classes that are named with an image, and their minimum probability.
_OTHERS, _MIN_PROBABILITY = 2, 0.01
_DOUBTFUL = 0.75


class Pictures(NamedTuple):
    """Pictures of an image as data addresses: as it is, and coloured by the evidence for its prediction."""

    plain: str
    evidence: str


def worst_first(table: pd.DataFrame) -> pd.DataFrame:
    """Sort predictions, the most doubtful first.

    Wrong ones come first, the most confident of them at the top, then those withheld or out of distribution, then
    the others by their confidence, the lowest first; images that could not be classified are last.

    Parameters
    ----------
    table : DataFrame
        Of `sem predict`, or with the columns label and correct of `sem test`.
    """
    wrong = _wrong(table)
    doubted = _doubted(table)
    confidence = table["confidence"].to_numpy(np.float64)
    # Last key first.
    order = np.lexsort((np.where(wrong, -confidence, confidence), ~doubted, ~wrong, np.isnan(confidence)))
    return table.iloc[order].reset_index(drop=True)


def pictures(image: NDArray[np.uint8], heat: NDArray[np.float32], *, width: int) -> Pictures:
    """Shrink an image (row, col) and its map, (row, col) of the upper left part of it, and colour it by the map."""
    rows, cols = heat.shape
    size = (min(width, cols), max(round(rows * min(width, cols) / cols), 1))
    grey = np.asarray(Image.fromarray(image[:rows, :cols]).resize(size, Image.Resampling.BOX))
    small = np.array(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR))
    coloured = np.rint(255 * overlaid(grey, small)).astype(np.uint8)
    return Pictures(_address(grey), _address(coloured))


def prediction_page(table: pd.DataFrame, shown: Mapping[str, Pictures], *, title: str) -> str:
    """Make the page.

    Parameters
    ----------
    table : DataFrame
        Of `worst_first`, with the column `image` or `name`.
    shown : mapping
        Pictures of the images by that name; others are listed without a picture.
    title : str
    """
    classes = classes_of(table)
    key = "image" if "image" in table else "name"
    names = _short(table[key].tolist())
    rows = [
        _entry(row, classes, rank, name, shown.get(row[key]))
        for rank, (row, name) in enumerate(zip(table.to_dict("records"), names, strict=True))
    ]
    data = {"title": title, "summary": _summary(table, len(shown)), "classes": classes, "images": rows}
    # Nothing in a name can end the script.
    text = json.dumps(plain(data), allow_nan=False).replace("<", "\\u003c")
    return package_text(_TEMPLATE).replace("@DATA@", text)


def _entry(
    row: Mapping[Any, Any], classes: Sequence[str], rank: int, name: str, picture: Pictures | None
) -> dict[str, Any]:
    known = isinstance(row["prediction"], str)
    confidence = float(row["confidence"]) if known else None
    others = sorted(((float(row[f"p_{label}"]), label) for label in classes), reverse=True) if known else []
    note, state = "", ""
    if not known:
        note, state = str(row.get("problem") or "not classified"), "wrong"
    elif "label" in row and row["label"] != row["prediction"]:
        note, state = f"is {row['label']}", "wrong"
    elif isinstance(row.get("withheld"), str):
        note, state = f"withheld: {row['withheld']}", "doubtful"
    elif row.get("foreign") is True or row.get("foreign") == "True":
        note, state = "out of distribution", "doubtful"
    elif confidence is not None and confidence < _DOUBTFUL:
        state = "doubtful"
    score = row.get("strangeness")
    return {
        "name": name,
        "rank": rank,
        "prediction": row["prediction"] if known else None,
        "confidence": confidence,
        "score": float(score) if known and score is not None else None,
        "note": note,
        "state": state,
        "others": [[label, p] for p, label in others if label != row["prediction"] and p >= _MIN_PROBABILITY][:_OTHERS],
        "picture": picture.plain if picture else None,
        "map": picture.evidence if picture else None,
    }


def _summary(table: pd.DataFrame, count: int) -> str:
    known = table["prediction"].notna()
    parts = [f"{int(known.sum())} images classified"]
    if "label" in table:
        parts.append(f"{int(_wrong(table).sum())} of them wrong")
    if "foreign" in table:
        parts.append(f"{int(_foreign(table).sum())} out of distribution")
    if "withheld" in table:
        parts.append(f"{int(table['withheld'].notna().sum())} withheld")
    if not known.all():
        parts.append(f"{int((~known).sum())} not classified")
    if count < known.sum():
        parts.append(f"pictures of the first {count}")
    return ", ".join(parts)


def _wrong(table: pd.DataFrame) -> NDArray[np.bool_]:
    if "label" not in table:
        return np.zeros(len(table), bool)
    return (table["prediction"].notna() & (table["label"] != table["prediction"])).to_numpy(bool)


def _doubted(table: pd.DataFrame) -> NDArray[np.bool_]:
    withheld = table["withheld"].notna().to_numpy(bool) if "withheld" in table else np.zeros(len(table), bool)
    return withheld | _foreign(table)


def _foreign(table: pd.DataFrame) -> NDArray[np.bool_]:
    if "foreign" not in table:
        return np.zeros(len(table), bool)
    return table["foreign"].astype("boolean").fillna(False).to_numpy(bool)


def _short(names: list[str]) -> list[str]:
    """Return paths without the folders that all of them share."""
    parts = [name.split("/") for name in names]
    folders = [part[:-1] for part in parts]
    levels = enumerate(zip(*folders, strict=False))
    shared = next((n for n, level in levels if len(set(level)) > 1), min(map(len, folders), default=0))
    return ["/".join(part[shared:]) for part in parts]


def _address(picture: NDArray[np.uint8]) -> str:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
