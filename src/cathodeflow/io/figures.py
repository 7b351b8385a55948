"""Write figures; equal figures give equal bytes."""

import os
from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from cathodeflow.errors import InputError
from cathodeflow.io.atomic import atomic_path

# Without date and version of Matplotlib, which would change the file without changing the figure.
_WITHOUT_METADATA = {
    ".png": {"Software": None},
    ".svg": {"Date": None, "Creator": None},
    ".pdf": {"CreationDate": None},
}


def save_figure(path: str | os.PathLike[str], figure: Figure, *, dpi: int = 200) -> None:
    """Save a figure as PNG or SVG, according to the suffix of `path`.

    Parameters
    ----------
    path : path
    figure : Figure
    dpi : int
        Resolution of a PNG, and of images in an SVG [dots/inch].

    Raises
    ------
    InputError
        The suffix is not supported.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in _WITHOUT_METADATA:
        raise InputError(path, f"the suffix '{suffix}'", "one of " + ", ".join(_WITHOUT_METADATA))
    # SVG names its parts by salted hashes; a fixed salt makes them reproducible.
    with atomic_path(path) as temporary, rc_context({"svg.hashsalt": "cathodeflow", "svg.fonttype": "none"}):
        figure.savefig(temporary, dpi=dpi, metadata=_WITHOUT_METADATA[suffix])
