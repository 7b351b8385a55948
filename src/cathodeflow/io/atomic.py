"""Outputs appear whole or not at all, and once."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cathodeflow.cluster import is_first_process


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary name beside `path`; rename it to `path` when the block ends well.

    The temporary name has the suffix of `path`, so writers that choose a format by suffix work. A file or a directory
    may be made at it. When the block raises, what stands at the temporary name is removed and `path` is left as it was.

    Parameters
    ----------
    path : path
        Final name; missing parent folders are made. Of several processes that train together, the first makes it.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:80]}.", dir=path.parent))
    temporary = folder / f"partial{path.suffix}"
    try:
        yield temporary
        if not is_first_process():
            return
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
