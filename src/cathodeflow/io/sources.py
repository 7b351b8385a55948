"""The raw files of a sample, given by one string. Light to import, as the workflow uses it while it is parsed."""

import glob
import os
import re
from collections.abc import Iterable

from natsort import natsorted

from cathodeflow.errors import InputError

# Metadata of Zarr v3, and of arrays and groups of v2.
_STORE = ("zarr.json", ".zarray", ".zgroup")
# Headers whose values lie in another file.
_HEADERS = (".mhd", ".nhdr")
_HDF5 = (".h5", ".hdf5", ".hdf", ".nxs", ".cxi")
# Address of one file: without user, password, signature, pattern, or characters special to a shell.
_ADDRESS = re.compile(r"(?:https?://[\w.-]+(?::\d+)?|s3://[\w.-]+)/[\w.~/%+,=-]*[\w.~%+,=-]")
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)\}?")
# Of Windows, macOS, its archives, Synology and ext file systems.
_LITTER = ("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r", "__macosx", "@eadir", "$recycle.bin", "lost+found")


def is_remote(source: str) -> bool:
    """Return whether a source is an address, whose file Snakemake downloads before a job.

    Examples
    --------
    >>> is_remote("s3://beamtime/scan.h5::/entry/data/data"), is_remote("raw/scan.h5")
    (True, False)
    """
    return source.startswith(("http://", "https://", "s3://"))


def split_source(source: str) -> tuple[str, str | None]:
    """Split `pattern::/dataset/path` into the pattern and the path of an HDF5 dataset (None if there is none).

    Examples
    --------
    >>> split_source("raw/*.h5::/entry/data/data")
    ('raw/*.h5', '/entry/data/data')
    >>> split_source("raw/scan1")
    ('raw/scan1', None)
    """
    pattern, separator, dataset = source.partition("::")
    return pattern, dataset if separator else None


def list_files(source: str) -> list[str]:
    """List the raw files of a sample in natural order: frame_2 before frame_10.

    Parameters
    ----------
    source : str
        A file, a glob pattern, or a folder (its regular, non-hidden files, without subfolders), each with an optional
        `::/dataset/path`. The address of a file is returned as it is, without a request, and so is a Zarr store.

    Raises
    ------
    InputError
        No file is found, or an address is not that of one file or contains a secret.
    """
    pattern, _ = split_source(source)
    if is_store(pattern):
        return [pattern.rstrip("/")]
    if is_remote(pattern):
        if not _ADDRESS.fullmatch(pattern):
            # Without the full address, which may contain a password.
            shown = pattern.split("://")[0] + "://..."
            expected = "one file without `?`, pattern, user or password, which belong in the environment"
            raise InputError(shown, "an unsupported address", expected)
        return [pattern]
    if os.path.isdir(pattern):
        files, found = folder_files(pattern), "a folder without files"
    elif os.path.lexists(pattern):
        files, found = [pattern], "nothing"
    else:
        files = [path for path in matching(pattern) if os.path.isfile(path) and not is_litter(path)]
        found = "no file of this name" if glob.escape(pattern) == pattern else "no file that matches"
    if not files:
        expected = "a file, a pattern that matches files, or a folder with files"
        if "\\" in pattern:
            expected += ", with / between folders instead of \\"
        raise InputError(source, without_value(pattern) or found, expected)
    require_printable(files)
    # Sorted by plain text first, so that names that are equal in natural order (01 and 1) have a fixed order, too.
    return natsorted(sorted(files))


def is_store(path: str) -> bool:
    """Whether a folder is a Zarr store: an array or a group of Zarr v2 or v3."""
    return any(os.path.isfile(os.path.join(path, name)) for name in _STORE)


def store_files(store: str) -> list[str]:
    """List all files of a Zarr store, sorted."""
    found = [os.path.join(folder, name) for folder, _, names in os.walk(store) for name in names]
    return sorted(path for path in found if os.path.basename(path) != ".snakemake_timestamp")


