"""Raw files of a scan, measured or simulated by the workflow."""

import shlex

from cathodeflow.bragg.options import Scan, Simulate
from cathodeflow.io.sources import files_read

RAW = "results/raw/bragg"


def source(scan: Scan, simulate: Simulate) -> str:
    """Return the source of the raw frames, as `cathodeflow bragg frames` takes it."""
    if not scan.simulated:
        return scan.frames
    pattern = "frame_*.tif" if simulate.format == "tiff" else "frames.h5::/entry/data/data"
    return f"{RAW}/{scan.sample}/{pattern}"


def simulated_files(simulate: Simulate) -> list[str]:
    """Return the names of the raw files of a simulated scan."""
    return (
        [f"frame_{index:05d}.tif" for index in range(simulate.n_frames)] if simulate.format == "tiff" else ["frames.h5"]
    )


def raw_files(scan: Scan, simulate: Simulate) -> list[str]:
    """List the raw files, so that Snakemake detects changes of each of them."""
    if scan.simulated:
        return [f"{RAW}/{scan.sample}/{file}" for file in simulated_files(simulate)]
    return files_read(scan.frames)


def corrections(scan: Scan) -> dict[str, str]:
    """Return the sources of the dark image and the mask, where given."""
    if scan.simulated:
        return {kind: f"{RAW}/{scan.sample}/{kind}.tif" for kind in ("dark", "mask")}
    return {kind: given for kind, given in (("dark", scan.dark), ("mask", scan.mask)) if given}


def correction_files(scan: Scan) -> list[str]:
    """List the files of the dark image and the mask."""
    if scan.simulated:
        return list(corrections(scan).values())
    return [file for given in corrections(scan).values() for file in files_read(given)]


def correction_flags(scan: Scan) -> str:
    """Write the flags of `cathodeflow bragg frames` for the dark image and the mask.

    Examples
    --------
    >>> correction_flags(Scan(sample="a", frames="a/*.tif", dark="my dark.tif"))
    "--dark 'my dark.tif'"
    """
    return " ".join(f"--{kind} {shlex.quote(given)}" for kind, given in corrections(scan).items())


def truth_files(scan: Scan) -> list[str]:
    """Return the table of the true positions of a simulated scan; nothing for a measured scan."""
    return [f"{RAW}/{scan.sample}/truth.parquet"] if scan.simulated else []
