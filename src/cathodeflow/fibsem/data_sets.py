"""Where the files of simulated volumes lie. Light to import: the workflow calls it while it is being read."""

from typing import Any


def simulated_files(folder: str, options: Any) -> tuple[list[str], list[str]]:
    """Name the slices and the labels that the simulation of a volume writes, for its options `Simulate`.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> simulated_files("raw", SimpleNamespace(n_slices=1))
    (['raw/slices/slice_0000.tif'], ['raw/labels/slice_0000.tif'])
    """
    slices, labels = (
        [f"{folder}/{part}/slice_{number:04d}.tif" for number in range(options.n_slices)]
        for part in ("slices", "labels")
    )
    return slices, labels
