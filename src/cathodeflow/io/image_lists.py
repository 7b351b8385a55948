"""Lists of images: folders, patterns and tables. Light to import, as the workflow uses it while it is parsed."""

import glob
import os
from collections.abc import Iterable

from natsort import natsorted

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.formats import micrograph_suffixes
from cathodeflow.io.sheets import read_sheet
from cathodeflow.io.sources import folder_files, is_litter, matching, unprintable

TABLE_SUFFIXES = (".csv", ".tsv")
TABLE_COLUMNS = ("image", "composition", "state", "session", "split")


def raw_files(images: str, refused: list[InputError] | None = None) -> list[str]:
    """List all files of a data set, so that Snakemake detects changed, added and removed files.

    Parameters
    ----------
    images : str
        Folder of class folders, table (CSV, TSV), folder, pattern, or file.
    refused : list of InputError, optional
        See `images_in`.

    Returns
    -------
    list of str
        The table, if any, the images, and their sidecars.

    Raises
    ------
    InputError
        There is no image, or the table cannot be read.
    """
    found = image_files(images, refused)
    sidecars = [sidecar for path in found if (sidecar := sidecar_file(path)) is not None]
    return [images] * is_table(images) + found + list(dict.fromkeys(sidecars))


def image_files(source: str, refused: list[InputError] | None = None) -> list[str]:
    """List images in natural order, image_2 before image_10.

    Parameters
    ----------
    source : str
        A folder: its images or, if it has none, those of its subfolders; a table: the images that it lists; a pattern:
        the images that match; or a file with any suffix.
    refused : list of InputError, optional
        See `images_in`.

    Raises
    ------
    InputError
        There is no image, or the table cannot be read.
    """
    if is_table(source):
        return [row["image"] for _, row in read_rows(source)]
    if os.path.isdir(source):
        found = images_in(source, refused) or [
            path for folder in subfolders(source, refused) for path in images_in(folder, refused)
        ]
        what = "a folder without images, and none in its subfolders"
    elif os.path.lexists(source):
        found, what = [source], ""
    else:
        matches = [path for path in matching(source) if os.path.isfile(path)]
        found = _sorted(filter(is_image, matches), refused)
        what = f"{len(matches)} files that match, none of them an image" if matches else "no such file or folder"
    if not found:
        raise InputError(source, what, "images with a suffix of " + " ".join(micrograph_suffixes()))
    return found


def root(source: str) -> str:
    """Return the folder that the images of a source lie in, or below: that of a table, a pattern or a file.

    Examples
    --------
    >>> root("raw/2024/*/a_*.tif"), root("a.tif")
    ('raw/2024', '.')
    """
    if os.path.isdir(source):
        return source
    folder = os.path.dirname(source)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    return folder or "."


def images_in(folder: str, refused: list[InputError] | None = None) -> list[str]:
    """List the images of a folder, without its subfolders and hidden files; the list may be empty.

    Parameters
    ----------
    folder : str
    refused : list of InputError, optional
        Errors of images with names that are no text are appended here, and these left out, instead of raised.

    Raises
    ------
    InputError
        The name of an image is no text.
    """
    return _sorted(filter(is_image, folder_files(folder)), refused) if os.path.isdir(folder) else []


def subfolders(folder: str, refused: list[InputError] | None = None) -> list[str]:
    """List the subfolders of a folder that are not hidden or left by other systems; `refused` as in `images_in`.

    Raises
    ------
    InputError
        The name of one is no text.
    """
    with os.scandir(folder) as entries:
        kept = [entry for entry in entries if entry.is_dir() and entry.name[0] != "." and not is_litter(entry.name)]
        found = [os.path.join(folder, entry.name) for entry in kept]
    return _sorted(found, refused)


def images_below(folder: str) -> int:
    """Count the images in a folder and below, without hidden ones."""
    return sum(
        is_image(name) and name[0] != "."
        for base, _, names in os.walk(folder)
        for name in names
        if not os.path.basename(base).startswith(".")
    )


def _sorted(paths: Iterable[str], refused: list[InputError] | None) -> list[str]:
    found = sorted(paths)
    errors = {path: error for path in found if (error := unprintable(path))}
    if errors and refused is None:
        raise next(iter(errors.values()))
    if refused is not None:
        refused += errors.values()
    return natsorted(path for path in found if path not in errors)


def is_image(path: str) -> bool:
    """Return whether a file has the suffix of an image."""
    return os.path.splitext(path)[1].lower() in micrograph_suffixes()


def is_table(source: str) -> bool:
    """Return whether a source has the suffix of a table of images."""
    return os.path.splitext(source)[1].lower() in TABLE_SUFFIXES and not glob.has_magic(source)


def sidecar_file(path: str) -> str | None:
    """Find the text file with the instrument settings of an image; None if there is none.

    `a.tif` has `a.tif.txt` (SEC), `a.txt` (Hitachi, JEOL), `a.hdr` or `a-tif.hdr` (TESCAN), the first that exists.
    """
    stem, suffix = os.path.splitext(path)
    names = (f"{path}.txt", f"{stem}.txt", f"{stem}.TXT", f"{stem}.hdr", f"{stem}.HDR", f"{stem}-{suffix[1:]}.hdr")
    return next((name for name in names if os.path.isfile(name)), None)


def read_rows(path: str) -> list[tuple[int, dict[str, str]]]:
    """Read a table of images.

    Parameters
    ----------
    path : str
        Text with tabs, commas or semicolons, as `read_sheet` reads it, with the columns `image`, `composition`,
        `state`, `session`, `split`, of which only the first is needed here. Paths of images are relative to the table.

    Returns
    -------
    list of (int, dict)
        Line number, and the non-empty cells; `image` is the path relative to the working folder.

    Raises
    ------
    InputError
        The file is missing, not CSV or without rows; columns are unknown, missing or duplicated; rows have no image or
        too many cells; or an image is listed twice: one line each.
    """
    header, cells, _ = read_sheet(path, "a table of images", TABLE_COLUMNS)
    unknown = [name for name in header if name not in TABLE_COLUMNS]
    errors = [InputError(path, f"column '{name}'", "one of " + ", ".join(TABLE_COLUMNS)) for name in unknown]
    if "image" not in header:
        errors.append(InputError(path, "no such column", "a column 'image'"))
    if len(set(header)) < len(header):
        errors.append(InputError(path, "the same column twice", "each column once"))
    if not cells:
        errors.append(InputError(path, "no rows", "one row per image"))
    if errors:
        raise InputErrors.of(errors)
    rows: list[tuple[int, dict[str, str]]] = []
    seen: set[str] = set()
    for number, row in cells:
        where = f"{path} line {number}"
        given = {name: cell.strip() for name, cell in zip(header, row, strict=False) if cell.strip()}
        if len(row) > len(header):
            errors.append(InputError(where, f"{len(row)} cells", f"{len(header)} cells"))
        elif "image" not in given:
            errors.append(InputError(where, "no image", "the path of an image"))
        else:
            given["image"] = os.path.normpath(os.path.join(os.path.dirname(path), given["image"]))
            if given["image"] in seen:
                errors.append(InputError(where, f"image '{given['image']}' twice", "each image once"))
            seen.add(given["image"])
            rows.append((number, given))
    if errors:
        raise InputErrors.of(errors)
    return rows
