"""Where the files of simulated scans lie. Light to import: the workflow calls it while it is being read."""

from typing import Any


def simulated_files(folder: str, options: Any) -> dict[str, Any]:
    """Name the files that the simulation of a scan writes, for its options `SimulateScan`, by column of the sheet.

    `frames` are several; `truth` is no column.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> simulated_files("raw", SimpleNamespace(frames=1))["frames"]
    ['raw/frames/frame_00000.tif']
    """
    frames = [f"{folder}/frames/frame_{number:05d}.tif" for number in range(options.frames)]
    others = {"dark": "dark.tif", "whitefield": "whitefield.tif", "mask": "mask.tif", "geometry": "geometry.yaml",
              "truth": "truth.cxi"}  # fmt: skip
    return {"frames": frames, **{name: f"{folder}/{file}" for name, file in others.items()}}
