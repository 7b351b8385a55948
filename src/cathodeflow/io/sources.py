"""The raw files of a sample, given by one string. Light to import, as the workflow uses it while it is parsed."""

import glob
import os
import re

from natsort import natsorted

from cathodeflow.errors import InputError

# Address of one file: without user, password, signature, pattern, or characters special to a shell.
_ADDRESS = re.compile(r"(?:https?://[\w.-]+(?::\d+)?|s3://[\w.-]+)/[\w.~/%+,=-]*[\w.~%+,=-]")


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
        `::/dataset/path`. The address of a file is returned as it is, without a request.

    Raises
    ------
    InputError
        No file is found, or an address is not that of one file or contains a secret.
    """
    pattern, _ = split_source(source)
    if is_remote(pattern):
        if not _ADDRESS.fullmatch(pattern):
            # Without the full address, which may contain a password.
            shown = pattern.split("://")[0] + "://..."
            expected = "one file without `?`, pattern, user or password, which belong in the environment"
            raise InputError(shown, "an unsupported address", expected)
        return [pattern]
    if os.path.isdir(pattern):
        with os.scandir(pattern) as entries:
            files = [os.path.join(pattern, entry.name) for entry in entries if _is_wanted(entry)]
        found = "a folder without files"
    elif os.path.lexists(pattern):
        files, found = [pattern], "nothing"
    else:
        files = [path for path in glob.glob(pattern, recursive=True) if os.path.isfile(path)]
        found = "no file of this name" if glob.escape(pattern) == pattern else "no file that matches"
    if not files:
        raise InputError(source, found, "a file, a pattern that matches files, or a folder with files")
    strange = next((path for path in files if not path.isprintable()), None)
    if strange is not None:
        raise InputError(repr(strange), "a name with control characters or undecodable bytes", "a printable file name")
    # Sorted by plain text first, so that names that are equal in natural order (01 and 1) have a fixed order, too.
    return natsorted(sorted(files))


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    # A broken link is kept, so that reading reports it by name.
    return not entry.name.startswith(".") and (entry.is_file() or (entry.is_symlink() and not entry.is_dir()))
