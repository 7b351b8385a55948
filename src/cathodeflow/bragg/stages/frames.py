"""Stage: correct and bin the raw frames of a scan."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cathodeflow.bragg.peak_options import Frames
from cathodeflow.bragg.prepared_frames import prepared_frame
from cathodeflow.bragg.raw_scan import each_frame, open_scan, report
from cathodeflow.errors import InputError
from cathodeflow.io.frames import unless_bad
from cathodeflow.io.frames_writer import write_frames
from cathodeflow.parallel import thread_count
from cathodeflow.progress import progress
from cathodeflow.stage import Metrics, OutputFile, Source, stage


@stage("bragg.frames")
def frames(
    source: Source,
    *,
    out: OutputFile,
    dark: Source | None = None,
    flat: Source | None = None,
    mask: Source | None = None,
    omega: Source | None = None,
    energy_kev: float | None = None,
    options: Frames,
) -> Metrics:
    """Correct and bin the raw frames of SOURCE: a file, a folder, a glob pattern, or FILE.h5::/DATASET.

    Parameters
    ----------
    source : path
        Raw frames.
    out : path
        Frames file to write (frames.h5).
    dark : path
        Dark image, or a series of dark images, whose mean is subtracted.
    flat : path
        Flat field, dark subtracted, or a series of them: the frames are divided by their mean, scaled to a median of 1.
        Pixels at which it is not above 0 are bad.
    mask : path
        Mask image: 0 at good pixels, any other value at bad pixels and gaps; the other way round with `--invert-mask`.
        `FILE.h5::/DATASET` may lie in the file of the frames; its own `pixel_mask` is used without this option.
    omega : path
        Orientation angle of the sample, and the photon energy, of each raw frame, instead of those in the raw files:
        a table with the columns `omega` [deg], `energy_kev` or both; FILE.h5::/DATASET; or FILE::NUMBER, a scan of a
        SPEC file.
    energy_kev : float
        Photon energy of all frames [keV], instead of that in the raw files.

    Raises
    ------
    InputError
        A line for every file or frame that cannot be used, and for a dark image, flat field, mask or table that does
        not fit.
    """
    scan = open_scan(source, options, dark=dark, flat=flat, mask=mask, omega=omega, energy_kev=energy_kev)
    bad: list[InputError] = []

    def correct(number: int, raw: NDArray[Any]) -> tuple[int, NDArray[np.float32]]:
        return number, prepared_frame(number, raw, scan.correction)

    corrected = each_frame(scan, correct, workers=thread_count(), bad=bad)
    if options.on_bad_file == "fail":
        corrected = unless_bad(corrected, bad)
    counted = write_frames(out, progress(corrected, "frames", total=len(scan.wanted)), **scan.layout())
    written, invalid, saturated = counted
    return Metrics(report(scan, bad, written=written, invalid=invalid, saturated=saturated))
