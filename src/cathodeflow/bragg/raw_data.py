"""Raw files of a scan, measured or simulated by the workflow."""

import shlex
from collections.abc import Mapping

from cathodeflow.bragg.options import Scan, Section
from cathodeflow.bragg.peak_options import EXPORT_SUFFIXES, Export, Frames, Measure, Simulate
from cathodeflow.io.sources import files_read
from cathodeflow.series import ordered

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
    """Return the sources of the dark image, flat field, mask and table of angles, where given."""
    return {kind: path for kind, path in (given_files(scan) | _simulated_corrections(scan)).items() if path}


def given_files(scan: Scan) -> dict[str, str]:
    """Return the sources of the same kinds that the sample sheet names and that are used."""
    given = {kind: getattr(scan, kind) for kind in ("dark", "flat", "mask", "omega")}
    return {kind: path for kind, path in given.items() if path and kind not in _simulated_corrections(scan)}


def _simulated_corrections(scan: Scan) -> dict[str, str]:
    if not scan.simulated:
        return {}
    files = {"dark": "dark.tif", "mask": "mask.tif"} | ({} if scan.omega else {"omega": "omega.csv"})
    return {kind: f"{RAW}/{scan.sample}/{file}" for kind, file in files.items()}


def geometry_source(scan: Scan) -> str | None:
    """Return the geometry file of a scan: that of the sample sheet, or that of the simulation."""
    return scan.geometry or (f"{RAW}/{scan.sample}/geometry.poni" if scan.simulated else None)


def correction_files(scan: Scan) -> list[str]:
    """List the files of the dark image, flat field, mask and table of angles."""
    simulated = _simulated_corrections(scan)
    given = corrections(scan).items()
    return [file for kind, path in given for file in ([path] if kind in simulated else files_read(path))]


def correction_flags(scan: Scan) -> str:
    """Write the flags of `cathodeflow bragg frames` for the files beside the frames.

    Examples
    --------
    >>> correction_flags(Scan(sample="a", frames="a/*.tif", dark="my dark.tif"))
    "--dark 'my dark.tif'"
    """
    return " ".join(f"--{kind} {shlex.quote(given)}" for kind, given in corrections(scan).items())


def energy_flag(scan: Scan) -> str:
    """Write the flag of `cathodeflow bragg frames` for the photon energy, if the sample sheet has one."""
    return "" if scan.energy_kev is None else f"--energy-kev {scan.energy_kev}"


def frames_options(scan: Scan, options: Frames) -> Frames:
    """Return the options of `bragg.frames` with the range of frames of a scan.

    Examples
    --------
    >>> chosen = frames_options(Scan(sample="a", frames="a.h5", stop=40), Frames(start=10, stop=20))
    >>> chosen.start, chosen.stop, chosen.step
    (10, 40, 1)
    """
    given = {name: getattr(scan, name) for name in ("start", "stop", "step") if getattr(scan, name) is not None}
    return options.model_copy(update=given)


def measure_options(scan: Scan, section: Section) -> Measure:
    """Return the options of `bragg.measure` for a scan: those of the stages that it joins."""
    frames = frames_options(scan, section.frames)
    return Measure(frames=frames, find_peaks=section.find_peaks, fit=section.fit)


def truth_files(scan: Scan) -> list[str]:
    """Return the table of the true positions of a simulated scan; nothing for a measured scan."""
    return [f"{RAW}/{scan.sample}/truth.parquet"] if scan.simulated else []


def series(scans: Mapping[str, Scan]) -> list[str]:
    """Return the names of the scans with a state of charge, in its order; none if it is a single one.

    Examples
    --------
    >>> given = {"b": 0.8, "a": 0.1, "c": None}
    >>> series({name: Scan(sample=name, frames="*.tif", state_of_charge=charge) for name, charge in given.items()})
    ['a', 'b']
    """
    return ordered({name: scan.state_of_charge for name, scan in scans.items()})


def export_files(options: Export) -> list[str]:
    """Return the names of the files of a scan for other programs.

    Examples
    --------
    >>> export_files(Export(formats=("imaged11", "nexus")))
    ['peaks.flt', 'peaks.nxs', 'spots.flt', 'spots.nxs']
    """
    return [f"{name}{EXPORT_SUFFIXES[kind]}" for name in ("peaks", "spots") for kind in options.formats]
