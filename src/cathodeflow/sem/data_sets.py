"""Files of simulated data sets. Light to import: the workflow calls it while it is being read."""

from collections.abc import Iterable
from typing import Any

#: Classes of simulated data sets; those without a state are pristine.
COMPOSITIONS, STATES = ("333", "523", "622", "811"), ("formation", "cycled")


def simulated_files(folder: str, options: Any) -> list[str]:
    """Name the images and sidecars of a simulated labelled data set, for the options `Simulate`."""
    classes = [name for composition in COMPOSITIONS for name in (composition, *(f"{composition}_{s}" for s in STATES))]
    names = [f"{name}/{name}_{number:03d}" for name in classes for number in range(options.n_images)]
    return _with_sidecars(folder, names, options.format)


def unlabelled_files(folder: str, options: Any) -> list[str]:
    """Name the images and sidecars of a simulated data set without labels.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> unlabelled_files("raw", SimpleNamespace(n_images=1, format="jpeg"))
    ['raw/additive_000.jpg', 'raw/additive_000.jpg.txt']
    """
    return _with_sidecars(folder, [f"additive_{number:03d}" for number in range(options.n_images)], options.format)


def _with_sidecars(folder: str, names: Iterable[str], format: str) -> list[str]:
    files = [f"{folder}/{name}.{'jpg' if format == 'jpeg' else 'tif'}" for name in names]
    return [path for file in files for path in (file, f"{file}.txt")]
