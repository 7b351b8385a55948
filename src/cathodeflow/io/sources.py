"""The raw files of a sample, named by one string. Light to import: the workflow calls it while it is being read."""

import glob
import os
import re

from natsort import natsorted

from cathodeflow.errors import InputError

_HDF5 = (".h5", ".hdf5", ".hdf", ".nxs", ".cxi")
# An address of one file: no user, password or signature, no pattern, nothing that a shell would read.
_ADDRESS = re.compile(r"(?:https?://[\w.-]+(?::\d+)?|s3://[\w.-]+)/[\w.~/%+,=-]*[\w.~%+,=-]")


def is_remote(source: str) -> bool:
    """Whether a source is an address, which Snakemake fetches before a job.

    Examples
    --------
    >>> is_remote("s3://beamtime/scan.h5::/entry/data/data"), is_remote("raw/scan.h5")
    (True, False)
    """
    return source.startswith(("http://", "https://", "s3://"))


def split_source(source: str) -> tuple[str, str | None]:
    """Split `pattern::/dataset/path` into the pattern and the path of an HDF5 dataset, None where there is none.

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
        A file, a glob pattern, or a folder (its regular files that are not hidden, without those of its subfolders),
        each with an optional `::/dataset/path`. The address of one file stands for itself: it is not asked for.

    Raises
    ------
    InputError
        Nothing is found, or an address is not of one file, or holds a secret.
    """
    pattern, _ = split_source(source)
    if is_remote(pattern):
        if not _ADDRESS.fullmatch(pattern):
            # Not the address itself: it may hold a password.
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
    # Sorted by plain text first, so that names that natural order holds equal (01 and 1) have one order too.
    return natsorted(sorted(files))


def files_read(source: str) -> list[str]:
    """List the files of a source and those that HDF5 files among them link to; errors are those of `list_files`."""
    files, dataset = list_files(source), split_source(source)[1]
    if is_remote(source):
        return files
    masters = files if dataset else [file for file in files if file.lower().endswith(_HDF5)]
    if masters:
        # Takes longer to import than all else that the workflow needs to be read.
        from cathodeflow.io.hdf5_frames import linked_files

        files += [linked for master in masters for linked in linked_files(master, dataset)]
    return list(dict.fromkeys(files))


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    # A dangling link is kept, so that reading complains about it by name.
    return not entry.name.startswith(".") and (entry.is_file() or (entry.is_symlink() and not entry.is_dir()))
