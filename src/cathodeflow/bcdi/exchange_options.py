"""Options of the exchange of prepared patterns and objects with other programs."""

from typing import Literal

from cathodeflow.options import Options, option

#: Files of each format: those of the pattern, and that of the object.
EXPORT_FILES = {
    "npz": ("pynx_data.npz", "pynx_mask.npz", "object.npz"),
    "cxi": ("pattern.cxi", "object.cxi"),
}


class Export(Options):
    """Pattern and best object as files for other programs: PyNX, bcdi, cdiutils."""

    formats: tuple[Literal["npz", "cxi"], ...] = option(
        (),
        "Formats: `npz` (bcdi, cdiutils), `cxi` (PyNX and other programs). Default: none, no files are written for "
        "other programs.",
    )


class ImportPattern(Options):
    """Pattern that PyNX, bcdi or cdiutils has prepared -> diffraction amplitudes."""

    binning: tuple[int, ...] = option(
        (1, 1, 1),
        "Frames, rows and columns that the other program binned to one, for the geometry.",
        min_length=3,
        max_length=3,
    )
