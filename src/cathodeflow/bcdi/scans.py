"""Rocking scans of the sample sheet: columns, files, and the geometry. Light to import: the workflow reads it."""

from typing import TYPE_CHECKING, Any, Literal

from cathodeflow.errors import InputError, InputErrors
from cathodeflow.io.sources import is_remote
from cathodeflow.options import option
from cathodeflow.samples import SAMPLE_NAME, source_errors
from cathodeflow.series import SeriesSample

if TYPE_CHECKING:
    from cathodeflow.io.scan_logs import ScanLog

SIMULATED = "simulated"
#: Routes to a reconstruction, by role: iterative phasing from random starts, and refinement of a network prediction.
ROUTES = {"measure": ("phase", "refine"), "phase": ("phase",), "predict": ("refine",)}
_CORRECTIONS = ("dark", "whitefield", "mask", "spec", "geometry")


class Scan(SeriesSample):
    """A rocking scan of one Bragg peak of one particle."""

    role: Literal["measure", "phase", "predict"] = option(
        "measure",
        "`phase`: iterative phase retrieval from random starts; `predict`: network prediction, refined iteratively; "
        "`measure`: both.",
    )
    frames: str = option(
        ..., "Raw frames: a folder, a glob pattern or a file; or `simulated`: made by `bcdi_simulate_scan`."
    )
    dark: str | None = option(
        None, "Dark frame, or several that are averaged; as large as the frames or as the whole detector."
    )
    whitefield: str | None = option(
        None, "Flat field (image under uniform illumination); as large as the frames or as the whole detector."
    )
    mask: str | None = option(
        None, "Mask that is 0 at pixels to exclude: one image, or one for each frame; as large as the frames."
    )
    spec: str | None = option(
        None,
        "File with the motors of the scan, for the geometry and the true position of each frame: SPEC, fio (P10), or "
        "HDF5 and NeXus.",
    )
    scan: int | None = option(None, "Number of the scan in the file of the motors.", ge=0)
    geometry: str | None = option(
        None,
        "YAML or JSON file with the geometry, such as `beamline: P10`; its keys are the options of `bcdi.strain`, "
        "`angles` and `steps`. It overrides the file of the motors.",
    )
    temperature: float | None = option(None, "Temperature of the sample.", unit="degC", gt=-273.15)
    voltage: float | None = option(None, "Voltage of the cell.", unit="V")
    series: str = option(
        "all",
        "Name of the series of a particle, if the sheet has scans of several: `bcdi.series` compares the scans of a "
        "series.",
        pattern=f"^{SAMPLE_NAME}$",
    )

    @property
    def simulated(self) -> bool:
        """Whether the workflow simulates the raw frames."""
        return self.frames == SIMULATED

    @property
    def routes(self) -> tuple[str, ...]:
        """Routes to a reconstruction that the role selects: `phase`, `refine` or both."""
        return ROUTES[self.role]


def simulated_files(folder: str, n_frames: int) -> dict[str, Any]:
    """Name the files of a simulated scan by their column of the sample sheet.

    Parameters
    ----------
    folder : str
    n_frames : int

    Returns
    -------
    dict
        Paths; `frames` is a list of them, and `truth`, the true object, is no column.

    Examples
    --------
    >>> simulated_files("raw", 1)["frames"]
    ['raw/frames/frame_00000.tif']
    """
    frames = [f"{folder}/frames/frame_{number:05d}.tif" for number in range(n_frames)]
    others = {"dark": "dark.tif", "whitefield": "whitefield.tif", "mask": "mask.tif", "geometry": "geometry.yaml",
              "truth": "truth.cxi"}  # fmt: skip
    return {"frames": frames, **{name: f"{folder}/{file}" for name, file in others.items()}}


def scan_log(path: str | None, number: int | None) -> "ScanLog | None":
    """Read the motors of a scan; None without a file.

    Raises
    ------
    InputError
        The file has several scans and no number is given, or no such scan.
    """
    from cathodeflow.io.scan_logs import read_scan_log

    return None if path is None else read_scan_log(path, number)


def sheet_errors(where: str, scan: Scan) -> list[InputError]:
    """Find what is wrong in a row of the sample sheet; `where` names the row."""
    errors = []
    if scan.simulated:
        given = [column for column in _CORRECTIONS if getattr(scan, column)]
        if given:
            errors.append(InputError(where, f"{', '.join(given)} of a simulated scan", "no value: they are simulated"))
        return errors
    if scan.spec is None and scan.scan is not None:
        errors.append(InputError(where, "scan without spec", "the file that has the scan of this number"))
    return errors + source_errors(where, {column: getattr(scan, column) for column in ("frames", *_CORRECTIONS)})


def require_readable(samples: dict[str, Scan], sheet: str) -> None:
    """Read the headers of all local frames and the motors of the scans, and compare their numbers.

    Raises
    ------
    InputError
        One line for each file that cannot be used.
    """
    from cathodeflow.io.frames import open_series
    from cathodeflow.io.rocking_scans import scan_source

    errors = []
    for name, scan in samples.items():
        try:
            n_frames = None
            if not scan.simulated and not is_remote(scan.frames):
                n_frames = open_series(scan_source(scan.frames, scan.scan)).n_frames
                if n_frames < 2:
                    raise InputError(scan.frames, "one frame", "a rocking scan of many frames")
            if scan.spec is not None and not is_remote(scan.spec) and (log := scan_log(scan.spec, scan.scan)):
                log.require_points(n_frames)
        except InputError as error:
            errors += [
                InputError(f"{sheet}: scan '{name}': {each.where}", each.found, each.expected) for each in error.errors
            ]
    if errors:
        raise InputErrors.of(errors)