def matching(pattern: str) -> list[str]:
    """List what a glob pattern matches; folders and files with brackets in their names are found by these, too.

    A folder or file of the very name, such as `raw[1]`, is taken literally; and all brackets are, if the pattern
    matches nothing otherwise.
    """
    parts = pattern.split(os.sep)
    for i, part in enumerate(parts):
        # Parts before it are escaped where they must be, so that glob finds this one only as it stands.
        if glob.escape(part) != part and glob.glob(os.sep.join([*parts[:i], glob.escape(part)])):
            parts[i] = glob.escape(part)
    found = glob.glob(os.sep.join(parts), recursive=True)
    # Otherwise brackets may belong to the names beside a star, as in `frame[1]_*.tif`.
    return found or glob.glob(os.sep.join(part.replace("[", "[[]") for part in pattern.split(os.sep)), recursive=True)


def expanded(path: str) -> str:
    """Return a path with `~` and environment variables such as `$DATA` or `${DATA}` replaced.

    A file or folder of the very name is taken literally.

    Examples
    --------
    >>> os.environ["BEAMTIME"] = "/data/42"
    >>> expanded("$BEAMTIME/*.h5"), expanded("raw/*.h5")
    ('/data/42/*.h5', 'raw/*.h5')
    """
    return path if os.path.lexists(split_source(path)[0]) else os.path.expanduser(os.path.expandvars(path))


def without_value(path: str) -> str | None:
    """Say which variable of the environment in a path has no value; None without one.

    Examples
    --------
    >>> without_value("$SCRATCH_OF_NN/raw/*.tif"), without_value("raw/*.tif")
    ('no value of $SCRATCH_OF_NN in the environment', None)
    """
    name = next((found[1] for found in _VARIABLE.finditer(path) if found[1] not in os.environ), None)
    return None if name is None else f"no value of ${name} in the environment"


def is_litter(path: str) -> bool:
    """Whether a file or folder is one that systems leave beside data; those that are hidden are left out anyway."""
    return os.path.basename(path).casefold() in _LITTER


def folder_files(folder: str) -> list[str]:
    """List the regular files of a folder that are not hidden, in no order."""
    with os.scandir(folder) as entries:
        return [os.path.join(folder, entry.name) for entry in entries if _is_wanted(entry)]


def require_printable(paths: Iterable[str]) -> None:
    """Refuse names that are no text: no log, record or table could name the file.

    Raises
    ------
    InputError
        The first name that is not in UTF-8 or has control characters.
    """
    for path in paths:
        if error := unprintable(path):
            raise error


def unprintable(path: str) -> InputError | None:
    """Return the error of a name that is no text, see `require_printable`; None if it is."""
    if path.isprintable():
        return None
    found = "a name that is not in UTF-8" if undecodable(path) else "a name with control characters"
    return InputError(shown(path), found, "a printable file name; rename it")


def undecodable(path: str) -> bool:
    """Whether a path has bytes that are no UTF-8, for which Python keeps surrogates."""
    return any("\udc80" <= letter <= "\udcff" for letter in path)


def shown(path: str) -> str:
    r"""Return a path as messages show it, other bytes than UTF-8 and control characters by their number.

    Examples
    --------
    >>> print(shown("raw/M\udcfcll.tif"))
    raw/M\xfcll.tif
    """
    text = os.fsencode(path).decode(errors="backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def files_read(source: str) -> list[str]:
    """List the files of a source and those that they link to, as headers do whose values lie in another file.

    Errors are those of `list_files`.
    """
    files, dataset = list_files(source), split_source(source)[1]
    if is_remote(source):
        return files
    if is_store(files[0]):
        return store_files(files[0])
    if headers := [file for file in files if file.lower().endswith(_HEADERS)]:
        from cathodeflow.io.formats import linked_data

        files += [linked for header in headers for linked in linked_data(header)]
    masters = files if dataset else [file for file in files if file.lower().endswith(_HDF5)]
    if masters:
        # Takes longer to import than all else that the workflow needs to be read.
        from cathodeflow.io.hdf5_frames import linked_files

        files += [linked for master in masters for linked in linked_files(master, dataset)]
    return list(dict.fromkeys(files))


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    # A broken link is kept, so that reading reports it by name.
    named = not entry.name.startswith(".") and not is_litter(entry.name)
    return named and (entry.is_file() or (entry.is_symlink() and not entry.is_dir()))
